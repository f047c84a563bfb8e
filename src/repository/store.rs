//! A session's object store: a bare repository of its own, whose packs are hard links of the mirror's.
//!
//! It shows exactly the references that the session's token was shown, stays whole whatever the mirror does later, and holds nothing that
//! the agent made. Nothing is ever written into it after it was made.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{RepositoryError, bare};
use crate::message::BranchName;

mod share;

/// The object store of one session for one project.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    path: PathBuf,
}

impl ObjectStore {
    /// The bare repository.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Links a mirror's objects. Blocking; the mirror is held by its lock.
    pub(super) fn create(mirror: &Path, path: PathBuf, head: &BranchName) -> Result<Self, RepositoryError> {
        bare::write_bare(&path, "", head)?;
        let (from, to) = (mirror.join("objects"), path.join("objects"));
        link_directory(&from, &to, is_wanted)?;
        let refs = mirror.join("packed-refs");
        // A copy, not a link: git replaces this file, but nothing promises that it always will.
        fs::copy(&refs, path.join("packed-refs")).map_err(RepositoryError::state("copy", &refs))?;
        Ok(Self { path })
    }

    /// Links what was prepared of the commit that the session begins with, for [`ObjectStore::share`]; here it would only be in git's way. What is
    /// not there, or cannot be linked, is done without. Blocking.
    pub(super) fn take_prepared(&self, prepared: &Path) -> Result<(), RepositoryError> {
        let Ok(entries) = fs::read_dir(prepared) else {
            return Ok(());
        };
        let own = self.prepared();
        fs::create_dir_all(&own).map_err(RepositoryError::state("make the directory", &own))?;
        for entry in entries.flatten() {
            let file = own.join(entry.file_name());
            // git looks into the youngest pack first.
            let linked = fs::hard_link(entry.path(), &file)
                .and_then(|()| fs::File::open(&file)?.set_modified(std::time::SystemTime::now()));
            if linked.is_err() {
                return fs::remove_dir_all(&own).map_err(RepositoryError::state("remove the directory", &own));
            }
        }
        Ok(())
    }

    fn prepared(&self) -> PathBuf {
        self.path.join("prepared")
    }
}

/// Objects and the indexes that make them quick to find; no `.keep` marks, no half-written files, no alternates.
fn is_wanted(name: &str) -> bool {
    let object = name.len() == 38 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    object
        || name == "commit-graph"
        || name == "commit-graph-chain"
        || (name.starts_with("graph-") && name.ends_with(".graph"))
        || (name.starts_with("pack-")
            && [".pack", ".idx", ".rev", ".bitmap"]
                .iter()
                .any(|end| name.ends_with(end)))
}

fn link_directory(from: &Path, to: &Path, wanted: fn(&str) -> bool) -> Result<(), RepositoryError> {
    for entry in fs::read_dir(from).map_err(RepositoryError::state("list", from))? {
        let entry = entry.map_err(RepositoryError::state("list", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(RepositoryError::state("look at", &source))?;
        if kind.is_dir() {
            fs::create_dir_all(&target).map_err(RepositoryError::state("make the directory", &target))?;
            link_directory(&source, &target, wanted)?;
        } else if kind.is_file() && wanted(&entry.file_name().to_string_lossy()) {
            link_or_copy(&source, &target)?;
        }
    }
    Ok(())
}

/// A link where the file system can; a copy across devices, or where a file has as many links as it may have.
fn link_or_copy(source: &Path, target: &Path) -> Result<(), RepositoryError> {
    match fs::hard_link(source, target) {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::CrossesDevices
                    | ErrorKind::TooManyLinks
                    | ErrorKind::PermissionDenied
                    | ErrorKind::Unsupported
            ) =>
        {
            fs::copy(source, target)
                .map(|_| ())
                .map_err(RepositoryError::state("copy", source))
        }
        Err(error) => Err(RepositoryError::state("link", source)(error)),
    }
}
