//! What each scope of a token allows, end to end: what a session does with it, what it says at the start, and that nothing of the work is lost.

use serde_json::{Value, json};

use crate::harness::{HUB, LAB, Ran, World};

const WORK: &str = "!write notes.txt hello\n!commit notes.txt Add notes\n!say ## Changes\\nA note.\\n## Approach\\nPlain text.\\n## Trade-offs\\nNone.";

fn with_user(mut task: Value) -> Value {
    task["user"] = json!({"name": "Ada Example", "email": "7-ada@users.noreply.example.org"});
    task
}

fn warned(ran: &Ran, code: &str) -> String {
    ran.all("warning")
        .iter()
        .filter(|data| data["code"] == code)
        .map(|data| data["message"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn write_repository_alone_opens_updates_and_reads_back_without_the_api() {
    let world = World::new().token("LAB", "test-gitlab-write-repository");
    let mut task = with_user(world.lab_task(WORK));
    task["publish"] = json!("draft");
    task["title"] = json!("Take notes");
    let ran = world.exec(&task);
    assert_eq!(
        (ran.exit, ran.reason()),
        (0, "published"),
        "{} {}",
        ran.outcome(),
        ran.stderr
    );
    let connected = &ran.all("connected")[0];
    assert_eq!(
        connected["capabilities"]["open_change_requests"], "push_options",
        "{connected}"
    );
    assert_eq!(connected["capabilities"]["read_issues"], "no");
    let request = &world.project(LAB)["change_requests"][0];
    assert_eq!(request["target"], "main");
    assert_eq!(request["draft"], true, "{request}");
    let text = request["description"].as_str().unwrap();
    for part in [
        "## Changes\n",
        "## Approach\n",
        "## Trade-offs\n",
        "A note.",
        "Plain text.",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let shown = &ran.of_project(LAB)["change_request"];
    assert_eq!(shown["number"], request["number"]);
    assert!(
        shown["url"]
            .as_str()
            .unwrap()
            .ends_with(&format!("/{LAB}/-/merge_requests/{}", request["number"]))
    );
    // Nothing but what the token may ask was asked of the API.
    let asked = world.ask("GET", "/_test/requests", None);
    let refused: Vec<&Value> = asked
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["status"] == 403)
        .collect();
    assert!(refused.is_empty(), "{refused:?}");

    // The same session again, with more work: the open merge request is adopted, not doubled, and stays a draft.
    task["prompt"] = json!("!write more.txt x\n!commit more.txt More");
    task["publish"] = json!("change_request");
    let ran = world.exec(&task);
    assert_eq!(ran.reason(), "published", "{}", ran.outcome());
    assert_eq!(ran.all("change_request_updated").len(), 1);
    let requests = world.project(LAB)["change_requests"].clone();
    assert_eq!(requests.as_array().unwrap().len(), 1);
    assert_eq!(
        (&requests[0]["draft"], &requests[0]["head"]),
        (&json!(true), &ran.of_project(LAB)["head"])
    );
    world.assert_clean();
}

#[test]
fn push_options_that_made_nothing_are_noticed_and_the_branch_stays() {
    let world = World::with_seed(|seed| {
        let line = format!("path = \"{LAB}\"\n");
        seed.replace(&line, &format!("{line}change_requests_enabled = false\n"))
    })
    .token("LAB", "test-gitlab-write-repository");
    let ran = world.exec(&with_user(world.lab_task("!write a.txt b")));
    let outcome = ran.of_project(LAB);
    assert_eq!(outcome["reason"], "change_request_failed", "{outcome}");
    let message = outcome["message"].as_str().unwrap();
    // GitLab's own words, and where a person can go on.
    assert!(
        message.contains("not enabled") && message.contains("/-/merge_requests/new?"),
        "{message}"
    );
    let project = world.project(LAB);
    assert_eq!(
        project["branches"][outcome["branch"].as_str().unwrap()],
        outcome["head"]
    );
    assert!(project["change_requests"].as_array().unwrap().is_empty());
}

#[test]
fn a_merge_request_whose_push_lost_its_answer_is_found_among_the_references() {
    let world = World::new().token("LAB", "test-gitlab-write-repository");
    world.ask(
        "POST",
        "/_test/faults",
        Some(&json!({"match": {"method": "POST", "path_contains": "git-receive-pack"}, "after": true, "cut": true})),
    );
    let ran = world.exec(&with_user(world.lab_task("!write a.txt b")));
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    let requests = world.project(LAB)["change_requests"].clone();
    assert_eq!(requests.as_array().unwrap().len(), 1);
    assert_eq!(ran.of_project(LAB)["change_request"]["number"], requests[0]["number"]);
}

#[test]
fn without_a_user_in_the_task_write_repository_is_refused_in_words() {
    let world = World::new().token("LAB", "test-gitlab-write-repository");
    let ran = world.exec(&world.lab_task("!say hi"));
    assert_eq!(ran.reason(), "credential_refused");
    assert!(
        ran.outcome()["message"].as_str().unwrap().contains("\"user\""),
        "{}",
        ran.outcome()
    );
}

#[test]
fn read_api_works_answers_and_offers_its_commits_as_a_patch() {
    let world = World::new().token("LAB", "test-gitlab-read-api");
    let ran = world.exec(&world.lab_task(WORK));
    assert_eq!(
        (ran.exit, ran.reason()),
        (1, "scope_missing"),
        "{} {}",
        ran.outcome(),
        ran.stderr
    );
    let outcome = ran.of_project(LAB);
    let patch = outcome["patch"].as_str().unwrap();
    assert!(
        patch.starts_with("From ") && patch.contains("+hello") && patch.contains("Cofferdam-Session:"),
        "{patch}"
    );
    assert!(
        world
            .state_dir()
            .join("kept")
            .join(outcome["kept"].as_str().unwrap())
            .exists()
    );
    // Said at the start, by the name of what is missing.
    let said = warned(&ran, "scope_missing");
    assert!(said.contains("read_api") && said.contains("write_repository"), "{said}");
    let kinds: Vec<&str> = ran
        .events
        .iter()
        .filter_map(|event| event["data"]["event"].as_str())
        .collect();
    let place = |kind| kinds.iter().position(|one| *one == kind).unwrap();
    assert!(place("warning") < place("turn_started"));
    assert!(world.project(LAB)["change_requests"].as_array().unwrap().is_empty());

    let ran = world.exec(&world.lab_task("!say It is a greeter."));
    assert_eq!((ran.exit, ran.reason()), (0, "nothing_to_publish"));
    assert!(ran.said().contains("greeter"));
}

#[test]
fn a_user_who_may_not_push_gets_a_patch_too() {
    let world = World::new().token("LAB", "test-gitlab-grace");
    let ran = world.exec(&world.lab_task(WORK));
    assert_eq!(ran.reason(), "scope_missing", "{}", ran.outcome());
    assert!(warned(&ran, "scope_missing").contains("a user with the right to push"));
    assert!(ran.of_project(LAB)["patch"].is_string());
}

#[test]
fn each_forge_gets_what_its_own_token_may_in_one_session() {
    let world = World::new().token("LAB", "test-gitlab-write-repository");
    let shell = format!(
        "!shell cd /workspace/{} && echo x > a && git add a && git commit -qm One\n!shell cd /workspace/{} && echo x > a && git add a && git commit -qm Two",
        LAB.rsplit('/').next().unwrap(),
        HUB.rsplit('/').next().unwrap()
    );
    let ran = world.exec(&with_user(world.task(&shell)));
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    let url = |path: &str| {
        ran.of_project(path)["change_request"]["url"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    // The text that goes with a push names the other; the other's is rewritten afterwards.
    let text = |path: &str| {
        world.project(path)["change_requests"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()["description"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(text(LAB).contains(&url(HUB)), "{}", text(LAB));
    assert!(text(HUB).contains(&url(LAB)), "{}", text(HUB));
}

/// Tokens of GitHub whose rights are not in scopes.
fn github_tokens(seed: String) -> String {
    seed + r#"
[[tokens]]
name = "ada-fine"
value = "test-github-fine-full"
user = "ada"
forge = "github"
[tokens.fine_grained]
repositories = ["acme/website"]
permissions = { contents = "write", pull_requests = "write", issues = "read" }

[[tokens]]
name = "app"
value = "test-github-app"
user = "ada"
forge = "github"
installation = true
[tokens.fine_grained]
repositories = ["acme/website"]
permissions = { contents = "write", pull_requests = "write" }
"#
}

#[test]
fn fine_grained_and_app_tokens_are_tried_out_by_reading_and_work() {
    let mut world = World::with_seed(github_tokens);
    let hub_task = |world: &World| {
        let mut task = with_user(world.task("!write a.txt b"));
        task["projects"] = json!([{"connection": "hub", "path": HUB}]);
        task
    };
    for (value, reason) in [
        ("test-github-fine-full", "published"),
        ("test-github-app", "published"),
        // It may push and not open: said by the forge when it is tried, with the branch there.
        ("test-github-fine-grained", "change_request_failed"),
    ] {
        world = world.token("HUB", value);
        let ran = world.exec(&hub_task(&world));
        assert_eq!(ran.reason(), reason, "{value}: {} {}", ran.outcome(), ran.stderr);
        let outcome = ran.of_project(HUB);
        assert!(outcome["head"].is_string(), "{outcome}");
        if reason == "change_request_failed" {
            let message = outcome["message"].as_str().unwrap();
            assert!(
                message.contains("pull request") && message.contains("token"),
                "{message}"
            );
        }
    }
}
