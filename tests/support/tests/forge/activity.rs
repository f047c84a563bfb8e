//! What people do at change requests and issues, as seeded and as done by REST; and accounts with very many projects.
//!
//! Shapes are judged elsewhere, by recordings, schemas and strangers' clients; here it is what happens.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, got};

const SEED: &str = include_str!("../../seeds/activity.toml");
const LIN: &str = "test-gitlab-lin";
const SHOP: &str = "/projects/platform%2Fshop";
const HUB: &str = "test-github-lin";
const REPO: &str = "/repos/acme/shop";

fn texts(list: &Value, key: &str) -> Vec<String> {
    let all = list.as_array().unwrap().iter();
    all.map(|one| one[key].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_that_stands_alone_becomes_a_thread_by_an_answer() {
    let world = World::with(SEED).await;
    let path = format!("{SHOP}/merge_requests/1/discussions");
    let all = world.get_gitlab(&path, LIN).await.body;
    let alone = all
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["individual_note"] == true)
        .unwrap();
    assert_eq!(alone["notes"][0]["resolvable"], false);
    let thread = format!("{path}/{}", alone["id"].as_str().unwrap());
    let resolve = world.gitlab(Method::PUT, &thread, LIN).json(&json!({"resolved": true}));
    assert_eq!(got(resolve).await.status, 403);

    let answer = world
        .post_gitlab(&format!("{thread}/notes"), LIN, json!({"body": "An answer"}))
        .await;
    assert_eq!((answer.status, &answer.body["type"]), (201, &json!("DiscussionNote")));
    let read = world.get_gitlab(&thread, LIN).await.body;
    assert_eq!(
        (texts(&read["notes"], "body"), &read["individual_note"]),
        (vec!["Ready.".to_owned(), "An answer".to_owned()], &json!(false))
    );
    let resolve = world.gitlab(Method::PUT, &thread, LIN).json(&json!({"resolved": true}));
    let resolved = got(resolve).await.body;
    assert!(
        resolved["notes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|note| note["resolved"] == true && note["resolved_by"]["username"] == "lin")
    );
    assert_eq!(
        world
            .get_gitlab(&format!("{path}/{}", "0".repeat(40)), LIN)
            .await
            .status,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_merge_requests_and_issues_are_filtered() {
    let world = World::with(SEED).await;
    let count = async |query: &str| {
        world
            .get_gitlab(&format!("{SHOP}/{query}"), LIN)
            .await
            .body
            .as_array()
            .unwrap()
            .len()
    };
    for (query, wanted) in [
        ("merge_requests?scope=created_by_me", 1),
        ("merge_requests?scope=assigned_to_me", 0),
        ("merge_requests?author_username=grace", 2),
        ("merge_requests?author_username=nobody", 0),
        ("merge_requests?target_branch=main&state=closed", 1),
        ("merge_requests?labels=cart,enhancement", 1),
        ("merge_requests?search=LAYOUT", 1),
        ("merge_requests?wip=yes", 1),
        ("issues?scope=created_by_me", 2),
        ("issues?assignee_username=ada", 1),
        ("issues?search=forgets&state=opened", 1),
        ("issues?issue_type=incident", 1),
    ] {
        assert_eq!(count(query).await, wanted, "{query}");
    }
    let titles = world
        .get_gitlab(&format!("{SHOP}/merge_requests?order_by=title&sort=asc"), LIN)
        .await
        .body;
    assert!(texts(&titles, "title").is_sorted());
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals_reviewers_and_pipelines_follow_the_head() {
    let world = World::with(SEED).await;
    let path = format!("{SHOP}/merge_requests/1");
    let approvals = world.get_gitlab(&format!("{path}/approvals"), LIN).await.body;
    assert_eq!(
        (&approvals["approved"], &approvals["approved_by"][0]["user"]["username"]),
        (&json!(true), &json!("grace"))
    );
    assert_eq!(
        world.get_gitlab(&format!("{path}/reviewers"), LIN).await.body[0]["state"],
        "approved"
    );
    let read = world.get_gitlab(&path, LIN).await.body;
    assert_eq!(
        (&read["head_pipeline"]["status"], &read["reviewers"][0]["username"]),
        (&json!("success"), &json!("grace"))
    );
    // Nobody has built the new head.
    let body = json!({"forge": "gitlab", "project": "platform/shop", "branch": "count-cart", "files": {"more": "x"}});
    world.control(Method::POST, "/commit", Some(body)).await;
    assert!(world.get_gitlab(&path, LIN).await.body["head_pipeline"].is_null());
    assert_eq!(
        world
            .get_gitlab(&format!("{path}/pipelines"), LIN)
            .await
            .body
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let on = json!({"activities": [{"forge": "gitlab", "project": "platform/shop", "number": 1, "activity": {"pipelines": [{"status": "running"}]}}]});
    assert_eq!(world.control(Method::POST, "/seed", Some(on)).await.status, 201);
    assert_eq!(
        world.get_gitlab(&path, LIN).await.body["head_pipeline"]["status"],
        "running"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_is_spoken_of_in_three_places() {
    let world = World::with(SEED).await;
    let get = async |path: &str| world.get_github(&format!("{REPO}{path}"), HUB).await.body;
    assert_eq!(texts(&get("/issues/3/comments").await, "body"), ["Ready.", "Thanks!"]);
    assert_eq!(
        texts(&get("/pulls/3/reviews").await, "state"),
        ["CHANGES_REQUESTED", "APPROVED"]
    );
    assert_eq!(texts(&get("/pulls/3/comments").await, "body"), ["Why four?"]);
    let pull = get("/pulls/3").await;
    assert_eq!((&pull["comments"], &pull["review_comments"]), (&json!(2), &json!(1)));

    // A review that was not sent is its author's alone; nobody judges an own pull request.
    let path = format!("{REPO}/pulls/3/reviews");
    assert_eq!(
        world
            .post_github(&path, "test-github-repo", json!({"body": "later"}))
            .await
            .body["state"],
        "PENDING"
    );
    assert_eq!(get("/pulls/3/reviews").await.as_array().unwrap().len(), 2);
    assert_eq!(
        world
            .get_github(&path, "test-github-repo")
            .await
            .body
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        world
            .post_github(&path, "test-github-repo", json!({"event": "APPROVE"}))
            .await
            .status,
        422
    );

    let head = pull["head"]["sha"].as_str().unwrap();
    let status = get(&format!("/commits/{head}/status")).await;
    assert_eq!(
        (&status["state"], &status["total_count"]),
        (&json!("success"), &json!(1))
    );
    let runs = get(&format!("/commits/{head}/check-runs?status=completed")).await;
    assert_eq!(
        (&runs["total_count"], &runs["check_runs"][0]["name"]),
        (&json!(1), &json!("build"))
    );
    assert_eq!(get("/commits/main/status").await["state"], "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_sees_what_it_was_given() {
    let world = World::with(SEED).await;
    const TOKEN: &str = "test-github-installation";
    let given = world.get_github("/installation/repositories", TOKEN).await.body;
    assert_eq!(
        (&given["total_count"], &given["repositories"][0]["full_name"]),
        (&json!(1), &json!("acme/shop"))
    );
    assert_eq!(world.get_github("/repos/acme/website", TOKEN).await.status, 404);
    assert_eq!(world.get_github("/user/repos", TOKEN).await.status, 403);
    assert_eq!(world.get_github("/installation/repositories", HUB).await.status, 403);
    let url = world.url("github", "acme/shop", TOKEN);
    world.git(world.directory.path(), &["ls-remote", &url]).await.good();
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_of_change_requests_are_refs_of_git() {
    let world = World::with(SEED).await;
    for (side, project, token, name) in [
        ("gitlab", "platform/shop", LIN, "refs/merge-requests/4/head"),
        ("github", "acme/shop", HUB, "refs/pull/6/head"),
    ] {
        let url = world.url(side, project, token);
        let refs = world.git(world.directory.path(), &["ls-remote", &url]).await.good().out;
        assert!(refs.contains(name), "{refs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_knows_its_qualifiers() {
    let world = World::with(SEED).await;
    for (query, wanted) in [
        ("repo:acme/shop+is:pr", 4),
        ("repo:acme/shop+is:issue", 2),
        ("repo:acme/shop+is:pr+is:merged", 1),
        ("repo:acme/shop+is:pr+is:open+draft:true", 1),
        ("repo:acme/shop+is:pr+head:count-cart+base:main", 1),
        ("repo:acme/shop+author:grace+is:pr", 2),
        ("repo:acme/shop+label:bug+-is:pr", 1),
        ("repo:acme/shop+%22forgets+things%22", 1),
        ("user:acme+nothing-says-this", 0),
    ] {
        let answer = world.get_github(&format!("/search/issues?q={query}"), HUB).await.body;
        assert_eq!(answer["total_count"], wanted, "{query}");
    }
    assert_eq!(world.get_github("/search/issues?q=", HUB).await.status, 422);
    assert_eq!(
        world
            .get_github("/search/issues?q=repo:acme/website+x", HUB)
            .await
            .status,
        422
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_projects_are_cheap_and_listed_by_pages() {
    let member = json!([{"user": "ada", "role": "developer"}]);
    let world = World::start().await;
    let started = Instant::now();
    let crowds = json!({"crowds": [
        {"forge": "gitlab", "group": "many", "count": 10_000, "members": member},
        {"forge": "github", "group": "many", "count": 10_000, "members": member},
    ]});
    assert_eq!(world.control(Method::POST, "/seed", Some(crowds)).await.status, 201);
    let made = started.elapsed();
    let started = Instant::now();
    let gitlab = world
        .get_gitlab("/projects?membership=true&per_page=100&page=50", "test-gitlab-api")
        .await
        .body;
    let github = world
        .get_github("/user/repos?per_page=100&page=50", "test-github-repo")
        .await
        .body;
    let listed = started.elapsed();
    eprintln!("20,000 projects made in {made:?}, two pages of 100 listed in {listed:?}");
    assert_eq!(
        (gitlab.as_array().unwrap().len(), github.as_array().unwrap().len()),
        (100, 100)
    );
    // Generous: a debug build on a machine that does other things too.
    assert!(made < Duration::from_secs(20) && listed < Duration::from_secs(20));
    let found = world
        .get_gitlab("/projects?search=project-04242&membership=true", "test-gitlab-api")
        .await
        .body;
    assert_eq!(texts(&found, "path_with_namespace"), ["many/project-04242"]);
    // The state leaves them out, and is quick.
    let state = world.control(Method::GET, "/state", None).await.body;
    assert!(state["gitlab"].get("many/project-00001").is_none());
    // Each of them can be cloned.
    let url = world.url("gitlab", "many/project-04242", "test-gitlab-api");
    world
        .git(world.directory.path(), &["clone", "-q", &url, "one"])
        .await
        .good();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_may_be_wrong_about_its_own_address() {
    let world = World::with("[gitlab]\nexternal_url = \"https://git.example.org/sub\"").await;
    let project = world.get_gitlab("/projects/101", "test-gitlab-api").await.body;
    assert_eq!(
        project["http_url_to_repo"],
        "https://git.example.org/sub/platform/tools/greeter.git"
    );
    let list = world.get_gitlab("/projects?per_page=1", "test-gitlab-api").await;
    assert!(
        list.header("link")
            .starts_with("<https://git.example.org/sub/api/v4/projects?")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_project_takes_nothing() {
    let seed = r#"
        [[projects]]
        forge = "gitlab"
        path = "platform/old"
        archived = true
        members = [{ user = "ada", role = "maintainer" }]
        [[projects]]
        forge = "github"
        path = "acme/old"
        archived = true
        members = [{ user = "ada", role = "admin" }]
    "#;
    let world = World::with(seed).await;
    assert_eq!(
        world
            .get_gitlab("/projects/platform%2Fold", "test-gitlab-api")
            .await
            .body["archived"],
        true
    );
    assert_eq!(
        world.get_github("/repos/acme/old", "test-github-repo").await.body["archived"],
        true
    );
    for (side, project, token, words) in [
        ("gitlab", "platform/old", "test-gitlab-api", "archived project"),
        ("github", "acme/old", "test-github-repo", "read-only"),
    ] {
        let work = world.work(side, project, token, "feature").await;
        world.git(&work, &["push", "origin", "feature"]).await.bad(&[words]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_is_wrong_under_way_is_refused() {
    let world = World::start().await;
    for seed in [
        json!({"issues": [{"forge": "gitlab", "project": "no/such", "title": "x", "author": "ada"}]}),
        json!({"users": [{"id": 7, "username": "other", "name": "x", "email": "x@example.org"}]}),
        json!({"change_requests": [{"forge": "gitlab", "project": "platform/handbook", "title": "x", "author": "nobody", "source": "x"}]}),
        json!({"unknown": []}),
    ] {
        assert_eq!(
            world.control(Method::POST, "/seed", Some(seed.clone())).await.status,
            422,
            "{seed}"
        );
    }
}
