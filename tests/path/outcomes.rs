//! How sessions end besides the good way: nothing to do, partial, refused, failed, timed out; and that no work is lost by it.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{HUB, LAB, Process, World, signal, until};

/// The kept bundle that an outcome names is one that git reads, and holds the file.
fn assert_kept(world: &World, project: &Value, file: &str) {
    let name = project["kept"]
        .as_str()
        .unwrap_or_else(|| panic!("nothing is kept: {project}"));
    let bundle = world.state_dir().join("kept").join(name);
    let mirror = std::fs::read_dir(world.state_dir().join("mirrors")).unwrap();
    let head = project["head"].as_str().unwrap();
    // A bundle builds on the base: it is fetched where the base is.
    let found = mirror.filter_map(Result::ok).any(|entry| {
        let scratch = world.directory.path().join(format!("scratch-{}", uuid::Uuid::new_v4()));
        let git = |arguments: &[&str]| Command::new("git").args(arguments).output().unwrap();
        let mirror = entry.path().join("mirror.git");
        git(&[
            "clone",
            "-q",
            "--bare",
            mirror.to_str().unwrap(),
            scratch.to_str().unwrap(),
        ]);
        let branch = project["branch"].as_str().unwrap();
        let fetched = git(&[
            "-C",
            scratch.to_str().unwrap(),
            "fetch",
            "-q",
            bundle.to_str().unwrap(),
            branch,
        ]);
        fetched.status.success()
            && git(&[
                "-C",
                scratch.to_str().unwrap(),
                "cat-file",
                "-e",
                &format!("{head}:{file}"),
            ])
            .status
            .success()
    });
    assert!(found, "{} does not hold {file} at {head}", bundle.display());
}

/// The outcome in a file of events.
fn last_outcome(events: &std::path::Path) -> Value {
    let text = std::fs::read_to_string(events).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    last["data"]["outcome"].clone()
}

#[test]
fn pitfall_25_no_change_is_an_outcome_with_the_answer() {
    let world = World::new();
    let ran = world.exec(&world.task("!say The answer is 42."));
    assert_eq!((ran.exit, ran.reason()), (0, "nothing_to_publish"), "{}", ran.stderr);
    assert!(ran.outcome()["answer"].as_str().unwrap().contains("The answer is 42."));
    assert!(world.project(LAB)["change_requests"].as_array().unwrap().is_empty());
    world.assert_clean();
}

#[test]
fn only_the_changed_project_is_published() {
    let world = World::new();
    let ran = world.exec(&world.task("!write website/a.txt b"));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    assert_eq!(ran.of_project(LAB)["reason"], "nothing_to_publish");
    assert_eq!(ran.of_project(HUB)["reason"], "published");
}

#[test]
fn what_is_left_uncommitted_is_committed_or_discarded_as_the_task_says() {
    let world = World::new();
    let mut task = world.lab_task("!write a.txt b\n!say ## Changes\\nA file");
    task["title"] = json!("Leave a file");
    let ran = world.exec(&task);
    let branch = ran.of_project(LAB)["branch"].as_str().unwrap().to_owned();
    let commits = world.commits("/gitlab/platform/tools/greeter.git", "test-gitlab-api", &branch);
    assert!(
        commits[0].contains("\nLeave a file\n\nA file\n\nCo-authored-by:"),
        "{commits:?}"
    );

    let mut task = world.lab_task("!write a.txt b");
    task["uncommitted"] = json!("discard");
    assert_eq!(world.exec(&task).reason(), "nothing_to_publish");
}

#[test]
fn publish_can_be_a_branch_a_draft_or_only_kept() {
    let world = World::new();
    let with = |publish: &str| {
        let mut task = world.task("!write greeter/a.txt b\n!write website/a.txt b");
        task["publish"] = json!(publish);
        task
    };
    let ran = world.exec(&with("branch"));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    assert!(world.project(LAB)["change_requests"].as_array().unwrap().is_empty());
    assert!(ran.of_project(LAB)["change_request"].is_null());

    let ran = world.exec(&with("draft"));
    assert_eq!(ran.of_project(HUB)["change_request"]["draft"], true);
    assert_eq!(ran.of_project(LAB)["change_request"]["draft"], true);
    assert_eq!(world.project(LAB)["change_requests"][0]["draft"], true);

    let ran = world.exec(&with("on_request"));
    assert_eq!((ran.exit, ran.reason()), (0, "kept"), "{}", ran.stderr);
    assert_kept(&world, ran.of_project(LAB), "a.txt");
    assert_kept(&world, ran.of_project(HUB), "a.txt");
    assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
    world.assert_clean();
}

