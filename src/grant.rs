//! What one session may do: its projects, what each token allows there, the branch names, the identity of its commits.
//!
//! Minted once from what the forges answered, then only read; a project that is added to a running session makes a new one of it, in `widen`.
//! Pure: no I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::message::{
    BranchName, Capabilities, CommitId, ConnectionName, ForgeKind, ProjectKey, Publish, SessionId, Uncommitted,
};

pub mod branch;
pub mod egress;
pub mod neutral;
pub mod trailer;
mod widen;

pub use egress::Egress;
pub use trailer::Trailers;
pub use widen::{WidenError, overlap};

/// The authority of one session.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The session.
    pub session: SessionId,
    /// Its projects.
    pub projects: Vec<ProjectGrant>,
    /// The trailers that every new commit carries, by project: the user's address is another on each forge.
    pub trailers: BTreeMap<ProjectKey, Trailers>,
    /// What is left behind on the forge.
    pub publish: Publish,
    /// What happens to uncommitted changes.
    pub uncommitted: Uncommitted,
    /// Whether the agent may comment in the user's name, where the token allows it.
    pub may_comment: bool,
    /// What its sandbox reaches beyond the gateway's own routes.
    pub egress: Egress,
    /// Time limits.
    pub limits: SessionLimits,
}

/// Time limits of one session: the operator's, lowered by the task where it asked for less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// The whole session.
    pub session: Duration,
    /// One turn.
    pub turn: Duration,
    /// No sign of life from the agent.
    pub idle: Duration,
}

/// A person as git writes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub name: String,
    /// The e-mail address.
    pub email: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} <{}>", self.name, self.email)
    }
}

/// What a session may do with one project.
#[derive(Debug, Clone)]
pub struct ProjectGrant {
    /// Which project.
    pub key: ProjectKey,
    /// The kind of forge.
    pub forge: ForgeKind,
    /// The connection's name.
    pub connection: ConnectionName,
    /// The forge's own id of the project; survives renames, keys the mirror.
    pub id: String,
    /// The instance's canonical address, keys the mirror too.
    pub instance: String,
    /// Where git clones it from.
    pub clone_url: String,
    /// Where a person looks at it.
    pub web_url: String,
    /// The branch that the session starts from and that a change request merges into.
    pub base: BranchName,
    /// The forge's default branch.
    pub default_branch: BranchName,
    /// The one branch that the session may publish.
    pub branch: BranchName,
    /// The directory under `/workspace` in the sandbox.
    pub directory: String,
    /// Author and committer of new commits: the token's user, because push rules refuse others.
    pub identity: Identity,
    /// What the token may do there, bounded by its user's own rights on the project.
    pub capabilities: Capabilities,
}

impl Grant {
    /// The project of that key.
    #[must_use]
    pub fn project(&self, key: &ProjectKey) -> Option<&ProjectGrant> {
        self.projects.iter().find(|project| project.key == *key)
    }
}

/// Where a session stood when its objects were shown: the heads that count as "already on the forge".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownRef {
    /// The full reference name.
    pub name: String,
    /// Its commit (or tag object).
    pub target: CommitId,
}
