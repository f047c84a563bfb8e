//! The agent's side of the Agent Client Protocol, version 1: sessions, prompts, cancel. What a prompt does is the turn's business.
//! It keeps no session beyond its process and loads none, unless `SCRIPTED_LOADS` says otherwise.

mod memory;
mod session;

use std::collections::HashMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use self::memory::{Loads, Memory};
use self::session::Session;
use super::connection::{Connection, Incoming, RpcError, lock, read};
use super::mcp::Server;

const MODES: [&str; 2] = ["default", "full-access"];

#[derive(Default)]
struct Agent {
    connection: Arc<Connection>,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    was_initialized: AtomicBool,
    outlives_its_client: Arc<AtomicBool>,
}

/// Serves the standard streams until the input ends.
pub(super) fn serve() -> anyhow::Result<ExitCode> {
    let agent = Agent::default();
    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        if !line.trim_ascii().is_empty() {
            agent.receive(&line);
        }
        line.clear();
    }
    while agent.outlives_its_client.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_secs(3600));
    }
    Ok(ExitCode::SUCCESS)
}

impl Agent {
    fn receive(&self, line: &[u8]) {
        match read(line) {
            Incoming::Request { id, method, params } if method == "session/prompt" => self.prompt(&id, &params),
            Incoming::Request { id, method, params } => {
                let result = self.request(&method, &params);
                self.connection.answer(&id, result);
            }
            Incoming::Notification { method, params } => {
                if method == "session/cancel"
                    && let Ok(session) = self.session(&params)
                {
                    session.cancel();
                }
            }
            Incoming::Answer { id, result } => self.connection.answered(id, result),
            Incoming::Wrong(error) => self.connection.answer(&Value::Null, Err(error)),
        }
    }

    fn request(&self, method: &str, params: &Value) -> Result<Value, RpcError> {
        match method {
            "initialize" => self.initialize(params),
            "session/new" => self.new_session(params),
            "session/load" => self.load_session(params),
            "session/set_mode" => self.set_mode(params),
            _ => Err(RpcError::new(-32601, format!("no method {method}"))),
        }
    }

    fn initialize(&self, params: &Value) -> Result<Value, RpcError> {
        if !params.get("protocolVersion").is_some_and(Value::is_u64) {
            return Err(RpcError::invalid_params("protocolVersion is not a number"));
        }
        self.was_initialized.store(true, Ordering::SeqCst);
        let methods = if needs_authentication() {
            json!([{"id": "key", "name": "A key that nobody has"}])
        } else {
            json!([])
        };
        Ok(json!({
            "protocolVersion": 1,
            "agentInfo": {"name": "scripted-agent", "title": "Scripted agent", "version": env!("CARGO_PKG_VERSION")},
            "agentCapabilities": {
                "loadSession": Loads::of_environment() != Loads::Never,
                "promptCapabilities": {"image": false, "audio": false, "embeddedContext": true},
                "mcpCapabilities": {"http": true, "sse": false},
            },
            "authMethods": methods,
        }))
    }

    fn new_session(&self, params: &Value) -> Result<Value, RpcError> {
        let (directory, server) = self.place(params)?;
        let number = lock(&self.sessions).len() + 1;
        // Loaded in another sandbox, where processes have the same numbers, it must still be another session.
        let id = match Loads::of_environment() {
            Loads::Never => format!("scripted-{}-{number}", std::process::id()),
            Loads::Yes | Loads::Refused | Loads::Hanging => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                format!("scripted-{}-{number}", now.map_or(0, |now| now.as_nanos()))
            }
        };
        let memory = Memory::new(&id);
        self.open(id.clone(), directory, server, memory);
        let modes: Vec<Value> = MODES.iter().map(|mode| json!({"id": mode, "name": mode})).collect();
        Ok(json!({"sessionId": id, "modes": {"currentModeId": MODES[0], "availableModes": modes}}))
    }

    /// Repeats the conversation before it answers, as the protocol wants it, and calls of tools with it, as real agents do.
    fn load_session(&self, params: &Value) -> Result<Value, RpcError> {
        let loads = Loads::of_environment();
        if loads == Loads::Never {
            return Err(RpcError::new(-32601, "no method session/load"));
        }
        let (directory, server) = self.place(params)?;
        let id = params.get("sessionId").and_then(Value::as_str).unwrap_or_default();
        let memory = Memory::load(id);
        match loads {
            Loads::Yes | Loads::Never => {}
            Loads::Refused => {
                // Half of it, and then no.
                if let Ok(memory) = memory {
                    self.open(id.to_owned(), directory, server, memory).repeat();
                    lock(&self.sessions).clear();
                }
                return Err(RpcError::new(-32603, "this session cannot be loaded"));
            }
            Loads::Hanging => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
        }
        let session = self.open(id.to_owned(), directory, server, memory?);
        session.repeat();
        Ok(json!({}))
    }

    /// Where a session works, and the MCP server that it is given.
    fn place(&self, params: &Value) -> Result<(PathBuf, Option<Server>), RpcError> {
        if !self.was_initialized.load(Ordering::SeqCst) {
            return Err(RpcError::new(-32600, "initialize comes first"));
        }
        if needs_authentication() {
            return Err(RpcError::new(-32000, "Authentication required"));
        }
        let directory = params.get("cwd").and_then(Value::as_str).map(Path::new);
        let Some(directory) = directory.filter(|path| path.is_absolute() && path.is_dir()) else {
            return Err(RpcError::invalid_params("cwd is not an absolute path of a directory"));
        };
        let Some(servers) = params.get("mcpServers").and_then(Value::as_array) else {
            return Err(RpcError::invalid_params("mcpServers is not an array"));
        };
        let server = match servers.iter().find(|server| server.get("type") == Some(&json!("http"))) {
            Some(description) => {
                Some(Server::new(description).map_err(|failure| RpcError::invalid_params(failure.to_string()))?)
            }
            None => None,
        };
        Ok((directory.to_owned(), server))
    }

    fn open(&self, id: String, directory: PathBuf, server: Option<Server>, memory: Memory) -> Arc<Session> {
        let session = Arc::new(Session::new(
            id.clone(),
            directory,
            server,
            self.connection.clone(),
            self.outlives_its_client.clone(),
            memory,
        ));
        lock(&self.sessions).insert(id, session.clone());
        session
    }

    fn set_mode(&self, params: &Value) -> Result<Value, RpcError> {
        let session = self.session(params)?;
        let mode = params.get("modeId").and_then(Value::as_str).unwrap_or_default();
        if !MODES.contains(&mode) {
            return Err(RpcError::invalid_params(format!("no mode {mode}")));
        }
        session.update(json!({"sessionUpdate": "current_mode_update", "currentModeId": mode}));
        Ok(json!({}))
    }

    /// Answered by the turn's own thread: cancel must be heard meanwhile.
    fn prompt(&self, id: &Value, params: &Value) {
        let started = self.session(params).and_then(|session| session.start(id, params));
        if let Err(error) = started {
            self.connection.answer(id, Err(error));
        }
    }

    fn session(&self, params: &Value) -> Result<Arc<Session>, RpcError> {
        let id = params.get("sessionId").and_then(Value::as_str).unwrap_or_default();
        lock(&self.sessions)
            .get(id)
            .cloned()
            .ok_or_else(|| RpcError::new(-32002, format!("no session {id}")))
    }
}

fn needs_authentication() -> bool {
    std::env::var_os("SCRIPTED_AUTH_REQUIRED").is_some()
}
