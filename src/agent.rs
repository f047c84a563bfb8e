//! The seam to agents: a started agent is given prompts and answers them; what it does meanwhile becomes events.
//!
//! Never starts a process and never judges the work: the session hands in the process's streams, and git decides what was done.
//! Agents are data: nothing here knows one by name.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::message::{AgentName, ConnectionName, EventBody, ProjectPath};
use crate::progress::Progress;

pub mod acp;
pub mod ask;
pub mod command;
pub mod prompt;
pub mod sections;
pub mod set_up;

/// One configured agent.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The sandbox image, which needs git and the agent.
    pub image: String,
    /// Whether a project may name another image in the `devcontainer.json` of its default branch: one of `sandbox.images`, with git and the agent
    /// in it. Of a session's projects the first that names one decides. Only `image` counts; nothing is built.
    #[serde(default)]
    pub devcontainer: bool,
    /// The OCI runtime of its sandboxes; `sandbox.runtime` when absent. A tenant's own wins.
    #[serde(default)]
    pub runtime: Option<String>,
    /// The command that starts it.
    pub command: Vec<String>,
    /// How it is spoken to.
    #[serde(default)]
    pub protocol: Protocol,
    /// The environment it gets, besides `PATH`, `HOME` and git's identity. Not for secrets.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The model endpoint it may use, by its name in `[models]`. It is then at `http://127.0.0.1:8470/model/<name>`.
    #[serde(default)]
    pub model: Option<String>,
    /// The session mode to choose after the start, for agents that bring a sandbox of their own.
    #[serde(default)]
    pub session_mode: Option<String>,
    /// Who answers it when it asks for leave to do something.
    #[serde(default)]
    pub permissions: ask::Permissions,
    /// Files put into its home directory before it starts, by relative path.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Where it keeps its memory of a session, by paths relative to its home directory. Saved when a session is suspended and loaded when it goes
    /// on, where `session.saved_states` is set and the agent says that it can load sessions. Never when empty.
    #[serde(default)]
    pub saved_state: Vec<String>,
    /// What of each project's default branch it is told with its first prompt: paths, or `DIRECTORY/*ENDING` for files of a directory. Leave out
    /// what it reads by itself. At most 16 of them.
    #[serde(default = "default_instructions")]
    pub instructions: Vec<String>,
    /// A script that prepares the workspace in a sandbox of its own, before the agent's starts.
    #[serde(default)]
    pub set_up: Option<set_up::Config>,
    /// How it is credited in commits, as `Name <address>`.
    pub co_author: String,
    /// Time from its start until it must have answered, in seconds.
    #[serde(default = "default_start_timeout_s")]
    pub start_timeout_s: u64,
}

fn default_instructions() -> Vec<String> {
    ["AGENTS.md", ".kiro/steering/*.md"].map(str::to_owned).to_vec()
}

fn default_start_timeout_s() -> u64 {
    60
}

/// How an agent is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The Agent Client Protocol, version 1, on standard input and output.
    #[default]
    Acp,
    /// A plain command: the prompt is its last argument, its output is the answer, its exit is the end of the turn.
    Command,
}

/// The streams of an agent's process.
pub struct Pipes {
    /// Its standard input.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// Its standard output.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
}

impl std::fmt::Debug for Pipes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Pipes(..)")
    }
}

/// Time limits of one turn. While people are asked for the agent, only the last one's time goes on.
#[derive(Debug, Clone, Copy)]
pub struct TurnLimits {
    /// The whole turn.
    pub turn: Duration,
    /// No sign of life.
    pub idle: Duration,
    /// How long an agent that was asked to stop may take.
    pub grace: Duration,
    /// How long before its end an agent that can be told is told to commit what it has; never when zero.
    pub wind_down: Duration,
    /// When the session ends, whatever the turn does.
    pub session_end: tokio::time::Instant,
}

/// An agent that was started.
///
/// Turns come one after another. `cancel` ends the running turn: the agent is told, has the grace, then the call returns. After any error
/// but `Cancelled` the agent is not used again, and after that only when it says that it is usable.
#[async_trait]
pub trait Agent: Send {
    /// Gives it a prompt and waits for the end of the turn.
    async fn turn(
        &mut self,
        prompt: &str,
        limits: TurnLimits,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<TurnReport, AgentError>;

    /// Whether it may be given another prompt: not when it did not answer to the end of its last turn.
    fn is_usable(&self) -> bool;
}

/// What came of a turn, in the agent's own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TurnReport {
    /// The agent's word for why it stopped. Not a verdict.
    pub stop_reason: String,
    /// The last of what it said, bounded.
    pub answer: String,
}

