//! Keeps work that could not be published: a bundle that any git can fetch from, and a note beside it that says what it is.
//!
//! Written whole or not at all, verified before it counts, and removed only when its retention is over. Holds no credential.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::git::Invocation;
use super::remote::shortened;
use super::{RepositoryError, Shared, Staging, bare, blocking};
use crate::message::{BranchName, CommitId, ProjectKey, SessionId};

/// Longest patch that is offered, in bytes: it travels in an event.
const LONGEST_PATCH: usize = 64 * 1024;

/// A kept bundle, and what its note says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The bundle's file name in the directory of kept bundles.
    pub bundle: String,
    /// The session.
    pub session: SessionId,
    /// The project.
    pub project: ProjectKey,
    /// The branch in the bundle.
    pub branch: BranchName,
    /// Its head.
    pub head: CommitId,
    /// The commit that it started from; whoever fetches from the bundle needs to have it.
    pub base: CommitId,
    /// When it was kept.
    pub time: jiff::Timestamp,
}

impl Staging {
    /// Writes the session's branch, as it stands, to a bundle; replaces an earlier one of the same session and project whose commits it all has.
    ///
    /// # Errors
    /// Nothing was staged, or the bundle could not be written and verified.
    pub async fn keep(&self) -> Result<(PathBuf, Kept), RepositoryError> {
        let head = self.head()?.ok_or(RepositoryError::NothingToKeep)?;
        let policy = &self.policy;
        let directory = self.shared.config.kept();
        let name = self.kept_name(&directory, &head).await;
        let (new, bundle) = (
            directory.join(format!("{name}.new")),
            directory.join(format!("{name}.bundle")),
        );
        // With the base as a condition it is small; where that cannot be, the whole branch.
        let refused = self.bundle(&new, Some(&policy.base_commit)).await?;
        if refused.contains("empty bundle") {
            return Err(RepositoryError::NothingToKeep);
        }
        if !refused.is_empty() {
            let refused = self.bundle(&new, None).await?;
            if !refused.is_empty() {
                return Err(RepositoryError::Keep { text: refused });
            }
        }
        let refused = self
            .git_says(vec!["bundle".into(), "verify".into(), "-q".into(), path_text(&new)?])
            .await?;
        if !refused.is_empty() {
            return Err(RepositoryError::Keep { text: refused });
        }
        let kept = Kept {
            bundle: format!("{name}.bundle"),
            session: policy.session,
            project: policy.project.clone(),
            branch: policy.branch.clone(),
            head,
            base: policy.base_commit.clone(),
            time: jiff::Timestamp::now(),
        };
        let (note, written, target) = (directory.join(format!("{name}.json")), kept.clone(), bundle.clone());
        blocking(move || {
            let text = serde_json::to_vec_pretty(&written)
                .map_err(|error| RepositoryError::state("write", &note)(error.into()))?;
            let durable = |path: &Path| fs::File::open(path).and_then(|file| file.sync_all());
            durable(&new).map_err(RepositoryError::state("write", &new))?;
            fs::rename(&new, &target).map_err(RepositoryError::state("write", &target))?;
            bare::write_whole(&note, &text)?;
            durable(&note).map_err(RepositoryError::state("write", &note))?;
            durable(&directory).map_err(RepositoryError::state("write", &directory))
        })
        .await?;
        Ok((bundle, kept))
    }

    /// What the bundle is called. An earlier attempt of the session on this worker may have left one with other work, which stays.
    async fn kept_name(&self, directory: &Path, head: &CommitId) -> String {
        let policy = &self.policy;
        let name = format!("{}-{}-{}", policy.session, policy.number, policy.project.path.name());
        let note = directory.join(format!("{name}.json"));
        let before = blocking(move || Ok(fs::read(note).ok())).await.ok().flatten();
        let Some(before) = before else { return name };
        let contained = match serde_json::from_slice::<Kept>(&before) {
            Ok(before) => self.has_below(&before.head, head).await,
            Err(_) => false,
        };
        if contained {
            name
        } else {
            format!("{name}-{}", head.short())
        }
    }

