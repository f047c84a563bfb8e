//! Tests of the GitLab client: scripted servers for what it does, recorded traffic for what it understands.

mod examples;

use serde_json::{Value, json};

use super::wire::User;
use super::*;
use crate::forge::fake::{Fake, Reply, client, path};
use crate::forge::recordings;

fn gitlab(fake: &Fake) -> std::sync::Arc<dyn Forge> {
    client(ForgeKind::Gitlab, &fake.url)
}

fn merge_request(iid: u64, source_project: u64, title: &str) -> Value {
    json!({"iid": iid, "web_url": format!("https://h/a/b/-/merge_requests/{iid}"), "source_branch": "f", "target_branch": "main",
           "source_project_id": source_project, "sha": "0123456789012345678901234567890123456789", "title": title,
           "description": "old", "state": "opened", "draft": title.starts_with("Draft"), "detailed_merge_status": "of_tomorrow"})
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

async fn open(fake: &Fake, draft: bool) -> Result<Opened, ForgeError> {
    let text = ChangeRequestText {
        title: "Fix it".to_owned(),
        description: "Why".to_owned(),
        draft,
    };
    let (source, target) = ("f".parse().unwrap(), "main".parse().unwrap());
    gitlab(fake)
        .open_change_request(&facts(), (&source, &target), &text, false)
        .await
}

/// The stored form of a merge request after a write, as the fake forge would keep it.
fn written(seen: &crate::forge::fake::Seen, iid: u64) -> Value {
    let mut stored = merge_request(iid, 7, seen.body["title"].as_str().unwrap_or("kept"));
    stored["description"] = seen.body["description"].clone();
    stored
}

#[tokio::test]
async fn tokens_say_what_they_may() {
    for (scopes, user_is_asked, push, open) in [
        (json!(["api"]), true, true, true),
        (json!(["read_api"]), true, false, false),
        (json!(["read_api", "write_repository"]), true, true, true),
        (json!(["write_repository"]), false, true, true),
        (json!(["read_repository"]), false, false, false),
        (json!(["granular"]), true, true, true),
        (json!(["of_tomorrow"]), false, false, false),
    ] {
        let token = json!({"scopes": scopes, "active": true, "revoked": false, "expires_at": "2027-08-04"});
        let fake = Fake::start(move |seen, _| match seen.target.as_str() {
            "/api/v4/personal_access_tokens/self" => Reply::json(200, &token),
            _ => Reply::json(
                200,
                &json!({"id": 3, "username": "ann", "name": "Ann", "commit_email": "ann@x.org"}),
            ),
        })
        .await;
        let facts = gitlab(&fake).token().await.unwrap();
        assert_eq!(
            (
                !facts.capabilities.push_branches.is_refused(),
                !facts.capabilities.open_change_requests.is_refused()
            ),
            (push, open),
            "{scopes}"
        );
        assert_eq!(facts.expires.as_deref(), Some("2027-08-04"));
        assert_eq!(facts.account.is_empty(), !user_is_asked, "{scopes}");
        assert_eq!(fake.seen().len(), if user_is_asked { 2 } else { 1 });
        if user_is_asked {
            assert_eq!((facts.name.as_str(), facts.email.as_str()), ("Ann", "ann@x.org"));
        }
    }
}

#[tokio::test]
async fn dead_tokens_say_why() {
    for (status, body, expected) in [
        (401, json!({"message": "401 Unauthorized"}), "does not accept the token"),
        (
            401,
            json!({"error": "invalid_token", "error_description": "Token was revoked. You have to re-authorize from the user."}),
            "was revoked",
        ),
        (
            401,
            json!({"error": "invalid_token", "error_description": "Token is expired. You can either do re-authorization or token refresh."}),
            "has expired",
        ),
        (
            200,
            json!({"revoked": true, "active": false, "scopes": []}),
            "was revoked",
        ),
        (
            200,
            json!({"revoked": false, "active": false, "scopes": []}),
            "has expired",
        ),
    ] {
        let fake = Fake::start(move |_, _| Reply::json(status, &body)).await;
        let error = gitlab(&fake).token().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(
            fake.seen().len(),
            1,
            "a refused token is never tried again: forges ban that"
        );
    }
}

#[tokio::test]
async fn old_servers_and_other_tokens_are_not_judged() {
    for status in [404, 400] {
        let fake = Fake::start(move |seen, _| match seen.target.as_str() {
            "/api/v4/user" => Reply::json(200, &json!({"id": 3, "username": "ann"})),
            _ => Reply::json(status, &json!({"error": "404 Not Found"})),
        })
        .await;
        let facts = gitlab(&fake).token().await.unwrap();
        assert!(facts.capabilities == crate::message::Capabilities::UNPROVEN && facts.scopes.is_empty());
        assert_eq!((facts.account.as_str(), facts.name.as_str()), ("ann", "ann"));
    }
}

#[tokio::test]
async fn missing_scopes_are_named_as_the_forge_names_them() {
    for (body, expected) in [
        (
            json!({"error": "insufficient_scope", "scope": "api read_api"}),
            "one of the scopes api, read_api",
        ),
        (
            json!({"error": "insufficient_scope", "scope": "api"}),
            "needs the scope api",
        ),
        (json!({"error": "insufficient_scope"}), "needs the scope api"),
    ] {
        let fake = Fake::start(move |_, _| Reply::json(403, &body)).await;
        let error = gitlab(&fake).project(&path("a/b")).await.unwrap_err();
        assert!(matches!(error, ForgeError::ScopeMissing { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let fake = Fake::start(|_, _| Reply::json(403, &json!({"message": "403 Forbidden"}))).await;
    let error = gitlab(&fake).project(&path("a/b")).await.unwrap_err();
    assert!(matches!(error, ForgeError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn members_without_a_direct_membership_are_looked_up() {
    let project =
        json!({"id": 7, "path_with_namespace": "a/b", "permissions": {"project_access": null, "group_access": null}});
    for (status, member, administrator, expected) in [
        (200, json!({"access_level": 30}), false, true),
        (200, json!({"access_level": 20}), false, false),
        (404, json!({"message": "404 Not found"}), false, false),
        (404, json!({"message": "404 Not found"}), true, true),
        (403, json!({"message": "403 Forbidden"}), false, true),
    ] {
        let project = project.clone();
        let fake = Fake::start(move |seen, _| match seen.target.as_str() {
            "/api/v4/projects/a%2Fb" => Reply::json(200, &project),
            "/api/v4/projects/7/members/all/3" => Reply::json(status, &member),
            "/api/v4/user" => Reply::json(200, &json!({"id": 3, "username": "ann", "is_admin": administrator})),
            _ => Reply::json(200, &json!({"scopes": ["api"], "active": true})),
        })
        .await;
        let forge = gitlab(&fake);
        assert!(
            forge.project(&path("a/b")).await.unwrap().may_push,
            "an unknown user's push decides"
        );
        forge.token().await.unwrap();
        assert_eq!(
            forge.project(&path("a/b")).await.unwrap().may_push,
            expected,
            "{status} {administrator}"
        );
    }
}

#[tokio::test]
async fn branches_that_are_missing_differ_from_projects_that_are() {
    let fake = Fake::start(|seen, _| match seen.target.as_str() {
        "/api/v4/projects/7/repository/branches/feat%2Fone" => Reply::json(
            200,
            &json!({"name": "feat/one", "commit": {"id": "0123456789012345678901234567890123456789"}}),
        ),
        "/api/v4/projects/7" => Reply::json(200, &json!({"id": 7, "path_with_namespace": "a/b"})),
        _ => Reply::json(404, &json!({"message": "404 Not Found"})),
    })
    .await;
    let forge = gitlab(&fake);
    let head = forge.branch_head(&facts(), &"feat/one".parse().unwrap()).await.unwrap();
    assert_eq!(head.unwrap().as_str(), "0123456789012345678901234567890123456789");
    assert_eq!(
        forge.branch_head(&facts(), &"none".parse().unwrap()).await.unwrap(),
        None
    );
    let gone = ProjectFacts {
        id: "8".to_owned(),
        ..facts()
    };
    let error = forge.branch_head(&gone, &"none".parse().unwrap()).await.unwrap_err();
    assert!(
        matches!(error, ForgeError::NotFound { .. }) && error.to_string().contains("the project a/b"),
        "{error}"
    );
}

#[tokio::test]
async fn a_new_merge_request_is_what_the_forge_stores() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "POST" => Reply::json(201, &written(seen, 5)),
        _ => Reply::json(200, &json!([merge_request(4, 99, "of a fork")])),
    })
    .await;
    let Opened::New(stored) = open(&fake, true).await.unwrap() else {
        panic!("a fork's merge request was adopted");
    };
    assert_eq!(
        (stored.number, stored.title.as_str(), stored.draft),
        (5, "Draft: Fix it", true)
    );
    assert_eq!(stored.head.unwrap().short(), "0123456789");
    let seen = fake.seen();
    for part in ["state=opened", "source_branch=f", "target_branch=main"] {
        assert!(seen[0].target.contains(part), "{}", seen[0].target);
    }
    assert_eq!(seen[1].body["source_branch"], "f");
}

#[tokio::test]
async fn pitfall_27_nobody_is_assigned() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "POST" => Reply::json(201, &written(seen, 5)),
        _ => Reply::json(200, &json!([])),
    })
    .await;
    open(&fake, false).await.unwrap();
    let sent = fake.seen()[1].body.clone();
    let mut names: Vec<&str> = sent.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["description", "source_branch", "target_branch", "title"]);
}

#[tokio::test]
async fn an_open_one_is_adopted_on_any_page_and_stays_a_draft() {
    let fake = Fake::start(|seen, _| match (seen.method.as_str(), seen.target.contains("page=2")) {
        ("GET", false) => Reply::json(200, &json!([merge_request(4, 99, "of a fork")]))
            .with("link", "</api/v4/projects/7/merge_requests?page=2>; rel=\"next\""),
        ("GET", true) => Reply::json(200, &json!([merge_request(5, 7, "Draft: Old")])),
        _ => Reply::json(200, &written(seen, 5)),
    })
    .await;
    let Opened::Adopted(stored) = open(&fake, false).await.unwrap() else {
        panic!("a second merge request was opened");
    };
    assert_eq!(
        (stored.number, stored.title.as_str(), stored.description.as_str()),
        (5, "Draft: Fix it", "Why")
    );
    assert_eq!(fake.lines().last().unwrap(), "PUT /api/v4/projects/7/merge_requests/5");
}

#[tokio::test]
async fn pitfall_02_a_conflict_names_the_one_to_adopt() {
    for message in [
        "Another open merge request already exists for this source branch: !5",
        "text of tomorrow",
    ] {
        let fake = Fake::start(move |seen, before| match seen.line().as_str() {
            "POST /api/v4/projects/7/merge_requests" => Reply::json(409, &json!({"message": [message]})),
            "GET /api/v4/projects/7/merge_requests/5" => Reply::json(200, &merge_request(5, 7, "Old")),
            "GET /api/v4/projects/7/merge_requests" if before == 0 => Reply::json(200, &json!([])),
            "GET /api/v4/projects/7/merge_requests" => Reply::json(200, &json!([merge_request(5, 7, "Old")])),
            _ => Reply::json(200, &written(seen, 5)),
        })
        .await;
        let opened = open(&fake, false).await.unwrap();
        assert!(
            matches!(&opened, Opened::Adopted(stored) if stored.number == 5),
            "{opened:?}"
        );
        assert_eq!(fake.lines().iter().filter(|line| line.starts_with("POST")).count(), 1);
    }
}

#[tokio::test]
async fn a_conflict_with_another_ones_merge_request_is_refused() {
    let fake = Fake::start(|seen, _| match seen.line().as_str() {
        "POST /api/v4/projects/7/merge_requests" => Reply::json(409, &json!({"message": ["exists: !5"]})),
        "GET /api/v4/projects/7/merge_requests/5" => Reply::json(200, &merge_request(5, 99, "of a fork")),
        _ => Reply::json(200, &json!([])),
    })
    .await;
    let error = open(&fake, false).await.unwrap_err();
    assert!(matches!(error, ForgeError::Refused { .. }), "{error}");
    assert!(!fake.lines().iter().any(|line| line.starts_with("PUT")));
}

#[tokio::test]
async fn pitfall_01_a_branch_that_is_not_seen_yet_is_waited_for_but_not_for_ever() {
    let unseen = || Reply::json(400, &json!({"message": {"source_branch": ["does not exist"]}}));
    let fake = Fake::start(move |seen, before| match seen.method.as_str() {
        "GET" => Reply::json(200, &json!([])),
        _ if before < 3 => unseen(),
        _ => Reply::json(201, &written(seen, 5)),
    })
    .await;
    assert!(matches!(open(&fake, false).await.unwrap(), Opened::New(_)));
    assert_eq!(fake.seen().len(), 4);

    let fake = Fake::start(move |seen, _| match seen.method.as_str() {
        "GET" => Reply::json(200, &json!([])),
        _ => unseen(),
    })
    .await;
    let error = open(&fake, false).await.unwrap_err();
    assert!(error.to_string().contains("source_branch does not exist"), "{error}");
    assert_eq!(fake.seen().len(), 1 + 1 + SETTLING_TRIES);
}

#[tokio::test]
async fn other_refusals_repeat_the_forges_words() {
    for (status, body, expected) in [
        (
            422,
            json!({"message": ["You can't use same project/branch for source and target"]}),
            "same project/branch",
        ),
        (400, json!({"error": "title is missing"}), "title is missing"),
        (403, json!({"message": "403 Forbidden"}), "403 Forbidden"),
    ] {
        let fake = Fake::start(move |seen, _| match seen.method.as_str() {
            "GET" => Reply::json(200, &json!([])),
            _ => Reply::json(status, &body),
        })
        .await;
        let error = open(&fake, false).await.unwrap_err();
        assert!(matches!(error, ForgeError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_description_is_rewritten_and_read_back() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "PUT" => Reply::json(200, &written(seen, 5)),
        _ => Reply::json(200, &merge_request(5, 7, "Old")),
    })
    .await;
    let stored = gitlab(&fake).change_request(&facts(), 5, Some("new")).await.unwrap();
    assert_eq!(
        stored.description, "old",
        "what the forge stores counts, not what was sent"
    );
    assert_eq!(
        fake.lines(),
        [
            "PUT /api/v4/projects/7/merge_requests/5",
            "GET /api/v4/projects/7/merge_requests/5"
        ]
    );
    assert_eq!(fake.seen()[0].body, json!({"description": "new"}));
    gitlab(&fake).change_request(&facts(), 5, None).await.unwrap();
    assert_eq!(fake.seen().len(), 3);
}

#[test]
fn fields_of_any_type_are_taken_or_refused_but_never_panic() {
    let whole = merge_request(5, 7, "Old");
    let (mut taken, mut refused_count) = (0, 0);
    for name in whole.as_object().unwrap().keys() {
        for odd in [
            json!(null),
            json!(-1),
            json!(1e300),
            json!("\u{0}\u{202e}"),
            json!(["x"]),
            json!({"x": {}}),
            json!("é".repeat(9999)),
        ] {
            let mut mutated = whole.clone();
            mutated[name] = odd;
            let parsed = serde_json::from_value::<MergeRequest>(mutated).map_err(|error| error.to_string());
            match parsed.and_then(|request| request.change_request("https://h", &facts())) {
                Ok(stored) => {
                    assert!(stored.url.starts_with("https://h/"), "{stored:?}");
                    assert!(stored.source_branch.len() <= 200 && !stored.source_branch.contains('\0'));
                    taken += 1;
                }
                Err(_) => refused_count += 1,
            }
        }
    }
    assert!(taken > 0 && refused_count > 0);
}

#[tokio::test]
async fn recorded_answers_are_understood() {
    let Some(exchanges) = recordings::exchanges("gitlab/recorded-gitlab.com.jsonl") else {
        return;
    };
    let (mut understood, mut refused_count) = (0, 0);
    for exchange in exchanges {
        let context = format!("{} {}", exchange.method, exchange.url);
        let body = exchange.body;
        if exchange.status >= 400 {
            let route = exchange.route.clone();
            let status = exchange.status;
            let fake = Fake::start(move |_, _| Reply::json(status, &body)).await;
            let error = gitlab(&fake).project(&path("a/b")).await.unwrap_err();
            let fits = match status {
                401 => matches!(error, ForgeError::TokenInvalid { .. }),
                404 => matches!(error, ForgeError::NotFound { .. }),
                _ => matches!(error, ForgeError::Refused { .. }),
            };
            assert!(fits, "{context}: {error}");
            if status == 409 && route == "/api/v4/projects/P/merge_requests" {
                assert_eq!(fake.seen().len(), 1);
            }
            refused_count += 1;
            continue;
        }
        let instance = "https://gitlab.com";
        match exchange.route.as_str() {
            "/api/v4/user" => {
                let user: User = serde_json::from_value(body).expect(&context);
                assert!(!user.account().is_empty() && user.address().contains('@'), "{context}");
            }
            "/api/v4/projects/P" if exchange.method == "GET" => {
                let project: Project = serde_json::from_value(body).expect(&context);
                project.facts(instance, true).expect(&context);
            }
            "/api/v4/projects/P/repository/branches/X" => {
                serde_json::from_value::<Branch>(body).expect(&context);
            }
            "/api/v4/projects/P/merge_requests" | "/api/v4/projects/P/merge_requests/N" => {
                let list = if body.is_array() { body } else { json!([body]) };
                for request in serde_json::from_value::<Vec<MergeRequest>>(list).expect(&context) {
                    let stored = request.change_request(instance, &facts()).expect(&context);
                    assert!(
                        stored.number > 0 && stored.url.starts_with("https://gitlab.com/"),
                        "{context}"
                    );
                }
            }
            _ => continue,
        }
        understood += 1;
    }
    assert!(
        understood > 80 && refused_count > 10,
        "{understood} understood, {refused_count} refused"
    );
}
