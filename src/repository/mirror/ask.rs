//! Asks a forge in one request what a token is shown, over a connection that stays open from session to session.
//!
//! Only ever says what the whole answer says, or nothing: every failure is git's to explain, which is run then. The token goes to the
//! address's own origin, through the proxies that git would take, to no redirect, and into no log.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Client, NoProxy, Proxy, StatusCode};
use url::Url;
use zeroize::Zeroizing;

use super::ls_refs;
use crate::grant::ShownRef;
use crate::repository::blocking;
use crate::repository::remote::Access;

/// Time limit of the question: who does not answer by then is left to git.
const LIMIT: Duration = Duration::from_secs(10);
/// Time limit of the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept; servers keep them for a minute and more.
const IDLE: Duration = Duration::from_secs(50);
/// Most clients that are kept; each trusts another file, and has its own connections.
const MOST_CLIENTS: usize = 16;
/// Largest file of certificates that is read, in bytes.
const LARGEST_CA: u64 = 4 * 1024 * 1024;

/// The clients, by the file of certificates that they trust.
#[derive(Debug, Default)]
pub(in crate::repository) struct Asker {
    clients: Mutex<VecDeque<(Option<PathBuf>, Client)>>,
}

impl Asker {
    /// The branches and tags that the forge shows this token; `None` when it is not certain.
    pub(super) async fn shown(&self, address: &Url, access: &Access, limit: Duration) -> Option<Vec<ShownRef>> {
        match self.asked(address, access, limit.min(LIMIT)).await {
            Ok(shown) => Some(shown),
            Err(why) => {
                let host = address.host_str().unwrap_or_default();
                tracing::debug!(host, why = %access.mask().apply(&why), "the forge did not say what it shows; git asks it");
                None
            }
        }
    }

    async fn asked(&self, address: &Url, access: &Access, limit: Duration) -> Result<Vec<ShownRef>, String> {
        let client = self.client(access.ca_file.as_deref()).await?;
        let credential = credential(access).ok_or("the credential cannot be sent")?;
        let place = format!("{}/git-upload-pack", address.as_str().trim_end_matches('/'));
        let asking = client
            .post(place)
            .timeout(limit)
            .header("Git-Protocol", "version=2")
            .header(CONTENT_TYPE, ls_refs::ASKED)
            .header(ACCEPT, ls_refs::ANSWERED)
            .header(AUTHORIZATION, credential)
            .body(ls_refs::question());
        let mut response = asking.send().await.map_err(said)?;
        if response.status() != StatusCode::OK {
            return Err(format!("HTTP {}", response.status().as_u16()));
        }
        if response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes) != Some(ls_refs::ANSWERED.as_bytes()) {
            return Err("the answer is of another type".to_owned());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(said)? {
            if body.len() + chunk.len() > ls_refs::LONGEST {
                return Err("the answer is too long".to_owned());
            }
            body.extend_from_slice(&chunk);
        }
        ls_refs::parse(&body).ok_or_else(|| "the answer is no list of branches and tags".to_owned())
    }

    async fn client(&self, ca_file: Option<&Path>) -> Result<Client, String> {
        if let Some(known) = self.known(ca_file) {
            return Ok(known);
        }
        let file = ca_file.map(Path::to_owned);
        // The machine's certificates are some hundred, and are read from disk.
        let built = blocking(move || Ok(build(file.as_deref()))).await;
        let client = built.map_err(|error| error.to_string())??;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.push_front((ca_file.map(Path::to_owned), client.clone()));
        clients.truncate(MOST_CLIENTS);
        Ok(client)
    }

    fn known(&self, ca_file: Option<&Path>) -> Option<Client> {
        // A panic elsewhere leaves at worst one client less.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let place = clients.iter().position(|(file, _)| file.as_deref() == ca_file)?;
        let entry = clients.remove(place)?;
        let client = entry.1.clone();
        clients.push_front(entry);
        Some(client)
    }
}

/// Basic authorisation; `None` for what git would not be given either.
fn credential(access: &Access) -> Option<HeaderValue> {
    let unusable = |text: &str| text.is_empty() || text.chars().any(char::is_control);
    let (user, token) = (access.basic_user.as_str(), access.token.expose());
    if unusable(user) || unusable(token) || user.contains(':') {
        return None;
    }
    let pair = Zeroizing::new(format!("{user}:{token}"));
    let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
    let header = Zeroizing::new(format!("Basic {}", encoded.as_str()));
    let mut header = HeaderValue::from_str(&header).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// A client that goes the way that git goes.
fn build(ca_file: Option<&Path>) -> Result<Client, String> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        return Err("no TLS provider is installed".to_owned());
    }
    let mut builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(8)
        .user_agent(concat!("cofferdam/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT);
    for proxy in proxies()? {
        builder = builder.proxy(proxy);
    }
    if let Some(file) = ca_file {
        // In place of the machine's, which are in the file where they shall count.
        builder = builder.tls_certs_only(certificates(file)?);
    }
    builder.build().map_err(said)
}

/// Those that git is given: see `git.rs`.
fn proxies() -> Result<Vec<Proxy>, String> {
    let value = |names: &[&str]| {
        let set = names.iter().find_map(|name| std::env::var(name).ok());
        set.filter(|value| !value.is_empty())
    };
    // An address of a proxy may hold its password.
    let unusable = |_| "a proxy in the environment cannot be used here".to_owned();
    let spared = value(&["no_proxy", "NO_PROXY"]).and_then(|list| NoProxy::from_string(&list));
    let mut found = Vec::new();
    if let Some(proxy) = value(&["https_proxy", "HTTPS_PROXY"]) {
        found.push(Proxy::https(proxy).map_err(unusable)?.no_proxy(spared.clone()));
    }
    if let Some(proxy) = value(&["http_proxy"]) {
        found.push(Proxy::http(proxy).map_err(unusable)?.no_proxy(spared));
    }
    Ok(found)
}

fn certificates(file: &Path) -> Result<Vec<Certificate>, String> {
    let unreadable = |error: std::io::Error| format!("the certificates cannot be read: {error}");
    if std::fs::metadata(file).map_err(unreadable)?.len() > LARGEST_CA {
        return Err("the file of certificates is too large".to_owned());
    }
    let pem = std::fs::read(file).map_err(unreadable)?;
    Certificate::from_pem_bundle(&pem).map_err(said)
}

/// An error with its causes, without the address.
fn said(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        said = format!("{said}: {next}");
        cause = next.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn access(user: &str, token: &str) -> Access {
        Access {
            token: Secret::new(token),
            basic_user: user.to_owned(),
            account: "ada".to_owned(),
            ca_file: None,
        }
    }

    #[test]
    fn the_credential_is_basic_and_does_not_show_itself() {
        let header = credential(&access("oauth2", "secret-token")).unwrap();
        assert!(header.is_sensitive());
        assert_eq!(header.as_bytes(), b"Basic b2F1dGgyOnNlY3JldC10b2tlbg==");
        assert!(!format!("{header:?}").contains("b2F1"));
        for (user, token) in [("", "t"), ("oauth2", ""), ("a:b", "t"), ("oauth2", "good\nhost=x")] {
            assert!(credential(&access(user, token)).is_none(), "{user:?}");
        }
    }

    #[test]
    fn a_file_that_holds_no_certificates_makes_no_client_that_trusts_the_machine() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        assert!(build(Some(Path::new("/nonexistent"))).is_err());
        assert!(build(None).is_ok());
    }
}
