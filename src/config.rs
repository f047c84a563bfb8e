//! The worker's configuration: composes each room's own part, reads one TOML file, overlays the environment, checks across rooms.
//!
//! Binds no port, opens no connection, and holds no secret: only names of files and variables that do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::message::task::ConnectionRequest;
use crate::message::{AgentName, ConnectionName};
use crate::{admin, agent, forge, gateway, progress, queue, repository, sandbox, session};

mod layers;
mod saved;
mod walls;

pub use layers::{Key, Layers, Source};

/// Longest time limit, in seconds. Far longer ones would not fit the clock.
const LONGEST_S: u64 = 30 * 24 * 3600;
/// Most sessions at a time.
const MOST_SESSIONS: usize = 1000;
/// Least memory of a sandbox, in bytes; the engine itself refuses a few megabytes.
const LEAST_MEMORY: i64 = 64 * 1024 * 1024;

/// The whole configuration. Every key has a default but the agents, which have none.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The worker's name in events and on its containers; the host's name when absent.
    pub worker: Option<String>,
    /// Where mirrors, object stores, sockets and kept bundles live. The engine must see it under the same path.
    pub state_dir: PathBuf,
    /// How many sessions run at a time.
    pub concurrency: usize,
    /// How long running sessions may go on after the worker was told to stop, in seconds.
    pub drain_s: u64,
    /// The agent of tasks that name none.
    pub default_agent: Option<AgentName>,
    /// The broker.
    pub queue: queue::rabbitmq::Config,
    /// Sandboxes.
    pub sandbox: sandbox::Config,
    /// The host's disk.
    pub disk: sandbox::disk::Config,
    /// Forges.
    pub forge: forge::Config,
    /// Mirrors and staging.
    pub repository: repository::Config,
    /// The worker's end of all sandboxes together.
    pub gateway: gateway::Config,
    /// The way out of sandboxes.
    pub egress: gateway::egress::Config,
    /// Sessions.
    pub session: session::Config,
    /// Events.
    pub progress: progress::Config,
    /// Where credentials are looked up.
    pub credentials: session::credential::Config,
    /// Health and metrics.
    pub admin: admin::Config,
    /// Connections that `connection check` and `projects` look at, by name. Sessions get theirs from their tasks.
    pub connections: BTreeMap<ConnectionName, ConnectionRequest>,
    /// Agents by name.
    pub agents: BTreeMap<AgentName, agent::Config>,
    /// Tenants by name. Where there is any, a task that names another is refused.
    pub tenants: session::tenant::Tenants,
    /// Model endpoints by name.
    pub models: BTreeMap<String, gateway::model::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            worker: None,
            state_dir: PathBuf::from("/var/lib/cofferdam"),
            concurrency: 4,
            drain_s: 3600,
            default_agent: None,
            queue: queue::rabbitmq::Config::default(),
            sandbox: sandbox::Config::default(),
            disk: sandbox::disk::Config::default(),
            forge: forge::Config::default(),
            repository: repository::Config::default(),
            gateway: gateway::Config::default(),
            egress: gateway::egress::Config::default(),
            session: session::Config::default(),
            progress: progress::Config::default(),
            credentials: session::credential::Config::default(),
            admin: admin::Config::default(),
            connections: BTreeMap::new(),
            agents: BTreeMap::new(),
            tenants: BTreeMap::new(),
            models: BTreeMap::new(),
        }
    }
}

/// Why a configuration cannot be used; every message names the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {path} cannot be read: {source}")]
    Read {
        /// Which file.
        path: String,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration {path} is not TOML: {detail}")]
    Syntax {
        /// Which file.
        path: String,
        /// Line, column and reason.
        detail: String,
    },
    /// A key is unknown, missing or of the wrong form.
    #[error("configuration key {key}: {detail}")]
    Key {
        /// Where.
        key: String,
        /// What is wrong.
        detail: String,
    },
}

