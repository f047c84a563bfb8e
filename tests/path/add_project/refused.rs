//! Projects that are not added: why, and that nothing of them is left.

use std::time::Duration;

use serde_json::{Value, json};

use super::{BESIDE, add, add_new, fetching, hub, lab_alone};
use crate::harness::{HUB, LAB, World, until};
use crate::kit::{Daemon, outcome, wait_for};
use crate::limits::SmallDisk;
use crate::talk::Talk;

#[test]
fn every_refusal_says_why_and_changes_nothing() {
    let world = World::new()
        .token("GONE", "test-github-revoked")
        .token("BLIND", "test-github-no-scope");
    let daemon = Daemon::start(&world, "");
    // The agent has something where the second project would be.
    let task = lab_alone(
        &world,
        &format!("!write one.txt 1\n!commit . First\n!write {BESIDE}/website/mine.txt mine"),
        120,
    );
    let session = Talk::begin(&world, &daemon, &task);
    wait_for(&session.events, "change_request_opened");
    let with = |mut add: Value, name: &str, value: Value| {
        add[name] = value;
        add
    };
    let other_credential = |credential: Value| {
        let connection = with(hub(&world, "HUB"), "credential", credential);
        with(add("web", HUB), "new_connection", connection)
    };
    let cases = [
        (add("lab", LAB), "in this session already, at /workspace/greeter"),
        (add("lab", "PLATFORM/tools/Greeter"), "in this session already"),
        (add("web", HUB), "no connection web: say in new_connection"),
        (
            with(add_new(&world, "lab", "HUB"), "path", json!("a/b")),
            "has a connection lab already",
        ),
        (add("lab", "no/such"), "no/such"),
        (
            with(add("lab", "platform/handbook"), "base", json!("main")),
            "which is public",
        ),
        (add_new(&world, "web", "GONE"), "does not accept the token"),
        (add_new(&world, "web", "BLIND"), "acme/website"),
        (other_credential(json!({"env": "PATH"})), "COFFERDAM_TOKEN_"),
        (other_credential(json!({"plain": "plain-canary-0001"})), "credential"),
        (
            with(add_new(&world, "web", "HUB"), "base", json!("no-such-branch")),
            "no-such-branch",
        ),
        (add_new(&world, "web", "HUB"), "/workspace/website cannot be made"),
    ];
    let asked_for = cases.len();
    for (number, (control, why)) in cases.into_iter().enumerate() {
        let shown = control.to_string();
        let said = session.refused(&format!("r-{number}"), control);
        assert!(said.contains(why), "{shown}: {said}");
        assert_eq!(session.staged(), ["0"], "{shown}: {said}");
    }
    assert_eq!(session.of("control_received").len(), asked_for);
    assert_eq!((session.of("granted").len(), session.of("cloned").len()), (1, 1));
    assert_eq!(
        session.of("connected").len(),
        1,
        "nothing is told of what was taken back"
    );
    session.ask(
        "p-1",
        &format!(
            "!tool get_session {{}}\n!shell test \"$(cat {BESIDE}/website/mine.txt)\" = mine && test \"$(ls {BESIDE})\" = \"$(printf 'greeter\\nwebsite')\"\n\
             !shell git ls-remote http://127.0.0.1:8470/git/web/acme/website.git && echo served\n\
             !shell ! grep -q website /home/agent/.cofferdam/gitconfig\n!shell mv {BESIDE}/website {BESIDE}/mine"
        ),
    );
    session.turn_ended(2);
    assert!(!session.said().contains("acme/website"), "{}", session.said());
    assert_eq!(session.ran("mine.txt"), "completed");
    assert_eq!(session.ran("ls-remote"), "failed");
    assert_eq!(session.ran("grep -q website"), "completed");
    // The name of the connection is free, and now the project comes; then it is there.
    session.applied("a-1", add_new(&world, "web", "HUB"));
    assert_eq!(session.staged(), ["0", "1"]);
    let again = session.refused("a-2", add("web", HUB));
    assert!(again.contains("already, at /workspace/website"), "{again}");
    session.say("e-1", json!({"kind": "end"}));
    let outcome = outcome(&session.events);
    assert_eq!(outcome["projects"].as_array().unwrap().len(), 2, "{outcome}");
    let text = std::fs::read_to_string(&session.events).unwrap();
    assert!(!text.contains("plain-canary"), "{text}");
    world.assert_clean();
}

