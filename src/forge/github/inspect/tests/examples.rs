//! What is understood of GitHub's answers: recorded traffic, what other projects keep as examples, and what a broken forge could make of them.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::super::*;
use super::{facts, github};
use crate::forge::fake::{Fake, Reply, TOKEN, path};
use crate::forge::recordings::{self, mutations};
use crate::secret::Mask;

/// Reads a body as whatever answers of this route are, and gives back all the text that would be shown.
fn shown(route: &str, body: Value) -> Option<Result<String, String>> {
    let mask = Mask::default();
    let project = path("o/r");
    fn rows<T: DeserializeOwned>(body: Value) -> Result<Vec<T>, String> {
        let list = if body.is_array() { body } else { json!([body]) };
        serde_json::from_value(list).map_err(|error| error.to_string())
    }
    fn all<T: DeserializeOwned>(body: Value, show: impl Fn(&T) -> String) -> Result<String, String> {
        Ok(rows(body)?.iter().map(show).collect())
    }
    Some(match route {
        "pulls" => all(body, |row: &Pull| {
            format!("{:?}", row.details("https://h", (&project, "7"), String::new(), &mask))
        }),
        "issues" => all(body, |row: &Issue| {
            format!("{:?}", row.details("https://h", &project, &mask))
        }),
        "search" => serde_json::from_value::<Found>(body)
            .map(|found| {
                let rows = found
                    .items
                    .iter()
                    .map(|row| format!("{:?}", row.details("https://h", &project, &mask)));
                rows.collect()
            })
            .map_err(|error| error.to_string()),
        "comments" => all(body, |row: &Comment| format!("{:?}", row.note(&mask))),
        "reviews" => rows::<Review>(body).map(|rows| format!("{:?}", talk::conversation(&[], &rows, &[], &mask))),
        "files" => {
            rows::<FileRow>(body).map(|rows| rows.into_iter().map(|row| format!("{:?}", row.file(&mask))).collect())
        }
        "repositories" => rows::<RepositoryRow>(body).map(|rows| {
            let rows = rows
                .into_iter()
                .map(|row| format!("{:?}", row.summary(None, "https://h", &mask)));
            rows.collect()
        }),
        "installed" => all(body, |row: &Installed| format!("{:?}", row.repositories)),
        _ => return None,
    })
}

/// What kind of answer a recorded route gives.
fn kind(route: &str) -> &'static str {
    match route {
        "/repos/O/R/pulls" | "/repos/O/R/pulls/N" => "pulls",
        "/repos/O/R/issues" | "/repos/O/R/issues/N" => "issues",
        "/repos/O/R/issues/N/comments" | "/repos/O/R/issues/comments/N" => "comments",
        "/user/repos" | "/repos/O/R" | "/repos/O/R/forks" => "repositories",
        _ => "",
    }
}

#[test]
fn every_recorded_answer_is_read_and_no_change_of_it_panics() {
    let Some(exchanges) = recordings::exchanges("github/recorded-api.github.com.jsonl") else {
        return;
    };
    let (mut read, mut changed) = (0, std::collections::BTreeMap::<String, usize>::new());
    for exchange in exchanges.into_iter().filter(|exchange| exchange.status < 300) {
        let route = kind(&exchange.route);
        let Some(result) = shown(route, exchange.body.clone()) else {
            continue;
        };
        result.unwrap_or_else(|error| panic!("{} {}: {error}", exchange.method, exchange.url));
        read += 1;
        let tried = changed.entry(exchange.route.clone()).or_default();
        if *tried < 1 {
            *tried += 1;
            for body in mutations(&exchange.body) {
                if let Some(Ok(text)) = shown(route, body) {
                    assert!(!text.contains('\u{0}') && !text.contains('\u{202e}'), "{text}");
                }
            }
        }
    }
    assert!(read > 50, "only {read} were read");
}

#[test]
fn every_example_of_other_projects_is_read() {
    for (file, route) in [
        ("danger/inline_comments.json", "comments"),
        ("danger/inline_comments_pr_diff_files.json", "files"),
        ("danger/issue_comments.json", "comments"),
        ("danger/issue_response.json", "issues"),
        ("danger/pr_response.json", "pulls"),
        ("danger/pr_reviews_response.json", "reviews"),
        ("danger/repo_response.json", "repositories"),
        ("go-scm/github_app_repos.json", "installed"),
        ("go-scm/issue.json", "issues"),
        ("go-scm/issue_comments.json", "comments"),
        ("go-scm/issues.json", "issues"),
        ("go-scm/pr.json", "pulls"),
        ("go-scm/pr_comments.json", "comments"),
        ("go-scm/pr_files.json", "files"),
        ("go-scm/pulls.json", "pulls"),
        ("go-scm/repo.json", "repositories"),
        ("octocrab/get_pull_request_review.json", "reviews"),
        ("octocrab/get_pull_request_review_comments.json", "comments"),
        ("octocrab/pull_request_review_comment.json", "comments"),
        ("octocrab/pull_requests_list.json", "pulls"),
        ("octokit-fixtures/search-issues.json", "search"),
        ("octokit.rb/_issue.returns_an_issue.json#2", "issues"),
        (
            "octokit.rb/_issue_comments.returns_comments_for_an_issue.json",
            "comments",
        ),
        (
            "octokit.rb/_pull_request_comments.returns_the_comments_for_a_pull_request.json",
            "comments",
        ),
        (
            "octokit.rb/_pull_request_files.lists_files_for_a_pull_request.json",
            "files",
        ),
        (
            "octokit.rb/_pull_request_review_comments.returns_all_comments_for_a_single_review.json",
            "comments",
        ),
        (
            "octokit.rb/_pull_request_reviews.returns_a_list_of_all_pull_request_reviews.json",
            "reviews",
        ),
        (
            "octokit.rb/with_draft_argument.creates_a_draft_pull_request.json",
            "pulls",
        ),
    ] {
        let Some(body) = recordings::fixture(&format!("github/fixtures/{file}")) else {
            return;
        };
        match shown(route, body.clone()) {
            Some(Ok(text)) => assert!(!text.is_empty() || body == serde_json::json!([]), "{file}"),
            other => panic!("{file}: {other:?}"),
        }
        for changed in mutations(&body) {
            let _ = shown(route, changed);
        }
    }
}

#[tokio::test]
async fn no_broken_answer_brings_the_token_into_an_error() {
    let body = Arc::new(Mutex::new(Value::Null));
    let current = Arc::clone(&body);
    let fake = Fake::start(move |_, _| Reply::json(200, &current.lock().unwrap())).await;
    let forge = github(&fake);
    let (project, page) = (facts(), PageRequest::default());
    let whole = json!({"number": TOKEN, "title": TOKEN, "user": {"login": TOKEN}, "labels": [TOKEN], "head": {"sha": TOKEN},
        "body": format!("see {TOKEN}"), "changed_files": TOKEN, "mergeable_state": TOKEN});
    for changed in mutations(&whole)
        .into_iter()
        .chain([whole.clone(), json!(TOKEN), json!([{"body": TOKEN}])])
    {
        *body.lock().unwrap() = changed;
        let texts = [
            format!("{:?}", forge.change_request_details(&project, 5).await),
            format!("{:?}", forge.discussions(&project, 5, page).await),
            format!("{:?}", forge.issue(&project, 5).await),
            format!("{:?}", forge.projects(None, page).await),
        ];
        for text in texts {
            assert!(!text.contains(TOKEN), "{text}");
        }
    }
}
