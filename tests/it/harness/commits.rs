//! A project of the forge, read by real git as any user would read it.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;

use super::Forge;

/// A clone.
pub(crate) struct Remote {
    directory: PathBuf,
}

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) id: String,
    pub(crate) author: String,
    pub(crate) committer: String,
    pub(crate) message: String,
    /// What git itself takes for trailers: the lines of the last block.
    pub(crate) trailers: Vec<String>,
}

impl Remote {
    pub(super) fn clone(forge: &Forge, connection: &str, path: &str, directory: &Path) -> Self {
        let user = if connection == "lab" {
            "oauth2:test-gitlab-api"
        } else {
            "x:test-github-repo"
        };
        let credential = base64::engine::general_purpose::STANDARD.encode(user);
        let header = format!("http.extraHeader=Authorization: Basic {credential}");
        git(
            Path::new("/"),
            &[
                "-c",
                &header,
                "clone",
                "--quiet",
                &forge.git_url(connection, path),
                directory.to_str().unwrap(),
            ],
        );
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Runs git in it.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        git(&self.directory, arguments)
    }

    /// The head of a branch.
    pub(crate) fn head(&self, branch: &str) -> String {
        self.git(&["rev-parse", &format!("origin/{branch}")]).trim().to_owned()
    }

    /// A file on a branch.
    pub(crate) fn file(&self, branch: &str, path: &str) -> String {
        self.git(&["show", &format!("origin/{branch}:{path}")])
    }

    /// The paths on a branch.
    pub(crate) fn paths(&self, branch: &str) -> Vec<String> {
        let listed = self.git(&["ls-tree", "-r", "--name-only", &format!("origin/{branch}")]);
        listed.lines().map(str::to_owned).collect()
    }

    /// The commits of a branch that another has not, oldest first.
    pub(crate) fn commits(&self, base: &str, branch: &str) -> Vec<Commit> {
        let format = "--format=%H%x00%an <%ae>%x00%cn <%ce>%x00%B%x00%(trailers:only,unfold)%x01";
        let range = format!("origin/{base}..origin/{branch}");
        let listed = self.git(&["log", "--reverse", format, &range]);
        let read = |entry: &str| {
            let parts: Vec<&str> = entry.trim_start_matches('\n').split('\0').collect();
            let &[id, author, committer, message, trailers] = parts.as_slice() else {
                panic!("git log printed {entry:?}");
            };
            Commit {
                id: id.to_owned(),
                author: author.to_owned(),
                committer: committer.to_owned(),
                message: message.to_owned(),
                trailers: trailers.lines().map(str::to_owned).collect(),
            }
        };
        listed
            .split('\u{1}')
            .filter(|entry| !entry.trim().is_empty())
            .map(read)
            .collect()
    }
}

/// Runs git, with none of the machine's own settings.
pub(crate) fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .expect("git is installed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
