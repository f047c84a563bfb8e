//! What other projects keep as GitHub's answers, and what a broken forge could make of recorded ones, against every call of the client.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::*;
use crate::forge::fake::TOKEN;
use crate::forge::recordings::{self, mutations};

#[test]
fn examples_of_repositories_branches_and_pull_requests_are_read() {
    type Read = fn(Value) -> Result<(), String>;
    fn read<T: serde::de::DeserializeOwned>(body: Value) -> Result<(), String> {
        serde_json::from_value::<T>(body)
            .map(drop)
            .map_err(|error| error.to_string())
    }
    let cases: [(&str, Read); 10] = [
        ("go-scm/user.json", read::<User>),
        ("go-scm/repo.json", read::<Repository>),
        ("danger/repo_response.json", read::<Repository>),
        ("octokit-fixtures/get-repository.json", read::<Repository>),
        ("go-scm/branch.json", read::<Branch>),
        ("go-scm/pr.json", read::<PullRequest>),
        ("go-scm/pulls.json", read::<Vec<PullRequest>>),
        ("danger/pr_response.json", read::<PullRequest>),
        ("octocrab/pull_requests_list.json", read::<Vec<PullRequest>>),
        (
            "octokit.rb/with_draft_argument.creates_a_draft_pull_request.json",
            read::<PullRequest>,
        ),
    ];
    for (file, read) in cases {
        let Some(body) = recordings::fixture(&format!("github/fixtures/{file}")) else {
            return;
        };
        read(body.clone()).unwrap_or_else(|error| panic!("{file}: {error}"));
        for changed in mutations(&body) {
            let _ = read(changed);
        }
    }
}

#[tokio::test]
async fn no_broken_answer_panics_or_brings_the_token_into_an_error() {
    let Some(exchanges) = recordings::exchanges("github/recorded-api.github.com.jsonl") else {
        return;
    };
    let of = |route: &str| {
        let found = exchanges
            .iter()
            .find(|one| one.route == route && one.method == "GET" && one.status == 200);
        found.unwrap_or_else(|| panic!("no {route}")).body.clone()
    };
    let mut whole: Vec<Value> = vec![
        of("/user"),
        of("/repos/O/R"),
        of("/repos/O/R/branches/X"),
        pull(5, 7, TOKEN),
    ];
    for body in &mut whole {
        // Whatever is repeated in an error could be the token.
        if let Some(fields) = body.as_object_mut() {
            for name in ["login", "full_name", "state", "name", "default_branch"] {
                if fields.contains_key(name) {
                    fields.insert(name.to_owned(), json!(format!("{TOKEN}/..")));
                }
            }
        }
    }
    let body = Arc::new(Mutex::new(Value::Null));
    let current = Arc::clone(&body);
    let fake = Fake::start(move |_, _| Reply::json(200, &current.lock().unwrap())).await;
    let forge = github(&fake);
    let branch = "main".parse().unwrap();
    let mut errors = 0;
    for one in &whole {
        for changed in mutations(one).into_iter().step_by(5) {
            *body.lock().unwrap() = changed;
            for error in [
                forge.token().await.err(),
                forge.project(&path("o/r")).await.err(),
                forge.branch_head(&facts(), &branch).await.err(),
                forge.change_request(&facts(), 5, None).await.err(),
            ]
            .into_iter()
            .flatten()
            {
                errors += 1;
                assert!(!format!("{error} {error:?}").contains(TOKEN), "{error}");
            }
        }
    }
    assert!(errors > 300, "{errors}");
}
