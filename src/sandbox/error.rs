//! Why the engine, or the worker's own side of a sandbox, did not do what was asked. Values only.

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
    /// The image is not one that may be used.
    #[error("the image {image:?} is refused: {detail}")]
    ImageRefused {
        /// Which image.
        image: String,
        /// The rule that it breaks, and what to do.
        detail: String,
    },
    /// The engine does not have the runtime.
    #[error(
        "the container engine has no runtime {runtime:?} (it has {known}): register it there, or let the operator choose another; nothing weaker is used"
    )]
    RuntimeMissing {
        /// Which runtime.
        runtime: String,
        /// Those that it has.
        known: String,
    },
    /// An image could not be pulled.
    #[error("the image {image:?} could not be pulled: {detail}")]
    PullImage {
        /// Which image.
        image: String,
        /// The engine's words.
        detail: String,
    },
    /// An image was not pulled in its time.
    #[error(
        "the image {image:?} was not pulled within {limit_s} s (sandbox.pull_timeout_s): pull it on this machine before, or let the operator raise the limit"
    )]
    PullTimeout {
        /// Which image.
        image: String,
        /// The limit, in seconds.
        limit_s: u64,
    },
    /// The cluster's API does not answer.
    #[error("the cluster does not answer ({detail}): look at its API, or at sandbox.kubernetes.kubeconfig")]
    ClusterAway {
        /// What happened.
        detail: String,
    },
    /// The worker may not do there what it must, or its namespace is not there.
    #[error(
        "the cluster does not let this worker {act} ({detail}): give its account the rights that the README lists (Sandboxes in a cluster)"
    )]
    Forbidden {
        /// What was to be done.
        act: String,
        /// The cluster's words.
        detail: String,
    },
    /// The namespace is full.
    #[error(
        "the quota of the cluster's namespace has no room for another sandbox ({detail}): send the task again when others have ended, or have the quota raised"
    )]
    Quota {
        /// The cluster's words.
        detail: String,
    },
    /// No node takes it.
    #[error(
        "no node of the cluster took the sandbox within {limit_s} s (sandbox.kubernetes.start_timeout_s): {detail}; send the task again when there is room, or have nodes added"
    )]
    Unplaced {
        /// The scheduler's words.
        detail: String,
        /// The limit, in seconds.
        limit_s: u64,
    },
    /// The cluster took it away, or somebody did.
    #[error("the cluster took the sandbox away ({detail}): send the task again")]
    Taken {
        /// Its words.
        detail: String,
    },
    /// It filled the space that it may take, and the cluster ended it for that.
    #[error(
        "the session filled the space that its sandbox may take ({detail}): raise sandbox.workspace_bytes, or ask for less at a time"
    )]
    Full {
        /// The cluster's words.
        detail: String,
    },
    /// What runs in the namespace could reach others.
    #[error(
        "no sandbox is started in the cluster's namespace {namespace:?}, because {detail}: apply the network policy that the README shows (Sandboxes in a cluster)"
    )]
    NetworkOpen {
        /// The namespace.
        namespace: String,
        /// What is open.
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
            | Self::PullImage { .. }
            | Self::PullTimeout { .. }
            | Self::ClusterAway { .. }
            | Self::Quota { .. }
            | Self::Unplaced { .. }
            | Self::Taken { .. } => true,
            Self::ImageMissing { .. }
            | Self::ImageRefused { .. }
            | Self::RuntimeMissing { .. }
            | Self::Forbidden { .. }
            | Self::Full { .. }
            | Self::NetworkOpen { .. }
            | Self::Prepare { .. } => false,
        }
    }
}
