//! One started container: waits for its end by all the signs that the engine gives, and removes it.
//!
//! An engine that goes away is not the end of a sandbox. Only `wait` has no time limit.

use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{InspectContainerOptions, RemoveContainerOptionsBuilder, WaitContainerOptions};
use futures::StreamExt as _;
use tokio::sync::watch;

use super::events::EventWatch;
use super::{sentence, within};
use crate::sandbox::{Ended, Sandbox, SandboxError};

/// Pause before an engine that is away is asked again about a sandbox that may well live.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How a container ended that the engine does not know any more.
const GONE: Ended = Ended {
    status: -1,
    out_of_memory: false,
};

/// One started container.
pub(super) struct DockerSandbox {
    pub(super) client: Docker,
    pub(super) name: String,
    pub(super) timeout: Duration,
    /// Of one that was started here.
    pub(super) events: Option<EventWatch>,
}

#[async_trait]
impl Sandbox for DockerSandbox {
    async fn wait(&self) -> Result<Ended, SandboxError> {
        loop {
            let waited = async {
                let mut answers = Box::pin(self.client.wait_container(&self.name, None::<WaitContainerOptions>));
                answers.next().await
            };
            // The engine tells an end in two ways, and each has been seen to stay away.
            let answer = match &self.events {
                Some(events) => tokio::select! {
                    answer = waited => answer,
                    status = events.died() => Some(Err(Error::DockerContainerWaitError { error: String::new(), code: status })),
                },
                None => waited.await,
            };
            let status = match answer {
                Some(Ok(answer)) => answer.status_code,
                // The client turns every exit status but zero into an error.
                Some(Err(Error::DockerContainerWaitError { code, .. })) => code,
                Some(Err(Error::DockerResponseServerError { status_code: 404, .. })) => return Ok(GONE),
                Some(Err(Error::DockerResponseServerError { message, .. })) => {
                    return Err(SandboxError::Wait {
                        detail: message.chars().take(300).collect(),
                    });
                }
                // The engine went away, which is not the sandbox's end: what happened is asked when it is back. Until then the session has its
                // own signs of the end, and its limits.
                Some(Err(_)) | None => {
                    tokio::time::sleep(ASK_AGAIN).await;
                    match self.inspect().await {
                        Ok(Some(ended)) => return Ok(ended),
                        Ok(None) | Err(_) => continue,
                    }
                }
            };
            let out_of_memory = match self.inspect().await {
                Ok(Some(ended)) => ended.out_of_memory,
                Ok(None) | Err(_) => false,
            };
            return Ok(Ended { status, out_of_memory });
        }
    }

    fn memory_kills(&self) -> watch::Receiver<u64> {
        self.events
            .as_ref()
            .map_or_else(|| watch::Sender::new(0).subscribe(), EventWatch::kills)
    }

    async fn remove(&self) -> Result<(), SandboxError> {
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
