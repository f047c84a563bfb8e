//! From an allowed name to a connection: resolved once, looked at, and dialled at exactly the address that was looked at.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::{No, Proxy};
use crate::grant::egress::address::{self, Kind};
use crate::grant::egress::{Allowed, Refusal, Rule};
use crate::message::HostName;

/// Most addresses of one name that are looked at.
const MOST_ADDRESSES: usize = 16;
/// Most addresses of one name that are tried.
const MOST_TRIED: usize = 3;

/// Finds the addresses of a name.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// All addresses.
    ///
    /// # Errors
    /// There is none, or nobody to ask.
    async fn resolve(&self, host: &HostName) -> std::io::Result<Vec<IpAddr>>;
}

/// The worker's own resolver.
#[derive(Debug)]
pub struct SystemResolver {
    places: Arc<Semaphore>,
}

impl Default for SystemResolver {
    /// Sixteen questions at a time: each takes a thread for as long as it takes, also when nobody waits for it any more.
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(16)),
        }
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &HostName) -> std::io::Result<Vec<IpAddr>> {
        let place = self
            .places
            .clone()
            .acquire_owned()
            .await
            .map_err(std::io::Error::other)?;
        let host = host.as_str().to_owned();
        let asked = tokio::spawn(async move {
            let found: Vec<IpAddr> = tokio::net::lookup_host((host.as_str(), 0))
                .await?
                .map(|one| one.ip())
                .collect();
            drop(place);
            Ok(found)
        });
        asked.await.map_err(std::io::Error::other)?
    }
}

impl Proxy {
    /// Connects to what was allowed.
    pub(super) async fn dial(&self, allowed: &Allowed) -> Result<TcpStream, No> {
        let limit = Duration::from_secs(self.config.connect_timeout_s);
        let dialled = async {
            let addresses = self.addresses(allowed).await?;
            for address in addresses.into_iter().take(MOST_TRIED) {
                // A name with a dead address must not eat the time of the living one.
                let tried = tokio::time::timeout(limit / 3, TcpStream::connect((address, allowed.port))).await;
                if let Ok(Ok(stream)) = tried {
                    return self.not_ourselves(allowed, stream);
                }
            }
            Err(No::failed(format!(
                "{} did not answer at port {}",
                allowed.host, allowed.port
            )))
        };
        tokio::time::timeout(limit, dialled)
            .await
            .unwrap_or_else(|_| Err(No::failed(format!("{} did not answer in time", allowed.host))))
    }

    /// The addresses that may be dialled. Those of a name that leads to both kinds are sorted out: only what was looked at is dialled.
    async fn addresses(&self, allowed: &Allowed) -> Result<Vec<IpAddr>, No> {
        let no = |rule, message: String| {
            Err(No::Refused(Refusal {
                rule,
                host: allowed.host.to_string(),
                port: allowed.port,
                message,
            }))
        };
        let found = self.ask(&allowed.host).await.unwrap_or_else(|error| {
            tracing::debug!(host = %allowed.host, %error, "a host was not resolved");
            Vec::new()
        });
        if found.is_empty() {
            return no(Rule::Resolve, "the name was not found by the worker.".to_owned());
        }
        let mut kept = Vec::new();
        let mut kind = Kind::Special;
        for address in found.into_iter().take(MOST_ADDRESSES) {
            match address::permit(&allowed.host, address, &self.config.allow_private) {
                Ok(()) => kept.push(address),
                Err(wrong) => kind = wrong,
            }
        }
        if kept.is_empty() {
            return no(Rule::Address, not_public(kind));
        }
        Ok(kept)
    }

    /// Asks the worker's resolver, a few questions of one session at a time: a question goes on and keeps its place when nobody waits for it any
    /// more, so that a session that asks for slow names starves itself.
    async fn ask(&self, host: &HostName) -> std::io::Result<Vec<IpAddr>> {
        let place = self
            .questions
            .clone()
            .acquire_owned()
            .await
            .map_err(std::io::Error::other)?;
        let (resolver, host) = (self.resolver.clone(), host.clone());
        let asked = tokio::spawn(async move {
            let found = resolver.resolve(&host).await;
            drop(place);
            found
        });
        asked.await.map_err(std::io::Error::other)?
    }

    /// Whoever dials an address of their own machine comes from the same address: a public address of the worker's is not the world.
    fn not_ourselves(&self, allowed: &Allowed, stream: TcpStream) -> Result<TcpStream, No> {
        let (Ok(own), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else {
            return Err(No::failed(format!("{} closed the connection", allowed.host)));
        };
        if own.ip() == peer.ip() && address::kind(peer.ip()).is_none() {
            return Err(No::Refused(Refusal {
                rule: Rule::Address,
                host: allowed.host.to_string(),
                port: allowed.port,
                message: not_public(Kind::Loopback),
            }));
        }
        Ok(stream)
    }
}

fn not_public(kind: Kind) -> String {
    let kind = kind.as_str();
    format!(
        "the name leads to a {kind} address, and a sandbox reaches public ones only. An operator may except a private network or host \
         (egress.allow_private)."
    )
}
