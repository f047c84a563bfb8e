//! Bare repositories, written by hand: every line of their configuration is ours, and no template, default or old setting gets in.
//!
//! Also reads and writes their references as one `packed-refs` file. Never touches an object.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::RepositoryError;
use crate::grant::ShownRef;
use crate::message::{BranchName, CommitId};

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

/// Sets one reference, to a commit, in the one file that holds all. Only for whoever keeps all others from writing there.
pub(super) fn set_packed_ref(repository: &Path, name: &str, commit: &CommitId) -> Result<(), RepositoryError> {
    let path = repository.join("packed-refs");
    let text = fs::read_to_string(&path).map_err(RepositoryError::state("read", &path))?;
    write_whole(&path, with_ref(&text, name, commit).as_bytes())
}

/// As git wants it: sorted by the bytes of the names, each perhaps followed by the line of what a tag points at.
fn with_ref(text: &str, name: &str, commit: &CommitId) -> String {
    let new = format!("{commit} {name}\n");
    let mut made = String::with_capacity(text.len() + new.len());
    let mut is_written = false;
    let mut is_replaced = false;
    for line in text.lines() {
        // A tag's second line goes where its first went.
        if line.starts_with('^') {
            if !is_replaced {
                made.push_str(line);
                made.push('\n');
            }
            continue;
        }
        let has = line
            .split_once(' ')
            .filter(|_| !line.starts_with('#'))
            .map(|(_, has)| has);
        is_replaced = has == Some(name);
        if !is_written && has.is_some_and(|has| has >= name) {
            made.push_str(&new);
            is_written = true;
        }
        if !is_replaced {
            made.push_str(line);
            made.push('\n');
        }
    }
    if !is_written {
        made.push_str(&new);
    }
    made
}

/// Whether a reference stands in a file of its own. Never follows a link.
pub(super) fn has_loose_refs(repository: &Path) -> Result<bool, RepositoryError> {
    let mut directories = vec![repository.join("refs")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).map_err(RepositoryError::state("list", &directory))? {
            let entry = entry.map_err(RepositoryError::state("list", &directory))?;
            let kind = entry
                .file_type()
                .map_err(RepositoryError::state("look at", &entry.path()))?;
            if !kind.is_dir() {
                return Ok(true);
            }
            directories.push(entry.path());
        }
    }
    Ok(false)
}

/// The commit of a branch: the loose reference if there is one, else the packed.
pub(super) fn read_branch(repository: &Path, branch: &BranchName) -> Result<Option<CommitId>, RepositoryError> {
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
    fn a_reference_is_set_at_its_place() {
        let (old, new) = ("a".repeat(40), "b".repeat(40));
        let text =
            format!("# pack-refs with: peeled fully-peeled sorted \n{old} refs/heads/b\n{old} refs/tags/v1\n^{old}\n");
        let commit: CommitId = new.parse().unwrap();
        let lines = |name: &str| {
            let made = with_ref(&text, name, &commit);
            made.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        let (b, tag, peeled) = (
            format!("{old} refs/heads/b"),
            format!("{old} refs/tags/v1"),
            format!("^{old}"),
        );
        let set = |name: &str| format!("{new} {name}");
        let expect = [
            (
                "refs/heads/a",
                vec![set("refs/heads/a"), b.clone(), tag.clone(), peeled.clone()],
            ),
            ("refs/heads/b", vec![set("refs/heads/b"), tag.clone(), peeled.clone()]),
            (
                "refs/heads/c",
                vec![b.clone(), set("refs/heads/c"), tag.clone(), peeled.clone()],
            ),
            ("refs/tags/v1", vec![b.clone(), set("refs/tags/v1")]),
            ("refs/tags/v2", vec![b, tag, peeled, set("refs/tags/v2")]),
        ];
        for (name, lines_expected) in expect {
            assert_eq!(lines(name), lines_expected, "{name}");
        }
        assert_eq!(with_ref("", "refs/heads/a", &commit), format!("{new} refs/heads/a\n"));
    }

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
