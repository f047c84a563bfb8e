//! `get_session`: what the session is and may do. Asks no forge.

use rmcp::handler::server::wrapper::Json;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Serialize;

use super::Tools;
use super::error::ToolError;
use super::reach::Act;

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
    /// What its forge calls a change request.
    change_request_word: &'static str,
    /// Where it is cloned.
    directory: String,
    /// The branch to commit on.
    branch: String,
    /// The branch it will be merged into.
    base: String,
    /// Whether commits will be published.
    may_push: bool,
    /// Whether its change requests can be read.
    may_read_change_requests: bool,
    /// Whether its issues can be read.
    may_read_issues: bool,
    /// Whether you may reply to discussions and comment on issues.
    may_comment: bool,
    /// Its page on the forge.
    web_url: String,
}

#[tool_router(router = session_router, vis = "pub(super)")]
impl Tools {
    /// Shows the session: its projects, where they are cloned, the branch to commit on, and what may be done on each forge.
    #[tool(
        title = "Show the session",
        annotations(
            title = "Show the session",
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn get_session(&self) -> Result<Json<SessionView>, ToolError> {
        let grant = self.granted.now();
        Ok(Json(SessionView {
            session: grant.session.to_string(),
            projects: grant
                .projects
                .iter()
                .map(|project| ProjectView {
                    project: project.key.to_string(),
                    change_request_word: project.forge.change_request_word(),
                    directory: project.directory.clone(),
                    branch: project.branch.to_string(),
                    base: project.base.to_string(),
                    may_push: !project.capabilities.push_branches.is_refused(),
                    may_read_change_requests: Act::InspectChangeRequests.is_open(project),
                    may_read_issues: Act::ReadIssues.is_open(project),
                    may_comment: grant.may_comment && Act::Comment.is_open(project),
                    web_url: project.web_url.clone(),
                })
                .collect(),
        }))
    }
}
