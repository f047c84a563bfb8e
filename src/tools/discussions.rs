//! What people say about a change request, and the one way to answer them: in the user's name, where token and task allow it.

use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tools;
use super::arguments::{Place, filter, number};
use super::bounds::{self, Listed};
use super::comment::{Comment, Posted};
use super::error::ToolError;
use super::reach::Act;
use crate::forge::inspect::{Discussion, Note};
use crate::message::event::CommentedOn;

/// The arguments of `list_change_request_discussions`.
#[derive(Debug, Deserialize, JsonSchema)]
struct ListDiscussions {
    /// The project as `connection:group/project`; may be left out in a session of one project.
    #[serde(default)]
    project: Option<String>,
    /// The change request's number.
    number: u64,
    #[serde(flatten)]
    place: Place,
}

/// The arguments of `reply_to_discussion`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReplyToDiscussion {
    /// The project as `connection:group/project`; may be left out in a session of one project.
    #[serde(default)]
    project: Option<String>,
    /// The change request's number.
    number: u64,
    /// The discussion's id, from `list_change_request_discussions`; without it, the change request itself is commented on.
    #[serde(default)]
    discussion: Option<String>,
    /// What to say, at most 32 KiB of Markdown. Mentions, references and commands in it do nothing.
    body: String,
}

/// One note, with the discussion that it belongs to.
#[derive(Debug, Serialize, JsonSchema)]
struct NoteRow {
    /// What `reply_to_discussion` takes; absent where nothing can be replied to.
    #[serde(skip_serializing_if = "Option::is_none")]
    discussion: Option<String>,
    /// `discussion`, `comment`, `review` or `review_comment`.
    kind: String,
    /// Whether the discussion is settled; absent where nothing can be settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved: Option<bool>,
    /// The note.
    #[serde(flatten)]
    note: Note,
}

#[tool_router(router = discussions_router, vis = "pub(super)")]
impl Tools {
    /// Lists what was said about a merge request or pull request: discussions, comments, reviews with their verdicts, review comments
    /// with file and line. One row a note; rows of one discussion follow each other and share its id.
    #[tool(
        title = "List the discussions of a change request",
        annotations(
            title = "List the discussions of a change request",
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = true
        )
    )]
    async fn list_change_request_discussions(
        &self,
        Parameters(wanted): Parameters<ListDiscussions>,
    ) -> Result<Json<Listed<NoteRow>>, ToolError> {
        let (project, at) = self.reach(wanted.project.as_deref(), Act::InspectChangeRequests)?;
        let (number, page) = (number(wanted.number)?, wanted.place.page()?);
        let _place = self.budget.call()?;
        let page = at.forge.discussions(&at.facts, number, page).await?;
        let rows = page.items.into_iter().flat_map(rows).collect();
        bounds::fit(&project, rows, page.next_page, &wanted.place).map(Json)
    }

    /// Replies to a discussion of a merge request or pull request, in the name of the user. People read it: say what they need and no
    /// more. Only where the task permits comments.
    #[tool(
        title = "Reply to a discussion",
        annotations(
            title = "Reply to a discussion",
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = false,
            open_world_hint = true
        )
    )]
    async fn reply_to_discussion(
        &self,
        Parameters(wanted): Parameters<ReplyToDiscussion>,
    ) -> Result<Json<Posted>, ToolError> {
        let (project, at) = self.may_comment(wanted.project.as_deref())?;
        let number = number(wanted.number)?;
        let discussion = filter("discussion", wanted.discussion)?;
        let body = self.comment_body(&wanted.body)?;
        let _place = self.budget.call()?;
        // Looked at first, so that nothing is said where nobody reads it, and the user is told the address.
        let details = at.forge.change_request_details(&at.facts, number).await?;
        let comment = Comment {
            on: CommentedOn::ChangeRequest,
            number,
            discussion,
            url: details.summary.url,
            text: body,
        };
        self.speak(&project, &at, comment).await.map(Json)
    }
}

fn rows(discussion: Discussion) -> impl Iterator<Item = NoteRow> {
    let Discussion {
        id,
        kind,
        resolved,
        notes,
    } = discussion;
    notes.into_iter().map(move |note| NoteRow {
        discussion: id.clone(),
        kind: kind.clone(),
        resolved,
        note,
    })
}
