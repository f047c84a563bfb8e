//! Every field that all samples of a real forge had, with a type that it was seen with.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::data::directory;
use crate::world::{GREETER, GREETER_KEY, WEBSITE, World, got};

const API: &str = "test-gitlab-api";
const REPO: &str = "test-github-repo";

/// Fields in which the double differs on purpose, and why. `*` stands for all routes of GitHub's pull requests.
const EXCEPT: [(&str, &str); 14] = [
    // It runs no pipelines.
    ("GET /api/v4/projects/P/repository/commits/SHA 200", "last_pipeline"),
    ("GET /api/v4/projects/P/repository/commits/SHA 200", "status"),
    // The recordings are old: GitLab left parents out of branch lists then.
    ("GET /api/v4/projects/P/repository/branches 200", "commit.parent_ids"),
    // The recordings hold discussions of commits, on diffs; the double's are of merge requests.
    (
        "GET /api/v4/projects/P/repository/commits/SHA/discussions 200",
        "notes[].noteable_id",
    ),
    (
        "GET /api/v4/projects/P/repository/commits/SHA/discussions 200",
        "notes[].noteable_iid",
    ),
    (
        "GET /api/v4/projects/P/repository/commits/SHA/discussions 200",
        "notes[].type",
    ),
    // It makes no test merge.
    ("GET /repos/O/R/pulls/N 200", "merge_commit_sha"),
    // Recorded while closed; the double's is open.
    ("PATCH /repos/O/R/pulls/N 200", "closed_at"),
    // The demo's person shows an e-mail.
    ("GET /user 200", "email"),
    // The recorded commits were signed.
    ("GET /repos/O/R/pulls/N/commits 200", "commit.verification.payload"),
    ("GET /repos/O/R/pulls/N/commits 200", "commit.verification.signature"),
    // GitHub has many kinds of limits; the double three.
    ("GET /rate_limit 200", "resources"),
    // The repository of the recorded pull requests had a licence and a language.
    ("*", "repo.license"),
    ("*", "repo.language"),
];

