//! Puts the rooms together from a configuration. The only place that reads the process's environment.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use super::{Exit, set_up};
use crate::config::Config;
use crate::forge::Clients;
use crate::forge::CountRequests;
use crate::gateway::model::{CountModel, Endpoint};
use crate::message::{AgentName, EgressLevel, ForgeKind};
use crate::metrics::{Build, Metrics};
use crate::repository::Repositories;
use crate::sandbox::Backend;
use crate::sandbox::disk::Disk;
use crate::sandbox::docker::DockerEngine;
use crate::sandbox::home;
use crate::sandbox::kubernetes::KubernetesEngine;
use crate::sandbox::kubernetes::door::{CountRefusals, Refusal};
use crate::sandbox::owner::StateLock;
use crate::secret::{Mask, Secret};
use crate::session::{Rooms, SetUpSecrets};

/// What runs.
const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    commit: env!("COFFERDAM_BUILT_COMMIT"),
};

/// The process's environment, for the configuration's overlay.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Rooms, and the mask of the worker's own secrets.
pub(super) struct Composed {
    pub(super) rooms: Arc<Rooms>,
    pub(super) mask: Mask,
}

/// Makes the rooms.
///
/// # Errors
/// The sentence to print, and the exit code.
pub(super) async fn compose(config: &Config) -> Result<Composed, (Exit, String)> {
    let metrics = Metrics::new(&BUILD).map_err(|error| (Exit::Software, error.to_string()))?;
    let metrics = Arc::new(metrics);
    let worker = config.worker_name();
    let bad = |message: String| (Exit::BadConfig, message);
    super::state::close(&config.state_dir).map_err(bad)?;
    super::state::spread(&config.state_dir);
    let lock = StateLock::take(&config.state_dir)
        .await
        .map_err(|error| bad(error.to_string()))?;
    let resolved = resolve(config, Arc::new(Counts(metrics.clone()))).map_err(bad)?;
    let own = std::env::current_exe().map_err(|error| (Exit::Software, error.to_string()))?;
    let internal = vec![own.display().to_string(), "internal".to_owned()];
    let mut repository = config.repository.clone();
    repository.state_dir.clone_from(&config.state_dir);
    repository.ca = resolved.ca;
    let repositories = Repositories::open(repository, internal)
        .await
        .map_err(|error| bad(error.to_string()))?;
    let tools_directory =
        home::install_tools(&config.sandbox, &config.state_dir).map_err(|error| bad(error.to_string()))?;
    let levels = EgressLevel::ALL.map(EgressLevel::as_str);
    let rules = crate::grant::egress::Rule::ALL.iter().map(|rule| rule.as_str());
    metrics.gateway.expect_egress(levels, rules);
    metrics
        .sandboxes
        .expect_link_refusals(Refusal::ALL.iter().map(|refusal| refusal.as_str()));
    let credentials = config.credentials.clone();
    let mut sandbox = config.sandbox.clone();
    sandbox.images = config.images();
    let rooms = Rooms {
        worker,
        config: config.session.clone(),
        sandbox: sandbox.clone(),
        state_dir: config.state_dir.clone(),
        disk: Arc::new(Disk::new(config.disk.clone(), config.state_dir.clone())),
        tools_directory,
        agents: config.agents.clone(),
        tenants: config.tenants.clone(),
        default_agent: config.default_agent.clone(),
        set_up_secrets: resolved.set_up_secrets,
        models: resolved.models,
        egress: Arc::new(config.egress.clone()),
        resolver: Arc::new(crate::gateway::egress::SystemResolver::default()),
        credentials: Box::new(move |credential, asked| {
            credentials.resolve(credential, asked, |name| std::env::var(name).ok())
        }),
        connect: Arc::new(resolved.connect),
        repositories,
        engine: match sandbox.backend {
            Backend::Docker => Arc::new(DockerEngine::new(sandbox)),
            Backend::Kubernetes => Arc::new(KubernetesEngine::new(sandbox, Arc::new(Counts(metrics.clone())))),
        },
        engine_health: Arc::default(),
        lock,
        secret_rules: resolved.secret_rules,
        own_keys: resolved.own_keys,
        metrics,
        progress: config.progress.clone(),
        live_sandboxes: crate::session::LiveSandboxes::default(),
        pool: Arc::default(),
    };
    Ok(Composed {
        rooms: Arc::new(rooms),
        mask: resolved.mask,
    })
}

/// What a configuration names elsewhere, looked up: files and variables, without a broker, an engine, a forge or the state directory.
pub(super) struct Resolved {
    /// The text of `forge.ca_file`.
    ca: Option<String>,
    mask: Mask,
    own_keys: Vec<Secret>,
    models: crate::gateway::model::Endpoints,
    set_up_secrets: BTreeMap<AgentName, SetUpSecrets>,
    pub(super) connect: Clients,
    secret_rules: Arc<crate::repository::scan::Rules>,
}

