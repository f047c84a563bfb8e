//! Docker Engine behind the seam, 20.10 and newer. The only folder that names Docker.
//!
//! Never executes a process in a container and never attaches to one: `inside` does both over the sandbox's socket. Each call has a time
//! limit; a stalled engine costs one error, not the worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, StartContainerOptions,
};

use self::sandbox::{DockerSandbox, remove};
use super::left::Listed;
use super::{Config, Engine, EngineFacts, Sandbox, SandboxError, SandboxSpec, Survey};

mod events;
mod image;
mod sandbox;
mod seccomp;
mod spec;
mod survey;

/// How long the engine's library waits for an answer at most; each call has its own limit below that, but for a pull that may take longer.
const LONGEST_ANSWER: Duration = Duration::from_secs(15 * 60);
/// How long the engine may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The engine.
pub struct DockerEngine {
    config: Config,
    /// Made at the first use and after a failure, because the engine may start after the worker.
    client: tokio::sync::Mutex<Option<Docker>>,
    events: events::Events,
}

impl std::fmt::Debug for DockerEngine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DockerEngine")
            .field("socket", &self.config.docker_socket)
            .finish_non_exhaustive()
    }
}

impl DockerEngine {
    /// An engine that is not yet talked to.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            client: tokio::sync::Mutex::new(None),
            events: events::Events::default(),
        }
    }

    /// Whether the files that the configuration names can be used: looked at without the engine.
    ///
    /// # Errors
    /// The profile of system calls cannot be read, or is none.
    pub fn configured(config: &Config) -> Result<(), SandboxError> {
        seccomp::profile(&config.seccomp).map(drop)
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.config.call_timeout_s)
    }

    fn pull_timeout(&self) -> Duration {
        Duration::from_secs(self.config.pull_timeout_s)
    }

    /// The connected client; the API version is agreed on once per connection.
    async fn client(&self) -> Result<Docker, SandboxError> {
        // Around the lock too: those who wait for one stalled attempt must not each wait for one of their own.
        let limit = self.timeout();
        tokio::time::timeout(limit, self.agreed())
            .await
            .unwrap_or_else(|_| Err(unanswered(limit)))
    }

    async fn agreed(&self) -> Result<Docker, SandboxError> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref() {
            return Ok(client.clone());
        }
        let longest = LONGEST_ANSWER.max(self.pull_timeout());
        let away = |error: Error| SandboxError::Connect {
            detail: sentence(&error),
        };
        let fresh = connect(self.config.docker_socket.as_deref(), longest).map_err(away)?;
        let agreed = fresh.negotiate_version().await.map_err(away)?;
        Ok(slot.insert(agreed).clone())
    }

    /// An image that may be used and is there.
    async fn image(&self, image: &str) -> Result<image::Image, SandboxError> {
        let client = self.client().await?;
        let images = image::Images {
            client: &client,
            rules: &self.config.images,
            pull: self.config.pull,
            timeout: self.timeout(),
            pull_timeout: self.pull_timeout(),
        };
        let found = images.require(image).await;
        if matches!(found, Err(SandboxError::Connect { .. })) {
            self.forget().await;
        }
        found
    }

    /// What a call met that the engine did not answer.
    async fn away(&self, error: &Error) -> SandboxError {
        self.forget().await;
        SandboxError::Connect {
            detail: sentence(error),
        }
    }

    /// Forgets the connection, so that the next call agrees anew: the engine may have been replaced by another version.
    async fn forget(&self) {
        *self.client.lock().await = None;
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn ping(&self) -> Result<(), SandboxError> {
        let answered = async {
            let client = self.client().await?;
            match client.ping().await {
                Ok(_) => Ok(()),
                Err(error) => Err(self.away(&error).await),
            }
        };
        let limit = self.timeout().min(PING_TIMEOUT);
        tokio::time::timeout(limit, answered)
            .await
            .unwrap_or_else(|_| Err(unanswered(limit)))
    }

    async fn check(&self) -> Result<EngineFacts, SandboxError> {
        let client = self.client().await?;
        match within(self.timeout(), client.info()).await {
            Ok(info) => Ok(EngineFacts {
                version: info.server_version.unwrap_or_default(),
                api: client.client_version().to_string(),
                runtime: info.default_runtime.unwrap_or_default(),
                runtimes: survey::names(info.runtimes),
            }),
            Err(error) => Err(self.away(&error).await),
        }
    }

    async fn survey(&self) -> Result<Survey, SandboxError> {
        let client = self.client().await?;
        survey::survey(&client, self.timeout()).await
    }

    async fn require_image(&self, image: &str) -> Result<String, SandboxError> {
        self.image(image).await.map(|image| image.id)
    }

    async fn require_runtime(&self, runtime: &str) -> Result<(), SandboxError> {
        let known = self.check().await?.runtimes;
        if known.iter().any(|name| name == runtime) {
            return Ok(());
        }
        Err(SandboxError::RuntimeMissing {
            runtime: runtime.to_owned(),
            known: known.join(", "),
        })
    }

    async fn start(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError> {
        let client = self.client().await?;
        let name = spec::container_name(spec.id);
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        // By its id: between this look and the start nobody can put another image under the name.
        let image = self.image(&spec.image).await?;
        let profile = seccomp::profile(&self.config.seccomp)?;
        let body = spec::create_body(&self.config, spec, &image, profile.as_deref());
        let mut sandbox = DockerSandbox {
            client: client.clone(),
            socket: self.config.docker_socket.clone(),
            name: name.clone(),
            timeout: self.timeout(),
            events: None,
            init: None,
        };
        let created = within(self.timeout(), client.create_container(Some(options), body)).await;
        if let Err(error) = created {
            // The call may have been cut while the engine went on, so what it may have made is removed.
            let _ = sandbox.remove(false).await;
            if let Error::DockerResponseServerError { status_code: 404, .. } = error {
                return Err(SandboxError::ImageMissing {
                    image: spec.image.clone(),
                });
            }
            // The engine refuses a runtime that it does not have, in words of its own.
            if let (Some(runtime), Error::DockerResponseServerError { status_code: 400, .. }) = (&spec.runtime, &error)
            {
                self.require_runtime(runtime).await?;
            }
            if !is_answer(&error) {
                return Err(self.away(&error).await);
            }
            return Err(SandboxError::Create {
                detail: sentence(&error),
            });
        }
        // Before the start: nothing that is killed is missed.
        sandbox.events = Some(
            self.events
                .watch(client.clone(), &spec::worker_label(spec), name.clone()),
        );
        if let Err(error) = within(
            self.timeout(),
            client.start_container(&name, None::<StartContainerOptions>),
        )
        .await
        {
            let _ = sandbox.remove(false).await;
            if !is_answer(&error) {
                return Err(self.away(&error).await);
            }
            return Err(SandboxError::Start {
                detail: sentence(&error),
            });
        }
        if spec.workspace_directory.is_some() {
            // A sandbox that has ended already tells none.
            let inspected = client.inspect_container(&name, None::<InspectContainerOptions>);
            let state = within(self.timeout(), inspected)
                .await
                .ok()
                .and_then(|answer| answer.state);
            let pid = state
                .and_then(|state| state.pid)
                .and_then(|pid| u32::try_from(pid).ok());
            sandbox.init = pid.filter(|pid| *pid > 0);
        }
        Ok(Arc::new(sandbox))
    }

    async fn list(&self) -> Result<Vec<Listed>, SandboxError> {
        let client = self.client().await?;
        let filters = HashMap::from([("label", vec![spec::SANDBOX_LABEL])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let found = within(self.timeout(), client.list_containers(Some(options))).await;
        let listed = |container: ContainerSummary| {
            let labels = container.labels.unwrap_or_default();
            Some(spec::listed(
                container.id?,
                container.created.unwrap_or_default(),
                &labels,
            ))
        };
        match found {
            Ok(found) => Ok(found.into_iter().filter_map(listed).collect()),
            Err(error) => Err(self.away(&error).await),
        }
    }

    async fn remove(&self, listed: &Listed) -> Result<(), SandboxError> {
        let client = self.client().await?;
        remove(&client, &listed.key, self.timeout()).await
    }
}

/// A way to the engine that is not yet talked to.
fn connect(socket: Option<&str>, longest: Duration) -> Result<Docker, Error> {
    match socket {
        Some(path) => Docker::connect_with_unix(path, longest.as_secs(), bollard::API_DEFAULT_VERSION),
        None => Docker::connect_with_local_defaults().map(|client| client.with_timeout(longest)),
    }
}

/// Whether the engine itself said so; else it is away, or said nothing in time.
fn is_answer(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { .. })
}

fn unanswered(limit: Duration) -> SandboxError {
    SandboxError::Connect {
        detail: format!("no answer within {} s", limit.as_secs()),
    }
}

/// The call with a time limit; a call that runs out of time is an error like any other.
async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or(Err(Error::RequestTimeoutError))
}

/// The engine's words on one bounded line.
fn sentence(error: &Error) -> String {
    let text = if let Error::DockerResponseServerError { message, .. } = error {
        message.clone()
    } else {
        error.to_string()
    };
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(300)
        .collect()
}
