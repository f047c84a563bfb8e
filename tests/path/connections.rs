//! Connections while a session runs: a token that dies, a fresh one that takes its place, a connection that is dropped.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{HUB, LAB, World};
use crate::kit::{Amqp, Daemon, outcome, wait_for};

const TWO_COMMITS: &str = "!write greeter/a.txt b\n!commit greeter One\n!write website/a.txt b\n!commit website Two\n!shell cd greeter && git push -q";

struct Stage {
    world: World,
    daemon: Daemon,
    amqp: Amqp,
}

impl Stage {
    fn new(more: &str) -> Self {
        let world = World::new();
        let daemon = Daemon::start(&world, more);
        Self {
            daemon,
            amqp: Amqp::open(),
            world,
        }
    }

    fn control(&self, session: &Value, control: &Value) {
        let inbox = format!("{}.session.in", self.daemon.prefix);
        assert!(
            self.amqp
                .publish(&inbox, session.as_str().unwrap(), control.to_string().as_bytes())
        );
    }
}

/// More tokens of the same user, and one of somebody else.
fn seed(seed: String) -> String {
    seed + "\n[[tokens]]\nname = \"ada-fresh\"\nvalue = \"test-gitlab-fresh\"\nuser = \"ada\"\nforge = \"gitlab\"\nscopes = [\"api\"]\n\
        [[tokens]]\nname = \"grace-write\"\nvalue = \"test-gitlab-grace-write\"\nuser = \"grace\"\nforge = \"gitlab\"\nscopes = [\"write_repository\"]\n"
}

#[test]
fn a_token_that_dies_in_the_middle_is_waited_for_and_a_fresh_one_goes_on() {
    let world = World::with_seed(seed)
        .token("FRESH", "test-gitlab-fresh")
        .token("GRACE", "test-gitlab-grace");
    let daemon = Daemon::start(&world, "");
    let stage = Stage {
        amqp: Amqp::open(),
        daemon,
        world,
    };
    let task = stage.world.lab_task("!write a.txt b\n!hang");
    let (_following, events) = stage.daemon.submit_aside(&stage.world, &task);
    wait_for(&events, "write a.txt");
    stage
        .world
        .ask("POST", "/_test/tokens/ada-gitlab-api", Some(&json!({"revoked": true})));
    stage.daemon.cancel_turn(&task["session"]);
    wait_for(&events, "needs_attention");
    let with = |id: &str, name: &str| json!({"version": 1, "id": id, "kind": "credential", "connection": "lab", "credential": {"env": name}});
    // Somebody else's token, one that is not allowed, and one that is as dead: each is refused in words, and the session waits on.
    stage.control(&task["session"], &with("c-1", "COFFERDAM_TOKEN_GRACE"));
    wait_for(&events, "send one of the same user");
    stage.control(&task["session"], &with("c-2", "PATH"));
    wait_for(&events, "COFFERDAM_TOKEN_");
    stage.control(&task["session"], &with("c-3", "COFFERDAM_TOKEN_LAB"));
    wait_for(&events, "was revoked");
    stage.control(&task["session"], &with("c-4", "COFFERDAM_TOKEN_FRESH"));
    let outcome = outcome(&events);
    assert_eq!(outcome["reason"], "published", "{outcome}");
    assert_eq!(stage.world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
    let text = std::fs::read_to_string(&events).unwrap();
    assert!(text.contains("c-4") && !text.contains("test-gitlab-fresh"));
    stage.world.assert_clean();
}

#[test]
fn a_dead_token_that_nobody_replaces_ends_the_session_with_its_work_kept() {
    let stage = Stage::new("[session]\ncredential_wait_s = 1");
    let task = stage.world.lab_task("!write a.txt b\n!hang");
    let (_following, events) = stage.daemon.submit_aside(&stage.world, &task);
    wait_for(&events, "write a.txt");
    let expired = json!({"expires_at": "2024-01-01"});
    stage.world.ask("POST", "/_test/tokens/ada-gitlab-api", Some(&expired));
    stage.daemon.cancel_turn(&task["session"]);
    let outcome = outcome(&events);
    let project = &outcome["projects"][0];
    assert_eq!(outcome["result"], "failure");
    assert!(project["kept"].is_string(), "{outcome}");
    assert!(
        ["token_invalid", "token_expired"].contains(&outcome["reason"].as_str().unwrap()),
        "{outcome}"
    );
    // A dead credential is not tried over and over: forges lock out whoever does.
    let asked = stage.world.ask("GET", "/_test/requests", None);
    let refused = asked
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["status"] == 401 && one["token"] == "ada-gitlab-api");
    assert!(refused.count() <= 2, "{asked}");
    stage.world.assert_clean();
}

#[test]
fn a_token_that_ends_within_the_session_is_warned_about() {
    let in_two_days = jiff::Timestamp::now() + std::time::Duration::from_secs(48 * 3600);
    let day = in_two_days.to_string()[..10].to_owned();
    let world = World::with_seed(|seed| seed.replace("2099-01-01", &day));
    let ran = world.exec_with("[session]\nsession_s = 259200", &world.lab_task("!say hi"));
    let warning = ran.all("warning")[0]["message"].as_str().unwrap();
    assert!(warning.contains("lab") && warning.contains(&day), "{warning}");
    let ran = world.exec_with("[session]\nsession_s = 60", &world.lab_task("!say hi"));
    assert!(ran.all("warning").is_empty(), "{:?}", ran.all("warning"));
}

