//! Health, readiness, status and metrics over HTTP, for operators and orchestrators of containers.
//!
//! Reads only; changes nothing (the socket beside it, for operators on the machine, can drain). Listens on loopback unless told otherwise, bounds
//! each request, and shows no more of a session than its id, its stage and its times.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;

use self::socket::Operated;

pub mod client;
pub mod socket;

/// Connections that are served at once; more wait.
const CONNECTIONS: usize = 64;
/// Time for a request's head, and for a whole connection.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a request's head at most.
const HEAD_BYTES: usize = 16 * 1024;
/// Pause after the system refused to accept (no file descriptors left).
const PAUSE: Duration = Duration::from_millis(200);

/// Where to listen.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port of `/livez`, `/readyz`, `/status` and `/metrics`; empty text switches them off.
    #[serde(deserialize_with = "address_or_nothing")]
    #[schemars(with = "String")]
    pub listen: Option<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 9464))),
        }
    }
}

fn address_or_nothing<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be listened on.
    #[error("the admin address {address} cannot be listened on: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The operator's socket cannot be made.
    #[error("the operator's socket {} cannot be made: {source}", .path.display())]
    Socket {
        /// Where.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A question about the worker whose answer makes it ready or not.
type Check = Box<dyn Fn() -> bool + Send + Sync>;

/// Whether the worker takes tasks now, and if not, why.
#[derive(Default)]
pub struct Readiness {
    draining: AtomicBool,
    checks: Mutex<Vec<(&'static str, Check)>>,
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Readiness").field(&self.reasons()).finish()
    }
}

impl Readiness {
    /// Adds a condition, asked at each request: `reason` is shown while it does not hold. It must answer at once.
    pub fn require(&self, reason: &'static str, holds: impl Fn() -> bool + Send + Sync + 'static) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.push((reason, Box::new(holds)));
    }

    /// From now on the worker takes no new tasks.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why the worker takes no tasks now; nothing when it does.
    #[must_use]
    pub fn reasons(&self) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            reasons.push("draining");
        }
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.extend(checks.iter().filter(|(_, holds)| !holds()).map(|(reason, _)| *reason));
        reasons
    }
}

#[derive(Clone)]
struct Shown {
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    operated: Operating,
}

/// The running server.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
    operated: Operating,
}

/// The worker that is asked for its status, once it is there.
#[derive(Clone, Default)]
struct Operating(Arc<OnceLock<Arc<dyn Operated>>>);

impl std::fmt::Debug for Operating {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Operating(..)")
    }
}

impl Admin {
    /// Listens, and serves in the background. `None` when it is switched off.
    pub async fn start(
        config: &Config,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
    ) -> Result<Option<Self>, AdminError> {
        let Some(address) = config.listen else {
            return Ok(None);
        };
        let bind = |source| AdminError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let admin = Self {
            address,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            operated: Operating::default(),
        };
        let operated = admin.operated.clone();
        let routes = routes(Shown {
            metrics,
            readiness,
            operated,
        });
        let accepting = accept(listener, routes, admin.stop.clone(), admin.tasks.clone());
        admin.tasks.spawn(accepting);
        tracing::info!(%address, "admin address");
        Ok(Some(admin))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `/status` is this worker's.
    pub fn shows(&self, operated: Arc<dyn Operated>) {
        // Once; a second worker of one process there is not.
        let _ = self.operated.0.set(operated);
    }

    /// Lets running requests end, for at most this time, and stops.
    pub async fn stop(self, limit: Duration) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(limit, self.tasks.wait()).await.is_err() {
            tracing::debug!("admin requests were cut off");
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn routes(shown: Shown) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(shown)
}

async fn ready(State(shown): State<Shown>) -> Response {
    let reasons = shown.readiness.reasons();
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))).into_response()
}

async fn status(State(shown): State<Shown>) -> Response {
    match shown.operated.0.get() {
        Some(operated) => Json(operated.status()).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
    }
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, shown.metrics.encode()).into_response()
}

