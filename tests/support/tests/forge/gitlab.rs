//! GitLab's REST: what the measured rows say, and the life of a merge request.

use reqwest::Method;
use serde_json::{Value, json};

use crate::data::matches_row;
use crate::world::{GREETER, GREETER_KEY, World, got};

const API: &str = "test-gitlab-api";

fn requests() -> String {
    format!("/projects/{GREETER_KEY}/merge_requests")
}

fn wish(source: &str) -> Value {
    json!({"title": "A title", "source_branch": source, "target_branch": "main", "description": "words"})
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_judged_as_measured() {
    let world = World::start().await;
    for (row, path, token) in [
        (1, "/user", ""),
        (1, "/user", "unknown"),
        (2, "/user", "test-gitlab-revoked"),
        (3, "/user", "test-gitlab-expired"),
        (6, "/projects", "test-gitlab-read-user"),
        (11, "/projects", "test-gitlab-write-repository"),
        (10, "/version", ""),
        (10, "/metadata", ""),
        (13, "/projects/platform%2Fnothing", API),
        (13, "/projects/platform%2Ftools%2Fgreeter", ""),
        (14, "/projects/platform/tools/greeter", API),
        (15, "/projects/platform%252Ftools%252Fgreeter", API),
        (19, "/projects/101/repository/branches/none", API),
        (22, "/projects/101/merge_requests/77", API),
        (23, "/projects/101/merge_requests/x", API),
        (39, "/projects/101/merge_requests?state=open", API),
        (55, "/projects/101/issues/77", API),
    ] {
        let answer = world.get_gitlab(path, token).await;
        matches_row("gitlab", row, answer.status, &answer.body);
    }
    // Without the data at hand, the most important ones stand on their own.
    let expired = world.get_gitlab("/user", "test-gitlab-expired").await;
    assert_eq!((expired.status, &expired.body["error"]), (401, &json!("invalid_token")));
    let scope = world.get_gitlab("/projects", "test-gitlab-write-repository").await;
    assert_eq!((scope.status, &scope.body["scope"]), (403, &json!("api read_api")));
    let write = world.post_gitlab(&requests(), "test-gitlab-read-api", wish("x")).await;
    assert_eq!((write.status, &write.body["scope"]), (403, &json!("api")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_show_a_token_works_and_self_takes_every_scope() {
    let world = World::start().await;
    let url = format!("{}/api/v4/user", world.running.gitlab);
    for request in [
        world.client.get(&url).header("PRIVATE-TOKEN", API),
        world.client.get(&url).bearer_auth(API),
        world.client.get(&url).basic_auth("oauth2", Some(API)),
        world.client.get(format!("{url}?private_token={API}")),
    ] {
        assert_eq!(got(request).await.body["username"], "ada");
    }
    for (token, scope) in [
        (API, "api"),
        ("test-gitlab-read-api", "read_api"),
        ("test-gitlab-write-repository", "write_repository"),
        ("test-gitlab-read-user", "read_user"),
    ] {
        let own = world.get_gitlab("/personal_access_tokens/self", token).await;
        assert_eq!((own.status, &own.body["scopes"]), (200, &json!([scope])));
    }
    let user = world.get_gitlab("/user", "test-gitlab-read-user").await;
    assert_eq!(user.body["commit_email"], "7-ada@users.noreply.example.org");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_request_is_opened_found_changed_and_read() {
    let world = World::start().await;
    let head = world.pushed("gitlab", GREETER, API, "feature").await;
    let made = world.post_gitlab(&requests(), API, wish("feature")).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.body["sha"], head.as_str());
    assert_eq!(made.body["diff_refs"]["head_sha"], head.as_str());
    assert_eq!(made.body["detailed_merge_status"], "preparing");
    assert_eq!(made.body["changes_count"], Value::Null);
    assert_eq!(made.body["references"]["full"], format!("{GREETER}!1"));
    let web = format!("{}/{GREETER}/-/merge_requests/1", world.running.gitlab);
    assert_eq!(made.body["web_url"], web.as_str());

    // GitLab computes in the background: known at the second reading.
    let path = format!("{}/1", requests());
    assert_eq!(
        world.get_gitlab(&path, API).await.body["detailed_merge_status"],
        "checking"
    );
    let read = world.get_gitlab(&path, API).await.body;
    assert_eq!(read["detailed_merge_status"], "mergeable");
    assert_eq!(read["changes_count"], "1");

    let found = format!("{}?state=opened&source_branch=feature&target_branch=main", requests());
    assert_eq!(world.get_gitlab(&found, API).await.body.as_array().unwrap().len(), 1);
    let other = format!("{}?source_branch=other", requests());
    assert_eq!(world.get_gitlab(&other, API).await.body, json!([]));

    let change = json!({"title": "Draft: A title", "description": "other words", "add_labels": "agent"});
    let changed = got(world.gitlab(Method::PUT, &path, API).json(&change)).await;
    assert_eq!((changed.status, &changed.body["draft"]), (200, &json!(true)));
    assert_eq!(changed.body["labels"], json!(["agent"]));
    let nothing = got(world.gitlab(Method::PUT, &path, API).json(&json!({}))).await;
    assert_eq!(nothing.status, 400);

    let diffs = world.get_gitlab(&format!("{path}/diffs"), API).await.body;
    assert_eq!(diffs[0]["new_path"], "change.txt");
    assert_eq!(diffs[0]["diff"], "@@ -0,0 +1 @@\n+a change\n");
    let commits = world.get_gitlab(&format!("{path}/commits"), API).await.body;
    assert_eq!(
        (&commits[0]["id"], &commits[0]["title"]),
        (&json!(head), &json!("Add a change"))
    );
    assert_eq!(
        world.get_gitlab(&format!("{path}/changes"), API).await.body["changes"],
        diffs
    );

    let closed = got(world
        .gitlab(Method::PUT, &path, API)
        .json(&json!({"state_event": "close"})))
    .await;
    assert_eq!(closed.body["state"], "closed");
    assert_eq!(closed.body["closed_by"]["username"], "ada");
    assert_eq!(
        world.post_gitlab(&requests(), API, wish("feature")).await.body["iid"],
        2
    );
    let reopened = got(world
        .gitlab(Method::PUT, &path, API)
        .json(&json!({"state_event": "reopen"})))
    .await;
    assert_eq!(reopened.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_request_is_refused_as_measured() {
    let world = World::start().await;
    world.pushed("gitlab", GREETER, API, "feature").await;
    assert_eq!(world.post_gitlab(&requests(), API, wish("feature")).await.status, 201);
    for (row, token, body) in [
        (24, API, json!({"source_branch": "feature", "target_branch": "main"})),
        (25, API, wish("main")),
        (26, API, wish("feature")),
        (27, API, wish("not-pushed")),
        (30, "test-gitlab-grace", wish("feature")),
        (
            33,
            API,
            json!({"title": "x", "source_branch": "feature", "target_branch": "main", "assignee_ids": [null]}),
        ),
    ] {
        let answer = world.post_gitlab(&requests(), token, body).await;
        matches_row("gitlab", row, answer.status, &answer.body);
        assert!(answer.status >= 400, "row {row}");
    }
    let several = world
        .post_gitlab(&requests(), API, json!({"target_branch": "main"}))
        .await;
    assert_eq!(
        several.body,
        json!({"error": "title is missing, source_branch is missing"})
    );
    let sudo = got(world.gitlab(Method::GET, "/user", API).header("Sudo", "grace")).await;
    matches_row("gitlab", 12, sudo.status, &sudo.body);
    let method = got(world.gitlab(Method::DELETE, "/user", API)).await;
    assert_eq!((method.status, method.body), (405, json!({"error": "405 Not Allowed"})));
    let malformed = world
        .gitlab(Method::POST, &requests(), API)
        .header("Content-Type", "application/json");
    assert_eq!(got(malformed.body("{")).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_simultaneous_requests_one_opens_and_the_others_conflict() {
    let world = World::start().await;
    world.pushed("gitlab", GREETER, API, "feature").await;
    let path = requests();
    let all = (0..6).map(|_| world.post_gitlab(&path, API, wish("feature")));
    let mut statuses: Vec<u16> = futures::future::join_all(all)
        .await
        .iter()
        .map(|answer| answer.status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_branch_is_unknown_for_the_seeded_time() {
    let project = r#"
        [[projects]]
        forge = "gitlab"
        path = "platform/slow"
        branch_delay_ms = 4000
        members = [{ user = "ada", role = "developer" }]
    "#;
    let world = World::with(project).await;
    world.pushed("gitlab", "platform/slow", API, "feature").await;
    let path = "/projects/platform%2Fslow/merge_requests";
    let early = world.post_gitlab(path, API, wish("feature")).await;
    matches_row("gitlab", 27, early.status, &early.body);
    assert_eq!(early.body, json!({"message": {"source_branch": ["does not exist"]}}));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let later = world.post_gitlab(path, API, wish("feature")).await;
        if later.status == 201 {
            break;
        }
        assert_eq!(later.status, 400);
        assert!(std::time::Instant::now() < deadline, "the branch never appeared");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_told() {
    let world = World::start().await;
    let work = world.work("gitlab", GREETER, API, "feature").await;
    world.commit(&work, "README.md", "mine\n", "Rewrite").await;
    world.git(&work, &["push", "-q", "origin", "feature"]).await.good();
    world.post_gitlab(&requests(), API, wish("feature")).await;
    let body = json!({"forge": "gitlab", "project": GREETER, "branch": "main", "files": {"README.md": "theirs\n"}});
    assert_eq!(world.control(Method::POST, "/commit", Some(body)).await.status, 201);
    let path = format!("{}/1", requests());
    world.get_gitlab(&path, API).await;
    let read = world.get_gitlab(&path, API).await.body;
    assert_eq!(
        (&read["has_conflicts"], &read["detailed_merge_status"]),
        (&json!(true), &json!("conflict"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_with_links_and_counters() {
    let world = World::start().await;
    world.pushed("gitlab", GREETER, API, "feature").await;
    assert_eq!(world.post_gitlab(&requests(), API, wish("feature")).await.status, 201);
    let notes = format!("{}/1/notes", requests());
    for number in 0..5 {
        let note = world
            .post_gitlab(&notes, API, json!({"body": format!("note {number}")}))
            .await;
        assert_eq!(note.status, 201);
    }
    let first = world.get_gitlab(&format!("{notes}?per_page=2&sort=asc"), API).await;
    assert_eq!(
        (
            first.header("x-total"),
            first.header("x-total-pages"),
            first.header("x-next-page")
        ),
        ("5", "3", "2")
    );
    let (mut bodies, mut answer) = (Vec::new(), first);
    loop {
        bodies.extend(
            answer
                .body
                .as_array()
                .unwrap()
                .iter()
                .map(|note| note["body"].as_str().unwrap().to_owned()),
        );
        let link = answer.header("link").to_owned();
        let Some(next) = link.split(", ").find_map(|part| part.strip_suffix(">; rel=\"next\"")) else {
            break;
        };
        answer = got(world
            .client
            .get(next.trim_start_matches('<'))
            .header("PRIVATE-TOKEN", API))
        .await;
    }
    assert_eq!(bodies, ["note 0", "note 1", "note 2", "note 3", "note 4"]);
    assert_eq!(answer.header("x-next-page"), "");
    for (row, path) in [(50, format!("{notes}?activity_filter=bogus"))] {
        let answer = world.get_gitlab(&path, API).await;
        matches_row("gitlab", row, answer.status, &answer.body);
    }
    for (row, body) in [(51, json!({})), (52, json!({"body": ""}))] {
        let answer = world.post_gitlab(&notes, API, body).await;
        matches_row("gitlab", row, answer.status, &answer.body);
    }
    let discussions = world
        .get_gitlab(&format!("{}/1/discussions", requests()), API)
        .await
        .body;
    assert_eq!(discussions[0]["notes"][0]["body"], "note 0");
    assert_eq!(discussions[0]["id"].as_str().unwrap().len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_and_branches_are_shown_to_those_who_may() {
    let world = World::start().await;
    let mine = world
        .get_gitlab("/projects?membership=true&search=greet", API)
        .await
        .body;
    assert_eq!(mine[0]["path_with_namespace"], GREETER);
    assert_eq!(mine[0]["permissions"]["project_access"]["access_level"], 30);
    assert_eq!(
        mine[0]["http_url_to_repo"],
        format!("{}/{GREETER}.git", world.running.gitlab)
    );
    let anonymous = world.get_gitlab("/projects", "").await.body;
    assert_eq!(anonymous.as_array().unwrap().len(), 1);
    let main = world
        .get_gitlab("/projects/101/repository/branches/main", API)
        .await
        .body;
    assert_eq!(
        (&main["protected"], &main["default"], &main["can_push"]),
        (&json!(true), &json!(true), &json!(false))
    );
    let etag = world.get_gitlab("/projects/101", API).await.header("etag").to_owned();
    let again = world
        .gitlab(Method::GET, "/projects/101", API)
        .header("If-None-Match", etag);
    assert_eq!(got(again).await.status, 304);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merged_request_keeps_its_commits_and_diff() {
    let world = World::start().await;
    let head = world.pushed("gitlab", GREETER, API, "team/feature").await;
    let branch = world
        .get_gitlab("/projects/101/repository/branches/team%2Ffeature", API)
        .await
        .body;
    assert_eq!(branch["commit"]["id"], head.as_str());
    world.post_gitlab(&requests(), API, wish("team/feature")).await;
    let body = json!({"forge": "gitlab", "project": GREETER, "number": 1});
    let merged = world.control(Method::POST, "/merge", Some(body.clone())).await;
    assert_eq!(merged.status, 201);
    assert_eq!(world.control(Method::POST, "/merge", Some(body)).await.status, 404);
    assert_eq!(
        world.head("gitlab", GREETER, "main").await.as_deref(),
        merged.body["sha"].as_str()
    );
    let path = format!("{}/1", requests());
    let read = world.get_gitlab(&path, API).await.body;
    assert_eq!(
        (&read["state"], &read["merge_commit_sha"]),
        (&json!("merged"), &merged.body["sha"])
    );
    assert_eq!((&read["sha"], &read["changes_count"]), (&json!(head), &json!("1")));
    let commits = world.get_gitlab(&format!("{path}/commits"), API).await.body;
    assert_eq!(commits.as_array().unwrap().len(), 1);
}
