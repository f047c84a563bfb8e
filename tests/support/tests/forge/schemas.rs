//! Answers of the test forge validate against what the forges publish: GitLab's own response schemas, and GitHub's description of its REST
//! API, that of api.github.com and that of Enterprise Server 3.19.
//!
//! Every operation of the description is either asked or listed with a reason, so that none is forgotten.

use std::collections::BTreeSet;
use std::path::Path;

use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::data::directory;
use crate::world::{Got, World, got};

const SEED: &str = include_str!("../../seeds/activity.toml");

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn validator(schema: &Value) -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap()
}

fn wrong(what: &str, validator: &Validator, body: &Value) -> Vec<String> {
    let errors = validator.iter_errors(body).map(|error| {
        let text: String = error.to_string().chars().take(200).collect();
        format!("{what}: {}: {text}", error.instance_path())
    });
    errors.collect()
}

/// A schema with the files that it names put in their places: all names are relative to one folder.
fn inlined(folder: &Path, schema: Value) -> Value {
    match schema {
        Value::Object(map) => match map.get("$ref").and_then(Value::as_str) {
            Some(file) => inlined(folder, read(&folder.join(file))),
            None => Value::Object(
                map.into_iter()
                    .map(|(key, value)| (key, inlined(folder, value)))
                    .collect(),
            ),
        },
        Value::Array(items) => items.into_iter().map(|item| inlined(folder, item)).collect(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_answers_are_valid_by_gitlabs_own_schemas() {
    const LIN: &str = "test-gitlab-lin";
    const SHOP: &str = "/projects/platform%2Fshop";
    let Some(data) = directory() else {
        return;
    };
    let folder = data.join("gitlab/schemas-gitlabhq");
    let world = World::with(SEED).await;
    let head = world.head("gitlab", "platform/shop", "main").await.unwrap();
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for (path, file) in [
        (format!("{SHOP}/merge_requests"), "merge_requests.json"),
        (format!("{SHOP}/merge_requests?state=merged"), "merge_requests.json"),
        (format!("{SHOP}/merge_requests/1"), "merge_request.json"),
        (format!("{SHOP}/merge_requests/2"), "merge_request.json"),
        (format!("{SHOP}/merge_requests/3"), "merge_request.json"),
        (format!("{SHOP}/merge_requests/4"), "merge_request_simple.json"),
        (format!("{SHOP}/merge_requests/1/notes"), "notes.json"),
        (format!("{SHOP}/issues"), "issues.json"),
        (format!("{SHOP}/issues/1"), "issue.json"),
        (format!("{SHOP}/issues/3"), "issue.json"),
        (format!("{SHOP}/issues/1/notes"), "notes.json"),
        (format!("{SHOP}/repository/branches/main"), "branch.json"),
        (format!("{SHOP}/repository/commits/{head}"), "commit/basic.json"),
        ("/metadata".to_owned(), "metadata.json"),
        (SHOP.to_owned(), "project_basic.json"),
        ("/user".to_owned(), "user/basic.json"),
    ] {
        let answer = world.get_gitlab(&path, LIN).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        used.insert(file);
        let validator = validator(&inlined(&folder, read(&folder.join(file))));
        found.extend(wrong(&path, &validator, &answer.body));
    }
    assert_eq!(used.len(), 11, "every schema is used: {used:?}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// OpenAPI 3.0 writes `nullable` where JSON Schema has a type `null`.
fn plain(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::Object(map) => {
            let nullable = map.get("nullable") == Some(&json!(true));
            // Only schemas have these; a property may be called so too, and is an object then.
            let keep =
                |key: &String, value: &Value| !matches!(key.as_str(), "nullable" | "example") || value.is_object();
            let map: Map<String, Value> = map
                .into_iter()
                .filter(|(key, value)| keep(key, value))
                .map(|(key, value)| (key, plain(value)))
                .collect();
            if nullable {
                json!({"anyOf": [{"type": "null"}, map]})
            } else {
                Value::Object(map)
            }
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

struct Description {
    name: &'static str,
    all: Value,
    components: Value,
}

impl Description {
    fn read(data: &Path, name: &'static str) -> Self {
        let all = read(&data.join("github").join(name));
        let components = json!({"schemas": plain(all["components"]["schemas"].clone())});
        Self { name, all, components }
    }

    /// The schema of an answer; `None` if this description has no such operation.
    fn schema(&self, method: &str, path: &str, status: u16) -> Option<Value> {
        let operation = self.all["paths"][path].get(method)?;
        let mut answer = &operation["responses"][status.to_string()];
        if let Some(name) = answer["$ref"].as_str() {
            answer = self.all.pointer(name.trim_start_matches('#')).unwrap();
        }
        let content = answer["content"]
            .as_object()
            .unwrap_or_else(|| panic!("{}: {method} {path} has no {status}", self.name));
        let schema = content.iter().find(|(kind, _)| kind.contains("json")).unwrap().1["schema"].clone();
        let mut schema = plain(schema);
        schema["components"] = self.components.clone();
        Some(schema)
    }

    fn operations(&self) -> BTreeSet<(String, String)> {
        let paths = self.all["paths"].as_object().unwrap().iter();
        let all = paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(move |method| (method.clone(), path.clone()))
        });
        all.collect()
    }
}

/// Operations of the description that the test forge does not have, and why.
const APART: [(&str, &str, &str); 14] = [
    (
        "get",
        "/versions",
        "absent on Enterprise Server, which is what is played",
    ),
    ("get", "/app", "for an App's own key, which the worker never has"),
    ("get", "/app/installations/{installation_id}", "for an App's own key"),
    (
        "post",
        "/app/installations/{installation_id}/access_tokens",
        "for an App's own key",
    ),
    ("delete", "/installation/token", "the worker revokes no token"),
    ("get", "/repos/{owner}/{repo}/installation", "for an App's own key"),
    (
        "get",
        "/repos/{owner}/{repo}/branches/{branch}/protection",
        "for administrators only",
    ),
    (
        "get",
        "/repos/{owner}/{repo}/rules/branches/{branch}",
        "rulesets are not played",
    ),
    (
        "get",
        "/repos/{owner}/{repo}/commits/{commit_sha}/pulls",
        "pull requests are found by branch",
    ),
    (
        "get",
        "/repos/{owner}/{repo}/compare/{basehead}",
        "differences are made with git",
    ),
    (
        "get",
        "/repos/{owner}/{repo}/contents/{path}",
        "files are read with git",
    ),
    ("post", "/repos/{owner}/{repo}/forks", "forks are not played"),
    (
        "put",
        "/repos/{owner}/{repo}/pulls/{pull_number}/merge",
        "the product never merges",
    ),
    (
        "get",
        "/repos/{owner}/{repo}/issues/{issue_number}/timeline",
        "a conversation is read by its three routes",
    ),
];

/// Two more: refs are made and deleted by git.
const BY_GIT: [(&str, &str); 2] = [
    ("post", "/repos/{owner}/{repo}/git/refs"),
    ("delete", "/repos/{owner}/{repo}/git/refs/{ref}"),
];

const ASKS_REVIEW: (&str, &str) = ("post", "/repos/{owner}/{repo}/pulls/{pull_number}/requested_reviewers");
/// No answer has a body.
const MERGED: (&str, &str) = ("get", "/repos/{owner}/{repo}/pulls/{pull_number}/merge");

/// An operation with the answer to it.
struct Asked {
    method: &'static str,
    path: String,
    answer: Got,
}

async fn github_answers(world: &World) -> Vec<Asked> {
    const LIN: &str = "test-github-lin";
    const SHOP: &str = "/repos/acme/shop";
    const REPO: &str = "/repos/{owner}/{repo}";
    for branch in ["one", "two"] {
        let body = json!({"forge": "github", "project": "acme/shop", "branch": branch, "files": {branch: "x\n"}});
        assert_eq!(world.control(Method::POST, "/commit", Some(body)).await.status, 201);
    }
    let head = world.head("github", "acme/shop", "count-cart").await.unwrap();
    let reviews = world.get_github(&format!("{SHOP}/pulls/3/reviews"), LIN).await.body;
    let review = reviews[0]["id"].to_string();
    let comments = world.get_github(&format!("{SHOP}/pulls/3/comments"), LIN).await.body;
    let comment = comments[0]["id"].to_string();
    let mut all = Vec::new();
    for (path, real) in [
        ("/meta", "/meta".to_owned()),
        ("/rate_limit", "/rate_limit".to_owned()),
        ("/user", "/user".to_owned()),
        ("/user/emails", "/user/emails".to_owned()),
        ("/user/repos", "/user/repos".to_owned()),
        ("/users/{username}", "/users/ada".to_owned()),
        ("/search/issues", "/search/issues?q=repo:acme/shop".to_owned()),
        (REPO, SHOP.to_owned()),
        ("{}/branches", "/branches".to_owned()),
        ("{}/branches/{branch}", "/branches/main".to_owned()),
        (
            "{}/collaborators/{username}/permission",
            "/collaborators/ada/permission".to_owned(),
        ),
        ("{}/commits", "/commits".to_owned()),
        ("{}/commits/{ref}", format!("/commits/{head}")),
        ("{}/commits/{ref}/check-runs", format!("/commits/{head}/check-runs")),
        ("{}/commits/{ref}/status", format!("/commits/{head}/status")),
        ("{}/git/ref/{ref}", "/git/ref/heads/main".to_owned()),
        ("{}/issues", "/issues?state=all".to_owned()),
        ("{}/issues/{issue_number}", "/issues/1".to_owned()),
        ("{}/issues/{issue_number}", "/issues/3".to_owned()),
        ("{}/issues/{issue_number}/comments", "/issues/1/comments".to_owned()),
        ("{}/labels", "/labels".to_owned()),
        ("{}/pulls", "/pulls?state=all".to_owned()),
        ("{}/pulls/{pull_number}", "/pulls/3".to_owned()),
        ("{}/pulls/{pull_number}", "/pulls/3".to_owned()),
        ("{}/pulls/{pull_number}", "/pulls/5".to_owned()),
        ("{}/pulls/{pull_number}/comments", "/pulls/3/comments".to_owned()),
        ("{}/pulls/{pull_number}/commits", "/pulls/3/commits".to_owned()),
        ("{}/pulls/{pull_number}/files", "/pulls/3/files".to_owned()),
        (
            "{}/pulls/{pull_number}/requested_reviewers",
            "/pulls/3/requested_reviewers".to_owned(),
        ),
        ("{}/pulls/{pull_number}/reviews", "/pulls/3/reviews".to_owned()),
        (
            "{}/pulls/{pull_number}/reviews/{review_id}",
            format!("/pulls/3/reviews/{review}"),
        ),
        (
            "{}/pulls/{pull_number}/reviews/{review_id}/comments",
            format!("/pulls/3/reviews/{review}/comments"),
        ),
        // Refusals.
        (REPO, "/repos/acme/none".to_owned()),
        ("{}/pulls/{pull_number}", "/pulls/999".to_owned()),
        ("{}/issues/{issue_number}", "/issues/999".to_owned()),
    ] {
        let real = if path.starts_with("{}") {
            format!("{SHOP}{real}")
        } else {
            real
        };
        let answer = world.get_github(&real, LIN).await;
        all.push(Asked {
            method: "get",
            path: path.replacen("{}", REPO, 1),
            answer,
        });
    }
    let installation = world
        .get_github("/installation/repositories", "test-github-installation")
        .await;
    all.push(Asked {
        method: "get",
        path: "/installation/repositories".to_owned(),
        answer: installation,
    });

    let line = json!({"body": "x", "commit_id": head, "path": "cart.txt", "line": 4});
    for (method, path, real, body) in [
        (
            "post",
            "/pulls",
            "/pulls".to_owned(),
            json!({"title": "One", "head": "one", "base": "main", "body": "x"}),
        ),
        (
            "post",
            "/pulls",
            "/pulls".to_owned(),
            json!({"title": "One", "head": "one", "base": "main"}),
        ),
        (
            "patch",
            "/pulls/{pull_number}",
            "/pulls/3".to_owned(),
            json!({"title": "Other"}),
        ),
        (
            "post",
            "/pulls/{pull_number}/comments",
            "/pulls/3/comments".to_owned(),
            line,
        ),
        (
            "post",
            "/pulls/{pull_number}/comments/{comment_id}/replies",
            format!("/pulls/3/comments/{comment}/replies"),
            json!({"body": "x"}),
        ),
        (
            "post",
            "/issues/{issue_number}/comments",
            "/issues/1/comments".to_owned(),
            json!({"body": "x"}),
        ),
        (
            "post",
            "/issues/{issue_number}/labels",
            "/issues/1/labels".to_owned(),
            json!({"labels": ["new"]}),
        ),
        (
            "patch",
            "/issues/{issue_number}",
            "/issues/1".to_owned(),
            json!({"state": "closed"}),
        ),
    ] {
        let verb: Method = method.to_uppercase().parse().unwrap();
        let answer = got(world.github(verb, &format!("{SHOP}{real}"), LIN).json(&body)).await;
        all.push(Asked {
            method,
            path: format!("{REPO}{path}"),
            answer,
        });
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn github_answers_are_valid_by_its_description() {
    let Some(data) = directory() else {
        return;
    };
    let world = World::with(SEED).await;
    let answers = github_answers(&world).await;
    let mut found = Vec::new();
    for name in ["openapi-api.github.com.trimmed.json", "openapi-ghes-3.19.trimmed.json"] {
        let description = Description::read(&data, name);
        let mut rest = description.operations();
        for (method, path, _) in APART {
            rest.remove(&(method.to_owned(), path.to_owned()));
        }
        for (method, path) in BY_GIT.into_iter().chain([ASKS_REVIEW, MERGED]) {
            rest.remove(&(method.to_owned(), path.to_owned()));
        }
        let mut validated = 0;
        for asked in &answers {
            let status = asked.answer.status;
            assert!(status < 500, "{} {}: {}", asked.method, asked.path, asked.answer.body);
            let Some(schema) = description.schema(asked.method, &asked.path, status) else {
                continue;
            };
            rest.remove(&(asked.method.to_owned(), asked.path.clone()));
            let what = format!("{name}: {} {} {status}", asked.method, asked.path);
            found.extend(wrong(&what, &validator(&schema), &asked.answer.body));
            validated += 1;
        }
        eprintln!("{name}: {validated} answers validated");
        assert!(rest.is_empty(), "{name}: neither asked nor listed: {rest:?}");
        assert!(validated >= 44, "{name}: only {validated}");
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}
