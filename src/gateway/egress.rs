//! The way out: an HTTP proxy on a loopback port of the sandbox, the same for every process in it. Each request is decided anew by the grant.
//!
//! Never follows a redirect, never decrypts, never adds a credential, and reaches nothing before the name and the address were both allowed.
//! Without a grant that says otherwise everything is refused, with an answer that says which rule did it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use super::git::Tell;
use crate::grant::Egress;
use crate::grant::egress::{Allowed, Refusal, Rule, Way};
use crate::message::{EventBody, HostName};
use crate::metrics::Metrics;

mod budget;
mod config;
mod dial;
mod forward;
pub(in crate::gateway) mod greeting;
mod refusals;
mod tunnel;

pub use config::{Config, NotGranted, REGISTRIES};
pub use dial::{Resolve, SystemResolver};
pub use refusals::{Counted, Refusals};

use budget::{Budget, Budgets, Direction};
use tunnel::Tunnel;

/// Most connections of one sandbox at a time, whatever is configured.
pub(super) const MOST_CONNECTIONS: usize = 256;
/// Names of one session that are looked up at a time.
const MOST_QUESTIONS: usize = 4;
/// How long a connection waits for a place.
const WAIT: Duration = Duration::from_secs(20);
/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Most headers of a request.
const MOST_HEADERS: usize = 64;
/// Largest head of a request, in bytes.
const LARGEST_HEAD: usize = 32 * 1024;
/// Where the rule stands in an answer.
const RULE_HEADER: &str = "x-cofferdam-rule";

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The proxy of one session. Several sandboxes of it may share one.
pub struct Proxy {
    egress: Egress,
    config: Arc<Config>,
    refusals: Refusals,
    resolver: Arc<dyn Resolve>,
    tell: Tell,
    metrics: Arc<Metrics>,
    places: Semaphore,
    questions: Arc<Semaphore>,
    budgets: Budgets,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Proxy")
            .field("egress", &self.egress)
            .finish_non_exhaustive()
    }
}

/// Why a request gets no answer from where it wanted to go.
enum No {
    /// A rule; still to be told.
    Refused(Refusal),
    /// A rule that was told already.
    Told(Refusal),
    /// The other side's fault.
    Failed(String),
}

impl No {
    fn failed(message: String) -> Self {
        Self::Failed(message)
    }
}

impl Refusal {
    /// The line that an agent reads.
    pub(super) fn words(&self) -> String {
        format!(
            "cofferdam refused {}:{} ({}): {}\n",
            self.host,
            self.port,
            self.rule.as_str(),
            self.message
        )
    }
}

impl Proxy {
    /// The proxy of a session with this grant; refusals are counted into `refusals` and the first of each kind is told.
    #[must_use]
    pub fn new(
        egress: Egress,
        config: Arc<Config>,
        resolver: Arc<dyn Resolve>,
        refusals: Refusals,
        metrics: Arc<Metrics>,
        tell: Tell,
    ) -> Self {
        Self {
            places: Semaphore::new(config.connections.min(MOST_CONNECTIONS)),
            questions: Arc::new(Semaphore::new(MOST_QUESTIONS)),
            budgets: Budgets::new(config.upload_bytes, config.download_bytes),
            egress,
            config,
            refusals,
            resolver,
            tell,
            metrics,
        }
    }

