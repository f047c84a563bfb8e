//! Going on with a conversation that the agent saved itself: the request, and silence while the agent repeats what was said.
//!
//! Never an error of the start: an agent that cannot or will not load its conversation begins a new one. What it repeats is told to nobody.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_client_protocol::Error;
use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{LoadSessionRequest, McpServer, SessionId};

use super::{AgentRole, described};

/// Whether what the agent says is a repetition. Not only until it has answered: some go on repeating after that. Only the first prompt ends it.
#[derive(Debug, Clone, Default)]
pub(super) struct Replay(Arc<AtomicBool>);

impl Replay {
    pub(super) fn of(loads: bool) -> Self {
        Self(Arc::new(AtomicBool::new(loads)))
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// The first prompt is about to be given: from now on the agent speaks for itself.
    pub(super) fn over(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// What came of the wish to load a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// There was none.
    NotAsked,
    /// The agent goes on with it.
    Yes,
    /// It does not, for this reason, and began a new one.
    No(String),
}

/// How an agent came up.
#[derive(Debug, Clone)]
pub struct Opened {
    /// By what it calls the conversation.
    pub session: String,
    /// Whether it says that it can load conversations.
    pub can_load: bool,
    /// What came of loading one.
    pub loaded: Loaded,
}

/// Asks it to go on with a conversation.
pub(super) async fn load(
    connection: &ConnectionTo<AgentRole>,
    session: &SessionId,
    directory: &str,
    servers: Vec<McpServer>,
) -> Loaded {
    let request = LoadSessionRequest::new(session.clone(), PathBuf::from(directory)).mcp_servers(servers);
    let answered: Result<_, Error> = connection.send_request(request).block_task().await;
    match answered {
        Ok(_) => Loaded::Yes,
        Err(error) => Loaded::No(described(&error).to_string()),
    }
}