/// Longest answer that is kept of a turn, in bytes; the end is what counts.
pub const LONGEST_ANSWER: usize = 64 * 1024;

/// Why an agent did not finish a turn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// It did not come up in its time.
    #[error("the agent did not answer within {} s of its start (start_timeout_s): check its command and image", after.as_secs())]
    StartTimeout {
        /// The limit.
        after: Duration,
    },
    /// It wants a key that it does not have.
    #[error("the agent says that it is not authenticated: give it its model key in the configuration ({detail})")]
    Unauthenticated {
        /// Its words.
        detail: String,
    },
    /// The prompt does not fit a command's argument.
    #[error(
        "the prompt with its house rules is {bytes} bytes, and this agent's command takes at most {most}: shorten it, or choose an agent that speaks ACP"
    )]
    PromptTooLong {
        /// Its size.
        bytes: usize,
        /// What would fit.
        most: usize,
    },
    /// It answered with an error.
    #[error("the agent answered with an error: {detail}")]
    Answered {
        /// Its words.
        detail: String,
    },
    /// Its process ended or closed its output in the middle.
    #[error("the agent ended in the middle of its work{}", if detail.is_empty() { String::new() } else { format!(": {detail}") })]
    Ended {
        /// What is known of it.
        detail: String,
    },
    /// It broke its protocol beyond what is tolerated.
    #[error("the agent broke its protocol: {detail}")]
    Protocol {
        /// How.
        detail: String,
    },
    /// The turn was cancelled from outside.
    #[error("the turn was cancelled")]
    Cancelled,
    /// The turn took too long.
    #[error("the turn reached its limit of {} s: ask for less at a time, or for more time (limits.turn_s, session.turn_s)", after.as_secs())]
    TurnTimeout {
        /// The limit.
        after: Duration,
    },
    /// No sign of life.
    #[error("the agent gave no sign of life for {} s: send the task again, or allow longer silence (limits.idle_s, session.idle_s)", after.as_secs())]
    Stalled {
        /// The limit.
        after: Duration,
    },
}

impl AgentError {
    /// Whether a new attempt may go better by itself.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::StartTimeout { .. } | Self::Stalled { .. } => true,
            Self::Unauthenticated { .. }
            | Self::PromptTooLong { .. }
            | Self::Answered { .. }
            | Self::Ended { .. }
            | Self::Protocol { .. }
            | Self::Cancelled
            | Self::TurnTimeout { .. } => false,
        }
    }
}

/// What an agent is told of one project.
#[derive(Debug, Clone)]
pub struct ProjectBrief {
    /// The connection's name.
    pub connection: ConnectionName,
    /// Its path on the forge.
    pub path: ProjectPath,
    /// Where it stands in the sandbox.
    pub directory: String,
    /// The session's branch, checked out there.
    pub branch: String,
    /// The branch it started from.
    pub base: String,
    /// "merge request" or "pull request".
    pub change_request_word: &'static str,
    /// Whether the branch holds work of this session already.
    pub begun: bool,
    /// What the project says to agents.
    pub said: Vec<Said>,
}

/// A file of a project's default branch that speaks to agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its path, and its branch.
    pub at: String,
    /// What it says; nothing where it is left out.
    pub text: String,
    /// That it was cut or left out, and why.
    pub note: Option<String>,
}

/// The configured agents by name.
pub type Agents = BTreeMap<AgentName, Config>;

/// Tells how much of an agent's standard error was not kept.
pub async fn tell_dropped_errors(bytes: u64, progress: &Progress) {
    if bytes > 0 {
        let what = "the agent's standard error".to_owned();
        progress.state(EventBody::OutputDropped { what, bytes }).await;
    }
}

/// Keeps the end of a growing text within [`LONGEST_ANSWER`].
pub(crate) fn push_bounded(answer: &mut String, more: &str) {
    answer.push_str(more);
    if answer.len() > LONGEST_ANSWER {
        let mut cut = answer.len() - LONGEST_ANSWER;
        while !answer.is_char_boundary(cut) {
            cut += 1;
        }
        answer.drain(..cut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_answer_is_kept() {
        let mut answer = String::new();
        for _ in 0..LONGEST_ANSWER {
            push_bounded(&mut answer, "ä");
        }
        push_bounded(&mut answer, "end");
        assert!(answer.len() <= LONGEST_ANSWER && answer.ends_with("end"));
    }
}
