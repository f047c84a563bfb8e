//! Agents that are a plain command: the prompt is the last argument, standard output is the answer, the exit ends the turn.
//!
//! Never starts the process: it is handed a way to start one per turn.

use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Agent, AgentError, Pipes, TurnLimits, TurnReport, push_bounded};
use crate::message::EventBody;
use crate::progress::Progress;

/// Longest prompt, in bytes: Linux takes no argument of 128 KiB or more.
const LONGEST_PROMPT: usize = 128 * 1024 - 1;

/// A process that was started for one turn.
#[async_trait]
pub trait Run: Send {
    /// Its streams; taken once.
    fn pipes(&mut self) -> Option<Pipes>;
    /// Its exit: 0 to 255, or 128 and the signal. Cancel-safe.
    async fn exit(&mut self) -> i32;
    /// Asks it to stop with SIGTERM.
    async fn stop(&mut self);
    /// The end of what it wrote to standard error.
    fn last_words(&self) -> String;
    /// How much of what it wrote to standard error is not kept, in bytes.
    fn dropped_errors(&self) -> u64;
}

/// Starts a process in the sandbox.
#[async_trait]
pub trait Launch: Send + Sync {
    /// Starts the agent's command with one more argument.
    async fn launch(&self, argument: &str) -> Result<Box<dyn Run>, AgentError>;
}

/// A plain-command agent.
pub struct CommandAgent {
    launch: Box<dyn Launch>,
    /// Whether the process of the last turn is gone.
    is_usable: bool,
}

impl std::fmt::Debug for CommandAgent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CommandAgent")
    }
}

impl CommandAgent {
    /// An agent that is started once per turn.
    #[must_use]
    pub fn new(launch: Box<dyn Launch>) -> Self {
        Self {
            launch,
            is_usable: true,
        }
    }
}

#[async_trait]
impl Agent for CommandAgent {
    async fn turn(
        &mut self,
        prompt: &str,
        limits: TurnLimits,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<TurnReport, AgentError> {
        if prompt.len() > LONGEST_PROMPT {
            return Err(AgentError::PromptTooLong {
                bytes: prompt.len(),
                most: LONGEST_PROMPT,
            });
        }
        let mut run = self.launch.launch(prompt).await?;
        let Some(Pipes { mut stdin, mut stdout }) = run.pipes() else {
            return Err(AgentError::Ended {
                detail: "its streams were gone".into(),
            });
        };
        // Its input is empty: a command that waits for more would otherwise wait for ever.
        let _ = stdin.shutdown().await;
        let began = Instant::now();
        let mut heard = began;
        let mut answer = String::new();
        let mut buffer = vec![0_u8; 16 * 1024];
        let mut open = true;
        let stopped = loop {
            tokio::select! {
                read = stdout.read(&mut buffer), if open => match read {
                    Ok(0) | Err(_) => open = false,
                    Ok(count) => {
                        heard = Instant::now();
                        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                        push_bounded(&mut answer, &text);
                        progress.note(EventBody::AgentMessage { text });
                    }
                },
                status = run.exit() => {
                    drain(&mut stdout, &mut answer, progress).await;
                    super::tell_dropped_errors(run.dropped_errors(), progress).await;
                    return match status {
                        0 => Ok(TurnReport { stop_reason: "exit_0".into(), answer }),
                        other => Err(AgentError::Ended { detail: format!("exit status {other}: {}", run.last_words()) }),
                    };
                }
                () = cancel.cancelled() => break AgentError::Cancelled,
                () = tokio::time::sleep_until(began + limits.turn) => break AgentError::TurnTimeout { after: limits.turn },
                () = tokio::time::sleep_until(heard + limits.idle) => break AgentError::Stalled { after: limits.idle },
            }
        };
        run.stop().await;
        self.is_usable = tokio::time::timeout(limits.grace, run.exit()).await.is_ok();
        super::tell_dropped_errors(run.dropped_errors(), progress).await;
        Err(stopped)
    }

    fn is_usable(&self) -> bool {
        self.is_usable
    }
}

/// What the process wrote before its exit and was not read yet; a grandchild that holds the pipe open does not delay the end.
async fn drain(stdout: &mut (impl tokio::io::AsyncRead + Unpin), answer: &mut String, progress: &Progress) {
    let mut buffer = vec![0_u8; 16 * 1024];
    let until = Instant::now() + Duration::from_millis(500);
    while let Ok(Ok(count)) = tokio::time::timeout_at(until, stdout.read(&mut buffer)).await {
        if count == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        push_bounded(answer, &text);
        progress.note(EventBody::AgentMessage { text });
    }
}
