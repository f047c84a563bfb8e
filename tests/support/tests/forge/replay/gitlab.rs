//! What the recorded exchanges of gitlab.com presuppose, and how they are asked again.

use serde_json::{Value, json};

use super::{Again, Exchange, Side};
use crate::world::World;

const API: &str = "test-gitlab-api";

/// The recordings are of gitlab.com, which limits and says so.
pub(super) const SEED: &str = r#"
    [gitlab]
    rate_limit = 2000

    [[projects]]
    forge = "gitlab"
    path = "replay/main"
    visibility = "public"
    description = "Where most of the recorded exchanges happen"
    members = [{ user = "ada", role = "maintainer" }, { user = "grace", role = "developer" }]

    [[projects]]
    forge = "gitlab"
    path = "ada/own"
    members = [{ user = "ada", role = "owner" }]

    [[projects]]
    forge = "gitlab"
    path = "replay/renamed"
    moved_from = ["replay/old"]
    visibility = "public"
"#;

const MAIN: &str = "/projects/replay%2Fmain";

pub(super) const SIDE: Side = Side {
    name: "gitlab",
    file: "recorded-gitlab.com.jsonl",
    root: "/api/v4",
    except: &[
        ("*", "forked_from_project", "forks are not played"),
        ("*", "allow_collaboration", "of merge requests from forks only"),
        ("*", "allow_maintainer_to_push", "of merge requests from forks only"),
        ("*", "identities", "nobody signs in by another service"),
        ("*", "shared_with_groups", "no project is shared with a group"),
        (
            "/api/v4/projects/P/repository/branches",
            "commit.parent_ids",
            "recorded when GitLab left parents out of branch lists",
        ),
    ],
    skipped: &[
        (
            "*",
            "/api/v4/groups/X",
            "groups are not played: the product asks for none",
        ),
        ("POST", "/api/v4/projects", "no project is made by the product"),
        ("DELETE", "/api/v4/projects/P", "no project is deleted by the product"),
        ("*", "/api/v4/projects/P/access_requests", "nobody asks for access"),
        ("*", "/api/v4/projects/P/fork", "forks are not played"),
        ("*", "/api/v4/projects/P/forks", "forks are not played"),
        (
            "POST",
            "/api/v4/projects/P/members",
            "no member is added by the product",
        ),
        (
            "*",
            "/api/v4/projects/P/issues/N/notes/N/award_emoji",
            "reactions are not played",
        ),
        (
            "*",
            "/api/v4/projects/P/merge_requests/N/notes/N/award_emoji",
            "reactions are not played",
        ),
        (
            "*",
            "/api/v4/projects/P/merge_requests/N/merge",
            "the product never merges",
        ),
        (
            "*",
            "/api/v4/projects/P/merge_requests/N/merge_ref",
            "the product makes no test merge",
        ),
        (
            "*",
            "/api/v4/projects/P/repository/commits/SHA/comments",
            "comments of commits are not played",
        ),
        (
            "*",
            "/api/v4/projects/P/repository/commits/SHA/discussions",
            "comments of commits are not played",
        ),
        (
            "*",
            "/api/v4/projects/P/repository/commits/SHA/discussions/SHA/notes/N",
            "comments of commits are not played",
        ),
        ("*", "/api/v4/projects/P/repository/files/X", "files are read with git"),
        ("*", "/api/v4/projects/P/repository/tags/X", "tags are read with git"),
    ],
    floor: 141,
};

/// Seeds and says the number of what was made.
async fn seeded(world: &World, kind: &str, seed: Value) -> Value {
    let made = world
        .control(reqwest::Method::POST, "/seed", Some(json!({kind: seed})))
        .await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.body[kind].clone()
}

