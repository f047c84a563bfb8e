//! JSON-RPC 2.0, a message a line, on the standard streams. It knows no method's meaning.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// An error as the protocol carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RpcError {
    /// JSON-RPC or ACP code.
    pub(super) code: i64,
    /// For people.
    pub(super) message: String,
}

impl RpcError {
    /// An error of that code.
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// `-32602`: the parameters are wrong.
    pub(super) fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }
}

/// What a line from the client is.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// It wants an answer.
    Request { id: Value, method: String, params: Value },
    /// It wants none.
    Notification { method: String, params: Value },
    /// It answers one of our requests.
    Answer { id: i64, result: Result<Value, RpcError> },
    /// It is none of these: the error to answer with.
    Wrong(RpcError),
}

/// Sorts one line.
pub(super) fn read(line: &[u8]) -> Incoming {
    let Ok(mut message) = serde_json::from_slice::<Value>(line) else {
        return Incoming::Wrong(RpcError::new(-32700, "not JSON"));
    };
    if message.get("jsonrpc") != Some(&json!("2.0")) {
        return Incoming::Wrong(RpcError::new(-32600, "not JSON-RPC 2.0"));
    }
    let mut take = |key: &str| message.get_mut(key).map(Value::take);
    let (id, method, params) = (take("id"), take("method"), take("params").unwrap_or(Value::Null));
    let (result, error) = (take("result"), take("error"));
    match (id, method) {
        (Some(id), Some(Value::String(method))) => Incoming::Request { id, method, params },
        (None, Some(Value::String(method))) => Incoming::Notification { method, params },
        (Some(id), None) => match (id.as_i64(), result, error) {
            (Some(id), Some(result), None) => Incoming::Answer { id, result: Ok(result) },
            (Some(id), None, Some(error)) => {
                let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
                let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
                Incoming::Answer {
                    id,
                    result: Err(RpcError::new(code, message)),
                }
            }
            (_, _, _) => Incoming::Wrong(RpcError::new(
                -32600,
                "an answer without an id, a result or an error of ours",
            )),
        },
        (_, _) => Incoming::Wrong(RpcError::new(-32600, "neither a request nor an answer")),
    }
}

/// The agent's half of the conversation. Any thread may write; lines never mix.
#[derive(Debug, Default)]
pub(super) struct Connection {
    output: Mutex<()>,
    last_id: AtomicI64,
    waiting: Mutex<HashMap<i64, Sender<Result<Value, RpcError>>>>,
}

impl Connection {
    /// Answers a request.
    pub(super) fn answer(&self, id: &Value, result: Result<Value, RpcError>) {
        self.send(&match result {
            Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
            Err(error) => {
                json!({"jsonrpc": "2.0", "id": id, "error": {"code": error.code, "message": error.message}})
            }
        });
    }

    /// Tells the client something.
    pub(super) fn notify(&self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Asks the client something; the answer comes through the channel.
    pub(super) fn ask(&self, method: &str, params: Value) -> Receiver<Result<Value, RpcError>> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = mpsc::channel();
        lock(&self.waiting).insert(id, sender);
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        receiver
    }

    /// Hands an answer to whoever asked. An answer to nothing is dropped.
    pub(super) fn answered(&self, id: i64, result: Result<Value, RpcError>) {
        if let Some(sender) = lock(&self.waiting).remove(&id) {
            // The asker may have been cancelled meanwhile.
            let _ = sender.send(result);
        }
    }

    /// Writes a line as it is.
    pub(super) fn line(&self, line: &str) {
        let _guard = lock(&self.output);
        let mut output = std::io::stdout().lock();
        // The client may have gone; the end of the input ends the agent then.
        let _ = output
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| output.flush());
    }

    fn send(&self, message: &Value) {
        self.line(&message.to_string());
    }
}

/// A thread that panicked must not take the others with it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