#[test]
fn pitfall_23_a_protected_pattern_over_our_branch_does_not_lose_the_other_project() {
    // Whatever begins with cofferdam/ is protected on the GitLab side, as push rules do.
    let world = World::with_seed(|seed| {
        seed.replace(
            r#"protected = [{ branch = "main", push = "maintainer" }]"#,
            r#"protected = [{ branch = "main", push = "maintainer" }, { branch = "cofferdam/*", push = "no_one" }]"#,
        )
    });
    let ran = world.exec(&world.task("!write greeter/a.txt b\n!write website/a.txt b"));
    assert_eq!((ran.exit, ran.reason()), (1, "partly_published"), "{}", ran.stderr);
    let refused = ran.of_project(LAB);
    assert_eq!(refused["reason"], "push_rejected");
    assert!(refused["message"].as_str().unwrap().contains("protected"), "{refused}");
    assert_kept(&world, refused, "a.txt");
    assert_eq!(ran.of_project(HUB)["reason"], "published");
}

#[test]
fn a_forge_that_stumbles_gets_one_change_request_all_the_same() {
    let world = World::new();
    for fault in [
        json!({"match": {"method": "POST", "path_contains": "/merge_requests"}, "status": 500, "times": 1}),
        // The second one did it, and its answer was lost.
        json!({"match": {"method": "POST", "path_contains": "/merge_requests"}, "cut": true, "after": true, "times": 1}),
        json!({"match": {"method": "POST", "path_contains": "git-receive-pack"}, "status": 503, "times": 1}),
    ] {
        world.ask("POST", "/_test/faults", Some(&fault));
    }
    let ran = world.exec(&world.lab_task("!write a.txt b"));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
}

#[test]
fn pitfall_26_a_forge_that_dies_after_the_work_loses_nothing() {
    let world = World::new();
    let fault = json!({"match": {"path_contains": "git-receive-pack"}, "status": 503, "times": 1000});
    world.ask("POST", "/_test/faults", Some(&fault));
    let ran = world.exec(&world.lab_task("!write a.txt b"));
    assert_eq!((ran.exit, ran.reason()), (3, "forge_unavailable"), "{}", ran.stderr);
    assert_kept(&world, ran.of_project(LAB), "a.txt");
}

#[test]
fn pitfall_08_somebody_elses_commits_on_the_branch_are_never_overwritten() {
    let world = World::new();
    let task = world.lab_task("!write a.txt b\n!sleep 12000");
    let session: String = task["session"].as_str().unwrap().replace('-', "");
    let branch = format!("cofferdam/write-a-txt-b-{}", &session[24..]);
    // The other commit comes while the agent works, when the session has seen the forge without that branch.
    let config = world.config("");
    let events = world.directory.path().join("events");
    let mut command = world.command(&config);
    command.args(["exec", "--json"]).arg(world.write_task(&task));
    command
        .stdout(std::fs::File::create(&events).unwrap())
        .stderr(std::process::Stdio::null());
    let mut child = Process(command.spawn().unwrap());
    until(Duration::from_secs(60), "the turn", || {
        std::fs::read_to_string(&events)
            .unwrap()
            .contains("turn_started")
            .then_some(())
    });
    world.ask(
        "POST",
        "/_test/commit",
        Some(&json!({"forge": "gitlab", "project": LAB, "branch": branch, "files": {"other.txt": "theirs"}})),
    );
    let theirs = world.project(LAB)["branches"][&branch].clone();
    until(Duration::from_secs(90), "the end", || child.0.try_wait().unwrap());
    let outcome = last_outcome(&events);
    assert_eq!(outcome["reason"], "branch_moved", "{outcome}");
    assert_eq!(world.project(LAB)["branches"][&branch], theirs);
    assert_kept(&world, &outcome["projects"][0], "a.txt");
}

#[test]
fn a_branch_that_moves_before_its_merge_request_is_open_is_no_success() {
    let world = World::new();
    let task = world.lab_task("!write a.txt b");
    let session: String = task["session"].as_str().unwrap().replace('-', "");
    let branch = format!("cofferdam/write-a-txt-b-{}", &session[24..]);
    let opening = json!({"method": "POST", "path_contains": "/merge_requests"});
    world.ask(
        "POST",
        "/_test/faults",
        Some(&json!({"match": opening, "delay_ms": 12000})),
    );
    let config = world.config("");
    let events = world.directory.path().join("events");
    let mut command = world.command(&config);
    command.args(["exec", "--json"]).arg(world.write_task(&task));
    command
        .stdout(std::fs::File::create(&events).unwrap())
        .stderr(std::process::Stdio::null());
    let mut child = Process(command.spawn().unwrap());
    until(Duration::from_secs(60), "the push", || {
        std::fs::read_to_string(&events)
            .unwrap()
            .contains("branch_published")
            .then_some(())
    });
    world.ask(
        "POST",
        "/_test/commit",
        Some(&json!({"forge": "gitlab", "project": LAB, "branch": branch, "files": {"other.txt": "theirs"}})),
    );
    until(Duration::from_secs(90), "the end", || child.0.try_wait().unwrap());
    let outcome = last_outcome(&events);
    assert_eq!(outcome["reason"], "branch_moved", "{outcome}");
    assert_kept(&world, &outcome["projects"][0], "a.txt");
    // It is open all the same, and nobody has to look for it.
    let told = std::fs::read_to_string(&events).unwrap();
    assert!(told.contains("change_request_opened"), "{told}");
    assert!(
        outcome["projects"][0]["message"]
            .as_str()
            .unwrap()
            .contains("/merge_requests/1 is open"),
        "{outcome}"
    );
}

