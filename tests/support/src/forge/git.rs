//! The bare repositories of the test forge, read and written with git's own program.
//!
//! Never keeps a branch head in memory: what git says now is the truth.

pub(crate) mod commits;
pub(crate) mod diff;
pub(crate) mod import;
mod refs;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::seed::Side;

/// Why git could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The program did not start or broke off.
    #[error("git {act}: {source}")]
    Run {
        /// Its subcommand.
        act: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("git {act}: {stderr}")]
    Refused {
        /// Its subcommand.
        act: String,
        /// What it printed.
        stderr: String,
    },
    /// It printed something else than asked.
    #[error("git {act}: answer not understood")]
    Parse {
        /// Its subcommand.
        act: &'static str,
    },
}

/// One bare repository.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    directory: PathBuf,
    /// Set while a push is judged: where git keeps the objects that are not accepted yet.
    quarantine: Vec<(String, String)>,
}

/// git's server for HTTP, without the git that would only start it.
pub(crate) fn http_backend() -> Command {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let place = PLACE.get_or_init(|| {
        let said = std::process::Command::new("git").arg("--exec-path").output();
        let directory = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
        Path::new(&directory.unwrap_or_default()).join("git-http-backend")
    });
    clear(Command::new(place))
}

/// A git command with nothing of the surroundings in it.
pub(crate) fn command() -> Command {
    clear(Command::new("git"))
}

