//! Clients for connections: chooses the kind, puts the token into a header, shares one HTTP client.
//!
//! Never keeps a token longer than the client that it was made for.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::address::{Address, canonical};
use super::github::{self, Github};
use super::gitlab::{self, Gitlab};
use super::http::Api;
use super::http::pace::Pace;
use super::{Config, Connect, CountRequests, Forge, ForgeError};
use crate::message::ForgeKind;
use crate::secret::{Mask, Secret};

/// Makes clients for connections. Construct it once: connections to forges are pooled in it.
pub struct Clients {
    config: Config,
    allowed: Vec<String>,
    client: reqwest::Client,
    counter: Arc<dyn CountRequests>,
    pace: Pace,
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
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // Shorter than servers keep idle connections, so that a write seldom meets one that is being closed.
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("cofferdam/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(config.request_timeout_s.clamp(1, 10)))
            .build()
            .map_err(|error| ForgeError::Setup {
                detail: error.to_string(),
            })?;
        Ok(Self {
            config,
            allowed,
            client,
            counter,
            pace: Pace::default(),
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
        mut headers: HeaderMap,
        (name, scheme): (HeaderName, &str),
    ) -> Result<Api, ForgeError> {
        let value = zeroize::Zeroizing::new(format!("{scheme}{}", token.expose()));
        let mut value = HeaderValue::from_str(&value)
            .ok()
            .filter(|_| !token.is_empty())
            .ok_or_else(|| ForgeError::TokenInvalid {
                instance: address.instance.clone(),
            })?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(Api {
            client: self.client.clone(),
            kind,
            address,
            headers,
            mask: Mask::new([token]),
            counter: Arc::clone(&self.counter),
            largest_answer: self.config.largest_answer,
            timeout: Duration::from_secs(self.config.request_timeout_s.max(1)),
            pace: self.pace.clone(),
        })
    }
}

impl Connect for Clients {
    fn connect(
        &self,
        kind: ForgeKind,
        url: Option<&str>,
        token: &Secret,
        _ca: Option<&str>,
    ) -> Result<Arc<dyn Forge>, ForgeError> {
        let at = |shape| Address::new(shape, url, &self.config, &self.allowed);
        match kind {
            ForgeKind::Gitlab => {
                let api = self.api(
                    kind,
                    at(gitlab::SHAPE)?,
                    token,
                    gitlab::headers(),
                    gitlab::token_header(),
                )?;
                Ok(Arc::new(Gitlab::new(api)))
            }
            ForgeKind::Github => {
                let api = self.api(
                    kind,
                    at(github::SHAPE)?,
                    token,
                    github::headers(),
                    github::token_header(),
                )?;
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
    fn connects_to_allowed_instances_only() {
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
