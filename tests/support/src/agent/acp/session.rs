//! One session of the agent: its directory, its MCP server, and the turn under way, of which there is at most one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::memory::Memory;
use crate::agent::connection::{Connection, RpcError, lock};
use crate::agent::directive::{self, Directive};
use crate::agent::mcp::Server;
use crate::agent::report::Report;
use crate::agent::turn::{Ending, Turn};

/// How long an answer that was asked for may come after a cancel: the client owes one.
const OWED: Duration = Duration::from_secs(1);

/// How often a wait for the client's answer looks whether the turn was cancelled.
const POLL: Duration = Duration::from_millis(20);

/// Neither the ids nor the order tell which option is which: a client has to look at the kind.
const OPTIONS: [(&str, &str); 4] = [
    ("opt-2", "reject_always"),
    ("opt-0", "allow_once"),
    ("opt-3", "reject_once"),
    ("opt-1", "allow_always"),
];

#[derive(Default)]
struct Running {
    is_running: bool,
    is_cancelled: bool,
}

/// A session.
pub(super) struct Session {
    id: String,
    directory: PathBuf,
    server: Option<Server>,
    connection: Arc<Connection>,
    outlives_its_client: Arc<AtomicBool>,
    turns: AtomicU64,
    running: Mutex<Running>,
    changed: Condvar,
    later: Mutex<Vec<Directive>>,
    /// What was asked in the turn under way, and what was said to it.
    prompt: Mutex<String>,
    said: Mutex<String>,
    memory: Memory,
}

impl Session {
    /// A session without a turn under way.
    pub(super) fn new(
        id: String,
        directory: PathBuf,
        server: Option<Server>,
        connection: Arc<Connection>,
        outlives_its_client: Arc<AtomicBool>,
        memory: Memory,
    ) -> Self {
        let (running, changed, later, prompt, said) = Default::default();
        let turns = AtomicU64::new(memory.turns().len() as u64);
        Self {
            id,
            directory,
            server,
            connection,
            outlives_its_client,
            turns,
            running,
            changed,
            later,
            prompt,
            said,
            memory,
        }
    }

    /// Says everything once more that was said in this session.
    pub(super) fn repeat(&self) {
        for (number, turn) in self.memory.turns().iter().enumerate() {
            let call = format!("call-{}-1", number + 1);
            self.chunk("user_message_chunk", turn["prompt"].as_str().unwrap_or_default());
            self.tool_started(&call, "a call of before", "edit", json!({}));
            self.tool_ended(&call, true, "");
            self.plan(&["a step of before".to_owned()]);
            self.chunk("agent_message_chunk", turn["answer"].as_str().unwrap_or_default());
        }
    }

    /// Starts a turn, which answers the request `id` when it ends.
    pub(super) fn start(self: Arc<Self>, id: &Value, params: &Value) -> Result<(), RpcError> {
        let prompt = text_of(params)?;
        let directives = directive::parse(&prompt).map_err(|wrong| RpcError::invalid_params(wrong.to_string()))?;
        {
            let mut running = lock(&self.running);
            if running.is_running {
                return Err(RpcError::new(-32600, "a turn is under way"));
            }
            *running = Running {
                is_running: true,
                is_cancelled: false,
            };
        }
        let directives = if directives.is_empty() {
            std::mem::take(&mut *lock(&self.later))
        } else {
            directives
        };
        prompt.clone_into(&mut lock(&self.prompt));
        lock(&self.said).clear();
        let id = id.clone();
        std::thread::spawn(move || {
            let number = self.turns.fetch_add(1, Ordering::Relaxed) + 1;
            let turn = Turn {
                directory: &self.directory,
                number,
                report: &*self,
            };
            let result = self.answer(turn.run(&directives), &prompt, &directives);
            let said = std::mem::take(&mut *lock(&self.said));
            self.memory.remember(&prompt, &said);
            *lock(&self.running) = Running::default();
            self.connection.answer(&id, result);
        });
        Ok(())
    }

    /// Cancels the turn under way, if there is one.
    pub(super) fn cancel(&self) {
        let mut running = lock(&self.running);
        running.is_cancelled = running.is_running;
        self.changed.notify_all();
    }

    /// Sends a session update.
    pub(super) fn update(&self, update: Value) {
        self.connection
            .notify("session/update", json!({"sessionId": self.id, "update": update}));
    }

    fn answer(&self, ending: Ending, prompt: &str, directives: &[Directive]) -> Result<Value, RpcError> {
        let (input, output) = (prompt.len().div_ceil(4), directives.len() * 10);
        let usage = json!({"inputTokens": input, "outputTokens": output, "totalTokens": input + output});
        match ending {
            Ending::Stopped(reason) => {
                self.update(json!({"sessionUpdate": "usage_update", "used": input + output, "size": 100_000}));
                Ok(json!({"stopReason": reason, "usage": usage}))
            }
            Ending::Cancelled if std::env::var("SCRIPTED_CANCEL").is_ok_and(|way| way == "error") => {
                Err(RpcError::new(-32603, "Request was aborted"))
            }
            Ending::Cancelled => Ok(json!({"stopReason": "cancelled", "usage": usage})),
            Ending::Failed(message) => Err(RpcError::new(-32603, message)),
        }
    }

    fn chunk(&self, kind: &str, text: &str) {
        self.update(json!({"sessionUpdate": kind, "content": {"type": "text", "text": text}}));
    }

