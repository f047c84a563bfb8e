//! Tests of reading and answering on GitHub: scripted servers for what is asked, recorded traffic and examples for what is understood.

mod examples;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::forge::Forge;
use crate::forge::fake::{Fake, Reply, client, path};
use crate::forge::inspect::SourceRepository;
use crate::message::ForgeKind;

const SHA: &str = "0123456789012345678901234567890123456789";

fn github(fake: &Fake) -> Arc<dyn Forge> {
    client(ForgeKind::Github, &fake.url)
}

fn facts() -> ProjectFacts {
    ProjectFacts {
        id: "7".to_owned(),
        path: path("o/r"),
        default_branch: None,
        clone_url: String::new(),
        web_url: String::new(),
        may_push: true,
        archived: false,
        visibility: crate::forge::Visibility::Private,
    }
}

fn pull(number: u64, state: &str, merged: bool) -> Value {
    json!({"number": number, "title": "T", "state": state, "merged_at": merged.then_some("2026-01-01T00:00:00Z"), "user": {"login": "ann"},
           "head": {"ref": "f", "sha": SHA, "repo": {"id": 7}}, "base": {"ref": "main", "sha": SHA, "repo": {"id": 7}}})
}

fn issue(number: u64, is_pull: bool) -> Value {
    let mut row = json!({"number": number, "title": "T", "state": "open", "user": {"login": "ann"}, "labels": [{"name": "Bug"}],
                         "repository_url": "https://h/api/v3/repos/o/r"});
    if is_pull {
        row["pull_request"] = json!({"url": "https://h/x"});
    }
    row
}

fn missing() -> Reply {
    Reply::json(404, &json!({"message": "Not Found"}))
}

fn page_of(target: &str) -> u32 {
    let url = Url::parse(&format!("http://h{target}")).unwrap();
    url.query_pairs()
        .find(|(name, _)| name == "page")
        .unwrap()
        .1
        .parse()
        .unwrap()
}

#[tokio::test]
async fn pull_requests_among_the_issues_are_left_out_and_pages_stay_right() {
    let fake = Fake::start(|seen, _| {
        let page = page_of(&seen.target);
        let rows = match page {
            1 => json!([issue(9, true), issue(8, true)]),
            2 => json!([issue(7, true), issue(6, false)]),
            _ => json!([issue(5, false)]),
        };
        let reply = Reply::json(200, &rows);
        if page < 3 {
            reply.with(
                "link",
                format!("</api/v3/repositories/7/issues?page={}>; rel=\"next\"", page + 1),
            )
        } else {
            reply
        }
    })
    .await;
    let query = IssueQuery {
        author: Some("Ann".to_owned()),
        labels: vec!["bug".to_owned()],
        ..IssueQuery::default()
    };
    let first = github(&fake).issues(&facts(), &query).await.unwrap();
    assert_eq!(
        (first.items[0].number, first.items.len(), first.next_page),
        (6, 1, Some(3))
    );
    let asked = &fake.seen()[0].target;
    assert!(asked.contains("creator=Ann") && asked.contains("labels=bug"), "{asked}");
    let query = IssueQuery {
        page: PageRequest { page: 3, per_page: 2 },
        ..query
    };
    let last = github(&fake).issues(&facts(), &query).await.unwrap();
    assert_eq!((last.items[0].number, last.next_page), (5, None));
}

#[tokio::test]
async fn a_number_of_the_other_kind_is_not_found_and_says_which_it_is() {
    let fake = Fake::start(|seen, _| match seen.line().as_str() {
        "GET /api/v3/repos/o/r/issues/5" => Reply::json(200, &issue(5, false)),
        "GET /api/v3/repos/o/r/issues/6" => Reply::json(200, &issue(6, true)),
        "GET /api/v3/repos/o/r/issues/5/comments" => Reply::json(200, &json!([])),
        _ => missing(),
    })
    .await;
    let (forge, project, page) = (github(&fake), facts(), PageRequest::default());
    for error in [
        forge.change_request_details(&project, 5).await.unwrap_err(),
        forge.change_request_diff(&project, 5, page).await.unwrap_err(),
        forge.discussions(&project, 5, page).await.unwrap_err(),
        forge.reply(&project, 5, None, "x").await.unwrap_err(),
    ] {
        assert!(matches!(error, ForgeError::NotFound { .. }), "{error}");
        assert!(error.to_string().contains("number 5 is an issue there"), "{error}");
    }
    for error in [
        forge.issue(&project, 6).await.unwrap_err(),
        forge.issue_comments(&project, 6, page).await.unwrap_err(),
        forge.comment_on_issue(&project, 6, "x").await.unwrap_err(),
    ] {
        assert!(matches!(error, ForgeError::NotFound { .. }), "{error}");
        assert!(
            error.to_string().contains("number 6 is a pull request there"),
            "{error}"
        );
    }
    let error = forge.change_request_details(&project, 99).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the pull request #99 of o/r does not exist"),
        "{error}"
    );
    assert!(
        !fake.lines().iter().any(|line| line.starts_with("POST")),
        "nothing was written to the wrong one"
    );
}

