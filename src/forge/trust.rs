//! The HTTP clients of all connections: one for the machine's certificates, and one for each own certificate authority.
//!
//! Never turns verification off, and never lets what one connection trusts count for another.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::Certificate;
use sha2::{Digest as _, Sha256};

use super::text::clean;
use super::{Config, ForgeError};
use crate::secret::Mask;

/// Most clients for own authorities that are kept; each has its own pool of connections.
const MOST_CLIENTS: usize = 16;

/// Longest PEM text that is read, in bytes.
const LONGEST_PEM: usize = 1024 * 1024;

/// What stands for one own authority.
type Fingerprint = [u8; 32];

/// Makes the clients, and keeps those that were used last.
pub(super) struct Trust {
    /// Trusted by every client beside the machine's certificates.
    operators: Vec<Certificate>,
    connect_timeout: Duration,
    usual: reqwest::Client,
    own: Mutex<VecDeque<(Fingerprint, reqwest::Client)>>,
}

impl Trust {
    /// By the operator's configuration.
    pub(super) fn new(config: &Config) -> Result<Self, ForgeError> {
        let operators = match &config.ca_file {
            Some(path) => operators(path)?,
            None => Vec::new(),
        };
        let connect_timeout = Duration::from_secs(config.request_timeout_s.clamp(1, 10));
        let usual = build(connect_timeout, operators.iter().cloned()).map_err(|error| match &config.ca_file {
            Some(path) => unusable(&in_file(path), &error),
            None => ForgeError::Setup { detail: error },
        })?;
        Ok(Self {
            operators,
            connect_timeout,
            usual,
            own: Mutex::default(),
        })
    }

    /// The client for a connection; `ca` is its own PEM text.
    pub(super) fn client(&self, ca: Option<&str>) -> Result<reqwest::Client, ForgeError> {
        let Some(pem) = ca else {
            return Ok(self.usual.clone());
        };
        let fingerprint: Fingerprint = Sha256::digest(pem.as_bytes()).into();
        // A panic elsewhere leaves at worst one client less.
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = own.iter().position(|(known, _)| *known == fingerprint)
            && let Some(entry) = own.remove(place)
        {
            let client = entry.1.clone();
            own.push_front(entry);
            return Ok(client);
        }
        let place = "the connection's ca";
        let certificates = read(place, pem.as_bytes())?;
        let client = build(self.connect_timeout, self.operators.iter().cloned().chain(certificates))
            .map_err(|error| unusable(place, &error))?;
        own.push_front((fingerprint, client.clone()));
        own.truncate(MOST_CLIENTS);
        Ok(client)
    }
}

fn in_file(path: &Path) -> String {
    format!("the file {} (forge.ca_file)", path.display())
}

fn operators(path: &Path) -> Result<Vec<Certificate>, ForgeError> {
    let pem = std::fs::read(path).map_err(|error| unusable(&in_file(path), &error.to_string()))?;
    read(&in_file(path), &pem)
}

fn read(place: &str, pem: &[u8]) -> Result<Vec<Certificate>, ForgeError> {
    if pem.len() > LONGEST_PEM {
        return Err(unusable(place, &format!("it is longer than {LONGEST_PEM} bytes")));
    }
    let certificates = Certificate::from_pem_bundle(pem).map_err(|error| unusable(place, &chained(&error)))?;
    if certificates.is_empty() {
        return Err(unusable(place, "it holds no certificate"));
    }
    Ok(certificates)
}

fn build(
    connect_timeout: Duration,
    certificates: impl IntoIterator<Item = Certificate>,
) -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        // Shorter than servers keep idle connections, so that a write seldom meets one that is being closed.
        .pool_idle_timeout(Duration::from_secs(30))
        // Of each forge. A hundred sessions that begin at once leave no hundred connections behind.
        .pool_max_idle_per_host(8)
        .user_agent(concat!("cofferdam/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect_timeout)
        .tls_certs_merge(certificates)
        .build()
        .map_err(|error| chained(&error))
}

fn chained(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        said = format!("{said}: {next}");
        cause = next.source();
    }
    said
}

fn unusable(place: &str, detail: &str) -> ForgeError {
    ForgeError::Certificates {
        place: place.to_owned(),
        detail: clean(detail, &Mask::default()),
    }
}

#[cfg(test)]
mod tests;
