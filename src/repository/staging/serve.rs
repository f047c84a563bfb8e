//! git's own server programs over a session's staging, as streams: the gateway carries an HTTP body in and out.
//!
//! Bounded in time and resources; when the streams' owner goes, the programs are killed. They run behind walls: see
//! `internal`. Never parses what it carries.

use std::time::Duration;

use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Staging;
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
    _kill: oneshot::Sender<()>,
}

impl Serving {
    /// Waits for the end. A push that was refused by the rules is a good end: the refusal is in the answer.
    ///
    /// # Errors
    /// The program failed, or its time was over.
    pub async fn finish(self) -> Result<(), RepositoryError> {
        let Self {
            input,
            output,
            done,
            _kill,
        } = self;
        drop((input, output));
        done.await.unwrap_or_else(|error| {
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
    /// git cannot be started.
    pub fn info_refs(&self, service: Service, protocol: Protocol) -> Result<Serving, RepositoryError> {
        self.serve(service, protocol, &["--stateless-rpc", "--http-backend-info-refs"])
    }

    /// Starts the answer to a fetch.
    ///
    /// # Errors
    /// git cannot be started.
    pub fn upload_pack(&self, protocol: Protocol) -> Result<Serving, RepositoryError> {
        self.serve(Service::UploadPack, protocol, &["--stateless-rpc"])
    }

    /// Starts the answer to a push.
    ///
    /// # Errors
    /// git cannot be started.
    pub fn receive_pack(&self, protocol: Protocol) -> Result<Serving, RepositoryError> {
        self.serve(Service::ReceivePack, protocol, &["--stateless-rpc"])
    }

    fn serve(&self, service: Service, protocol: Protocol, options: &[&str]) -> Result<Serving, RepositoryError> {
        let config = &self.shared.config;
        let limit = Duration::from_secs(config.serve_timeout_s);
        let limits = Limits {
            memory: config.git_memory,
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
        let done = tokio::spawn(async move {
            let mut group = Group::led_by(&child);
            let ended = tokio::select! {
                ended = async { tokio::join!(read_tail(complaints), child.wait()) } => Some(ended),
                () = tokio::time::sleep(limit) => None,
                _ = killed => return Err(RepositoryError::Serve { text: "its client went away".to_owned() }),
            };
            let Some((complaints, status)) = ended else {
                group.kill();
                let _ = child.wait().await;
                return Err(RepositoryError::Timeout {
                    act: "serve the sandbox",
                    limit,
                });
            };
            group.disarm();
            match status {
                Ok(status) if status.success() => Ok(()),
                Ok(_) => Err(RepositoryError::Serve {
                    text: shortened(&complaints),
                }),
                Err(error) => Err(RepositoryError::Serve {
                    text: error.to_string(),
                }),
            }
        });
        Ok(Serving {
            input,
            output,
            done,
            _kill: kill,
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