#[test]
fn a_branch_that_goes_away_before_its_merge_request_is_open_takes_no_work_along() {
    let world = World::new();
    let opening = json!({"method": "POST", "path_contains": "/merge_requests"});
    let looking = json!({"method": "GET", "path_contains": "/repository/branches/"});
    for fault in [
        json!({"match": opening, "status": 422, "body": "{}", "always": true}),
        json!({"match": looking, "status": 404, "body": "{\"message\":\"404 Branch Not Found\"}", "always": true}),
    ] {
        world.ask("POST", "/_test/faults", Some(&fault));
    }
    let ran = world.exec(&world.lab_task("!write a.txt b"));
    assert_eq!(ran.reason(), "branch_moved", "{}", ran.stderr);
    assert_kept(&world, ran.of_project(LAB), "a.txt");
}

#[test]
fn a_merge_request_that_does_not_say_where_its_branch_stands_is_looked_up() {
    let world = World::new();
    let opening = json!({"method": "POST", "path_contains": "/merge_requests"});
    let silent = json!({"match": opening, "rewrite": [["\"sha\":", "\"was\":"]]});
    world.ask("POST", "/_test/faults", Some(&silent));
    let ran = world.exec(&world.lab_task("!write a.txt b"));
    assert_eq!((ran.exit, ran.reason()), (0, "published"), "{}", ran.stderr);
    assert_eq!(world.ask("GET", "/_test/faults", None), json!([]));
}

#[test]
fn an_agent_that_fails_dies_or_lacks_its_key_is_told_apart_and_its_work_is_kept() {
    let world = World::new();
    for (directive, words) in [
        ("!fail no more tokens", "no more tokens"),
        ("!stderr out of ideas\n!exit 3", "out of ideas"),
    ] {
        let ran = world.exec(&world.lab_task(&format!("!write a.txt b\n{directive}")));
        assert_eq!((ran.exit, ran.reason()), (1, "agent_failed"), "{}", ran.stderr);
        assert!(
            ran.outcome()["message"].as_str().unwrap().contains(words),
            "{}",
            ran.outcome()
        );
        assert_kept(&world, ran.of_project(LAB), "a.txt");
        world.assert_clean();
    }
    let ran = world.exec_with(
        "environment = { SCRIPTED_AUTH_REQUIRED = \"1\" }",
        &world.lab_task("!say hi"),
    );
    assert_eq!(ran.reason(), "agent_unauthenticated", "{}", ran.stderr);
}

#[test]
fn an_agent_that_hangs_is_ended_by_its_limits() {
    let world = World::new();
    for (limits, reason) in [
        (json!({"idle_s": 2}), "agent_stalled"),
        (json!({"turn_s": 2}), "turn_timeout"),
        // Its first steps take some of it.
        (json!({"session_s": 25}), "session_timeout"),
    ] {
        let mut task = world.lab_task("!write a.txt b\n!hang");
        task["limits"] = limits;
        let ran = world.exec_with("[session]\ngrace_s = 1", &task);
        assert_eq!((ran.exit, ran.reason()), (4, reason), "{}", ran.stderr);
        assert_kept(&world, ran.of_project(LAB), "a.txt");
        world.assert_clean();
    }
}

#[test]
fn an_agent_that_heeds_nothing_is_removed_with_its_sandbox() {
    let world = World::new();
    let mut task = world.lab_task("!hang-hard");
    task["limits"] = json!({"turn_s": 2});
    assert_eq!(
        world.exec_with("[session]\ngrace_s = 1", &task).reason(),
        "turn_timeout"
    );
    world.assert_clean();
}

#[test]
fn end_turn_is_not_success_and_a_failed_tool_is_not_a_failure() {
    let world = World::new();
    let ran = world.exec(&world.lab_task("!shell exit 7\n!stop end_turn"));
    assert_eq!(ran.reason(), "nothing_to_publish", "{}", ran.stderr);
    let ran = world.exec(&world.lab_task("!write a.txt b\n!shell exit 7\n!stop max_tokens"));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
}

#[test]
fn interrupting_exec_keeps_the_work_and_removes_the_sandbox() {
    let world = World::new();
    let config = world.config("");
    let mut command = world.command(&config);
    command
        .args(["exec", "--json"])
        .arg(world.write_task(&world.lab_task("!write a.txt b\n!hang")));
    let output = world.directory.path().join("events");
    command
        .stdout(std::fs::File::create(&output).unwrap())
        .stderr(std::process::Stdio::null());
    let mut child = Process(command.spawn().unwrap());
    until(Duration::from_secs(60), "the file", || {
        std::fs::read_to_string(&output)
            .unwrap()
            .contains("\"status\":\"completed\"")
            .then_some(())
    });
    signal(&child.0, "TERM");
    let status = until(Duration::from_secs(60), "the end", || child.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(5));
    let outcome = last_outcome(&output);
    assert_eq!(outcome["reason"], "worker_stopped");
    assert_kept(&world, &outcome["projects"][0], "a.txt");
    world.assert_clean();
}