fn excepted(route: &str, path: &str) -> bool {
    EXCEPT.iter().any(|(on, part)| {
        let below = path == *part || path.starts_with(&format!("{part}."));
        let somewhere = *on == "*" && route.contains("/pulls") && path.contains(part);
        (*on == route && below) || somewhere
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// All field paths of a body with their types, as the observed shapes name them.
pub(crate) fn paths(value: &Value, prefix: &str, into: &mut BTreeMap<String, Vec<&'static str>>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                into.entry(path.clone()).or_default().push(kind(value));
                paths(value, &path, into);
            }
        }
        Value::Array(items) => {
            for item in items {
                paths(
                    item,
                    &if prefix.is_empty() {
                        String::new()
                    } else {
                        format!("{prefix}[]")
                    },
                    into,
                );
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn compare(shapes: &Value, route: &str, body: &Value) -> Vec<String> {
    let shape = &shapes[route];
    let samples = shape["samples"].as_u64().unwrap_or_else(|| panic!("no shape {route}"));
    let mut have = BTreeMap::new();
    paths(body, "", &mut have);
    let mut wrong = Vec::new();
    for (path, field) in shape["fields"].as_object().unwrap() {
        if field["in"] != samples || excepted(route, path) {
            continue;
        }
        // A parent that may be null or empty has no children to compare.
        let parent = path.rsplit_once('.').map(|(parent, _)| parent.trim_end_matches("[]"));
        let parent_absent = parent.is_some_and(|parent| {
            have.get(parent)
                .is_some_and(|kinds| kinds.iter().all(|kind| *kind == "null"))
        });
        match have.get(path) {
            None if parent_absent => {}
            None => wrong.push(format!("{route}: {path} is missing")),
            Some(kinds) => {
                let allowed: Vec<&str> = field["types"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|kind| kind.as_str().unwrap())
                    .collect();
                if let Some(odd) = kinds.iter().find(|kind| !allowed.contains(kind)) {
                    wrong.push(format!("{route}: {path} is {odd}, seen were {allowed:?}"));
                }
            }
        }
    }
    wrong
}

pub(crate) fn observed(side: &str) -> Option<Value> {
    let text = std::fs::read_to_string(directory()?.join(side).join("observed-shapes.json")).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_bodies_have_the_observed_fields() {
    let Some(shapes) = observed("gitlab") else {
        return;
    };
    let world = World::start().await;
    let head = world.pushed("gitlab", GREETER, API, "feature").await;
    let project = format!("/projects/{GREETER_KEY}");
    let wish = json!({"title": "A title", "source_branch": "feature", "target_branch": "main", "description": "words"});
    let mut wrong = Vec::new();
    let mut check = |route: &str, status: u16, answer: crate::world::Got| {
        assert_eq!(answer.status, status, "{route}: {}", answer.body);
        wrong.extend(compare(&shapes, &format!("{route} {status}"), &answer.body));
    };
    const P: &str = "/api/v4/projects/P";
    check(
        &format!("POST {P}/merge_requests"),
        201,
        world.post_gitlab(&format!("{project}/merge_requests"), API, wish).await,
    );
    let note = world
        .post_gitlab(&format!("{project}/merge_requests/1/notes"), API, json!({"body": "x"}))
        .await;
    check(&format!("POST {P}/merge_requests/N/notes"), 201, note);
    let change = world
        .gitlab(Method::PUT, &format!("{project}/merge_requests/1"), API)
        .json(&json!({"title": "B"}));
    check(&format!("PUT {P}/merge_requests/N"), 200, got(change).await);
    for (route, path) in [
        ("", String::new()),
        ("/merge_requests", "/merge_requests".to_owned()),
        ("/merge_requests/N", "/merge_requests/1".to_owned()),
        ("/merge_requests/N/commits", "/merge_requests/1/commits".to_owned()),
        ("/merge_requests/N/notes", "/merge_requests/1/notes".to_owned()),
        ("/repository/branches", "/repository/branches".to_owned()),
        ("/repository/branches/X", "/repository/branches/main".to_owned()),
        ("/repository/commits", "/repository/commits".to_owned()),
        ("/repository/commits/SHA", format!("/repository/commits/{head}")),
        (
            "/repository/commits/SHA/discussions",
            "/merge_requests/1/discussions".to_owned(),
        ),
        ("/issues", "/issues".to_owned()),
        ("/issues/N", "/issues/1".to_owned()),
        ("/issues/N/notes", "/issues/1/notes".to_owned()),
    ] {
        check(
            &format!("GET {P}{route}"),
            200,
            world.get_gitlab(&format!("{project}{path}"), API).await,
        );
    }
    check("GET /api/v4/user", 200, world.get_gitlab("/user", API).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn github_bodies_have_the_observed_fields() {
    let Some(shapes) = observed("github") else {
        return;
    };
    let world = World::start().await;
    let head = world.pushed("github", WEBSITE, REPO, "feature").await;
    let mut wrong = Vec::new();
    let mut check = |route: &str, status: u16, answer: crate::world::Got| {
        assert_eq!(answer.status, status, "{route}: {}", answer.body);
        wrong.extend(compare(&shapes, &format!("{route} {status}"), &answer.body));
    };
    let repository = "/repos/acme/website";
    let wish = json!({"title": "A title", "head": "feature", "base": "main", "body": "words"});
    check(
        "POST /repos/O/R/pulls",
        201,
        world.post_github(&format!("{repository}/pulls"), REPO, wish).await,
    );
    let comment = world
        .post_github(&format!("{repository}/issues/2/comments"), REPO, json!({"body": "x"}))
        .await;
    check("POST /repos/O/R/issues/N/comments", 201, comment);
    let change = world
        .github(Method::PATCH, &format!("{repository}/pulls/2"), REPO)
        .json(&json!({"title": "B"}));
    check("PATCH /repos/O/R/pulls/N", 200, got(change).await);
    for (route, path) in [
        ("", String::new()),
        ("/branches", "/branches".to_owned()),
        ("/branches/X", "/branches/feature".to_owned()),
        ("/commits/SHA", format!("/commits/{head}")),
        ("/pulls", "/pulls".to_owned()),
        ("/pulls/N", "/pulls/2".to_owned()),
        ("/pulls/N/commits", "/pulls/2/commits".to_owned()),
        ("/issues", "/issues".to_owned()),
        ("/issues/N", "/issues/1".to_owned()),
        ("/issues/N/comments", "/issues/2/comments".to_owned()),
    ] {
        check(
            &format!("GET /repos/O/R{route}"),
            200,
            world.get_github(&format!("{repository}{path}"), REPO).await,
        );
    }
    check("GET /user", 200, world.get_github("/user", REPO).await);
    check("GET /user/repos", 200, world.get_github("/user/repos", REPO).await);
    check("GET /user/emails", 200, world.get_github("/user/emails", REPO).await);
    check("GET /rate_limit", 200, world.get_github("/rate_limit", REPO).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
