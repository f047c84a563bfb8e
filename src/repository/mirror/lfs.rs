//! Whether a project's base branch keeps files in git LFS; what was found out about a commit is remembered.
//!
//! Only reads, under the mirror's lock. A commit never changes, so a remembered answer cannot be wrong.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Mirrored, run_locked};
use crate::message::CommitId;
use crate::repository::git::Invocation;
use crate::repository::{RepositoryError, Shared, remote};

/// How many answers are remembered.
const MOST: usize = 256;

/// What was found out, the latest first: which mirror, which commit, and the attributes file that was found.
#[derive(Debug, Default)]
pub(in crate::repository) struct Known(Mutex<VecDeque<(PathBuf, CommitId, Option<String>)>>);

impl Known {
    fn of(&self, mirror: &Path, commit: &CommitId) -> Option<Option<String>> {
        // A panic elsewhere leaves at worst one answer less.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = known.iter().position(|(path, of, _)| path == mirror && of == commit)?;
        let entry = known.remove(place)?;
        let found = entry.2.clone();
        known.push_front(entry);
        Some(found)
    }

    fn remember(&self, mirror: &Path, commit: &CommitId, found: Option<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.push_front((mirror.to_owned(), commit.clone(), found));
        known.truncate(MOST);
    }
}

/// The first attributes file of the base branch that hands files to git LFS, where there is one.
pub(in crate::repository) async fn lfs_attributes(
    shared: &Shared,
    mirrored: &Mirrored,
) -> Result<Option<String>, RepositoryError> {
    if let Some(found) = shared.lfs.of(&mirrored.path, &mirrored.base) {
        return Ok(found);
    }
    let limit = Duration::from_secs(shared.config.inspect_timeout_s);
    let invocation = Invocation::new("look for git LFS", limit)
        .on(&mirrored.path)
        .arguments(["grep", "--no-color", "--no-textconv", "-l", "-E", "^[^#]*filter=lfs"])
        .arguments([
            mirrored.base.as_str(),
            "--",
            ".gitattributes",
            ":(glob)**/.gitattributes",
        ]);
    let finished = run_locked(shared, invocation, &mirrored.lock).await?;
    // git grep exits with 1 when nothing matches.
    if !matches!(finished.code, Some(0 | 1)) {
        return Err(RepositoryError::Inspect {
            text: remote::shortened(&finished.stderr),
        });
    }
    let listed = String::from_utf8_lossy(&finished.stdout);
    let found = listed.lines().next().and_then(|line| line.split_once(':'));
    let found: Option<String> = found.map(|(_, path)| path.chars().filter(|c| !c.is_control()).take(200).collect());
    shared.lfs.remember(&mirrored.path, &mirrored.base, found.clone());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_apart_and_are_not_endless() {
        let known = Known::default();
        let commit = |number: usize| format!("{number:040x}").parse::<CommitId>().unwrap();
        let (one, other) = (Path::new("/one"), Path::new("/other"));
        known.remember(one, &commit(1), None);
        known.remember(one, &commit(2), Some(".gitattributes".to_owned()));
        assert_eq!(known.of(one, &commit(1)), Some(None));
        assert_eq!(known.of(one, &commit(2)), Some(Some(".gitattributes".to_owned())));
        assert_eq!(known.of(other, &commit(1)), None);
        for number in 0..2 * MOST {
            known.remember(other, &commit(number), None);
        }
        assert_eq!(known.of(one, &commit(1)), None);
        assert_eq!(known.0.lock().unwrap().len(), MOST);
    }
}