    /// Whether a commit is among those that lead to another. Not known is no.
    async fn has_below(&self, commit: &CommitId, head: &CommitId) -> bool {
        let arguments = ["rev-list", "--max-count=1", commit.as_str(), "--not", head.as_str()];
        self.git_lists(&arguments).await.is_ok_and(|left| left.is_empty())
    }

    /// The commits of the session's branch as a patch for `git am`; `None` when it is longer than 64 KiB.
    ///
    /// # Errors
    /// Nothing was staged, or git could not write it.
    pub async fn patch(&self) -> Result<Option<String>, RepositoryError> {
        let head = self.head()?.ok_or(RepositoryError::NothingToKeep)?;
        let limit = Duration::from_secs(self.shared.config.inspect_timeout_s);
        let range = format!("{}..{head}", self.policy.base_commit);
        let merges = self.git_lists(&["rev-list", "--merges", "-n", "1", &range]).await?;
        if !merges.is_empty() {
            // A patch leaves merges out, and what was resolved in them.
            return Ok(None);
        }
        let invocation = Invocation::new("write the staged work as a patch", limit)
            .on(&self.repository())
            .arguments(["format-patch", "--stdout", "--no-signature", "--binary", &range])
            .largest_output(LONGEST_PATCH)
            .limits(self.limits());
        match self.shared.git.run(invocation).await {
            Ok(finished) if finished.success() => Ok(String::from_utf8(finished.stdout).ok()),
            Ok(finished) => Err(RepositoryError::Keep {
                text: shortened(&finished.stderr),
            }),
            Err(RepositoryError::Answer { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn git_lists(&self, arguments: &[&str]) -> Result<Vec<u8>, RepositoryError> {
        let limit = Duration::from_secs(self.shared.config.inspect_timeout_s);
        let invocation = Invocation::new("look at the staged work", limit)
            .on(&self.repository())
            .arguments(arguments)
            .limits(self.limits());
        let finished = self.shared.git.run(invocation).await?;
        if finished.success() {
            Ok(finished.stdout)
        } else {
            Err(RepositoryError::Keep {
                text: shortened(&finished.stderr),
            })
        }
    }

    /// Empty when git was content, else what it said.
    async fn bundle(&self, file: &Path, base: Option<&CommitId>) -> Result<String, RepositoryError> {
        let mut arguments = vec![
            "bundle".into(),
            "create".into(),
            "-q".into(),
            path_text(file)?,
            self.policy.reference(),
        ];
        arguments.extend(base.map(|base| format!("^{base}")));
        self.git_says(arguments).await
    }

    async fn git_says(&self, arguments: Vec<String>) -> Result<String, RepositoryError> {
        let limit = Duration::from_secs(self.shared.config.serve_timeout_s);
        let invocation = Invocation::new("keep the staged work", limit)
            .on(&self.repository())
            .arguments(arguments)
            .limits(self.limits());
        let finished = self.shared.git.run(invocation).await?;
        Ok(if finished.success() {
            String::new()
        } else {
            shortened(&finished.stderr)
        })
    }
}

fn path_text(path: &Path) -> Result<String, RepositoryError> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| RepositoryError::state("use the unusual name of", path)(std::io::ErrorKind::InvalidInput.into()))
}

/// Removes bundles and their notes whose time is over; says how many files.
pub(super) fn remove_expired(shared: &Shared) -> Result<usize, RepositoryError> {
    let directory = shared.config.kept();
    let retention = Duration::from_secs(shared.config.keep_bundles_days * 24 * 60 * 60);
    let mut removed = 0;
    for entry in fs::read_dir(&directory).map_err(RepositoryError::state("list", &directory))? {
        let path = entry.map_err(RepositoryError::state("list", &directory))?.path();
        let age = fs::metadata(&path)
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|modified| modified.elapsed().ok());
        if age.is_some_and(|age| age > retention) {
            fs::remove_file(&path).map_err(RepositoryError::state("remove", &path))?;
            removed += 1;
        }
    }
    Ok(removed)
}
