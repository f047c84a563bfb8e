//! Tests of the GitHub client: scripted servers for what it does, recorded traffic for what it understands.

mod examples;

use serde_json::{Value, json};

use super::wire::User;
use super::*;
use crate::forge::fake::{Fake, Reply, Seen, client, path};
use crate::forge::recordings;

const SHA: &str = "0123456789012345678901234567890123456789";

fn github(fake: &Fake) -> std::sync::Arc<dyn Forge> {
    client(ForgeKind::Github, &fake.url)
}

fn pull(number: u64, repository: u64, title: &str) -> Value {
    json!({"number": number, "html_url": format!("https://h/o/r/pull/{number}"), "title": title, "body": null, "state": "open",
           "draft": false, "head": {"ref": "f", "sha": SHA, "repo": {"id": repository}}, "base": {"ref": "main", "sha": SHA}})
}

fn written(seen: &Seen, number: u64) -> Value {
    let mut stored = pull(number, 7, seen.body["title"].as_str().unwrap_or("kept"));
    stored["body"] = seen.body["body"].clone();
    stored["draft"] = json!(seen.body["draft"].as_bool().unwrap_or(false));
    stored
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

async fn open(fake: &Fake, draft: bool) -> Result<Opened, ForgeError> {
    let text = ChangeRequestText {
        title: "Fix it".to_owned(),
        description: "Why".to_owned(),
        draft,
    };
    let (source, target) = ("f".parse().unwrap(), "main".parse().unwrap());
    github(fake)
        .open_change_request(&facts(), (&source, &target), &text, false)
        .await
}

fn failed(message: &str) -> Reply {
    let errors = json!([{"resource": "PullRequest", "code": "custom", "message": message}]);
    Reply::json(
        422,
        &json!({"message": "Validation Failed", "errors": errors, "status": "422"}),
    )
}

#[tokio::test]
async fn tokens_say_what_they_may() {
    for (scopes, expected, may) in [
        (Some("project, repo, user"), vec!["project", "repo", "user"], true),
        (Some("public_repo"), vec!["public_repo"], true),
        (Some("gist, read:org"), vec!["gist", "read:org"], false),
        (Some(""), vec![], true),
        (None, vec![], true),
    ] {
        let fake = Fake::start(move |_, _| {
            let reply = Reply::json(200, &json!({"id": 42, "login": "ann", "name": "Ann", "email": null}))
                .with("github-authentication-token-expiration", "2026-12-01 00:00:00 UTC");
            match scopes {
                Some(scopes) => reply.with("x-oauth-scopes", scopes),
                None => reply,
            }
        })
        .await;
        let facts = github(&fake).token().await.unwrap();
        assert_eq!(facts.scopes, expected);
        assert_eq!(
            (
                !facts.capabilities.push_branches.is_refused(),
                !facts.capabilities.open_change_requests.is_refused()
            ),
            (may, may),
            "{scopes:?}"
        );
        assert_eq!(facts.expires.as_deref(), Some("2026-12-01 00:00:00 UTC"));
        assert_eq!((facts.account.as_str(), facts.name.as_str()), ("ann", "Ann"));
        assert_eq!(facts.email, "42+ann@users.noreply.127.0.0.1");
    }
}

#[tokio::test]
async fn installations_are_no_users_and_bad_tokens_are_invalid() {
    let fake =
        Fake::start(|_, _| Reply::json(403, &json!({"message": "Resource not accessible by integration"}))).await;
    let facts = github(&fake).token().await.unwrap();
    assert!(facts.capabilities == crate::message::Capabilities::UNPROVEN && facts.account.is_empty());
    let fake = Fake::start(|_, _| Reply::json(401, &json!({"message": "Bad credentials"}))).await;
    let error = github(&fake).token().await.unwrap_err();
    assert!(matches!(error, ForgeError::TokenInvalid { .. }), "{error}");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn what_a_403_means_is_told_apart() {
    let message = |text: &str| Reply::json(403, &json!({"message": text}));
    type Case = (fn(Reply) -> Reply, &'static str, &'static str);
    let cases: [Case; 5] = [
        (
            |reply| reply.with("x-accepted-github-permissions", "pull_requests=write"),
            "Resource not accessible by personal access token",
            "needs the permission pull_requests=write",
        ),
        (
            |reply| reply,
            "Resource not accessible by personal access token",
            "needs a permission",
        ),
        (
            |reply| reply.with("x-ratelimit-remaining", "0").with("x-ratelimit-reset", "0"),
            "API rate limit exceeded for user ID 1.",
            "wait 0 s",
        ),
        (|reply| reply, "You have exceeded a secondary rate limit.", "wait 60 s"),
        (
            |reply| reply,
            "Must have admin rights to Repository.",
            "refused to read the repository: Must have admin",
        ),
    ];
    for (with, text, expected) in cases {
        let fake = Fake::start(move |_, _| with(message(text))).await;
        let error = github(&fake).project(&path("o/r")).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn empty_repositories_have_no_default_branch() {
    let repository =
        json!({"id": 7, "full_name": "o/r", "default_branch": "main", "size": 0, "permissions": {"push": true}});
    for (status, body, expected) in [
        (200, json!({"name": "main", "commit": {"sha": SHA}}), Some("main")),
        (404, json!({"message": "Branch not found"}), None),
        (409, json!({"message": "Git Repository is empty."}), None),
    ] {
        let repository = repository.clone();
        let fake = Fake::start(move |seen, _| match seen.target.as_str() {
            "/api/v3/repos/o/r" => Reply::json(200, &repository),
            _ => Reply::json(status, &body),
        })
        .await;
        let facts = github(&fake).project(&path("o/r")).await.unwrap();
        assert_eq!(facts.default_branch.as_ref().map(BranchName::as_str), expected);
        assert_eq!(facts.clone_url, format!("{}/o/r.git", fake.url));
        assert_eq!(
            fake.lines(),
            ["GET /api/v3/repos/o/r", "GET /api/v3/repos/o/r/branches/main"]
        );
    }
}

#[tokio::test]
async fn a_renamed_repository_is_found_by_its_old_path() {
    let fake = Fake::start(|seen, _| match seen.line().as_str() {
        "GET /api/v3/repos/old/name" => {
            Reply::json(301, &json!({"message": "Moved Permanently"})).with("location", "/api/v3/repositories/7")
        }
        "GET /api/v3/repositories/7" => {
            Reply::json(200, &json!({"id": 7, "full_name": "o/r", "default_branch": "main"}))
        }
        _ => Reply::json(200, &json!({"name": "main", "commit": {"sha": SHA}})),
    })
    .await;
    let facts = github(&fake).project(&path("old/name")).await.unwrap();
    assert_eq!((facts.path.as_str(), facts.id.as_str()), ("o/r", "7"));
    let error = github(&fake).project(&path("a/b/c")).await.unwrap_err();
    assert!(matches!(error, ForgeError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn branches_that_are_missing_differ_from_repositories_that_are() {
    let fake = Fake::start(|seen, _| match seen.target.as_str() {
        "/api/v3/repos/o/r/branches/feat%2Fone" => {
            Reply::json(200, &json!({"name": "feat/one", "commit": {"sha": SHA}}))
        }
        "/api/v3/repos/o/r/branches/renamed" => {
            Reply::text(301, "").with("location", "/api/v3/repos/o/r/branches/feat%2Fone")
        }
        "/api/v3/repos/o/r" => Reply::json(200, &json!({"id": 7, "full_name": "o/r"})),
        _ => Reply::json(404, &json!({"message": "Not Found"})),
    })
    .await;
    let forge = github(&fake);
    let head = |branch: &str| branch.parse::<BranchName>().unwrap();
    assert_eq!(
        forge
            .branch_head(&facts(), &head("feat/one"))
            .await
            .unwrap()
            .unwrap()
            .as_str(),
        SHA
    );
    assert_eq!(forge.branch_head(&facts(), &head("renamed")).await.unwrap(), None);
    assert_eq!(forge.branch_head(&facts(), &head("none")).await.unwrap(), None);
    let gone = ProjectFacts {
        path: path("o/gone"),
        ..facts()
    };
    let error = forge.branch_head(&gone, &head("none")).await.unwrap_err();
    assert!(matches!(error, ForgeError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_new_pull_request_is_what_the_forge_stores() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "POST" => Reply::json(201, &written(seen, 5)),
        _ => Reply::json(200, &json!([pull(4, 99, "of a fork")])),
    })
    .await;
    let Opened::New(stored) = open(&fake, true).await.unwrap() else {
        panic!("a fork's pull request was adopted");
    };
    assert_eq!(
        (stored.number, stored.title.as_str(), stored.draft),
        (5, "Fix it", true)
    );
    let seen = fake.seen();
    assert!(
        seen[0].target.contains("head=o%3Af") && seen[0].target.contains("base=main"),
        "{}",
        seen[0].target
    );
    assert_eq!(
        seen[1].body,
        json!({"title": "Fix it", "head": "f", "base": "main", "body": "Why", "draft": true})
    );
}

#[tokio::test]
async fn an_open_one_is_adopted() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "GET" => Reply::json(200, &json!([pull(5, 7, "Old")])),
        _ => Reply::json(200, &written(seen, 5)),
    })
    .await;
    let opened = open(&fake, false).await.unwrap();
    assert!(matches!(&opened, Opened::Adopted(stored) if stored.title == "Fix it" && stored.description == "Why"));
    assert_eq!(
        fake.lines(),
        ["GET /api/v3/repos/o/r/pulls", "PATCH /api/v3/repos/o/r/pulls/5"]
    );
}

#[tokio::test]
async fn pitfall_04_one_that_appeared_meanwhile_is_adopted() {
    let fake = Fake::start(|seen, before| match (seen.method.as_str(), before) {
        ("POST", _) => failed("A pull request already exists for o:f."),
        ("GET", 0) => Reply::json(200, &json!([])),
        ("GET", _) => Reply::json(200, &json!([pull(5, 7, "Old")])),
        _ => Reply::json(200, &written(seen, 5)),
    })
    .await;
    assert!(matches!(open(&fake, false).await.unwrap(), Opened::Adopted(_)));
    assert_eq!(fake.lines().iter().filter(|line| line.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn pitfall_24_drafts_that_are_not_supported_are_opened_without() {
    let no_drafts = || {
        Reply::json(
            422,
            &json!({"message": "Draft pull requests are not supported in this repository."}),
        )
    };
    let fake = Fake::start(
        move |seen, _| match (seen.method.as_str(), seen.body["draft"].as_bool()) {
            ("GET", _) => Reply::json(200, &json!([])),
            (_, Some(true)) => no_drafts(),
            _ => Reply::json(201, &written(seen, 5)),
        },
    )
    .await;
    assert!(!open(&fake, true).await.unwrap().change_request().draft);
    assert_eq!(fake.seen().len(), 3);

    let fake = Fake::start(move |seen, _| match seen.method.as_str() {
        "GET" => Reply::json(200, &json!([])),
        _ => no_drafts(),
    })
    .await;
    let error = open(&fake, true).await.unwrap_err();
    assert!(matches!(error, ForgeError::Refused { .. }), "{error}");
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn refusals_repeat_the_forges_words_and_unseen_branches_are_waited_for() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "GET" => Reply::json(200, &json!([])),
        _ => failed("No commits between main and f"),
    })
    .await;
    let error = open(&fake, false).await.unwrap_err();
    assert!(matches!(error, ForgeError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("No commits between main and f"), "{error}");

    let fake = Fake::start(|seen, before| match seen.method.as_str() {
        "GET" => Reply::json(200, &json!([])),
        _ if before < 3 => Reply::json(
            422,
            &json!({"message": "Validation Failed", "errors": [{"field": "head", "code": "invalid"}]}),
        ),
        _ => Reply::json(201, &written(seen, 5)),
    })
    .await;
    open(&fake, false).await.unwrap();
    assert_eq!(fake.seen().len(), 4);
}

#[tokio::test]
async fn a_description_is_rewritten_and_read_back() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "PATCH" => Reply::json(200, &written(seen, 5)),
        _ => Reply::json(200, &pull(5, 7, "Old")),
    })
    .await;
    let long = "line\n".repeat(20_000);
    let stored = github(&fake).change_request(&facts(), 5, Some(&long)).await.unwrap();
    assert_eq!(stored.description, "");
    assert!(fake.seen()[0].body["body"].as_str().unwrap().len() <= LONGEST_BODY);
    assert!(fake.seen()[0].body.get("title").is_none());
    assert_eq!(fake.seen().len(), 2);
}

#[test]
fn fields_of_any_type_are_taken_or_refused_but_never_panic() {
    let whole = pull(5, 7, "Old");
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
            let parsed = serde_json::from_value::<PullRequest>(mutated).map_err(|error| error.to_string());
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
    let Some(exchanges) = recordings::exchanges("github/recorded-api.github.com.jsonl") else {
        return;
    };
    let (mut understood, mut refused_count) = (0, 0);
    for exchange in exchanges {
        let context = format!("{} {}", exchange.method, exchange.url);
        let body = exchange.body;
        if exchange.status >= 400 {
            let status = exchange.status;
            let fake = Fake::start(move |_, _| Reply::json(status, &body)).await;
            let error = github(&fake).project(&path("o/r")).await.unwrap_err();
            let fits = match status {
                401 => matches!(error, ForgeError::TokenInvalid { .. }),
                404 => matches!(error, ForgeError::NotFound { .. }),
                _ => matches!(error, ForgeError::Refused { .. }),
            };
            assert!(fits, "{context}: {error}");
            refused_count += 1;
            continue;
        }
        let instance = "https://github.com";
        match exchange.route.as_str() {
            "/user" => {
                let user: User = serde_json::from_value(body).expect(&context);
                assert!(user.address("github.com").contains('@'), "{context}");
            }
            "/repos/O/R" if exchange.status == 200 => {
                let repository: Repository = serde_json::from_value(body).expect(&context);
                repository.facts(instance).expect(&context);
            }
            "/repos/O/R/branches/X" => {
                serde_json::from_value::<Branch>(body).expect(&context);
            }
            "/repos/O/R/pulls" | "/repos/O/R/pulls/N" => {
                let list = if body.is_array() { body } else { json!([body]) };
                for request in serde_json::from_value::<Vec<PullRequest>>(list).expect(&context) {
                    let stored = request.change_request(instance, &facts()).expect(&context);
                    assert!(
                        stored.number > 0 && stored.url.starts_with("https://github.com/"),
                        "{context}"
                    );
                }
            }
            _ => continue,
        }
        understood += 1;
    }
    assert!(
        understood > 35 && refused_count > 10,
        "{understood} understood, {refused_count} refused"
    );
}
