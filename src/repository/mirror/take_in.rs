//! Takes into a mirror what a session has published, so that the next session finds nothing new on the forge.
//!
//! Only the commit that the forge took, only forward, never a wait for the lock, and never a word to the forge. What a later session is
//! shown does not depend on it: every refresh compares with what the forge shows that session's token, and drops the rest.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Place, lock, maintenance, run_locked};
use crate::grant::ShownRef;
use crate::message::{BranchName, CommitId};
use crate::repository::git::{Invocation, Limits};
use crate::repository::{RepositoryError, Shared, bare, blocking, remote};

/// Time limit: somebody may be waiting for the session's end.
const LIMIT: Duration = Duration::from_secs(10);
/// So many commits are named to say what need not be taken: one is enough where the base did not move.
const MOST_COMMON: usize = 200;

/// The published head of a session's branch, and the repository that has it.
#[derive(Debug)]
pub(in crate::repository) struct Taken<'a> {
    /// The mirror's directory.
    pub(in crate::repository) mirror: &'a Path,
    /// The session's staging: its objects were checked when they were pushed.
    pub(in crate::repository) source: &'a Path,
    /// What the session began with.
    pub(in crate::repository) store: &'a Path,
    pub(in crate::repository) branch: &'a BranchName,
    pub(in crate::repository) head: &'a CommitId,
    pub(in crate::repository) limits: Limits,
}

/// Says whether the mirror has it now and had not before. A mirror that is gone, in use, not whole or further on is left alone.
pub(in crate::repository) async fn take_in(shared: &Shared, taken: Taken<'_>) -> Result<bool, RepositoryError> {
    let place = Place {
        directory: taken.mirror.to_owned(),
    };
    let repository = place.repository();
    if !repository.join("HEAD").exists() {
        return Ok(false);
    }
    let Some(held) = lock::try_acquire(&place.lock())? else {
        return Ok(false);
    };
    // Somebody may have removed it, or have been killed in it, since.
    if !repository.join("HEAD").exists() || place.fetching().exists() || bare::has_loose_refs(&repository)? {
        return Ok(false);
    }
    let known = bare::read_refs(&repository)?;
    let name = format!("refs/heads/{}", taken.branch);
    let has = known.iter().find(|shown| shown.name == name).map(|shown| &shown.target);
    let is_new = match has {
        Some(has) if has == taken.head => return Ok(false),
        Some(has) => is_ancestor(shared, &taken, has, &held).await?,
        None => !known.iter().any(|shown| is_in_the_way(&shown.name, &name)),
    };
    let common = common(known, &bare::read_refs(taken.store)?);
    if !is_new || common.is_empty() {
        return Ok(false);
    }
    let before = packs(&repository)?;
    maintenance::begin(&place)?;
    // What fails from here on leaves the mark, and the next refresh looks after what may have come in without a reference.
    if let Err(error) = pack(shared, &repository, &taken, &common, &held).await {
        let left = repository.clone();
        blocking(move || lock::clear_leftovers(&left)).await?;
        if packs(&repository)? == before {
            maintenance::noted(&place)?;
        }
        return Err(error);
    }
    bare::set_packed_ref(&repository, &name, taken.head)?;
    maintenance::noted(&place)?;
    // It is in, whatever becomes of this.
    if let Err(error) = maintenance::when_many(shared, &place, LIMIT, &held).await {
        tracing::warn!(mirror = ?place.directory, %error, "a mirror's small packs were not made one; that is tried again");
        blocking(move || lock::clear_leftovers(&repository)).await?;
    }
    Ok(true)
}

/// What the mirror has and the session's objects began with: the base of the session's branch is among it, unless that moved.
fn common(known: Vec<ShownRef>, store: &[ShownRef]) -> Vec<CommitId> {
    let began: BTreeSet<(&str, &CommitId)> = store.iter().map(|shown| (shown.name.as_str(), &shown.target)).collect();
    let mut both: Vec<CommitId> = known
        .into_iter()
        .filter(|shown| shown.name.starts_with("refs/heads/") && began.contains(&(shown.name.as_str(), &shown.target)))
        .map(|shown| shown.target)
        .collect();
    both.sort();
    both.dedup();
    both.truncate(MOST_COMMON);
    both
}

/// Whether one of two names is a directory of the other.
fn is_in_the_way(one: &str, other: &str) -> bool {
    let below = |name: &str, directory: &str| name.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
    below(one, other) || below(other, one)
}

/// Whether the branch only went forward since it had this commit.
async fn is_ancestor(
    shared: &Shared,
    taken: &Taken<'_>,
    old: &CommitId,
    held: &fs::File,
) -> Result<bool, RepositoryError> {
    let invocation = Invocation::new("compare what was published", LIMIT)
        .on(taken.source)
        .arguments(["merge-base", "--is-ancestor", old.as_str(), taken.head.as_str()])
        .limits(taken.limits);
    // A commit that the session never had is an ancestor of nothing here.
    Ok(run_locked(shared, invocation, held).await?.success())
}

/// Writes all that is new below the commit into one pack of the mirror: only what can be reached from there, whatever else an agent pushed. What
/// the mirror has of it ends at commits that it has whole, so nothing is missing. Every object was checked when it was pushed.
async fn pack(
    shared: &Shared,
    repository: &Path,
    taken: &Taken<'_>,
    common: &[CommitId],
    held: &fs::File,
) -> Result<(), RepositoryError> {
    let mut wanted = format!("{}\n--not\n", taken.head);
    for commit in common {
        wanted.push_str(commit.as_str());
        wanted.push('\n');
    }
    let invocation = Invocation::new("take in what was published", LIMIT)
        .on(taken.source)
        .arguments([
            "pack-objects",
            "--revs",
            "--quiet",
            "--delta-base-offset",
            "--threads=1",
        ])
        .arguments([repository.join("objects/pack/pack")])
        .input(wanted.into_bytes())
        .limits(taken.limits);
    let finished = run_locked(shared, invocation, held).await?;
    if finished.success() {
        Ok(())
    } else {
        Err(RepositoryError::Maintain {
            text: remote::shortened(&finished.stderr),
        })
    }
}

/// The names of all files beside packs.
fn packs(repository: &Path) -> Result<BTreeSet<OsString>, RepositoryError> {
    let directory = repository.join("objects/pack");
    let entries = fs::read_dir(&directory).map_err(RepositoryError::state("list", &directory))?;
    entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()
        .map_err(RepositoryError::state("list", &directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_below_another_is_in_its_way() {
        assert!(is_in_the_way("refs/heads/a", "refs/heads/a/b"));
        assert!(is_in_the_way("refs/heads/a/b", "refs/heads/a"));
        assert!(!is_in_the_way("refs/heads/a", "refs/heads/ab"));
        assert!(!is_in_the_way("refs/heads/a", "refs/heads/a"));
    }

    #[test]
    fn only_what_both_have_under_one_name_is_common() {
        let shown = |name: &str, letter: &str| ShownRef {
            name: name.to_owned(),
            target: letter.repeat(40).parse().unwrap(),
        };
        let known = vec![
            shown("refs/heads/main", "a"),
            shown("refs/heads/moved", "b"),
            shown("refs/heads/same", "a"),
            shown("refs/tags/v1", "d"),
        ];
        let store = [
            shown("refs/heads/main", "a"),
            shown("refs/heads/moved", "c"),
            shown("refs/heads/same", "a"),
            shown("refs/tags/v1", "d"),
        ];
        assert_eq!(common(known, &store), ["a".repeat(40).parse().unwrap()]);
    }
}
