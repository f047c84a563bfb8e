//! Ids and names that cross rooms. Each is a newtype that can only be made by a parser, so a value of it is well formed.
//!
//! Never does I/O and never panics on input.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a name was refused; `what` is the kind of name, `rule` a sentence fragment that says what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct InvalidName {
    /// The kind of name, for example "branch name".
    pub what: &'static str,
    /// The refused text, cut to 120 characters.
    pub value: String,
    /// What would be accepted.
    pub rule: &'static str,
}

impl InvalidName {
    fn new(what: &'static str, value: &str, rule: &'static str) -> Self {
        Self {
            what,
            value: value.chars().take(120).collect(),
            rule,
        }
    }
}

/// Writes the string plumbing of a checked text type once: serde through the parser, `Display`, `AsRef`.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(InvalidName::new($what, text, $rule)) }
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// One conversation of a user with an agent; made by the orchestrator, a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SessionId(pub uuid::Uuid);

impl SessionId {
    /// The first eight hexadecimal digits of the *random* end of the id, for names that people read.
    /// UUID version 7 begins with a clock, so its beginning is the same for sessions of one minute.
    #[must_use]
    pub fn short(&self) -> String {
        let text = self.0.simple().to_string();
        text[text.len() - 8..].to_owned()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

impl FromStr for SessionId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        // The nil UUID stands for "no session" in events about messages that are no task.
        uuid::Uuid::parse_str(text)
            .ok()
            .filter(|id| !id.is_nil())
            .map(Self)
            .ok_or_else(|| InvalidName::new("session id", text, "it must be a UUID, and not the nil one"))
    }
}

/// A sandbox's own identity. Random, because a sandbox may exist before its session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SandboxId(uuid::Uuid);

impl SandboxId {
    /// A new random identity.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    /// From its text, as it stands in labels and in names of directories.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let id = Self(uuid::Uuid::try_parse(text).ok()?);
        // A UUID has several forms, and this has one.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(formatter)
    }
}

checked_text!(
    /// The task's own name of a connection, also a path segment of the gateway's git addresses.
    ConnectionName,
    "connection name",
    "1 to 40 of a-z, 0-9, '-' and '_', beginning with a letter",
    |text| {
        text.len() <= 40
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    }
);

checked_text!(
    /// The name of an agent in the configuration.
    AgentName,
    "agent name",
    "1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter",
    |text| {
        text.len() <= 64
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    }
);

checked_text!(
    /// The name of an agent's saved state: who knows it may have that state loaded into the same session. Never a path.
    SavedName,
    "name of a saved state",
    "64 hexadecimal digits in lower case",
    |text| text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
);

checked_text!(
    /// By what an agent itself calls a conversation with it.
    AgentSession,
    "agent's session id",
    "1 to 200 printable ASCII characters without spaces",
    |text| (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
);

checked_text!(
    /// The name of a tenant: on whose behalf an orchestrator asks, where the operator tells those apart.
    TenantName,
    "tenant name",
    "1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter",
    |text| {
        text.len() <= 64
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    }
);

checked_text!(
    /// A project's full path on its forge: `group/subgroup/project` or `owner/repository`.
    ProjectPath,
    "project path",
    "two or more segments of letters, digits, '-', '_' and '.', joined by '/', none beginning with '-', none ending in '.git'",
    |text| {
        text.len() <= 512
            && text.split('/').count() >= 2
            && text.split('/').all(|segment| {
                !segment.is_empty()
                    && !segment.starts_with('-')
                    && !matches!(segment, "." | "..")
                    && !segment.to_ascii_lowercase().ends_with(".git")
                    && segment.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
            })
    }
);

impl ProjectPath {
    /// The last segment: the repository's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

checked_text!(
    /// A branch, without `refs/heads/`, that git accepts and that cannot be taken for an option.
    BranchName,
    "branch name",
    "at most 200 characters that git accepts in a branch name, not beginning with '-'",
    is_branch_name
);

/// git-check-ref-format's rules for a branch, plus a length bound and no leading dash.
fn is_branch_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 200
        && text != "HEAD"
        && text != "@"
        && !text.starts_with(['-', '/'])
        && !text.ends_with(['/', '.'])
        && !text.contains("..")
        && !text.contains("//")
        && !text.contains("@{")
        && text
            .split('/')
            .all(|part| !part.starts_with('.') && !part.ends_with(".lock"))
        && !text
            .chars()
            .any(|c| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\' | '\u{7f}'))
}

checked_text!(
    /// A commit's id: 40 or 64 lower-case hexadecimal digits.
    CommitId,
    "commit id",
    "40 or 64 lower-case hexadecimal digits",
    |text| {
        matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    }
);

impl CommitId {
    /// The first ten digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..10]
    }
}

/// A project of one session: which connection, and its path there. Shown as `connection:group/project`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ProjectKey {
    /// The connection's name in the task.
    pub connection: ConnectionName,
    /// The path on that forge, as the task gave it.
    pub path: ProjectPath,
}

impl fmt::Display for ProjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.connection, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branch_names_follow_git_and_cannot_be_options() {
        for good in ["main", "cofferdam/fix-it-0a1b2c3d", "release/1.2", "ünï"] {
            assert!(good.parse::<BranchName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-x",
            "--upload-pack=x",
            "a..b",
            "a//b",
            "/a",
            "a/",
            "a.lock",
            "x/.y",
            "a b",
            "a~1",
            "a:b",
            "@",
            "HEAD",
            "a@{1}",
            "a\nb",
            "a.",
        ] {
            assert!(bad.parse::<BranchName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn project_paths_are_plain_segments() {
        for good in [
            "a/b",
            "platform/tools/greeter",
            "acme/web.site_1",
            "acme/.github",
            "größe/ß",
        ] {
            assert!(good.parse::<ProjectPath>().is_ok(), "{good}");
        }
        for bad in [
            "a", "", "/a/b", "a//b", "a/../b", "a/./b", "a/b.git", "-a/b", "a/b?x", "a/b c", "a/%2e",
        ] {
            assert!(bad.parse::<ProjectPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn short_session_ids_differ_for_neighbours_in_time() {
        let first = SessionId(uuid::Uuid::now_v7());
        let second = SessionId(uuid::Uuid::now_v7());
        assert_ne!(first.short(), second.short());
        assert_eq!(first.short().len(), 8);
    }

    #[test]
    fn names_go_through_the_parser_when_deserialised() {
        assert!(serde_json::from_str::<CommitId>("\"xyz\"").is_err());
        assert!(serde_json::from_str::<ConnectionName>("\"../etc\"").is_err());
    }
}
