//! What a task may ask of the way out: a level, and for one level the hosts. Values and their parse-time checks only.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::host::HostPattern;

/// Most rules of one task.
const MOST_RULES: usize = 64;
/// Most ports or methods of one rule.
const MOST_IN_A_RULE: usize = 16;

/// How far the processes of a sandbox reach, from nothing to almost everything. What a session may ask for at most is the operator's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EgressLevel {
    /// Only the gateway's own routes: git, tools and the model.
    #[default]
    Connections,
    /// Also the package hosts of the documented list.
    Registries,
    /// Also the hosts that the task lists.
    Custom,
    /// Any host with a public address.
    Open,
}

impl EgressLevel {
    /// Every level.
    pub const ALL: [Self; 4] = [Self::Connections, Self::Registries, Self::Custom, Self::Open];

    /// The word used in tasks, configurations and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Registries => "registries",
            Self::Custom => "custom",
            Self::Open => "open",
        }
    }
}

impl fmt::Display for EgressLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The way out that a task asks for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressRequest {
    /// The level.
    pub level: EgressLevel,
    /// The hosts of the level `custom`, 1 to 64; with no other level.
    #[serde(default)]
    pub allow: Vec<EgressRule>,
}

/// A host, or all below a name, that may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// `pkgs.example` for one host, `.example` for all below a name. Never an address.
    pub host: HostPattern,
    /// The ports, at most 16; 443 when empty, and 80 where methods are given.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// The HTTP methods, at most 16; any when empty. Methods are only seen on plain HTTP, so a host with methods is not reachable over HTTPS.
    #[serde(default)]
    pub methods: Vec<EgressMethod>,
}

/// The HTTP methods that a rule may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum EgressMethod {
    Get,
    Head,
    Options,
    Post,
    Put,
    Patch,
    Delete,
}

impl EgressMethod {
    /// As it stands in a request.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl EgressRule {
    /// Any method of one host at the ports of HTTPS.
    #[must_use]
    pub fn of(host: HostPattern) -> Self {
        Self {
            host,
            ports: Vec::new(),
            methods: Vec::new(),
        }
    }

    /// The ports, with the default ones where none is named.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        match (self.ports.as_slice(), self.methods.as_slice()) {
            ([], []) => &[443],
            ([], _) => &[80],
            (named, _) => named,
        }
    }

    /// Whether everything that the other allows is allowed here too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let methods = self.methods.is_empty()
            || (!other.methods.is_empty() && other.methods.iter().all(|method| self.methods.contains(method)));
        self.host.covers(&other.host) && methods && other.ports().iter().all(|port| self.ports().contains(port))
    }

    /// What is wrong with the rule by itself.
    #[must_use]
    pub fn wrong(&self) -> Option<&'static str> {
        if self.ports.len() > MOST_IN_A_RULE || self.methods.len() > MOST_IN_A_RULE {
            Some("at most 16 ports and 16 methods")
        } else if self.ports.contains(&0) {
            Some("a port is a number from 1 to 65535")
        } else {
            None
        }
    }
}

/// Why the request of a task is refused when it is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// Hosts with a level that has none.
    #[error("egress.allow goes with the level \"custom\" only: drop the list, or ask for that level")]
    AllowWithoutCustom,
    /// `custom` without a host.
    #[error("egress.level is \"custom\" and egress.allow is empty: list the hosts, or ask for another level")]
    CustomWithoutAllow,
    /// Too many rules.
    #[error("egress.allow has {count} rules, the limit is {MOST_RULES}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A rule that is wrong by itself.
    #[error("egress.allow[{index}]: {detail}")]
    Rule {
        /// Which one, from 0.
        index: usize,
        /// What is accepted.
        detail: &'static str,
    },
}

impl EgressError {
    /// The stable code in events.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::AllowWithoutCustom => "egress_allow_without_custom",
            Self::CustomWithoutAllow => "egress_custom_without_allow",
            Self::TooMany { .. } => "egress_too_many_rules",
            Self::Rule { .. } => "egress_bad_rule",
        }
    }
}

impl EgressRequest {
    /// What the fields say of each other.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), EgressError> {
        match (self.level, self.allow.len()) {
            (EgressLevel::Custom, 0) => return Err(EgressError::CustomWithoutAllow),
            (EgressLevel::Connections | EgressLevel::Registries | EgressLevel::Open, 1..) => {
                return Err(EgressError::AllowWithoutCustom);
            }
            (_, count) if count > MOST_RULES => return Err(EgressError::TooMany { count }),
            _ => {}
        }
        match self
            .allow
            .iter()
            .enumerate()
            .find_map(|(index, rule)| Some((index, rule.wrong()?)))
        {
            Some((index, detail)) => Err(EgressError::Rule { index, detail }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<EgressRequest, String> {
        let request: EgressRequest = serde_json::from_str(text).map_err(|error| error.to_string())?;
        request.check().map_err(|error| error.code().to_owned())?;
        Ok(request)
    }

    #[test]
    fn levels_are_ordered_and_lists_go_with_custom() {
        assert!(EgressLevel::Connections < EgressLevel::Registries && EgressLevel::Custom < EgressLevel::Open);
        assert!(read(r#"{"level":"registries"}"#).is_ok());
        let custom =
            read(r#"{"level":"custom","allow":[{"host":".Example","ports":[8080],"methods":["GET"]}]}"#).unwrap();
        assert_eq!(custom.allow[0].host.to_string(), ".example");
        let code = |text: &str| read(text).unwrap_err();
        assert_eq!(
            code(r#"{"level":"open","allow":[{"host":"a"}]}"#),
            "egress_allow_without_custom"
        );
        assert_eq!(code(r#"{"level":"custom"}"#), "egress_custom_without_allow");
        assert_eq!(
            code(r#"{"level":"custom","allow":[{"host":"a","ports":[0]}]}"#),
            "egress_bad_rule"
        );
        let many = format!(
            r#"{{"level":"custom","allow":[{}]}}"#,
            vec![r#"{"host":"a"}"#; 65].join(",")
        );
        assert_eq!(code(&many), "egress_too_many_rules");
        for wrong in [
            r#"{"level":"all"}"#,
            r#"{"level":"custom","allow":[{"host":"127.1"}]}"#,
            r#"{"level":"custom","allow":[{"host":"a","methods":["TRACE"]}]}"#,
            r#"{"level":"custom","allow":[{"host":"a","port":1}]}"#,
            r#"{"allow":[]}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rule_covers_what_is_narrower_in_every_respect() {
        let rule = |host: &str, ports: &[u16], methods: &[EgressMethod]| EgressRule {
            host: host.parse().unwrap(),
            ports: ports.to_vec(),
            methods: methods.to_vec(),
        };
        let wide = rule(".example", &[443, 80], &[]);
        assert!(
            wide.covers(&rule("a.example", &[], &[])) && wide.covers(&rule("a.example", &[], &[EgressMethod::Get]))
        );
        assert!(!wide.covers(&rule("a.example", &[22], &[])) && !wide.covers(&rule("example", &[], &[])));
        let reads = rule("a.example", &[], &[EgressMethod::Get]);
        assert!(!reads.covers(&rule("a.example", &[80], &[])));
        assert!(!reads.covers(&rule("a.example", &[], &[EgressMethod::Get, EgressMethod::Put])));
    }
}
