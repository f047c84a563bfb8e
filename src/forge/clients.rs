//! Clients for connections: chooses the kind, puts the token into a header, shares one HTTP client.
//!
//! Never keeps a token longer than the client that it was made for; what outlives it is known by the token's digest.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::address::{Address, canonical};
use super::github::{self, Github};
use super::gitlab::{self, Gitlab};
use super::http::cache::Cache;
use super::http::pace::Pace;
use super::http::turns::Turns;
use super::http::{Answer, Api};
use super::trust::Trust;
use super::{Config, Connect, CountRequests, Forge, ForgeError};
use crate::message::ForgeKind;
use crate::secret::{Mask, Secret};

/// Makes clients for connections. Construct it once: connections to forges are pooled in it.
pub struct Clients {
    config: Config,
    allowed: Vec<String>,
    trust: Trust,
    counter: Arc<dyn CountRequests>,
    pace: Pace,
    turns: Turns,
    cache: Arc<Cache>,
}

/// How one kind of forge is spoken to.
struct Manner {
    headers: HeaderMap,
    token_header: (HeaderName, &'static str),
    limits: fn(&Answer) -> bool,
    between_writes: Duration,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Clients")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Clients {
    /// Clients by this configuration. The process's TLS provider must be installed before.
    ///
    /// # Errors
    /// An allowed address cannot be used, or TLS cannot be set up (no provider, no root certificates).
    pub fn new(config: Config, counter: Arc<dyn CountRequests>) -> Result<Self, ForgeError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(ForgeError::Setup {
                detail: "no TLS provider is installed".to_owned(),
            });
        }
        let allowed = config
            .allowed_urls
            .iter()
            .map(|url| canonical(url, config.allow_http))
            .collect::<Result<Vec<String>, ForgeError>>()?;
        let trust = Trust::new(&config)?;
        Ok(Self {
            config,
            allowed,
            trust,
            counter,
            pace: Pace::default(),
            turns: Turns::default(),
            cache: Arc::default(),
        })
    }

    /// The same clients with other delays, so that tests do not wait.
    #[cfg(test)]
    pub(super) fn paced(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    fn api(
        &self,
        kind: ForgeKind,
        address: Address,
        token: &Secret,
        ca: Option<&str>,
        manner: Manner,
    ) -> Result<Api, ForgeError> {
        let (name, scheme) = manner.token_header;
        let value = zeroize::Zeroizing::new(format!("{scheme}{}", token.expose()));
        let mut value = HeaderValue::from_str(&value)
            .ok()
            .filter(|_| !token.is_empty())
            .ok_or_else(|| ForgeError::TokenInvalid {
                instance: address.instance.clone(),
            })?;
        value.set_sensitive(true);
        let mut headers = manner.headers;
        headers.insert(name, value);
        let digest: [u8; 32] = Sha256::new()
            .chain_update(kind.as_str())
            .chain_update([0])
            .chain_update(&address.instance)
            .chain_update([0])
            .chain_update(token.expose())
            .finalize()
            .into();
        Ok(Api {
            client: self.trust.client(ca)?,
            kind,
            address,
            headers,
            mask: Mask::new([token]),
            counter: Arc::clone(&self.counter),
            largest_answer: self.config.largest_answer,
            timeout: Duration::from_secs(self.config.request_timeout_s.max(1)),
            between_writes: self.pace.between_writes.unwrap_or(manner.between_writes),
            pace: self.pace.clone(),
            limits: manner.limits,
            token: digest,
            turn: self.turns.of(digest),
            cache: Arc::clone(&self.cache),
            rate: super::http::rate::Rate::default(),
            dead: std::sync::OnceLock::new(),
        })
    }
}

/// The canonical address of a connection's instance, to be compared with another; `None` where it is none.
#[must_use]
pub fn instance(kind: ForgeKind, url: Option<&str>) -> Option<String> {
    let shape = match kind {
        ForgeKind::Gitlab => gitlab::SHAPE,
        ForgeKind::Github => github::SHAPE,
    };
    // Whether plain HTTP may be used is decided where the connection is made.
    let config = Config {
        allow_http: true,
        ..Config::default()
    };
    Address::new(shape, url, &config, &[])
        .ok()
        .map(|address| address.instance)
}