impl Config {
    /// Reads a file, or the defaults when there is none, and overlays the variables that begin with `COFFERDAM__`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let config = Layers::read(path, environment)?.config()?;
        config.check()?;
        Ok(config)
    }

    /// The worker's name.
    #[must_use]
    pub fn worker_name(&self) -> String {
        let given = self
            .worker
            .clone()
            .or_else(|| nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()));
        let name: String = given
            .unwrap_or_default()
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            .take(64)
            .collect();
        if name.is_empty() { "worker".to_owned() } else { name }
    }

    /// What no room can check alone.
    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, detail: &str| {
            Err(ConfigError::Key {
                key: key.to_owned(),
                detail: detail.to_owned(),
            })
        };
        if !self.state_dir.is_absolute() {
            return wrong("state_dir", "must be an absolute path");
        }
        if self.concurrency == 0 {
            return wrong("concurrency", "must be at least 1");
        }
        if self.sandbox.uid == 0 {
            return wrong("sandbox.uid", "must not be 0: an agent never runs as root");
        }
        let seconds = [
            ("drain_s", self.drain_s, 0),
            ("session.session_s", self.session.session_s, 1),
            ("session.turn_s", self.session.turn_s, 1),
            ("session.idle_s", self.session.idle_s, 1),
            ("session.grace_s", self.session.grace_s, 0),
            ("session.answer_wait_s", self.session.answer_wait_s, 1),
            ("session.clone_s", self.session.clone_s, 1),
            ("session.wind_down_s", self.session.wind_down_s, 0),
            ("sandbox.pull_timeout_s", self.sandbox.pull_timeout_s, 1),
            ("session.secret_scan.timeout_s", self.session.secret_scan.timeout_s, 1),
            ("sandbox.call_timeout_s", self.sandbox.call_timeout_s, 1),
            ("repository.fetch_timeout_s", self.repository.fetch_timeout_s, 1),
            ("repository.push_timeout_s", self.repository.push_timeout_s, 1),
            ("repository.serve_timeout_s", self.repository.serve_timeout_s, 1),
            ("repository.inspect_timeout_s", self.repository.inspect_timeout_s, 1),
            ("progress.final_event_limit_s", self.progress.final_event_limit_s, 1),
        ];
        for (key, value, least) in seconds {
            if value < least || value > LONGEST_S {
                return wrong(key, "must be a number of seconds that is not 0, and at most 30 days");
            }
        }
        if self.concurrency > MOST_SESSIONS {
            return wrong("concurrency", "must be at most 1000");
        }
        if self.session.most_waiting > MOST_SESSIONS {
            return wrong("session.most_waiting", "must be at most 1000");
        }
        if !(self.sandbox.cpus > 0.0 && self.sandbox.cpus <= 1024.0) {
            return wrong("sandbox.cpus", "must be above 0 and at most 1024");
        }
        if self.sandbox.memory_bytes < LEAST_MEMORY {
            return wrong("sandbox.memory_bytes", "must be at least 67108864 (64 MiB)");
        }
        if self.sandbox.pids < 16 {
            return wrong("sandbox.pids", "must be at least 16");
        }
        if self.disk.workspace_files == 0 {
            return wrong("disk.workspace_files", "must not be 0");
        }
        if self.sandbox.workspace_bytes == 0 {
            return wrong("sandbox.workspace_bytes", "must not be 0");
        }
        walls::check(self)?;
        saved::check(self)?;
        if !self.session.branch.contains("{session}") {
            return wrong(
                "session.branch",
                "must contain {session}, so that each session has its own branch",
            );
        }
        if let Some((key, detail)) = self.egress.wrong() {
            return wrong(key, &detail);
        }
        if let Some(name) = &self.default_agent
            && !self.agents.contains_key(name)
        {
            return wrong("default_agent", "names an agent that [agents] does not have");
        }
        for (name, agent) in &self.agents {
            if agent.command.is_empty() {
                return wrong(&format!("agents.{name}.command"), "must not be empty");
            }
            if agent.protocol == agent::Protocol::Command && agent.permissions == agent::ask::Permissions::Ask {
                return wrong(
                    &format!("agents.{name}.permissions"),
                    "must not be \"ask\" where protocol is \"command\": a plain command has no way to ask",
                );
            }
            if session::identity::parse(&agent.co_author).is_none() {
                return wrong(
                    &format!("agents.{name}.co_author"),
                    "must look like `Name <address@example.org>`",
                );
            }
            if let Some(model) = &agent.model
                && !self.models.contains_key(model)
            {
                return wrong(
                    &format!("agents.{name}.model"),
                    "names a model endpoint that [models] does not have",
                );
            }
            if let Some(set_up) = &agent.set_up {
                if let Err((key, rule)) = set_up.check() {
                    return wrong(&format!("agents.{name}.set_up.{key}"), rule);
                }
                if set_up.timeout_s == 0 || set_up.timeout_s > LONGEST_S {
                    return wrong(
                        &format!("agents.{name}.set_up.timeout_s"),
                        "must be a number of seconds that is not 0, and at most 30 days",
                    );
                }
            }
            if agent.start_timeout_s == 0 || agent.start_timeout_s > LONGEST_S {
                return wrong(
                    &format!("agents.{name}.start_timeout_s"),
                    "must be a number of seconds that is not 0, and at most 30 days",
                );
            }
            if agent.command.first().is_none_or(String::is_empty)
                || agent.command.iter().any(|word| word.contains('\0'))
            {
                return wrong(
                    &format!("agents.{name}.command"),
                    "must begin with a program and hold no NUL",
                );
            }
            for (variable, value) in &agent.environment {
                let odd = variable.is_empty() || variable.contains(['=', '\0']) || value.contains('\0');
                if odd {
                    return wrong(
                        &format!("agents.{name}.environment"),
                        "names are not empty, and neither they nor values hold '=' in the name or a NUL",
                    );
                }
            }
            if agent.instructions.len() > 16 || !agent.instructions.iter().all(|path| is_instruction(path)) {
                return wrong(
                    &format!("agents.{name}.instructions"),
                    "must be at most 16 paths within a project, the last part of each a name or `*` and an ending, such as `docs/*.md`",
                );
            }
            for path in agent.files.keys() {
                let inside = !path.starts_with('/') && !path.split('/').any(|part| part.is_empty() || part == "..");
                if !inside {
                    return wrong(
                        &format!("agents.{name}.files"),
                        "paths are relative to the home directory and stay in it",
                    );
                }
            }
        }
        for (name, model) in &self.models {
            let plain = !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if !plain {
                return wrong(&format!("models.{name}"), "names are a-z, 0-9 and '-'");
            }
            let address = url::Url::parse(&model.url).ok().filter(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.query().is_none()
                    && url.fragment().is_none()
            });
            if address.is_none() {
                return wrong(
                    &format!("models.{name}.url"),
                    "must be an http or https address without user, query and fragment",
                );
            }
            if model.budget_tokens == Some(0) {
                return wrong(
                    &format!("models.{name}.budget_tokens"),
                    "must not be 0: leave it out for no limit",
                );
            }
            if model.key_env.is_some() && model.key_file.is_some() {
                return wrong(&format!("models.{name}"), "has both key_env and key_file: keep one");
            }
        }
        Ok(())
    }
}