    /// Serves one connection of the sandbox to its end.
    pub(super) async fn serve(self: Arc<Self>, mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let Ok(Ok(_place)) = tokio::time::timeout(WAIT, self.places.acquire()).await else {
            let refusal = Refusal {
                rule: Rule::TooMany,
                host: "*".to_owned(),
                port: 0,
                message: format!(
                    "{} connections are open already: close some, then try again.",
                    self.config.connections
                ),
            };
            self.refused(&refusal).await;
            let words = refusal.words();
            let length = words.len();
            let answer = format!(
                "HTTP/1.1 503 Refused by cofferdam egress\r\n{RULE_HEADER}: {}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{words}",
                refusal.rule.as_str()
            );
            let _ = tokio::time::timeout(HEAD_TIMEOUT, stream.write_all(answer.as_bytes())).await;
            return;
        };
        let opened = Arc::new(Mutex::new(None));
        let service = hyper::service::service_fn(|request| {
            let (proxy, opened) = (self.clone(), opened.clone());
            async move { Ok::<_, Infallible>(proxy.answer(request, &opened).await) }
        });
        let total = Duration::from_secs(self.config.total_timeout_s);
        let served = async {
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(LARGEST_HEAD)
                .max_headers(MOST_HEADERS)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a sandbox's proxy connection ended early");
            }
            let tunnel: Option<Tunnel> = opened.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(tunnel) = tunnel {
                tunnel.run(&self).await;
            }
        };
        // Not a task of its own: it ends with the gateway.
        if tokio::time::timeout(total, served).await.is_err() {
            tracing::debug!("a sandbox's proxy connection reached its longest time");
        }
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>, opened: &Mutex<Option<Tunnel>>) -> Response<Body> {
        self.metrics.gateway.egress_request(self.egress.level().as_str());
        let answered = if request.method() == Method::CONNECT {
            self.connect(request, opened).await
        } else {
            self.forward(request).await
        };
        match answered {
            Ok(response) => response,
            Err(No::Refused(refusal)) => {
                self.refused(&refusal).await;
                refused(&refusal)
            }
            Err(No::Told(refusal)) => refused(&refusal),
            Err(No::Failed(message)) => text(StatusCode::BAD_GATEWAY, None, format!("cofferdam: {message}\n")),
        }
    }

    /// Opens a tunnel; it is run when the answer is on its way.
    async fn connect(
        &self,
        mut request: Request<Incoming>,
        opened: &Mutex<Option<Tunnel>>,
    ) -> Result<Response<Body>, No> {
        let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let allowed = self
            .egress
            .decide(&authority.unwrap_or_default(), Way::Tunnel)
            .map_err(No::Refused)?;
        let budget = self.budget(&allowed)?;
        if budget.is_spent(Direction::Up, 0) {
            return Err(No::Refused(Refusal {
                rule: Rule::UploadLimit,
                host: allowed.host.to_string(),
                port: allowed.port,
                message: over(Direction::Up, &allowed.host, &self.config),
            }));
        }
        let upstream = self.dial(&allowed).await?;
        let tunnel = Tunnel {
            upgrade: hyper::upgrade::on(&mut request),
            upstream,
            allowed,
            budget,
        };
        *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
        Ok(Response::new(
            Full::default().map_err(|never| match never {}).boxed_unsync(),
        ))
    }

    /// The budget of a host that is allowed.
    fn budget(&self, allowed: &Allowed) -> Result<Arc<Budget>, No> {
        self.budgets.of(&allowed.host).ok_or_else(|| {
            No::Refused(Refusal {
                rule: Rule::TooMany,
                host: allowed.host.to_string(),
                port: allowed.port,
                message: "this session has asked for too many different hosts.".to_owned(),
            })
        })
    }

    /// Counts a refusal, and tells the first of its kind.
    async fn refused(&self, refusal: &Refusal) {
        self.metrics.gateway.egress_refused(refusal.rule.as_str());
        if self.refusals.note(refusal) {
            let Refusal {
                rule,
                host,
                port,
                message,
            } = refusal;
            (self.tell)(EventBody::EgressRefused {
                host: host.clone(),
                port: *port,
                rule: rule.as_str().to_owned(),
                message: message.clone(),
            })
            .await;
        }
    }
}

/// A sentence about a limit.
fn over(direction: Direction, host: &HostName, config: &Config) -> String {
    match direction {
        Direction::Up => format!(
            "a session may send {} bytes to one host, and {host} got as many (egress.upload_bytes).",
            config.upload_bytes
        ),
        Direction::Down => format!(
            "a session may receive {} bytes from one host, and {host} sent as many (egress.download_bytes).",
            config.download_bytes
        ),
    }
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let status = match refusal.rule {
        Rule::Resolve => StatusCode::BAD_GATEWAY,
        Rule::TooMany => StatusCode::SERVICE_UNAVAILABLE,
        Rule::Level
        | Rule::HostName
        | Rule::IpAddress
        | Rule::Host
        | Rule::Port
        | Rule::Method
        | Rule::TunnelMethod
        | Rule::Scheme
        | Rule::Address
        | Rule::ServerName
        | Rule::NotTls
        | Rule::UploadLimit
        | Rule::DownloadLimit => StatusCode::FORBIDDEN,
    };
    text(status, Some(refusal.rule), refusal.words())
}

fn text(status: StatusCode, rule: Option<Rule>, words: String) -> Response<Body> {
    let mut response = Response::new(Full::from(words).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if let Some(rule) = rule {
        response
            .headers_mut()
            .insert(RULE_HEADER, HeaderValue::from_static(rule.as_str()));
        // Many clients show of a refused CONNECT nothing but this.
        if let Ok(phrase) = ReasonPhrase::try_from(format!("Refused by cofferdam egress ({})", rule.as_str())) {
            response.extensions_mut().insert(phrase);
        }
    }
    response
}

#[cfg(test)]
mod tests;
