//! Agents that speak the Agent Client Protocol, version 1. The only files that name the protocol's crate.
//!
//! Never advertises file system or terminal access (agent and files live in one sandbox), never authenticates, and takes no stop reason
//! for success. Updates are read by our own lenient reader before the crate sees the stream; the crate gets requests and answers only.

use std::sync::Arc;
use std::time::Duration;

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    CancelNotification, ContentBlock, Implementation, InitializeRequest, McpServer, McpServerHttp, NewSessionRequest,
    PromptRequest, RequestPermissionRequest, SessionId, SetSessionModeRequest, TextContent,
};
use agent_client_protocol::{Agent as AgentRole, Client, ConnectTo, Error, Lines};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::ask::Ask;
use super::{AgentError, Pipes};
use crate::progress::Progress;

mod asking;
mod clock;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod lines;
mod load;
mod permission;
mod tally;
mod turn;
mod update;

use asking::{Asked, Asking};
use load::Replay;
pub use load::{Loaded, Opened};

/// What an agent needs to know at its start.
#[derive(Debug, Clone)]
pub struct Start {
    /// The working directory in the sandbox, absolute.
    pub directory: String,
    /// The address of the worker's MCP server, seen from inside.
    pub mcp_url: String,
    /// The session mode to choose.
    pub session_mode: Option<String>,
    /// The conversation to go on with, by the agent's own id of it, where it finds it in its home directory.
    pub load: Option<String>,
    /// How long the start may take.
    pub timeout: Duration,
    /// Who is asked when it wants leave; without anybody it is given at once.
    pub ask: Option<Arc<dyn Ask>>,
}

/// A prompt on its way into the connection.
struct Prompt {
    text: String,
    answer: oneshot::Sender<Result<String, Error>>,
}

