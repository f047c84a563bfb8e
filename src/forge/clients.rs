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
            .user_agent(concat!("cofferdam/", env!("CARGO_PKG_VERSION")))
            .timeout(Duration::from_secs(config.request_timeout_s.max(1)))
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
            pace: self.pace.clone(),
        })
    }
}

impl Connect for Clients {
    fn connect(&self, kind: ForgeKind, url: Option<&str>, token: &Secret) -> Result<Arc<dyn Forge>, ForgeError> {
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
