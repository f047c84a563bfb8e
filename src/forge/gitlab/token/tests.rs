//! Tests of what is found out about a GitLab token, and with how many requests.

use serde_json::{Value, json};

use super::*;
use crate::forge::fake::{Fake, Reply, Seen, client, path};
use crate::message::ForgeKind;

fn user() -> Reply {
    Reply::json(200, &json!({"id": 3, "username": "ann", "commit_email": "ann@x.org"})).with("etag", "W/\"u\"")
}

fn facts(may_push: bool) -> ProjectFacts {
    ProjectFacts {
        id: "7".to_owned(),
        path: path("a/b"),
        default_branch: None,
        clone_url: String::new(),
        web_url: String::new(),
        may_push,
        archived: false,
        visibility: crate::forge::Visibility::Private,
    }
}

#[test]
fn tokens_end_when_their_last_day_begins() {
    assert_eq!(end_of("2027-08-04"), Some(1_817_337_600));
    assert_eq!(end_of(" 1970-01-02 "), Some(86_400));
    for no_day in ["", "never", "2027-13-01", "99999-01-01", "2027-02-30"] {
        assert_eq!(end_of(no_day), None, "{no_day}");
    }
}

#[tokio::test]
async fn kinds_are_found_from_answers() {
    for (status, body, kind, end) in [
        (
            200,
            json!({"scopes": ["api"], "active": true, "expires_at": "1970-01-02"}),
            TokenKind::Personal,
            Some(86_400),
        ),
        (
            200,
            json!({"scopes": ["granular"], "active": true}),
            TokenKind::Granular,
            None,
        ),
        (
            200,
            json!({"scopes": ["api"], "granular": true}),
            TokenKind::Granular,
            None,
        ),
        (400, json!({"message": "400 Bad request"}), TokenKind::Unknown, None),
        (404, json!({"error": "404 Not Found"}), TokenKind::Unknown, None),
    ] {
        let fake = Fake::start(move |seen, _| match seen.target.as_str() {
            "/api/v4/user" => user(),
            _ => Reply::json(status, &body),
        })
        .await;
        let facts = client(ForgeKind::Gitlab, &fake.url).token().await.unwrap();
        assert_eq!((facts.kind, facts.expires_at), (kind, end));
        let proven = facts.capabilities != Capabilities::UNPROVEN;
        assert_eq!(proven, kind == TokenKind::Personal);
    }
}

#[tokio::test]
async fn granular_tokens_are_tried_out_by_reading_only() {
    let fake = Fake::start(|seen, _| match seen.line().as_str() {
        "GET /api/v4/projects/7/merge_requests" => Reply::json(200, &json!([{"iid": 1}])),
        "GET /api/v4/projects/7/issues" => Reply::json(403, &json!({"message": "403 Forbidden"})),
        "GET /api/v4/user" => user(),
        _ => Reply::json(200, &json!({"scopes": ["granular"], "active": true})),
    })
    .await;
    let forge = client(ForgeKind::Gitlab, &fake.url);
    forge.token().await.unwrap();
    let may = forge.probe(&facts(true)).await;
    use Right::{No, Unproven, Yes};
    assert_eq!(
        may.rows().map(|(_, right)| right),
        [Yes, Unproven, Unproven, Unproven, Yes, No, Unproven]
    );
    assert_eq!(forge.probe(&facts(false)).await.push_branches, No);
    assert!(fake.seen().iter().all(|seen| seen.method == "GET"));
    assert!(fake.seen()[2].target.contains("per_page=1"));

    let fake = Fake::start(|seen, _| match seen.target.as_str() {
        "/api/v4/user" => user(),
        _ => Reply::json(200, &json!({"scopes": ["read_api"], "active": true})),
    })
    .await;
    let forge = client(ForgeKind::Gitlab, &fake.url);
    forge.token().await.unwrap();
    let asked = fake.seen().len();
    assert_eq!(forge.probe(&facts(true)).await.read_issues, Yes);
    assert_eq!(fake.seen().len(), asked, "what the scopes say is not asked again");

    let fake = Fake::start(|_, _| Reply::text(404, "<html>")).await;
    let may = client(ForgeKind::Gitlab, &fake.url).probe(&facts(true)).await;
    assert_eq!(may.read_issues, Unproven, "a project that is gone proves nothing");
}

#[tokio::test]
async fn what_is_no_gitlab_is_told_in_words() {
    let page = "<html><title>Welcome to Other</title>";
    type Script = fn(&Seen) -> Reply;
    let cases: [(Script, &str); 6] = [
        (
            |_| Reply::text(200, "<html><title>Welcome to Other</title>"),
            "\"Welcome to Other\" instead of JSON: check that",
        ),
        (
            |_| Reply::text(404, "<html><title>Welcome to Other</title>"),
            "no such API at this address",
        ),
        (
            |_| Reply::text(401, "<html><title>Sign in</title>"),
            "\"Sign in\" asks for a login",
        ),
        (
            |_| Reply::json(200, &json!({"ok": true})),
            "check the address and the kind of forge",
        ),
        (
            |_| Reply::text(302, "").with("location", "https://sso.example/login?next=x"),
            "redirects to https://sso.example/login",
        ),
        (
            |seen| match seen.target.as_str() {
                "/api/v4/user" => Reply::json(200, &json!({"login": "ann"})),
                _ => Reply::json(404, &json!({})),
            },
            "check the address and the kind of forge",
        ),
    ];
    for (script, expected) in cases {
        let fake = Fake::start(move |seen, _| script(seen)).await;
        let error = client(ForgeKind::Gitlab, &fake.url).token().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(
            !matches!(error, crate::forge::ForgeError::TokenInvalid { .. }),
            "{page}: {error}"
        );
    }
}

/// The answers of a forge that marks its answers and is asked again.
fn marked(seen: &Seen, body: &Value) -> Reply {
    if seen.headers.get("if-none-match").is_some_and(|mark| mark == "W/\"1\"") {
        Reply::text(304, "")
    } else {
        Reply::json(200, body).with("etag", "W/\"1\"")
    }
}

#[tokio::test]
async fn at_most_three_calls_when_nothing_changed_and_they_carry_marks() {
    let project = json!({"id": 7, "path_with_namespace": "a/b", "default_branch": "main",
                         "permissions": {"project_access": null, "group_access": null}});
    let fake = Fake::start(move |seen, _| match seen.line().as_str() {
        "GET /api/v4/personal_access_tokens/self" => {
            marked(seen, &json!({"scopes": ["api"], "active": true, "user_id": 3}))
        }
        "GET /api/v4/user" => user(),
        "GET /api/v4/projects/a%2Fb" => marked(seen, &project),
        "GET /api/v4/projects/7/members/all/3" => Reply::json(200, &json!({"access_level": 30})),
        _ => Reply::json(404, &json!({})),
    })
    .await;
    let clients = crate::forge::fake::clients();
    let session = async || {
        let forge = crate::forge::fake::connected(&clients, ForgeKind::Gitlab, &fake.url);
        let facts = forge.token().await.unwrap();
        assert_eq!((facts.account.as_str(), facts.email.as_str()), ("ann", "ann@x.org"));
        assert!(forge.project(&path("a/b")).await.unwrap().may_push);
    };
    session().await;
    assert_eq!(fake.seen().len(), 4, "{:?}", fake.lines());
    session().await;
    let again: Vec<Seen> = fake.seen().split_off(4);
    assert_eq!(again.len(), 3, "{:?}", fake.lines());
    assert!(again[..2].iter().all(|seen| seen.headers.contains_key("if-none-match")));
}
