//! Tests of reading and answering on GitLab: scripted servers for what is asked, recorded traffic and examples for what is understood.

mod examples;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::forge::Forge;
use crate::forge::fake::{Fake, Reply, client, path};
use crate::message::ForgeKind;

fn gitlab(fake: &Fake) -> Arc<dyn Forge> {
    client(ForgeKind::Gitlab, &fake.url)
}

fn facts() -> ProjectFacts {
    ProjectFacts {
        id: "7".to_owned(),
        path: path("a/b"),
        default_branch: None,
        clone_url: String::new(),
        web_url: String::new(),
        may_push: true,
        archived: false,
        visibility: crate::forge::Visibility::Private,
    }
}

fn row(iid: u64, state: &str, author: &str, source: &str) -> Value {
    json!({"iid": iid, "title": format!("No {iid}\u{200b}"), "state": state, "author": {"username": author}, "source_branch": source,
           "target_branch": "main", "source_project_id": 7, "draft": false, "created_at": "2026-01-01T00:00:00.000Z",
           "updated_at": "2026-01-02T00:00:00.000Z", "web_url": format!("https://h/a/b/-/merge_requests/{iid}")})
}

#[tokio::test]
async fn filters_that_the_forge_ignores_are_applied_again() {
    let fake = Fake::start(|_, _| {
        Reply::json(
            200,
            &json!([
                row(1, "opened", "ann", "f"),
                row(2, "merged", "ann", "f"),
                row(3, "opened", "bob", "f"),
                row(4, "opened", "Ann", "g"),
                {"iid": 5, "state": "opened", "author": null, "source_branch": "f", "target_branch": "main"},
            ]),
        )
    })
    .await;
    let query = ChangeRequestQuery {
        author: Some("ann".to_owned()),
        source_branch: Some("f".to_owned()),
        target_branch: Some("main".to_owned()),
        text: Some("fix & run".to_owned()),
        ..ChangeRequestQuery::default()
    };
    let page = gitlab(&fake).change_requests(&facts(), &query).await.unwrap();
    assert_eq!(page.items.iter().map(|row| row.number).collect::<Vec<_>>(), [1]);
    assert_eq!(
        (page.items[0].title.as_str(), page.items[0].state.as_str()),
        ("No 1", "open")
    );
    assert_eq!(page.next_page, None);
    let asked = &fake.seen()[0].target;
    for part in [
        "scope=all",
        "state=opened",
        "author_username=ann",
        "source_branch=f",
        "search=fix+%26+run",
        "page=1",
        "per_page=20",
    ] {
        assert!(asked.contains(part), "{asked}");
    }
    let all = ChangeRequestQuery {
        state: State::All,
        ..ChangeRequestQuery::default()
    };
    let page = gitlab(&fake).change_requests(&facts(), &all).await.unwrap();
    assert_eq!(page.items.len(), 5);
    assert_eq!(page.items[4].author, "", "an account that is gone has no name");
    assert!(
        fake.seen()[1].target.contains("state=all"),
        "the default is never relied on"
    );
}

#[tokio::test]
async fn pages_have_the_forges_numbers_and_empty_ones_are_passed_over() {
    let fake = Fake::start(|seen, _| {
        let number = |target: &str| {
            target
                .split("page=")
                .nth(1)
                .unwrap()
                .split('&')
                .next()
                .unwrap()
                .to_owned()
        };
        match number(&seen.target).as_str() {
            "1" => Reply::json(200, &json!([row(1, "closed", "ann", "f")])).with(
                "link",
                "<http://inner/api/v4/projects/7/merge_requests?page=2>; rel=\"next\"",
            ),
            "2" => Reply::json(200, &json!([row(2, "opened", "ann", "f")])).with("x-next-page", "3"),
            _ => Reply::json(200, &json!([])).with("x-next-page", ""),
        }
    })
    .await;
    let page = gitlab(&fake)
        .change_requests(&facts(), &ChangeRequestQuery::default())
        .await
        .unwrap();
    assert_eq!((page.items[0].number, page.next_page), (2, Some(3)));
    let query = ChangeRequestQuery {
        page: PageRequest {
            page: 3,
            per_page: 9000,
        },
        ..ChangeRequestQuery::default()
    };
    let page = gitlab(&fake).change_requests(&facts(), &query).await.unwrap();
    assert_eq!((page.items.len(), page.next_page), (0, None));
    assert!(fake.seen().last().unwrap().target.contains("per_page=100"));
}