impl Connect for Clients {
    fn connect(
        &self,
        kind: ForgeKind,
        url: Option<&str>,
        token: &Secret,
        ca: Option<&str>,
    ) -> Result<Arc<dyn Forge>, ForgeError> {
        let at = |shape| Address::new(shape, url, &self.config, &self.allowed);
        match kind {
            ForgeKind::Gitlab => {
                let manner = Manner {
                    headers: gitlab::headers(),
                    token_header: gitlab::token_header(),
                    limits: gitlab::limits_rate,
                    between_writes: gitlab::BETWEEN_WRITES,
                };
                let api = self.api(kind, at(gitlab::SHAPE)?, token, ca, manner)?;
                Ok(Arc::new(Gitlab::new(api)))
            }
            ForgeKind::Github => {
                let manner = Manner {
                    headers: github::headers(),
                    token_header: github::token_header(),
                    limits: github::limits_rate,
                    between_writes: github::BETWEEN_WRITES,
                };
                let api = self.api(kind, at(github::SHAPE)?, token, ca, manner)?;
                Ok(Arc::new(Github::new(api)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::fake::Counter;

    fn clients(config: Config) -> Result<Clients, ForgeError> {
        // Another test may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Clients::new(config, Arc::new(Counter::default()))
    }

    fn allowing(urls: &[&str]) -> Config {
        Config {
            allowed_urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            ..Config::default()
        }
    }

    #[test]
    fn pitfall_12_connects_to_the_named_and_allowed_instances_only() {
        let clients = clients(allowing(&["forge.example.org/sub/", "https://github.com"])).unwrap();
        let token = Secret::new("token-0123456789");
        let at = |kind, url| {
            clients
                .connect(kind, url, &token, None)
                .map(|forge| forge.instance().to_owned())
        };
        assert_eq!(
            at(ForgeKind::Gitlab, Some("https://forge.example.org/sub/api/v4")).unwrap(),
            "https://forge.example.org/sub"
        );
        assert_eq!(at(ForgeKind::Github, None).unwrap(), "https://github.com");
        for (kind, url) in [
            (ForgeKind::Gitlab, None),
            (ForgeKind::Github, Some("forge.example.org")),
        ] {
            let error = at(kind, url).unwrap_err().to_string();
            assert!(
                error.contains("the operator allows only https://forge.example.org/sub"),
                "{error}"
            );
        }
    }

    #[test]
    fn pitfall_11_the_header_with_the_token_is_never_printed() {
        let clients = clients(Config::default()).unwrap();
        let token = Secret::new("token-0123456789");
        for (kind, shape, token_header) in [
            (ForgeKind::Gitlab, gitlab::SHAPE, gitlab::token_header()),
            (ForgeKind::Github, github::SHAPE, github::token_header()),
        ] {
            let manner = Manner {
                headers: HeaderMap::new(),
                token_header,
                limits: gitlab::limits_rate,
                between_writes: Duration::ZERO,
            };
            let address = Address::new(shape, None, &clients.config, &[]).unwrap();
            let api = clients.api(kind, address, &token, None, manner).unwrap();
            assert_eq!(api.headers.len(), 1);
            assert!(!format!("{:?}", api.headers).contains("0123456789"));
        }
    }

    #[test]
    fn an_allowed_address_that_is_none_is_refused_at_once() {
        for url in [
            "http://forge.example.org",
            "https://",
            "https://token@forge.example.org",
        ] {
            let error = clients(allowing(&[url])).unwrap_err();
            assert!(matches!(error, ForgeError::Address { .. }), "{error}");
        }
    }

    #[test]
    fn tokens_that_are_no_header_are_invalid() {
        let clients = clients(Config::default()).unwrap();
        for token in ["", "a\nb", "a\0b"] {
            let error = clients
                .connect(ForgeKind::Gitlab, None, &Secret::new(token), None)
                .err()
                .unwrap();
            assert!(matches!(error, ForgeError::TokenInvalid { .. }), "{error}");
        }
    }
}
