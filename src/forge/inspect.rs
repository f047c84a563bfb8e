//! What can be read on a forge besides code: change requests, issues, and what people say there; and the two ways to answer them.
//!
//! Neutral types, bounded when they are made. Their texts come from strangers: whoever shows them says so. Never opens, merges or closes anything.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ForgeError, ProjectFacts};

/// Longest title, name or label that is kept, in characters.
pub const LONGEST_LINE: usize = 300;
/// Longest description or note that is kept, in bytes; longer ones are cut at a character and say so.
pub const LONGEST_TEXT: usize = 64 * 1024;
/// Most rows of one page.
pub const LARGEST_PAGE: u32 = 100;

/// One page of something, in the forge's own order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The number of the next page; `None` on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page: Option<u32>,
}

/// Which page to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// Counted from 1.
    pub page: u32,
    /// Rows, from 1 to [`LARGEST_PAGE`].
    pub per_page: u32,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { page: 1, per_page: 20 }
    }
}

/// The state of change requests or issues to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not merged and not closed.
    #[default]
    Open,
    /// Merged; issues are never merged.
    Merged,
    /// Closed without being merged; for issues, closed.
    Closed,
    /// Any.
    All,
}

/// Which change requests to list. Empty filters let everything through.
#[derive(Debug, Clone, Default)]
pub struct ChangeRequestQuery {
    /// By state.
    pub state: State,
    /// By the author's user name.
    pub author: Option<String>,
    /// By the branch that is merged.
    pub source_branch: Option<String>,
    /// By the branch that is merged into.
    pub target_branch: Option<String>,
    /// By words of title and description.
    pub text: Option<String>,
    /// Which page.
    pub page: PageRequest,
}

/// Which issues to list. Empty filters let everything through.
#[derive(Debug, Clone, Default)]
pub struct IssueQuery {
    /// By state.
    pub state: State,
    /// By the author's user name.
    pub author: Option<String>,
    /// By labels, all of them.
    pub labels: Vec<String>,
    /// By words of title and description.
    pub text: Option<String>,
    /// Which page.
    pub page: PageRequest,
}

/// One change request in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ChangeRequestSummary {
    /// Its number on the project.
    pub number: u64,
    /// Its title.
    pub title: String,
    /// `open`, `merged`, `closed`, `locked`, or the forge's own word where it has another.
    pub state: String,
    /// Whether it is a draft.
    pub draft: bool,
    /// Its author's user name; empty when the account is gone.
    pub author: String,
    /// The branch that it merges.
    pub source_branch: String,
    /// The branch that it merges into.
    pub target_branch: String,
    /// When it was opened, as the forge writes it.
    pub created_at: String,
    /// When it last changed, as the forge writes it.
    pub updated_at: String,
    /// Where a person looks at it.
    pub url: String,
}

/// Where the branch of a change request lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceRepository {
    /// In the project itself.
    Same,
    /// In another project.
    Fork,
    /// It cannot be seen, or is gone: nobody may push there.
    Unknown,
}

/// One change request in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ChangeRequestDetails {
    /// What a list says of it.
    #[serde(flatten)]
    pub summary: ChangeRequestSummary,
    /// Its description.
    pub description: String,
    /// Where its branch lives.
    pub source_repository: SourceRepository,
    /// Its head commit, where the forge tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// The commit that its diff starts from, where the forge tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Labels.
    pub labels: Vec<String>,
    /// User names of who is asked to review it.
    pub reviewers: Vec<String>,
    /// User names of who it is assigned to.
    pub assignees: Vec<String>,
    /// Whether it can be merged, in the forge's own word: `mergeable`, `conflict`, `checking`...
    pub merge_status: String,
    /// The state of the newest pipeline or of the checks of its head: `success`, `failed`, `running`, `pending`..., `none` where there is
    /// none, `unknown` where the token may not read it.
    pub pipeline: String,
    /// How many files it changes, where the forge tells it exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_files: Option<u64>,
}

/// One note of a person, a bot or the forge itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Note {
    /// The forge's id of the note.
    pub id: String,
    /// Its author's user name; empty when the account is gone.
    pub author: String,
    /// What it says.
    pub body: String,
    /// Whether the forge wrote it itself ("changed the title...").
    pub system: bool,
    /// When it was written, as the forge writes it.
    pub created_at: String,
    /// The file that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The line of that file, in its new version where it exists there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// A reviewer's verdict: `approved`, `changes_requested`, `commented`, `dismissed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
}