/// A merge request like the recorded one; its number.
async fn like(world: &World, exchange: &Exchange, recorded: &Value) -> u64 {
    let text = |key: &str| recorded[key].as_str().unwrap_or_default().to_owned();
    let state = match text("state").as_str() {
        "merged" => "merged",
        "closed" => "closed",
        _ => "open",
    };
    let filled = |key: &str| recorded[key].as_array().is_some_and(|all| !all.is_empty());
    let assignees = if filled("assignees") {
        json!(["grace"])
    } else {
        json!([])
    };
    let reviewers = if filled("reviewers") {
        json!(["grace"])
    } else {
        json!([])
    };
    let labels = if filled("labels") {
        json!(["recorded"])
    } else {
        json!([])
    };
    let pipelines = if recorded["head_pipeline"].is_object() {
        json!([{"status": "success"}])
    } else {
        json!([])
    };
    let seed = json!([{
        "forge": "gitlab", "project": "replay/main", "author": "ada", "source": exchange.own("like"),
        "title": text("title"), "description": text("description"), "state": state, "labels": labels, "assignees": assignees,
        "activity": {"reviewers": reviewers, "pipelines": pipelines, "comments": ["A comment."]},
    }]);
    seeded(world, "change_requests", seed).await[0].as_u64().unwrap()
}

async fn issue(world: &World, project: &str, recorded: &Value, comments: usize) -> u64 {
    let filled = |key: &str| recorded[key].as_array().is_some_and(|all| !all.is_empty());
    let comments: Vec<String> = (0..comments).map(|number| format!("Comment {number}")).collect();
    let seed = json!([{
        "forge": "gitlab", "project": project, "author": "ada", "title": "An issue", "description": "Words.",
        "closed": recorded["state"] == "closed", "labels": if filled("labels") { json!(["recorded"]) } else { json!([]) },
        "assignees": if filled("assignees") { json!(["grace"]) } else { json!([]) }, "comments": comments,
    }]);
    seeded(world, "issues", seed).await[0].as_u64().unwrap()
}

/// A project of this exchange alone.
async fn project(world: &World, exchange: &Exchange) -> String {
    let path = exchange.own("replay/list");
    let seed = json!([{
        "forge": "gitlab", "path": path, "visibility": "public", "members": [{"user": "ada", "role": "maintainer"}],
    }]);
    seeded(world, "projects", seed).await;
    path
}

fn key(path: &str) -> String {
    format!("/projects/{}", path.replace('/', "%2F"))
}

/// Id of the newest note.
async fn newest_note(world: &World, of: &str) -> u64 {
    world.get_gitlab(&format!("{of}/notes"), API).await.body[0]["id"]
        .as_u64()
        .unwrap()
}

/// Somebody, if any row of the recorded list has somebody there.
fn filled(exchange: &Exchange, key: &str) -> Value {
    let any = exchange
        .body
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one[key][0] != Value::Null));
    if any { json!(["ada"]) } else { json!([]) }
}

