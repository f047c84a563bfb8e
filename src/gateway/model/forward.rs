//! Sends an agent's request on to its model, with our key in place of the agent's, and carries the answer back as it comes.
//!
//! Sent again only as long as nothing was answered to the agent. Never follows a redirect, never holds back a piece of an answer, but for
//! an end of it that may be the beginning of our key (`echo`).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::api::{self, Api, Call};
use super::demand::{self, Rules};
use super::echo::{self, Echo};
use super::meter::{Meter, Reading};
use super::refusal::refusal;
use super::usage::Tap;
use super::{Endpoint, KeyStyle, body};
use crate::secret::Mask;

/// Requests of one session that are answered at a time.
const REQUESTS_AT_A_TIME: usize = 32;
/// Bodies above this are checked on a thread of their own, in bytes.
const CHECKED_ASIDE: usize = 1024 * 1024;
/// How often a request is sent once more.
const MOST_RETRIES: u32 = 2;
/// The longest wait that a provider may ask for before a retry of ours; with a longer one its answer goes to the agent.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long to wait after a connection that could not be made; twice as long after the second.
const RECONNECT: Duration = Duration::from_millis(200);

/// Headers that a client may send on to a model; everything else is dropped, above all keys and cookies.
const PASSED_REQUEST_HEADERS: &[&str] = &[
    "content-type",
    "accept",
    "anthropic-version",
    "anthropic-beta",
    "openai-beta",
    "user-agent",
];
/// Headers that a model's answer may carry back.
const PASSED_ANSWER_HEADERS: &[&str] = &[
    "content-type",
    "content-encoding",
    "retry-after",
    "x-request-id",
    "request-id",
];

/// What the route of one session holds.
#[derive(Clone)]
pub(super) struct Route {
    endpoint: Arc<Endpoint>,
    meter: Arc<Meter>,
    memory: body::Memory,
    places: Arc<Semaphore>,
}

impl Route {
    pub(super) fn new(endpoint: Arc<Endpoint>, meter: Arc<Meter>) -> Self {
        Self {
            memory: endpoint.bodies.session(),
            endpoint,
            meter,
            places: Arc::new(Semaphore::new(REQUESTS_AT_A_TIME)),
        }
    }

    fn no(&self, api: Api, status: StatusCode, message: &str) -> Response {
        self.meter.refused();
        refusal(api, status, message)
    }
}

pub(super) async fn forward(State(route): State<Route>, request: Request) -> Response {
    let endpoint = &route.endpoint;
    let (parts, sent) = request.into_parts();
    let path = parts.uri.path();
    let Some(call) = api::call(&endpoint.paths, &parts.method, path) else {
        let message = "this path of the model API is not open to agents";
        return route.no(Api::Other, StatusCode::FORBIDDEN, message);
    };
    let Ok(place) = route.places.clone().try_acquire_owned() else {
        let message = "too many requests to the model at once: wait for one to end";
        return route.no(call.api, StatusCode::SERVICE_UNAVAILABLE, message);
    };
    if call.generates && !route.meter.admits() {
        let message = format!(
            "this session's budget of {} model tokens is spent: stop here; what is committed is kept",
            route.meter.budget().unwrap_or_default()
        );
        return route.no(call.api, StatusCode::TOO_MANY_REQUESTS, &message);
    }
    let (body, memory) = match body::take(sent, &route.memory).await {
        Ok(taken) => taken,
        Err(untaken) => return route.no(call.api, untaken.status(), untaken.message()),
    };
    if parts.method == Method::POST
        && let Err(message) = checked(endpoint, call, &body).await
    {
        return route.no(call.api, StatusCode::FORBIDDEN, &message);
    }
    let mut address = format!("{}{path}", endpoint.url);
    let query = api::kept_query(parts.uri.query().unwrap_or_default());
    if !query.is_empty() {
        address.push('?');
        address.push_str(&query);
    }
    let mut headers = passed(&parts.headers, PASSED_REQUEST_HEADERS, &Mask::default());
    // What is compressed could not be counted.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.extend(key_header(endpoint));
    let size = body.len() as u64;
    let answered = send(&route, &parts.method, &address, &headers, body).await;
    drop(memory);
    match answered {
        Ok(answer) => carry(&route, call, size, answer, place),
        Err(error) => {
            route.meter.unanswered();
            tracing::warn!(error = %error.without_url(), "the model endpoint did not answer");
            refusal(call.api, StatusCode::BAD_GATEWAY, "the model endpoint did not answer")
        }
    }
}

