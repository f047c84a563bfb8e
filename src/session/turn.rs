//! Starts the agent in the sandbox and gives it a prompt. Which protocol it speaks is the configuration's word.

use std::sync::Arc;

use async_trait::async_trait;

use super::failure::Failure;
use super::saved::{self, Loadable, Restore};
use super::workspace;
use crate::agent::ask::Ask;
use crate::agent::{self, Agent, AgentError, Pipes, Protocol, acp, command};
use crate::gateway::inside::Command;
use crate::gateway::{GatewayError, HTTP_PORT, Inside, Process};
use crate::message::{Reason, Task};
use crate::progress::Progress;
use crate::sandbox::{HOME, WORKSPACE};

/// A started agent, with its process where it has one for the whole session.
pub(super) struct Started {
    pub(super) agent: Box<dyn Agent>,
    process: Option<Process>,
    /// The conversation, where it says that it can load it again.
    pub(super) loadable: Option<Loadable>,
    /// Whether it goes on with a conversation that it had before.
    pub(super) loaded: bool,
}

impl Started {
    /// What the agent's process last wrote to standard error, for the log and for a failure's message.
    pub(super) fn last_words(&self) -> String {
        self.process.as_ref().map(Process::errors).unwrap_or_default()
    }

    /// Waits until the last words of an agent that ended are here.
    pub(super) fn settle(&self) -> impl Future<Output = ()> + Send + use<> {
        let settling = self.process.as_ref().map(Process::settle);
        async move {
            if let Some(settling) = settling {
                settling.await;
            }
        }
    }

    /// Ends its input, and waits so long for its end.
    pub(super) async fn end(self, limit: std::time::Duration) {
        let Self { agent, process, .. } = self;
        drop(agent);
        if let Some(mut process) = process {
            let _ = tokio::time::timeout(limit, process.wait()).await;
        }
    }

    /// How much more it wrote there, in bytes.
    pub(super) fn dropped_errors(&self) -> u64 {
        self.process.as_ref().map(Process::dropped_errors).unwrap_or_default()
    }
}

/// What is started, for whom, and where.
pub(super) struct Start<'a> {
    pub(super) config: &'a agent::Config,
    pub(super) task: &'a Task,
    pub(super) directory: &'a str,
    /// Who answers it when it asks for leave, where people do.
    pub(super) ask: Option<Arc<dyn Ask>>,
}

/// Starts the agent, with its own memory of the session where that was saved. Where it cannot go on with that, it begins without it.
pub(super) async fn start(
    inside: &Arc<Inside>,
    start: Start<'_>,
    saved: Option<Restore>,
    progress: &Arc<Progress>,
) -> Result<Started, Failure> {
    let Some(saved) = saved else {
        let (started, _) = launch(inside, &start, None, progress).await?;
        return Ok(started);
    };
    let loadable = Loadable {
        session: saved.session.clone(),
        directory: saved.directory.clone(),
    };
    let restored = match saved.unpack(inside).await {
        Ok(()) => launch(inside, &start, Some(loadable), progress)
            .await
            .map_err(|failure| failure.message),
        Err(error) => Err(error.to_string()),
    };
    match restored {
        Ok((started, refused)) => {
            if let Some(refused) = refused {
                saved::not_loaded(progress, &refused).await;
            }
            Ok(started)
        }
        // It may be the state that is in its way: from the beginning, as if there had been none.
        Err(why) => {
            saved::not_loaded(progress, &why).await;
            workspace::quiet(inside).await;
            saved::erase(inside, &start.config.saved_state).await;
            let (started, _) = launch(inside, &start, None, progress).await?;
            Ok(started)
        }
    }
}