/// Looks it all up.
///
/// # Errors
/// The first that is missing or wrong, by its key.
pub(super) fn resolve<C: CountRequests + CountModel + 'static>(
    config: &Config,
    counts: Arc<C>,
) -> Result<Resolved, String> {
    let ca = match &config.forge.ca_file {
        // Whether it holds certificates, the forge room says.
        Some(file) => Some(
            std::fs::read_to_string(file)
                .map_err(|error| format!("forge.ca_file {} cannot be read: {error}", file.display()))?,
        ),
        None => None,
    };
    let mut mask = Mask::default().and_token_shapes();
    let mut own_keys = Vec::new();
    let mut models = crate::gateway::model::Endpoints::new();
    let bodies = crate::gateway::model::Bodies::new(config.gateway.body_bytes);
    for (name, model) in &config.models {
        let key = model_key(model).map_err(|message| format!("models.{name}: {message}"))?;
        if let Some(key) = &key {
            mask.add(key);
            own_keys.push(key.clone());
        }
        let endpoint =
            Endpoint::new(model, key, counts.clone()).map_err(|message| format!("models.{name}: {message}"))?;
        models.insert(name.clone(), Arc::new(endpoint.holding_in(bodies.clone())));
    }
    let set_up_secrets = set_up::secrets(&config.agents)?;
    for (_, secret) in set_up_secrets.values().flatten() {
        mask.add(secret);
        own_keys.push(secret.clone());
    }
    let connect = Clients::new(config.forge.clone(), counts).map_err(|error| error.to_string())?;
    let secret_rules = Arc::new(config.session.secret_scan.compile()?);
    // Read at each use, so that keys can be changed while the worker runs; looked at now, so that a mistake is told at the start.
    config.credentials.recipients().map_err(|error| error.to_string())?;
    if let Some(directory) = &config.credentials.directory {
        std::fs::read_dir(directory)
            .map_err(|error| format!("credentials.directory {} cannot be read: {error}", directory.display()))?;
    }
    DockerEngine::configured(&config.sandbox).map_err(|error| error.to_string())?;
    Ok(Resolved {
        ca,
        mask,
        own_keys,
        models,
        set_up_secrets,
        connect,
        secret_rules,
    })
}

/// A model's key, where one is configured.
fn model_key(model: &crate::gateway::model::Config) -> Result<Option<Secret>, String> {
    let text = match (&model.key_env, &model.key_file) {
        (Some(name), _) => std::env::var(name).map_err(|_| format!("the variable {name} of its key is not set"))?,
        (None, Some(path)) => std::fs::read_to_string(path)
            .map_err(|error| format!("its key file {} cannot be read: {error}", path.display()))?,
        (None, None) => return Ok(None),
    };
    let text = zeroize::Zeroizing::new(text);
    let key = Secret::new(&text);
    if key.is_empty() {
        Err("its key is empty".to_owned())
    } else {
        Ok(Some(key))
    }
}

/// Reads a task's body from a file or from standard input, bounded.
pub(super) fn read_task(path: &Path) -> Result<Vec<u8>, String> {
    let most = crate::message::task::LARGEST_TASK as u64 + 1;
    let mut body = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut body)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut body))
    };
    read.map(|_| body)
        .map_err(|error| format!("the task {} cannot be read: {error}", path.display()))
}

/// From the rooms' seams to the operators' metrics.
struct Counts(Arc<Metrics>);

impl CountRequests for Counts {
    fn count(&self, forge: ForgeKind, endpoint: &'static str, status: u16) {
        self.0.forges.request(forge.as_str(), endpoint, answered(status));
    }

    fn left(&self, forge: ForgeKind, hundredths: u8) {
        self.0.forges.rate_left(forge.as_str(), hundredths);
    }
}

impl CountModel for Counts {
    fn count(&self, model: &str, status: u16) {
        self.0.gateway.model_request(model, answered(status));
    }

    fn bytes(&self, model: &str, sent: u64, received: u64) {
        self.0.gateway.model_bytes(model, sent, received);
    }

    fn tokens(&self, model: &str, read: u64, written: u64) {
        self.0.gateway.model_tokens(model, read, written);
    }

    fn retried(&self, model: &str) {
        self.0.gateway.model_retry(model);
    }

    fn refused(&self) {
        self.0.gateway.refused();
    }
}

impl CountRefusals for Counts {
    fn refused(&self, refusal: Refusal) {
        self.0.sandboxes.link_refused(refusal.as_str());
    }
}

/// Counts nothing: for commands that end at once.
#[derive(Debug)]
pub(super) struct Silent;

impl CountModel for Silent {
    fn count(&self, _model: &str, _status: u16) {}
    fn bytes(&self, _model: &str, _sent: u64, _received: u64) {}
    fn tokens(&self, _model: &str, _read: u64, _written: u64) {}
    fn retried(&self, _model: &str) {}
    fn refused(&self) {}
}

impl CountRequests for Silent {
    fn count(&self, _forge: ForgeKind, _endpoint: &'static str, _status: u16) {}
    fn left(&self, _forge: ForgeKind, _hundredths: u8) {}
}

impl CountRefusals for Silent {
    fn refused(&self, _refusal: Refusal) {}
}

/// The seams count a missing answer as status 0.
fn answered(status: u16) -> Option<u16> {
    (status != 0).then_some(status)
}
