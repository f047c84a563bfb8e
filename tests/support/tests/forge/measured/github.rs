//! GitHub's rows, by their number.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Row, branch, more};
use crate::world::{World, got};

const LIN: &str = "test-github-lin";
const ADA: &str = "test-github-repo";
const SHOP: &str = "/repos/acme/shop";

/// Rows that are not checked, and why.
pub(super) const APART: [(u64, &str); 3] = [
    (2, "an App's own key is not played: the worker never has one"),
    (6, "the worker is given installation tokens, it makes none"),
    (25, "content is not counted: a test scripts this answer as a fault"),
];

fn wish(head: &str) -> Value {
    json!({"title": "A title", "head": head, "base": "main"})
}

/// Whether the row is known here; if so it holds.
pub(super) async fn check(world: &World, row: &Row) -> bool {
    let get = async |path: &str| world.get_github(path, LIN).await;
    let pulls = format!("{SHOP}/pulls");
    match row.number {
        1..=5 => tokens(world, row).await,
        8 => row.holds(&get(&format!("{SHOP}/branches/none")).await),
        9..=13 => opened(world, row).await,
        14 => {
            let count = async |query: &str| get(&format!("{pulls}?{query}")).await.body.as_array().unwrap().len();
            let all = get(&pulls).await;
            row.holds(&all);
            row.that(all.body.as_array().unwrap().iter().all(|one| one["state"] == "open"));
            row.that(count("head=acme:count-cart").await == 1 && count("head=acme:none").await == 0);
            row.that(count("head=none").await == all.body.as_array().unwrap().len());
        }
        15 => {
            branch(world, "github", "acme/shop", "row-15").await;
            let made = world.post_github(&pulls, LIN, wish("row-15")).await;
            row.that(made.body["mergeable"].is_null() && made.body["mergeable_state"] == "unknown");
            let path = format!("{pulls}/{}", made.body["number"]);
            get(&path).await;
            let read = get(&path).await;
            row.holds(&read);
            row.that(read.body["mergeable"] == true);
        }
        16 => {
            row.holds(&get(&format!("{pulls}/3/merge")).await);
            row.that(get(&format!("{pulls}/5/merge")).await.status == 204);
        }
        17 => {
            let body = json!({"forge": "github", "project": "acme/shop", "branch": "row-17", "files": {"large": "0123456789\n".repeat(30_000)}});
            assert_eq!(world.control(Method::POST, "/commit", Some(body)).await.status, 201);
            let made = world.post_github(&pulls, LIN, wish("row-17")).await;
            let files = get(&format!("{pulls}/{}/files", made.body["number"])).await;
            row.holds(&files);
            row.that(files.body[0]["filename"] == "large" && files.body[0].get("patch").is_none());
            row.that(get(&format!("{pulls}/3/files")).await.body[0]["patch"].is_string());
        }
        19 => {
            let all = get(&format!("{SHOP}/issues?state=all")).await;
            row.holds(&all);
            let list = all.body.as_array().unwrap();
            row.that(
                list.iter().any(|one| one["pull_request"].is_object())
                    && list.iter().any(|one| one.get("pull_request").is_none()),
            );
        }
        20 => {
            let change = world.github(Method::PATCH, "/repos/measured/public/issues/1", ADA);
            row.holds(&got(change.json(&json!({"title": "Mine now"}))).await);
        }
        21 => {
            let all = get(&format!("{SHOP}/issues/1/comments?sort=created&direction=desc")).await;
            row.holds(&all);
            let ids: Vec<u64> = all
                .body
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["id"].as_u64().unwrap())
                .collect();
            row.that(ids.len() > 1 && ids.is_sorted());
        }
        23 => {
            let first = get("/user/repos").await;
            row.holds(&first);
            row.that(first.body.as_array().unwrap().len() == 30 && first.header("link").contains("rel=\"next\""));
            row.that(!first.headers.keys().any(|name| name.as_str().starts_with("x-total")));
            row.that(get("/user/repos?per_page=500").await.body.as_array().unwrap().len() == 100);
            let issues = get(&format!("{SHOP}/issues?state=all&per_page=1")).await;
            row.that(issues.header("link").contains("/repositories/401/issues?"));
        }
        26 => {
            more(world, json!({"github": {"rate_limit": 5000}})).await;
            let first = get("/user").await;
            let again = got(world
                .github(Method::GET, "/user", LIN)
                .header("If-None-Match", first.header("etag")))
            .await;
            more(world, json!({"github": {}})).await;
            row.holds(&again);
            row.that(!first.header("x-ratelimit-used").is_empty());
            row.that(again.header("x-ratelimit-used") == first.header("x-ratelimit-used"));
        }
        27 => {
            let asked = async |version: &str| {
                got(world
                    .github(Method::GET, "/user", LIN)
                    .header("X-GitHub-Api-Version", version))
                .await
            };
            let known = asked("2022-11-28").await;
            row.holds(&known);
            row.that(
                known.header("x-github-api-version-selected") == "2022-11-28"
                    && asked("2020-01-01").await.status == 400,
            );
            row.that(get("/user").await.header("x-github-api-version-selected") == "2022-11-28");
        }
        28 => {
            let answer = get("/meta").await;
            row.holds(&answer);
            row.that(!answer.header("x-github-enterprise-version").is_empty());
            row.that(
                !answer
                    .headers
                    .keys()
                    .any(|name| name.as_str().starts_with("x-ratelimit")),
            );
            row.that(get("/versions").await.status == 404);
        }
        _ => return false,
    }
    true
}