/// Written out rather than left to `axum::serve`, which limits neither connections nor the time for a head.
async fn accept(listener: TcpListener, routes: Router, stop: CancellationToken, tasks: TaskTracker) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&room).acquire_owned().await.ok();
                (listener.accept().await, permit)
            } => accepted,
        };
        match accepted {
            (Ok((stream, _)), permit) => {
                let serving = serve(stream, routes.clone(), stop.clone());
                tasks.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            (Err(error), _) => {
                tracing::warn!(%error, "an admin connection could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, routes: Router, stop: CancellationToken) {
    let service = hyper_util::service::TowerToHyperService::new(routes);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let limited = async {
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    // What a client does wrong is its own affair.
    match timeout(CONNECTION_LIMIT, limited).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection ended badly"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::metrics::Build;

    async fn started() -> (Admin, Arc<Readiness>) {
        let readiness = Arc::new(Readiness::default());
        let config = Config {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        };
        let metrics = Arc::new(Metrics::new(&Build::default()).unwrap());
        let admin = Admin::start(&config, metrics, Arc::clone(&readiness)).await.unwrap();
        (admin.unwrap(), readiness)
    }

    async fn ask(admin: &Admin, request: &str) -> String {
        let mut stream = TcpStream::connect(admin.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A refused request may end in a reset.
        let _ = timeout(HEAD_LIMIT * 3, stream.read_to_string(&mut answer))
            .await
            .unwrap();
        answer
    }

    async fn read(admin: &Admin, path: &str) -> String {
        ask(
            admin,
            &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        )
        .await
    }

    #[tokio::test]
    async fn ready_says_why_not_and_alive_stays_alive() {
        let (admin, readiness) = started().await;
        assert!(read(&admin, "/readyz").await.starts_with("HTTP/1.1 200"));
        let broker = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&broker);
        readiness.require("the broker is away", move || asked.load(Ordering::Relaxed));
        readiness.require("the engine is away", || true);
        let answer = read(&admin, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.ends_with("\r\n\r\nthe broker is away\n"),
            "{answer}"
        );
        broker.store(true, Ordering::Relaxed);
        assert!(read(&admin, "/readyz").await.starts_with("HTTP/1.1 200"));
        readiness.drain();
        assert!(read(&admin, "/readyz").await.ends_with("\r\n\r\ndraining\n"));
        assert!(read(&admin, "/livez").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn metrics_are_text_and_nothing_else_is_there() {
        let (admin, _readiness) = started().await;
        let answer = read(&admin, "/metrics").await;
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("cofferdam_build_info{commit=\"\",version=\"\"} 1"));
        assert!(read(&admin, "/").await.starts_with("HTTP/1.1 404"));
        let early = read(&admin, "/status").await;
        assert!(
            early.starts_with("HTTP/1.1 503") && early.ends_with("starting\n"),
            "{early}"
        );
        let post = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert!(ask(&admin, post).await.starts_with("HTTP/1.1 405"));
    }

    #[tokio::test]
    async fn slow_and_large_heads_are_cut_off() {
        let (admin, _readiness) = started().await;
        // Ends although the client never finishes its head: `ask` fails otherwise.
        ask(&admin, "GET /livez HTTP/1.1\r\nHost: ").await;
        let large = format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(HEAD_BYTES * 2));
        assert!(!ask(&admin, &large).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn stopping_ends_idle_connections_and_frees_the_address() {
        let (admin, _readiness) = started().await;
        let address = admin.address();
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        admin.stop(Duration::from_secs(10)).await;
        let mut rest = Vec::new();
        timeout(HEAD_LIMIT, idle.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[test]
    fn the_address_can_be_moved_and_switched_off() {
        let read = |text: &str| toml::from_str::<Config>(text);
        assert_eq!(read("").unwrap().listen.unwrap().to_string(), "127.0.0.1:9464");
        assert_eq!(
            read("listen = \"[::1]:1\"").unwrap().listen.unwrap().to_string(),
            "[::1]:1"
        );
        assert!(read("listen = \"\"").unwrap().listen.is_none());
        assert!(read("listen = \"here\"").is_err());
        assert!(read("port = 1").is_err());
    }
}
