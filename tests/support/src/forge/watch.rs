//! What stands before every handler: the signature and the request log.
//!
//! Never stores or prints a credential: a request is logged with the name of its token.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;

use super::credentials::{Presented, presented};
use super::seed::Side;
use super::{Error, Forge, SERVER};

/// One answered request.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Seen {
    method: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    status: u16,
    /// Name of the token, `?` for an unknown one, null for none.
    token: Option<String>,
    ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
}

/// The log.
pub(crate) struct Watch {
    seen: Mutex<Vec<Seen>>,
    file: Mutex<Option<File>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let open = |path: &Path| {
            let file = File::options().create(true).append(true).open(path);
            file.map_err(|source| Error::Write {
                path: path.to_owned(),
                source,
            })
        };
        let file = path.map(open).transpose()?;
        Ok(Self {
            seen: Mutex::default(),
            file: Mutex::new(file),
        })
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    pub(crate) fn forget(&self) {
        lock(&self.seen).clear();
    }

    fn record(&self, one: Seen) {
        if let Some(file) = lock(&self.file).as_mut() {
            // A log that cannot be written must not change what the forge answers.
            if let Ok(line) = serde_json::to_string(&one) {
                drop(writeln!(file, "{line}"));
            }
        }
        lock(&self.seen).push(one);
    }
}

/// Says on every answer who answered.
pub(crate) async fn sign(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .insert(header::SERVER, HeaderValue::from_static(SERVER));
    response
}

pub(crate) fn token_name(forge: &Forge, side: Side, request: &Request) -> Option<String> {
    match presented(forge, side, request.headers(), request.uri().query()) {
        Presented::Nothing => None,
        Presented::Unknown => Some("?".to_owned()),
        Presented::Expired(name) | Presented::Revoked(name) => Some(name),
        Presented::Alive(caller) => Some(caller.token.name),
    }
}

/// The query without a token in it.
fn clean_query(query: &str) -> String {
    let parts: Vec<&str> = query
        .split('&')
        .map(|pair| {
            if pair.starts_with("private_token=") {
                "private_token=…"
            } else {
                pair
            }
        })
        .collect();
    parts.join("&")
}

/// Which forge a path belongs to.
pub(crate) fn side_of(path: &str) -> Side {
    if path == "/gitlab" || path.starts_with("/gitlab/") {
        Side::Gitlab
    } else {
        Side::Github
    }
}

/// Logs each request with its answer.
pub(crate) async fn log(State(forge): State<Forge>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let side = side_of(request.uri().path());
    let mut one = Seen {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().map(clean_query),
        status: 0,
        token: token_name(&forge, side, &request),
        ms: 0,
        user_agent: request
            .headers()
            .get(header::USER_AGENT)
            .and_then(|v| v.to_str().ok())
            .map(ToOwned::to_owned),
    };
    let response = next.run(request).await;
    one.status = response.status().as_u16();
    one.ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    forge.0.watch.record(one);
    response
}
