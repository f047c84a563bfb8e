//! Keeps mirrors small: few packs, no objects that nothing reaches for longer than a day, no mirror that nobody uses.
//!
//! Only under a mirror's lock. Never touches a session's objects: those are links of their own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Place, lock, prepared, run_locked};
use crate::grant::ShownRef;
use crate::repository::git::Invocation;
use crate::repository::{RepositoryError, Shared, bare, blocking, remote};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// When a mirror is worth the work.
#[derive(Debug, Clone, Copy)]
struct Patience {
    packs: usize,
    unreachable: Duration,
}

/// In the background: early, because nobody waits.
const IDLE: Patience = Patience {
    packs: 6,
    unreachable: HOUR,
};
/// Packs that a session is still given unrepacked.
const MOST_PACKS: usize = 50;
/// Packs that remain after what a session published was taken in. Each costs every git process of every session that follows: it looks for four
/// files and opens one, and each session links it twice.
const FEW_PACKS: usize = 8;

/// Notes the time when something was deleted or rewritten, unless that is noted already: what it held is dropped before the next session gets
/// the objects, or as long after as the operator allows.
pub(super) async fn note_unreachable(
    shared: &Shared,
    place: &Place,
    before: &[ShownRef],
    after: &[ShownRef],
    held: &fs::File,
) -> Result<(), RepositoryError> {
    if place.unreachable().exists() {
        return Ok(());
    }
    let still: BTreeSet<&str> = after.iter().map(|shown| shown.target.as_str()).collect();
    let mut moved = Vec::new();
    for old in before {
        match old.target.as_str() {
            target if still.contains(target) => {}
            // A deleted branch may have been merged: then nothing of it is unreachable.
            target if old.name.starts_with("refs/heads/") => moved.push(target),
            _ => return bare::write_whole(&place.unreachable(), b""),
        }
    }
    if moved.is_empty() {
        return Ok(());
    }
    let mut input = moved.join("\n");
    input.push_str("\n--not\n--all\n");
    let invocation = Invocation::new("look for rewritten branches", Duration::from_secs(5 * 60))
        .on(&place.repository())
        .arguments(["rev-list", "--max-count=1", "--stdin"])
        .input(input.into_bytes());
    let finished = run_locked(shared, invocation, held).await?;
    if finished.success() && finished.stdout.is_empty() {
        Ok(())
    } else {
        bare::write_whole(&place.unreachable(), b"")
    }
}

/// Before a session, and only what cannot wait: whoever knows an object's id can have it from a repository that holds it, so a session must
/// not be given what its token is no longer shown.
pub(super) async fn when_urgent(shared: &Shared, place: &Place, held: &fs::File) -> Result<(), RepositoryError> {
    let patience = Patience {
        packs: MOST_PACKS,
        unreachable: Duration::from_secs(shared.config.unreachable_s),
    };
    let limit = Duration::from_secs(shared.config.fetch_timeout_s);
    repack(shared, place, patience, limit, held).await.map(|_| ())
}

/// After one more pack came in: the small ones become one. Drops nothing. It takes milliseconds where the large ones are much larger, and where
/// they are not it is left to the background after `limit`.
pub(super) async fn when_many(
    shared: &Shared,
    place: &Place,
    limit: Duration,
    held: &fs::File,
) -> Result<(), RepositoryError> {
    let patience = Patience {
        packs: FEW_PACKS,
        unreachable: Duration::MAX,
    };
    repack(shared, place, patience, limit, held).await.map(|_| ())
}

/// A refresh begins. Says whether the one before it never came to its notes: then nobody knows what it pruned.
pub(super) fn begin(place: &Place) -> Result<bool, RepositoryError> {
    let interrupted = place.fetching().exists();
    bare::write_whole(&place.fetching(), b"")?;
    Ok(interrupted)
}

/// What was pruned is noted.
pub(super) fn noted(place: &Place) -> Result<(), RepositoryError> {
    let mark = place.fetching();
    fs::remove_file(&mark).map_err(RepositoryError::state("remove", &mark))
}

/// Goes through all mirrors once; those in use are left for the next time. Says how many were repacked or removed.
pub(in crate::repository) async fn maintain_all(shared: &Shared) -> Result<usize, RepositoryError> {
    let mirrors = shared.config.mirrors();
    let mut worked = 0;
    let entries = fs::read_dir(&mirrors).map_err(RepositoryError::state("list", &mirrors))?;
    for entry in entries {
        let entry = entry.map_err(RepositoryError::state("list", &mirrors))?;
        let place = Place {
            directory: entry.path(),
        };
        match maintain(shared, &place).await {
            Ok(true) => worked += 1,
            Ok(false) => {}
            Err(error) => tracing::warn!(mirror = ?place.directory, %error, "the mirror could not be maintained"),
        }
    }
    Ok(worked)
}

/// All mirrors' places.
fn places(shared: &Shared) -> Result<Vec<Place>, RepositoryError> {
    let mirrors = shared.config.mirrors();
    let entries = match fs::read_dir(&mirrors) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RepositoryError::state("list", &mirrors)(error)),
    };
    let listed = entries.map(|entry| {
        let entry = entry.map_err(RepositoryError::state("list", &mirrors))?;
        Ok(Place {
            directory: entry.path(),
        })
    });
    listed.collect()
}

