//! The tools over HTTP as agents ask for them, against a forge made by hand.

mod comments;
mod double;
mod protocol;
mod reading;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{ForgeProject, Reach, Wishes, router};
use crate::grant::{Grant, Identity, ProjectGrant, SessionLimits};
use crate::message::{Capabilities, EventBody, ForgeKind, ProjectKey, Publish, Uncommitted};
use double::{Double, NoGit, facts};

const HOST: &str = "127.0.0.1:8470";

/// One session whose tools are asked.
struct World {
    grant: Grant,
    wishes: Wishes,
    double: Arc<Double>,
    diffs: Arc<dyn super::Diffs>,
    told: Arc<Mutex<Vec<EventBody>>>,
    router: Option<axum::Router>,
}

impl World {
    /// Two projects, `work:a/b` on a GitLab and `hub:a/c` on a GitHub, with nothing known of the tokens.
    fn new() -> Self {
        Self {
            grant: grant(),
            wishes: Wishes::default(),
            double: Arc::default(),
            diffs: Arc::new(NoGit),
            told: Arc::default(),
            router: None,
        }
    }

    fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut world = Self::new();
        change(&mut world);
        world
    }

    fn double(&mut self) -> &mut Double {
        Arc::get_mut(&mut self.double).unwrap()
    }

    fn router(&mut self) -> axum::Router {
        let told = Arc::clone(&self.told);
        let reach = Reach {
            project: {
                let forge = Arc::clone(&self.double);
                let known: Vec<_> = self.grant.projects.iter().map(|project| project.key.clone()).collect();
                Arc::new(move |key| {
                    known.contains(key).then(|| {
                        let forge = Arc::clone(&forge);
                        ForgeProject { forge, facts: facts() }
                    })
                })
            },
            diffs: Arc::clone(&self.diffs),
            may_act: Arc::new(|| true),
            refuse: Arc::new(|text| text.contains("hush").then(|| "what looks like a token".to_owned())),
            speaking: tokio_util::task::TaskTracker::new(),
            tell: Arc::new(move |event| {
                told.lock().unwrap().push(event);
                Box::pin(async {})
            }),
        };
        let (grant, wishes) = (Arc::new(self.grant.clone()), self.wishes.clone());
        self.router
            .get_or_insert_with(|| router(grant, wishes, reach)())
            .clone()
    }

    async fn ask(&mut self, host: &str, version: &str, body: &Value) -> (StatusCode, Value) {
        let mut request = Request::post("/mcp")
            .header("host", host)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", version);
        if version == "2026-07-28" {
            // This revision repeats in headers what the body says.
            request = request.header("mcp-method", body["method"].as_str().unwrap_or_default());
            if let Some(name) = body.pointer("/params/name").and_then(Value::as_str) {
                request = request.header("mcp-name", name);
            }
        }
        let request = request.body(Body::from(body.to_string())).unwrap();
        let answer = self.router().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 1024 * 1024).await.unwrap();
        let value = serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
        (status, value)
    }

    /// What a tool answers when it works.
    async fn call(&mut self, name: &str, arguments: Value) -> Value {
        let (_, answer) = self
            .ask(HOST, "2025-11-25", &call("2025-11-25", name, &arguments))
            .await;
        assert_eq!(answer["result"]["isError"], false, "{answer}");
        let structured = answer["result"]["structuredContent"].clone();
        let text = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), structured);
        assert!(text.len() <= super::bounds::LARGEST_RESULT, "{} bytes", text.len());
        structured
    }

    /// What a tool says when it does not.
    async fn refusal(&mut self, name: &str, arguments: Value) -> String {
        let (_, answer) = self
            .ask(HOST, "2025-11-25", &call("2025-11-25", name, &arguments))
            .await;
        assert_eq!(answer["result"]["isError"], true, "{answer}");
        answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
    }
}

fn grant() -> Grant {
    let project = |connection: &str, path: &str, forge| ProjectGrant {
        key: ProjectKey {
            connection: connection.parse().unwrap(),
            path: path.parse().unwrap(),
        },
        forge,
        connection: connection.parse().unwrap(),
        id: "1".into(),
        instance: "https://forge.example".into(),
        clone_url: "https://forge.example/a/b.git".into(),
        web_url: "https://forge.example/a/b".into(),
        base: "main".parse().unwrap(),
        default_branch: "main".parse().unwrap(),
        branch: "cofferdam/x-1".parse().unwrap(),
        directory: "/workspace/b".into(),
        identity: Identity {
            name: "Ada".into(),
            email: "ada@example.org".into(),
        },
        capabilities: Capabilities::UNPROVEN,
    };
    let second = std::time::Duration::from_secs(1);
    Grant {
        session: "0190c2f0-7c1e-7000-8000-000000000001".parse().unwrap(),
        projects: vec![
            project("work", "a/b", ForgeKind::Gitlab),
            project("hub", "a/c", ForgeKind::Github),
        ],
        trailers: BTreeMap::new(),
        publish: Publish::ChangeRequest,
        uncommitted: Uncommitted::Commit,
        may_comment: false,
        egress: crate::grant::Egress::default(),
        limits: SessionLimits {
            session: second,
            turn: second,
            idle: second,
        },
    }
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
