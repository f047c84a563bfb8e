//! What other projects keep as GitLab's answers, and what a broken forge could make of recorded ones, against every call of the client.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::super::wire::Token;
use super::*;
use crate::forge::fake::TOKEN;
use crate::forge::recordings::{self, mutations};

#[test]
fn examples_of_users_projects_branches_and_tokens_are_read() {
    type Read = fn(Value) -> Result<(), String>;
    fn read<T: serde::de::DeserializeOwned>(body: Value) -> Result<(), String> {
        serde_json::from_value::<T>(body)
            .map(drop)
            .map_err(|error| error.to_string())
    }
    // Not narkoz/project.json and its fork: the API of version 3, which knew no `path_with_namespace`.
    let cases: [(&str, Read); 9] = [
        ("go-gitlab/get_user.json", read::<User>),
        ("go-scm/user.json", read::<User>),
        ("narkoz/user.json", read::<User>),
        ("go-scm/repo.json", read::<Project>),
        ("go-gitlab/get_branch.json", read::<Branch>),
        ("go-gitlab/list_branches.json", read::<Vec<Branch>>),
        ("narkoz/branch.json", read::<Branch>),
        ("narkoz/branches.json", read::<Vec<Branch>>),
        ("go-gitlab/list_personal_access_tokens_single.json", read::<Token>),
    ];
    for (file, read) in cases {
        let Some(body) = recordings::fixture(&format!("gitlab/fixtures/{file}")) else {
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
    let Some(exchanges) = recordings::exchanges("gitlab/recorded-gitlab.com.jsonl") else {
        return;
    };
    let of = |route: &str| {
        let found = exchanges
            .iter()
            .find(|one| one.route == route && one.method == "GET" && one.status == 200);
        found.unwrap_or_else(|| panic!("no {route}")).body.clone()
    };
    let mut whole: Vec<Value> = vec![
        of("/api/v4/user"),
        of("/api/v4/projects/P"),
        of("/api/v4/projects/P/merge_requests/N"),
        of("/api/v4/projects/P/repository/branches/X"),
        json!({"scopes": [TOKEN], "expires_at": TOKEN, "active": TOKEN}),
    ];
    for body in &mut whole {
        // Whatever is repeated in an error could be the token.
        if let Some(fields) = body.as_object_mut() {
            for name in [
                "username",
                "path_with_namespace",
                "state",
                "sha",
                "source_branch",
                "name",
            ] {
                if fields.contains_key(name) {
                    fields.insert(name.to_owned(), json!(format!("{TOKEN}/..")));
                }
            }
        }
    }
    let body = Arc::new(Mutex::new(Value::Null));
    let current = Arc::clone(&body);
    let fake = Fake::start(move |_, _| Reply::json(200, &current.lock().unwrap())).await;
    let forge = gitlab(&fake);
    let branch = "main".parse().unwrap();
    let mut errors = 0;
    for one in &whole {
        for changed in mutations(one).into_iter().step_by(3) {
            *body.lock().unwrap() = changed;
            for error in [
                forge.token().await.err(),
                forge.project(&path("a/b")).await.err(),
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
    assert!(errors > 500, "{errors}");
}

#[tokio::test]
async fn every_envelope_of_a_refusal_is_classified() {
    for (status, body, expected) in [
        (400, r#"{"message":"400 Bad request"}"#, "400 Bad request"),
        (
            422,
            r#"{"message":["You can't use same project/branch"]}"#,
            "same project/branch",
        ),
        (
            400,
            r#"{"message":{"name":["has already been taken"]}}"#,
            "name has already been taken",
        ),
        (400, r#"{"error":"title is missing"}"#, "title is missing"),
        (409, r#"{"message":"409 Already exists"}"#, "409 Already exists"),
        (403, "", "HTTP 403"),
        (403, "\u{fffd}\u{0}", "\u{fffd}"),
        (418, "<html><title>Teapot</title>", "an HTML page titled \"Teapot\""),
    ] {
        let fake = Fake::start(move |_, _| Reply::text(status, body)).await;
        let error = gitlab(&fake).project(&path("a/b")).await.unwrap_err();
        assert!(matches!(error, ForgeError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}
