//! GitHub's REST: what the measured rows say, and the life of a pull request.

use reqwest::Method;
use serde_json::{Value, json};

use crate::data::matches_row;
use crate::world::{WEBSITE, World, got};

const REPO: &str = "test-github-repo";
const PULLS: &str = "/repos/acme/website/pulls";

fn wish(head: &str) -> Value {
    json!({"title": "A title", "head": head, "base": "main", "body": "words"})
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_judged_as_measured() {
    let world = World::start().await;
    for (row, path, token) in [
        (1, "/user", "unknown"),
        (1, "/user", "test-github-expired"),
        (1, "/user", "test-github-revoked"),
        (3, "/repos/acme/nothing", REPO),
        (3, "/repos/acme/website", ""),
        (3, "/repos/acme/website", "test-github-no-scope"),
        (3, "/repos/acme/legacy", "test-github-fine-grained"),
        (8, "/repos/acme/website/branches/none", REPO),
    ] {
        let answer = world.get_github(path, token).await;
        matches_row("github", row, answer.status, &answer.body);
    }
    assert_eq!(world.get_github("/user", "").await.status, 401);
    let user = world.get_github("/user", REPO).await;
    assert_eq!(
        (user.header("x-oauth-scopes"), &user.body["login"]),
        ("repo", &json!("ada"))
    );
    assert_eq!(
        user.header("github-authentication-token-expiration"),
        "2099-01-01 00:00:00 UTC"
    );
    let fine = world.get_github("/user", "test-github-fine-grained").await;
    assert!(!fine.headers.contains_key("x-oauth-scopes"));
    let old = world.client.get(format!("{}/api/v3/user", world.running.github));
    assert_eq!(
        got(old.header("Authorization", format!("token {REPO}"))).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_is_opened_found_changed_and_read() {
    let world = World::start().await;
    let head = world.pushed("github", WEBSITE, REPO, "feature").await;
    let made = world.post_github(PULLS, REPO, wish("feature")).await;
    assert_eq!(made.status, 201, "{}", made.body);
    // Issue 1 is seeded: numbers are shared.
    assert_eq!(made.body["number"], 2);
    assert_eq!(made.body["head"]["sha"], head.as_str());
    assert_eq!(made.body["head"]["label"], "acme:feature");
    assert_eq!(
        (&made.body["mergeable"], &made.body["mergeable_state"]),
        (&Value::Null, &json!("unknown"))
    );
    assert_eq!(
        made.body["html_url"],
        format!("{}/{WEBSITE}/pull/2", world.running.github)
    );

    let path = format!("{PULLS}/2");
    assert_eq!(world.get_github(&path, REPO).await.body["mergeable"], Value::Null);
    let read = world.get_github(&path, REPO).await.body;
    assert_eq!(
        (&read["mergeable"], &read["changed_files"], &read["commits"]),
        (&json!(true), &json!(1), &json!(1))
    );

    let count = async |query: &str| {
        world
            .get_github(&format!("{PULLS}?{query}"), REPO)
            .await
            .body
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(count("head=acme:feature&base=main").await, 1);
    assert_eq!(count("head=acme:other").await, 0);
    // Without an owner the filter is ignored.
    assert_eq!(count("head=other").await, 1);

    let files = world.get_github(&format!("{path}/files"), REPO).await.body;
    assert_eq!(
        (&files[0]["filename"], &files[0]["status"]),
        (&json!("change.txt"), &json!("added"))
    );
    assert_eq!(files[0]["patch"], "@@ -0,0 +1 @@\n+a change");
    let commits = world.get_github(&format!("{path}/commits"), REPO).await.body;
    assert_eq!(commits[0]["sha"], head.as_str());
    assert_eq!(commits[0]["author"]["login"], "ada");

    let changed = got(world
        .github(Method::PATCH, &path, REPO)
        .json(&json!({"title": "B", "body": "other"})))
    .await;
    assert_eq!(
        (&changed.body["title"], &changed.body["body"]),
        (&json!("B"), &json!("other"))
    );
    let comment = world
        .post_github("/repos/acme/website/issues/2/comments", REPO, json!({"body": "hello"}))
        .await;
    assert_eq!(comment.status, 201);
    let comments = world
        .get_github("/repos/acme/website/issues/2/comments", REPO)
        .await
        .body;
    assert_eq!(comments[0]["body"], "hello");
    let issues = world
        .get_github("/repos/acme/website/issues?state=all", REPO)
        .await
        .body;
    assert_eq!(issues.as_array().unwrap().len(), 2);
    assert!(issues[0]["pull_request"].is_object() && issues[1]["pull_request"].is_null());

    let closed = got(world
        .github(Method::PATCH, &path, REPO)
        .json(&json!({"state": "closed"})))
    .await;
    assert_eq!(closed.body["state"], "closed");
    assert_eq!(count("state=open").await, 0);
    assert_eq!(count("state=all").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_is_refused_as_measured() {
    let world = World::start().await;
    world.pushed("github", WEBSITE, REPO, "feature").await;
    let body = json!({"forge": "github", "project": WEBSITE, "branch": "more", "files": {}});
    assert_eq!(world.control(Method::POST, "/commit", Some(body)).await.status, 201);
    assert_eq!(world.post_github(PULLS, REPO, wish("feature")).await.status, 201);
    let twice = world.post_github(PULLS, REPO, wish("feature")).await;
    assert_eq!(twice.status, 422);
    assert_eq!(
        twice.body["errors"][0]["message"],
        "A pull request already exists for acme:feature."
    );
    let absent = world.post_github(PULLS, REPO, wish("absent")).await;
    matches_row("github", 10, absent.status, &absent.body);
    let long = json!({"title": "x", "head": "more", "base": "main", "body": "x".repeat(65_537)});
    let long = world.post_github(PULLS, REPO, long).await;
    matches_row("github", 13, long.status, &long.body);
    assert_eq!(long.status, 422);

    world.pushed("github", "acme/legacy", REPO, "draft").await;
    let draft = json!({"title": "x", "head": "draft", "base": "main", "draft": true});
    let draft = world.post_github("/repos/acme/legacy/pulls", REPO, draft).await;
    matches_row("github", 12, draft.status, &draft.body);
    assert_eq!(draft.status, 422);

    // Nothing to merge: a branch that stands where main stands.
    let same = world.directory.path().join("same");
    let url = world.url("github", WEBSITE, REPO);
    world
        .git(world.directory.path(), &["clone", "-q", &url, "same"])
        .await
        .good();
    world
        .git(&same, &["push", "-q", "origin", "HEAD:refs/heads/same"])
        .await
        .good();
    let none = world.post_github(PULLS, REPO, wish("same")).await;
    assert_eq!(none.body["errors"][0]["message"], "No commits between main and same");

    let limited = world.post_github(PULLS, "test-github-fine-grained", wish("same")).await;
    matches_row("github", 4, limited.status, &limited.body);
    assert_eq!(limited.header("x-accepted-github-permissions"), "pull_requests=write");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_by_links_with_the_repository_number() {
    let world = World::start().await;
    for number in 0..3 {
        let body = json!({"body": format!("comment {number}")});
        assert_eq!(
            world
                .post_github("/repos/acme/website/issues/1/comments", REPO, body)
                .await
                .status,
            201
        );
    }
    let first = world
        .get_github("/repos/acme/website/issues/1/comments?per_page=3", REPO)
        .await;
    let link = first.header("link").to_owned();
    assert!(
        link.contains("/api/v3/repositories/201/issues/1/comments?per_page=3&page=2>; rel=\"next\""),
        "{link}"
    );
    let next = link.split('>').next().unwrap().trim_start_matches('<');
    let second = got(world.client.get(next).bearer_auth(REPO)).await;
    assert_eq!(second.body[0]["body"], "comment 2");
    assert!(!second.header("link").contains("rel=\"next\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_refs_and_commits_are_read() {
    let world = World::start().await;
    let head = world.pushed("github", WEBSITE, REPO, "team/feature").await;
    let branch = world
        .get_github("/repos/acme/website/branches/team/feature", REPO)
        .await
        .body;
    assert_eq!(branch["commit"]["sha"], head.as_str());
    let reference = world
        .get_github("/repos/acme/website/git/ref/heads/team/feature", REPO)
        .await
        .body;
    assert_eq!(reference["object"]["sha"], head.as_str());
    assert_eq!(
        world
            .get_github("/repos/acme/website/git/ref/heads/none", REPO)
            .await
            .status,
        404
    );
    let commit = world
        .get_github(&format!("/repos/acme/website/commits/{head}"), REPO)
        .await
        .body;
    assert_eq!(commit["stats"]["additions"], 1);
    let own = world.get_github("/user/repos", REPO).await.body;
    assert_eq!(own.as_array().unwrap().len(), 2);
    assert_eq!(own[0]["permissions"]["push"], true);
}
