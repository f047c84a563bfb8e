//! The model route: an agent reaches its model at `/model/<name>/...`, and the key is put in here, on the worker.
//!
//! Never lets a client-sent key through, never lets ours back, never reaches a path that is not listed, never follows a redirect. Streams both
//! ways. What a request
//! may ask for is in `demand`, what it cost is read by `usage` and summed up by `meter`; `forward` does the talking.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use serde::Deserialize;

use crate::secret::{Mask, Secret};

mod api;
mod body;
mod demand;
mod echo;
mod forward;
mod meter;
mod refusal;
mod usage;

pub use body::Bodies;
pub use meter::{CountModel, Meter, Used};
pub use usage::Tokens;

/// Memory for the requests to one endpoint that shares none, in bytes.
const DEFAULT_BODIES: usize = 256 * 1024 * 1024;

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
    /// The paths that may be reached; the chat, responses, messages, contents and model-list paths of the usual APIs when empty. What stores
    /// something at the provider (files, batches, containers, uploads) is never open.
    #[serde(default)]
    pub paths: Vec<String>,
    /// The models that requests may name; any when empty.
    #[serde(default)]
    pub models: Vec<String>,
    /// Whether tools that run at the provider, and addresses that it would fetch, are refused: web search, code execution, remote MCP servers,
    /// images and documents by address.
    #[serde(default = "yes")]
    pub deny_server_tools: bool,
    /// How many tokens, read and written together, one session may use; without a limit when absent. A task may lower it.
    #[serde(default)]
    pub budget_tokens: Option<u64>,
}

fn yes() -> bool {
    true
}

/// How a key is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize, schemars::JsonSchema)]
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

/// A model endpoint with its key loaded.
pub struct Endpoint {
    url: String,
    key: Option<Secret>,
    /// Hides the key in what comes back.
    mask: Mask,
    key_as: KeyStyle,
    paths: Vec<String>,
    models: Vec<String>,
    deny_server_tools: bool,
    budget_tokens: Option<u64>,
    client: reqwest::Client,
    count: Arc<dyn CountModel>,
    bodies: Bodies,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Endpoint")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// The configured endpoints by name.
pub type Endpoints = BTreeMap<String, Arc<Endpoint>>;

impl Endpoint {
    /// An endpoint; the key was read by the caller.
    ///
    /// # Errors
    /// The HTTP client cannot be made, the key is none, or a path is never open; in a sentence.
    pub fn new(config: &Config, key: Option<Secret>, count: Arc<dyn CountModel>) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(15))
            .build()
            .map_err(|error| error.to_string())?;
        if let Some(path) = config.paths.iter().find(|path| api::is_never(path)) {
            return Err(format!(
                "the path {path} is never open to agents: what is stored there is under the operator's key"
            ));
        }
        let url = config.url.trim_end_matches('/');
        let url = url.strip_suffix("/v1").unwrap_or(url).to_owned();
        if let Some(key) = &key
            && HeaderValue::from_str(key.expose()).is_err()
        {
            return Err("its key holds characters that no header can carry".to_owned());
        }
        Ok(Self {
            url,
            mask: Mask::new(&key),
            key,
            key_as: config.key_as,
            paths: config.paths.clone(),
            models: config.models.clone(),
            deny_server_tools: config.deny_server_tools,
            budget_tokens: config.budget_tokens,
            client,
            count,
            bodies: Bodies::new(DEFAULT_BODIES),
        })
    }

    /// Has requests counted against this memory, which other endpoints share.
    #[must_use]
    pub fn holding_in(self, bodies: Bodies) -> Self {
        Self { bodies, ..self }
    }
}

/// What makes the route of one session, to the one endpoint that its agent is configured with, and the meter on it. `most_tokens` is the task's
/// own limit: it can only lower the endpoint's.
pub fn router(
    name: &str,
    endpoint: Arc<Endpoint>,
    most_tokens: Option<u64>,
) -> (impl Fn() -> Router + use<>, Arc<Meter>) {
    let budget = [endpoint.budget_tokens, most_tokens].into_iter().flatten().min();
    let meter = Arc::new(Meter::new(name, budget, endpoint.count.clone()));
    let route = forward::Route::new(endpoint, meter.clone());
    let place = format!("/model/{name}");
    let routes = move || {
        let below = Router::new().fallback(forward::forward).with_state(route.clone());
        Router::new().nest(&place, below)
    };
    (routes, meter)
}

#[cfg(test)]
mod tests;
