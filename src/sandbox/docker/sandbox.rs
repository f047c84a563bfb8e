//! One started container: waits for its end by all the signs that the engine gives, and removes it.
//!
//! An engine that goes away is not the end of a sandbox. Only waiting for the end has no time limit.

use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{InspectContainerOptions, RemoveContainerOptionsBuilder};
use tokio::sync::watch;

use super::events::EventWatch;
use super::{PING_TIMEOUT, connect, sentence, within};
use crate::sandbox::{Ended, Sandbox, SandboxError};

/// Pause before an engine that is away is asked again about a sandbox that may well live.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long ago an engine may have stopped that took a sandbox with it: it ends them when it comes back, where it left them running.
const JUST_LEFT: Duration = Duration::from_secs(60);
/// How long one that is about to end is waited for before it is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// How a container ended that the engine does not know any more.
const GONE: Ended = Ended {
    status: -1,
    out_of_memory: false,
};

/// One started container.
pub(super) struct DockerSandbox {
    pub(super) client: Docker,
    /// Where the engine listens; the default place when absent.
    pub(super) socket: Option<String>,
    pub(super) name: String,
    pub(super) timeout: Duration,
    /// Of one that was started here.
    pub(super) events: Option<EventWatch>,
    /// PID 1, of one that was started here with a workspace on disk.
    pub(super) init: Option<u32>,
}

#[async_trait]
impl Sandbox for DockerSandbox {
    async fn wait(&self) -> Result<Ended, SandboxError> {
        let told = match &self.events {
            Some(events) => events.died().await,
            // Not started yet: nothing can end.
            None => std::future::pending().await,
        };
        loop {
            match self.inspect().await {
                // Somebody removed it; what was told of its end is all there is.
                Ok(Some(ended)) if ended == GONE => return Ok(Ended { status: told, ..ended }),
                Ok(Some(ended)) => return Ok(ended),
                // It was told how it ended; the engine has trouble with what is left of it.
                Err(Error::DockerResponseServerError { .. }) if told >= 0 => {
                    return Ok(Ended { status: told, ..GONE });
                }
                Err(Error::DockerResponseServerError { message, .. }) => {
                    return Err(SandboxError::Wait {
                        detail: message.chars().take(300).collect(),
                    });
                }
                // The engine went away meanwhile: what happened is asked when it is back. Until then the session has its own signs of the end,
                // and its limits.
                Ok(None) | Err(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
    }

    fn memory_kills(&self) -> watch::Receiver<u64> {
        self.events
            .as_ref()
            .map_or_else(|| watch::Sender::new(0).subscribe(), EventWatch::kills)
    }

    fn init(&self) -> Option<u32> {
        self.init
    }

    async fn is_engine_lost(&self) -> bool {
        // A connection of its own: an engine that stops still answers on those that it has.
        let answers = async { connect(self.socket.as_deref(), self.timeout)?.ping().await.map(drop) };
        let is_there = within(self.timeout.min(PING_TIMEOUT), answers).await.is_ok();
        !is_there
            || self
                .events
                .as_ref()
                .is_some_and(|events| events.broke_within(JUST_LEFT))
    }

    async fn remove(&self, ends: bool) -> Result<(), SandboxError> {
        if let (true, Some(events)) = (ends, &self.events) {
            // The engine starts a program to kill a container, and none where it has ended.
            let _ = tokio::time::timeout(ENDS_WITHIN, events.died()).await;
        }
        remove(&self.client, &self.name, self.timeout).await
    }
}

impl DockerSandbox {
    /// How it ended, as the engine remembers; nothing while it runs.
    async fn inspect(&self) -> Result<Option<Ended>, Error> {
        let asked = self
            .client
            .inspect_container(&self.name, None::<InspectContainerOptions>);
        let state = match within(self.timeout, asked).await {
            Ok(answer) => answer.state.unwrap_or_default(),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(Some(GONE)),
            Err(error) => return Err(error),
        };
        if state.running.unwrap_or(false) {
            return Ok(None);
        }
        Ok(Some(Ended {
            status: state.exit_code.unwrap_or(-1),
            out_of_memory: state.oom_killed.unwrap_or(false),
        }))
    }
}

/// Kills and removes a container, by its name or its id.
pub(super) async fn remove(client: &Docker, key: &str, limit: Duration) -> Result<(), SandboxError> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    match within(limit, client.remove_container(key, Some(options))).await {
        // 409: another call removes it at this moment.
        Ok(())
        | Err(Error::DockerResponseServerError {
            status_code: 404 | 409, ..
        }) => Ok(()),
        Err(error) => Err(SandboxError::Remove {
            detail: sentence(&error),
        }),
    }
}
