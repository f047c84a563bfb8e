//! What the agent remembers of a session, where `SCRIPTED_LOADS` is set: a file under its home directory, which a later process loads.
//!
//! Without that variable it remembers nothing and writes nothing.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::agent::connection::{RpcError, lock};

/// The directory of all memories, in the home directory.
const DIRECTORY: &str = ".scripted/sessions";

/// Whether sessions can be loaded, as the variable says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loads {
    /// They cannot, and the agent says so.
    Never,
    /// They can.
    Yes,
    /// The agent says that they can, and refuses each.
    Refused,
    /// The agent says that they can, and never answers.
    Hanging,
}

impl Loads {
    pub(super) fn of_environment() -> Self {
        match std::env::var("SCRIPTED_LOADS").as_deref() {
            Ok("yes") => Self::Yes,
            Ok("refuse") => Self::Refused,
            Ok("hang") => Self::Hanging,
            Ok(_) | Err(_) => Self::Never,
        }
    }
}

/// The turns of one session.
#[derive(Default)]
pub(super) struct Memory {
    file: Option<PathBuf>,
    turns: Mutex<Vec<Value>>,
}

impl Memory {
    /// Nothing yet.
    pub(super) fn new(session: &str) -> Self {
        Self {
            file: (Loads::of_environment() != Loads::Never).then(|| file(session)),
            turns: Mutex::default(),
        }
    }

    /// What an earlier process remembered.
    pub(super) fn load(session: &str) -> Result<Self, RpcError> {
        let unknown = || RpcError::new(-32002, format!("no session {session}"));
        let is_name = !session.is_empty() && session.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let file = is_name.then(|| file(session)).ok_or_else(unknown)?;
        let text = std::fs::read(&file).map_err(|_| unknown())?;
        let turns = serde_json::from_slice(&text).map_err(|error| RpcError::new(-32603, error.to_string()))?;
        Ok(Self {
            file: Some(file),
            turns: Mutex::new(turns),
        })
    }

    /// A turn is over. It is on the disk when this returns.
    pub(super) fn remember(&self, prompt: &str, answer: &str) {
        let Some(file) = &self.file else { return };
        let mut turns = lock(&self.turns);
        turns.push(json!({"prompt": prompt, "answer": answer}));
        let written = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(failure) = written.and_then(|()| std::fs::write(file, json!(*turns).to_string())) {
            let _ = writeln!(std::io::stderr(), "the turn is not remembered: {failure}");
        }
    }

    /// All turns, each with `prompt` and `answer`.
    pub(super) fn turns(&self) -> Vec<Value> {
        lock(&self.turns).clone()
    }

    /// The turns in words, a line each.
    pub(super) fn recall(&self) -> String {
        let turns = self.turns();
        if turns.is_empty() {
            return "recall: nothing".to_owned();
        }
        let words = |turn: &Value, name: &str| turn[name].as_str().unwrap_or_default().replace('\n', " ");
        let line = |turn: &Value| {
            let asked: String = words(turn, "prompt").chars().take(60).collect();
            format!("recall: asked {asked}; answered {}", words(turn, "answer"))
        };
        turns.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn file(session: &str) -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/".into());
    PathBuf::from(home).join(DIRECTORY).join(format!("{session}.json"))
}
