//! What was staged, summed up for the text of a change request.
//!
//! The summary is made by a child process that reads an agent's objects; its answer is as untrusted as they are: bounded, parsed into
//! types, cut to length, and freed of control characters. It remains an agent's words: whoever prints it must still escape it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::git::{Ended, start_reader, until_end};
use super::internal;
use super::remote::shortened;
use super::{RepositoryError, Staging};
use crate::message::CommitId;

/// Commits that are listed.
pub(super) const MOST_COMMITS: usize = 100;
/// Commits that are counted.
pub(super) const MOST_COUNTED: u32 = 10_000;
/// Files that are listed.
pub(super) const MOST_FILES: usize = 300;
/// Characters of a subject or a name.
pub(super) const LONGEST_SUBJECT: usize = 200;
/// Characters of a message's rest.
pub(super) const LONGEST_BODY: usize = 4_000;
/// Characters of a path.
pub(super) const LONGEST_PATH: usize = 500;

/// Bytes of the whole answer: a character may take 12 in JSON.
const LARGEST_ANSWER: usize = 8 * 1024 * 1024;

/// What the session's branch has that its base has not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// How many commits, at most 10,000.
    pub ahead: u32,
    /// The newest of them.
    pub commits: Vec<StagedCommit>,
    /// The files that differ.
    pub files: Vec<ChangedFile>,
    /// Whether there is more than is listed.
    pub truncated: bool,
}

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedCommit {
    /// Its id.
    pub id: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// The rest, with its trailers.
    pub body: String,
    /// Its author's name.
    pub author: String,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedFile {
    /// Its path.
    pub path: String,
    /// What happened to it.
    pub status: FileStatus,
    /// Lines that came; 0 for a binary or very large file.
    pub added: u32,
    /// Lines that went.
    pub deleted: u32,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileStatus {
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
    /// It has other content or another mode.
    Modified,
}

impl Inspection {
    /// Holds the child to its own bounds, and drops what could act on a terminal.
    fn cleaned(mut self) -> Self {
        self.truncated |= self.commits.len() > MOST_COMMITS || self.files.len() > MOST_FILES;
        self.commits.truncate(MOST_COMMITS);
        self.files.truncate(MOST_FILES);
        for commit in &mut self.commits {
            commit.subject = clean(&commit.subject, LONGEST_SUBJECT);
            commit.body = clean(&commit.body, LONGEST_BODY);
            commit.author = clean(&commit.author, LONGEST_SUBJECT);
        }
        for file in &mut self.files {
            file.path = clean(&file.path, LONGEST_PATH).replace('\n', " ");
        }
        self
    }
}

fn clean(text: &str, longest: usize) -> String {
    text.chars()
        .filter(|character| matches!(character, '\n' | '\t') || !character.is_control())
        .take(longest)
        .collect()
}

impl Staging {
    /// Sums up what `head` has that the base has not.
    ///
    /// # Errors
    /// The child failed, was too slow, or answered nonsense. Publishing does not depend on it.
    pub async fn inspect(&self, head: &CommitId) -> Result<Inspection, RepositoryError> {
        self.survey(head, "full").await
    }

    /// How many commits the session's branch has that its base has not; 0 when nothing was pushed.
    ///
    /// # Errors
    /// As [`Self::inspect`].
    pub async fn ahead_of_base(&self) -> Result<u32, RepositoryError> {
        match self.head()? {
            None => Ok(0),
            Some(head) => Ok(self.survey(&head, "count").await?.ahead),
        }
    }

    async fn survey(&self, head: &CommitId, detail: &str) -> Result<Inspection, RepositoryError> {
        let failed = |text: String| RepositoryError::Inspect { text };
        let arguments = [
            internal::INSPECT.as_ref(),
            self.directory.as_os_str(),
            head.as_str().as_ref(),
            detail.as_ref(),
        ];
        let child = start_reader(&self.shared.internal, &arguments)?;
        let limit = Duration::from_secs(self.shared.config.inspect_timeout_s);
        let Some(Ended { status, stdout, stderr }) = until_end(child, Vec::new(), limit, LARGEST_ANSWER).await else {
            return Err(RepositoryError::Timeout {
                act: "inspect what was staged",
                limit,
            });
        };
        let status = status.map_err(|error| failed(error.to_string()))?;
        if !status.success() {
            return Err(failed(format!("{status}: {}", shortened(&stderr))));
        }
        let stdout = stdout.ok_or_else(|| failed("its answer was too long".to_owned()))?;
        let inspection: Inspection =
            serde_json::from_slice(&stdout).map_err(|error| failed(format!("its answer does not read: {error}")))?;
        Ok(inspection.cleaned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_held_to_its_bounds() {
        let commit = StagedCommit {
            id: "a".repeat(40).parse().unwrap(),
            subject: format!("\x1b[31m{}", "s".repeat(LONGEST_SUBJECT * 2)),
            body: "one\ntwo\x07".into(),
            author: "Ada".into(),
        };
        let cleaned = Inspection {
            ahead: 1,
            commits: vec![commit; MOST_COMMITS + 1],
            files: Vec::new(),
            truncated: false,
        }
        .cleaned();
        assert!(cleaned.truncated);
        assert_eq!(cleaned.commits.len(), MOST_COMMITS);
        assert_eq!(cleaned.commits[0].subject.chars().count(), LONGEST_SUBJECT);
        assert!(!cleaned.commits[0].subject.contains('\x1b'));
        assert_eq!(cleaned.commits[0].body, "one\ntwo");
    }
}
