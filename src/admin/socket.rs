//! The operator's socket in the state directory: what the worker does now, what it said of a session, and the words that drain it and clean up.
//!
//! Open to the worker's own user and to root alone, by the socket's mode and by what the kernel says of who calls. Shows no credential: what
//! is told of a session was masked as the log is.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Path as Segment, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{AdminError, PAUSE, serve};
use crate::metrics::Told;

/// Its name in the state directory.
pub const NAME: &str = "admin.sock";
/// Connections that are served at once; more wait.
const CONNECTIONS: usize = 8;

/// What a worker does now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The worker's name.
    pub worker: String,
    /// The program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started, in seconds of Unix time.
    pub since: i64,
    /// Why it takes no tasks now; nothing when it does.
    pub not_ready: Vec<String>,
    /// How long running sessions may go on after it was told to stop, in seconds.
    pub drain_s: u64,
    /// How many sessions it runs at most.
    pub slots: usize,
    /// The sessions that it runs, the oldest first.
    pub sessions: Vec<SessionStatus>,
}

/// One session of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its id.
    pub session: String,
    /// Which attempt at it this is.
    pub attempt: u32,
    /// The stage that it is in; nothing before the first.
    pub stage: Option<String>,
    /// For how long it has been in that stage, in seconds.
    pub stage_s: u64,
    /// For how long it runs, in seconds.
    pub age_s: u64,
    /// Whether it was told to stop.
    pub stopping: bool,
    /// Whether it waits for people, or for its next prompt.
    #[serde(default)]
    pub waiting: bool,
}

/// Something that nobody owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garbage {
    /// `container`, `directory`, `session`, `bundle` or `mirror`.
    pub kind: String,
    /// The engine's name of it, or a path.
    pub what: String,
    /// Why it goes.
    pub why: String,
    /// Whether it was removed.
    pub removed: bool,
}

/// What nobody owns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// All that was found.
    pub found: Vec<Garbage>,
    /// What could not be looked at.
    pub problems: Vec<String>,
}

/// What an operator can have from a worker.
#[async_trait]
pub trait Operated: Send + Sync {
    /// What it does now.
    fn status(&self) -> Status;

    /// Takes no new task from now on; running sessions go on for the time that is configured.
    fn drain(&self);

    /// Drains, and ends the running sessions at once, with their work kept.
    fn hurry(&self);

    /// The last lines of a session that runs or ran here; `None` where nothing is known of it.
    fn told(&self, session: &str) -> Option<Told>;

    /// Lists what nobody owns and, unless it is only to be listed, removes it.
    async fn collect(&self, only_list: bool) -> Collected;
}

/// The socket of a running worker; gone when this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    stop: CancellationToken,
}

