//! The one place where git is run: a cleared environment, a time limit, bounded output, and a process group that dies with its caller.
//!
//! Never puts a credential into arguments, environment, address or file; never reads any configuration but what this room wrote;
//! never runs on a tree with files, only on bare repositories.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::RepositoryError;
use crate::secret::Mask;
use command_fds::{CommandFdExt as _, FdMapping};

mod child;
mod credential;
mod group;
mod output;

pub(crate) use child::{Ended, until_end};
pub(crate) use credential::Credential;
pub(crate) use group::Group;
pub(crate) use output::read_tail;

/// Where git's children find the lock that they share with the worker.
const LOCK_FD: i32 = 4;

/// Resource limits of one process and its children, set by the shell that starts it: there is no safe way to set them in a fork.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Address space in bytes.
    pub(crate) memory: u64,
    /// Memory of its own in bytes: not what it maps of packs.
    pub(crate) heap: u64,
    /// Largest file written, in bytes.
    pub(crate) file: u64,
    /// Processor time in seconds.
    pub(crate) processor_s: u64,
}

/// One run of git.
#[derive(Debug)]
pub(crate) struct Invocation {
    act: &'static str,
    limit: Duration,
    repository: Option<PathBuf>,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    network: Option<Network>,
    lock: Option<File>,
    limits: Option<Limits>,
    behind: Vec<OsString>,
    input: Vec<u8>,
    largest_output: usize,
}

#[derive(Debug)]
struct Network {
    credential: Credential,
    ca_file: Option<PathBuf>,
    mask: Mask,
}

/// What a run left.
#[derive(Debug)]
pub(crate) struct Finished {
    /// With what git exited; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it printed.
    pub(crate) stdout: Vec<u8>,
    /// The end of what it complained about, masked and without control characters.
    pub(crate) stderr: String,
}

impl Finished {
    /// Whether git exited with 0.
    pub(crate) fn success(&self) -> bool {
        self.code == Some(0)
    }
}

impl Invocation {
    /// A run that is to do `act` (a verb phrase for error texts) within `limit`.
    pub(crate) fn new(act: &'static str, limit: Duration) -> Self {
        Self {
            act,
            limit,
            repository: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            network: None,
            lock: None,
            limits: None,
            behind: Vec::new(),
            input: Vec::new(),
            largest_output: 1024 * 1024,
        }
    }

    /// On which bare repository.
    pub(crate) fn on(mut self, repository: &Path) -> Self {
        self.repository = Some(repository.to_owned());
        self
    }

    /// Further arguments.
    pub(crate) fn arguments<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(mut self, arguments: I) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// One more variable in the environment.
    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Lets it talk to the forge that the credential is for.
    pub(crate) fn network(mut self, credential: Credential, ca_file: Option<PathBuf>, mask: Mask) -> Self {
        self.network = Some(Network {
            credential,
            ca_file,
            mask,
        });
        self
    }

    /// Lets it hold a lock file as long as it lives: should the worker be killed, its git still keeps others out.
    pub(crate) fn holding(mut self, lock: File) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Limits what it may use.
    pub(crate) fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Has it started by a program that walls it in: these words, then git and its arguments.
    pub(crate) fn behind<I: IntoIterator<Item = A>, A: AsRef<OsStr>>(mut self, words: I) -> Self {
        self.behind
            .extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// How much of what it prints is read, in bytes.
    pub(crate) fn largest_output(mut self, bytes: usize) -> Self {
        self.largest_output = bytes;
        self
    }

    /// What it reads from its standard input.
    pub(crate) fn input(mut self, input: Vec<u8>) -> Self {
        self.input = input;
        self
    }
}

/// The git program.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    program: PathBuf,
}

impl Git {
    pub(crate) fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// Runs git to its end. Dropping the future kills the whole process group.
    pub(crate) async fn run(&self, mut invocation: Invocation) -> Result<Finished, RepositoryError> {
        let (act, limit, largest) = (invocation.act, invocation.limit, invocation.largest_output);
        let input = std::mem::take(&mut invocation.input);
        let mask = invocation
            .network
            .as_ref()
            .map_or_else(Mask::default, |network| network.mask.clone());
        let child = self.spawn(invocation)?;
        let Some(ended) = until_end(child, input, limit, largest).await else {
            return Err(RepositoryError::Timeout { act, limit });
        };
        let status = ended.status.map_err(|source| self.start_error(source))?;
        let Some(stdout) = ended.stdout else {
            return Err(RepositoryError::Answer { act, limit: largest });
        };
        Ok(Finished {
            code: status.code(),
            stdout,
            stderr: mask.apply(&ended.stderr),
        })
    }