/// Whether it names a file of a project, or files of one directory by their ending.
fn is_instruction(path: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_control);
    let (above, last) = path
        .rsplit_once('/')
        .map_or((None, path), |(above, last)| (Some(above), last));
    let ending = last.strip_prefix('*').filter(|_| above.is_some()).unwrap_or(last);
    let above = above.into_iter().flat_map(|above| above.split('/'));
    above.chain([ending]).all(|part| is_part(part) && !part.contains('*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(
            Some(file.path()),
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        )
    }

    #[test]
    fn defaults_are_a_configuration() {
        assert_eq!(Config::load(None, []).unwrap().concurrency, 4);
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let config = load(
            "concurrency = 2\n[sandbox]\ncpus = 1.0",
            &[
                ("COFFERDAM__CONCURRENCY", "7"),
                ("COFFERDAM__SANDBOX__CPUS", "3.5"),
                ("OTHER", "x"),
                ("COFFERDAM__WORKER", "w1"),
            ],
        )
        .unwrap();
        assert_eq!(
            (config.concurrency, config.sandbox.cpus, config.worker.as_deref()),
            (7, 3.5, Some("w1"))
        );
    }

    #[test]
    fn every_mistake_names_its_key() {
        let says = |text: &str| load(text, &[]).unwrap_err().to_string();
        for (text, key, nearest) in [
            ("concurency = 1", "key concurency:", "`concurrency`"),
            ("[sandbox]\ncpu = 1.0", "key sandbox.cpu:", "`cpus`"),
            ("[sandbx]\ncpus = 1.0", "key sandbx:", "`sandbox`"),
            ("[queue]\nprefx = \"x\"", "queue", "`prefix`"),
        ] {
            let said = says(text);
            assert!(
                said.contains(key) && said.contains(&format!("did you mean {nearest}?")),
                "{said}"
            );
        }
        // Nothing is near: all are named.
        let said = says("[sandbox]\nzzzzzzzz = 1");
        assert!(
            said.contains("sandbox.zzzzzzzz") && said.contains("`cpus`") && !said.contains("did you mean"),
            "{said}"
        );
        assert!(says("[sandbox]\ncpus = \"x\"").contains("sandbox.cpus"));
        assert!(says("state_dir = \"relative\"").contains("state_dir"));
        assert!(says("[sandbox]\nuid = 0").contains("sandbox.uid"));
        assert!(says("= 1").contains("not TOML"));
        for bad in [
            "[connections.lab]\ncredential = \"Opaque7Canary9Tok\"",
            "[connections.lab]\nforge = \"Opaque7Canary9Tok\"",
            "[connections]\nlab = \"Opaque7Canary9Tok\"",
            "[connections.lab]\nforge = \"gitlab\"\ncredential = { plain = \"Opaque7Canary9Tok\" \nx",
            "credentials = \"Opaque7Canary9Tok\"",
        ] {
            assert!(!says(bad).contains("Canary"), "{}", says(bad));
        }
        assert!(says("default_agent = \"x\"").contains("default_agent"));
        let agent = "[agents.a]\nimage = \"i\"\ncommand = [\"c\"]\nco_author = \"A <a@b.c>\"\n";
        assert!(load(agent, &[]).is_ok());
        assert!(says(&agent.replace("[\"c\"]", "[]")).contains("agents.a.command"));
        assert!(says(&agent.replace("A <a@b.c>", "A")).contains("co_author"));
        assert!(says(&format!("{agent}model = \"m\"")).contains("agents.a.model"));
        assert!(load(&format!("{agent}permissions = \"ask\""), &[]).is_ok());
        let cannot_ask = format!("{agent}permissions = \"ask\"\nprotocol = \"command\"");
        assert!(says(&cannot_ask).contains("agents.a.permissions"));
        assert!(says(&format!("{agent}files = {{ \"../x\" = \"\" }}")).contains("agents.a.files"));
        for (section, key, value) in [
            ("session", "turn_s", "9223372036854775807"),
            ("session", "idle_s", "0"),
            ("sandbox", "cpus", "nan"),
            ("sandbox", "cpus", "-1.0"),
            ("sandbox", "memory_bytes", "-1"),
            ("sandbox", "pids", "0"),
        ] {
            let said = says(&format!("[{section}]\n{key} = {value}"));
            assert!(said.contains(&format!("{section}.{key}")), "{said}");
        }
        assert!(says(&format!("{agent}environment = {{ \"A=B\" = \"\" }}")).contains("agents.a.environment"));
        for url in ["ftp://x", "https://u:p@x", "https://x/?key=1", "x"] {
            assert!(
                says(&format!("[models.m]\nurl = \"{url}\"")).contains("models.m.url"),
                "{url}"
            );
        }
        for bad in [
            "/AGENTS.md",
            "../AGENTS.md",
            "a//b",
            "*.md",
            "a/*",
            "a*/b.md",
            "a/b*.md",
            "",
            "a/*b*.md",
        ] {
            let said = says(&format!("{agent}instructions = [\"{bad}\"]"));
            assert!(said.contains("agents.a.instructions"), "{bad}: {said}");
        }
        assert!(load(&format!("{agent}instructions = [\"a/b.md\", \".a/*.md\", \"c\"]"), &[]).is_ok());
        assert!(says("[egress]\nmost = \"all\"").contains("egress.most"));
        assert!(says("[egress]\ndefault = \"open\"").contains("egress.default"));
        assert!(says("[egress]\nallow_private = [\"10.0.0.1\"]").contains("egress.allow_private"));
        assert_eq!(load("worker = \"!\"", &[]).unwrap().worker_name(), "worker");
        assert!(says("[session]\nbranch = \"x\"").contains("session.branch"));
    }
}
