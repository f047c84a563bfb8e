//! Issues: list, details, comments, and a comment in the user's name where token and task allow it. Opens and closes none.

use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Tools;
use super::arguments::{Place, filter, number, refused};
use super::bounds::{self, Listed, Single};
use super::comment::{Comment, Posted};
use super::error::ToolError;
use super::reach::Act;
use crate::forge::inspect::{IssueDetails, IssueQuery, IssueSummary, Note, State};
use crate::message::event::CommentedOn;

/// Most labels to filter by.
const MOST_LABELS: usize = 20;

/// The arguments of `list_issues`.
#[derive(Debug, Deserialize, JsonSchema)]
struct ListIssues {
    /// The project as `connection:group/project`; may be left out in a session of one project.
    #[serde(default)]
    project: Option<String>,
    /// `open` (when absent), `closed` or `all`.
    #[serde(default)]
    state: IssueState,
    /// The author's user name.
    #[serde(default)]
    author: Option<String>,
    /// Labels, all of which it has.
    #[serde(default)]
    labels: Vec<String>,
    /// Words of title and description.
    #[serde(default)]
    text: Option<String>,
    #[serde(flatten)]
    place: Place,
}

/// The state of issues to list; issues are never merged.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum IssueState {
    /// Not closed.
    #[default]
    Open,
    /// Closed.
    Closed,
    /// Any.
    All,
}

/// The arguments of `get_issue`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GetIssue {
    /// The project as `connection:group/project`; may be left out in a session of one project.
    #[serde(default)]
    project: Option<String>,
    /// Its number.
    number: u64,
    /// Show the description from this character on, because an earlier call showed what stands before it.
    #[serde(default)]
    text_from: usize,
}

/// The arguments of `list_issue_comments`.
#[derive(Debug, Deserialize, JsonSchema)]
struct ListIssueComments {
    /// The project as `connection:group/project`; may be left out in a session of one project.
    #[serde(default)]
    project: Option<String>,
    /// The issue's number.
    number: u64,
    #[serde(flatten)]
    place: Place,
}

/// The arguments of `comment_on_issue`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CommentOnIssue {
    /// The project as `connection:group/project`; may be left out in a session of one project.
    #[serde(default)]
    project: Option<String>,
    /// The issue's number.
    number: u64,
    /// What to say, at most 32 KiB of Markdown. Mentions, references and commands in it do nothing.
    body: String,
}

#[tool_router(router = issues_router, vis = "pub(super)")]
impl Tools {
    /// Lists issues of a project: open ones, or by state, author, labels, or words of title and description. Merge and pull requests are
    /// not among them.
    #[tool(
        title = "List issues",
        annotations(
            title = "List issues",
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = true
        )
    )]
    async fn list_issues(
        &self,
        Parameters(wanted): Parameters<ListIssues>,
    ) -> Result<Json<Listed<IssueSummary>>, ToolError> {
        let (project, at) = self.reach(wanted.project.as_deref(), Act::ReadIssues)?;
        if wanted.labels.len() > MOST_LABELS {
            return refused("labels", format!("may be at most {MOST_LABELS}"));
        }
        let labels: Result<Vec<_>, _> = wanted
            .labels
            .into_iter()
            .map(|label| filter("labels", Some(label)))
            .collect();
        let query = IssueQuery {
            state: match wanted.state {
                IssueState::Open => State::Open,
                IssueState::Closed => State::Closed,
                IssueState::All => State::All,
            },
            author: filter("author", wanted.author)?,
            labels: labels?.into_iter().flatten().collect(),
            text: filter("text", wanted.text)?,
            page: wanted.place.page()?,
        };
        let _place = self.budget.call()?;
        let page = at.forge.issues(&at.facts, &query).await?;
        bounds::fit(&project, page.items, page.next_page, &wanted.place).map(Json)
    }

    /// Shows one issue: description, labels, who it is assigned to.
    #[tool(
        title = "Show an issue",
        annotations(
            title = "Show an issue",
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = true
        )
    )]
    async fn get_issue(
        &self,
        Parameters(wanted): Parameters<GetIssue>,
    ) -> Result<Json<Single<IssueDetails>>, ToolError> {
        let (project, at) = self.reach(wanted.project.as_deref(), Act::ReadIssues)?;
        let number = number(wanted.number)?;
        let _place = self.budget.call()?;
        let details = at.forge.issue(&at.facts, number).await?;
        bounds::single(&project, &details, wanted.text_from).map(Json)
    }

    /// Lists the comments of an issue, the oldest first.
    #[tool(
        title = "List the comments of an issue",
        annotations(
            title = "List the comments of an issue",
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = true
        )
    )]
    async fn list_issue_comments(
        &self,
        Parameters(wanted): Parameters<ListIssueComments>,
    ) -> Result<Json<Listed<Note>>, ToolError> {
        let (project, at) = self.reach(wanted.project.as_deref(), Act::ReadIssues)?;
        let (number, page) = (number(wanted.number)?, wanted.place.page()?);
        let _place = self.budget.call()?;
        let page = at.forge.issue_comments(&at.facts, number, page).await?;
        bounds::fit(&project, page.items, page.next_page, &wanted.place).map(Json)
    }

    /// Comments on an issue, in the name of the user. People read it: say what they need and no more. Only where the task permits
    /// comments.
    #[tool(
        title = "Comment on an issue",
        annotations(
            title = "Comment on an issue",
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = false,
            open_world_hint = true
        )
    )]
    async fn comment_on_issue(
        &self,
        Parameters(wanted): Parameters<CommentOnIssue>,
    ) -> Result<Json<Posted>, ToolError> {
        let (project, at) = self.may_comment(wanted.project.as_deref())?;
        let number = number(wanted.number)?;
        let body = self.comment_body(&wanted.body)?;
        let _place = self.budget.call()?;
        // Looked at first, so that a number of the other kind is refused, and the user is told the address.
        let details = at.forge.issue(&at.facts, number).await?;
        let comment = Comment {
            on: CommentedOn::Issue,
            number,
            discussion: None,
            url: details.summary.url,
            text: body,
        };
        self.speak(&project, &at, comment).await.map(Json)
    }
}