async fn tokens(world: &World, row: &Row) {
    match row.number {
        1 => {
            for token in ["nobody-knows-this", "test-github-expired", "test-github-revoked"] {
                row.holds(&world.get_github("/user", token).await);
            }
        }
        3 => {
            for (path, token) in [
                ("/repos/acme/nothing", LIN),
                (SHOP, ""),
                (SHOP, "test-github-no-scope"),
                (SHOP, "test-github-fine-grained"),
            ] {
                row.holds(&world.get_github(path, token).await);
            }
        }
        4 => {
            let limited = world
                .post_github("/repos/acme/website/pulls", "test-github-fine-grained", wish("x"))
                .await;
            row.holds(&limited);
            row.that(limited.header("x-accepted-github-permissions") == "pull_requests=write");
            let by_app = world.get_github("/user", "test-github-installation").await;
            row.that(by_app.status == 403 && by_app.body["message"] == "Resource not accessible by integration");
        }
        _ => {
            let answer = world.get_github(SHOP, LIN).await;
            row.holds(&answer);
            row.that(
                answer.header("x-oauth-scopes") == "repo, user"
                    && answer.headers.contains_key("x-accepted-oauth-scopes"),
            );
            let ends = world.get_github("/user", ADA).await;
            row.that(
                ends.header("github-authentication-token-expiration")
                    .starts_with("2099-01-01"),
            );
        }
    }
}

async fn opened(world: &World, row: &Row) {
    let path = format!("{SHOP}/pulls");
    let head = format!("row-{}", row.number);
    branch(world, "github", "acme/shop", &head).await;
    match row.number {
        9 => {
            assert_eq!(world.post_github(&path, LIN, wish(&head)).await.status, 201);
            let twice = world.post_github(&path, LIN, wish(&head)).await;
            row.that(twice.status == 422 && twice.body["message"] == "Validation Failed");
            let error = &twice.body["errors"][0];
            row.that(error["resource"] == "PullRequest" && error["code"] == "custom");
            row.that(error["message"] == "A pull request already exists for acme:row-9.");
        }
        11 => {
            let main = json!({"title": "x", "head": "main", "base": "main"});
            let none = world.post_github(&path, LIN, main).await;
            row.that(none.status == 422 && none.body["message"] == "Validation Failed");
            row.that(none.body["errors"][0]["message"] == "No commits between main and main");
        }
        12 => {
            branch(world, "github", "acme/legacy", &head).await;
            let mut draft = wish(&head);
            draft["draft"] = json!(true);
            row.holds(&world.post_github("/repos/acme/legacy/pulls", ADA, draft).await);
        }
        _ => {
            let mut long = wish(&head);
            long["body"] = json!("x".repeat(65_537));
            row.holds(&world.post_github(&path, LIN, long).await);
        }
    }
}