    fn wait(&self, answer: &Receiver<Result<Value, RpcError>>) -> Option<Result<Value, RpcError>> {
        loop {
            match answer.recv_timeout(POLL) {
                Ok(result) => return Some(result),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.cancelled_within(Duration::ZERO) => {
                    return answer.recv_timeout(OWED).ok();
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Session {
    fn ask_permission(&self, call: &str, title: &str) -> Receiver<Result<Value, RpcError>> {
        let options: Vec<Value> = OPTIONS
            .iter()
            .map(|(id, kind)| json!({"optionId": id, "name": format!("Option {id}"), "kind": kind}))
            .collect();
        let question = json!({
            "sessionId": self.id, "options": options,
            "toolCall": {
                "toolCallId": call, "title": title, "kind": "execute", "status": "pending", "rawInput": {"command": title},
            },
        });
        self.connection.ask("session/request_permission", question)
    }

    fn permitted(&self, answer: &Receiver<Result<Value, RpcError>>) -> String {
        match self.wait(answer) {
            Some(Ok(result)) => outcome(&result),
            Some(Err(error)) => format!("error {} {}", error.code, error.message),
            None => "no answer".to_owned(),
        }
    }
}

impl Report for Session {
    fn say(&self, text: &str) {
        lock(&self.said).push_str(text);
        self.chunk("agent_message_chunk", text);
    }

    fn think(&self, text: &str) {
        self.chunk("agent_thought_chunk", text);
    }

    fn plan(&self, steps: &[String]) {
        let entry = |step| json!({"content": step, "priority": "medium", "status": "pending"});
        self.update(json!({"sessionUpdate": "plan", "entries": steps.iter().map(entry).collect::<Vec<_>>()}));
    }

    fn tool_started(&self, call: &str, title: &str, kind: &str, input: Value) {
        self.update(json!({
            "sessionUpdate": "tool_call", "toolCallId": call, "title": title, "kind": kind, "status": "pending", "rawInput": input,
        }));
        self.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": call, "status": "in_progress"}));
    }

    fn tool_ended(&self, call: &str, succeeded: bool, output: &str) {
        self.update(json!({
            "sessionUpdate": "tool_call_update", "toolCallId": call, "status": if succeeded { "completed" } else { "failed" },
            "content": [{"type": "content", "content": {"type": "text", "text": output}}],
        }));
    }

    fn permission(&self, call: &str, title: &str) -> String {
        self.permitted(&self.ask_permission(call, title))
    }

    fn permissions(&self, call: &str, count: u64) -> Vec<String> {
        let asked: Vec<_> = (1..=count)
            .map(|number| self.ask_permission(call, &format!("number {number}")))
            .collect();
        asked.iter().map(|answer| self.permitted(answer)).collect()
    }

    fn later(&self, directive: &Directive) {
        lock(&self.later).push(directive.clone());
    }

    fn recall(&self) -> String {
        self.memory.recall()
    }

    fn quoted(&self) -> String {
        let prompt = lock(&self.prompt).clone();
        let lines: Vec<&str> = prompt.lines().filter(|line| line.starts_with("> ")).collect();
        if lines.is_empty() {
            return "quoted: nothing".to_owned();
        }
        format!("quoted: {}", lines.join(" "))
    }

    fn client_write(&self, path: &str, text: &str) -> String {
        let request = json!({"sessionId": self.id, "path": path, "content": text});
        match self.wait(&self.connection.ask("fs/write_text_file", request)) {
            Some(Ok(_)) => "written".to_owned(),
            Some(Err(error)) => format!("error {} {}", error.code, error.message),
            None => "no answer".to_owned(),
        }
    }

    fn raw_update(&self, update: Value) {
        self.update(update);
    }

    fn raw_line(&self, line: &str) {
        self.connection.line(line);
    }

    fn cancelled_within(&self, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        let mut running = lock(&self.running);
        while !running.is_cancelled {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            running = match self.changed.wait_timeout(running, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        true
    }

    fn outlive_the_client(&self) {
        self.outlives_its_client.store(true, Ordering::SeqCst);
    }

    fn tool_server(&self) -> Option<&Server> {
        self.server.as_ref()
    }
}

/// Which kind of option the client chose; the ids mean nothing to a reader of the test.
fn outcome(result: &Value) -> String {
    let outcome = result.get("outcome").cloned().unwrap_or_default();
    match outcome.get("outcome").and_then(Value::as_str) {
        Some("cancelled") => "cancelled".to_owned(),
        Some("selected") => {
            let chosen = outcome.get("optionId").and_then(Value::as_str).unwrap_or_default();
            let kind = OPTIONS.iter().find(|(id, _)| *id == chosen).map(|(_, kind)| *kind);
            kind.map_or_else(|| format!("no such option {chosen}"), |kind| format!("selected {kind}"))
        }
        Some(_) | None => format!("not an outcome: {outcome}"),
    }
}

fn text_of(params: &Value) -> Result<String, RpcError> {
    let blocks = params.get("prompt").and_then(Value::as_array);
    let blocks = blocks.ok_or_else(|| RpcError::invalid_params("prompt is not an array of content blocks"))?;
    let texts: Vec<&str> = blocks
        .iter()
        .filter(|block| block.get("type") == Some(&json!("text")))
        .filter_map(|block| block.get("text").and_then(Value::as_str))
        .collect();
    Ok(texts.join("\n"))
}
