//! Faults on demand: what a network, a proxy or an overloaded forge does to answers.
//!
//! Never invents one: each is set by a test through `/_test/faults`, for the requests that it names and as often as it says.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};

use super::Forge;
use super::watch::{side_of, token_name};

/// A fault to play on requests that match. Parts may be joined: a late, cut 502 with an HTML page is one fault.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Fault {
    r#match: Match,
    /// Let so many matching requests pass first.
    skip: u32,
    /// How many requests it hits after those; 1 if absent.
    times: Option<u32>,
    /// It hits for ever.
    always: bool,

    /// Answer with this status in place of the real answer.
    status: Option<u16>,
    /// With this body.
    body: String,
    /// With these bytes, in Base64, for bodies that are not text.
    body_base64: Option<String>,
    /// Then with so many bytes `x`, sent as they are made.
    filler_bytes: u64,
    /// And then with this.
    body_end: String,
    /// Guessed from the body if absent.
    content_type: Option<String>,

    /// Set these headers.
    headers: BTreeMap<String, String>,
    /// Take these away.
    without_headers: Vec<String>,
    /// Let the links of `Link` point to this `scheme://host`.
    link_host: Option<String>,
    /// Replace texts in headers and body of the answer.
    rewrite: Vec<(String, String)>,
    /// Keep only so many bytes of the body, in an answer that is well otherwise.
    truncate: Option<usize>,

    /// Wait before anything is done.
    delay_ms: u64,
    /// Wait inside the body, after so many bytes.
    stall_after_bytes: usize,
    stall_ms: u64,
    /// Break the connection off inside the answer.
    cut: bool,
    /// After so many bytes of the body.
    cut_after_bytes: usize,
    /// Do what the request asks first; only the answer is then replaced or cut.
    after: bool,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Match {
    method: Option<String>,
    /// A part of path and query.
    path_contains: Option<String>,
    /// The whole path, without the query; `*` stands for any text.
    path: Option<String>,
    /// Name of the token.
    token: Option<String>,
}

impl Fault {
    /// The same, if it can be played.
    pub(crate) fn judged(self) -> Result<Self, String> {
        if let Some(status) = self.status {
            StatusCode::from_u16(status).map_err(|_| format!("{status} is no status"))?;
        }
        for name in self.headers.keys().chain(&self.without_headers) {
            HeaderName::try_from(name).map_err(|_| format!("{name} is no header"))?;
        }
        if let Some(text) = &self.body_base64 {
            STANDARD
                .decode(text)
                .map_err(|_| "body_base64 is not Base64".to_owned())?;
        }
        if self.status.is_none() && (!self.body.is_empty() || self.body_base64.is_some() || self.filler_bytes > 0) {
            return Err("a body needs a status".to_owned());
        }
        Ok(self)
    }

    fn left(&self) -> bool {
        self.always || self.times != Some(0)
    }
}

/// Whether a text fits a pattern in which `*` is any text.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = rest.split('*').collect();
    let Some((last, between)) = parts.split_last() else {
        return true;
    };
    for part in between {
        match text.find(part) {
            Some(at) => text = text.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    text.ends_with(last)
}

impl Match {
    fn hits(&self, method: &str, path: &str, whole: &str, token: Option<&str>) -> bool {
        let same = |wanted: &Option<String>, is: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(is);
        same(&self.method, &|wanted| wanted.eq_ignore_ascii_case(method))
            && same(&self.path_contains, &|part| whole.contains(part))
            && same(&self.path, &|pattern| fits(pattern, path))
            && same(&self.token, &|wanted| token == Some(wanted))
    }
}

/// The faults that wait for their requests.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, fault: Fault) {
        self.lock().push(fault);
    }

    pub(crate) fn waiting(&self) -> Vec<Fault> {
        self.lock().clone()
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// The first fault for this request, used up by one.
    fn take(&self, forge: &Forge, request: &Request) -> Option<Fault> {
        let mut faults = self.lock();
        if faults.is_empty() {
            return None;
        }
        let path = request.uri().path();
        let whole = request.uri().path_and_query().map_or(path, |whole| whole.as_str());
        let token = token_name(forge, side_of(path), request);
        let mut hit = None;
        for fault in faults.iter_mut().filter(|fault| fault.left()) {
            if !fault
                .r#match
                .hits(request.method().as_str(), path, whole, token.as_deref())
            {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times = Some(fault.times.unwrap_or(1).saturating_sub(1));
            hit = Some(fault.clone());
            break;
        }
        faults.retain(Fault::left);
        hit
    }
}

/// Waits the global delay, then plays a fault if one is set for this request.
pub(crate) async fn play(State(forge): State<Forge>, request: Request, next: Next) -> Response {
    if !forge.0.delay.is_zero() {
        tokio::time::sleep(forge.0.delay).await;
    }
    let Some(fault) = forge.0.faults.take(&forge, &request) else {
        return next.run(request).await;
    };
    if fault.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
    }
    let nothing_sent = fault.cut && fault.cut_after_bytes == 0;
    let pass = fault.after || (fault.status.is_none() && !nothing_sent);
    let real = if pass { Some(next.run(request).await) } else { None };
    let response = match (fault.status, real) {
        (Some(status), _) => replaced(&fault, status),
        (None, Some(real)) => real,
        (None, None) => Response::new(Body::empty()),
    };
    let response = headers(&fault, response);
    body(&fault, response).await
}

