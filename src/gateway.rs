//! The worker's end of a sandbox's one socket: `inside`'s control and stdio, an HTTP service of git, MCP and model routes, and the proxy of the way out.
//!
//! The socket itself says which sandbox is talking; nothing that comes over it is believed beyond that. Closing the gateway closes the
//! sandbox's only way out.

use std::collections::{HashMap, VecDeque};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cofferdam_inside::{Preamble, Token};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

pub mod egress;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod git;
mod http;
pub mod inside;
pub mod model;
pub mod process;

pub use inside::Inside;
pub use process::Process;

#[cfg(test)]
mod tests;

/// What the gateways of all sandboxes of a worker may take together.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Memory for requests to models, of all sessions together, in bytes; one session gets half of it at most. A request that finds none
    /// waits 10 s, and is then told to try again.
    pub body_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_bytes: 256 * 1024 * 1024,
        }
    }
}

/// The loopback port in the sandbox behind which the HTTP routes are.
pub const HTTP_PORT: u16 = 8470;
/// The loopback port in the sandbox behind which the proxy of the way out is.
pub const PROXY_PORT: u16 = 8471;

/// Most relayed connections of one sandbox at a time.
const MOST_RELAYED: usize = 256;
/// Most connections of one sandbox that have not yet said what they are; beyond it the one that waits longest is closed. `inside` says it at
/// once, so an agent that opens connections and says nothing cannot keep it out.
const MOST_SILENT: usize = 64;
/// A connection that does not say what it is within this time is closed.
const PREAMBLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the gateway did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GatewayError {
    /// The socket could not be made.
    #[error("the sandbox's socket {path} could not be made: {detail}")]
    Bind {
        /// Its path.
        path: String,
        /// What happened.
        detail: String,
    },
    /// `inside` did not report in time.
    #[error("the sandbox started, but `inside` did not report within {} s", after.as_secs())]
    Hello {
        /// The limit.
        after: Duration,
    },
    /// The control connection ended.
    #[error("the connection to `inside` is gone")]
    Gone,
    /// `inside` said no.
    #[error("the sandbox could not {act}: {reason}")]
    Refused {
        /// What was ordered.
        act: &'static str,
        /// Its words, bounded.
        reason: String,
    },
    /// `inside` did not answer in time.
    #[error("the sandbox did not answer when it should {act}")]
    Unanswered {
        /// What was ordered.
        act: &'static str,
    },
}

impl GatewayError {
    /// Whether a fresh sandbox may do better.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Hello { .. } | Self::Gone | Self::Unanswered { .. } => true,
            Self::Bind { .. } | Self::Refused { .. } => false,
        }
    }
}

/// What connections are waited for.
#[derive(Default)]
struct Expected {
    control: Option<oneshot::Sender<UnixStream>>,
    stdio: HashMap<Token, oneshot::Sender<UnixStream>>,
}

/// Makes the HTTP routes of one connection. A session that rests has no connection, and keeps none of what routing needs (8 KB).
pub type Routes = Arc<dyn Fn() -> axum::Router + Send + Sync>;

/// Shared between the accepting task and the handles.
pub(crate) struct Shared {
    expected: Mutex<Expected>,
    routes: Mutex<Routes>,
    proxy: Mutex<Option<Arc<egress::Proxy>>>,
}

impl Shared {
    fn expected(&self) -> std::sync::MutexGuard<'_, Expected> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the stdio connection that carries this token.
    pub(crate) fn expect_stdio(&self, token: Token) -> oneshot::Receiver<UnixStream> {
        let (sender, receiver) = oneshot::channel();
        self.expected().stdio.insert(token, sender);
        receiver
    }

    /// No longer waits for it.
    pub(crate) fn forget_stdio(&self, token: &Token) {
        self.expected().stdio.remove(token);
    }
}