/// Notes that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Discussion {
    /// What `reply` takes; `None` where the forge has no threads for this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `discussion`, `comment`, `review` or `review_comment`.
    pub kind: String,
    /// Whether it is settled; `None` where nothing can be settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<bool>,
    /// The notes, the oldest first.
    pub notes: Vec<Note>,
}

/// One file of a diff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileDiff {
    /// Its path after the change.
    pub path: String,
    /// Its path before, where that was another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_path: Option<String>,
    /// `added`, `removed`, `renamed` or `modified`.
    pub change: String,
    /// The hunks as a unified diff; `None` when they are not here, and then `why` says why: an empty diff is never shown as no change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// Why there are no hunks, or not all: `binary`, `too_large`, `collapsed`, `cut`; `no_lines` where only name, mode or existence changed,
    /// which is complete without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A page of a change request's diff, as the forge's API tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Diff {
    /// The files.
    pub files: Page<FileDiff>,
    /// Whether every file of this page is here with all its hunks.
    pub complete: bool,
}

/// One issue in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct IssueSummary {
    /// Its number on the project.
    pub number: u64,
    /// Its title.
    pub title: String,
    /// `open`, `closed`, or the forge's own word where it has another.
    pub state: String,
    /// Its author's user name; empty when the account is gone.
    pub author: String,
    /// Labels.
    pub labels: Vec<String>,
    /// When it was opened, as the forge writes it.
    pub created_at: String,
    /// When it last changed, as the forge writes it.
    pub updated_at: String,
    /// Where a person looks at it.
    pub url: String,
}

/// One issue in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct IssueDetails {
    /// What a list says of it.
    #[serde(flatten)]
    pub summary: IssueSummary,
    /// Its description.
    pub description: String,
    /// User names of who it is assigned to.
    pub assignees: Vec<String>,
    /// How many comments it has, where the forge tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comments: Option<u64>,
}

/// One project of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProjectSummary {
    /// Its path, as tasks name it.
    pub path: String,
    /// The default branch, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_branch: Option<String>,
    /// Whether it is archived.
    pub archived: bool,
    /// Where a person looks at it.
    pub url: String,
}

/// What is read and answered on one forge with one token. Every call is safe to drop.
///
/// A number that belongs to the other kind (GitHub lists pull requests among issues) is `NotFound`, with words that say which it is.
#[async_trait]
pub trait Inspect: Send + Sync {
    /// How much of the token's rate limit was left a moment ago, in hundredths; `None` where the forge does not say, or said it a minute ago.
    fn rate_left(&self) -> Option<u8> {
        None
    }

    /// The projects that the token's user is a member of, the last active first; `search` looks in names and paths.
    async fn projects(&self, search: Option<&str>, page: PageRequest) -> Result<Page<ProjectSummary>, ForgeError>;

    /// Change requests of a project.
    async fn change_requests(
        &self,
        project: &ProjectFacts,
        query: &ChangeRequestQuery,
    ) -> Result<Page<ChangeRequestSummary>, ForgeError>;

    /// One change request.
    async fn change_request_details(
        &self,
        project: &ProjectFacts,
        number: u64,
    ) -> Result<ChangeRequestDetails, ForgeError>;

    /// Its diff as the API tells it: for where git has not got it.
    async fn change_request_diff(
        &self,
        project: &ProjectFacts,
        number: u64,
        page: PageRequest,
    ) -> Result<Diff, ForgeError>;

    /// What was said about it: threads, comments, reviews and review comments.
    async fn discussions(
        &self,
        project: &ProjectFacts,
        number: u64,
        page: PageRequest,
    ) -> Result<Page<Discussion>, ForgeError>;

    /// Issues of a project; pull requests, tasks and incidents are not among them.
    async fn issues(&self, project: &ProjectFacts, query: &IssueQuery) -> Result<Page<IssueSummary>, ForgeError>;

    /// One issue.
    async fn issue(&self, project: &ProjectFacts, number: u64) -> Result<IssueDetails, ForgeError>;

    /// The comments of an issue, the oldest first.
    async fn issue_comments(
        &self,
        project: &ProjectFacts,
        number: u64,
        page: PageRequest,
    ) -> Result<Page<Note>, ForgeError>;

    /// Answers a discussion of a change request; without a discussion, comments on the change request itself. Not retried: it would
    /// double.
    async fn reply(
        &self,
        project: &ProjectFacts,
        number: u64,
        discussion: Option<&str>,
        body: &str,
    ) -> Result<Note, ForgeError>;

    /// Comments on an issue. Not retried: it would double.
    async fn comment_on_issue(&self, project: &ProjectFacts, number: u64, body: &str) -> Result<Note, ForgeError>;
}
