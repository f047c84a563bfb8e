//! What a project's default branch says to agents (`AGENTS.md` and its like), bounded, for the prompt.
//!
//! Read by a child process from the session's object store, at the commit that the forge showed; what was pushed to staging is never looked
//! at. What stands there is text for the agent and for nobody else: nothing on the worker obeys it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::git::{Ended, start_reader, until_end};
use super::internal;
use super::remote::shortened;
use super::{RepositoryError, Staging};
use crate::message::BranchName;

/// Most text of one project, in bytes.
pub(super) const LARGEST: usize = 32 * 1024;
/// Most files of one project.
pub(super) const MOST: usize = 32;
/// Longest answer of the child, in bytes: every character may be escaped.
const LONGEST: usize = 8 * LARGEST;

/// One file, or why it is not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction {
    /// Its path.
    pub path: String,
    /// What it says.
    pub text: String,
    /// That it was cut, or left out, and why.
    pub note: Option<String>,
}

impl Staging {
    /// The files at the head of a branch, as the forge showed it, that patterns name: a path, or `DIRECTORY/*ENDING` for files of a directory.
    ///
    /// # Errors
    /// The child failed or was too slow.
    pub async fn instructions(
        &self,
        branch: &BranchName,
        patterns: &[String],
    ) -> Result<Vec<Instruction>, RepositoryError> {
        if patterns.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |text: String| RepositoryError::Inspect { text };
        let reference = format!("refs/heads/{branch}");
        let mut arguments = vec![
            internal::INSTRUCTIONS.as_ref(),
            self.directory.as_os_str(),
            reference.as_ref(),
        ];
        arguments.extend(patterns.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
        let child = start_reader(&self.shared.internal, &arguments)?;
        let limit = Duration::from_secs(self.shared.config.inspect_timeout_s);
        let Some(Ended { status, stdout, stderr }) = until_end(child, Vec::new(), limit, LONGEST).await else {
            return Err(RepositoryError::Timeout {
                act: "read the project's instructions to agents",
                limit,
            });
        };
        if !status.map_err(|error| failed(error.to_string()))?.success() {
            return Err(failed(shortened(&stderr)));
        }
        let stdout = stdout.ok_or_else(|| failed(format!("more than {LONGEST} bytes came")))?;
        serde_json::from_slice(&stdout).map_err(|error| failed(error.to_string()))
    }
}