/// A started agent. Dropping it ends the connection.
#[derive(Debug)]
pub struct AcpAgent {
    prompts: mpsc::Sender<Prompt>,
    cancels: mpsc::Sender<()>,
    /// What the agent said in the running turn, and when it last gave a sign of life.
    heard: watch::Receiver<Instant>,
    said: lines::Said,
    replay: Replay,
    asking: Asking,
    /// Whether the last prompt was answered.
    is_usable: bool,
    connection: tokio::task::JoinHandle<()>,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for AcpAgent {
    fn drop(&mut self) {
        self.asking.end();
        self.connection.abort();
        self.reader.abort();
    }
}

/// Speaks to a fresh agent: initialise, open or load a session, choose the mode.
///
/// # Errors
/// The agent does not come up in time, wants authentication, or answers with an error.
pub async fn start(pipes: Pipes, start: Start, progress: Arc<Progress>) -> Result<(AcpAgent, Opened), AgentError> {
    let said = lines::Said::default();
    let told = lines::Told {
        progress,
        tally: tally::Tally::default(),
        replay: Replay::of(start.load.is_some()),
    };
    let (heard_tx, heard) = watch::channel(Instant::now());
    // The crate gets from here what the reader lets through: one line at a time, so that a flood waits in the agent's own pipe.
    let (let_through, lines) = mpsc::channel(1);
    let reader = tokio::spawn(lines::filter(
        pipes.stdout,
        let_through,
        said.clone(),
        heard_tx,
        told.clone(),
    ));

    let (prompts, prompts_rx) = mpsc::channel::<Prompt>(1);
    let (cancels, cancels_rx) = mpsc::channel::<()>(1);
    let (ready_tx, ready_rx) = oneshot::channel();
    let transport = Lines::new(lines::sink(pipes.stdin), ReceiverStream::new(lines));
    let limit = start.timeout;
    let replay = told.replay.clone();
    let asking = Asking::of(start.ask.clone());
    let connection = tokio::spawn(converse(
        transport,
        start,
        (told, asking.clone()),
        prompts_rx,
        cancels_rx,
        ready_tx,
    ));
    let agent = AcpAgent {
        prompts,
        cancels,
        heard,
        said,
        replay,
        asking,
        is_usable: true,
        connection,
        reader,
    };
    match tokio::time::timeout(limit, ready_rx).await {
        Ok(Ok(Ok(opened))) => Ok((agent, opened)),
        Ok(Ok(Err(error))) => Err(described(&error)),
        Ok(Err(_)) => Err(AgentError::Ended {
            detail: "before it opened a session".into(),
        }),
        Err(_) => Err(AgentError::StartTimeout { after: limit }),
    }
}

/// The whole conversation, in a task of its own: it ends when the agent's output ends or the handle is dropped.
async fn converse(
    transport: impl ConnectTo<Client> + 'static,
    start: Start,
    (told, asking): (lines::Told, Asking),
    mut prompts: mpsc::Receiver<Prompt>,
    mut cancels: mpsc::Receiver<()>,
    ready: oneshot::Sender<Result<Opened, Error>>,
) {
    let permissions = told.clone();
    let ended = Client
        .v1()
        .name("cofferdam")
        .on_receive_request(
            async move |request: RequestPermissionRequest, responder, _connection| {
                let (answer, event) = match asking.take(|| permission::asked(&request)) {
                    Asked::ByPolicy => permission::decide(&request),
                    Asked::Decided(decided) => permission::decided(&request, decided),
                    // Not here, where nothing else would be read meanwhile. Few at a time, so the tasks are few.
                    Asked::Waits(waiting) => {
                        let permissions = permissions.clone();
                        tokio::spawn(async move {
                            let (answer, event) = permission::decided(&request, waiting.decided().await);
                            // An agent that is gone waits for nothing.
                            let _ = responder.respond(answer);
                            // How each question that was told ended is told; there are few.
                            permissions.progress.state(event).await;
                        });
                        return Ok(());
                    }
                };
                if permissions.tally.permission() {
                    permissions.progress.state(event).await;
                }
                responder.respond(answer)
            },
            agent_client_protocol::on_receive_request!(),
        )
        .connect_with(transport, async move |connection: ConnectionTo<AgentRole>| {
            let session = match open(&connection, &start).await {
                Ok((session, opened)) => {
                    let _ = ready.send(Ok(opened));
                    session
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return Ok(());
                }
            };
            while let Some(prompt) = prompts.recv().await {
                while cancels.try_recv().is_ok() {}
                let text = ContentBlock::Text(TextContent::new(prompt.text));
                let mut answer = Box::pin(
                    connection
                        .send_request(PromptRequest::new(session.clone(), vec![text]))
                        .block_task(),
                );
                let outcome = loop {
                    tokio::select! {
                        outcome = &mut answer => break outcome,
                        Some(()) = cancels.recv() => {
                            connection.send_notification(CancelNotification::new(session.clone()))?;
                        }
                    }
                };
                told.tell().await;
                let _ = prompt
                    .answer
                    .send(outcome.map(|response| stop_word(&response.stop_reason)));
            }
            Ok(())
        })
        .await;
    if let Err(error) = ended {
        tracing::debug!(code = %i32::from(error.code), "the agent's connection ended with an error");
    }
}

/// Initialise, load a session or open a new one, choose the mode.
async fn open(connection: &ConnectionTo<AgentRole>, start: &Start) -> Result<(SessionId, Opened), Error> {
    let client = Implementation::new("cofferdam", env!("CARGO_PKG_VERSION"));
    // No file system and no terminal capability: an agent that is offered them uses them badly, and needs neither here.
    let hello = connection
        .send_request(InitializeRequest::new(ProtocolVersion::V1).client_info(client))
        .block_task()
        .await?;
    let mut servers = Vec::new();
    if hello.agent_capabilities.mcp_capabilities.http {
        servers.push(McpServer::Http(McpServerHttp::new("cofferdam", start.mcp_url.clone())));
    }
    let can_load = hello.agent_capabilities.load_session;
    let old = start.load.clone().map(SessionId::new);
    let loaded = match &old {
        None => Loaded::NotAsked,
        Some(_) if !can_load => Loaded::No("the agent says no more that it can load sessions".to_owned()),
        Some(old) => load::load(connection, old, &start.directory, servers.clone()).await,
    };
    let session = match old {
        Some(old) if loaded == Loaded::Yes => old,
        Some(_) | None => {
            let request = NewSessionRequest::new(std::path::PathBuf::from(&start.directory)).mcp_servers(servers);
            connection.send_request(request).block_task().await?.session_id
        }
    };
    if let Some(mode) = &start.session_mode {
        let request = SetSessionModeRequest::new(session.clone(), mode.clone());
        connection.send_request(request).block_task().await?;
    }
    let opened = Opened {
        session: session.to_string(),
        can_load,
        loaded,
    };
    Ok((session, opened))
}

/// An agent's error in our words. Its own words are bounded; they are masked where they become an event.
fn described(error: &Error) -> AgentError {
    let mut detail: String = error.message.chars().take(300).collect();
    if let Some(data) = &error.data {
        detail.push_str(&format!(
            " ({})",
            data.to_string().chars().take(300).collect::<String>()
        ));
    }
    match i32::from(error.code) {
        -32000 => AgentError::Unauthenticated { detail },
        _ => AgentError::Answered { detail },
    }
}

/// The wire word of a stop reason.
fn stop_word(reason: &impl serde::Serialize) -> String {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}
