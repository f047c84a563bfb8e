//! Asks the worker of a state directory over its socket. For commands on the same machine.
//!
//! Every question has a time limit, and no answer is read without a bound.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::socket::{Collected, NAME, Status};
use crate::metrics::Told;

/// How long a worker may take to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// How long removing may take; the worker goes on with it all the same.
const LONG: Duration = Duration::from_secs(55);
/// Longest answer, in bytes: a thousand sessions have room.
const LONGEST: usize = 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no worker runs with state_dir {}: start one with `cofferdam run`, or name the configuration of the one that you mean with --config",
        .state_dir.display()
    )]
    NoWorker {
        /// Where it was looked for.
        state_dir: PathBuf,
    },
    /// The socket is another user's.
    #[error("the worker of {} belongs to another user: ask as that user, or as root", .state_dir.display())]
    NotYours {
        /// Where it is.
        state_dir: PathBuf,
    },
    /// It runs and does not answer as it should.
    #[error("the worker of {} does not answer ({detail}): look into its log", .state_dir.display())]
    Silent {
        /// Where it is.
        state_dir: PathBuf,
        /// What happened.
        detail: String,
    },
}

/// What the worker does now.
///
/// # Errors
/// There is none, or it does not answer.
pub async fn status(state_dir: &Path) -> Result<Status, AskError> {
    ask(state_dir, Method::GET, "/status", LIMIT).await
}

/// Tells the worker to take no new task, and in a hurry to end its sessions too; says what it does now.
///
/// # Errors
/// There is none, or it does not answer.
pub async fn drain(state_dir: &Path, hurry: bool) -> Result<Status, AskError> {
    ask(state_dir, Method::POST, if hurry { "/hurry" } else { "/drain" }, LIMIT).await
}

/// What the worker said of a session that runs or ran there; `None` where it knows nothing of it.
///
/// # Errors
/// There is none, or it does not answer.
pub async fn told(state_dir: &Path, session: &str) -> Result<Option<Told>, AskError> {
    ask(state_dir, Method::GET, &format!("/sessions/{session}"), LIMIT).await
}

/// Lists what nobody owns and, unless it is only to be listed, has it removed.
///
/// # Errors
/// There is none, or it does not answer.
pub async fn collect(state_dir: &Path, only_list: bool) -> Result<Collected, AskError> {
    let method = if only_list { Method::GET } else { Method::POST };
    ask(state_dir, method, "/garbage", LONG).await
}

async fn ask<T: DeserializeOwned>(
    state_dir: &Path,
    method: Method,
    path: &str,
    limit: Duration,
) -> Result<T, AskError> {
    let silent = |detail: String| AskError::Silent {
        state_dir: state_dir.to_owned(),
        detail,
    };
    let asking = async {
        let connected = UnixStream::connect(state_dir.join(NAME)).await;
        let stream = connected.map_err(|error| {
            let state_dir = state_dir.to_owned();
            let kind = error.kind();
            if matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
                AskError::NoWorker { state_dir }
            } else if kind == ErrorKind::PermissionDenied {
                AskError::NotYours { state_dir }
            } else {
                silent(error.to_string())
            }
        })?;
        let told = |error: hyper::Error| silent(error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(told)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "worker")
            .body(Body::empty())
            .map_err(|error| silent(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(told)?;
        if !answer.status().is_success() {
            return Err(silent(format!("status {}", answer.status())));
        }
        let body = axum::body::to_bytes(Body::new(answer.into_body()), LONGEST)
            .await
            .map_err(|error| silent(error.to_string()))?;
        serde_json::from_slice(&body).map_err(|error| silent(error.to_string()))
    };
    tokio::time::timeout(limit, asking)
        .await
        .unwrap_or_else(|_| Err(silent(format!("nothing within {} s", limit.as_secs()))))
}
