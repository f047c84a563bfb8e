//! Prints one file of a branch that the forge showed, in a child process. Never a link, never what was pushed.

use std::io::Write;
use std::path::Path;

use git2::{ErrorCode, ObjectType};

use crate::repository::policy;
use crate::repository::script::LARGEST;

/// `+` and the content, or nothing when the branch has no such file.
pub(super) fn run(directory: &Path, reference: &str, path: &str, output: &mut impl Write) -> Result<(), String> {
    super::enter(directory)?;
    let refs = crate::repository::bare::read_refs(&directory.join(policy::STORE)).map_err(|error| error.to_string())?;
    let shown = refs
        .iter()
        .find(|shown| shown.name == reference)
        .ok_or_else(|| format!("the forge shows no {reference}"))?;
    let content = read(directory, shown.target.as_str(), path).map_err(|error| error.message().to_owned())?;
    let Some(content) = content else { return Ok(()) };
    output
        .write_all(b"+")
        .and_then(|()| output.write_all(&content))
        .and_then(|()| output.flush())
        .map_err(|error| error.to_string())
}

fn read(directory: &Path, commit: &str, path: &str) -> Result<Option<Vec<u8>>, git2::Error> {
    let repository = super::open(directory)?;
    let commit = repository.find_commit(git2::Oid::from_str(commit)?)?;
    let entry = match commit.tree()?.get_path(Path::new(path)) {
        Ok(entry) => entry,
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if entry.kind() != Some(ObjectType::Blob) || !matches!(entry.filemode(), 0o100_644 | 0o100_755) {
        return Err(git2::Error::from_str("it is no plain file"));
    }
    let (size, _) = repository.odb()?.read_header(entry.id())?;
    if size > LARGEST {
        return Err(git2::Error::from_str("it is larger than 262144 bytes"));
    }
    Ok(Some(repository.find_blob(entry.id())?.content().to_vec()))
}
