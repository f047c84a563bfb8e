//! Reads one small file of a branch that the forge showed, for the worker's own use: a set-up script of the default branch, say.
//!
//! Read by a child process from the session's object store; what was pushed to staging is never looked at.

use std::time::Duration;

use super::git::{Ended, start_reader, until_end};
use super::internal;
use super::remote::shortened;
use super::{RepositoryError, Staging};
use crate::message::BranchName;

/// Largest file, in bytes.
pub(super) const LARGEST: usize = 256 * 1024;

impl Staging {
    /// The text of a file at the head of a branch, as the forge showed it; `None` when there is no such file.
    ///
    /// # Errors
    /// The child failed or was too slow; the file is no plain text, or larger than 256 KiB.
    pub async fn script(&self, branch: &BranchName, path: &str) -> Result<Option<String>, RepositoryError> {
        self.small_file(branch, path, LARGEST, "read the set-up script").await
    }

    /// The same of any file of at most so many bytes (256 KiB at most), in an act that is named when it is too slow.
    ///
    /// # Errors
    /// The child failed or was too slow; the file is no plain text, or larger.
    pub async fn small_file(
        &self,
        branch: &BranchName,
        path: &str,
        most: usize,
        act: &'static str,
    ) -> Result<Option<String>, RepositoryError> {
        let failed = |text: String| RepositoryError::Inspect { text };
        let reference = format!("refs/heads/{branch}");
        let arguments = [
            internal::SCRIPT.as_ref(),
            self.directory.as_os_str(),
            reference.as_ref(),
            path.as_ref(),
        ];
        let child = start_reader(&self.shared.internal, &arguments)?;
        let limit = Duration::from_secs(self.shared.config.inspect_timeout_s);
        let Some(Ended { status, stdout, stderr }) = until_end(child, Vec::new(), limit, most.min(LARGEST) + 1).await
        else {
            return Err(RepositoryError::Timeout { act, limit });
        };
        let status = status.map_err(|error| failed(error.to_string()))?;
        if !status.success() {
            return Err(failed(format!("{path}: {}", shortened(&stderr))));
        }
        let stdout = stdout.ok_or_else(|| failed(format!("{path} is larger than {} bytes", most.min(LARGEST))))?;
        // The first byte says whether there is a file, so that an empty one is one.
        let Some((b'+', text)) = stdout.split_first() else {
            return Ok(None);
        };
        String::from_utf8(text.to_vec())
            .map(Some)
            .map_err(|_| failed(format!("{path} is no text in UTF-8")))
    }
}
