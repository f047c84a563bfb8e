//! The model route: an agent reaches its model at `/model/<name>/...`, and the key is put in here, on the worker.
//!
//! Never lets a client-sent key through, never reaches a path that is not listed, never follows a redirect. Streams both ways.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::secret::Secret;

/// Largest request body to a model, in bytes.
const LARGEST_REQUEST: usize = 64 * 1024 * 1024;

/// Request bodies of one session in memory at a time, in bytes.
const REQUESTS_IN_MEMORY: usize = 128 * 1024 * 1024;
/// In what pieces that memory is counted, in bytes.
const PIECE: usize = 16 * 1024;
/// How long a request's body may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// A model endpoint that agents may be given.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its address, up to what stands before `/v1/...`.
    pub url: String,
    /// The worker's environment variable with the key.
    #[serde(default)]
    pub key_env: Option<String>,
    /// The worker's file with the key.
    #[serde(default)]
    pub key_file: Option<std::path::PathBuf>,
    /// How the key is sent.
    #[serde(default)]
    pub key_as: KeyStyle,
    /// The paths that may be reached; the chat, responses, messages and model-list paths of the usual APIs when empty.
    #[serde(default)]
    pub paths: Vec<String>,
}

/// How a key is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyStyle {
    /// `Authorization: Bearer <key>`.
    #[default]
    Bearer,
    /// `x-api-key: <key>`.
    XApiKey,
    /// `x-goog-api-key: <key>`.
    XGoogApiKey,
}

/// The paths that the usual model APIs need. A path that ends in `/` allows what is below it.
const USUAL_PATHS: &[&str] = &[
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/models",
    "/v1beta/models/",
];

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
const PASSED_ANSWER_HEADERS: &[&str] = &["content-type", "retry-after", "x-request-id", "request-id"];

/// A model endpoint with its key loaded.
pub struct Endpoint {
    url: String,
    key: Option<Secret>,
    key_as: KeyStyle,
    paths: Vec<String>,
    client: reqwest::Client,
    count: Arc<dyn CountModel>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Endpoint")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Counts requests for the operators' metrics.
pub trait CountModel: Send + Sync {
    /// One request ended with this status.
    fn count(&self, status: u16);
}

/// The configured endpoints by name.
pub type Endpoints = BTreeMap<String, Arc<Endpoint>>;

impl Endpoint {
    /// An endpoint; the key was read by the caller.
    ///
    /// # Errors
    /// The HTTP client cannot be made, in a sentence.
    pub fn new(config: &Config, key: Option<Secret>, count: Arc<dyn CountModel>) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(15))
            .build()
            .map_err(|error| error.to_string())?;
        let paths = if config.paths.is_empty() {
            USUAL_PATHS.iter().map(|path| (*path).to_owned()).collect()
        } else {
            config.paths.clone()
        };
        let url = config.url.trim_end_matches('/');
        let url = url.strip_suffix("/v1").unwrap_or(url).to_owned();
        if let Some(key) = &key
            && HeaderValue::from_str(key.expose()).is_err()
        {
            return Err("its key holds characters that no header can carry".to_owned());
        }
        Ok(Self {
            url,
            key,
            key_as: config.key_as,
            paths,
            client,
            count,
        })
    }

    fn allows(&self, method: &Method, path: &str) -> bool {
        let listed = self.paths.iter().any(|allowed| {
            if allowed.ends_with('/') {
                path.starts_with(allowed.as_str())
            } else {
                path == allowed
            }
        });
        listed && (method == Method::POST || method == Method::GET) && is_plain(path)
    }
}

/// A path without tricks: no escapes, no dots, no doubled slashes, so that what was checked is what is asked.
fn is_plain(path: &str) -> bool {
    !path.contains("..")
        && !path.contains("//")
        && path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b':'))
}

/// What the route of one session holds.
#[derive(Clone)]
struct Route {
    endpoint: Arc<Endpoint>,
    /// Pieces of memory for request bodies.
    budget: Arc<Semaphore>,
}

/// Why a request's body was not taken.
enum Untaken {
    TooLarge,
    TooMany,
    Broken,
}

impl Untaken {
    fn response(&self) -> Response {
        match self {
            Self::TooLarge => refusal(StatusCode::PAYLOAD_TOO_LARGE, "the request is larger than 64 MiB"),
            Self::TooMany => refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many large requests at once: try again",
            ),
            Self::Broken => refusal(StatusCode::BAD_REQUEST, "the request broke off"),
        }
    }
}