/// Lists: as many rows as the real one had.
async fn list(world: &World, exchange: &Exchange) -> Option<String> {
    let rows = exchange.rows(20);
    let query = exchange.query();
    Some(match exchange.route.as_str() {
        "/api/v4/projects/P/issues" => {
            let path = project(world, exchange).await;
            let label = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("labels="))
                .map_or_else(|| json!(["recorded"]), |label| json!([label]));
            let closed = exchange.body[0]["state"] == "closed";
            let one = json!({
                "forge": "gitlab", "project": path, "author": "ada", "title": "An issue", "description": "Words.",
                "labels": label, "closed": closed, "assignees": filled(exchange, "assignees"),
            });
            seeded(world, "issues", json!(vec![one; rows])).await;
            format!("{}/issues{query}", key(&path))
        }
        "/api/v4/projects/P/merge_requests" => {
            let path = project(world, exchange).await;
            let open = query.contains("state=opened");
            let one = |number: usize| {
                let source = if open {
                    format!("branch-{number}")
                } else {
                    "branch".to_owned()
                };
                json!({
                    "forge": "gitlab", "project": path, "author": "ada", "title": "A title", "description": "Words.",
                    "source": source, "state": if open { "open" } else { "closed" },
                    "labels": filled(exchange, "labels"), "assignees": filled(exchange, "assignees"),
                })
            };
            let all: Vec<Value> = (0..rows).map(one).collect();
            seeded(world, "change_requests", json!(all)).await;
            format!("{}/merge_requests{query}", key(&path))
        }
        "/api/v4/projects/P/issues/N/notes" => {
            let number = issue(world, "replay/main", &Value::Null, rows).await;
            format!("{MAIN}/issues/{number}/notes{query}")
        }
        "/api/v4/projects/P/merge_requests/N/notes" => {
            let path = project(world, exchange).await;
            let comments: Vec<String> = (0..rows).map(|number| format!("Comment {number}")).collect();
            let one = json!([{
                "forge": "gitlab", "project": path, "author": "ada", "title": "A title", "source": "branch",
                "activity": {"comments": comments},
            }]);
            seeded(world, "change_requests", one).await;
            format!("{}/merge_requests/1/notes{query}", key(&path))
        }
        "/api/v4/projects/P/repository/branches" => {
            let path = project(world, exchange).await;
            for number in 1..rows {
                let commit =
                    json!({"forge": "gitlab", "project": path, "branch": format!("b{number}"), "files": {"x": "y"}});
                assert_eq!(
                    world
                        .control(reqwest::Method::POST, "/commit", Some(commit))
                        .await
                        .status,
                    201
                );
            }
            format!("{}/repository/branches{query}", key(&path))
        }
        _ => return None,
    })
}

