//! GitHub's envelopes: errors, lists with a `Link`, headers.
//!
//! Never decides anything.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::forge::Forge;
use crate::forge::credentials::{Presented, presented};
use crate::forge::git::GitError;
use crate::forge::paging::{Window, set};
use crate::forge::parameters::{Parameters, pairs};
use crate::forge::seed::Side;

const DOCUMENTATION: &str = "https://docs.github.com/rest";

/// The one version of the API that is played; the next has other fields.
const VERSION: &str = "2022-11-28";

/// Why a request is refused.
pub(crate) enum Refusal {
    /// 401: a token that nobody knows, or that is dead.
    BadCredentials,
    /// 401: no token where one is needed.
    NeedsToken,
    /// 404, with the page that GitHub names.
    NotFound(&'static str),
    /// 301 of a renamed repository, with its address.
    Moved(String),
    /// 404 of a branch.
    BranchNotFound,
    /// 403: a fine-grained token, or an App's installation, without the permission, named in a header.
    NotAccessible(&'static str, bool),
    /// 403: an App's installation is no person.
    NotByIntegration,
    /// 403: the person may not.
    Forbidden(&'static str),
    /// 422 with errors by field.
    Invalid(Value),
    /// 422 with a message only.
    Unprocessable(String),
    /// 410.
    Gone(&'static str),
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
        let page = |rest: &str| format!("{DOCUMENTATION}{rest}");
        let mut needed = None;
        let mut moved = None;
        let (status, message, documentation, errors) = match self {
            Self::BadCredentials => (401, "Bad credentials".to_owned(), page(""), None),
            Self::NeedsToken => (401, "Requires authentication".to_owned(), page(""), None),
            Self::NotFound(rest) => (404, "Not Found".to_owned(), page(rest), None),
            Self::Moved(url) => {
                moved = Some(url);
                (301, "Moved Permanently".to_owned(), page(""), None)
            }
            Self::BranchNotFound => (
                404,
                "Branch not found".to_owned(),
                page("/branches/branches#get-a-branch"),
                None,
            ),
            Self::NotAccessible(permission, installation) => {
                needed = Some(permission);
                let by = if installation {
                    "integration"
                } else {
                    "personal access token"
                };
                (403, format!("Resource not accessible by {by}"), page(""), None)
            }
            Self::NotByIntegration => (403, "Resource not accessible by integration".to_owned(), page(""), None),
            Self::Forbidden(text) => (403, text.to_owned(), page(""), None),
            Self::Invalid(errors) => (
                422,
                "Validation Failed".to_owned(),
                page("/pulls/pulls#create-a-pull-request"),
                Some(errors),
            ),
            Self::Unprocessable(text) => (422, text, page("/pulls/pulls#create-a-pull-request"), None),
            Self::Gone(text) => (410, text.to_owned(), page(""), None),
            Self::Broken(source) => (500, format!("Server Error (test forge: {source})"), page(""), None),
        };
        let mut body = json!({"message": message, "documentation_url": documentation, "status": status.to_string()});
        if let Some(url) = &moved {
            body["url"] = json!(url);
        }
        if let Some(errors) = errors {
            body["errors"] = errors;
        }
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(body)).into_response();
        if let Some(url) = moved {
            set(response.headers_mut(), "location", &url);
        }
        if let Some(permission) = needed {
            set(response.headers_mut(), "x-accepted-github-permissions", permission);
        }
        response
    }
}

/// 200 with one object.
pub(crate) fn found(body: Value) -> Answer {
    Ok(Json(body).into_response())
}

/// 201 with one object, and where it is.
pub(crate) fn created(body: Value) -> Answer {
    let url = body["url"].as_str().unwrap_or_default().to_owned();
    let mut response = (StatusCode::CREATED, Json(body)).into_response();
    set(response.headers_mut(), "location", &url);
    Ok(response)
}

/// One page of a list.
pub(crate) fn page<T>(url: &str, query: Option<&str>, items: Vec<T>, mut wire: impl FnMut(T) -> Value) -> Answer {
    let window = Window::of(&Parameters::from_query(query), 30);
    let given: Vec<(String, String)> = pairs(query.unwrap_or_default()).collect();
    let headers = window.github(url, &given, items.len());
    let cut: Vec<Value> = window.cut(items).into_iter().map(&mut wire).collect();
    Ok((headers, Json(cut)).into_response())
}

/// GitHub's time stamps have whole seconds.
pub(crate) fn time(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// GitHub's opaque ids.
pub(crate) fn node(kind: &str, id: u64) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("{kind}{id}"))
}

/// The route does not exist.
pub(crate) async fn no_route() -> Refusal {
    Refusal::NotFound("")
}

/// Headers that every REST answer carries; 304 for a known ETag.
pub(crate) async fn dress(State(forge): State<Forge>, request: Request, next: Next) -> Response {
    let get = *request.method() == Method::GET;
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let in_repository = request.uri().path().starts_with("/api/v3/repos");
    let presented = presented(&forge, Side::Github, request.headers(), None);
    let version = request.headers().get("x-github-api-version").cloned();
    let response = match version {
        Some(other) if other.as_bytes() != VERSION.as_bytes() => {
            let text = format!(
                "{} is not a supported API version",
                String::from_utf8_lossy(other.as_bytes())
            );
            let body = json!({"message": text, "documentation_url": DOCUMENTATION, "status": "400"});
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
        _ => next.run(request).await,
    };
    let (mut parts, body) = response.into_parts();
    // Our own JSON: bounded by what the handlers make.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = &mut parts.headers;
    if headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes() == b"application/json")
    {
        set(headers, "content-type", "application/json; charset=utf-8");
    }
    let digest = hex::encode(Sha256::digest(&bytes));
    if parts.status.is_success() {
        let etag = format!("W/\"{digest}\"");
        set(headers, "etag", &etag);
        set(headers, "cache-control", "private, max-age=60, s-maxage=60");
        if get && known.is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
            parts.status = StatusCode::NOT_MODIFIED;
        }
    }
    set(
        headers,
        "vary",
        "Accept, Authorization, Cookie, X-GitHub-OTP, Accept-Encoding, Accept, X-Requested-With",
    );
    set(headers, "x-content-type-options", "nosniff");
    set(headers, "x-frame-options", "deny");
    set(
        headers,
        "referrer-policy",
        "origin-when-cross-origin, strict-origin-when-cross-origin",
    );
    set(headers, "x-github-media-type", "github.v3; format=json");
    set(
        headers,
        "x-github-request-id",
        &format!("{:X}", Timestamp::now().as_nanosecond()),
    );
    set(headers, "x-github-api-version-selected", VERSION);
    set(headers, "x-github-enterprise-version", "3.19.0");
    if let Presented::Alive(caller) = presented {
        if caller.token.fine_grained.is_none() {
            set(headers, "x-oauth-scopes", &caller.token.scopes.join(", "));
            set(
                headers,
                "x-accepted-oauth-scopes",
                if in_repository { "repo" } else { "" },
            );
        }
        if let Some(date) = caller.token.expires_at {
            set(
                headers,
                "github-authentication-token-expiration",
                &format!("{date} 00:00:00 UTC"),
            );
        }
    }
    let body = if parts.status == StatusCode::NOT_MODIFIED {
        Body::empty()
    } else {
        Body::from(bytes)
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, body)
}
