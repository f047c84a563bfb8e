//! What the sessions of one worker share, and their settings. Values only: nothing here runs.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use sha2::Digest as _;

use super::checks::CiFiles;
use super::credential;
use super::pool::Pool;
use super::visibility::MixedVisibility;
use crate::agent::Agents;
use crate::forge::Connect;
use crate::gateway::egress;
use crate::gateway::model;
use crate::message::{AgentName, Credential, SandboxId};
use crate::metrics::Metrics;
use crate::repository::{Repositories, scan};
use crate::sandbox::disk::Disk;
use crate::sandbox::{self, Engine};
use crate::secret::Secret;

/// Limits and names of sessions.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The pattern of branch names; `{session}` must be in it, `{title}` may be.
    pub branch: String,
    /// Time limit of a whole session, in seconds.
    pub session_s: u64,
    /// Time limit of one turn, in seconds.
    pub turn_s: u64,
    /// Time without a sign of life from the agent, in seconds.
    pub idle_s: u64,
    /// How long mirrors and clones of one session may take together, in seconds.
    pub clone_s: u64,
    /// How long before its end an agent is told to commit what it has, in seconds, in turns at least four times as long; 0: never.
    pub wind_down_s: u64,
    /// How long a session that stays open may wait for another prompt at most, in seconds; a task asks for less or for nothing. 0: never.
    pub idle_timeout_s: u64,
    /// Time that an agent gets to stop when it is asked to, in seconds.
    pub grace_s: u64,
    /// How long the publishing of finished work waits for a fresh credential when the token has died, in seconds.
    pub credential_wait_s: u64,
    /// How often a session whose worker died is begun again before its task is dead-lettered.
    pub most_takeovers: u32,
    /// Sessions that may wait for people, or for their next prompt, beside those that work: each keeps its sandbox, and another session gets its
    /// slot.
    pub most_waiting: usize,
    /// How long what needs somebody's word waits for the control message `answer`, in seconds. Then work is kept and not published, and an agent
    /// that asked for leave is refused.
    pub answer_wait_s: u64,
    /// A directory for the memory of agents whose sessions are suspended (`saved_state` of an agent), which several workers may share. Private: what
    /// agents know of private code is in it. Nothing is saved when absent.
    pub saved_states: Option<PathBuf>,
    /// The largest memory of one session that is saved, in bytes.
    pub most_saved_state: u64,
    /// How long one that nobody asked for is kept, in seconds.
    pub saved_state_s: u64,
    /// What follows when the work changes files that run on their own: CI files, hooks of common tools.
    pub ci_files: CiFiles,
    /// Whether a session may be over public and other projects together.
    pub mixed_visibility: MixedVisibility,
    /// The search for credentials in what is published.
    pub secret_scan: scan::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            branch: "cofferdam/{title}-{session}".into(),
            session_s: 4 * 3600,
            turn_s: 2 * 3600,
            idle_s: 20 * 60,
            clone_s: 3600,
            wind_down_s: 120,
            idle_timeout_s: 30 * 60,
            grace_s: 10,
            credential_wait_s: 15 * 60,
            most_takeovers: 2,
            most_waiting: 2,
            answer_wait_s: 15 * 60,
            saved_states: None,
            most_saved_state: 16 * 1024 * 1024,
            saved_state_s: 24 * 3600,
            ci_files: CiFiles::Flag,
            mixed_visibility: MixedVisibility::Ask,
            secret_scan: scan::Config::default(),
        }
    }
}

impl Config {
    pub(super) fn session_limit(&self) -> Duration {
        Duration::from_secs(self.session_s)
    }

    /// Longer than any sandbox of this worker lives: the session, all that its end may wait for, and slack for slow forges and engines.
    pub(super) fn longest_sandbox(&self) -> Duration {
        let waits = self.credential_wait_s.saturating_add(self.answer_wait_s);
        Duration::from_secs(self.session_s.saturating_add(waits).saturating_add(3600))
    }

    pub(super) fn turn_limit(&self) -> Duration {
        Duration::from_secs(self.turn_s)
    }

    pub(super) fn idle_limit(&self) -> Duration {
        Duration::from_secs(self.idle_s)
    }
}

/// Looks up a credential that a task names.
pub type Credentials =
    dyn Fn(&Credential, &credential::Asked<'_>) -> Result<Secret, credential::CredentialError> + Send + Sync;

/// What all sessions of a worker share.
pub struct Rooms {
    /// The worker's name.
    pub worker: String,
    /// Session settings.
    pub config: Config,
    /// Sandbox settings.
    pub sandbox: sandbox::Config,
    /// Where the worker's state lives.
    pub state_dir: PathBuf,
    /// The disk on which it is.
    pub disk: Arc<Disk>,
    /// The directory with `inside` and the hooks.
    pub tools_directory: PathBuf,
    /// The configured agents.
    pub agents: Agents,
    /// The configured tenants.
    pub tenants: super::tenant::Tenants,
    /// The agent of tasks that name none.
    pub default_agent: Option<AgentName>,
    /// The secrets of agents' set-ups.
    pub set_up_secrets: BTreeMap<AgentName, super::SetUpSecrets>,
    /// The configured model endpoints.
    pub models: model::Endpoints,
    /// What the operator says of the way out.
    pub egress: Arc<egress::Config>,
    /// Finds the addresses of hosts that sandboxes may reach.
    pub resolver: Arc<dyn egress::Resolve>,
    /// Looks credentials up.
    pub credentials: Box<Credentials>,
    /// Makes forge clients.
    pub connect: Arc<dyn Connect>,
    /// Mirrors and staging.
    pub repositories: Repositories,
    /// What credentials look like.
    pub secret_rules: Arc<scan::Rules>,
    /// The worker's own keys that a session's work may not hold: those of models.
    pub own_keys: Vec<Secret>,
    /// The container engine.
    pub engine: Arc<dyn Engine>,
    /// Whether it can be counted on.
    pub engine_health: Arc<sandbox::health::Health>,
    /// The state directory is this worker's for as long as this lives.
    pub lock: sandbox::owner::StateLock,
    /// What operators see.
    pub metrics: Arc<Metrics>,
    /// How patient sessions are with a broker that is away.
    pub progress: crate::progress::Config,
    /// Sandboxes that are in use, for the reaper.
    pub live_sandboxes: LiveSandboxes,
    /// Sandboxes that are ready before anybody asks.
    pub pool: Arc<Pool>,
}

impl Rooms {
    /// By what this worker's sandboxes are known on an engine that others use too: two workers of one host and name differ in their state.
    #[must_use]
    pub fn owner(&self) -> String {
        let digest = sha2::Sha256::digest(self.state_dir.as_os_str().as_encoded_bytes());
        format!("{}-{}", self.worker, &hex::encode(digest)[..12])
    }
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Rooms")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// The sandboxes that sessions of this worker hold.
#[derive(Debug, Clone, Default)]
pub struct LiveSandboxes(Arc<Mutex<HashSet<SandboxId>>>);

impl LiveSandboxes {
    /// Keeps the reaper away from a sandbox for as long as the result lives, however its session ends.
    pub(super) fn hold(&self, id: SandboxId) -> HeldSandbox {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        HeldSandbox { all: self.clone(), id }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<SandboxId> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect()
    }
}

/// A sandbox that a session holds.
pub(super) struct HeldSandbox {
    all: LiveSandboxes,
    id: SandboxId,
}

impl Drop for HeldSandbox {
    fn drop(&mut self) {
        self.all
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}
