//! A refusal in the words of the API that was asked, so that an agent shows its sentence instead of failing to read it. Pure.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::api::Api;

/// Tells two common client libraries whether trying again is of any use.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Answers with a status and a sentence.
pub(super) fn refusal(api: Api, status: StatusCode, message: &str) -> Response {
    let body = match api {
        Api::Chat | Api::Responses | Api::Other => {
            json!({"error": {"message": message, "type": "cofferdam_refused", "param": null, "code": kind(status)}})
        }
        Api::Messages => json!({"type": "error", "error": {"type": kind(status), "message": message}}),
        Api::Contents => {
            json!({"error": {"code": status.as_u16(), "message": message, "status": kind(status).to_uppercase()}})
        }
    };
    let mut response = (status, axum::Json(body)).into_response();
    let again = status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::BAD_GATEWAY;
    let again = if again { "true" } else { "false" };
    response
        .headers_mut()
        .insert(SHOULD_RETRY, HeaderValue::from_static(again));
    if again == "true" {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The word that the APIs have for a status, more or less in common.
fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        403 => "permission_error",
        408 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        502 | 503 => "overloaded_error",
        _ => "invalid_request_error",
    }
}
