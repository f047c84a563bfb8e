//! The tools: requests of an agent to the MCP server, and how much of a forge's text a result holds.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use cofferdam::fuzzing::tools;
use cofferdam::grant::{Grant, Identity, ProjectGrant, SessionLimits};
use cofferdam::message::{Capabilities, ForgeKind, ProjectKey, Publish, Uncommitted};
use cofferdam::tools::{DiffRequest, Diffs, GitDiff, Reach, Wishes, router};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::judge::{assert_visible, each_string};

struct NoGit;

#[async_trait::async_trait]
impl Diffs for NoGit {
    async fn diff(&self, _: &ProjectKey, _: &DiffRequest) -> Result<GitDiff, String> {
        Err("there is none".to_owned())
    }
}

fn project() -> ProjectGrant {
    let name = |text: &str| text.parse().expect("it is one");
    ProjectGrant {
        key: ProjectKey {
            connection: "work".parse().expect("it is one"),
            path: "a/b".parse().expect("it is one"),
        },
        forge: ForgeKind::Gitlab,
        connection: "work".parse().expect("it is one"),
        id: "7".into(),
        instance: "https://h.example".into(),
        clone_url: "https://h.example/a/b.git".into(),
        web_url: "https://h.example/a/b".into(),
        base: name("main"),
        default_branch: name("main"),
        branch: name("cofferdam/fix-deadbeef"),
        directory: "b".into(),
        identity: Identity {
            name: "Ada".into(),
            email: "ada@example.org".into(),
        },
        capabilities: Capabilities::UNPROVEN,
    }
}

fn server() -> (Router, Wishes) {
    let grant = Grant {
        session: "0190c2f0-7c1e-7000-8000-000000000001".parse().expect("it is one"),
        projects: vec![project()],
        trailers: Default::default(),
        publish: Publish::ChangeRequest,
        uncommitted: Uncommitted::Commit,
        may_comment: true,
        egress: cofferdam::grant::egress::Egress::connections(),
        limits: SessionLimits {
            session: Default::default(),
            turn: Default::default(),
            idle: Default::default(),
        },
    };
    let reach = Reach {
        project: Arc::new(|_| None),
        diffs: Arc::new(NoGit),
        tell: Arc::new(|_| Box::pin(async {})),
        may_act: Arc::new(|| true),
        refuse: Arc::new(|_| None),
        speaking: tokio_util::task::TaskTracker::new(),
    };
    let wishes = Wishes::default();
    (router(Arc::new(grant), wishes.clone(), reach)(), wishes)
}

/// A request's body; where it is no JSON object, it is taken for a tool's name, a line, and its arguments.
pub fn calls(data: &[u8]) {
    static SERVER: OnceLock<(Router, Wishes, tokio::runtime::Runtime)> = OnceLock::new();
    let (router, wishes, runtime) = SERVER.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let (router, wishes) = server();
        (router, wishes, runtime)
    });
    let body = match data.split_first() {
        Some((b'{' | b'[', _)) => data.to_vec(),
        _ => {
            let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
            let arguments: Value = serde_json::from_slice(&data[end..]).unwrap_or(json!({}));
            let name = String::from_utf8_lossy(&data[..end]);
            let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}});
            call.to_string().into_bytes()
        }
    };
    let request = Request::post("/mcp")
        .header("host", "127.0.0.1:8470")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2025-11-25")
        .body(Body::from(body))
        .expect("a request");
    let answer = runtime.block_on(async {
        let answer = router.clone().oneshot(request).await.expect("an answer");
        let status = answer.status().as_u16();
        assert!(status < 500, "{status}");
        axum::body::to_bytes(answer.into_body(), 4 * tools::LARGEST_RESULT)
            .await
            .expect("a bounded answer")
    });
    if let Ok(answer) = serde_json::from_slice::<Value>(&answer)
        && answer["result"]["isError"] == true
    {
        let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
        assert!(text.chars().count() <= 600, "{text}");
    }
    if let Some(wish) = wishes.get(&project().key) {
        for text in [wish.title, wish.changes, wish.approach, wish.trade_offs, wish.checked] {
            assert!(text.len() <= 32 * 1024);
        }
    }
}

/// Rows of a forge, and where to read on.
pub fn results(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let (project, place) = (project(), value.get("place").cloned().unwrap_or(json!({})));
    let text_from = place.get("text_from").and_then(Value::as_u64).unwrap_or(0);
    let rows = match value.get("rows") {
        Some(Value::Array(rows)) => rows.clone(),
        _ => vec![value.clone()],
    };
    let single = tools::single(&project, &value, usize::try_from(text_from).unwrap_or(usize::MAX));
    for result in [tools::listed(&project, rows.clone(), place), single]
        .into_iter()
        .flatten()
    {
        assert!(
            result.to_string().len() <= tools::LARGEST_RESULT,
            "{} bytes",
            result.to_string().len()
        );
        assert_eq!(result["truncated"] == true, result.get("rest").is_some(), "{result}");
        let shown = result.get("items").or(result.get("item")).expect("rows or one thing");
        each_string(shown, "", &mut |_, text| assert_visible(text));
    }
}