impl Socket {
    /// Listens in the state directory, which must be this worker's own: what a worker before left there is replaced.
    ///
    /// # Errors
    /// The socket cannot be made, for example because the path is too long.
    pub fn start(state_dir: &Path, operated: Arc<dyn Operated>) -> Result<Self, AdminError> {
        let path = state_dir.join(NAME);
        let failed = |source| AdminError::Socket {
            path: path.clone(),
            source,
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        // Who calls in the moment before is found out by the kernel's word on it.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let stop = CancellationToken::new();
        let routes = Router::new()
            .route("/status", get(status))
            .route("/drain", post(drain))
            .route("/hurry", post(hurry))
            .route("/sessions/{session}", get(told))
            .route("/garbage", get(list).post(collect))
            .with_state(operated);
        tokio::spawn(accept(listener, routes, stop.clone()));
        Ok(Self { path, stop })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.stop.cancel();
        // A worker that follows makes its own.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn status(State(operated): State<Arc<dyn Operated>>) -> Response {
    Json(operated.status()).into_response()
}

async fn drain(State(operated): State<Arc<dyn Operated>>) -> Response {
    operated.drain();
    (StatusCode::ACCEPTED, Json(operated.status())).into_response()
}

async fn hurry(State(operated): State<Arc<dyn Operated>>) -> Response {
    operated.hurry();
    (StatusCode::ACCEPTED, Json(operated.status())).into_response()
}

async fn told(State(operated): State<Arc<dyn Operated>>, Segment(session): Segment<String>) -> Response {
    Json(operated.told(&session)).into_response()
}

async fn list(State(operated): State<Arc<dyn Operated>>) -> Response {
    Json(operated.collect(true).await).into_response()
}

async fn collect(State(operated): State<Arc<dyn Operated>>) -> Response {
    // In a task of its own: who hangs up does not cut it off.
    let collected = tokio::spawn(async move { operated.collect(false).await }).await;
    match collected {
        Ok(collected) => Json(collected).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn accept(listener: UnixListener, routes: Router, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let own = nix::unistd::geteuid().as_raw();
    loop {
        // The semaphore is never closed.
        let permit = Arc::clone(&room).acquire_owned().await.ok();
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let caller = stream.peer_cred().map(|caller| caller.uid());
                if !caller.is_ok_and(|uid| uid == own || uid == 0) {
                    tracing::warn!("a stranger at the operator's socket was turned away");
                    continue;
                }
                let serving = serve(stream, routes.clone(), stop.clone());
                tokio::spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection at the operator's socket could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::client;
    use super::*;

    #[derive(Default)]
    struct Words(Mutex<Vec<&'static str>>);

    #[async_trait]
    impl Operated for Words {
        fn status(&self) -> Status {
            Status {
                worker: "w".into(),
                version: "1".into(),
                pid: 1,
                since: 0,
                not_ready: self.0.lock().unwrap().iter().map(ToString::to_string).collect(),
                drain_s: 1,
                slots: 1,
                sessions: Vec::new(),
            }
        }

        fn drain(&self) {
            self.0.lock().unwrap().push("drain");
        }

        fn hurry(&self) {
            self.0.lock().unwrap().push("hurry");
        }

        fn told(&self, session: &str) -> Option<Told> {
            (session == "known").then(|| Told {
                dropped: 1,
                lines: vec!["{}".into()],
            })
        }

        async fn collect(&self, only_list: bool) -> Collected {
            Collected {
                found: Vec::new(),
                problems: vec![only_list.to_string()],
            }
        }
    }

    #[tokio::test]
    async fn it_answers_its_owner_and_is_gone_with_the_worker() {
        let state = tempfile::tempdir().unwrap();
        let is_nobody = async || {
            matches!(
                client::status(state.path()).await,
                Err(client::AskError::NoWorker { .. })
            )
        };
        assert!(is_nobody().await);
        let told = Arc::new(Words::default());
        let socket = Socket::start(state.path(), told.clone()).unwrap();
        let mode = std::fs::metadata(state.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(client::status(state.path()).await.unwrap(), told.status());
        let drained = client::drain(state.path(), false).await.unwrap();
        assert_eq!(drained.not_ready, ["drain"]);
        let hurried = client::drain(state.path(), true).await.unwrap();
        assert_eq!(hurried.not_ready, ["drain", "hurry"]);
        assert_eq!(client::told(state.path(), "known").await.unwrap(), told.told("known"));
        assert_eq!(client::told(state.path(), "other").await.unwrap(), None);
        for only_list in [true, false] {
            let collected = client::collect(state.path(), only_list).await.unwrap();
            assert_eq!(collected.problems, [only_list.to_string()]);
        }
        drop(socket);
        assert!(is_nobody().await);
        // What a killed worker leaves does not keep the next one from its place, and is nobody.
        drop(std::os::unix::net::UnixListener::bind(state.path().join(NAME)).unwrap());
        assert!(is_nobody().await);
        let _again = Socket::start(state.path(), told.clone()).unwrap();
        assert!(client::status(state.path()).await.is_ok());
    }
}