#[test]
fn a_session_that_ends_takes_back_what_is_being_added() {
    let world = World::new();
    let daemon = Daemon::start(&world, "[session]\ngrace_s = 1");
    let session = Talk::begin(
        &world,
        &daemon,
        &lab_alone(&world, "!write one.txt 1\n!commit . First", 120),
    );
    wait_for(&session.events, "change_request_opened");
    let slow =
        json!({"match": {"method": "POST", "path_contains": "acme/website.git/git-upload-pack"}, "delay_ms": 30000});
    world.ask("POST", "/_test/faults", Some(&slow));
    session.post("a-1", add_new(&world, "web", "HUB"));
    fetching(&world);
    session.say("e-1", json!({"kind": "end"}));
    let outcome = outcome(&session.events);
    let answer = session.answer("a-1");
    assert_eq!(answer["applied"], false, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("ending"), "{answer}");
    assert_eq!(outcome["projects"].as_array().unwrap().len(), 1, "{outcome}");
    assert_eq!(outcome["reason"], "published", "{outcome}");
    world.assert_clean();
}

#[test]
fn a_connection_that_is_dropped_while_its_project_is_fetched_leaves_the_session_as_it_was() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    let mut task = world.task("!write one.txt 1\n!commit . First");
    let lab = task["connections"].as_object_mut().unwrap().remove("lab").unwrap();
    task["projects"] = json!([{"connection": "hub", "path": HUB}]);
    task["idle_timeout_s"] = json!(120);
    let session = Talk::begin(&world, &daemon, &task);
    wait_for(&session.events, "change_request_opened");
    let slow = json!({"match": {"method": "POST", "path_contains": "greeter.git/git-upload-pack"}, "delay_ms": 30000});
    world.ask("POST", "/_test/faults", Some(&slow));
    let mut greeter = add("code", LAB);
    greeter["new_connection"] = lab;
    session.post("a-1", greeter.clone());
    fetching(&world);
    let dropped = session.say("d-1", json!({"kind": "disconnect", "connection": "code"}));
    assert_eq!(dropped["applied"], true, "{dropped}");
    let answer = session.answer("a-1");
    assert_eq!(answer["applied"], false, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("dropped"), "{answer}");
    assert_eq!(session.staged(), ["0"]);
    world.ask("DELETE", "/_test/faults", None);
    // Nothing of it is left, so it may come again: a GitLab project in a GitHub session.
    session.applied("a-2", greeter);
    session.ask(
        "p-1",
        &format!("!write {BESIDE}/greeter/two.txt 2\n!commit {BESIDE}/greeter Second"),
    );
    let opened = session.first("the merge request", |data| {
        data["event"] == "change_request_opened" && data["project"]["path"] == LAB
    });
    session.say("e-1", json!({"kind": "end"}));
    let outcome = outcome(&session.events);
    assert_eq!(outcome["reason"], "published", "{outcome}");
    let pull = world.project(HUB)["change_requests"][0].clone();
    let url = opened["change_request"]["url"].as_str().unwrap();
    assert!(pull["description"].as_str().unwrap().contains(url), "{url} in {pull}");
    world.assert_clean();
}

#[test]
fn only_so_many_wait_to_be_added_and_a_full_disk_adds_nothing() {
    let world = World::new();
    let disk = SmallDisk::mount(&world, "128m");
    let daemon = Daemon::start(&world, "[disk]\nleast_free_bytes = 67108864");
    let session = Talk::begin(
        &world,
        &daemon,
        &lab_alone(&world, "!write one.txt 1\n!commit . First", 120),
    );
    wait_for(&session.events, "change_request_opened");
    let slow =
        json!({"match": {"method": "POST", "path_contains": "acme/website.git/git-upload-pack"}, "delay_ms": 8000});
    world.ask("POST", "/_test/faults", Some(&slow));
    session.post("a-0", add_new(&world, "web", "HUB"));
    fetching(&world);
    // It is one of those that wait.
    for number in 1..16 {
        session.post(&format!("a-{number}"), add("lab", LAB));
    }
    let said = session.refused("a-16", add("lab", LAB));
    assert!(said.contains("too many projects wait"), "{said}");
    assert_eq!(session.answer("a-0")["applied"], true);
    for number in 1..16 {
        let answer = session.answer(&format!("a-{number}"));
        assert!(answer["message"].as_str().unwrap().contains("already, at"), "{answer}");
    }
    let filler = disk.0.join("filler");
    std::fs::write(&filler, vec![0; 100 * 1024 * 1024]).unwrap();
    until(Duration::from_secs(30), "the worker to see it", || {
        (daemon.page("/readyz") == "the disk is nearly full\n").then_some(())
    });
    let said = session.refused("a-17", add("web", "acme/legacy"));
    assert!(said.contains("disk is nearly full"), "{said}");
    assert_eq!(session.staged(), ["0", "1"]);
    std::fs::remove_file(&filler).unwrap();
    until(Duration::from_secs(30), "the worker to see that too", || {
        (daemon.status("/readyz") == 200).then_some(())
    });
    session.applied("a-18", add("web", "acme/legacy"));
    session.say("e-1", json!({"kind": "end"}));
    assert_eq!(outcome(&session.events)["projects"].as_array().unwrap().len(), 3);
    world.assert_clean();
}
