//! What a staging accepts, written beside it by the worker for its own child processes. Also the record by which a staging is found again.
//!
//! Unknown fields are let through: after an upgrade the new program reads what the old one wrote.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{RepositoryError, bare};
use crate::message::{BranchName, CommitId, ProjectKey, SessionId};

/// The file's name in the directory of one project of a session.
const FILE: &str = "policy.json";
/// The session's object store in that directory.
pub(super) const STORE: &str = "store.git";
/// Its staging.
pub(super) const STAGING: &str = "staging.git";

/// The rules of one staging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Policy {
    pub(super) session: SessionId,
    /// Which of the session's projects this is.
    pub(super) number: usize,
    pub(super) project: ProjectKey,
    /// The one branch that may be pushed.
    pub(super) branch: BranchName,
    /// The branch it started from, and where that stood.
    pub(super) base: BranchName,
    pub(super) base_commit: CommitId,
    /// The lines that every new commit carries.
    pub(super) trailers: Vec<String>,
    /// Author and committer of every new commit.
    pub(super) email: String,
    pub(super) most_commits: u32,
    #[serde(default = "unlimited")]
    pub(super) most_objects: u64,
    #[serde(default = "unlimited")]
    pub(super) most_files: u64,
    pub(super) largest_object: u64,
    /// All that was pushed together.
    pub(super) largest_staging: u64,
    /// Limits of the process that reads what was pushed.
    pub(super) memory: u64,
    pub(super) processor_s: u64,
}

/// What an older program did not write.
fn unlimited() -> u64 {
    u64::MAX
}

impl Policy {
    pub(super) fn read(directory: &Path) -> Result<Self, RepositoryError> {
        let path = directory.join(FILE);
        let text = std::fs::read(&path).map_err(RepositoryError::state("read", &path))?;
        serde_json::from_slice(&text).map_err(|error| RepositoryError::state("read", &path)(error.into()))
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), RepositoryError> {
        let path = directory.join(FILE);
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| RepositoryError::state("write", &path)(error.into()))?;
        bare::write_whole(&path, &text)
    }

    /// The full name of the branch.
    pub(super) fn reference(&self) -> String {
        format!("refs/heads/{}", self.branch)
    }
}