/// One sandbox's gateway. Dropping it closes every connection.
pub struct Gateway {
    shared: Arc<Shared>,
    control: Option<oneshot::Receiver<UnixStream>>,
    stop: CancellationToken,
    /// Ends all connections but the one to `inside` and those of processes.
    ways: CancellationToken,
    socket: PathBuf,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Gateway")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Gateway {
    /// Binds the socket and begins to accept. Until [`Gateway::serve`] every HTTP request is answered with 503.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn open(socket: &Path) -> Result<Self, GatewayError> {
        let failed = |error: std::io::Error| GatewayError::Bind {
            path: socket.display().to_string(),
            detail: error.to_string(),
        };
        let listener = UnixListener::bind(socket).map_err(failed)?;
        // The sandbox's user is not the worker's; the directory above decides who reaches the socket at all.
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
        let (control_tx, control) = oneshot::channel();
        let closed =
            || axum::Router::new().fallback(|| async { (axum::http::StatusCode::SERVICE_UNAVAILABLE, "not yet\n") });
        let shared = Arc::new(Shared {
            expected: Mutex::new(Expected {
                control: Some(control_tx),
                stdio: HashMap::new(),
            }),
            routes: Mutex::new(Arc::new(closed)),
            proxy: Mutex::new(None),
        });
        let stop = CancellationToken::new();
        let ways = stop.child_token();
        tokio::spawn(accept(listener, shared.clone(), ways.clone()));
        Ok(Self {
            shared,
            control: Some(control),
            stop,
            ways,
            socket: socket.to_owned(),
        })
    }

    /// Sets the HTTP routes for connections from now on.
    pub fn serve(&self, routes: Routes) {
        *self.shared.routes.lock().unwrap_or_else(PoisonError::into_inner) = routes;
    }

    /// Opens the way out for connections from now on; until then they are closed at once.
    pub fn serve_egress(&self, proxy: Arc<egress::Proxy>) {
        *self.shared.proxy.lock().unwrap_or_else(PoisonError::into_inner) = Some(proxy);
    }

    /// Closes what leads out of the sandbox, for good: git, tools, models and the proxy. `inside` can still be given orders.
    pub fn close_ways(&self) {
        self.ways.cancel();
    }

    /// Waits for `inside` to report. Once.
    ///
    /// # Errors
    /// It does not report in time, or was waited for before.
    pub async fn inside(&mut self, limit: Duration) -> Result<Inside, GatewayError> {
        let control = self.control.take().ok_or(GatewayError::Gone)?;
        let hello = async {
            let stream = control.await.map_err(|_| GatewayError::Gone)?;
            Inside::greet(stream, self.shared.clone(), self.stop.child_token()).await
        };
        tokio::time::timeout(limit, hello)
            .await
            .unwrap_or(Err(GatewayError::Hello { after: limit }))
    }
}

/// Accepts until stopped; each connection lives in a task of its own.
async fn accept(listener: UnixListener, shared: Arc<Shared>, stop: CancellationToken) {
    let relayed = Arc::new(Semaphore::new(MOST_RELAYED));
    // Places of its own: a flood to the proxy does not keep git and the tools out.
    let proxied = Arc::new(Semaphore::new(egress::MOST_CONNECTIONS));
    let mut silent: VecDeque<CancellationToken> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: waiting is the only thing that helps.
                tracing::warn!(%error, "a sandbox's connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        silent.retain(|waiting| !waiting.is_cancelled());
        if silent.len() >= MOST_SILENT
            && let Some(longest) = silent.pop_front()
        {
            longest.cancel();
        }
        let waiting = CancellationToken::new();
        silent.push_back(waiting.clone());
        let (shared, stop) = (shared.clone(), stop.clone());
        let places = [relayed.clone(), proxied.clone()];
        tokio::spawn(async move {
            tokio::select! {
                () = dispatch(stream, &shared, &places, waiting) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Reads what a connection is for and hands it to whom it concerns.
async fn dispatch(mut stream: UnixStream, shared: &Shared, places: &[Arc<Semaphore>; 2], waiting: CancellationToken) {
    let [relayed, proxied] = places;
    let preamble = tokio::select! {
        read = tokio::time::timeout(PREAMBLE_TIMEOUT, Preamble::read(&mut stream)) => read,
        () = waiting.cancelled() => return,
    };
    // Said or over: either way it is not silent any more.
    waiting.cancel();
    let Ok(Ok(preamble)) = preamble else { return };
    match preamble {
        // Only the first control connection counts: `inside` dials it before anything else runs in the sandbox.
        Preamble::Control => {
            if let Some(waiting) = shared.expected().control.take() {
                let _ = waiting.send(stream);
            }
        }
        Preamble::Stdio(token) => {
            if let Some(waiting) = shared.expected().stdio.remove(&token) {
                let _ = waiting.send(stream);
            }
        }
        Preamble::Relay(HTTP_PORT) => {
            let Ok(_place) = relayed.try_acquire() else { return };
            let routes = shared.routes.lock().unwrap_or_else(PoisonError::into_inner).clone();
            http::serve(stream, routes()).await;
        }
        Preamble::Relay(PROXY_PORT) => {
            let Ok(_place) = proxied.try_acquire() else { return };
            let proxy = shared.proxy.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(proxy) = proxy {
                proxy.serve(stream).await;
            }
        }
        Preamble::Relay(_) => {}
    }
}
