//! Tests of what is found out about a GitHub token, and with how many requests.

use serde_json::json;

use super::*;
use crate::forge::fake::{Fake, Reply, Seen, client, path};
use crate::forge::recordings;
use crate::message::ForgeKind;

fn user() -> Reply {
    Reply::json(200, &json!({"id": 42, "login": "ann"}))
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

#[test]
fn ends_are_read_in_both_ways_of_writing() {
    assert_eq!(end_of("2026-12-01 00:00:00 UTC"), Some(1_796_083_200));
    assert_eq!(end_of("2026-12-01 02:00:00 +0200"), Some(1_796_083_200));
    for no_moment in [
        "",
        "UTC",
        "soon",
        "2026-12-01",
        "2026-12-01 00:00:00",
        "2026-99-01 00:00:00 UTC",
    ] {
        assert_eq!(end_of(no_moment), None, "{no_moment}");
    }
}

#[test]
fn every_recorded_end_is_read() {
    let Some(exchanges) = recordings::exchanges("github/recorded-api.github.com.jsonl") else {
        return;
    };
    let ends: Vec<String> = exchanges
        .iter()
        .filter_map(|exchange| exchange.header("github-authentication-token-expiration"))
        .collect();
    assert!(
        ends.len() > 20 && ends.iter().all(|end| end_of(end).is_some()),
        "{ends:?}"
    );
}

#[tokio::test]
async fn kinds_are_found_from_answers() {
    type Script = fn(&Seen) -> Reply;
    let cases: [(Script, TokenKind); 5] = [
        (|_| user().with("x-oauth-scopes", "repo"), TokenKind::Classic),
        (
            |_| user().with("x-accepted-github-permissions", "allows_permissionless_access=true"),
            TokenKind::FineGrained,
        ),
        (|_| user(), TokenKind::Unknown),
        (
            |seen| match seen.line().as_str() {
                "GET /api/v3/installation/repositories" => Reply::json(200, &json!({"repositories": []})),
                _ => Reply::json(403, &json!({"message": "Resource not accessible by integration"})),
            },
            TokenKind::AppInstallation,
        ),
        (
            |_| {
                Reply::json(
                    403,
                    &json!({"message": "Resource not accessible by personal access token"}),
                )
            },
            TokenKind::Unknown,
        ),
    ];
    for (script, kind) in cases {
        let fake = Fake::start(move |seen, _| script(seen)).await;
        assert_eq!(client(ForgeKind::Github, &fake.url).token().await.unwrap().kind, kind);
    }
}

#[tokio::test]
async fn fine_grained_tokens_are_tried_out_by_reading_only() {
    let fake = Fake::start(|seen, _| match seen.line().as_str() {
        "GET /api/v3/repos/o/r/branches" => Reply::json(200, &json!([])),
        "GET /api/v3/repos/o/r/pulls" => Reply::json(
            403,
            &json!({"message": "Resource not accessible by personal access token"}),
        ),
        "GET /api/v3/repos/o/r/issues" => Reply::json(410, &json!({"message": "Issues are disabled for this repo"})),
        _ => user().with("x-accepted-github-permissions", "allows_permissionless_access=true"),
    })
    .await;
    let forge = client(ForgeKind::Github, &fake.url);
    forge.token().await.unwrap();
    use Right::{No, Unproven, Yes};
    let rows = forge.probe(&facts()).await.rows().map(|(_, right)| right);
    assert_eq!(rows, [Yes, Yes, Unproven, Unproven, No, No, Unproven]);
    assert!(fake.seen().iter().all(|seen| seen.method == "GET"));
    let read_only = ProjectFacts {
        may_push: false,
        ..facts()
    };
    assert_eq!(forge.probe(&read_only).await.push_branches, No);

    let fake = Fake::start(|_, _| user().with("x-oauth-scopes", "repo")).await;
    let forge = client(ForgeKind::Github, &fake.url);
    forge.token().await.unwrap();
    assert_eq!(forge.probe(&facts()).await.read_issues, Yes);
    assert_eq!(fake.seen().len(), 1, "what the scopes say is not asked again");
}

#[tokio::test]
async fn what_is_no_github_is_told_in_words() {
    for (status, body, expected) in [
        (
            200,
            "<html><title>Welcome to Other</title>",
            "\"Welcome to Other\" instead of JSON",
        ),
        (401, "<html><title>Sign in</title>", "asks for a login"),
        (404, "{}", "no such API at this address"),
        (410, r#"{"error":"API V3 is removed"}"#, "no such API at this address"),
        (200, r#"{"username":"ann"}"#, "check the address and the kind of forge"),
    ] {
        let fake = Fake::start(move |_, _| Reply::text(status, body)).await;
        let error = client(ForgeKind::Github, &fake.url).token().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn two_calls_when_nothing_changed_and_scopes_survive_a_304() {
    let fake = Fake::start(|seen, _| {
        if seen.headers.get("if-none-match").is_some_and(|mark| mark == "\"1\"") {
            return Reply::text(304, "");
        }
        match seen.line().as_str() {
            "GET /api/v3/user" => user().with("x-oauth-scopes", "repo").with("etag", "\"1\""),
            _ => Reply::json(
                200,
                &json!({"id": 7, "full_name": "o/r", "default_branch": "main", "size": 12}),
            )
            .with("etag", "\"1\""),
        }
    })
    .await;
    let clients = crate::forge::fake::clients();
    for calls in [2, 4] {
        let forge = crate::forge::fake::connected(&clients, ForgeKind::Github, &fake.url);
        let token = forge.token().await.unwrap();
        assert_eq!(
            (token.scopes, token.kind),
            (vec!["repo".to_owned()], TokenKind::Classic)
        );
        let project = forge.project(&path("o/r")).await.unwrap();
        assert_eq!(project.default_branch.unwrap().as_str(), "main");
        assert_eq!(fake.seen().len(), calls, "{:?}", fake.lines());
    }
    assert!(
        fake.seen()[2..]
            .iter()
            .all(|seen| seen.headers.contains_key("if-none-match"))
    );
}