#[tokio::test]
async fn a_list_that_leads_back_or_away_ends() {
    for (link, expected) in [
        ("</api/v4/projects/7/issues?page=1>; rel=next", "leads back"),
        ("<https://evil.example/steal?page=2>; rel=next", "evil.example"),
    ] {
        let fake = Fake::start(move |_, _| Reply::json(200, &json!([])).with("link", link)).await;
        let error = gitlab(&fake)
            .issues(&facts(), &IssueQuery::default())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(fake.seen().len(), 1);
    }
    let fake = Fake::start(|_, before| {
        Reply::json(200, &json!([])).with("link", format!("</api/v4/x?page={}>; rel=next", before + 2))
    })
    .await;
    let page = gitlab(&fake).issues(&facts(), &IssueQuery::default()).await.unwrap();
    assert_eq!((page.items.len(), page.next_page), (0, Some(11)));
    assert_eq!(
        fake.seen().len(),
        10,
        "an endless list of nothing is given back to the caller"
    );
}

#[tokio::test]
async fn details_say_what_is_known_and_unknown_words_stay() {
    let whole = json!({"iid": 5, "title": "T", "description": "a\u{202e}b\n", "state": "of_tomorrow", "work_in_progress": true,
        "author": null, "source_branch": "f", "target_branch": "main", "source_project_id": 7, "sha": "0123", "labels": ["x", {"name": "y"}],
        "diff_refs": {"base_sha": "aaaa", "head_sha": "0123", "start_sha": "bbbb"}, "reviewers": [{"username": "bob"}], "assignees": null,
        "detailed_merge_status": "status_of_tomorrow", "merge_status": "can_be_merged", "head_pipeline": {"status": "success"},
        "changes_count": "17"});
    for (change, look) in [
        (json!({}), ("status_of_tomorrow", "success", Some(17))),
        (
            json!({"detailed_merge_status": null, "head_pipeline": null, "changes_count": "5+"}),
            ("mergeable", "none", None),
        ),
        (
            json!({"detailed_merge_status": "", "merge_status": "cannot_be_merged", "changes_count": null}),
            ("conflict", "success", None),
        ),
    ] {
        let mut body = whole.clone();
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let fake = Fake::start(move |_, _| Reply::json(200, &body)).await;
        let details = gitlab(&fake).change_request_details(&facts(), 5).await.unwrap();
        assert_eq!(
            (
                details.merge_status.as_str(),
                details.pipeline.as_str(),
                details.changed_files
            ),
            look
        );
        assert_eq!(
            (details.summary.state.as_str(), details.summary.draft),
            ("of_tomorrow", true)
        );
        assert_eq!(details.description, "ab\n");
        assert_eq!(
            (details.head.as_deref(), details.base.as_deref()),
            (Some("0123"), Some("aaaa"))
        );
        assert_eq!(
            (details.labels, details.reviewers),
            (vec!["x".into(), "y".into()], vec!["bob".into()])
        );
        assert_eq!(fake.seen().len(), 1);
    }
    let fake = Fake::start(|_, _| Reply::json(200, &json!({"iid": 5}))).await;
    let details = gitlab(&fake).change_request_details(&facts(), 5).await.unwrap();
    assert_eq!(
        details.pipeline, "unknown",
        "a token that may not read pipelines is not told that there is none"
    );
    assert_eq!(details.source_repository, SourceRepository::Unknown);
}

#[tokio::test]
async fn pitfall_32_a_source_project_that_cannot_be_seen_is_its_own_state() {
    for (source, status, expected) in [
        (json!(7), 200, SourceRepository::Same),
        (json!(99), 200, SourceRepository::Fork),
        (json!(99), 404, SourceRepository::Unknown),
        (json!(99), 403, SourceRepository::Unknown),
        (json!(null), 200, SourceRepository::Unknown),
    ] {
        let fake = Fake::start(move |seen, _| match seen.target.as_str() {
            "/api/v4/projects/99" if status == 200 => Reply::json(200, &json!({"path_with_namespace": "x/b"})),
            "/api/v4/projects/99" => Reply::json(status, &json!({"message": "no"})),
            _ => Reply::json(200, &json!({"iid": 5, "source_project_id": source})),
        })
        .await;
        let details = gitlab(&fake).change_request_details(&facts(), 5).await.unwrap();
        assert_eq!(details.source_repository, expected);
    }
}

#[tokio::test]
async fn pitfall_29_a_truncated_diff_is_never_the_whole() {
    let file = |name: &str| json!({"old_path": name, "new_path": name, "diff": "@@ -1 +1 @@\n-a\n+b\n", "collapsed": false, "too_large": false});
    for (count, files, expected) in [
        (json!("1"), json!([file("a")]), true),
        (json!("2"), json!([file("a")]), false),
        (json!("1000+"), json!([file("a")]), false),
        (json!(null), json!([]), false),
        (
            json!("1"),
            json!([{"new_path": "a", "diff": "", "collapsed": true, "too_large": false}]),
            false,
        ),
    ] {
        let fake = Fake::start(move |seen, _| match seen.line().as_str() {
            "GET /api/v4/projects/7/merge_requests/5/diffs" => Reply::json(200, &files),
            _ => Reply::json(200, &json!({"iid": 5, "changes_count": count})),
        })
        .await;
        let diff = gitlab(&fake)
            .change_request_diff(&facts(), 5, PageRequest::default())
            .await
            .unwrap();
        assert_eq!(diff.complete, expected, "{diff:?}");
    }
}