/// Seeds the agent's files and starts it; says why it did not load what it should.
async fn launch(
    inside: &Arc<Inside>,
    start: &Start<'_>,
    load: Option<Loadable>,
    progress: &Arc<Progress>,
) -> Result<(Started, Option<String>), Failure> {
    let Start {
        config,
        task,
        directory,
        ask,
    } = start;
    // A conversation goes on where it was, also when projects came to it since.
    let directory = load
        .as_ref()
        .map_or(*directory, |load| load.directory.as_str())
        .to_owned();
    for (path, content) in &config.files {
        inside.write_file(&format!("{HOME}/{path}"), 0o600, content).await?;
    }
    let order = Command {
        argv: config.command.clone(),
        env: environment(config, task),
        directory: directory.clone(),
    };
    match config.protocol {
        Protocol::Command => {
            let launch = Launcher {
                inside: inside.clone(),
                order,
            };
            let started = Started {
                agent: Box::new(command::CommandAgent::new(Box::new(launch))),
                process: None,
                loadable: None,
                loaded: false,
            };
            Ok((started, None))
        }
        Protocol::Acp => {
            let mut process = inside.spawn(order).await.map_err(not_started)?;
            let (Some(stdin), Some(stdout)) = (process.take_stdin(), process.take_stdout()) else {
                return Err(AgentError::Ended {
                    detail: "its streams were gone".into(),
                }
                .into());
            };
            let pipes = Pipes {
                stdin: Box::new(stdin),
                stdout: Box::new(stdout),
            };
            let start = acp::Start {
                directory: directory.clone(),
                mcp_url: format!("http://127.0.0.1:{HTTP_PORT}/mcp"),
                session_mode: config.session_mode.clone(),
                load: load.map(|load| load.session),
                timeout: std::time::Duration::from_secs(config.start_timeout_s),
                ask: ask.clone(),
            };
            match acp::start(pipes, start, progress.clone()).await {
                Ok((agent, opened)) => {
                    let started = Started {
                        agent: Box::new(agent),
                        process: Some(process),
                        loadable: opened.can_load.then_some(Loadable {
                            session: opened.session,
                            directory,
                        }),
                        loaded: opened.loaded == acp::Loaded::Yes,
                    };
                    let refused = match opened.loaded {
                        acp::Loaded::No(why) => Some(why),
                        acp::Loaded::Yes | acp::Loaded::NotAsked => None,
                    };
                    Ok((started, refused))
                }
                Err(error) => {
                    let mut failure = Failure::from(error);
                    add_last_words(&mut failure, &process.errors());
                    Err(failure)
                }
            }
        }
    }
}

/// Where an agent starts: in its project, or above them when there are several.
pub(super) fn directory(projects: &[String]) -> String {
    match projects {
        [only] => only.clone(),
        _ => WORKSPACE.to_owned(),
    }
}

/// A command that cannot be run is the agent's failure, not the sandbox's: a second try will not find it either.
fn not_started(error: GatewayError) -> Failure {
    if let GatewayError::Refused { reason, .. } = &error {
        let message = format!("the agent could not be started: {reason}; check its command and its image");
        return Failure::new(Reason::AgentFailed, message);
    }
    error.into()
}

/// An agent's own complaint often says more than its protocol does.
pub(super) fn add_last_words(failure: &mut Failure, words: &str) {
    let end: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let end = end[end.len().saturating_sub(3)..].join(" / ");
    if !end.is_empty() {
        failure.message = format!(
            "{}; it wrote: {}",
            failure.message,
            end.chars().take(500).collect::<String>()
        );
    }
}

/// The task's variables, then the agent's own, then ours: a later one wins.
fn environment(config: &agent::Config, task: &Task) -> Vec<(String, String)> {
    let mut merged = task.environment.clone();
    merged.extend(config.environment.clone());
    merged.extend(workspace::base_environment());
    merged.into_iter().collect()
}

/// Starts a plain command once per turn.
struct Launcher {
    inside: Arc<Inside>,
    order: Command,
}

#[async_trait]
impl command::Launch for Launcher {
    async fn launch(&self, argument: &str) -> Result<Box<dyn command::Run>, AgentError> {
        let mut order = self.order.clone();
        order.argv.push(argument.to_owned());
        let process = self.inside.spawn(order).await.map_err(|error| AgentError::Ended {
            detail: error.to_string(),
        })?;
        Ok(Box::new(Running {
            inside: self.inside.clone(),
            process,
        }))
    }
}

struct Running {
    inside: Arc<Inside>,
    process: Process,
}

#[async_trait]
impl command::Run for Running {
    fn pipes(&mut self) -> Option<Pipes> {
        let (stdin, stdout) = (self.process.take_stdin()?, self.process.take_stdout()?);
        Some(Pipes {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
        })
    }

    async fn exit(&mut self) -> i32 {
        self.process.wait().await.status
    }

    async fn stop(&mut self) {
        let _ = self.inside.signal(self.process.id(), 15).await;
    }

    fn dropped_errors(&self) -> u64 {
        self.process.dropped_errors()
    }

    fn last_words(&self) -> String {
        self.process
            .errors()
            .chars()
            .rev()
            .take(500)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect()
    }
}
