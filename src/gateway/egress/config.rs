//! What an operator says of the way out: the highest level, the package hosts, exceptions and limits; and from it what a session is granted.
//! Values only.

use serde::Deserialize;

use crate::grant::Egress;
use crate::grant::egress::address::Excepted;
use crate::message::{EgressLevel, EgressRequest, EgressRule, HostPattern};

/// The hosts of the level `registries`, by what they serve. Their write sides are other hosts, except where the README says so.
pub const REGISTRIES: &[&str] = &[
    // Rust
    "index.crates.io",
    "static.crates.io",
    "static.rust-lang.org",
    // JavaScript
    "registry.npmjs.org",
    "registry.yarnpkg.com",
    // Python
    "pypi.org",
    "files.pythonhosted.org",
    // Go
    "proxy.golang.org",
    "sum.golang.org",
    // Java
    "repo.maven.apache.org",
    "repo1.maven.org",
    "plugins.gradle.org",
    "plugins-artifacts.gradle.org",
    // Ruby
    "rubygems.org",
    "index.rubygems.org",
    // PHP
    "repo.packagist.org",
    // .NET
    "api.nuget.org",
    // Debian, Ubuntu, Alpine
    "deb.debian.org",
    "security.debian.org",
    "archive.ubuntu.com",
    "security.ubuntu.com",
    "dl-cdn.alpinelinux.org",
];

/// The way out of sandboxes.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The highest level that a task may ask for: "connections", "registries", "custom" or "open". A task that asks for more is refused.
    pub most: EgressLevel,
    /// The level of tasks that ask for none; not "custom", and not above `most`.
    pub default: EgressLevel,
    /// The package hosts of the level "registries", in place of the built-in list.
    pub registries: Option<Vec<HostPattern>>,
    /// Package hosts beside those.
    pub more_registries: Vec<HostPattern>,
    /// What the lists of tasks may hold at most at the level "custom"; anything when empty.
    pub allow: Vec<EgressRule>,
    /// Networks ("10.1.0.0/16") and hosts ("registry.internal", ".internal") that may be private. For loopback only a network counts.
    pub allow_private: Vec<Excepted>,
    /// Connections of one session at a time, 1 to 256.
    pub connections: usize,
    /// Time to find and reach a host, in seconds.
    pub connect_timeout_s: u64,
    /// Time without a byte after which a connection is closed, in seconds.
    pub idle_timeout_s: u64,
    /// Longest time of one connection, in seconds.
    pub total_timeout_s: u64,
    /// Bytes that one session may send to one host.
    pub upload_bytes: u64,
    /// Bytes that one session may receive from one host.
    pub download_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            most: EgressLevel::Connections,
            default: EgressLevel::Connections,
            registries: None,
            more_registries: Vec::new(),
            allow: Vec::new(),
            allow_private: Vec::new(),
            connections: 64,
            connect_timeout_s: 15,
            idle_timeout_s: 120,
            total_timeout_s: 3600,
            upload_bytes: 32 * 1024 * 1024,
            download_bytes: 8 * 1024 * 1024 * 1024,
        }
    }
}

/// Why a task's wish for a way out is not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// Above the highest level.
    #[error(
        "the task asks for the egress level \"{asked}\", and the highest of this worker is \"{most}\": ask for less, or let the operator raise egress.most"
    )]
    Level {
        /// What the task asks for.
        asked: EgressLevel,
        /// The operator's word.
        most: EgressLevel,
    },
    /// A host beyond the operator's list.
    #[error(
        "the task's egress.allow has {host}, and this worker's egress.allow does not cover it with these ports and methods: drop it, or let the operator add it"
    )]
    Host {
        /// The pattern.
        host: HostPattern,
    },
}

impl Config {
    /// What a session gets.
    ///
    /// # Errors
    /// The task asks for more than the operator allows.
    pub fn grant(&self, asked: Option<&EgressRequest>) -> Result<Egress, NotGranted> {
        let level = asked.map_or(self.default, |asked| asked.level);
        if level > self.most {
            return Err(NotGranted::Level {
                asked: level,
                most: self.most,
            });
        }
        let rules = match level {
            EgressLevel::Connections | EgressLevel::Open => Vec::new(),
            EgressLevel::Registries => self.registries().into_iter().map(EgressRule::of).collect(),
            EgressLevel::Custom => asked.map(|asked| asked.allow.clone()).unwrap_or_default(),
        };
        let beyond = |rule: &&EgressRule| !self.allow.is_empty() && !self.allow.iter().any(|wide| wide.covers(rule));
        if level == EgressLevel::Custom
            && let Some(rule) = rules.iter().find(beyond)
        {
            return Err(NotGranted::Host {
                host: rule.host.clone(),
            });
        }
        Ok(Egress::new(level, rules))
    }

