//! Both revisions of the protocol, what every tool says of itself, wishes, and who may ask at all.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::double::change_request;
use super::{HOST, World, call, meta};
use crate::tools::{LARGEST_REQUEST, LONGEST_ARGUMENT};

/// Name, whether it only reads, whether doing it twice is doing it once, whether it goes out to a forge.
const TOOLS: [(&str, bool, bool, bool); 11] = [
    ("comment_on_issue", false, false, true),
    ("create_change_request", false, true, false),
    ("get_change_request", true, true, true),
    ("get_change_request_diff", true, true, true),
    ("get_issue", true, true, true),
    ("get_session", true, true, false),
    ("list_change_request_discussions", true, true, true),
    ("list_change_requests", true, true, true),
    ("list_issue_comments", true, true, true),
    ("list_issues", true, true, true),
    ("reply_to_discussion", false, false, true),
];

fn check_tools(answer: &Value) {
    let tools = answer["result"]["tools"].as_array().unwrap();
    let mut names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, TOOLS.map(|(name, ..)| name));
    for tool in tools {
        let (_, reads, same, open) = TOOLS.iter().find(|(name, ..)| tool["name"] == *name).unwrap();
        let hints = &tool["annotations"];
        assert_eq!(hints["readOnlyHint"], *reads, "{tool}");
        assert_eq!(hints["destructiveHint"], false, "{tool}");
        assert_eq!(hints["idempotentHint"], *same, "{tool}");
        assert_eq!(hints["openWorldHint"], *open, "{tool}");
        assert!(tool["title"].as_str().is_some_and(|title| !title.is_empty()), "{tool}");
        assert_eq!(tool["title"], hints["title"]);
        assert!(
            tool["description"].as_str().is_some_and(|text| text.len() > 20),
            "{tool}"
        );
        assert_eq!(tool["inputSchema"]["type"], "object", "{tool}");
        assert_eq!(tool["outputSchema"]["type"], "object", "{tool}");
    }
}

#[tokio::test]
async fn the_revisions_with_a_handshake_are_answered() {
    for version in ["2025-06-18", "2025-11-25"] {
        let mut world = World::with(|world| world.double().change_requests = vec![change_request(1, "One")]);
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": version,
            "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
        let (status, answer) = world.ask(HOST, version, &hello).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["result"]["protocolVersion"], version, "{answer}");
        let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}});
        let (_, answer) = world.ask(HOST, version, &list).await;
        check_tools(&answer);
        let plain = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call",
            "params": {"name": "list_change_requests", "arguments": {"project": "work:a/b"}}});
        let (_, answer) = world.ask(HOST, version, &plain).await;
        assert_eq!(
            answer.pointer("/result/structuredContent/items/0/number"),
            Some(&json!(1)),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn the_revision_without_a_handshake_is_answered() {
    let version = "2026-07-28";
    let mut world = World::with(|world| world.double().change_requests = vec![change_request(1, "One")]);
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"_meta": meta(version)}});
    let (_, answer) = world.ask(HOST, version, &list).await;
    check_tools(&answer);
    let (status, answer) = world
        .ask(HOST, version, &call(version, "get_session", &json!({})))
        .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let shown = &answer["result"]["structuredContent"]["projects"][0];
    assert_eq!(shown["branch"], "cofferdam/x-1", "{answer}");
    assert_eq!(
        (&shown["may_read_issues"], &shown["may_comment"]),
        (&json!(true), &json!(false))
    );
    let asked = call(version, "list_change_requests", &json!({"project": "work:a/b"}));
    let (_, answer) = world.ask(HOST, version, &asked).await;
    assert_eq!(
        answer.pointer("/result/structuredContent/items/0/number"),
        Some(&json!(1)),
        "{answer}"
    );
}

#[tokio::test]
async fn a_wish_is_recorded_for_a_project_of_the_session_only() {
    let mut world = World::new();
    let texts = |project: &str, title: &str| json!({"project": project, "title": title, "changes": "c", "approach": "a", "trade_offs": "t"});
    world.call("create_change_request", texts("work:a/b", "One")).await;
    let key = world.grant.projects[0].key.clone();
    assert_eq!(world.wishes.get(&key).unwrap().title, "One");
    let refused = world
        .refusal("create_change_request", texts("work:other/secret", "x"))
        .await;
    assert!(
        refused.contains("work:a/b, hub:a/c") && !refused.contains("secret"),
        "{refused}"
    );
    let long = "x".repeat(LONGEST_ARGUMENT + 1);
    let refused = world.refusal("create_change_request", texts("work:a/b", &long)).await;
    assert!(refused.starts_with("title "), "{refused}");
    assert_eq!(world.wishes.get(&key).unwrap().title, "One");
}

#[tokio::test]
async fn only_the_session_s_projects_can_be_asked_about_and_no_argument_is_ignored() {
    let mut world = World::new();
    for project in [json!("work:a/other"), json!("a/b/../c"), json!("hub:a/b"), Value::Null] {
        let refused = world.refusal("list_issues", json!({"project": project})).await;
        assert!(refused.contains("work:a/b"), "{project}: {refused}");
    }
    // The path alone names it where it is one project's.
    world.call("list_issues", json!({"project": "a/c"})).await;
    let before = world.double.asked().len();
    for (tool, arguments) in [
        (
            "list_change_requests",
            json!({"project": "work:a/b", "assignee": "ada"}),
        ),
        (
            "list_change_requests",
            json!({"project": "work:a/b", "state": "opened"}),
        ),
        ("list_issues", json!({"project": "work:a/b", "state": "merged"})),
        ("list_issues", json!({"project": "work:a/b", "per_page": 1000})),
        ("list_issues", json!({"project": "work:a/b", "labels": vec!["x"; 21]})),
        ("get_issue", json!({"project": "work:a/b", "number": 0})),
        ("get_issue", json!({"project": "work:a/b", "number": "1; drop"})),
        (
            "get_issue",
            json!({"project": "work:a/b", "number": 1, "confidential": true}),
        ),
        (
            "get_change_request_diff",
            json!({"project": "work:a/b", "number": 1, "path": "a\nb"}),
        ),
    ] {
        let refused = world.refusal(tool, arguments.clone()).await;
        assert!(!refused.is_empty(), "{arguments}");
    }
    assert_eq!(world.double.asked().len(), before, "nothing was asked");
}

#[tokio::test]
async fn another_host_and_a_huge_body_are_refused() {
    let mut world = World::new();
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}});
    let (status, _) = world.ask("evil.example", "2025-11-25", &list).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let huge = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"x": "y".repeat(LARGEST_REQUEST)}});
    let (status, _) = world.ask(HOST, "2025-11-25", &huge).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}
