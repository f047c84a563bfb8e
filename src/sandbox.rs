//! The seam to the container engine: sealed sandboxes are started, watched and removed here, and nothing else.
//!
//! What runs in a sandbox is `inside`'s business (see the gateway room): the engine never runs a second process, carries no stream and
//! knows no credential. A task cannot reach any of these settings; operators set them. Configuration and errors stand in files beside this one.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::message::SandboxId;

pub mod config;
pub mod devcontainer;
pub mod disk;
pub mod docker;
pub mod error;
pub mod health;
pub mod home;
pub mod images;
pub mod kubernetes;
pub mod left;
pub mod owner;

pub use config::{Backend, Config, Seccomp, Workspace};
pub use error::SandboxError;

/// Where the sandbox's one socket is, seen from inside.
pub const SOCKET_DIRECTORY: &str = "/run/cofferdam";
/// The socket's name in its directory.
pub const SOCKET_NAME: &str = "gateway.sock";
/// Where the session's objects are shown, one bare repository for each project by its number, seen from inside.
pub const OBJECTS_DIRECTORY: &str = "/run/cofferdam-objects";
/// Where `inside` and the git hooks are, seen from inside.
pub const TOOLS_DIRECTORY: &str = "/opt/cofferdam";
/// The path of `inside` in the sandbox.
pub const INSIDE: &str = "/opt/cofferdam/inside";
/// The agent's home directory.
pub const HOME: &str = "/home/agent";
/// Where projects are cloned.
pub const WORKSPACE: &str = "/workspace";

/// One sandbox to start. Holds no session: names, labels and mounts are fixed when it is created.
#[derive(Debug, Clone)]
pub struct SandboxSpec {
    /// Its own identity.
    pub id: SandboxId,
    /// The image.
    pub image: String,
    /// The OCI runtime; the engine's default when absent. Never replaced by another.
    pub runtime: Option<String>,
    /// The name of the worker that owns it, for people and for workers that cannot see the owner's directory.
    pub worker: String,
    /// The owner, for whoever has to tell whether it still lives.
    pub owner: owner::Owner,
    /// When it is removed at the latest by workers that cannot tell, in seconds of Unix time.
    pub deadline: i64,
    /// The worker's directory with the socket (mounted read-only).
    pub socket_directory: PathBuf,
    /// The worker's directory in which the session's objects will be shown (mounted read-only).
    pub objects_directory: PathBuf,
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
    /// Whether sandboxes see the directories of their spec. Where they do not, `inside` comes over the network, and nothing is shown or shared.
    fn shares_directories(&self) -> bool {
        true
    }

    /// Whether the engine answers at all; within a few seconds.
    async fn ping(&self) -> Result<(), SandboxError>;

    /// Whether the engine answers, and what it is.
    async fn check(&self) -> Result<EngineFacts, SandboxError>;

    /// All that `doctor` tells of it. Slower than `check`.
    async fn survey(&self) -> Result<Survey, SandboxError>;

    /// Makes sure that an image is one of those allowed, that it is there, pulling it only where the configuration allows, and that it is the
    /// one that was pinned. By which id it is known, whatever its name means later.
    async fn require_image(&self, image: &str) -> Result<String, SandboxError>;

    /// Makes sure that the engine has a runtime.
    async fn require_runtime(&self, runtime: &str) -> Result<(), SandboxError>;

    /// Creates and starts a sandbox. When it fails, nothing is left. Looks at image and runtime again: what was looked at before may have
    /// changed since.
    async fn start(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError>;

    /// All containers of cofferdam's workers on this engine, running or not.
    async fn list(&self) -> Result<Vec<left::Listed>, SandboxError>;

    /// Kills and removes one that was listed. Removing what is gone is success.
    async fn remove(&self, listed: &left::Listed) -> Result<(), SandboxError>;

    /// Removes what dead workers left there beside sandboxes, this one's predecessors and others. Asked at each look for what nobody owns.
    async fn tend(&self, _here: &owner::Owner) -> Result<(), SandboxError> {
        Ok(())
    }

    /// The worker ends: what it holds there beside its sandboxes goes. Within the time of a few calls.
    async fn leave(&self) {}
}

/// A started sandbox.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Waits until it ends by itself. Cancel-safe.
    async fn wait(&self) -> Result<Ended, SandboxError>;

    /// How often the engine told that the kernel killed something in it for memory; one process may be told of more than once. Never falls.
    fn memory_kills(&self) -> watch::Receiver<u64>;

    /// Whether the engine is away, or was a moment ago: what ended then did not end by itself.
    async fn is_engine_lost(&self) -> bool;

    /// Its first process as the worker's machine numbers it, where that is known.
    fn init(&self) -> Option<u32> {
        None
    }

    /// Kills and removes it. Removing what is gone is success. One that `ends` by itself at this moment may be given a second for it.
    async fn remove(&self, ends: bool) -> Result<(), SandboxError>;
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
    /// The names of all runtimes.
    pub runtimes: Vec<String>,
}

/// All that `doctor` tells of the engine; what it does not say is empty.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Its parts and their versions, for example `runc`.
    pub components: Vec<(String, String)>,
    /// The version of the kernel's control groups.
    pub cgroups: String,
    /// Runtimes: name and program.
    pub runtimes: Vec<(String, String)>,
    /// The ids of its containers, running or not.
    pub containers: Vec<String>,
}
