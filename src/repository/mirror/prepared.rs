//! The tree of a project's default branch once more, uncompressed, in a pack of its own: a clone of 28 MB in a sandbox takes two thirds of the
//! time with it. It costs the disk what the tree takes.
//!
//! Made at a session's end, named by its commit, and linked only for sessions that begin at that commit: it never shows more than that does.
//! It is outside of the mirror's repository, so git's repacking neither counts it nor rests on it. Without it all works the same.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Place, lock};
use crate::message::CommitId;
use crate::repository::git::{Invocation, Limits};
use crate::repository::{RepositoryError, Shared, bare, blocking, remote};

/// Time limit: somebody may be waiting for the session's end.
const LIMIT: Duration = Duration::from_secs(10);
/// A larger tree has none, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;
/// Where a mirror's packs are smaller together there is nothing to gain, in bytes.
const LEAST: u64 = 4 * 1024 * 1024;
/// A longer `HEAD` is none, in bytes.
const LONGEST_HEAD: u64 = 4096;

/// Makes it for what the default branch is now, and removes older ones. Says whether it made one. One that makes it already is not waited for.
pub(in crate::repository) async fn prepare_tree(
    shared: &Shared,
    mirror: &Path,
    limits: Limits,
) -> Result<bool, RepositoryError> {
    let place = Place {
        directory: mirror.to_owned(),
    };
    let (repository, all) = (place.repository(), place.prepared());
    let Some(commit) = default_commit(&repository)? else {
        return Ok(false);
    };
    let made = all.join(commit.as_str());
    if made.exists() || pack_bytes(&repository)? < LEAST {
        return Ok(false);
    }
    // Not the mirror's own lock: a session that begins meanwhile need not wait, and takes what there is.
    let Some(_held) = lock::try_acquire(&place.prepared_lock())? else {
        return Ok(false);
    };
    let new = all.join("new");
    let (old, half) = (all.clone(), new.clone());
    blocking(move || {
        clear(&old)?;
        fs::create_dir_all(&half).map_err(RepositoryError::state("make the directory", &half))
    })
    .await?;
    let limits = Limits {
        file: LARGEST,
        ..limits
    };
    let invocation = Invocation::new("prepare the project's tree", LIMIT)
        .on(&repository)
        .arguments([
            "pack-objects",
            "--revs",
            "--quiet",
            "--window=0",
            "--compression=0",
            "--no-reuse-object",
        ])
        .arguments([new.join("pack")])
        .input(format!("{commit}^{{tree}}\n").into_bytes())
        .limits(limits);
    let finished = shared.git.run(invocation).await;
    let failed = match finished {
        Ok(finished) if finished.success() => None,
        Ok(finished) => Some(RepositoryError::Maintain {
            text: remote::shortened(&finished.stderr),
        }),
        Err(error) => Some(error),
    };
    blocking(move || {
        // What cannot be made, or is too large, is not tried again before the branch is elsewhere: an empty directory says so.
        if failed.is_some() {
            clear(&new)?;
        }
        fs::rename(&new, &made).map_err(RepositoryError::state("rename", &made))?;
        failed.map_or(Ok(true), Err)
    })
    .await
}

/// Removes all of it.
pub(super) fn discard(place: &Place) -> Result<(), RepositoryError> {
    let all = place.prepared();
    match fs::remove_dir_all(&all) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(RepositoryError::state("remove the directory", &all)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes what is in a directory, if there is one.
fn clear(directory: &Path) -> Result<(), RepositoryError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(RepositoryError::state("list", directory)(error)),
    };
    for entry in entries {
        let path = entry.map_err(RepositoryError::state("list", directory))?.path();
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(RepositoryError::state("remove", &path))?;
    }
    Ok(())
}

/// Where the branch is that `HEAD` names.
fn default_commit(repository: &Path) -> Result<Option<CommitId>, RepositoryError> {
    let path = repository.join("HEAD");
    let about = match fs::metadata(&path) {
        Ok(about) => about,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RepositoryError::state("read", &path)(error)),
    };
    if about.len() > LONGEST_HEAD {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(RepositoryError::state("read", &path))?;
    let Some(name) = text.trim_end().strip_prefix("ref: ") else {
        return Ok(None);
    };
    let found = bare::read_refs(repository)?
        .into_iter()
        .find(|shown| shown.name == name);
    Ok(found.map(|shown| shown.target))
}

/// Bytes of all packs together.
fn pack_bytes(repository: &Path) -> Result<u64, RepositoryError> {
    let directory: PathBuf = repository.join("objects/pack");
    let entries = fs::read_dir(&directory).map_err(RepositoryError::state("list", &directory))?;
    let sizes = entries.flatten().filter_map(|entry| entry.metadata().ok());
    Ok(sizes.fold(0, |sum, about| sum.saturating_add(about.len())))
}
