//! Looks up the credentials that tasks name, inside what the operator allows.
//!
//! A task comes from the queue and is not trusted with the worker's files or environment: a file is a bare name in one directory, a
//! variable's name has a prefix, and a sealed token goes only where it was sealed for. Never logs a value.

use std::path::PathBuf;

use serde::Deserialize;

use crate::message::task::ConnectionRequest;
use crate::message::{Credential, ForgeKind, SessionId, redact};
use crate::secret::Secret;

mod identities;
mod sealed;

/// Largest credential file that is read, in bytes.
const LARGEST_FILE: u64 = 64 * 1024;

/// Where credentials are looked up.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The directory of credential files; `{"file": ...}` is refused when absent.
    pub directory: Option<PathBuf>,
    /// What a variable's name must begin with.
    pub env_prefix: String,
    /// Files with the worker's own keys (`cofferdam keygen`), by which `{"sealed": ...}` is opened: tried in order, so that a new key goes in
    /// front and the old one stays until no task is sealed to it. Readable by the worker's user alone. Read anew at each use.
    pub identities: Vec<PathBuf>,
    /// Whether a sealed token must name the address that it may be sent to. Otherwise whoever can put messages into the queue can make the
    /// worker show a token that names none to a forge of his choice, unless `forge.allowed_urls` forbids it.
    pub require_bound: bool,
    /// Whether tasks may carry tokens in clear. The broker, its disk and its administrators then see them.
    pub allow_plain: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            directory: None,
            env_prefix: "COFFERDAM_TOKEN_".to_owned(),
            identities: Vec::new(),
            require_bound: false,
            allow_plain: false,
        }
    }
}

/// Why a credential cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The name is outside what the operator allows. It is not repeated: a token may stand in its place.
    #[error("the credential is not allowed: {rule}")]
    Refused {
        /// What would be accepted.
        rule: String,
    },
    /// A sealed credential that cannot be opened, or not for this use.
    #[error("the sealed credential cannot be used: {rule}")]
    Sealed {
        /// Why, and what to do.
        rule: String,
    },
    /// A key of the worker cannot be used.
    #[error("the worker's identity file {} cannot be used: {detail}", path.display())]
    Identity {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The name is allowed, and there is nothing.
    #[error("the credential {name:?} names nothing on this worker: {remedy}")]
    Missing {
        /// The name, where it looks like one and not like a token.
        name: String,
        /// What to do.
        remedy: String,
    },
}

/// What a credential is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The session; `None` outside of any.
    pub session: Option<SessionId>,
    /// The forge that will be shown it.
    pub forge: ForgeKind,
    /// That forge's address, as it was given.
    pub url: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// For a connection of a session.
    #[must_use]
    pub fn of(session: Option<SessionId>, connection: &'a ConnectionRequest) -> Self {
        Self {
            session,
            forge: connection.forge,
            url: connection.url.as_deref(),
        }
    }
}

impl Config {
    /// The public keys that credentials can be sealed to, the first to be tried first.
    ///
    /// # Errors
    /// A file cannot be read, is readable by others, or holds no key.
    pub fn recipients(&self) -> Result<Vec<String>, CredentialError> {
        let all = identities::read(&self.identities)?;
        Ok(all.iter().map(crate::secret::seal::Identity::recipient).collect())
    }

    /// Reads the credential that a task names.
    ///
    /// # Errors
    /// The name is not allowed, or names nothing; a sealed one is for another key, another use, or damaged.
    pub fn resolve(
        &self,
        credential: &Credential,
        asked: &Asked<'_>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Secret, CredentialError> {
        match credential {
            Credential::Sealed(text) => sealed::open(self, text, asked),
            Credential::Env(name) => self.read_variable(name, environment),
            Credential::File(name) => self.read_file(name),
            Credential::Plain(secret) if self.allow_plain => Ok(secret.clone()),
            Credential::Plain(_) => Err(CredentialError::Refused {
                rule: "this worker takes no token in clear; seal it, or name a file or a variable instead, or let the operator set credentials.allow_plain".into(),
            }),
        }
    }

    fn read_variable(
        &self,
        name: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Secret, CredentialError> {
        let Some(rest) = name.strip_prefix(&self.env_prefix) else {
            let rule = format!("the name of a variable begins with {}", self.env_prefix);
            return Err(CredentialError::Refused { rule });
        };
        match environment(name).map(|value| Secret::new(&value)) {
            Some(secret) if !secret.is_empty() => Ok(secret),
            _ => Err(CredentialError::Missing {
                name: format!("{}{}", self.env_prefix, redact::shown(rest)),
                remedy: "set this variable where the worker runs".into(),
            }),
        }
    }

    fn read_file(&self, name: &str) -> Result<Secret, CredentialError> {
        let refused = |rule: &str| CredentialError::Refused { rule: rule.to_owned() };
        let directory = self
            .directory
            .as_ref()
            .ok_or_else(|| refused("this worker has no credentials.directory"))?;
        let bare = !name.is_empty()
            && name.len() <= 200
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !bare {
            return Err(refused(
                "a file is named by letters, digits, '-', '_' and '.', without a directory",
            ));
        }
        let missing = || CredentialError::Missing {
            name: redact::shown(name).to_owned(),
            remedy: format!("put the token into this file under {}", directory.display()),
        };
        let path = directory.join(name);
        let about = std::fs::metadata(&path).map_err(|_| missing())?;
        if !about.is_file() || about.len() > LARGEST_FILE {
            return Err(missing());
        }
        let text = zeroize::Zeroizing::new(std::fs::read_to_string(&path).map_err(|_| missing())?);
        let secret = Secret::new(&text);
        if secret.is_empty() { Err(missing()) } else { Ok(secret) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_reaches_only_what_the_operator_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ada"), "token-of-ada\n").unwrap();
        std::fs::write(directory.path().join("empty"), "\n").unwrap();
        let config = Config {
            directory: Some(directory.path().to_owned()),
            ..Config::default()
        };
        let asked = Asked {
            session: None,
            forge: ForgeKind::Gitlab,
            url: None,
        };
        let read = |credential: Credential| {
            config.resolve(&credential, &asked, |name| {
                (name == "COFFERDAM_TOKEN_A" || name == "PATH").then(|| "value".into())
            })
        };
        assert_eq!(read(Credential::File("ada".into())).unwrap().expose(), "token-of-ada");
        assert_eq!(
            read(Credential::Env("COFFERDAM_TOKEN_A".into())).unwrap().expose(),
            "value"
        );
        for name in ["../ada", "/etc/passwd", ".ada", "", "a/b"] {
            assert!(
                matches!(
                    read(Credential::File(name.into())),
                    Err(CredentialError::Refused { .. })
                ),
                "{name}"
            );
        }
        assert!(matches!(
            read(Credential::File("bob".into())),
            Err(CredentialError::Missing { .. })
        ));
        assert!(matches!(
            read(Credential::File("empty".into())),
            Err(CredentialError::Missing { .. })
        ));
        assert!(matches!(
            read(Credential::Env("PATH".into())),
            Err(CredentialError::Refused { .. })
        ));
        assert!(matches!(
            read(Credential::Env("COFFERDAM_TOKEN_B".into())),
            Err(CredentialError::Missing { .. })
        ));
        assert!(matches!(
            read(Credential::Plain(Secret::new("x"))),
            Err(CredentialError::Refused { .. })
        ));
    }
}
