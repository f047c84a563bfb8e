//! GitLab's envelopes: its four shapes of errors, its lists with counters, its headers.
//!
//! Never decides anything.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::forge::git::GitError;
use crate::forge::paging::{Window, set};
use crate::forge::parameters::Parameters;

/// Why a request is refused.
pub(crate) enum Refusal {
    /// 401: no token, or one that nobody knows; also a merge without the right to.
    Unauthorized,
    /// 401 with OAuth's words.
    Expired,
    /// 401 with OAuth's words.
    Revoked,
    /// 403: the scopes that would do.
    Scope(&'static str),
    /// 403 without a reason.
    Forbidden,
    /// 404 of a thing: `404 Project Not Found`.
    Missing(&'static str),
    /// 404 in sentence case, of merge requests and issues.
    MissingEntry,
    /// 404 of a route.
    NoRoute,
    /// 301 of a renamed project, with its address.
    Moved(String),
    /// 400 of a parameter: the `error` key.
    Parameter(String),
    /// 400 `400 Bad request - …`.
    BadRequest(String),
    /// 400 with errors by field.
    Invalid(Value),
    /// 405 of keyset paging in an order that has none.
    NoKeyset,
    /// 409 with a list of messages.
    Conflict(String),
    /// 422 with a list of messages.
    Unprocessable(String),
    /// 500: the double itself failed.
    Broken(GitError),
}

impl From<GitError> for Refusal {
    fn from(source: GitError) -> Self {
        Self::Broken(source)
    }
}

/// An answer, or why not.
pub(crate) type Answer = Result<Response, Refusal>;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let message = |status: u16, text: String| (status, json!({"message": text}));
        let token = |error: &str, text: &str| json!({"error": error, "error_description": text});
        let (status, body) = match self {
            Self::Unauthorized => message(401, "401 Unauthorized".to_owned()),
            Self::Expired => (
                401,
                token(
                    "invalid_token",
                    "Token is expired. You can either do re-authorization or token refresh.",
                ),
            ),
            Self::Revoked => (
                401,
                token(
                    "invalid_token",
                    "Token was revoked. You have to re-authorize from the user.",
                ),
            ),
            Self::Scope(scopes) => {
                let text = "The request requires higher privileges than provided by the access token.";
                (
                    403,
                    json!({"error": "insufficient_scope", "error_description": text, "scope": scopes}),
                )
            }
            Self::Forbidden => message(403, "403 Forbidden".to_owned()),
            Self::Missing(thing) => message(404, format!("404 {thing} Not Found")),
            Self::MissingEntry => message(404, "404 Not found".to_owned()),
            Self::NoRoute => (404, json!({"error": "404 Not Found"})),

            Self::Moved(url) => {
                let text = format!("This resource has been moved permanently to {url}");
                return (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, url)], text).into_response();
            }
            Self::Parameter(text) => (400, json!({"error": text})),
            Self::BadRequest(text) => message(400, format!("400 Bad request - {text}")),
            Self::Invalid(fields) => (400, json!({"message": fields})),
            Self::NoKeyset => {
                let text = "Keyset pagination is not yet available for this type of request";
                (405, json!({"error": text}))
            }
            Self::Conflict(text) => (409, json!({"message": [text]})),
            Self::Unprocessable(text) => (422, json!({"message": [text]})),
            Self::Broken(source) => message(500, format!("500 Internal Server Error (test forge: {source})")),
        };
        (
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Json(body),
        )
            .into_response()
    }
}

/// 200 with one object.
pub(crate) fn found(body: Value) -> Answer {
    Ok(Json(body).into_response())
}

/// 201 with one object.
pub(crate) fn created(body: Value) -> Answer {
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// One page of a list. `defaults` are the parameters that GitLab echoes in its links though nobody gave them.
pub(crate) fn page<T>(
    url: &str,
    parameters: &Parameters,
    defaults: &[(&str, &str)],
    items: Vec<T>,
    mut wire: impl FnMut(T) -> Value,
) -> Answer {
    let window = Window::of(parameters, 20);
    let headers = window.gitlab(url, &effective(parameters, defaults), items.len());
    let cut: Vec<Value> = window.cut(items).into_iter().map(&mut wire).collect();
    Ok((headers, Json(cut)).into_response())
}

/// The given parameters and the defaults of those not given.
pub(crate) fn effective(parameters: &Parameters, defaults: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = defaults
        .iter()
        .map(|(key, value)| {
            (
                (*key).to_owned(),
                parameters.text(key).unwrap_or_else(|| (*value).to_owned()),
            )
        })
        .collect();
    for key in [
        "search",
        "source_branch",
        "target_branch",
        "author_username",
        "username",
        "author_id",
        "assignee_username",
        "iids",
        "issue_type",
        "scope",
        "min_access_level",
        "search_namespaces",
        "visibility",
        "pagination",
        "labels",
        "regex",
    ] {
        // What may be a list is echoed as one, however it was given.
        let list = matches!(key, "labels" | "iids");
        match (parameters.text(key).filter(|_| !list), parameters.list(key)) {
            (Some(value), _) => all.push((key.to_owned(), value)),
            (None, Some(values)) => all.extend(values.into_iter().map(|value| (format!("{key}[]"), value))),
            (None, None) => {}
        }
    }
    all
}

/// GitLab's time stamps have milliseconds.
pub(crate) fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// The route exists, for another method.
pub(crate) async fn no_method() -> Response {
    (
        StatusCode::METHOD_NOT_ALLOWED,
        Json(json!({"error": "405 Not Allowed"})),
    )
        .into_response()
}

/// The route does not exist: the `error` key, in title case.
pub(crate) async fn no_route() -> Refusal {
    Refusal::NoRoute
}

/// Headers that every REST answer carries; 304 for a known ETag.
pub(crate) async fn dress(request: Request, next: Next) -> Response {
    let started = std::time::Instant::now();
    let get = *request.method() == Method::GET;
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let response = next.run(request).await;
    let (mut parts, body) = response.into_parts();
    // Our own JSON: bounded by what the handlers make.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let digest = hex::encode(Sha256::digest(&bytes));
    let headers: &mut HeaderMap = &mut parts.headers;
    if parts.status.is_success() {
        let etag = format!("W/\"{}\"", digest.get(..32).unwrap_or_default());
        set(headers, "etag", &etag);
        set(headers, "cache-control", "max-age=0, private, must-revalidate");
        if get && known.is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
            parts.status = StatusCode::NOT_MODIFIED;
        }
    } else {
        set(headers, "cache-control", "no-cache");
    }
    let identity = format!("{:x}", Timestamp::now().as_nanosecond());
    set(headers, "vary", "Origin");
    set(headers, "x-content-type-options", "nosniff");
    set(headers, "x-frame-options", "SAMEORIGIN");
    set(headers, "referrer-policy", "strict-origin-when-cross-origin");
    set(
        headers,
        "x-gitlab-meta",
        &format!("{{\"correlation_id\":\"{identity}\",\"version\":\"1\"}}"),
    );
    set(headers, "x-request-id", &identity);
    set(headers, "x-runtime", &format!("{:.6}", started.elapsed().as_secs_f64()));
    let body = if parts.status == StatusCode::NOT_MODIFIED {
        Body::empty()
    } else {
        Body::from(bytes)
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, body)
}
