//! A git repository for tests, with the built binary as its hooks. It reads no configuration of the machine.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::gateway::INSIDE;

pub(crate) const TRAILERS: &str =
    "Co-authored-by: Zoë Úser <user@example.org>\nCo-authored-by: Agent <agent@example.org>\nCofferdam-Session: 1f3a\n";

pub(crate) struct Repository {
    directory: tempfile::TempDir,
    pub(crate) variables: Vec<(String, String)>,
}

impl Repository {
    /// With the hooks, as in a sandbox.
    pub(crate) fn with_hooks() -> Self {
        let repository = Self::without_hooks();
        let hooks = repository.path("hooks");
        fs::create_dir(&hooks).unwrap();
        for name in ["prepare-commit-msg", "commit-msg", "applypatch-msg"] {
            symlink(INSIDE, hooks.join(name)).unwrap();
        }
        repository.git(&["config", "core.hooksPath", hooks.to_str().unwrap()]);
        repository
    }

    pub(crate) fn without_hooks() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let repository = Self {
            directory,
            variables: Vec::new(),
        };
        fs::create_dir(repository.path("work")).unwrap();
        fs::write(repository.path("trailers"), TRAILERS).unwrap();
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository.git(&["config", "user.name", "Session"]);
        repository.git(&["config", "user.email", "session@example.org"]);
        repository
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path("work")).env_clear();
        command
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.directory.path())
            .env("GIT_CONFIG_NOSYSTEM", "1");
        command
            .env("COFFERDAM_TRAILERS", self.path("trailers"))
            .env("GIT_EDITOR", "true");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn try_git<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Output {
        self.command("git").args(arguments).output().unwrap()
    }

    pub(crate) fn git<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Vec<u8> {
        let output = self.try_git(arguments);
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{stdout}{stderr}");
        output.stdout
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.git(arguments)).unwrap().trim().to_owned()
    }

    pub(crate) fn inside(&self, arguments: &[&str]) -> Output {
        self.command(INSIDE).args(arguments).output().unwrap()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path("work").join(name), content).unwrap();
    }

    /// A commit of one changed file, with whatever arguments.
    pub(crate) fn commit(&self, name: &str, arguments: &[&str]) -> Output {
        self.write(name, &format!("{name} {arguments:?}\n"));
        self.git(&["add", "--all"]);
        self.try_git(&[&["commit", "--quiet"], arguments].concat())
    }

    pub(crate) fn message(&self, of: &str) -> String {
        let raw = self.git(&["cat-file", "commit", of]);
        let raw = String::from_utf8_lossy(&raw).into_owned();
        raw.split_once("\n\n").unwrap().1.to_owned()
    }

    /// An editor that replaces the message.
    pub(crate) fn edit_to(&mut self, message: &str) {
        fs::write(self.path("message"), message).unwrap();
        let script = format!("cp '{}'", self.path("message").display());
        self.set("GIT_EDITOR", &script);
    }
}
