//! The tools that an agent is offered over MCP, each bounded by the session's grant.
//!
//! The agent has no token: the worker asks the forges for it, within what the user's token and the task allow. No tool publishes, merges,
//! approves or closes anything: `create_change_request` records a wish, and the worker publishes. Project and branch come from the grant; an
//! argument can only choose among its projects. What strangers wrote is marked as theirs, and no result is longer than a bound or shorter
//! than it should be without saying so. Both revisions of the protocol that agents speak are answered.

use std::sync::{Arc, LazyLock};

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, tool_handler};

mod arguments;
mod bounds;
mod budget;
mod change_requests;
mod comment;
mod diff;
mod discussions;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod issues;
mod reach;
mod session;
#[cfg(test)]
mod tests;
mod wishes;

pub use reach::{DiffRequest, Diffs, Find, ForgeProject, GitDiff, Granted, Reach, Refuse, Tell};
pub use wishes::{Wish, Wishes};

/// Longest text of one argument, in bytes.
const LONGEST_ARGUMENT: usize = 32 * 1024;

/// Largest request, in bytes: five texts, escaped.
const LARGEST_REQUEST: usize = 1024 * 1024;

/// The MCP server of one session.
#[derive(Debug, Clone)]
pub struct Tools {
    granted: Granted,
    wishes: Wishes,
    reach: Reach,
    budget: budget::Budget,
    /// Made once: it holds the schemas of all arguments and results.
    router: Arc<ToolRouter<Self>>,
}

impl Tools {
    /// The tools of a session.
    #[must_use]
    pub fn new(granted: Granted, wishes: Wishes, reach: Reach) -> Self {
        // One for all sessions: with its schemas it is half of what a session would keep in memory for its tools.
        static ROUTER: LazyLock<Arc<ToolRouter<Tools>>> = LazyLock::new(|| {
            Arc::new(
                Tools::session_router()
                    + Tools::change_requests_router()
                    + Tools::diff_router()
                    + Tools::discussions_router()
                    + Tools::issues_router(),
            )
        });
        Self {
            granted,
            wishes,
            reach,
            budget: budget::Budget::default(),
            router: Arc::clone(&ROUTER),
        }
    }
}

#[tool_handler(router = self.router)]
impl ServerHandler for Tools {}

/// The tools as an HTTP service at `/mcp` of the session's gateway: what is returned makes the routes, as often as they are needed, on the same
/// session.
pub fn router(granted: impl Into<Granted>, wishes: Wishes, reach: Reach) -> impl Fn() -> axum::Router {
    let tools = Tools::new(granted.into(), wishes, reach);
    move || routes(tools.clone())
}

fn routes(tools: Tools) -> axum::Router {
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
