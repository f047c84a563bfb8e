//! git's own server programs over a session's staging, as streams: the gateway carries an HTTP body in and out.
//!
//! Bounded in time and resources; when the streams' owner goes, the programs are killed. They run behind walls: see
//! `internal`. Never parses what it carries.

use std::sync::Arc;
use std::time::Duration;

use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::{Staging, quarantine};
use crate::repository::git::{Group, Invocation, Limits, read_tail};
use crate::repository::remote::shortened;
use crate::repository::{RepositoryError, internal};

/// What a git client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Fetching.
    UploadPack,
    /// Pushing.
    ReceivePack,
}

impl Service {
    /// The service of the name that stands in addresses and content types.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "git-upload-pack" => Some(Self::UploadPack),
            "git-receive-pack" => Some(Self::ReceivePack),
            _ => None,
        }
    }

    /// The name in addresses and content types.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }

    fn subcommand(self) -> &'static str {
        match self {
            Self::UploadPack => "upload-pack",
            Self::ReceivePack => "receive-pack",
        }
    }
}

/// The version of git's wire protocol that a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// The first, which needs no asking.
    #[default]
    V0,
    /// The first, announced.
    V1,
    /// The second.
    V2,
}

impl Protocol {
    /// Reads the `Git-Protocol` header. Nothing of it is passed on as it came: what is not a known version is none.
    #[must_use]
    pub fn from_header(header: Option<&str>) -> Self {
        match header {
            Some("version=2") => Self::V2,
            Some("version=1") => Self::V1,
            Some(_) | None => Self::V0,
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::V0 => "version=0",
            Self::V1 => "version=1",
            Self::V2 => "version=2",
        }
    }
}

/// What stands before the references in an answer to `info/refs`: the service's name, except in the second protocol.
#[must_use]
pub fn info_refs_prefix(service: Service, protocol: Protocol) -> Vec<u8> {
    match protocol {
        Protocol::V2 => Vec::new(),
        Protocol::V0 | Protocol::V1 => {
            let line = format!("# service={}\n", service.name());
            format!("{:04x}{line}0000", line.len() + 4).into_bytes()
        }
    }
}

/// A running git program. Write the request to `input` and drop it; read the answer from `output`. Dropping this kills the program.
#[derive(Debug)]
pub struct Serving {
    /// The program's input; taken by whoever feeds it.
    pub input: Option<ChildStdin>,
    /// The program's output; taken by whoever carries it away.
    pub output: Option<ChildStdout>,
    done: JoinHandle<Result<(), RepositoryError>>,
    kill: oneshot::Sender<()>,
}

impl Serving {
    /// Waits for the end, by which nothing of a broken push is left. A push that was refused by the rules is a good end: the refusal is in
    /// the answer.
    ///
    /// # Errors
    /// The program failed, or its time was over.
    pub async fn finish(self) -> Result<(), RepositoryError> {
        self.finish_within(Duration::MAX).await
    }

    /// The same; after that long the program is ended.
    ///
    /// # Errors
    /// The program failed, or its time was over.
    pub async fn finish_within(self, patience: Duration) -> Result<(), RepositoryError> {
        let Self {
            input,
            output,
            mut done,
            kill,
        } = self;
        drop((input, output));
        let ended = match tokio::time::timeout(patience, &mut done).await {
            Ok(ended) => ended,
            Err(_) => {
                drop(kill);
                done.await
            }
        };
        ended.unwrap_or_else(|error| {
            Err(RepositoryError::Serve {
                text: error.to_string(),
            })
        })
    }
}

impl Staging {
    /// Starts the answer to `info/refs`. Its input is not used.
    ///
    /// # Errors
    /// git cannot be started, or no turn came.
    pub async fn info_refs(&self, service: Service, protocol: Protocol) -> Result<Serving, RepositoryError> {
        self.serve(
            service,
            protocol,
            &["--stateless-rpc", "--http-backend-info-refs"],
            None,
        )
        .await
    }

    /// Starts the answer to a fetch.
    ///
    /// # Errors
    /// git cannot be started, or no turn came.
    pub async fn upload_pack(&self, protocol: Protocol) -> Result<Serving, RepositoryError> {
        self.serve(Service::UploadPack, protocol, &["--stateless-rpc"], None)
            .await
    }

    /// Starts the answer to a push. One at a time: what an earlier one left is removed.
    ///
    /// # Errors
    /// git cannot be started, no turn came, or all that may be pushed was pushed.
    pub async fn receive_pack(&self, protocol: Protocol) -> Result<Serving, RepositoryError> {
        let turn = self.wait_for(&self.pushing).await?;
        self.make_room().await?;
        self.serve(Service::ReceivePack, protocol, &["--stateless-rpc"], Some(turn))
            .await
    }

