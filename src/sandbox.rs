//! The seam to the container engine: sealed sandboxes are started, watched and removed here, and nothing else.
//!
//! What runs in a sandbox is `inside`'s business (see the gateway room): the engine never runs a second process, carries no stream and
//! knows no credential. A task cannot reach any of these settings; operators set them.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::watch;

use crate::message::SandboxId;

pub mod disk;
pub mod docker;
pub mod home;

/// Where the sandbox's one socket is, seen from inside.
pub const SOCKET_DIRECTORY: &str = "/run/cofferdam";
/// Where `inside` and the git hooks are, seen from inside.
pub const TOOLS_DIRECTORY: &str = "/opt/cofferdam";
/// The path of `inside` in the sandbox.
pub const INSIDE: &str = "/opt/cofferdam/inside";
/// The agent's home directory.
pub const HOME: &str = "/home/agent";
/// Where projects are cloned.
pub const WORKSPACE: &str = "/workspace";

/// How sandboxes are made.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The engine's socket; `DOCKER_HOST` or the usual path when absent.
    pub docker_socket: Option<String>,
    /// The OCI runtime that the engine shall use; the engine's default when absent. A missing runtime fails, it is never replaced.
    pub runtime: Option<String>,
    /// The `inside` binary; the file `inside` beside the worker's own binary when absent.
    pub inside: Option<PathBuf>,
    /// Memory of one sandbox in bytes, swap included; a workspace on tmpfs counts.
    pub memory_bytes: i64,
    /// Processors of one sandbox.
    pub cpus: f64,
    /// Processes and threads of one sandbox.
    pub pids: i64,
    /// Where the workspace lives.
    pub workspace: Workspace,
    /// Largest workspace, in bytes. On tmpfs a bound that nothing passes; on disk a session that takes more is stopped.
    pub workspace_bytes: u64,
    /// User and group id of everything in the sandbox.
    pub uid: u32,
    /// Whether an image that is missing may be pulled.
    pub pull: bool,
    /// Time limit of one call to the engine, in seconds.
    pub call_timeout_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            docker_socket: None,
            runtime: None,
            inside: None,
            memory_bytes: 4 * 1024 * 1024 * 1024,
            cpus: 2.0,
            pids: 1024,
            workspace: Workspace::Tmpfs,
            workspace_bytes: 2 * 1024 * 1024 * 1024,
            uid: 1000,
            pull: false,
            call_timeout_s: 15,
        }
    }
}

/// Where a workspace lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Workspace {
    /// In memory, bounded by `workspace_bytes`, counted against the sandbox's memory.
    Tmpfs,
    /// A directory of the worker's state, on disk.
    Directory,
}

/// One sandbox to start. Holds no session: names, labels and mounts are fixed when it is created.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// Its own identity.
    pub id: SandboxId,
    /// The image.
    pub image: String,
    /// The name of the worker that owns it, for the reaper.
    pub worker: String,
    /// The worker's directory with the socket (mounted read-only).
    pub socket_directory: PathBuf,
    /// The worker's directory with `inside` and the hooks (mounted read-only).
    pub tools_directory: PathBuf,
    /// The worker's directory that is the workspace; tmpfs when absent.
    pub workspace_directory: Option<PathBuf>,
}

/// The container engine.
///
/// `check` any time. For one sandbox: `require_image`, `start`, then on the handle `wait` (any number of times, cancel-safe) and `remove`,
/// which is idempotent and must be called also when `wait` returned. Every call has a time limit of its own but `wait`.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Whether the engine answers, and what it is.
    async fn check(&self) -> Result<EngineFacts, SandboxError>;

    /// Makes sure that an image is there, pulling it only where the configuration allows.
    async fn require_image(&self, image: &str) -> Result<(), SandboxError>;

    /// Creates and starts a sandbox. When it fails, nothing is left.
    async fn start(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError>;

    /// Removes sandboxes of this worker that nobody holds; says how many. Asks `held` after it has listed them: a sandbox is held before it is
    /// created, so one that starts meanwhile is not taken for a left one.
    async fn reap(
        &self,
        worker: &str,
        held: &(dyn Fn() -> Vec<SandboxId> + Send + Sync),
    ) -> Result<usize, SandboxError>;
}

/// A started sandbox.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Waits until it ends by itself. Cancel-safe.
    async fn wait(&self) -> Result<Ended, SandboxError>;

    /// How often the engine told that the kernel killed something in it for memory; one process may be told of more than once. Never falls.
    fn memory_kills(&self) -> watch::Receiver<u64>;

    /// Kills and removes it. Removing what is gone is success.
    async fn remove(&self) -> Result<(), SandboxError>;
}

/// How a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// PID 1's exit status.
    pub status: i64,
    /// Whether the kernel killed it for memory.
    pub out_of_memory: bool,
}

/// What the engine is.
#[derive(Debug, Clone)]
pub struct EngineFacts {
    /// The engine's version.
    pub version: String,
    /// The API version that was agreed on.
    pub api: String,
    /// The default runtime's name.
    pub runtime: String,
}

/// Why the engine did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SandboxError {
    /// It does not answer.
    #[error("the container engine does not answer ({detail}): start it, or set sandbox.docker_socket")]
    Connect {
        /// What happened.
        detail: String,
    },
    /// The image is missing.
    #[error("the image {image:?} is not on this machine: build or pull it, for example with `docker pull`")]
    ImageMissing {
        /// Which image.
        image: String,
    },
    /// An image could not be pulled.
    #[error("the image {image:?} could not be pulled: {detail}")]
    PullImage {
        /// Which image.
        image: String,
        /// The engine's words.
        detail: String,
    },
    /// A sandbox could not be created.
    #[error("a sandbox could not be created: {detail}")]
    Create {
        /// The engine's words.
        detail: String,
    },
    /// A sandbox could not be started.
    #[error("a sandbox could not be started: {detail}")]
    Start {
        /// The engine's words.
        detail: String,
    },
    /// Waiting failed.
    #[error("the sandbox could not be watched: {detail}")]
    Wait {
        /// The engine's words.
        detail: String,
    },
    /// Removing failed.
    #[error("a sandbox could not be removed: {detail}")]
    Remove {
        /// The engine's words.
        detail: String,
    },
    /// The worker's own side of a sandbox (directories, `inside`) could not be prepared.
    #[error("the sandbox's directory could not be prepared: {detail}")]
    Prepare {
        /// What failed.
        detail: String,
    },
}

impl SandboxError {
    /// Whether it may work later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Create { .. }
            | Self::Start { .. }
            | Self::Wait { .. }
            | Self::Remove { .. }
            | Self::PullImage { .. } => true,
            Self::ImageMissing { .. } | Self::Prepare { .. } => false,
        }
    }
}
