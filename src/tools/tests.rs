//! The tools over HTTP as agents of both revisions of the protocol ask for them.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::message::{ForgeKind, Publish, Uncommitted};

fn grant() -> Arc<Grant> {
    let project = |path: &str| crate::grant::ProjectGrant {
        key: ProjectKey {
            connection: "work".parse().unwrap(),
            path: path.parse().unwrap(),
        },
        forge: ForgeKind::Gitlab,
        connection: "work".parse().unwrap(),
        id: "1".into(),
        instance: "https://forge.example".into(),
        clone_url: "https://forge.example/a/b.git".into(),
        web_url: "https://forge.example/a/b".into(),
        base: "main".parse().unwrap(),
        default_branch: "main".parse().unwrap(),
        branch: "cofferdam/x-1".parse().unwrap(),
        directory: "/workspace/b".into(),
        identity: crate::grant::Identity {
            name: "Ada".into(),
            email: "ada@example.org".into(),
        },
        capabilities: crate::message::Capabilities::UNPROVEN,
    };
    let second = std::time::Duration::from_secs(1);
    Arc::new(Grant {
        session: "0190c2f0-7c1e-7000-8000-000000000001".parse().unwrap(),
        projects: vec![project("a/b"), project("a/c")],
        trailers: BTreeMap::new(),
        publish: Publish::ChangeRequest,
        uncommitted: Uncommitted::Commit,
        may_comment: false,
        limits: crate::grant::SessionLimits {
            session: second,
            turn: second,
            idle: second,
        },
    })
}

async fn ask(wishes: &Wishes, host: &str, version: &str, body: &Value) -> (StatusCode, Value) {
    let method = body["method"].as_str().unwrap_or_default().to_owned();
    let mut request = Request::post("/mcp")
        .header("host", host)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", version);
    if version == "2026-07-28" {
        // This revision repeats in headers what the body says.
        request = request.header("mcp-method", method);
        if let Some(name) = body.pointer("/params/name").and_then(Value::as_str) {
            request = request.header("mcp-name", name);
        }
    }
    let request = request.body(Body::from(body.to_string())).unwrap();
    let answer = router(grant(), wishes.clone()).oneshot(request).await.unwrap();
    let status = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), 1024 * 1024).await.unwrap();
    let value = serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
    (status, value)
}

fn call(version: &str, name: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": name, "arguments": arguments, "_meta": meta(version)}})
}

fn meta(version: &str) -> Value {
    json!({"io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}})
}

const HOST: &str = "127.0.0.1:8470";

#[tokio::test]
async fn the_revisions_with_a_handshake_are_answered() {
    for version in ["2025-06-18", "2025-11-25"] {
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": version,
            "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
        let (status, answer) = ask(&Wishes::default(), HOST, version, &hello).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["result"]["protocolVersion"], version, "{answer}");
        let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}});
        let (_, answer) = ask(&Wishes::default(), HOST, version, &list).await;
        let tools = answer["result"]["tools"].as_array().unwrap();
        assert_eq!(tools.len(), 2, "{answer}");
        for tool in tools {
            assert_eq!(tool["annotations"]["openWorldHint"], false, "{tool}");
            assert_eq!(tool["annotations"]["destructiveHint"], false, "{tool}");
        }
    }
}

#[tokio::test]
async fn the_revision_without_a_handshake_is_answered() {
    let version = "2026-07-28";
    let wishes = Wishes::default();
    let (status, answer) = ask(&wishes, HOST, version, &call(version, "get_session", &json!({}))).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(
        answer.pointer("/result/structuredContent/projects/0/branch"),
        Some(&json!("cofferdam/x-1")),
        "{answer}"
    );
}

#[tokio::test]
async fn a_wish_is_recorded_for_a_project_of_the_session_only() {
    let version = "2025-11-25";
    let wishes = Wishes::default();
    let texts = |project: &str, title: &str| json!({"project": project, "title": title, "changes": "c", "approach": "a", "trade_offs": "t"});
    let named = |arguments: Value| call(version, "create_change_request", &arguments);
    let (_, answer) = ask(&wishes, HOST, version, &named(texts("work:a/b", "One"))).await;
    assert!(answer.get("result").is_some(), "{answer}");
    assert_eq!(wishes.get(&grant().projects[0].key).unwrap().title, "One");
    for bad in [
        texts("work:other/secret", "x"),
        texts("work:a/b", &"x".repeat(LONGEST_ARGUMENT + 1)),
    ] {
        let (_, answer) = ask(&wishes, HOST, version, &named(bad)).await;
        assert!(answer.get("error").is_some(), "{answer}");
    }
    assert_eq!(wishes.get(&grant().projects[0].key).unwrap().title, "One");
}

#[tokio::test]
async fn another_host_and_a_huge_body_are_refused() {
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}});
    let (status, _) = ask(&Wishes::default(), "evil.example", "2025-11-25", &list).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let huge = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"x": "y".repeat(LARGEST_REQUEST)}});
    let (status, _) = ask(&Wishes::default(), HOST, "2025-11-25", &huge).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}
