//! The commit of a project's default branch with its tree once more, uncompressed, in a pack of its own: a clone of 28 MB in a sandbox takes two
//! thirds of the time with it. It costs the disk what the tree takes. The commit is there because git looks for the next object where it found
//! the last one: who begins with it has the whole tree from this pack.
//!
//! Made at a session's end, named by its commit, and linked only for sessions that begin at that commit: it never shows more than that does.
//! It is outside of the mirror's repository, so git's repacking neither counts it nor rests on it. Without it all works the same.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::maintenance::age;
use super::{Place, lock};
use crate::message::CommitId;
use crate::repository::git::{Invocation, Limits};
use crate::repository::{RepositoryError, Shared, bare, blocking, remote};

/// Time limit: somebody may be waiting for the session's end.
const LIMIT: Duration = Duration::from_secs(10);
/// A larger tree has none, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;
/// How long it is not tried again where it was too large or took too long.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// Where a mirror's packs are smaller together there is nothing to gain, in bytes.
const LEAST: u64 = 4 * 1024 * 1024;
/// How the name of one begins that is not finished.
const UNFINISHED: &str = "new-";
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
    if made.exists() {
        return Ok(false);
    }
    // Not the mirror's own lock: a session that begins meanwhile need not wait, and takes what there is.
    let Some(held) = lock::try_acquire(&place.prepared_lock())? else {
        return Ok(false);
    };
    let old = all.clone();
    blocking(move || clear(&old)).await?;
    let is_hopeless = age(&place.unprepared()).is_some_and(|age| age < PATIENCE);
    if is_hopeless || pack_bytes(&repository)? < LEAST {
        return Ok(false);
    }
    // A name that no other has: a git that outlives its worker puts nothing into what another one makes.
    let new = all.join(format!("{UNFINISHED}{}", uuid::Uuid::new_v4()));
    let packed = pack(shared, &repository, &commit, &new, limits, &held).await;
    if matches!(
        packed,
        Err(RepositoryError::Timeout { .. } | RepositoryError::TooLarge { .. })
    ) {
        bare::write_whole(&place.unprepared(), b"")?;
    }
    blocking(move || {
        if let Err(error) = packed {
            remove(&new)?;
            return Err(error);
        }
        // git's own, for what it has not finished.
        remove(&new.join("pack"))?;
        fs::rename(&new, &made).map_err(RepositoryError::state("rename", &made))?;
        Ok(true)
    })
    .await
}

/// Packs the tree of a commit into `new`. Nothing is written in the mirror, whose lock is not held.
async fn pack(
    shared: &Shared,
    repository: &Path,
    commit: &CommitId,
    new: &Path,
    limits: Limits,
    held: &fs::File,
) -> Result<(), RepositoryError> {
    let unfinished = new.join("pack");
    fs::create_dir_all(&unfinished).map_err(RepositoryError::state("make the directory", &unfinished))?;
    let share = held
        .try_clone()
        .map_err(RepositoryError::state("share the lock of", new))?;
    let limits = Limits {
        file: LARGEST.min(limits.file),
        heap: shared.config.git_heap,
        processor_s: LIMIT.as_secs(),
        ..limits
    };
    let invocation = Invocation::new("prepare the project's tree", LIMIT)
        .on(repository)
        .variable("GIT_OBJECT_DIRECTORY", new)
        .variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", repository.join("objects"))
        // A large file goes through piece by piece.
        .arguments(["-c", "core.bigFileThreshold=1m"])
        .arguments([
            "pack-objects",
            "--revs",
            "--quiet",
            "--window=0",
            "--compression=0",
            "--no-reuse-object",
        ])
        .arguments([new.join("pack")])
        // As if it had no history.
        .input(format!("--shallow {commit}\n{commit}\n").into_bytes())
        .limits(limits)
        .holding(share);
    let finished = shared.git.run(invocation).await?;
    match finished.code {
        Some(0) => Ok(()),
        Some(_) => Err(RepositoryError::Maintain {
            text: remote::shortened(&finished.stderr),
        }),
        // A limit ended it.
        None => Err(RepositoryError::TooLarge { largest: LARGEST }),
    }
}

/// Removes what a killed worker did not finish, unless its git is still at work: that holds the lock. Says whether there was any.
pub(super) fn clear_unfinished(place: &Place) -> Result<bool, RepositoryError> {
    let entries = fs::read_dir(place.prepared()).into_iter().flatten().flatten();
    let unfinished: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED))
        .map(|entry| entry.path())
        .collect();
    if unfinished.is_empty() {
        return Ok(false);
    }
    let Some(_held) = lock::try_acquire(&place.prepared_lock())? else {
        return Ok(false);
    };
    unfinished.iter().try_for_each(|directory| remove(directory))?;
    Ok(true)
}

/// Removes all of it. Without it all works the same, so nobody fails by it.
pub(super) fn discard(place: &Place) {
    if let Err(error) = remove(&place.prepared()) {
        tracing::warn!(mirror = ?place.directory, %error, "a prepared tree was not removed");
    }
}

/// Removes a directory that may not be there.
fn remove(directory: &Path) -> Result<(), RepositoryError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(RepositoryError::state("remove the directory", directory)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes the directories in one that may not be there.
fn clear(directory: &Path) -> Result<(), RepositoryError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(RepositoryError::state("list", directory)(error)),
    };
    for entry in entries {
        remove(&entry.map_err(RepositoryError::state("list", directory))?.path())?;
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