#[tokio::test]
async fn servers_without_paged_diffs_give_the_whole_with_its_overflow() {
    for (overflow, expected) in [(json!(false), true), (json!(true), false), (json!(null), true)] {
        let fake = Fake::start(move |seen, _| match seen.line().as_str() {
            "GET /api/v4/projects/7/merge_requests/5/changes" => {
                let file = json!({"old_path": "a", "new_path": "a", "diff": "@@ -1 +1 @@\n-a\n+b\n"});
                Reply::json(200, &json!({"changes": [file, file, file], "overflow": overflow}))
            }
            _ => Reply::json(404, &json!({"error": "404 Not Found"})),
        })
        .await;
        let page = |page| PageRequest { page, per_page: 2 };
        let first = gitlab(&fake).change_request_diff(&facts(), 5, page(1)).await.unwrap();
        assert_eq!(
            (first.files.items.len(), first.files.next_page, first.complete),
            (2, Some(2), expected)
        );
        let last = gitlab(&fake).change_request_diff(&facts(), 5, page(2)).await.unwrap();
        assert_eq!((last.files.items.len(), last.files.next_page), (1, None));
        let beyond = gitlab(&fake).change_request_diff(&facts(), 5, page(99)).await.unwrap();
        assert_eq!((beyond.files.items.len(), beyond.files.next_page), (0, None));
    }
    let fake = Fake::start(|_, _| Reply::json(404, &json!({"message": "404 Not found"}))).await;
    let error = gitlab(&fake)
        .change_request_diff(&facts(), 5, PageRequest::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("the merge request !5 of a/b"), "{error}");
}

#[tokio::test]
async fn discussions_keep_system_notes_marked_and_places_on_the_diff() {
    let fake = Fake::start(|_, _| {
        Reply::json(
            200,
            &json!([
                {"id": "aa11", "individual_note": true, "notes": [{"id": 1, "body": "changed the title", "system": true, "author": {"username": "ann"}}]},
                {"id": "bb22", "individual_note": true, "notes": [{"id": 2, "body": "hello", "author": null}]},
                {"id": "cc33", "individual_note": false, "notes": [
                    {"id": 3, "body": "why?", "resolvable": true, "resolved": true, "position": {"new_path": "a.rs", "old_path": "b.rs", "new_line": null, "old_line": 5}},
                    {"id": 4, "body": "so", "resolvable": true, "resolved": false, "position": {"position_type": "image", "new_path": "x.png"}},
                ]},
                {"id": null, "notes": null},
            ]),
        )
    })
    .await;
    let page = gitlab(&fake)
        .discussions(&facts(), 5, PageRequest::default())
        .await
        .unwrap();
    let seen: Vec<_> = page
        .items
        .iter()
        .map(|one| (one.kind.as_str(), one.id.as_deref(), one.resolved))
        .collect();
    assert_eq!(
        seen,
        [
            ("comment", None, None),
            ("comment", Some("bb22"), None),
            ("discussion", Some("cc33"), Some(false)),
            ("discussion", None, None),
        ]
    );
    assert!(page.items[0].notes[0].system && !page.items[1].notes[0].system);
    let places: Vec<_> = page.items[2]
        .notes
        .iter()
        .map(|note| (note.path.as_deref(), note.line))
        .collect();
    assert_eq!(places, [(Some("a.rs"), Some(5)), (Some("x.png"), None)]);
}

#[tokio::test]
async fn tasks_and_incidents_are_no_issues() {
    let issue = |iid: u64, kind: Value, labels: Value| json!({"iid": iid, "state": "opened", "issue_type": kind, "labels": labels, "author": {"username": "ann"}});
    let fake = Fake::start(move |seen, _| match seen.line().as_str() {
        "GET /api/v4/projects/7/issues/2" => Reply::json(200, &issue(2, json!("incident"), json!([]))),
        "GET /api/v4/projects/7/issues" => Reply::json(
            200,
            &json!([
                issue(1, json!("issue"), json!(["bug", "x"])),
                issue(2, json!("incident"), json!(["bug"])),
                issue(3, json!(null), json!(["bug"])),
                issue(4, json!("task"), json!(["bug"])),
                issue(5, json!("issue"), json!(["Bug"])),
            ]),
        ),
        _ => Reply::json(404, &json!({"message": "404 Not found"})),
    })
    .await;
    let query = IssueQuery {
        labels: vec!["bug".to_owned()],
        ..IssueQuery::default()
    };
    let page = gitlab(&fake).issues(&facts(), &query).await.unwrap();
    assert_eq!(page.items.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 3]);
    assert!(fake.seen()[0].target.contains("issue_type=issue"));
    let error = gitlab(&fake).issue(&facts(), 2).await.unwrap_err();
    assert!(
        error.to_string().contains("number 2 is of the type incident"),
        "{error}"
    );
    let merged = IssueQuery {
        state: State::Merged,
        ..IssueQuery::default()
    };
    let asked = fake.seen().len();
    assert_eq!(gitlab(&fake).issues(&facts(), &merged).await.unwrap().items.len(), 0);
    assert_eq!(fake.seen().len(), asked);
}