    async fn wait_for(&self, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, RepositoryError> {
        let waited = Duration::from_secs(self.shared.config.git_wait_s);
        let place = tokio::time::timeout(waited, places.clone().acquire_owned()).await;
        place
            .ok()
            .and_then(Result::ok)
            .ok_or(RepositoryError::ServeBusy { waited })
    }

    /// How many git processes one session may have serve it at a time: not all that the worker runs.
    #[must_use]
    pub fn share(&self) -> usize {
        (self.shared.config.git_processes / 4).max(1)
    }

    /// How long a sandbox's git waits for its turn.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.shared.config.git_wait_s)
    }

    /// `turn` is the push's own.
    async fn serve(
        &self,
        service: Service,
        protocol: Protocol,
        options: &[&str],
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Serving, RepositoryError> {
        let config = &self.shared.config;
        let place = self.wait_for(&self.shared.served).await?;
        let limit = Duration::from_secs(config.serve_timeout_s);
        let limits = Limits {
            memory: config.git_memory,
            // What a fetch takes follows from the project's size, which no agent chooses: 265 bytes an object of a whole clone (measured).
            heap: match service {
                Service::ReceivePack => config.git_heap,
                Service::UploadPack => config.git_memory,
            },
            // A pack that is too large is git's to refuse in words; this is for what git does not count.
            file: config.largest_push.saturating_mul(2).saturating_add(64 * 1024 * 1024),
            processor_s: config.serve_timeout_s,
        };
        let repository = self.repository();
        let (directory, hooks) = (&self.directory, config.hooks());
        let access = match service {
            Service::UploadPack => "read",
            Service::ReceivePack => internal::WRITING,
        };
        let invocation = Invocation::new("serve the sandbox", limit)
            .behind(&self.shared.internal)
            .behind([
                internal::SERVE.as_ref(),
                directory.as_os_str(),
                hooks.as_os_str(),
                access.as_ref(),
            ])
            .arguments([service.subcommand()])
            .arguments(options)
            .arguments([&repository])
            .variable("GIT_PROTOCOL", protocol.variable())
            .limits(limits);
        let mut child = self.shared.git.spawn(invocation)?;
        let (input, output, complaints) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (kill, killed) = oneshot::channel::<()>();
        let quarantined = turn.is_some().then(|| repository.clone());
        let done = tokio::spawn(async move {
            // Given back when nothing of it is left.
            let _places = (place, turn);
            let mut group = Group::led_by(&child);
            let ended = tokio::select! {
                ended = async { tokio::join!(read_tail(complaints), child.wait()) } => Ok(ended),
                () = tokio::time::sleep(limit) => Err(RepositoryError::Timeout { act: "serve the sandbox", limit }),
                _ = killed => Err(RepositoryError::Serve { text: "its client went away".to_owned() }),
            };
            let ended = match ended {
                Ok((_, Ok(status))) if status.success() => {
                    group.disarm();
                    return Ok(());
                }
                Ok((complaints, status)) => {
                    group.disarm();
                    let text = status.map_or_else(|error| error.to_string(), |_| shortened(&complaints));
                    Err(RepositoryError::Serve { text })
                }
                Err(error) => {
                    group.kill();
                    let _ = child.wait().await;
                    Err(error)
                }
            };
            if let Some(repository) = quarantined
                && let Err(error) = quarantine::remove(&repository).await
            {
                tracing::warn!(%error, "what a broken push left was not removed; it is tried again before the next one");
            }
            ended
        });
        Ok(Serving {
            input,
            output,
            done,
            kill,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_a_packet() {
        assert_eq!(
            info_refs_prefix(Service::UploadPack, Protocol::V0),
            b"001e# service=git-upload-pack\n0000"
        );
        assert_eq!(
            info_refs_prefix(Service::ReceivePack, Protocol::V1),
            b"001f# service=git-receive-pack\n0000"
        );
        assert!(info_refs_prefix(Service::UploadPack, Protocol::V2).is_empty());
    }

    #[test]
    fn only_known_versions_reach_git() {
        assert_eq!(Protocol::from_header(Some("version=2")), Protocol::V2);
        for other in [
            None,
            Some(""),
            Some("version=3"),
            Some("version=2:x=$(id)"),
            Some("version=2\n"),
        ] {
            assert_eq!(Protocol::from_header(other), Protocol::V0);
        }
        assert_eq!(Service::from_name("git-upload-archive"), None);
    }
}