#[test]
fn a_dropped_connection_ends_its_projects_keeps_their_work_and_leaves_the_others() {
    let stage = Stage::new("");
    let task = stage.world.task(&format!(
        "{TWO_COMMITS}\n!shell while [ -e greeter ]; do sleep 0.1; done\n!say no file is left\n!plan wait\n!hang"
    ));
    let session = &task["session"];
    let (_following, events) = stage.daemon.submit_aside(&stage.world, &task);
    wait_for(&events, "push_accepted");
    let drop = |id: &str| json!({"version": 1, "id": id, "kind": "disconnect", "connection": "lab"});
    let objects = stage.world.state_dir().join("sessions").join(session.as_str().unwrap());
    assert!(objects.join("0").exists() && objects.join("1").exists());
    stage.control(session, &drop("d-1"));
    wait_for(&events, "control_answered");
    // Answered when it is done: the objects are gone from the worker while the session goes on, whose agent waits for its files to go.
    let left: Vec<_> = std::fs::read_dir(&objects)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(
        left,
        ["1"],
        "{} {}",
        std::fs::read_to_string(&events).unwrap(),
        stage.daemon.log()
    );
    assert!(
        !std::fs::read_to_string(&events)
            .unwrap()
            .contains("\"event\":\"finished\"")
    );
    wait_for(&events, "no file is left");
    stage.daemon.cancel_turn(session);
    let outcome = outcome(&events);
    assert_eq!(outcome["reason"], "partly_published", "{outcome}");
    let of = |path: &str| {
        let projects = outcome["projects"].as_array().unwrap();
        projects
            .iter()
            .find(|one| one["project"]["path"] == path)
            .unwrap()
            .clone()
    };
    assert_eq!(of(LAB)["reason"], "disconnected");
    assert_eq!(of(HUB)["reason"], "published");
    assert!(
        stage.world.project(LAB)["change_requests"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let bundle = stage
        .world
        .state_dir()
        .join("kept")
        .join(of(LAB)["kept"].as_str().unwrap());
    let heads = Command::new("git")
        .args(["bundle", "list-heads"])
        .arg(&bundle)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&heads.stdout).contains(of(LAB)["head"].as_str().unwrap()));
    stage.world.assert_clean();
}

#[test]
fn dropping_the_only_connection_ends_the_session_and_an_unknown_one_is_told() {
    let stage = Stage::new("[session]\ngrace_s = 1");
    let task = stage
        .world
        .lab_task("!write a.txt b\n!commit . One\n!shell git push -q\n!hang");
    let (_following, events) = stage.daemon.submit_aside(&stage.world, &task);
    wait_for(&events, "push_accepted");
    let drop = |id: &str, name: &str| json!({"version": 1, "id": id, "kind": "disconnect", "connection": name});
    stage.control(&task["session"], &drop("d-1", "nobody"));
    wait_for(&events, "no connection nobody");
    stage.control(&task["session"], &drop("d-2", "lab"));
    let outcome = outcome(&events);
    assert_eq!(
        (&outcome["reason"], &outcome["result"]),
        (&json!("disconnected"), &json!("cancellation")),
        "{outcome}"
    );
    assert!(outcome["projects"][0]["kept"].is_string());
    stage.world.assert_clean();
}

#[test]
fn a_token_that_may_not_name_its_user_is_known_by_the_users_number() {
    let world = World::with_seed(seed)
        .token("LAB", "test-gitlab-write-repository")
        .token("FRESH", "test-gitlab-fresh")
        .token("GRACE", "test-gitlab-grace-write");
    let daemon = Daemon::start(&world, "");
    let stage = Stage {
        amqp: Amqp::open(),
        daemon,
        world,
    };
    let mut task = stage.world.lab_task("!write a.txt b\n!hang");
    task["user"] = json!({"name": "Ada Example", "email": "7-ada@users.noreply.example.org"});
    let (_following, events) = stage.daemon.submit_aside(&stage.world, &task);
    wait_for(&events, "write a.txt");
    let revoked = json!({"revoked": true});
    stage
        .world
        .ask("POST", "/_test/tokens/ada-gitlab-write-repository", Some(&revoked));
    stage.daemon.cancel_turn(&task["session"]);
    wait_for(&events, "needs_attention");
    let with = |id: &str, name: &str| json!({"version": 1, "id": id, "kind": "credential", "connection": "lab", "credential": {"env": name}});
    stage.control(&task["session"], &with("c-1", "COFFERDAM_TOKEN_GRACE"));
    wait_for(&events, "send one of the same user");
    stage.control(&task["session"], &with("c-2", "COFFERDAM_TOKEN_FRESH"));
    let outcome = outcome(&events);
    assert_eq!(outcome["reason"], "published", "{outcome}");
    assert_eq!(stage.world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
}

#[test]
fn a_connection_that_is_dropped_before_the_agent_begins_ends_the_session_at_once() {
    let stage = Stage::new("");
    let slow = json!({"match": {"method": "POST", "path_contains": "git-upload-pack"}, "delay_ms": 8000});
    stage.world.ask("POST", "/_test/faults", Some(&slow));
    let task = stage.world.task("!write greeter/a.txt b");
    let (_following, events) = stage.daemon.submit_aside(&stage.world, &task);
    wait_for(&events, "\"stage\":\"mirror\"");
    stage.control(
        &task["session"],
        &json!({"version": 1, "id": "d-1", "kind": "disconnect", "connection": "lab"}),
    );
    let outcome = outcome(&events);
    assert_eq!(outcome["reason"], "disconnected", "{outcome}");
    let text = std::fs::read_to_string(&events).unwrap();
    assert!(text.contains("d-1") && !text.contains("turn_started"), "{text}");
    stage.world.assert_clean();
}
