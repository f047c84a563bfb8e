//! Bare repositories, written by hand: every line of their configuration is ours, and no template, default or old setting gets in.
//!
//! Also reads and writes their references as one `packed-refs` file. Never touches an object.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::RepositoryError;
use crate::grant::ShownRef;
use crate::message::BranchName;

/// Largest list of references that is read: some 500,000 branches.
const LARGEST_REFS: u64 = 64 * 1024 * 1024;

/// What every repository of this room is told.
const COMMON: &str = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tlogAllRefUpdates = false\n\tpackedGitLimit = 512m\n\
\tpackedGitWindowSize = 32m\n[gc]\n\tauto = 0\n\tpackRefs = false\n[maintenance]\n\tauto = false\n[pack]\n\tthreads = 2\n\twindowMemory = 256m\n\
[repack]\n\tupdateServerInfo = false\n";

/// Makes the directories and files of a bare repository, or brings an existing one's settings up to date.
pub(super) fn write_bare(path: &Path, settings: &str, head: &BranchName) -> Result<(), RepositoryError> {
    for directory in ["objects/pack", "objects/info", "refs/heads", "refs/tags"] {
        let directory = path.join(directory);
        fs::create_dir_all(&directory).map_err(RepositoryError::state("make the directory", &directory))?;
    }
    write_if_different(&path.join("config"), format!("{COMMON}{settings}").as_bytes())?;
    // HEAD last: git takes a directory for a repository only when it is there.
    write_if_different(&path.join("HEAD"), format!("ref: refs/heads/{head}\n").as_bytes())
}

/// Replaces a file whole, and only when its content is another.
pub(super) fn write_if_different(path: &Path, content: &[u8]) -> Result<(), RepositoryError> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    write_whole(path, content)
}

/// Writes a file so that a reader sees all of it or nothing. Not made durable: what a power cut leaves is made anew.
pub(super) fn write_whole(path: &Path, content: &[u8]) -> Result<(), RepositoryError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", uuid::Uuid::new_v4().simple()));
    let new = Path::new(&name);
    let written = fs::File::create_new(new)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(new, path));
    if written.is_err() {
        // Best effort: what counts is the first failure.
        let _ = fs::remove_file(new);
    }
    written.map_err(RepositoryError::state("write", path))
}

/// The references of a repository whose loose ones were packed.
pub(super) fn read_refs(repository: &Path) -> Result<Vec<ShownRef>, RepositoryError> {
    let path = repository.join("packed-refs");
    let size = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RepositoryError::state("read", &path)(error)),
    };
    if size > LARGEST_REFS {
        return Err(RepositoryError::Answer {
            act: "list the references",
            limit: usize::try_from(LARGEST_REFS).unwrap_or(usize::MAX),
        });
    }
    let text = fs::read(&path).map_err(RepositoryError::state("read", &path))?;
    Ok(parse_refs(&String::from_utf8_lossy(&text)))
}

/// Reads `packed-refs`: a comment, then `id name` lines, each perhaps followed by the commit that a tag points at.
fn parse_refs(text: &str) -> Vec<ShownRef> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(id, name)| {
            Some(ShownRef {
                name: name.to_owned(),
                target: id.parse().ok()?,
            })
        })
        .collect()
}

/// The commit of a branch: the loose reference if there is one, else the packed.
pub(super) fn read_branch(
    repository: &Path,
    branch: &BranchName,
) -> Result<Option<crate::message::CommitId>, RepositoryError> {
    let loose = repository.join("refs/heads").join(branch.as_str());
    match fs::read_to_string(&loose) {
        Ok(text) => return Ok(text.trim().parse().ok()),
        // A directory stands there when only `branch/x` exists.
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory | std::io::ErrorKind::NotADirectory
            ) => {}
        Err(error) => return Err(RepositoryError::state("read", &loose)(error)),
    }
    let name = format!("refs/heads/{branch}");
    Ok(read_refs(repository)?
        .into_iter()
        .find(|shown| shown.name == name)
        .map(|shown| shown.target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_references_are_read_without_comments_and_peeled_lines() {
        let id = "a".repeat(40);
        let refs = parse_refs(&format!(
            "# pack-refs with: peeled fully-peeled sorted \n{id} refs/heads/main\n{id} refs/tags/v1\n^{id}\nbroken refs/heads/x\n"
        ));
        let names: Vec<_> = refs.iter().map(|shown| shown.name.as_str()).collect();
        assert_eq!(names, ["refs/heads/main", "refs/tags/v1"]);
    }
}