/// Whether what is asked may be asked, else the sentence that says why not.
async fn checked(endpoint: &Arc<Endpoint>, call: Call<'_>, body: &Bytes) -> Result<(), String> {
    let in_path = call.model.map(str::to_owned);
    let (endpoint, api, text) = (endpoint.clone(), call.api, body.clone());
    let check = move || {
        let rules = Rules {
            api,
            walls: endpoint.deny_server_tools,
            models: &endpoint.models,
            in_path: in_path.as_deref(),
        };
        demand::check(&text, rules).map_err(|refused| refused.to_string())
    };
    if body.len() <= CHECKED_ASIDE {
        return check();
    }
    tokio::task::spawn_blocking(check)
        .await
        .unwrap_or_else(|error| Err(format!("the request could not be checked: {error}")))
}

/// Sends, and sends again where that cannot have been noticed by anybody but the provider.
async fn send(
    route: &Route,
    method: &Method,
    address: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> reqwest::Result<reqwest::Response> {
    let mut retries = 0;
    loop {
        let request = route.endpoint.client.request(method.clone(), address);
        let sent = request.headers(headers.clone()).body(body.clone()).send().await;
        let wait = match &sent {
            Ok(answer) => wait_of(answer.status(), answer.headers()),
            // Only where no request left this machine: a model that was already thinking would be paid twice.
            Err(error) => error.is_connect().then_some(RECONNECT * (retries + 1)),
        };
        match wait {
            Some(wait) if retries < MOST_RETRIES => {
                retries += 1;
                route.meter.retried();
                drop(sent);
                tokio::time::sleep(wait).await;
            }
            Some(_) | None => return sent,
        }
    }
}

/// How long to wait before a retry of ours; `None` when the answer is the agent's.
fn wait_of(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if !matches!(status.as_u16(), 429 | 503 | 529) {
        return None;
    }
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds)).filter(|wait| *wait <= LONGEST_WAIT)
}

/// The answer, piece by piece, counted as it passes.
fn carry(
    route: &Route,
    call: Call<'_>,
    request_bytes: u64,
    answer: reqwest::Response,
    place: OwnedSemaphorePermit,
) -> Response {
    let (status, mask) = (answer.status(), &route.endpoint.mask);
    let headers = passed(answer.headers(), PASSED_ANSWER_HEADERS, mask);
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let encoded = text(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
    if encoded && !mask.is_empty() {
        route.meter.unanswered();
        tracing::warn!(
            "the model endpoint compressed an answer, which it was asked not to: it could not be searched for its key"
        );
        let message = "the model endpoint compressed its answer against the worker's wish: it is not passed on";
        return refusal(call.api, StatusCode::BAD_GATEWAY, message);
    }
    let tap = Tap::new(text(header::CONTENT_TYPE).unwrap_or_default(), encoded);
    let reading = route
        .meter
        .answered(status.as_u16(), request_bytes, call.generates, tap);
    let mut response = Response::new(Body::from_stream(counted(
        answer.bytes_stream(),
        reading,
        Echo::new(mask),
        place,
    )));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn counted(
    pieces: impl Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
    reading: Reading,
    echo: Echo,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let pieces = Box::pin(
        pieces
            .map_err(|error| std::io::Error::other(error.without_url()))
            .fuse(),
    );
    futures::stream::unfold(
        (pieces, reading, echo, place),
        |(mut pieces, mut reading, mut echo, place)| async move {
            loop {
                let shown = match pieces.next().await {
                    Some(Ok(piece)) => {
                        reading.piece(&piece);
                        match echo.piece(piece) {
                            held if held.is_empty() => continue,
                            shown => Ok(shown),
                        }
                    }
                    Some(Err(error)) => Err(error),
                    None => match echo.end() {
                        rest if rest.is_empty() => {
                            reading.end();
                            return None;
                        }
                        rest => Ok(rest),
                    },
                };
                return Some((shown, (pieces, reading, echo, place)));
            }
        },
    )
}

fn passed(headers: &HeaderMap, names: &[&'static str], mask: &Mask) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in names {
        for value in headers
            .get_all(*name)
            .iter()
            .filter_map(|value| echo::header(value, mask))
        {
            kept.append(HeaderName::from_static(name), value);
        }
    }
    kept
}

fn key_header(endpoint: &Endpoint) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(key) = &endpoint.key else { return headers };
    let (name, text) = match endpoint.key_as {
        KeyStyle::Bearer => (header::AUTHORIZATION, format!("Bearer {}", key.expose())),
        KeyStyle::XApiKey => (HeaderName::from_static("x-api-key"), key.expose().to_owned()),
        KeyStyle::XGoogApiKey => (HeaderName::from_static("x-goog-api-key"), key.expose().to_owned()),
    };
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    headers
}