    /// The package hosts.
    fn registries(&self) -> Vec<HostPattern> {
        let built_in = || REGISTRIES.iter().filter_map(|host| host.parse().ok()).collect();
        let mut hosts: Vec<HostPattern> = self.registries.clone().unwrap_or_else(built_in);
        hosts.extend(self.more_registries.iter().cloned());
        hosts
    }

    /// The key that is wrong, and what it must be.
    #[must_use]
    pub fn wrong(&self) -> Option<(&'static str, String)> {
        if self.default > self.most {
            return Some(("egress.default", "must not be above egress.most".to_owned()));
        }
        if self.default == EgressLevel::Custom {
            return Some((
                "egress.default",
                "must not be \"custom\", which needs the list of a task".to_owned(),
            ));
        }
        if let Some(detail) = self.allow.iter().find_map(EgressRule::wrong) {
            return Some(("egress.allow", detail.to_owned()));
        }
        if !(1..=super::MOST_CONNECTIONS).contains(&self.connections) {
            return Some(("egress.connections", "must be 1 to 256".to_owned()));
        }
        let seconds = [
            ("egress.connect_timeout_s", self.connect_timeout_s),
            ("egress.idle_timeout_s", self.idle_timeout_s),
            ("egress.total_timeout_s", self.total_timeout_s),
        ];
        let wrong = seconds.into_iter().find(|(_, value)| !(1..=86_400).contains(value));
        wrong.map(|(key, _)| (key, "must be 1 to 86400 seconds".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::egress::Way;

    fn asked(text: &str) -> EgressRequest {
        serde_json::from_str(text).unwrap()
    }

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn nothing_is_granted_unasked_and_nothing_above_the_operators_word() {
        let closed = Config::default();
        assert_eq!(closed.grant(None).unwrap(), Egress::connections());
        let said = closed
            .grant(Some(&asked(r#"{"level":"registries"}"#)))
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("egress.most") && said.contains("\"connections\""),
            "{said}"
        );
        let some = config("most = \"registries\"\ndefault = \"registries\"");
        assert_eq!(some.grant(None).unwrap().level(), EgressLevel::Registries);
        assert!(some.grant(Some(&asked(r#"{"level":"open"}"#))).is_err());
        assert_eq!(
            some.grant(Some(&asked(r#"{"level":"connections"}"#))).unwrap(),
            Egress::connections()
        );
    }

    #[test]
    fn the_operators_list_bounds_the_tasks() {
        let bounded = config("most = \"custom\"\nallow = [{ host = \".corp.example\" }]");
        let one = |host: &str| asked(&format!(r#"{{"level":"custom","allow":[{{"host":"{host}"}}]}}"#));
        assert!(bounded.grant(Some(&one("a.corp.example"))).is_ok());
        let said = bounded.grant(Some(&one("evilcorp.example"))).unwrap_err().to_string();
        assert!(
            said.contains("evilcorp.example") && said.contains("egress.allow"),
            "{said}"
        );
        assert!(config("most = \"custom\"").grant(Some(&one("any.example"))).is_ok());
    }

    #[test]
    fn the_list_of_package_hosts_can_be_replaced_and_extended() {
        let reaches = |text: &str, host: &str| {
            let egress = config(text).grant(None).unwrap();
            egress.decide(&format!("{host}:443"), Way::Tunnel).is_ok()
        };
        let on = "most = \"registries\"\ndefault = \"registries\"\n";
        assert!(
            REGISTRIES
                .iter()
                .all(|host| host.parse::<HostPattern>().is_ok() && reaches(on, host))
        );
        assert!(reaches(
            &format!("{on}more_registries = [\"pkgs.internal\"]"),
            "pkgs.internal"
        ));
        assert!(reaches(
            &format!("{on}more_registries = [\"pkgs.internal\"]"),
            "pypi.org"
        ));
        assert!(!reaches(&format!("{on}registries = [\".internal\"]"), "pypi.org"));
        assert!(reaches(&format!("{on}registries = [\".internal\"]"), "pkgs.internal"));
    }

    #[test]
    fn what_contradicts_itself_names_its_key() {
        let key = |text: &str| config(text).wrong().map(|(key, _)| key);
        assert_eq!(key("default = \"open\""), Some("egress.default"));
        assert_eq!(key("most = \"open\"\ndefault = \"custom\""), Some("egress.default"));
        assert_eq!(key("connections = 0"), Some("egress.connections"));
        assert_eq!(key("idle_timeout_s = 0"), Some("egress.idle_timeout_s"));
        assert_eq!(key("allow = [{ host = \"a\", ports = [0] }]"), Some("egress.allow"));
        assert_eq!(key(""), None);
    }
}