#[tokio::test]
async fn an_issue_that_was_moved_to_another_repository_is_not_read_there() {
    let fake = Fake::start(|seen, _| match seen.line().as_str() {
        "GET /api/v3/repos/o/r/issues/5" => Reply::text(301, "{}").with("location", "/api/v3/repositories/8/issues/9"),
        "GET /api/v3/repos/o/r/issues/6" => Reply::text(301, "{}").with("location", "/api/v3/repositories/8/issues/6"),
        "GET /api/v3/repositories/8/issues/9" | "GET /api/v3/repositories/8/issues/6" => {
            let number = if seen.target.ends_with('9') { 9 } else { 6 };
            let mut moved = issue(number, false);
            moved["repository_url"] = json!("https://h/api/v3/repos/o/private");
            moved["body"] = json!("not of this session");
            Reply::json(200, &moved)
        }
        line if line.ends_with("/comments") => Reply::json(200, &json!([{"id": 1, "body": "not of this session"}])),
        _ => missing(),
    })
    .await;
    let (forge, project, page) = (github(&fake), facts(), PageRequest::default());
    for number in [5, 6] {
        for error in [
            forge.issue(&project, number).await.unwrap_err(),
            forge.issue_comments(&project, number, page).await.unwrap_err(),
            forge.comment_on_issue(&project, number, "x").await.unwrap_err(),
        ] {
            assert!(matches!(error, ForgeError::NotFound { .. }), "{error}");
            assert!(error.to_string().contains("moved to another repository"), "{error}");
        }
    }
    assert!(!fake.lines().iter().any(|line| line.ends_with("/comments")));
}

#[tokio::test]
async fn merged_and_closed_are_told_apart() {
    let fake = Fake::start(|_, _| {
        Reply::json(
            200,
            &json!([
                pull(1, "closed", true),
                pull(2, "closed", false),
                pull(3, "open", false)
            ]),
        )
    })
    .await;
    for (state, sent, expected) in [
        (State::Open, "state=open", vec![(3, "open")]),
        (State::Merged, "state=closed", vec![(1, "merged")]),
        (State::Closed, "state=closed", vec![(2, "closed")]),
        (State::All, "state=all", vec![(1, "merged"), (2, "closed"), (3, "open")]),
    ] {
        let query = ChangeRequestQuery {
            state,
            source_branch: Some("f".to_owned()),
            ..ChangeRequestQuery::default()
        };
        let page = github(&fake).change_requests(&facts(), &query).await.unwrap();
        let rows: Vec<_> = page.items.iter().map(|row| (row.number, row.state.as_str())).collect();
        assert_eq!(rows, expected);
        let asked = fake.seen().last().unwrap().target.clone();
        assert!(asked.contains(sent) && asked.contains("head=o%3Af"), "{asked}");
    }
}

