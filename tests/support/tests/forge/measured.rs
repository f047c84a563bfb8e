//! Every verified row of the measured behaviours that concerns a route of the test forge holds at it.
//!
//! Each row is either checked, by its number, or listed with the reason why it is not. A row that is neither fails the test, and so does a
//! check of a row that is tagged as unverified: nothing may rest on those.

mod github;
mod gitlab;

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::data;
use crate::world::{Got, World, got};

/// One row.
pub(crate) struct Row {
    pub(crate) number: u64,
    when: String,
    status: u64,
    body: Value,
    unverified: bool,
}

fn rows(side: &str) -> Option<BTreeMap<u64, Row>> {
    let text = std::fs::read_to_string(data::directory()?.join(side).join("measured-behaviours.jsonl")).unwrap();
    let read = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let row = Row {
            number: row["n"].as_u64().unwrap(),
            when: row["when"].as_str().unwrap().to_owned(),
            status: row["status"].as_u64().unwrap(),
            unverified: row["src"].as_str().unwrap().split([',', ' ']).any(|tag| tag == "U"),
            body: row["body"].clone(),
        };
        (row.number, row)
    };
    Some(text.lines().map(read).collect())
}

impl Row {
    /// The answer has the row's status, and its words where the row gives them. A row's `HOST`, `<...>`, `...`, `…` and `!1` stand for
    /// others.
    #[track_caller]
    pub(crate) fn holds(&self, answer: &Got) {
        assert_eq!(
            u64::from(answer.status),
            self.status,
            "row {}: {}: {}",
            self.number,
            self.when,
            answer.body
        );
        self.words(&self.body, &answer.body);
    }

    #[track_caller]
    fn words(&self, wanted: &Value, have: &Value) {
        match (wanted, have) {
            (Value::Null, _) => {}
            (Value::Object(wanted), have) => {
                for (key, value) in wanted {
                    assert!(
                        !have[key].is_null() || value.is_null(),
                        "row {}: no {key}: {have}",
                        self.number
                    );
                    // The documentation page differs by route and by year.
                    if key != "documentation_url" {
                        self.words(value, &have[key]);
                    }
                }
            }
            (Value::Array(wanted), have) => {
                for (number, value) in wanted.iter().enumerate() {
                    self.words(value, &have[number]);
                }
            }
            (Value::String(wanted), have) => {
                let end = ["HOST", "<", "...", "…", "!1", "https://"]
                    .iter()
                    .filter_map(|mark| wanted.find(mark))
                    .min();
                let known = wanted.get(..end.unwrap_or(wanted.len())).unwrap();
                let have = have.as_str().unwrap_or_default();
                let same = if end.is_some() {
                    have.starts_with(known)
                } else {
                    have == known
                };
                assert!(same, "row {}: {}: {have:?}, not {wanted:?}", self.number, self.when);
            }
            (wanted, have) => assert_eq!(wanted, have, "row {}: {}", self.number, self.when),
        }
    }

    #[track_caller]
    pub(crate) fn that(&self, holds: bool) {
        assert!(holds, "row {}: {}", self.number, self.when);
    }
}

/// Goes through the table of one forge. `check` says whether it knows the row.
async fn table(side: &str, apart: &[(u64, &str)], check: impl AsyncFn(&Row) -> bool) {
    let Some(rows) = rows(side) else {
        return;
    };
    let (mut held, mut unverified) = (0, 0);
    for row in rows.values() {
        let why = apart.iter().find(|(number, _)| *number == row.number);
        if row.unverified {
            assert!(why.is_none(), "row {} is unverified, so it needs no reason", row.number);
            unverified += 1;
            continue;
        }
        if let Some((_, why)) = why {
            eprintln!("{side}: row {} is not checked ({}): {why}", row.number, row.when);
            continue;
        }
        assert!(
            check(row).await,
            "row {} ({}) is neither checked nor listed",
            row.number,
            row.when
        );
        held += 1;
    }
    eprintln!(
        "{side}: {held} rows hold, {} are not ours, {unverified} are unverified",
        apart.len()
    );
    assert_eq!(held + apart.len() + unverified, rows.len());
}

/// The seed of both tables: what people do, and tokens of more kinds.
const SEED: &str = concat!(
    include_str!("../../seeds/activity.toml"),
    r#"
    [[tokens]]
    name = "granular"
    value = "test-gitlab-granular"
    user = "lin"
    forge = "gitlab"
    scopes = ["granular"]
    [[tokens]]
    name = "read-repository"
    value = "test-gitlab-read-repository"
    user = "lin"
    forge = "gitlab"
    scopes = ["read_repository"]
    [[tokens]]
    name = "limited"
    value = "test-gitlab-limited"
    user = "grace"
    forge = "gitlab"
    scopes = ["api"]

    [[projects]]
    forge = "gitlab"
    path = "measured/here"
    moved_from = ["measured/there"]
    members = [{ user = "lin", role = "developer" }, { user = "ada", role = "guest" }, { user = "grace", role = "reporter" }]
    [[projects]]
    forge = "gitlab"
    path = "measured/closed"
    change_requests_enabled = false
    issues_enabled = false
    members = [{ user = "lin", role = "developer" }]
    [projects.diff_limits]
    files = 2
    [[projects]]
    forge = "gitlab"
    path = "measured/large"
    members = [{ user = "lin", role = "developer" }]
    diff_limits = { files = 2, collapse_bytes = 20 }
    [[change_requests]]
    forge = "gitlab"
    project = "measured/large"
    title = "Many files"
    author = "lin"
    source = "many"
    files = { a = "a line that is longer than what is shown\n", b = "b\n", c = "c\n" }

    [[projects]]
    forge = "github"
    path = "measured/public"
    visibility = "public"
    members = [{ user = "lin", role = "admin" }]
    [[issues]]
    forge = "github"
    project = "measured/public"
    title = "An issue"
    author = "lin"
    "#
);

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_behaves_as_measured() {
    let world = World::with(SEED).await;
    table("gitlab", &gitlab::APART, async |row| gitlab::check(&world, row).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn github_behaves_as_measured() {
    let world = World::with(SEED).await;
    table("github", &github::APART, async |row| github::check(&world, row).await).await;
}

/// A branch with one commit.
async fn branch(world: &World, forge: &str, project: &str, branch: &str) {
    let body = json!({"forge": forge, "project": project, "branch": branch, "files": {branch: "x\n"}});
    assert_eq!(world.control(Method::POST, "/commit", Some(body)).await.status, 201);
}

/// Something of the seed, added under way.
async fn more(world: &World, seed: Value) -> Value {
    let made = world.control(Method::POST, "/seed", Some(seed)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.body
}

/// What git asks first.
async fn info_refs(world: &World, method: Method, base: &str, path: &str, service: &str, token: &str) -> Got {
    let url = format!("{base}/{path}.git/info/refs?service={service}");
    let request = world.client.request(method, url);
    got(if token.is_empty() {
        request
    } else {
        request.basic_auth("oauth2", Some(token))
    })
    .await
}
