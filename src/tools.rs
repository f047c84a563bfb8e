//! The tools that an agent is offered over MCP, each bounded by the session's grant.
//!
//! No tool publishes anything: `create_change_request` records a wish, and the worker publishes. Project and branch come from the grant;
//! an argument can only choose among its projects. Both revisions of the protocol that agents speak are answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::grant::Grant;
use crate::message::ProjectKey;

/// Longest text of one argument, in bytes.
const LONGEST_ARGUMENT: usize = 32 * 1024;

/// Largest request, in bytes: five texts, escaped.
const LARGEST_REQUEST: usize = 1024 * 1024;

/// What the agent wants a change request to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The title.
    pub title: String,
    /// What changed.
    pub changes: String,
    /// How and why that way.
    pub approach: String,
    /// What it costs.
    pub trade_offs: String,
    /// How it was checked.
    pub checked: String,
    /// Whether the agent wants a draft.
    pub draft: bool,
}

/// The wishes of one session, written by the tools and read at publish.
#[derive(Debug, Clone, Default)]
pub struct Wishes(Arc<Mutex<BTreeMap<ProjectKey, Wish>>>);

impl Wishes {
    /// The wish for a project.
    #[must_use]
    pub fn get(&self, project: &ProjectKey) -> Option<Wish> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(project)
            .cloned()
    }

    fn set(&self, project: ProjectKey, wish: Wish) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(project, wish);
    }
}

/// The MCP server of one session.
#[derive(Debug, Clone)]
pub struct Tools {
    grant: Arc<Grant>,
    wishes: Wishes,
}

/// The arguments of `create_change_request`.
#[derive(Debug, Deserialize, JsonSchema)]
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

/// What `get_session` answers.
#[derive(Debug, Serialize, JsonSchema)]
struct SessionView {
    /// The session's id.
    session: String,
    /// Its projects.
    projects: Vec<ProjectView>,
}

/// One project of `get_session`.
#[derive(Debug, Serialize, JsonSchema)]
struct ProjectView {
    /// How the other tools name it.
    project: String,
    /// Where it is cloned.
    directory: String,
    /// The branch to commit on.
    branch: String,
    /// The branch it will be merged into.
    base: String,
    /// Whether commits will be published.
    may_push: bool,
    /// Its page on the forge.
    web_url: String,
}

#[tool_router]
impl Tools {
    /// The tools of a session.
    #[must_use]
    pub fn new(grant: Arc<Grant>, wishes: Wishes) -> Self {
        Self { grant, wishes }
    }

    /// Shows the session: its projects, where they are cloned, and the branch to commit on.
    #[tool(annotations(
        title = "Show the session",
        read_only_hint = true,
        destructive_hint = false,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    async fn get_session(&self) -> Result<Json<SessionView>, ErrorData> {
        Ok(Json(SessionView {
            session: self.grant.session.to_string(),
            projects: self
                .grant
                .projects
                .iter()
                .map(|project| ProjectView {
                    project: project.key.to_string(),
                    directory: project.directory.clone(),
                    branch: project.branch.to_string(),
                    base: project.base.to_string(),
                    may_push: !project.capabilities.push_branches.is_refused(),
                    web_url: project.web_url.clone(),
                })
                .collect(),
        }))
    }

    /// Says what the merge request or pull request of a project shall tell its reviewers. It is opened from your commits when the turn
    /// is over; calling this again replaces the text.
    #[tool(annotations(
        title = "Describe the change request",
        read_only_hint = false,
        destructive_hint = false,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    async fn create_change_request(
        &self,
        Parameters(wanted): Parameters<CreateChangeRequest>,
    ) -> Result<Json<Recorded>, ErrorData> {
        let key = self.choose(wanted.project.as_deref())?;
        let texts = [
            &wanted.title,
            &wanted.changes,
            &wanted.approach,
            &wanted.trade_offs,
            &wanted.checked,
        ];
        if texts.iter().any(|text| text.len() > LONGEST_ARGUMENT) {
            return Err(ErrorData::invalid_params(
                "each text may have at most 32 KiB: shorten it",
                None,
            ));
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

    /// The project that an argument names, or the only one.
    fn choose(&self, named: Option<&str>) -> Result<ProjectKey, ErrorData> {
        let keys = || {
            self.grant
                .projects
                .iter()
                .map(|project| project.key.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let found = match named {
            Some(name) => self
                .grant
                .projects
                .iter()
                .find(|project| project.key.to_string() == name || project.key.path.as_str() == name),
            None if self.grant.projects.len() == 1 => self.grant.projects.first(),
            None => None,
        };
        found
            .map(|project| project.key.clone())
            .ok_or_else(|| ErrorData::invalid_params(format!("name one of the session's projects: {}", keys()), None))
    }
}

#[tool_handler]
impl ServerHandler for Tools {}

/// The tools as an HTTP service, to be mounted at `/mcp` of the session's gateway.
pub fn router(grant: Arc<Grant>, wishes: Wishes) -> axum::Router {
    let tools = Tools::new(grant, wishes);
    let mut config = StreamableHttpServerConfig::default();
    config.legacy_session_mode = false;
    config.json_response = true;
    config.max_request_body_bytes = LARGEST_REQUEST;
    let service = StreamableHttpService::new(
        move || Ok(tools.clone()),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    axum::Router::new().nest_service("/mcp", service)
}

#[cfg(test)]
mod tests;
