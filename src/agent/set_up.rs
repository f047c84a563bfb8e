//! How an agent's workspace is set up before the agent sees it. The operator's word alone: no task and no feature branch reaches any of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

/// Longest script, in bytes: it has to fit an order to the sandbox.
pub const LONGEST_SCRIPT: usize = 256 * 1024;

/// A script that runs in a sandbox of its own before the agent's starts. Only the workspace carries over.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The script. It runs in each project's directory, with the project's default branch checked out.
    #[serde(default)]
    pub script: Option<String>,
    /// In place of `script`: the path of a file in each project, read from the project's default branch. A project without it is left alone.
    #[serde(default)]
    pub from_default_branch: Option<String>,
    /// What the script finds in its environment, by the variable's name. The agent never does.
    #[serde(default)]
    pub secrets: BTreeMap<String, Source>,
    /// The projects that are set up, by their web address; one that ends in `/` stands for all below it. All projects when empty, which
    /// secrets do not allow: whoever owns a project would be given them, because a script calls what the project holds.
    #[serde(default)]
    pub projects: Vec<String>,
    /// Time limit of the script in one project, in seconds.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: u64,
    /// The image; the agent's when absent.
    #[serde(default)]
    pub image: Option<String>,
}

fn default_timeout_s() -> u64 {
    10 * 60
}

/// Where a secret comes from.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// A variable of the worker.
    Env(String),
    /// A file on the worker.
    File(PathBuf),
}

impl Config {
    /// What is wrong with it: the key below `set_up`, and the rule.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match (&self.script, &self.from_default_branch) {
            (Some(_), Some(_)) | (None, None) => {
                return Err(("script", "needs either script or from_default_branch, and not both"));
            }
            (Some(script), None) if script.len() > LONGEST_SCRIPT || script.contains('\0') => {
                return Err(("script", "must be at most 256 KiB and hold no NUL"));
            }
            (None, Some(path)) if !is_plain_path(path) => {
                return Err((
                    "from_default_branch",
                    "must be a path below the project's root, without . and ..",
                ));
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        let is_name = |name: &str| {
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
        };
        if !self.secrets.keys().all(|name| is_name(name)) {
            return Err(("secrets", "names of variables are letters, digits and _"));
        }
        // The operator's own script calls what the project holds: build files, hooks of package managers.
        if self.projects.is_empty() && !self.secrets.is_empty() {
            return Err((
                "projects",
                "must name the projects whose default branch may be given the secrets",
            ));
        }
        Ok(())
    }

    /// Whether the project at this address is set up.
    #[must_use]
    pub fn covers(&self, address: &str) -> bool {
        self.projects.is_empty()
            || self
                .projects
                .iter()
                .any(|known| address == known || (known.ends_with('/') && address.starts_with(known.as_str())))
    }
}

fn is_plain_path(path: &str) -> bool {
    path.len() <= 1024
        && !path.contains('\0')
        && path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn every_mistake_names_its_key() {
        let says = |text: &str| read(text).check().unwrap_err().0;
        assert_eq!(says(""), "script");
        assert_eq!(says("script = \"x\"\nfrom_default_branch = \"x\""), "script");
        assert_eq!(says("script = \"\\u0000\""), "script");
        for path in ["/etc/passwd", "../x", "a//b", "a/./b", ""] {
            assert_eq!(
                says(&format!("from_default_branch = \"{path}\"")),
                "from_default_branch"
            );
        }
        let secret = "secrets = { KEY = { env = \"X\" } }\n";
        assert_eq!(says(&format!("{secret}from_default_branch = \"x\"")), "projects");
        // The script calls what the project holds: whoever owns one would be given the secrets.
        assert_eq!(says(&format!("{secret}script = \"x\"")), "projects");
        for name in ["1A", "A-B", "\"\"", "\"A=B\""] {
            assert_eq!(
                says(&format!("script = \"x\"\nsecrets = {{ {name} = {{ env = \"X\" }} }}")),
                "secrets"
            );
        }
        for good in [
            "script = \"x\"".to_owned(),
            format!("{secret}script = \"x\"\nprojects = [\"https://f.example/team/\"]"),
            "from_default_branch = \".cofferdam/set-up.sh\"".to_owned(),
            format!("{secret}from_default_branch = \"x\"\nprojects = [\"https://f.example/team/\"]"),
        ] {
            assert_eq!(read(&good).check(), Ok(()), "{good}");
        }
        assert!(toml::from_str::<Config>("script = \"x\"\nsecrets = { A = { plain = \"x\" } }").is_err());
    }

    #[test]
    fn projects_are_covered_by_whole_names() {
        let config = read("script = \"x\"\nprojects = [\"https://f.example/team/\", \"https://f.example/one\"]");
        for (address, covered) in [
            ("https://f.example/team/a", true),
            ("https://f.example/teams/a", false),
            ("https://f.example/one", true),
            ("https://f.example/one-more", false),
            ("https://evil.example/team/a", false),
        ] {
            assert_eq!(config.covers(address), covered, "{address}");
        }
        assert!(read("script = \"x\"").covers("anything"));
    }
}
