//! The settings of sandboxes. Only operators reach them: no task has a field for any of these.
//!
//! Values only: nothing here asks the engine or reads a file.

use std::path::PathBuf;

use serde::Deserialize;

use super::kubernetes;

/// How sandboxes are made.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where sandboxes run: `docker`, on this machine; or `kubernetes`, a pod for each.
    pub backend: Backend,
    /// What only a cluster needs.
    pub kubernetes: kubernetes::config::Config,
    /// The engine's socket; `DOCKER_HOST` or the usual path when absent.
    pub docker_socket: Option<String>,
    /// The OCI runtime that the engine shall use; the engine's default when absent. An agent's or a tenant's own wins. A missing runtime
    /// fails, it is never replaced.
    pub runtime: Option<String>,
    /// The images that sandboxes may be made of: exact references, references with a digest, or beginnings that end in `*`. When empty,
    /// the images that the configuration's agents name.
    pub images: Vec<String>,
    /// Which system calls a sandbox may make: `ours`, `engine`, or the absolute path of a profile in the engine's JSON form.
    pub seccomp: Seccomp,
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
    /// How long pulling an image may take, in seconds.
    pub pull_timeout_s: u64,
    /// Time limit of one call to the engine, in seconds.
    pub call_timeout_s: u64,
    /// Sandboxes that are kept started and empty at most, so that a session finds one ready; 0: none. Each takes some 5 MB on `runc` and 15 MB on
    /// `runsc` while it waits. Only `cofferdam run` keeps any.
    pub warm: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Backend::Docker,
            kubernetes: kubernetes::config::Config::default(),
            docker_socket: None,
            runtime: None,
            images: Vec::new(),
            seccomp: Seccomp::Ours,
            inside: None,
            memory_bytes: 4 * 1024 * 1024 * 1024,
            cpus: 2.0,
            pids: 1024,
            workspace: Workspace::Tmpfs,
            workspace_bytes: 2 * 1024 * 1024 * 1024,
            uid: 1000,
            pull: false,
            pull_timeout_s: 15 * 60,
            call_timeout_s: 15,
            warm: 2,
        }
    }
}

/// Where sandboxes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// In containers of an engine on the worker's machine.
    Docker,
    /// In pods of a cluster.
    Kubernetes,
}

/// Where a workspace lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Workspace {
    /// In memory, bounded by `workspace_bytes`, counted against the sandbox's memory.
    Tmpfs,
    /// A directory of the worker's state, on disk.
    Directory,
}

/// Which profile of system calls a sandbox gets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Seccomp {
    /// The one that this program brings.
    Ours,
    /// The engine's own default.
    Engine,
    /// An operator's file, read at each start of a sandbox.
    File(PathBuf),
}

impl From<Seccomp> for String {
    fn from(profile: Seccomp) -> Self {
        match profile {
            Seccomp::Ours => "ours".to_owned(),
            Seccomp::Engine => "engine".to_owned(),
            Seccomp::File(path) => path.display().to_string(),
        }
    }
}

impl TryFrom<String> for Seccomp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "ours" => Ok(Self::Ours),
            "engine" => Ok(Self::Engine),
            path if path.starts_with('/') => Ok(Self::File(PathBuf::from(path))),
            other => Err(format!("{other:?} is neither `ours`, `engine` nor an absolute path")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_one_of_two_words_or_an_absolute_path_and_never_none() {
        let read = |text: &str| Seccomp::try_from(text.to_owned());
        assert_eq!(read("ours"), Ok(Seccomp::Ours));
        assert_eq!(read("engine"), Ok(Seccomp::Engine));
        assert_eq!(read("/etc/p.json"), Ok(Seccomp::File("/etc/p.json".into())));
        for wrong in ["", "unconfined", "none", "p.json", "../p.json"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Config::default().seccomp, Seccomp::Ours);
    }
}