#[tokio::test]
async fn comments_come_oldest_first_and_answers_are_no_commands() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "POST" => Reply::json(
            201,
            &json!({"id": 9, "body": seen.body["body"], "author": {"username": "ann"}}),
        ),
        _ => Reply::json(
            200,
            &json!([{"id": 1, "body": "first"}, {"id": 2, "body": null, "system": true}]),
        ),
    })
    .await;
    let forge = gitlab(&fake);
    let notes = forge.issue_comments(&facts(), 3, PageRequest::default()).await.unwrap();
    assert_eq!(notes.items.len(), 2);
    assert!(fake.seen()[0].target.contains("sort=asc"));
    let body = "fine\n/merge\n  /close now\r\n\r/approve\nsee /etc";
    let note = forge.reply(&facts(), 5, Some("aa11"), body).await.unwrap();
    assert_eq!(note.id, "9");
    forge.reply(&facts(), 5, None, "x").await.unwrap();
    forge.comment_on_issue(&facts(), 3, "/close").await.unwrap();
    assert_eq!(
        fake.lines()[1..],
        [
            "POST /api/v4/projects/7/merge_requests/5/discussions/aa11/notes",
            "POST /api/v4/projects/7/merge_requests/5/notes",
            "POST /api/v4/projects/7/issues/3/notes",
        ]
    );
    let sent = fake.seen()[1].body["body"].as_str().unwrap().to_owned();
    assert_eq!(sent, "fine\n\\/merge\n  \\/close now\n\r\\/approve\nsee /etc");
    assert_eq!(fake.seen()[3].body["body"], "\\/close");
    for bad in ["", "../../issues/1", "aa 11", &"a".repeat(65)] {
        let error = forge.reply(&facts(), 5, Some(bad), "x").await.unwrap_err();
        assert!(matches!(error, ForgeError::NotFound { .. }), "{error}");
    }
    assert_eq!(fake.seen().len(), 4);
}

#[tokio::test]
async fn answers_are_written_once() {
    let fake = Fake::start(|_, _| Reply::text(502, "no")).await;
    let error = gitlab(&fake).reply(&facts(), 5, None, "x").await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn ten_thousand_projects_come_a_page_at_a_time() {
    let fake = Fake::start(|seen, _| {
        let url = url::Url::parse(&format!("http://h{}", seen.target)).unwrap();
        let value = |name: &str| {
            url.query_pairs()
                .find(|(key, _)| key == name)
                .unwrap()
                .1
                .parse::<u32>()
                .unwrap()
        };
        let (page, size) = (value("page"), value("per_page"));
        let rows: Vec<Value> = ((page - 1) * size..(page * size).min(10_000))
            .map(|n| json!({"id": n, "path_with_namespace": format!("g/s/p{n}"), "default_branch": "main"}))
            .collect();
        // Over 10,000 rows GitLab tells no totals; the link is all there is.
        let reply = Reply::json(200, &json!(rows));
        if page * size < 10_000 {
            reply.with("link", format!("</api/v4/projects?page={}>; rel=\"next\"", page + 1))
        } else {
            reply
        }
    })
    .await;
    let forge = gitlab(&fake);
    let (mut seen, mut next) = (0, Some(1));
    while let Some(page) = next {
        let read = forge.projects(None, PageRequest { page, per_page: 100 }).await.unwrap();
        seen += read.items.len();
        next = read.next_page;
    }
    assert_eq!((seen, fake.seen().len()), (10_000, 100));
    let asked = &fake.seen()[0].target;
    for part in [
        "membership=true",
        "simple=true",
        "order_by=last_activity_at",
        "archived=false",
    ] {
        assert!(asked.contains(part), "{asked}");
    }
    forge
        .projects(Some(" web & api "), PageRequest::default())
        .await
        .unwrap();
    assert!(fake.seen()[100].target.contains("search=web+%26+api"));
}