/// Clears mirrors whose last refresh was cut off and that nobody uses now. The note of it stays for the next refresh.
pub(in crate::repository) async fn clear_interrupted(shared: &Shared) -> Result<usize, RepositoryError> {
    let mut cleared = 0;
    let all = places(shared)?;
    for place in all.clone() {
        cleared += usize::from(blocking(move || prepared::clear_unfinished(&place)).await?);
    }
    for place in all.iter().filter(|place| place.fetching().exists()) {
        // Only when it is free: git's own processes hold it too, and may well be at work.
        let Some(_held) = lock::try_acquire(&place.lock())? else {
            continue;
        };
        let left = place.repository();
        if left.exists() {
            blocking(move || lock::clear_leftovers(&left)).await?;
            cleared += 1;
        }
    }
    Ok(cleared)
}

/// Removes the mirrors that nobody used for long, and does nothing to the others.
pub(in crate::repository) async fn expire_all(shared: &Shared) -> Result<usize, RepositoryError> {
    let unused = Duration::from_secs(shared.config.keep_mirrors_days * 24 * 60 * 60);
    let mut removed = 0;
    for place in places(shared)? {
        if age(&place.refreshed()).is_some_and(|age| age > unused)
            && let Some(_held) = lock::try_acquire(&place.lock())?
            && remove_unused(&place).await?
        {
            removed += 1;
        }
    }
    Ok(removed)
}

async fn maintain(shared: &Shared, place: &Place) -> Result<bool, RepositoryError> {
    let Some(held) = lock::try_acquire(&place.lock())? else {
        return Ok(false);
    };
    let unused = Duration::from_secs(shared.config.keep_mirrors_days * 24 * 60 * 60);
    if age(&place.refreshed()).is_none_or(|age| age > unused) {
        return remove_unused(place).await;
    }
    let left = place.repository();
    blocking(move || lock::clear_leftovers(&left)).await?;
    let limit = Duration::from_secs(shared.config.fetch_timeout_s);
    match repack(shared, place, IDLE, limit, &held).await {
        // What cannot be repacked may be damaged: then the next session fetches it anew.
        Err(RepositoryError::Maintain { text }) if !super::is_sound(shared, &place.repository(), &held).await => {
            tracing::warn!(mirror = ?place.directory, %text, "the mirror is damaged and is removed");
            super::discard(place).await.map(|()| true)
        }
        other => other,
    }
}

/// The lock file stays: another process may be waiting on it.
async fn remove_unused(place: &Place) -> Result<bool, RepositoryError> {
    if place.repository().exists() {
        super::discard(place).await?;
        return Ok(true);
    }
    let place = place.clone();
    blocking(move || {
        prepared::discard(&place);
        Ok(false)
    })
    .await
}

async fn repack(
    shared: &Shared,
    place: &Place,
    patience: Patience,
    limit: Duration,
    held: &fs::File,
) -> Result<bool, RepositoryError> {
    let repository = place.repository();
    let counted = repository.clone();
    let (packs, bitmap) = blocking(move || count_packs(&counted)).await?;
    let git = |arguments: Vec<&'static str>| {
        let invocation = Invocation::new("repack the mirror", limit)
            .on(&repository)
            .arguments(arguments);
        async move {
            let finished = run_locked(shared, invocation, held).await?;
            if finished.success() {
                Ok(())
            } else {
                Err(RepositoryError::Maintain {
                    text: remote::shortened(&finished.stderr),
                })
            }
        }
    };
    let stale = age(&place.unreachable()).is_some_and(|age| age >= patience.unreachable);
    // A first bitmap makes every later clone cheap; it needs all objects in one pack.
    let first = packs > 0 && !bitmap && patience.packs <= IDLE.packs;
    if stale || first {
        // `-a`, not `-A`: what nothing reaches is dropped, not loosened. Nobody else writes here under the lock.
        git(vec!["repack", "-a", "-d", "-q", "--write-bitmap-index"]).await?;
        git(vec!["prune", "--expire=now"]).await?;
        git(vec!["commit-graph", "write", "--reachable", "--no-progress"]).await?;
        // It may hold what was just dropped.
        let old = place.clone();
        blocking(move || {
            prepared::discard(&old);
            Ok(())
        })
        .await?;
        let mark = place.unreachable();
        if mark.exists() {
            fs::remove_file(&mark).map_err(RepositoryError::state("remove", &mark))?;
        }
        return Ok(true);
    }
    if packs > patience.packs {
        git(vec!["repack", "--geometric=2", "-d", "-q"]).await?;
        return Ok(true);
    }
    Ok(false)
}

pub(super) fn age(path: &Path) -> Option<Duration> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    Some(modified.elapsed().unwrap_or_default())
}

/// Whether there are packs, each with its index.
pub(super) fn has_packs(repository: &Path) -> Result<bool, RepositoryError> {
    let directory = repository.join("objects/pack");
    let mut found = false;
    for entry in fs::read_dir(&directory).map_err(RepositoryError::state("list", &directory))? {
        let path = entry.map_err(RepositoryError::state("list", &directory))?.path();
        let other = match path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("pack") => path.with_extension("idx"),
            Some("idx") => path.with_extension("pack"),
            Some(_) | None => continue,
        };
        if !other.exists() {
            return Ok(false);
        }
        found = true;
    }
    Ok(found)
}

/// How many packs there are, and whether one has a bitmap.
fn count_packs(repository: &Path) -> Result<(usize, bool), RepositoryError> {
    let directory = repository.join("objects/pack");
    let (mut packs, mut bitmap) = (0, false);
    for entry in fs::read_dir(&directory).map_err(RepositoryError::state("list", &directory))? {
        let path = entry.map_err(RepositoryError::state("list", &directory))?.path();
        match path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("pack") => packs += 1,
            Some("bitmap") => bitmap = true,
            Some(_) | None => {}
        }
    }
    Ok((packs, bitmap))
}
