//! An MCP server with two tools for the tests: it wants the header and the order that the protocol's text wants.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::post};
use serde_json::{Value, json};

pub(crate) struct ToolServer {
    pub(crate) url: String,
    heard: Arc<Heard>,
    _runtime: tokio::runtime::Runtime,
}

struct Heard {
    authorization: &'static str,
    methods: Mutex<Vec<String>>,
}

impl ToolServer {
    /// Which methods were called with the right header, in order.
    pub(crate) fn methods(&self) -> Vec<String> {
        self.heard.methods.lock().unwrap().clone()
    }
}

pub(crate) fn start(authorization: &'static str) -> ToolServer {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let heard = Arc::new(Heard {
        authorization,
        methods: Mutex::default(),
    });
    let router = Router::new().route("/mcp", post(answer)).with_state(heard.clone());
    runtime.spawn(async move { axum::serve(listener, router).await });
    ToolServer {
        url,
        heard,
        _runtime: runtime,
    }
}

async fn answer(State(heard): State<Arc<Heard>>, headers: HeaderMap, Json(message): Json<Value>) -> Response {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    if header("authorization") != heard.authorization {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let accept = header("accept");
    if !(accept.contains("application/json") && accept.contains("text/event-stream")) {
        return StatusCode::NOT_ACCEPTABLE.into_response();
    }
    let method = message["method"].as_str().unwrap();
    heard.methods.lock().unwrap().push(method.to_owned());
    if method.starts_with("tools/")
        && (header("mcp-session-id") != "s-1" || header("mcp-protocol-version") != "2025-06-18")
    {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let result = match (method, message["params"]["name"].as_str()) {
        ("initialize", _) => {
            json!({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "t", "version": "1"}})
        }
        ("tools/list", _) => json!({"tools": [{"name": "echo"}, {"name": "refuse"}]}),
        ("tools/call", Some("echo")) => {
            json!({"content": [{"type": "text", "text": message["params"]["arguments"]["text"]}]})
        }
        ("tools/call", Some("refuse")) => json!({"isError": true, "content": [{"type": "text", "text": "not today"}]}),
        (_, _) => return StatusCode::ACCEPTED.into_response(),
    };
    let body = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    if method == "tools/call" {
        // Both ways of answering are allowed to a server.
        let stream = format!(": hello\n\nevent: message\ndata: {body}\n\n");
        return ([("content-type", "text/event-stream")], stream).into_response();
    }
    ([("mcp-session-id", "s-1")], Json(body)).into_response()
}
