//! Faults, the request log, and tokens changed under way.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::world::{GREETER, GREETER_KEY, World};

const API: &str = "test-gitlab-api";

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_hits_what_matches_as_often_as_asked() {
    let world = World::start().await;
    let fault = json!({
        "match": {"method": "GET", "path_contains": "/projects"}, "status": 429, "body": "Retry later\n",
        "headers": {"Retry-After": "7"}, "times": 2,
    });
    assert_eq!(world.control(Method::POST, "/faults", Some(fault)).await.status, 201);
    assert_eq!(world.get_gitlab("/user", API).await.status, 200);
    for _ in 0..2 {
        let hit = world.get_gitlab("/projects", API).await;
        assert_eq!(
            (hit.status, hit.header("retry-after"), hit.body.as_str()),
            (429, "7", Some("Retry later\n"))
        );
        assert!(hit.header("content-type").starts_with("text/plain"));
    }
    assert_eq!(world.get_gitlab("/projects", API).await.status, 200);

    let slow = json!({"match": {"path_contains": "/user"}, "delay_ms": 300});
    world.control(Method::POST, "/faults", Some(slow)).await;
    let started = Instant::now();
    assert_eq!(world.get_gitlab("/user", API).await.status, 200);
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_lost_after_the_deed() {
    let world = World::start().await;
    world.pushed("gitlab", GREETER, API, "feature").await;
    let fault = json!({"match": {"method": "POST", "path_contains": "/merge_requests"}, "cut": true, "after": true});
    world.control(Method::POST, "/faults", Some(fault)).await;
    let path = format!("/projects/{GREETER_KEY}/merge_requests");
    let body = json!({"title": "x", "source_branch": "feature", "target_branch": "main"});
    let lost = match world.gitlab(Method::POST, &path, API).json(&body).send().await {
        Ok(answer) => answer.bytes().await.is_err(),
        Err(_) => true,
    };
    assert!(lost);
    assert_eq!(world.get_gitlab(&path, API).await.body[0]["title"], "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_answer_is_lost_has_happened() {
    let world = World::start().await;
    let work = world.work("gitlab", GREETER, API, "feature").await;
    let fault = json!({"match": {"method": "POST", "path_contains": "git-receive-pack"}, "cut": true, "after": true});
    world.control(Method::POST, "/faults", Some(fault)).await;
    assert!(!world.git(&work, &["push", "origin", "feature"]).await.ok);
    assert!(world.head("gitlab", GREETER, "feature").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_tokens_and_never_shows_them() {
    let world = World::start().await;
    world.get_gitlab("/user", API).await;
    world.get_gitlab(&format!("/user?private_token={API}"), "").await;
    world.get_gitlab("/user", "unknown-secret").await;
    world.get_github("/user", "test-github-repo").await;
    let log = world.control(Method::GET, "/requests", None).await.body;
    let tokens: Vec<_> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["token"].as_str().unwrap())
        .collect();
    assert_eq!(tokens, ["ada-gitlab-api", "ada-gitlab-api", "?", "ada-github-repo"]);
    assert_eq!(log[2]["status"], 401);
    let text = log.to_string();
    assert!(!text.contains(API) && !text.contains("unknown-secret") && !text.contains("test-github-repo"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_dies_under_way() {
    let world = World::start().await;
    let status = async || world.get_gitlab("/user", API).await.status;
    assert_eq!(status().await, 200);
    world
        .control(
            Method::POST,
            "/tokens/ada-gitlab-api",
            Some(json!({"expires_at": "2020-01-01"})),
        )
        .await;
    assert_eq!(world.get_gitlab("/user", API).await.body["error"], "invalid_token");
    let url = world.url("gitlab", GREETER, API);
    world
        .git(world.directory.path(), &["ls-remote", &url])
        .await
        .bad(&["Authentication failed"]);
    world
        .control(
            Method::POST,
            "/tokens/ada-gitlab-api",
            Some(json!({"expires_at": "2099-01-01"})),
        )
        .await;
    assert_eq!(status().await, 200);
    let missing = world
        .control(Method::POST, "/tokens/nobody", Some(json!({"revoked": true})))
        .await;
    assert_eq!(missing.status, 404);
}