/// Reads a body within the session's budget; its memory is given back with the second value. Never waits for the budget: two that wait for
/// each other's would wait for ever.
async fn read(body: Body, budget: &Arc<Semaphore>) -> Result<(Vec<u8>, OwnedSemaphorePermit), Untaken> {
    let more = |bytes: usize| {
        let pieces = u32::try_from(bytes.div_ceil(PIECE)).map_err(|_| Untaken::TooLarge)?;
        budget
            .clone()
            .try_acquire_many_owned(pieces)
            .map_err(|_| Untaken::TooMany)
    };
    let mut place = more(1)?;
    let mut whole = Vec::new();
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Untaken::Broken)?;
        let length = whole.len() + piece.len();
        if length > LARGEST_REQUEST {
            return Err(Untaken::TooLarge);
        }
        let held = place.num_permits() * PIECE;
        if length > held {
            place.merge(more(length - held)?);
        }
        whole.extend_from_slice(&piece);
    }
    Ok((whole, place))
}

/// The route of one session: only the endpoint that its agent is configured with.
pub fn router(name: &str, endpoint: Arc<Endpoint>) -> Router {
    let prefix = format!("/model/{name}");
    let route = Route {
        endpoint,
        budget: Arc::new(Semaphore::new(REQUESTS_IN_MEMORY / PIECE)),
    };
    Router::new().nest(&prefix, Router::new().fallback(forward).with_state(route))
}

async fn forward(State(route): State<Route>, request: Request) -> Response {
    let endpoint = &route.endpoint;
    let path = request.uri().path().to_owned();
    if !endpoint.allows(request.method(), &path) {
        return refusal(
            StatusCode::FORBIDDEN,
            "this path of the model API is not open to agents",
        );
    }
    let (parts, body) = request.into_parts();
    // The body is read whole, so that a broken upload costs no model request.
    let (body, place) = match tokio::time::timeout(REQUEST_TIMEOUT, read(body, &route.budget)).await {
        Ok(Ok(read)) => read,
        Ok(Err(refused)) => return refused.response(),
        Err(_) => return refusal(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time"),
    };
    let mut address = format!("{}{path}", endpoint.url);
    if let Some(query) = parts.uri.query() {
        let kept: Vec<&str> = query.split('&').filter(|pair| !names_a_key(pair)).collect();
        if !kept.is_empty() {
            address.push('?');
            address.push_str(&kept.join("&"));
        }
    }
    let sent = endpoint
        .client
        .request(parts.method, address)
        .headers(passed(&parts.headers, PASSED_REQUEST_HEADERS))
        .headers(key_header(endpoint))
        .body(body)
        .send()
        .await;
    drop(place);
    match sent {
        Ok(answer) => {
            endpoint.count.count(answer.status().as_u16());
            let mut response = Response::new(Body::empty());
            *response.status_mut() = answer.status();
            *response.headers_mut() = passed(answer.headers(), PASSED_ANSWER_HEADERS);
            *response.body_mut() =
                Body::from_stream(answer.bytes_stream().map(|chunk| chunk.map_err(std::io::Error::other)));
            response
        }
        Err(error) => {
            endpoint.count.count(0);
            tracing::warn!(error = %error.without_url(), "the model endpoint did not answer");
            refusal(StatusCode::BAD_GATEWAY, "the model endpoint did not answer")
        }
    }
}

/// Whether a pair of a query carries a credential: the client's would be used beside or instead of ours.
fn names_a_key(pair: &str) -> bool {
    let name = url::form_urlencoded::parse(pair.as_bytes())
        .next()
        .map(|(name, _)| name);
    name.is_none_or(|name| {
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        ["key", "token", "auth", "secret"]
            .iter()
            .any(|word| name.to_ascii_lowercase().contains(word))
    })
}

fn passed(headers: &HeaderMap, names: &[&'static str]) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in names {
        for value in headers.get_all(*name) {
            kept.append(HeaderName::from_static(name), value.clone());
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

/// An answer in the shape that model clients read.
fn refusal(status: StatusCode, message: &str) -> Response {
    let body = serde_json::json!({"error": {"message": message, "type": "cofferdam_refused"}});
    (status, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests;