#[tokio::test]
async fn a_search_stays_in_its_repository_whatever_its_words_are() {
    let fake = Fake::start(|seen, _| match seen.line().as_str() {
        "GET /api/v3/search/issues" => {
            let mut foreign = issue(4, true);
            foreign["repository_url"] = json!("https://h/api/v3/repos/o/private");
            Reply::json(
                200,
                &json!({"total_count": 3, "items": [issue(1, true), foreign, issue(2, false)]}),
            )
            .with("link", "</api/v3/search/issues?q=x&page=2>; rel=next")
        }
        "GET /api/v3/repos/o/r/pulls/1" => Reply::json(200, &pull(1, "open", false)),
        _ => missing(),
    })
    .await;
    let hostile = Some("login\" repo:o/private \"x OR is:issue".to_owned());
    let query = ChangeRequestQuery {
        text: hostile.clone(),
        author: Some("ann".to_owned()),
        ..ChangeRequestQuery::default()
    };
    let page = github(&fake).change_requests(&facts(), &query).await.unwrap();
    assert_eq!(
        (page.items.len(), page.items[0].number, page.next_page),
        (1, 1, Some(2))
    );
    assert_eq!(
        page.items[0].source_branch, "f",
        "the branches are those of the pull request itself"
    );
    let url = Url::parse(&format!("http://h{}", fake.seen()[0].target)).unwrap();
    let sent = url.query_pairs().find(|(name, _)| name == "q").unwrap().1.into_owned();
    assert_eq!(
        sent,
        r#"repo:o/r is:pr is:open author:ann "login" "repo:o/private" "x" "OR" "is:issue""#
    );
    let query = IssueQuery {
        text: hostile,
        ..IssueQuery::default()
    };
    let page = github(&fake).issues(&facts(), &query).await.unwrap();
    assert_eq!(page.items.iter().map(|row| row.number).collect::<Vec<_>>(), [2]);
    let nobody = ChangeRequestQuery {
        author: Some("a b".to_owned()),
        ..ChangeRequestQuery::default()
    };
    let asked = fake.seen().len();
    assert!(
        github(&fake)
            .change_requests(&facts(), &nobody)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(fake.seen().len(), asked);
}

#[tokio::test]
async fn details_join_checks_and_statuses() {
    for (runs, statuses, expected) in [
        (
            Some(json!({"total_count": 1, "check_runs": [{"status": "completed", "conclusion": "success"}]})),
            Some(json!({"state": "pending", "total_count": 0})),
            "success",
        ),
        (
            Some(json!({"total_count": 0, "check_runs": []})),
            Some(json!({"state": "pending", "total_count": 0})),
            "none",
        ),
        (None, Some(json!({"state": "failure", "total_count": 2})), "failed"),
        (None, None, "unknown"),
    ] {
        let fake = Fake::start(move |seen, _| {
            let told = |answer: &Option<Value>| match answer {
                Some(answer) => Reply::json(200, answer),
                None => Reply::json(
                    403,
                    &json!({"message": "Resource not accessible by personal access token"}),
                ),
            };
            match seen.line().rsplit('/').next().unwrap() {
                "check-runs" => told(&runs),
                "status" => told(&statuses),
                _ => {
                    let mut whole = pull(5, "open", false);
                    whole["mergeable_state"] = json!("clean");
                    whole["changed_files"] = json!(3);
                    whole["requested_reviewers"] = json!([{"login": "bob"}, null]);
                    whole["requested_reviewers"] = json!([{"login": "bob"}]);
                    Reply::json(200, &whole)
                }
            }
        })
        .await;
        let details = github(&fake).change_request_details(&facts(), 5).await.unwrap();
        assert_eq!(details.pipeline, expected);
        assert_eq!(
            (details.merge_status.as_str(), details.changed_files),
            ("mergeable", Some(3))
        );
        assert_eq!(
            (details.head.as_deref(), details.reviewers),
            (Some(SHA), vec!["bob".to_owned()])
        );
        assert_eq!(fake.seen().len(), 3);
    }
}

#[tokio::test]
async fn pitfall_32_a_head_repository_that_is_gone_is_its_own_state() {
    for (repository, expected) in [
        (json!({"id": 7}), SourceRepository::Same),
        (json!({"id": 8}), SourceRepository::Fork),
        (json!({}), SourceRepository::Unknown),
        (json!(null), SourceRepository::Unknown),
    ] {
        let mut whole = pull(5, "open", false);
        whole["head"]["repo"] = repository;
        whole["head"]["sha"] = json!("not a commit/../..");
        let fake = Fake::start(move |_, _| Reply::json(200, &whole)).await;
        let details = github(&fake).change_request_details(&facts(), 5).await.unwrap();
        assert_eq!(details.source_repository, expected);
        assert_eq!((details.head, details.pipeline.as_str()), (None, "unknown"));
        assert_eq!(fake.seen().len(), 1);
    }
}

#[tokio::test]
async fn pitfall_29_a_truncated_list_of_files_is_never_the_whole() {
    let file = |n: usize| json!({"filename": format!("f{n}"), "status": "modified", "additions": 1, "deletions": 1, "patch": "@@ -1 +1 @@\n-a\n+b"});
    for (files, counted, next, expected) in [
        (vec![file(1), file(2)], json!(2), false, true),
        (vec![file(1), file(2)], json!(3001), false, false),
        (vec![file(1), file(2)], json!(null), false, false),
        (vec![file(1), file(2)], json!(9), true, true),
        (
            vec![json!({"filename": "big", "status": "modified", "additions": 9000, "deletions": 0})],
            json!(1),
            false,
            false,
        ),
    ] {
        let fake = Fake::start(move |seen, _| match seen.line().as_str() {
            "GET /api/v3/repos/o/r/pulls/5/files" if next => {
                Reply::json(200, &json!(files)).with("link", "</api/v3/repositories/7/pulls/5/files?page=2>; rel=next")
            }
            "GET /api/v3/repos/o/r/pulls/5/files" => Reply::json(200, &json!(files)),
            _ => Reply::json(200, &json!({"number": 5, "changed_files": counted})),
        })
        .await;
        let diff = github(&fake)
            .change_request_diff(&facts(), 5, PageRequest::default())
            .await
            .unwrap();
        assert_eq!(
            (diff.complete, diff.files.next_page.is_some()),
            (expected, next),
            "{diff:?}"
        );
    }
}

#[tokio::test]
async fn the_conversation_is_read_from_three_routes() {
    let fake = Fake::start(|seen, _| match seen.line().as_str() {
        "GET /api/v3/repos/o/r/pulls/5/reviews" => Reply::json(
            200,
            &json!([{"id": 1, "state": "APPROVED", "body": "", "submitted_at": "2026-01-03T00:00:00Z", "user": {"login": "ann"}}]),
        ),
        "GET /api/v3/repos/o/r/pulls/5/comments" => {
            Reply::json(200, &json!([{"id": 2, "body": "x", "path": "a.rs", "line": 3, "created_at": "2026-01-02T00:00:00Z"}]))
                .with("link", "</api/v3/repositories/7/pulls/5/comments?page=2>; rel=next")
        }
        "GET /api/v3/repos/o/r/issues/5/comments" => {
            Reply::json(200, &json!([{"id": 3, "body": "y", "created_at": "2026-01-01T00:00:00Z", "user": null}]))
        }
        _ => missing(),
    })
    .await;
    let page = github(&fake)
        .discussions(&facts(), 5, PageRequest::default())
        .await
        .unwrap();
    let kinds: Vec<_> = page.items.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds, ["comment", "review_comment", "review"]);
    assert_eq!(page.next_page, Some(2));
    assert_eq!(page.items[2].notes[0].verdict.as_deref(), Some("approved"));
}

