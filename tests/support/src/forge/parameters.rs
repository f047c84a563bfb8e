//! Parameters of a request, from query, JSON body or form body alike, as both forges take them.
//!
//! Never fails on a value of the wrong type: the handler says what was wrong with it.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

/// No parameter set of a real client comes near this.
const LIMIT: usize = 4 * 1024 * 1024;

/// All parameters of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parameters(Map<String, Value>);

fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8_lossy()
        .into_owned()
}

/// Pairs of a query string or form body.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

/// One value of a query string.
pub(crate) fn find(query: &str, key: &str) -> Option<String> {
    pairs(query).find(|(name, _)| name == key).map(|(_, value)| value)
}

impl Parameters {
    pub(crate) fn from_query(query: Option<&str>) -> Self {
        let mut all = Self::default();
        all.add_pairs(query.unwrap_or_default());
        all
    }

    fn add_pairs(&mut self, text: &str) {
        for (key, value) in pairs(text) {
            match key.strip_suffix("[]") {
                None => drop(self.0.insert(key, Value::String(value))),
                Some(key) => {
                    if let Value::Array(list) = self.0.entry(key.to_owned()).or_insert_with(|| json!([])) {
                        list.push(Value::String(value));
                    }
                }
            }
        }
    }

    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Text, or a number as text; `None` for null and all else.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        match self.0.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        // python-gitlab writes Python's own words, which the real ones take too.
        match self.text(key)?.to_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
            "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
            _ => None,
        }
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    /// A list, or GitLab's comma-separated text.
    pub(crate) fn list(&self, key: &str) -> Option<Vec<String>> {
        match self.0.get(key)? {
            Value::Array(items) => Some(
                items
                    .iter()
                    .map(|item| item.as_str().unwrap_or_default().to_owned())
                    .collect(),
            ),
            Value::String(text) => Some(
                text.split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(ToOwned::to_owned)
                    .collect(),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        }
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

impl<S: Sync> FromRequest<S> for Parameters {
    type Rejection = Response;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Response> {
        let mut all = Self::from_query(request.uri().query());
        let gitlab = request.uri().path().starts_with("/gitlab/");
        let (parts, body) = request.into_parts();
        let bytes: Bytes = axum::body::to_bytes(body, LIMIT)
            .await
            .map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large").into_response())?;
        if bytes.is_empty() {
            return Ok(all);
        }
        if content_type(&parts.headers).starts_with("application/x-www-form-urlencoded") {
            all.add_pairs(&String::from_utf8_lossy(&bytes));
            return Ok(all);
        }
        match serde_json::from_slice::<Value>(&bytes) {
            Ok(Value::Object(map)) => all.0.extend(map),
            Ok(_) | Err(_) if gitlab => {
                return Err((StatusCode::BAD_REQUEST, axum::Json(json!({"error": "Invalid json"}))).into_response());
            }
            Ok(_) | Err(_) => {
                let body = json!({"message": "Problems parsing JSON", "documentation_url": "https://docs.github.com/rest", "status": "400"});
                return Err((StatusCode::BAD_REQUEST, axum::Json(body)).into_response());
            }
        }
        Ok(all)
    }
}
