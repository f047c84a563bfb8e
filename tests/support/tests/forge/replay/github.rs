//! What the recorded exchanges of api.github.com presuppose, and how they are asked again.

use serde_json::{Value, json};

use super::{Again, Exchange, Side};
use crate::world::World;

const REPO: &str = "test-github-repo";
/// A person who may read the public repository and no more.
const GRACE: &str = "test-github-grace";

/// The recordings are of github.com, which limits and says so.
pub(super) const SEED: &str = r#"
    [github]
    rate_limit = 5000

    [[tokens]]
    name = "grace-github"
    value = "test-github-grace"
    user = "grace"
    forge = "github"
    scopes = ["repo", "user"]

    [[projects]]
    forge = "github"
    path = "replay/main"
    visibility = "public"
    description = "Where most of the recorded exchanges happen"
    moved_from = ["replay/old"]
    members = [{ user = "ada", role = "admin" }]

    # /user/repos?affiliation=owner goes over three pages.
    [[crowds]]
    forge = "github"
    group = "ada"
    count = 65
    visibility = "public"
    members = [{ user = "ada", role = "admin" }]
"#;

const MAIN: &str = "/repos/replay/main";

pub(super) const SIDE: Side = Side {
    name: "github",
    file: "recorded-api.github.com.jsonl",
    root: "",
    except: &[
        ("*", "source", "forks are not played"),
        ("*", "parent", "forks are not played"),
        ("*", "license", "no licence is found in seeded files"),
        ("*", "language", "no language is found in seeded files"),
        ("/repos/O/R/pulls/N", "merge_commit_sha", "no test merge is made"),
        (
            "/repos/O/R/pulls/N/commits",
            "commit.verification",
            "seeded commits are not signed",
        ),
    ],
    skipped: &[
        (
            "*",
            "/app/installations/N/access_tokens",
            "the worker is given installation tokens, it makes none",
        ),
        (
            "*",
            "/packit/hello-world/pull/N.patch",
            "a page for people, not the API",
        ),
        (
            "*",
            "/repos/O/R/collaborators",
            "the product asks for no list of people",
        ),
        ("PUT", "/repos/O/R/collaborators/X", "no member is added by the product"),
        ("*", "/repos/O/R/comments/N", "comments of commits are not played"),
        (
            "*",
            "/repos/O/R/commits/SHA/comments",
            "comments of commits are not played",
        ),
        ("*", "/repos/O/R/contents/X", "files are read with git"),
        ("*", "/repos/O/R/forks", "forks are not played"),
        (
            "*",
            "/repos/O/R/installation",
            "for an App's own key, which the worker never has",
        ),
        ("*", "/repos/O/R/labels/X", "a label is read with what it hangs on"),
        ("*", "/repos/O/R/releases/latest", "releases are not played"),
        ("POST", "/repos/O/R/statuses/SHA", "the product sets no status"),
        ("*", "/search/repositories", "the product lists what a token is given"),
    ],
    floor: 98,
};

async fn seeded(world: &World, kind: &str, seed: Value) -> Value {
    let made = world
        .control(reqwest::Method::POST, "/seed", Some(json!({kind: seed})))
        .await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.body[kind].clone()
}

fn filled(recorded: &Value, key: &str) -> bool {
    recorded[key].as_array().is_some_and(|all| !all.is_empty())
}

/// A label that says something, or nothing, as the recorded one does.
fn label(recorded: &Value) -> &'static str {
    if recorded["labels"][0]["description"].is_string() {
        "bug"
    } else {
        "recorded"
    }
}

/// A pull request like the recorded one; its number.
async fn pull(world: &World, exchange: &Exchange, recorded: &Value, comments: usize) -> u64 {
    let text = |key: &str| recorded[key].as_str().unwrap_or_default().to_owned();
    let state = match (recorded["merged_at"].is_string(), text("state").as_str()) {
        (true, _) => "merged",
        (false, "closed") => "closed",
        _ => "open",
    };
    let some = |key: &str, value: Value| {
        if filled(recorded, key) {
            json!([value])
        } else {
            json!([])
        }
    };
    let comments: Vec<String> = (0..comments).map(|number| format!("Comment {number}")).collect();
    let seed = json!([{
        "forge": "github", "project": "replay/main", "author": "ada", "source": exchange.own("like"),
        "title": text("title"), "description": text("body"), "state": state,
        "labels": some("labels", json!(label(recorded))), "assignees": some("assignees", json!("ada")),
        "activity": {"reviewers": some("requested_reviewers", json!("grace")), "comments": comments},
    }]);
    seeded(world, "change_requests", seed).await[0].as_u64().unwrap()
}

