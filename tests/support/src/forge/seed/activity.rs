//! What a seed says of change requests: who opened them, what was said, reviewed, approved and checked.
//!
//! Only shapes; `plant` makes it so.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Side;

/// One merge request or pull request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequestSeed {
    /// Its forge.
    pub forge: Side,
    /// Path of its project.
    pub project: String,
    /// Title.
    pub title: String,
    /// Text.
    #[serde(default)]
    pub description: String,
    /// Author's user name.
    pub author: String,
    /// The branch; made from the target if it does not exist.
    pub source: String,
    /// The branch it shall go to; the default branch if absent.
    pub target: Option<String>,
    /// One commit on the source branch: content by path. A line of the title if nothing is given and the branch is new.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// What became of it.
    #[serde(default)]
    pub state: StandingSeed,
    /// GitHub: a draft. On GitLab the title says so.
    #[serde(default)]
    pub draft: bool,
    /// Labels.
    #[serde(default)]
    pub labels: Vec<String>,
    /// User names of who it is assigned to.
    #[serde(default)]
    pub assignees: Vec<String>,
    /// What happened at it.
    #[serde(default)]
    pub activity: ActivitySeed,
}

/// State of a seeded change request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandingSeed {
    /// Open.
    #[default]
    Open,
    /// Closed without being merged.
    Closed,
    /// Merged.
    Merged,
}

/// What happens at a change request that is there already.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivityOn {
    /// Its forge.
    pub forge: Side,
    /// Path of its project.
    pub project: String,
    /// Its number.
    pub number: u64,
    /// What happens.
    pub activity: ActivitySeed,
}

/// What happens at a change request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivitySeed {
    /// User names of who is asked to review.
    #[serde(default)]
    pub reviewers: Vec<String>,
    /// GitLab: user names of who approved.
    #[serde(default)]
    pub approved_by: Vec<String>,
    /// Comments: text by the author, or by somebody else.
    #[serde(default)]
    pub comments: Vec<CommentSeed>,
    /// GitLab: what the forge itself noted.
    #[serde(default)]
    pub system_notes: Vec<String>,
    /// GitLab: threads. On GitHub those with a line are review comments without a review's text.
    #[serde(default)]
    pub discussions: Vec<DiscussionSeed>,
    /// GitHub: reviews.
    #[serde(default)]
    pub reviews: Vec<ReviewSeed>,
    /// GitLab: pipelines of the head, the oldest first.
    #[serde(default)]
    pub pipelines: Vec<PipelineSeed>,
    /// GitHub: check runs of the head.
    #[serde(default)]
    pub checks: Vec<CheckSeed>,
    /// GitHub: statuses of the head, the oldest first.
    #[serde(default)]
    pub statuses: Vec<StatusSeed>,
}

impl ActivitySeed {
    /// Whether nothing happens.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        let people = self.reviewers.is_empty() && self.approved_by.is_empty();
        let words = self.comments.is_empty() && self.system_notes.is_empty() && self.discussions.is_empty();
        let checks = self.pipelines.is_empty() && self.checks.is_empty() && self.statuses.is_empty();
        people && words && checks && self.reviews.is_empty()
    }
}

/// A comment.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum CommentSeed {
    /// By the author of what it hangs on.
    Text(String),
    /// By somebody.
    By {
        /// User name.
        author: String,
        /// Text.
        body: String,
    },
}

/// A thread.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscussionSeed {
    /// User name of who began it.
    pub author: String,
    /// Text.
    pub body: String,
    /// The file it is about, after the change.
    pub path: Option<String>,
    /// The line after the change.
    pub line: Option<u64>,
    /// The line before the change.
    pub old_line: Option<u64>,
    /// Answers.
    #[serde(default)]
    pub replies: Vec<CommentSeed>,
    /// User name of who resolved it.
    pub resolved_by: Option<String>,
}

/// What a reviewer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Good.
    Approved,
    /// Not good yet.
    ChangesRequested,
    /// Neither.
    #[default]
    Commented,
    /// Taken back by somebody.
    Dismissed,
    /// Not sent yet: only its author sees it.
    Pending,
}

/// One review.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewSeed {
    /// User name.
    pub author: String,
    /// What they say.
    #[serde(default)]
    pub verdict: Verdict,
    /// Text.
    #[serde(default)]
    pub body: String,
    /// Comments on lines.
    #[serde(default)]
    pub comments: Vec<LineCommentSeed>,
}

/// A comment on a line.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineCommentSeed {
    /// The file, after the change.
    pub path: String,
    /// The line, after the change.
    pub line: u64,
    /// Text.
    pub body: String,
}

/// A GitLab pipeline.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineSeed {
    /// `created`, `running`, `success`, `failed`, `canceled`, `skipped`, `manual`...
    pub status: String,
    /// `push`, `merge_request_event`...
    #[serde(default = "push")]
    pub source: String,
}

/// A GitHub check run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckSeed {
    /// Name.
    pub name: String,
    /// `queued`, `in_progress`, `completed`; completed if there is a conclusion.
    pub status: Option<String>,
    /// `success`, `failure`, `neutral`, `cancelled`, `skipped`, `timed_out`, `action_required`.
    pub conclusion: Option<String>,
}

/// A GitHub commit status.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusSeed {
    /// Whose: `ci/build`.
    pub context: String,
    /// `error`, `failure`, `pending`, `success`.
    pub state: String,
    /// One line.
    #[serde(default)]
    pub description: String,
}

fn push() -> String {
    "push".to_owned()
}
