//! What stands before every handler: the signature, the request log, the global delay, and faults on demand.
//!
//! Never stores or prints a credential: a request is logged with the name of its token.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::{Deserialize, Serialize};

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

/// A fault to play on requests that match.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    #[serde(default)]
    r#match: Match,
    /// Answer with this status in place of the real answer.
    status: Option<u16>,
    #[serde(default)]
    body: String,
    content_type: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    delay_ms: u64,
    /// Break the connection off inside the answer.
    #[serde(default)]
    cut: bool,
    /// Do what the request asks first; only the answer is then replaced or cut.
    #[serde(default)]
    after: bool,
    /// How many requests it hits.
    #[serde(default = "once")]
    times: u32,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Match {
    method: Option<String>,
    /// A part of path and query.
    path_contains: Option<String>,
}

fn once() -> u32 {
    1
}

/// The log and the faults.
pub(crate) struct Watch {
    seen: Mutex<Vec<Seen>>,
    faults: Mutex<Vec<Fault>>,
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
            faults: Mutex::default(),
            file: Mutex::new(file),
        })
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    pub(crate) fn forget(&self) {
        lock(&self.seen).clear();
    }

    pub(crate) fn add_fault(&self, fault: Fault) {
        lock(&self.faults).push(fault);
    }

    pub(crate) fn faults(&self) -> Vec<Fault> {
        lock(&self.faults).clone()
    }

    pub(crate) fn clear_faults(&self) {
        lock(&self.faults).clear();
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

    fn take_fault(&self, method: &str, path: &str) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        let hit = faults.iter_mut().find(|fault| {
            fault.times > 0
                && fault
                    .r#match
                    .method
                    .as_deref()
                    .is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
                && fault
                    .r#match
                    .path_contains
                    .as_deref()
                    .is_none_or(|part| path.contains(part))
        })?;
        hit.times -= 1;
        let fault = hit.clone();
        faults.retain(|fault| fault.times > 0);
        Some(fault)
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

fn token_name(forge: &Forge, side: Side, request: &Request) -> Option<String> {
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

/// Waits the global delay, then plays a fault if one is set for this request.
pub(crate) async fn faults(State(forge): State<Forge>, request: Request, next: Next) -> Response {
    if !forge.0.delay.is_zero() {
        tokio::time::sleep(forge.0.delay).await;
    }
    let path = request
        .uri()
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    let Some(fault) = forge.0.watch.take_fault(request.method().as_str(), &path) else {
        return next.run(request).await;
    };
    if fault.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
    }
    let pass = fault.after || (fault.status.is_none() && !fault.cut);
    let real = if pass { Some(next.run(request).await) } else { None };
    let mut response = match (fault.status, real) {
        (Some(status), _) => replaced(&fault, status),
        (None, Some(real)) => real,
        (None, None) => Response::new(Body::empty()),
    };
    for (name, value) in &fault.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    if fault.cut { cut(response) } else { response }
}

fn replaced(fault: &Fault, status: u16) -> Response {
    let mut response = Response::new(Body::from(fault.body.clone()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = fault.body.starts_with(['{', '[']);
    let guess = if json {
        "application/json"
    } else {
        "text/plain; charset=utf-8"
    };
    let kind = fault.content_type.as_deref().unwrap_or(guess);
    if let Ok(kind) = HeaderValue::from_str(kind) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

/// The same head, and a body that ends in a broken connection before its first byte.
fn cut(response: Response) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let broken: Result<Bytes, std::io::Error> = Err(std::io::Error::other("cut by the test forge"));
    Response::from_parts(parts, Body::from_stream(futures::stream::iter([broken])))
}