fn issue_seed(project: &str, recorded: &Value, comments: usize) -> Value {
    let comments: Vec<String> = (0..comments).map(|number| format!("Comment {number}")).collect();
    let some = |key: &str, value: Value| {
        if filled(recorded, key) {
            json!([value])
        } else {
            json!([])
        }
    };
    json!({
        "forge": "github", "project": project, "author": "ada", "title": "An issue", "description": "Words.",
        "closed": recorded["state"] == "closed", "labels": some("labels", json!(label(recorded))),
        "assignees": some("assignees", json!("ada")), "comments": comments,
    })
}

/// An issue like the recorded one, or a pull request where that was one.
async fn issue(world: &World, exchange: &Exchange, recorded: &Value, comments: usize) -> u64 {
    if recorded["pull_request"].is_object() {
        return pull(world, exchange, recorded, comments).await;
    }
    let seed = json!([issue_seed("replay/main", recorded, comments)]);
    seeded(world, "issues", seed).await[0].as_u64().unwrap()
}

async fn repository(world: &World, exchange: &Exchange) -> String {
    let path = exchange.own("replay/list");
    let seed = json!([{
        "forge": "github", "path": path, "description": "A list", "visibility": "public", "members": [{"user": "ada", "role": "admin"}],
    }]);
    seeded(world, "projects", seed).await;
    path
}

/// Lists: as many pages as the real one had.
async fn list(world: &World, exchange: &Exchange) -> Option<String> {
    let rows = exchange.rows(30);
    let query = exchange.query();
    Some(match exchange.route.as_str() {
        "/user/repos" => format!("/user/repos{query}"),
        "/repos/O/R/branches" => format!("{MAIN}/branches"),
        "/repos/O/R/issues" => {
            let path = repository(world, exchange).await;
            if query.contains("xyzidontexist") {
                return Some(format!("/repos/{path}/issues{query}"));
            }
            let mut one = issue_seed(&path, &Value::Null, 0);
            one["labels"] = json!(["bug"]);
            one["assignees"] = json!(["ada"]);
            seeded(world, "issues", json!(vec![one; rows - 1])).await;
            // Pull requests are in the list too, and the newest are listed first.
            let pull = json!([{
                "forge": "github", "project": path, "author": "ada", "title": "A pull request", "source": "branch",
                "description": "Words.", "labels": ["bug"], "assignees": ["ada"],
            }]);
            let mut closed = issue_seed(&path, &json!({"state": "closed"}), 0);
            closed["labels"] = json!(["bug"]);
            if rows > 1 {
                seeded(world, "issues", json!([closed])).await;
            }
            seeded(world, "change_requests", pull).await;
            let by_number = exchange.path.starts_with("/repositories/");
            let base = if by_number {
                let shown = world.get_github(&format!("/repos/{path}"), REPO).await.body;
                format!("/repositories/{}", shown["id"])
            } else {
                format!("/repos/{path}")
            };
            format!(
                "{base}/issues{}",
                query
                    .replace("creator=user010", "creator=ada")
                    .replace("labels=Pagure", "labels=bug")
            )
        }
        "/repos/O/R/pulls" => {
            let path = repository(world, exchange).await;
            for number in 0..rows {
                let one = json!([{
                    "forge": "github", "project": path, "author": "ada", "title": "A pull request", "description": "Words.",
                    "source": format!("branch-{number}"),
                }]);
                seeded(world, "change_requests", one).await;
            }
            format!("/repos/{path}/pulls{query}")
        }
        "/repos/O/R/issues/N/comments" => {
            let number = issue(world, exchange, &Value::Null, rows).await;
            format!("{MAIN}/issues/{number}/comments{query}")
        }
        "/repos/O/R/issues/N/labels" => {
            let number = issue(world, exchange, &json!({"labels": exchange.body}), 0).await;
            format!("{MAIN}/issues/{number}/labels")
        }
        "/repos/O/R/pulls/N/commits" => {
            let number = pull(world, exchange, &Value::Null, 0).await;
            format!("{MAIN}/pulls/{number}/commits")
        }
        _ => return None,
    })
}

fn sent(path: String, body: Value) -> Option<Again> {
    Some(Again {
        path,
        token: REPO,
        body: Some(body),
    })
}

