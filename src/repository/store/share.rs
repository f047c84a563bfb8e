//! A session's objects once more, for its sandbox to read: a bare repository of hard links in a directory that is mounted there read-only.
//!
//! Holds what the object store holds, some of it twice to be quick to check out: a sandbox finds nothing in it that it could not fetch. Copies no
//! object: where links cannot be made, nothing is shared and the sandbox clones through the gateway.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::ObjectStore;
use crate::message::BranchName;
use crate::repository::{RepositoryError, bare};

/// Directories and files as the sandbox's user must find them, whatever the umask of who made them. Above them stands a directory that no
/// other user of the machine passes.
const DIRECTORY: u32 = 0o755;
const FILE: u32 = 0o444;
/// The file that says that the tree of `HEAD` is there a second time, to be quick to check out.
const PREPARED: &str = "prepared";

impl ObjectStore {
    /// Makes the repository in `to`, which must not exist; what a failure left is the caller's to remove. Blocking.
    pub(in crate::repository) fn share(&self, to: &Path, head: &BranchName) -> Result<(), RepositoryError> {
        bare::write_bare(to, "", head)?;
        for name in ["HEAD", "config"] {
            open(&to.join(name), FILE)?;
        }
        for name in ["refs", "refs/heads", "refs/tags"] {
            open(&to.join(name), DIRECTORY)?;
        }
        let (refs, shown) = (self.path.join("packed-refs"), to.join("packed-refs"));
        fs::copy(&refs, &shown).map_err(RepositoryError::state("copy", &refs))?;
        open(&shown, FILE)?;
        link(&self.path.join("objects"), &to.join("objects"))?;
        let prepared = self.prepared();
        if prepared.exists() {
            link(&prepared, &to.join("objects/pack"))?;
            let mark = to.join(PREPARED);
            fs::write(&mark, b"").map_err(RepositoryError::state("write", &mark))?;
            open(&mark, FILE)?;
        }
        open(to, DIRECTORY)
    }
}

/// Every file of an object store is ours to show: what does not belong there was left out when it was made.
fn link(from: &Path, to: &Path) -> Result<(), RepositoryError> {
    fs::create_dir_all(to).map_err(RepositoryError::state("make the directory", to))?;
    open(to, DIRECTORY)?;
    for entry in fs::read_dir(from).map_err(RepositoryError::state("list", from))? {
        let entry = entry.map_err(RepositoryError::state("list", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(RepositoryError::state("look at", &source))?;
        if kind.is_dir() {
            link(&source, &target)?;
        } else if kind.is_file() {
            fs::hard_link(&source, &target).map_err(RepositoryError::state("link", &source))?;
            open(&target, FILE)?;
        }
    }
    Ok(())
}

fn open(path: &Path, mode: u32) -> Result<(), RepositoryError> {
    let has = fs::metadata(path)
        .map_err(RepositoryError::state("look at", path))?
        .permissions()
        .mode()
        & 0o777;
    if has == mode {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(RepositoryError::state("open", path))
}