fn clear(mut command: Command) -> Command {
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

impl Repository {
    /// Creates an empty bare repository, set up as the forge of that side does it.
    pub(crate) async fn create(
        directory: PathBuf,
        side: Side,
        default_branch: &str,
        hooks: &Path,
    ) -> Result<Self, GitError> {
        let branch = format!("--initial-branch={default_branch}");
        let arguments: [&OsStr; 5] = [
            "init".as_ref(),
            "--bare".as_ref(),
            "--quiet".as_ref(),
            branch.as_ref(),
            directory.as_os_str(),
        ];
        finish("init", command().args(arguments)).await?;
        let repository = Self {
            directory,
            quarantine: Vec::new(),
        };
        repository.configure(side, hooks).await?;
        Ok(repository)
    }

    /// Copies a bare repository that somebody prepared.
    pub(crate) async fn copy(from: &Path, directory: PathBuf, side: Side, hooks: &Path) -> Result<Self, GitError> {
        let arguments: [&OsStr; 5] = [
            "clone".as_ref(),
            "--mirror".as_ref(),
            "--quiet".as_ref(),
            from.as_os_str(),
            directory.as_os_str(),
        ];
        finish("clone", command().args(arguments)).await?;
        let repository = Self {
            directory,
            quarantine: Vec::new(),
        };
        repository.git(&["remote", "remove", "origin"]).await?;
        repository.configure(side, hooks).await?;
        Ok(repository)
    }

    async fn configure(&self, side: Side, hooks: &Path) -> Result<(), GitError> {
        let (options, hidden) = match side {
            Side::Gitlab => ("true", "refs/merge-requests"),
            Side::Github => ("false", "refs/pull"),
        };
        let text = format!(
            "[core]\n\tlogAllRefUpdates = false\n\talternateRefsCommand = true\n[gc]\n\tauto = 0\n[http]\n\treceivepack = true\n\
             [receive]\n\tautogc = false\n\tfsckObjects = true\n\tadvertisePushOptions = {options}\n\
             \thideRefs = {hidden}\n[uploadpack]\n\tallowFilter = true\n\tallowAnySHA1InWant = true\n"
        );
        let failed = |source| GitError::Run {
            act: "config".to_owned(),
            source,
        };
        let path = self.directory.join("config");
        let mut file = std::fs::File::options().append(true).open(path).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        // A path may need quoting: git does that.
        self.git(&["config", "core.hooksPath", &hooks.to_string_lossy()])
            .await?;
        Ok(())
    }

    /// The same repository, with the objects of a push that is not accepted yet.
    pub(crate) fn with_quarantine(&self, objects: &str, alternates: &str) -> Self {
        let quarantine = [
            ("GIT_OBJECT_DIRECTORY", objects),
            ("GIT_ALTERNATE_OBJECT_DIRECTORIES", alternates),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        Self {
            directory: self.directory.clone(),
            quarantine,
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn at_home(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        command.arg("--git-dir").arg(&self.directory).args(arguments);
        command.envs(self.quarantine.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Runs git and returns what it printed; an exit other than 0 is an error.
    pub(crate) async fn git(&self, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        finish(arguments.first().unwrap_or(&""), &mut self.at_home(arguments)).await
    }

    /// Runs git for its exit: `Some(output)` for 0, `None` for 1, else an error.
    pub(crate) async fn ask(&self, arguments: &[&str]) -> Result<Option<Vec<u8>>, GitError> {
        let act = arguments.first().copied().unwrap_or_default();
        let output = output(act, &mut self.at_home(arguments)).await?;
        match output.status.code() {
            Some(0) => Ok(Some(output.stdout)),
            Some(1) => Ok(None),
            Some(_) | None => Err(refused(act, &output)),
        }
    }

    /// Runs git with something on its standard input.
    pub(crate) async fn feed(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, GitError> {
        let act = arguments.first().copied().unwrap_or_default();
        let run = |source| GitError::Run {
            act: act.to_owned(),
            source,
        };
        let mut command = self.at_home(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(run)?;
        let stdin = child.stdin.take();
        let write = async move {
            if let Some(mut stdin) = stdin {
                stdin.write_all(input).await?;
                stdin.shutdown().await?;
            }
            Ok::<(), std::io::Error>(())
        };
        let (written, output) = tokio::join!(write, child.wait_with_output());
        let output = output.map_err(run)?;
        if !output.status.success() {
            return Err(refused(act, &output));
        }
        written.map_err(run)?;
        Ok(output.stdout)
    }

    /// All refs: full name to object id.
    pub(crate) async fn refs(&self) -> Result<BTreeMap<String, String>, GitError> {
        let directory = self.directory.clone();
        let read = tokio::task::spawn_blocking(move || refs::read(&directory)).await;
        let failed = |source| GitError::Run {
            act: "for-each-ref".to_owned(),
            source,
        };
        read.map_err(|error| failed(std::io::Error::other(error)))?
            .map_err(failed)
    }

    /// Branches: short name to head.
    pub(crate) async fn branches(&self) -> Result<BTreeMap<String, String>, GitError> {
        let refs = self.refs().await?;
        let heads = refs
            .into_iter()
            .filter_map(|(name, sha)| Some((name.strip_prefix("refs/heads/")?.to_owned(), sha)));
        Ok(heads.collect())
    }

    /// The commit that a name or an id stands for.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Option<String>, GitError> {
        if name.is_empty() || name.starts_with('-') {
            return Ok(None);
        }
        let spec = format!("{name}^{{commit}}");
        let found = self
            .at_home(&["rev-parse", "--verify", "--quiet", "--end-of-options", &spec])
            .output()
            .await;
        let found = found.map_err(|source| GitError::Run {
            act: "rev-parse".to_owned(),
            source,
        })?;
        // Not found, ambiguous and malformed are one to the caller.
        Ok(found
            .status
            .success()
            .then(|| String::from_utf8_lossy(&found.stdout).trim().to_owned()))
    }

    pub(crate) async fn set_ref(&self, name: &str, sha: &str) -> Result<(), GitError> {
        self.git(&["update-ref", name, sha]).await.map(drop)
    }

    pub(crate) async fn merge_base(&self, one: &str, other: &str) -> Result<Option<String>, GitError> {
        let found = self.ask(&["merge-base", one, other]).await?;
        Ok(found.map(|text| String::from_utf8_lossy(&text).trim().to_owned()))
    }

    pub(crate) async fn is_ancestor(&self, old: &str, new: &str) -> Result<bool, GitError> {
        Ok(self.ask(&["merge-base", "--is-ancestor", old, new]).await?.is_some())
    }

    /// Merges `source` into the branch `target` as a forge's button does; `None` if they conflict.
    pub(crate) async fn merge(&self, target: &str, source: &str, message: &str) -> Result<Option<String>, GitError> {
        let base = format!("refs/heads/{target}");
        let Some(tree) = self.ask(&["merge-tree", "--write-tree", &base, source]).await? else {
            return Ok(None);
        };
        let tree = String::from_utf8_lossy(&tree);
        let identity = ["-c", "user.name=Test Forge", "-c", "user.email=forge@example.org"];
        let commit = ["commit-tree", tree.trim(), "-p", &base, "-p", source, "-m", message];
        let made = self.git(&[&identity[..], &commit[..]].concat()).await?;
        let made = String::from_utf8_lossy(&made).trim().to_owned();
        self.set_ref(&base, &made).await?;
        Ok(Some(made))
    }

    /// Whether `source` merges into `target` without a conflict.
    pub(crate) async fn merges(&self, target: &str, source: &str) -> Result<bool, GitError> {
        let arguments = [
            "merge-tree",
            "--write-tree",
            "--allow-unrelated-histories",
            target,
            source,
        ];
        Ok(self.ask(&arguments).await?.is_some())
    }
}

async fn output(act: &str, command: &mut Command) -> Result<Output, GitError> {
    command.output().await.map_err(|source| GitError::Run {
        act: act.to_owned(),
        source,
    })
}

async fn finish(act: &str, command: &mut Command) -> Result<Vec<u8>, GitError> {
    let output = output(act, command).await?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(refused(act, &output))
    }
}

fn refused(act: &str, output: &Output) -> GitError {
    GitError::Refused {
        act: act.to_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    }
}
