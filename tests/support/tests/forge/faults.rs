//! Faults that a test scripts: each arrives as it was asked for, for the requests that were named and no others.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, got};

const API: &str = "test-gitlab-api";

async fn set(world: &World, fault: Value) {
    let made = world.control(Method::POST, "/faults", Some(fault)).await;
    assert_eq!(made.status, 201, "{}", made.body);
}

/// Asks and returns the status, the body's bytes, and whether the body came whole.
async fn raw(world: &World, path: &str) -> (u16, Vec<u8>, bool) {
    let Ok(mut response) = world.gitlab(Method::GET, path, API).send().await else {
        return (0, Vec::new(), false);
    };
    let (status, mut bytes) = (response.status().as_u16(), Vec::new());
    let whole = loop {
        match response.chunk().await {
            Ok(Some(part)) => bytes.extend_from_slice(&part),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    (status, bytes, whole)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_replaced_by_what_proxies_and_limits_say() {
    let world = World::start().await;
    set(
        &world,
        json!({"status": 502, "body": "<html><h1>Bad Gateway</h1></html>"}),
    )
    .await;
    let page = world.get_gitlab("/user", API).await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (502, "text/html; charset=utf-8")
    );

    let headers = json!({"Retry-After": "3", "RateLimit-Remaining": "0"});
    set(
        &world,
        json!({"status": 429, "body": "Retry later\n", "headers": headers}),
    )
    .await;
    let limited = world.get_gitlab("/user", API).await;
    assert_eq!(
        (
            limited.status,
            limited.header("retry-after"),
            limited.header("ratelimit-remaining")
        ),
        (429, "3", "0")
    );
    set(&world, json!({"status": 429})).await;
    let bare = world.get_gitlab("/user", API).await;
    assert!(bare.status == 429 && !bare.headers.contains_key("retry-after"));

    // A page in place of JSON, with a status that promises it.
    set(
        &world,
        json!({"status": 200, "body": "<html>Sign in</html>", "content_type": "application/json"}),
    )
    .await;
    assert_eq!(
        raw(&world, "/user").await,
        (200, b"<html>Sign in</html>".to_vec(), true)
    );
    // Not UTF-8: {"name":"\xff\xfe"}
    set(&world, json!({"status": 200, "body_base64": "eyJuYW1lIjoi//4ifQ=="})).await;
    let (_, bytes, _) = raw(&world, "/user").await;
    assert!(String::from_utf8(bytes).is_err());
    // Nothing is left over.
    assert_eq!(world.get_gitlab("/user", API).await.status, 200);
    assert_eq!(world.control(Method::GET, "/faults", None).await.body, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_cut_broken_off_late_or_huge() {
    let world = World::start().await;
    let (_, whole, _) = raw(&world, "/user").await;
    set(&world, json!({"truncate": 20})).await;
    assert_eq!(raw(&world, "/user").await, (200, whole[..20].to_vec(), true));

    set(&world, json!({"cut": true})).await;
    let (_, bytes, came) = raw(&world, "/user").await;
    assert!(bytes.is_empty() && !came);
    set(&world, json!({"cut": true, "cut_after_bytes": 20})).await;
    let (status, bytes, came) = raw(&world, "/user").await;
    assert_eq!((status, bytes.as_slice(), came), (200, &whole[..20], false));

    set(&world, json!({"stall_after_bytes": 20, "stall_ms": 300})).await;
    let started = Instant::now();
    assert_eq!(raw(&world, "/user").await.1.len(), whole.len());
    assert!(started.elapsed() >= Duration::from_millis(300));

    set(
        &world,
        json!({"status": 200, "body": "{\"a\":\"", "filler_bytes": 20_000_000, "body_end": "\"}"}),
    )
    .await;
    let huge = got(world.gitlab(Method::GET, "/user", API)).await;
    assert_eq!(huge.body["a"].as_str().unwrap().len(), 20_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_answer_is_changed_on_its_way() {
    let world = World::start().await;
    set(
        &world,
        json!({"link_host": "http://elsewhere.example", "match": {"path": "/gitlab/api/v4/projects"}}),
    )
    .await;
    let list = world.get_gitlab("/projects?per_page=1", API).await;
    let link = list.header("link");
    assert!(
        link.contains("<http://elsewhere.example/gitlab/api/v4/projects?") && !link.contains("127.0.0.1"),
        "{link}"
    );
    assert!(link.contains("rel=\"next\"") && list.body[0]["id"].is_u64());

    set(&world, json!({"rewrite": [["ada@example.org", "eve@example.org"]], "without_headers": ["etag"], "headers": {"X-Page": "9"}})).await;
    let user = world.get_gitlab("/user", API).await;
    assert_eq!(
        (&user.body["email"], user.header("x-page")),
        (&json!("eve@example.org"), "9")
    );
    assert!(!user.headers.contains_key("etag"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_finds_its_requests() {
    let world = World::start().await;
    let status = async |path: &str, token: &str| world.get_gitlab(path, token).await.status;
    // By pattern; the second and third of them.
    set(
        &world,
        json!({"match": {"path": "/gitlab/api/v4/projects/*/issues"}, "status": 500, "skip": 1, "times": 2}),
    )
    .await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        assert_eq!(status("/projects/101/merge_requests", API).await, 200);
        seen.push(status("/projects/101/issues", API).await);
    }
    assert_eq!(seen, [200, 500, 500, 200]);

    // By token, for ever.
    set(
        &world,
        json!({"match": {"token": "grace-gitlab-api"}, "status": 503, "always": true}),
    )
    .await;
    for _ in 0..3 {
        assert_eq!(
            (status("/user", "test-gitlab-grace").await, status("/user", API).await),
            (503, 200)
        );
    }
    assert_eq!(world.control(Method::DELETE, "/faults", None).await.status, 204);
    assert_eq!(status("/user", "test-gitlab-grace").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_cannot_be_played_is_refused() {
    let world = World::start().await;
    for fault in [
        json!({"status": 99}),
        json!({"body": "x"}),
        json!({"status": 200, "body_base64": "?"}),
        json!({"headers": {"no header": "x"}}),
        json!({"unknown": 1}),
    ] {
        let answer = world.control(Method::POST, "/faults", Some(fault.clone())).await;
        assert_eq!(answer.status, 422, "{fault}");
    }
}