pub(super) async fn plan(world: &World, exchange: &Exchange) -> Option<Again> {
    if exchange.method == "GET"
        && let Some(path) = list(world, exchange).await
    {
        return Some(Again::get(path, REPO));
    }
    let recorded = &exchange.body;
    let title = recorded["title"].as_str().unwrap_or("A title");
    let path = match exchange.key() {
        // Somebody who shows no e-mail address, as in the recordings.
        ("GET", "/user", 200) => return Some(Again::get("/user".to_owned(), GRACE)),
        ("GET", "/user/emails", 200) => "/user/emails".to_owned(),
        ("GET", "/repos/O/R", 200) => MAIN.to_owned(),
        ("GET", "/repos/O/R", 301) => "/repos/replay/old".to_owned(),
        ("GET", "/repos/O/R", 401) => return Some(Again::get(MAIN.to_owned(), "nobody-knows-this")),
        ("GET", "/repos/O/R", 404) => "/repos/replay/nothing".to_owned(),
        ("GET", "/repos/O/R/branches/X", 200) => {
            pull(world, exchange, &Value::Null, 0).await;
            format!("{MAIN}/branches/{}", exchange.own("like"))
        }
        ("GET", "/repos/O/R/collaborators/X", 200) => {
            let whom = if recorded["permission"] == "none" {
                "grace"
            } else {
                "ada"
            };
            format!("{MAIN}/collaborators/{whom}/permission")
        }
        ("GET", "/repos/O/R/commits/SHA", 200) => {
            pull(world, exchange, &Value::Null, 0).await;
            let head = world
                .head("github", "replay/main", &exchange.own("like"))
                .await
                .unwrap();
            format!("{MAIN}/commits/{head}")
        }
        ("GET", "/repos/O/R/issues/N", 200) => {
            let number = issue(world, exchange, recorded, 1).await;
            format!("{MAIN}/issues/{number}")
        }
        ("PATCH", "/repos/O/R/issues/N", 200) => {
            let mut open = recorded.clone();
            open["state"] = json!("open");
            let number = issue(world, exchange, &open, 1).await;
            return sent(
                format!("{MAIN}/issues/{number}"),
                json!({"title": title, "state": recorded["state"]}),
            );
        }
        ("PATCH", "/repos/O/R/issues/N", 403) => {
            let number = issue(world, exchange, &Value::Null, 0).await;
            return Some(Again {
                path: format!("{MAIN}/issues/{number}"),
                token: GRACE,
                body: Some(json!({"title": "Mine now"})),
            });
        }
        ("POST", "/repos/O/R/issues", 201) => {
            let wish = json!({"title": title, "body": "Words.", "labels": if filled(recorded, "labels") { json!(["x"]) } else { json!([]) },
                "assignees": if filled(recorded, "assignees") { json!(["ada"]) } else { json!([]) }});
            return sent(format!("{MAIN}/issues"), wish);
        }
        ("POST", "/repos/O/R/issues/N/comments", 201) => {
            let number = issue(world, exchange, &Value::Null, 0).await;
            return sent(format!("{MAIN}/issues/{number}/comments"), json!({"body": "Words."}));
        }
        ("GET" | "PATCH", "/repos/O/R/issues/comments/N", 200) => {
            let number = issue(world, exchange, &Value::Null, 1).await;
            let all = world
                .get_github(&format!("{MAIN}/issues/{number}/comments"), REPO)
                .await
                .body;
            let path = format!("{MAIN}/issues/comments/{}", all[0]["id"]);
            if exchange.method == "PATCH" {
                return sent(path, json!({"body": "Other words."}));
            }
            path
        }
        ("POST", "/repos/O/R/issues/N/labels", 200) => {
            let number = issue(world, exchange, &Value::Null, 0).await;
            return sent(
                format!("{MAIN}/issues/{number}/labels"),
                json!({"labels": ["recorded"]}),
            );
        }
        ("GET", "/repos/O/R/pulls/N", 200) => {
            let number = pull(world, exchange, recorded, 1).await;
            let path = format!("{MAIN}/pulls/{number}");
            // The first reader is told that the state is not known yet.
            world.get_github(&path, REPO).await;
            path
        }
        ("GET", "/repos/O/R/pulls/N", 404) => format!("{MAIN}/pulls/100000000000000000000"),
        ("GET", "/repos/O/R/pulls/N/merge", 404) => {
            let number = pull(world, exchange, &Value::Null, 0).await;
            format!("{MAIN}/pulls/{number}/merge")
        }
        ("POST", "/repos/O/R/pulls", 201) => {
            let head = exchange.own("wished");
            let commit = json!({"forge": "github", "project": "replay/main", "branch": head, "files": {"x": head}});
            assert_eq!(
                world
                    .control(reqwest::Method::POST, "/commit", Some(commit))
                    .await
                    .status,
                201
            );
            return sent(
                format!("{MAIN}/pulls"),
                json!({"title": title, "head": head, "base": "main", "body": "Words."}),
            );
        }
        ("PATCH", "/repos/O/R/pulls/N", 200) => {
            let mut open = recorded.clone();
            open["state"] = json!("open");
            let number = pull(world, exchange, &open, 0).await;
            return sent(
                format!("{MAIN}/pulls/{number}"),
                json!({"title": title, "state": recorded["state"]}),
            );
        }
        _ => return None,
    };
    Some(Again::get(path, REPO))
}
