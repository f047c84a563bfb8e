//! A server on loopback for tests of the clients: answers by a script and remembers what it was asked.
//!
//! Never outlives its value, never listens beyond loopback, and knows nothing of what forges do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use http::HeaderMap;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::http::pace::Pace;
use super::{Clients, Config, Connect as _, CountRequests, Forge};
use crate::message::{ForgeKind, ProjectPath};
use crate::secret::Secret;

/// The token that tests use; no error may hold it.
pub(super) const TOKEN: &str = "token-0123456789abcdef";

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Seen {
    /// Method and path, without the query.
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.method, self.target.split('?').next().unwrap_or_default())
    }
}

/// An answer.
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, &body.to_string()).with("content-type", "application/json")
    }

    pub(super) fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.to_owned(),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The server.
pub(super) struct Fake {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// A server that answers each request by `script`, which is given the request and how many came before it.
    pub(super) async fn start(script: impl Fn(&Seen, usize) -> Reply + Clone + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let service = axum::Router::new().fallback(move |request: Request| {
            let (log, script) = (Arc::clone(&log), script.clone());
            async move {
                let (parts, body) = request.into_parts();
                let bytes = to_bytes(body, 1 << 20).await.unwrap();
                let seen = Seen {
                    method: parts.method.to_string(),
                    target: parts.uri.to_string(),
                    headers: parts.headers,
                    body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
                };
                let mut log = log.lock().unwrap();
                let reply = script(&seen, log.len());
                log.push(seen);
                let mut response = Response::builder().status(reply.status);
                for (name, value) in reply.headers {
                    response = response.header(name, value);
                }
                response.body(Body::from(reply.body)).unwrap()
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { url, seen, task }
    }

    /// What it was asked so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Method and path of what it was asked so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

/// Counts requests for a test to look at.
#[derive(Default)]
pub(super) struct Counter(pub(super) Mutex<Vec<(&'static str, u16)>>);

impl CountRequests for Counter {
    fn count(&self, _: ForgeKind, endpoint: &'static str, status: u16) {
        self.0.lock().unwrap().push((endpoint, status));
    }

    fn left(&self, _: ForgeKind, _: u8) {}
}

/// Delays that do not keep a test waiting.
pub(super) fn quick() -> Pace {
    Pace {
        total: Duration::from_secs(5),
        first: Duration::from_millis(2),
        settling: Duration::from_millis(2),
        between_writes: Some(Duration::from_millis(2)),
    }
}

/// A client of the server at `url` and its counter.
pub(super) fn client_of(kind: ForgeKind, url: &str, config: Config, pace: Pace) -> (Arc<dyn Forge>, Arc<Counter>) {
    // Another test may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let counter = Arc::new(Counter::default());
    let counting: Arc<dyn CountRequests> = Arc::<Counter>::clone(&counter);
    let clients = Clients::new(config, counting).unwrap().paced(pace);
    (
        clients.connect(kind, Some(url), &Secret::new(TOKEN), None).unwrap(),
        counter,
    )
}

/// The same, where answers over `largest` bytes are too large.
pub(super) fn client_with(kind: ForgeKind, url: &str, largest: usize) -> (Arc<dyn Forge>, Arc<Counter>) {
    let config = Config {
        allow_http: true,
        largest_answer: largest,
        request_timeout_s: 10,
        ..Config::default()
    };
    client_of(kind, url, config, quick())
}

/// A client of the server at `url`.
pub(super) fn client(kind: ForgeKind, url: &str) -> Arc<dyn Forge> {
    client_with(kind, url, 1 << 20).0
}

/// Clients that several connections share.
pub(super) fn clients() -> Clients {
    // Another test may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config {
        allow_http: true,
        ..Config::default()
    };
    Clients::new(config, Arc::new(Counter::default()))
        .unwrap()
        .paced(quick())
}

/// A connection of these clients to the server at `url`.
pub(super) fn connected(clients: &Clients, kind: ForgeKind, url: &str) -> Arc<dyn Forge> {
    clients.connect(kind, Some(url), &Secret::new(TOKEN), None).unwrap()
}

/// A project path.
pub(super) fn path(text: &str) -> ProjectPath {
    text.parse().unwrap()
}
