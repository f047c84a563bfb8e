//! How many requests a token may send, and the headers that say so; off unless the seed sets a limit.
//!
//! GitLab counts by the minute, GitHub by the hour and apart for its search. Never limits git.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde_json::json;

use super::Forge;
use super::credentials::{Presented, presented};
use super::paging::set;
use super::seed::Side;

/// Who sent requests, and for what.
type Counter = (String, &'static str);

/// Requests seen: the window of the last one, and how many came in it.
#[derive(Default)]
pub(crate) struct Rates(Mutex<HashMap<Counter, (i64, u32)>>);

impl Rates {
    /// Counts one request; `back` gives one back.
    fn count(&self, who: &str, what: &'static str, window: i64, back: bool) -> u32 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = all.entry((who.to_owned(), what)).or_insert((window, 0));
        if entry.0 != window {
            *entry = (window, 0);
        }
        entry.1 = if back { entry.1.saturating_sub(1) } else { entry.1 + 1 };
        entry.1
    }
}

fn who(forge: &Forge, side: Side, request: &Request) -> String {
    match presented(forge, side, request.headers(), request.uri().query()) {
        Presented::Alive(caller) => caller.token.name.clone(),
        Presented::Nothing | Presented::Unknown | Presented::Expired(_) | Presented::Revoked(_) => String::new(),
    }
}

/// The layer for both forges' REST.
pub(crate) async fn limit(State(forge): State<Forge>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let (side, what, length) = if path.starts_with("/gitlab/api/") {
        (Side::Gitlab, "throttle_authenticated_api", 60)
    } else if path.starts_with("/api/v3/search/") {
        (Side::Github, "search", 60)
    } else if path == "/api/v3" || path.starts_with("/api/v3/") {
        (Side::Github, "core", 3600)
    } else {
        return next.run(request).await;
    };
    let Some(most) = forge.world().instance(side).rate_limit else {
        return next.run(request).await;
    };
    let most = if what == "search" { most.min(30) } else { most };
    let who = who(&forge, side, &request);
    let now = Timestamp::now().as_second();
    let window = now / length;
    let reset = (window + 1) * length;
    // Asking how much is left costs nothing.
    let free = path == "/api/v3/rate_limit";
    let used = if free {
        0
    } else {
        forge.0.rates.count(&who, what, window, false)
    };
    let mut response = if used > most {
        refusal(side, reset - now)
    } else {
        next.run(request).await
    };
    let mut used = used;
    if side == Side::Github && response.status() == StatusCode::NOT_MODIFIED {
        used = forge.0.rates.count(&who, what, window, true);
    }
    let headers = response.headers_mut();
    match side {
        Side::Gitlab => gitlab(headers, what, most, used, reset),
        Side::Github => github(headers, what, most, used, reset),
    }
    response
}

fn gitlab(headers: &mut HeaderMap, what: &str, most: u32, used: u32, reset: i64) {
    set(headers, "ratelimit-limit", &most.to_string());
    set(headers, "ratelimit-name", what);
    set(headers, "ratelimit-observed", &used.to_string());
    set(headers, "ratelimit-remaining", &most.saturating_sub(used).to_string());
    set(headers, "ratelimit-reset", &reset.to_string());
    if let Ok(at) = Timestamp::from_second(reset) {
        let at = at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        set(headers, "ratelimit-resettime", &at);
    }
}

fn github(headers: &mut HeaderMap, what: &str, most: u32, used: u32, reset: i64) {
    set(headers, "x-ratelimit-limit", &most.to_string());
    set(headers, "x-ratelimit-remaining", &most.saturating_sub(used).to_string());
    set(headers, "x-ratelimit-used", &used.min(most).to_string());
    set(headers, "x-ratelimit-reset", &reset.to_string());
    set(headers, "x-ratelimit-resource", what);
}

fn refusal(side: Side, wait: i64) -> Response {
    match side {
        Side::Gitlab => {
            let headers = [
                (header::RETRY_AFTER, wait.to_string()),
                (header::CONTENT_TYPE, "text/plain".to_owned()),
            ];
            (StatusCode::TOO_MANY_REQUESTS, headers, "Retry later\n").into_response()
        }
        Side::Github => {
            let body = json!({
                "message": "API rate limit exceeded for user ID 1.",
                "documentation_url": "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api",
                "status": "403",
            });
            (StatusCode::FORBIDDEN, axum::Json(body)).into_response()
        }
    }
}
