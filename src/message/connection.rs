//! A connection: a forge instance and where the worker finds the user's credential for it. In tasks and in control messages.
//!
//! Never reads a credential: it only says where the worker finds it.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::secret::Secret;

/// Largest list of certificates of one connection, in bytes.
const LARGEST_CA: usize = 64 * 1024;

/// A forge instance and where the worker finds the user's credential for it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionRequest {
    /// Which kind of forge.
    pub forge: ForgeKind,
    /// The instance's address; the public instance when absent.
    #[serde(default)]
    pub url: Option<String>,
    /// Where the credential is.
    pub credential: Credential,
    /// Certificates (PEM) that this instance is trusted by, beside those of the worker's machine. At most 64 KiB.
    #[serde(default)]
    pub ca: Option<String>,
}

impl ConnectionRequest {
    /// What is wrong with it, where its form does not tell already.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let refused = |ca: &String| ca.len() > LARGEST_CA || !ca.contains("-----BEGIN CERTIFICATE-----");
        if self.ca.as_ref().is_some_and(refused) {
            return Err("certificates in PEM, at most 64 KiB");
        }
        Ok(())
    }

    /// As it stands in a task. For the task that hands a session on and for nothing else: a token in clear stays in clear.
    #[must_use]
    pub fn for_task(&self) -> serde_json::Value {
        let credential = match &self.credential {
            Credential::Sealed(text) => serde_json::json!({ "sealed": text }),
            Credential::File(name) => serde_json::json!({ "file": name }),
            Credential::Env(name) => serde_json::json!({ "env": name }),
            Credential::Plain(secret) => serde_json::json!({ "plain": secret.expose() }),
        };
        let mut value = serde_json::json!({ "forge": self.forge, "credential": credential });
        for (name, text) in [("url", &self.url), ("ca", &self.ca)] {
            if let Some(text) = text {
                value[name] = text.as_str().into();
            }
        }
        value
    }
}

/// The kinds of forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ForgeKind {
    /// gitlab.com or self-managed GitLab.
    Gitlab,
    /// github.com or GitHub Enterprise Server.
    Github,
}

impl ForgeKind {
    /// The word used in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gitlab => "gitlab",
            Self::Github => "github",
        }
    }

    /// What this forge's users call a change request.
    #[must_use]
    pub fn change_request_word(self) -> &'static str {
        match self {
            Self::Gitlab => "merge request",
            Self::Github => "pull request",
        }
    }
}

/// Where the worker finds a credential.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Credential {
    /// The token encrypted to the worker's public key, in the age format: ASCII armor, or base64 of the binary form; at most 16 KiB. Sealed is
    /// the token alone, or better a JSON object with `token`, `url` of the forge, and if wanted `session` and `not_after`.
    Sealed(String),
    /// A file in the worker's credential directory, by its bare name.
    File(String),
    /// An environment variable of the worker; its name must begin with the operator's prefix.
    Env(String),
    /// The token itself. Refused unless the operator allowed it: the broker then holds it in clear.
    Plain(#[schemars(with = "String")] Secret),
}

impl Credential {
    /// Whether both say the same of where the token is.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sealed(one), Self::Sealed(other))
            | (Self::File(one), Self::File(other))
            | (Self::Env(one), Self::Env(other)) => one == other,
            (Self::Plain(one), Self::Plain(other)) => one.expose() == other.expose(),
            (_, _) => false,
        }
    }
}