pub(super) async fn plan(world: &World, exchange: &Exchange) -> Option<Again> {
    let query = exchange.query();
    if exchange.method == "GET"
        && let Some(path) = list(world, exchange).await
    {
        return Some(Again::get(path, API));
    }
    let recorded = &exchange.body;
    let title = recorded["title"].as_str().unwrap_or("A title");
    let text = json!({"body": recorded["body"].as_str().unwrap_or("Words.")});
    let path = match exchange.key() {
        ("GET", "/api/v4/user", 200) => "/user".to_owned(),
        ("GET", "/api/v4/user", 401) => return Some(Again::get("/user".to_owned(), "nobody-knows-this")),
        ("GET", "/api/v4/users", 200) => "/users?username=ada".to_owned(),
        ("GET", "/api/v4/projects/P", 404) => "/projects/replay%2Fnothing".to_owned(),
        // Without `permissions` it was nobody who asked.
        ("GET", "/api/v4/projects/P", 200) if recorded["permissions"].is_null() => {
            return Some(Again::get(MAIN.to_owned(), ""));
        }
        ("GET", "/api/v4/projects/P", 200) if recorded["owner"].is_object() => "/projects/ada%2Fown".to_owned(),
        ("GET", "/api/v4/projects/P", 200) => MAIN.to_owned(),
        ("GET", "/api/v4/projects/P/issues/N", 200) => {
            let number = issue(world, "replay/main", recorded, 1).await;
            format!("{MAIN}/issues/{number}")
        }
        ("PUT", "/api/v4/projects/P/issues/N", 200) => {
            let number = issue(world, "replay/main", &Value::Null, 1).await;
            let closes = recorded["state"] == "closed";
            let wish = if closes {
                json!({"state_event": "close"})
            } else {
                json!({"labels": "recorded"})
            };
            return sent(format!("{MAIN}/issues/{number}"), wish);
        }
        ("POST", "/api/v4/projects/P/issues", 201) => {
            let labels = recorded["labels"].clone();
            return sent(
                format!("{MAIN}/issues"),
                json!({"title": title, "description": "Words.", "labels": labels}),
            );
        }
        ("GET" | "PUT", "/api/v4/projects/P/issues/N/notes/N", 200) => {
            let number = issue(world, "replay/main", &Value::Null, 1).await;
            let note = newest_note(world, &format!("{MAIN}/issues/{number}")).await;
            let path = format!("{MAIN}/issues/{number}/notes/{note}");
            return if exchange.method == "PUT" {
                sent(path, text)
            } else {
                Some(Again::get(path, API))
            };
        }
        ("POST", "/api/v4/projects/P/issues/N/notes", 201) => {
            let number = issue(world, "replay/main", &Value::Null, 0).await;
            return sent(format!("{MAIN}/issues/{number}/notes"), text);
        }
        ("GET", "/api/v4/projects/P/merge_requests/N", 200) => {
            let number = like(world, exchange, recorded).await;
            let path = format!("{MAIN}/merge_requests/{number}");
            // The first reader is told that the state is not known yet.
            world.get_gitlab(&path, API).await;
            path
        }
        ("GET", "/api/v4/projects/P/merge_requests/N/commits", 200) => {
            let number = like(world, exchange, &Value::Null).await;
            format!("{MAIN}/merge_requests/{number}/commits")
        }
        ("POST", "/api/v4/projects/P/merge_requests", status) => {
            let source = exchange.own("wished");
            let commit = json!({"forge": "gitlab", "project": "replay/main", "branch": source, "files": {"x": source}});
            assert_eq!(
                world
                    .control(reqwest::Method::POST, "/commit", Some(commit))
                    .await
                    .status,
                201
            );
            let wish =
                json!({"title": title, "source_branch": source, "target_branch": "main", "description": "Words."});
            let path = format!("{MAIN}/merge_requests");
            if status == 409 {
                assert_eq!(world.post_gitlab(&path, API, wish.clone()).await.status, 201);
            }
            return sent(path, wish);
        }
        ("PUT", "/api/v4/projects/P/merge_requests/N", 200) => {
            let mut open = recorded.clone();
            open["state"] = json!("opened");
            let number = like(world, exchange, &open).await;
            let mut wish = json!({"title": title});
            if recorded["state"] == "closed" {
                wish["state_event"] = json!("close");
            }
            return sent(format!("{MAIN}/merge_requests/{number}"), wish);
        }
        ("POST", "/api/v4/projects/P/merge_requests/N/notes", 201) => {
            let number = like(world, exchange, &Value::Null).await;
            return sent(format!("{MAIN}/merge_requests/{number}/notes"), text);
        }
        ("GET" | "PUT", "/api/v4/projects/P/merge_requests/N/notes/N", 200) => {
            let number = like(world, exchange, &Value::Null).await;
            let note = newest_note(world, &format!("{MAIN}/merge_requests/{number}")).await;
            let path = format!("{MAIN}/merge_requests/{number}/notes/{note}");
            return if exchange.method == "PUT" {
                sent(path, text)
            } else {
                Some(Again::get(path, API))
            };
        }
        ("GET", "/api/v4/projects/P/repository/branches/X", 200) => format!("{MAIN}/repository/branches/main"),
        ("GET", "/api/v4/projects/P/repository/branches/X", 404) => format!("{MAIN}/repository/branches/non-existing"),
        ("GET", "/api/v4/projects/P/repository/commits", 200) => {
            format!("{MAIN}/repository/commits{}", query.replace("master", "main"))
        }
        ("GET", "/api/v4/projects/P/repository/commits/SHA", 200) => {
            let number = like(world, exchange, &json!({"head_pipeline": {}})).await;
            let head = world
                .get_gitlab(&format!("{MAIN}/merge_requests/{number}"), API)
                .await
                .body["sha"]
                .clone();
            format!("{MAIN}/repository/commits/{}", head.as_str().unwrap())
        }
        _ => return None,
    };
    Some(Again::get(path, API))
}

fn sent(path: String, body: Value) -> Option<Again> {
    Some(Again {
        path,
        token: API,
        body: Some(body),
    })
}