fn replaced(fault: &Fault, status: u16) -> Response {
    let bytes = fault.body_base64.as_ref().and_then(|text| STANDARD.decode(text).ok());
    let start = Bytes::from(bytes.unwrap_or_else(|| fault.body.clone().into_bytes()));
    let guess = match start.first() {
        Some(b'{' | b'[') => "application/json",
        Some(b'<') => "text/html; charset=utf-8",
        _ => "text/plain; charset=utf-8",
    };
    let kind = HeaderValue::from_str(fault.content_type.as_deref().unwrap_or(guess));
    let body = if fault.filler_bytes == 0 {
        let mut whole = start.to_vec();
        whole.extend_from_slice(fault.body_end.as_bytes());
        Body::from(whole)
    } else {
        let end = Bytes::from(fault.body_end.clone());
        let parts = stream::iter([start])
            .chain(filler(fault.filler_bytes))
            .chain(stream::iter([end]));
        Body::from_stream(parts.map(Ok::<_, std::io::Error>))
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

/// So many bytes, never held at once.
fn filler(bytes: u64) -> impl stream::Stream<Item = Bytes> {
    const CHUNK: u64 = 64 * 1024;
    let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
    stream::unfold(bytes, move |left| {
        let chunk = chunk.clone();
        async move {
            let size = left.min(CHUNK);
            (size > 0).then(|| (chunk.slice(..usize::try_from(size).unwrap_or_default()), left - size))
        }
    })
}

fn headers(fault: &Fault, mut response: Response) -> Response {
    let all = response.headers_mut();
    for value in all.values_mut() {
        let Ok(text) = value.to_str() else { continue };
        let changed = fault
            .rewrite
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        if let Ok(changed) = HeaderValue::try_from(changed) {
            *value = changed;
        }
    }
    if let (Some(host), Some(link)) = (&fault.link_host, all.get(header::LINK)) {
        let links = link.to_str().unwrap_or_default().split('<');
        let moved: Vec<String> = links
            .map(
                |part| match part.split_once("://").and_then(|(_, rest)| rest.split_once('/')) {
                    Some((_, path)) => format!("{host}/{path}"),
                    None => part.to_owned(),
                },
            )
            .collect();
        if let Ok(moved) = HeaderValue::try_from(moved.join("<")) {
            all.insert(header::LINK, moved);
        }
    }
    for (name, value) in &fault.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            all.insert(name, value);
        }
    }
    for name in &fault.without_headers {
        all.remove(name.as_str());
    }
    response
}

/// What happens to the body on its way: replaced words, a cut, a break, a wait.
async fn body(fault: &Fault, response: Response) -> Response {
    let whole = fault.rewrite.is_empty() && fault.truncate.is_none() && fault.stall_ms == 0 && !fault.cut;
    if whole {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // Our own answer, or a body that a test made.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return Response::from_parts(parts, Body::empty());
    };
    let mut bytes = match std::str::from_utf8(&bytes) {
        Ok(text) if !fault.rewrite.is_empty() => {
            let changed = fault
                .rewrite
                .iter()
                .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
            Bytes::from(changed)
        }
        _ => bytes,
    };
    if let Some(most) = fault.truncate {
        bytes.truncate(most);
    }
    if fault.cut {
        // The head promises all of the body.
        parts.headers.insert(
            header::CONTENT_LENGTH,
            HeaderValue::from(bytes.len().max(fault.cut_after_bytes + 1)),
        );
        let sent = bytes.slice(..fault.cut_after_bytes.min(bytes.len()));
        let broken = std::io::Error::other("cut by the test forge");
        let start = stream::iter((!sent.is_empty()).then_some(Ok(sent)));
        // The part before the break leaves before the break is seen.
        let end = stream::once(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(broken)
        });
        return Response::from_parts(parts, Body::from_stream(start.chain(end)));
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    if fault.stall_ms == 0 {
        return Response::from_parts(parts, Body::from(bytes));
    }
    parts
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let (at, wait) = (
        fault.stall_after_bytes.min(bytes.len()),
        Duration::from_millis(fault.stall_ms),
    );
    let (start, end) = (bytes.slice(..at), bytes.slice(at..));
    let late = stream::once(async move {
        tokio::time::sleep(wait).await;
        end
    });
    let body = stream::iter((!start.is_empty()).then_some(start)).chain(late);
    Response::from_parts(parts, Body::from_stream(body.map(Ok::<_, std::io::Error>)))
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_is_any_text() {
        assert!(fits("/a/*/c", "/a/b/b/c") && fits("*", "") && fits("/a*", "/a") && fits("*/c*e", "/c/d/e"));
        assert!(!fits("/a/*/c", "/a/c") && !fits("/a", "/a/b") && !fits("/a*b", "/a/c"));
    }
}
