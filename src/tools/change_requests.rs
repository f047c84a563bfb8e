//! Change requests: the wish for one's own, and the list and details of all. Reads; opens, merges and closes nothing.

use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::arguments::{Place, filter, number, refused};
use super::bounds::{self, Listed, Single};
use super::error::ToolError;
use super::reach::Act;
use super::{LONGEST_ARGUMENT, Tools, Wish};
use crate::forge::inspect::{ChangeRequestDetails, ChangeRequestQuery, ChangeRequestSummary, State};

/// The arguments of `create_change_request`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CreateChangeRequest {
    /// The project as `connection:group/project`; may be left out in a session of one project.
    #[serde(default)]
    project: Option<String>,
    /// One line that says what the change does.
    title: String,
    /// What changed, for a reviewer.
    changes: String,
    /// How it was done and why that way.
    approach: String,
    /// What it costs, what was left, what to look at.
    trade_offs: String,
    /// Which checks were run and what came of them.
    #[serde(default)]
    checked: String,
    /// Whether it shall be a draft.
    #[serde(default)]
    draft: bool,
}

/// What `create_change_request` answers.
#[derive(Debug, Serialize, JsonSchema)]
struct Recorded {
    /// The project it was recorded for.
    project: String,
    /// What happens next.
    note: String,
}

/// The arguments of `list_change_requests`.
#[derive(Debug, Deserialize, JsonSchema)]
struct ListChangeRequests {
    /// The project as `connection:group/project`; may be left out in a session of one project.
    #[serde(default)]
    project: Option<String>,
    /// `open` (when absent), `merged`, `closed` or `all`.
    #[serde(default)]
    state: State,
    /// The author's user name.
    #[serde(default)]
    author: Option<String>,
    /// The branch that is merged.
    #[serde(default)]
    source_branch: Option<String>,
    /// The branch that is merged into.
    #[serde(default)]
    target_branch: Option<String>,
    /// Words of title and description.
    #[serde(default)]
    text: Option<String>,
    #[serde(flatten)]
    place: Place,
}

/// The arguments of `get_change_request`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GetChangeRequest {
    /// The project as `connection:group/project`; may be left out in a session of one project.
    #[serde(default)]
    project: Option<String>,
    /// Its number.
    number: u64,
    /// Show the description from this character on, because an earlier call showed what stands before it.
    #[serde(default)]
    text_from: usize,
}

#[tool_router(router = change_requests_router, vis = "pub(super)")]
impl Tools {
    /// Says what the merge request or pull request of a project shall tell its reviewers. It is opened from your commits when the turn
    /// is over; calling this again replaces the text.
    #[tool(
        title = "Describe the change request",
        annotations(
            title = "Describe the change request",
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn create_change_request(
        &self,
        Parameters(wanted): Parameters<CreateChangeRequest>,
    ) -> Result<Json<Recorded>, ToolError> {
        let key = self.choose(wanted.project.as_deref())?.key;
        for (argument, text) in [
            ("title", &wanted.title),
            ("changes", &wanted.changes),
            ("approach", &wanted.approach),
            ("trade_offs", &wanted.trade_offs),
            ("checked", &wanted.checked),
        ] {
            if text.len() > LONGEST_ARGUMENT {
                return refused(argument, "may have at most 32 KiB: shorten it".to_owned());
            }
            self.without_secrets(argument, text)?;
        }
        let wish = Wish {
            title: wanted.title,
            changes: wanted.changes,
            approach: wanted.approach,
            trade_offs: wanted.trade_offs,
            checked: wanted.checked,
            draft: wanted.draft,
        };
        self.wishes.set(key.clone(), wish);
        Ok(Json(Recorded {
            project: key.to_string(),
            note: "recorded; it is opened from your commits when the turn is over".to_owned(),
        }))
    }

    /// Lists merge requests or pull requests of a project: open ones, or by state, author, branches, or words of title and description.
    #[tool(
        title = "List change requests",
        annotations(
            title = "List change requests",
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = true
        )
    )]
    async fn list_change_requests(
        &self,
        Parameters(wanted): Parameters<ListChangeRequests>,
    ) -> Result<Json<Listed<ChangeRequestSummary>>, ToolError> {
        let (project, at) = self.reach(wanted.project.as_deref(), Act::InspectChangeRequests)?;
        let query = ChangeRequestQuery {
            state: wanted.state,
            author: filter("author", wanted.author)?,
            source_branch: filter("source_branch", wanted.source_branch)?,
            target_branch: filter("target_branch", wanted.target_branch)?,
            text: filter("text", wanted.text)?,
            page: wanted.place.page()?,
        };
        let _place = self.budget.call()?;
        let page = at.forge.change_requests(&at.facts, &query).await?;
        bounds::fit(&project, page.items, page.next_page, &wanted.place).map(Json)
    }

    /// Shows one merge request or pull request: description, branches, the repository its branch is in, head and base commit, reviewers,
    /// the state of its pipeline, whether it can be merged.
    #[tool(
        title = "Show a change request",
        annotations(
            title = "Show a change request",
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = true
        )
    )]
    async fn get_change_request(
        &self,
        Parameters(wanted): Parameters<GetChangeRequest>,
    ) -> Result<Json<Single<ChangeRequestDetails>>, ToolError> {
        let (project, at) = self.reach(wanted.project.as_deref(), Act::InspectChangeRequests)?;
        let number = number(wanted.number)?;
        let _place = self.budget.call()?;
        let details = at.forge.change_request_details(&at.facts, number).await?;
        bounds::single(&project, &details, wanted.text_from).map(Json)
    }
}