#[tokio::test]
async fn answers_go_to_the_thread_or_the_conversation() {
    let fake = Fake::start(|seen, _| match seen.line().as_str() {
        "GET /api/v3/repos/o/r/pulls/5" => Reply::json(200, &pull(5, "open", false)),
        "GET /api/v3/repos/o/r/issues/6" => Reply::json(200, &issue(6, false)),
        line if line.starts_with("POST") => Reply::json(
            201,
            &json!({"id": 9, "body": seen.body["body"], "user": {"login": "ann"}}),
        ),
        _ => missing(),
    })
    .await;
    let forge = github(&fake);
    forge.reply(&facts(), 5, Some("12"), "x").await.unwrap();
    let note = forge
        .reply(&facts(), 5, None, &"long line\n".repeat(20_000))
        .await
        .unwrap();
    assert!(
        note.body.contains("Cut here") || note.body.contains("cut here"),
        "{}",
        note.body.len()
    );
    forge.comment_on_issue(&facts(), 6, "z").await.unwrap();
    let posts: Vec<_> = fake
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("POST"))
        .collect();
    assert_eq!(
        posts,
        [
            "POST /api/v3/repos/o/r/pulls/5/comments/12/replies",
            "POST /api/v3/repos/o/r/issues/5/comments",
            "POST /api/v3/repos/o/r/issues/6/comments",
        ]
    );
    let sent = fake
        .seen()
        .iter()
        .filter_map(|seen| seen.body["body"].as_str().map(str::len))
        .max();
    assert!(sent.unwrap() <= LONGEST_BODY);
    for bad in ["", "x", "1/../2", "-1"] {
        let error = forge.reply(&facts(), 5, Some(bad), "x").await.unwrap_err();
        assert!(matches!(error, ForgeError::NotFound { .. }), "{error}");
    }
}

#[tokio::test]
async fn repositories_are_searched_page_by_page_and_installations_have_their_own_list() {
    let fake = Fake::start(|seen, _| {
        let page = page_of(&seen.target);
        let rows: Vec<Value> = (0..100)
            .map(|n| json!({"full_name": format!("o/p{}", page * 1000 + n)}))
            .collect();
        Reply::json(200, &json!(rows)).with("link", format!("</api/v3/user/repos?page={}>; rel=next", page + 1))
    })
    .await;
    let first = github(&fake).projects(None, PageRequest::default()).await.unwrap();
    assert_eq!((first.items.len(), first.next_page), (100, Some(2)));
    let found = github(&fake)
        .projects(Some(" O/P3042 "), PageRequest::default())
        .await
        .unwrap();
    assert_eq!((found.items[0].path.as_str(), found.next_page), ("o/p3042", Some(4)));
    let asked = fake.seen();
    assert_eq!(asked.len(), 1 + 3);
    assert!(asked[1].target.contains("per_page=100"));

    let fake = Fake::start(|seen, _| match seen.line().as_str() {
        "GET /api/v3/installation/repositories" => Reply::json(
            200,
            &json!({"total_count": 1, "repositories": [{"full_name": "o/r"}, {"full_name": "../x"}]}),
        ),
        _ => Reply::json(403, &json!({"message": "Resource not accessible by integration"})),
    })
    .await;
    let page = github(&fake).projects(None, PageRequest::default()).await.unwrap();
    assert_eq!(
        page.items.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(),
        ["o/r"]
    );
}
