//! The scripted model over HTTP: the key, the paths that agents use, and the log. What it answers is the script's business.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Settings;
use super::log::Log;
use super::script::{self, Failure, Next};
use super::shapes::{self, Form, Frame, Shape};

const BODY_LIMIT: usize = 16 * 1024 * 1024;
const MODEL: &str = "scripted";

struct Model {
    key: String,
    log: Log,
    answers: AtomicU64,
    /// How often a failure that some conversation asks for has been given already.
    given: Mutex<HashMap<String, u64>>,
}

/// Serves until `stop` is ready.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let model = Arc::new(Model {
        key: settings.key,
        log: Log::open(settings.log.as_deref())?,
        answers: AtomicU64::new(0),
        given: Mutex::default(),
    });
    let router = Router::new()
        .fallback(receive)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(model);
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

async fn receive(
    State(model): State<Arc<Model>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let response = model.respond(&method, &uri, &headers, &request, body.len()).await;
    let names: Vec<&str> = headers.keys().map(header::HeaderName::as_str).collect();
    let line = json!({
        "time": jiff::Timestamp::now().to_string(), "method": method.as_str(), "path": uri.path(),
        "query": uri.query(), "usage": response.extensions().get::<Cost>().map(|cost| [cost.0, cost.1]),
        "status": response.status().as_u16(), "has_tools": has_tools(&request), "headers": names,
    });
    match model.log.write(&line) {
        Ok(()) => response,
        Err(failure) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("writing the log: {failure}"),
        ),
    }
}

/// Tokens read and written, for the log.
#[derive(Debug, Clone, Copy)]
struct Cost(u64, u64);

impl Model {
    /// A key in the way of any of the APIs, and in no second way.
    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let keys: Vec<&str> = [bearer, text("x-api-key"), text("x-goog-api-key"), text("api-key")]
            .into_iter()
            .flatten()
            .collect();
        keys == [self.key.as_str()]
    }

    async fn respond(&self, method: &Method, uri: &Uri, headers: &HeaderMap, request: &Value, size: usize) -> Response {
        let path = uri.path();
        if !self.lets_in(headers) {
            return error(StatusCode::UNAUTHORIZED, "no key, or not the right one");
        }
        let is_post = method == Method::POST;
        if let Some(asked) = shapes::asked(path, uri.query().unwrap_or_default(), request).filter(|_| is_post) {
            let next = shapes::read(asked.0, request).and_then(|conversation| script::next(&conversation));
            return match next {
                Ok(next) => self.answer(asked, path, request, size, &next).await,
                Err(reason) => error(StatusCode::BAD_REQUEST, &reason),
            };
        }
        if let Some(counted) = shapes::counted(path, size).filter(|_| is_post) {
            return Json(counted).into_response();
        }
        if method == Method::GET && path.ends_with("/v1/models") {
            let model = json!({"id": MODEL, "object": "model", "created": 0, "owned_by": "cofferdam"});
            return Json(json!({"object": "list", "data": [model]})).into_response();
        }
        error(StatusCode::NOT_FOUND, "no such path")
    }

    async fn answer(&self, asked: (Shape, Form), path: &str, request: &Value, size: usize, next: &Next) -> Response {
        if let Some(status) = self.failure(request, next) {
            return error(status, "the script wanted this failure");
        }
        tokio::time::sleep(Duration::from_millis(next.milliseconds)).await;
        let in_path = path.rsplit('/').next().and_then(|last| last.split_once(':'));
        let named = request.get("model").and_then(Value::as_str);
        let (read, written) = shapes::cost(size, next);
        let frame = Frame {
            model: named.or(in_path.map(|(name, _)| name)).unwrap_or(MODEL),
            id: format!("scripted-{}", self.answers.fetch_add(1, Ordering::Relaxed) + 1),
            created: jiff::Timestamp::now().as_second(),
            read,
            written,
        };
        let (kind, body) = shapes::answer(asked, request, &frame, next);
        let mut response = ([(header::CONTENT_TYPE, kind)], body).into_response();
        response.extensions_mut().insert(Cost(read, written));
        response
    }

    /// The failure that is due. Once all are given the count starts anew, so that an equal conversation fails in the same way.
    fn failure(&self, request: &Value, next: &Next) -> Option<StatusCode> {
        if next.failures.is_empty() {
            return None;
        }
        let said = ["messages", "input", "contents"]
            .iter()
            .find_map(|key| request.get(key));
        let conversation = said.map(Value::to_string).unwrap_or_default();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let count = given.entry(conversation.clone()).or_default();
        let mut before = 0;
        for Failure { status, times } in &next.failures {
            before += times;
            if *count < before {
                *count += 1;
                return StatusCode::from_u16(*status).ok();
            }
        }
        given.remove(&conversation);
        None
    }
}

fn has_tools(request: &Value) -> bool {
    request
        .get("tools")
        .and_then(Value::as_array)
        .is_some_and(|tools| !tools.is_empty())
}

fn error(status: StatusCode, message: &str) -> Response {
    let body = json!({"error": {"message": message, "type": "scripted_error", "code": status.as_u16()}});
    (status, Json(body)).into_response()
}