    /// Starts git with pipes on all three streams.
    pub(crate) fn spawn(&self, invocation: Invocation) -> Result<tokio::process::Child, RepositoryError> {
        let mut words: Vec<&OsStr> = invocation.behind.iter().map(OsString::as_os_str).collect();
        words.push(self.program.as_os_str());
        let mut command = match (invocation.limits, words.split_first()) {
            (None, Some((first, rest))) => {
                let mut command = std::process::Command::new(first);
                command.args(rest);
                command
            }
            (Some(limits), _) => {
                let mut shell = std::process::Command::new("/bin/sh");
                shell.arg("-c").arg(limits.script()).arg("sh").args(&words);
                shell
            }
            (None, None) => std::process::Command::new(&self.program),
        };
        clear_environment(&mut command);
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_PROTOCOL_FROM_USER", "0")
            .env("GIT_ALLOW_PROTOCOL", "http:https")
            .env("GIT_NO_LAZY_FETCH", "1");
        for (name, value) in &invocation.environment {
            command.env(name, value);
        }
        let mut descriptors = Vec::new();
        if let Some(network) = invocation.network {
            for (key, value) in network.settings(invocation.limit) {
                command.arg("-c").arg(format!("{key}={value}"));
            }
            if let Some(ca_file) = &network.ca_file {
                let mut setting = OsString::from("http.sslCAInfo=");
                setting.push(ca_file);
                command.arg("-c").arg(setting);
            }
            for name in ["https_proxy", "HTTPS_PROXY", "http_proxy", "no_proxy", "NO_PROXY"] {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
            descriptors.push(FdMapping {
                parent_fd: network.credential.into_descriptor(),
                child_fd: credential::CREDENTIAL_FD,
            });
        }
        if let Some(lock) = invocation.lock {
            descriptors.push(FdMapping {
                parent_fd: OwnedFd::from(lock),
                child_fd: LOCK_FD,
            });
        }
        if let Some(repository) = &invocation.repository {
            let mut directory = OsString::from("--git-dir=");
            directory.push(repository);
            command.arg(directory).current_dir(repository);
        }
        command
            .args(&invocation.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        // Whoever passes descriptors is forked with all its pages; the others are not, which is much of what a short git costs.
        if !descriptors.is_empty() {
            command
                .fd_mappings(descriptors)
                .map_err(|_| self.start_error(std::io::Error::other("two files for one descriptor")))?;
        }
        tokio::process::Command::from(command)
            .spawn()
            .map_err(|source| self.start_error(source))
    }

    fn start_error(&self, source: std::io::Error) -> RepositoryError {
        RepositoryError::StartGit {
            program: self.program.clone(),
            source,
        }
    }
}

impl Network {
    /// The settings under which git may leave the machine. The credential is bound to one origin and redirects are not followed, so the
    /// token goes to that host or nowhere.
    fn settings(&self, limit: Duration) -> Vec<(String, String)> {
        let setting = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        vec![
            setting("credential.helper", ""),
            (self.credential.helper_key(), self.credential.helper()),
            setting("credential.interactive", "false"),
            // Shows the credential at once where git knows how (2.46), instead of asking once without it for a refusal.
            setting("http.proactiveAuth", "basic"),
            setting("http.followRedirects", "false"),
            setting("transfer.credentialsInUrl", "die"),
            // A git whose worker was killed must not wait for a silent forge for ever: it may hold a mirror's lock.
            setting("http.lowSpeedLimit", "1"),
            setting("http.lowSpeedTime", &limit.as_secs().max(1).to_string()),
        ]
    }
}

impl Limits {
    /// Sets the limits, then becomes the program. A limit that is lower already stays.
    fn script(self) -> String {
        format!(
            "ulimit -c 0; ulimit -v {}; ulimit -d {}; ulimit -f {}; ulimit -t {}; exec \"$@\"",
            self.memory / 1024,
            self.heap.min(self.memory) / 1024,
            self.file.div_ceil(512),
            self.processor_s
        )
    }
}

/// Starts this program as the child that reads what an agent made: without this process's environment, and as the leader of a group.
///
/// # Errors
/// It cannot be started.
pub(super) fn start_reader(
    internal: &[String],
    arguments: &[&OsStr],
) -> Result<tokio::process::Child, RepositoryError> {
    let (program, first) = internal.split_first().ok_or_else(|| RepositoryError::Inspect {
        text: "no command was given for it".to_owned(),
    })?;
    let mut command = std::process::Command::new(program);
    clear_environment(&mut command);
    command
        .args(first)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    tokio::process::Command::from(command)
        .spawn()
        .map_err(RepositoryError::state("start", program.as_ref()))
}

/// What every child of this room starts with.
pub(crate) fn clear_environment(command: &mut std::process::Command) {
    command
        .env_clear()
        .env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")),
        )
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C");
}
