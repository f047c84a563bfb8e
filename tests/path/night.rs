//! At 3 a.m.: what a running worker tells of a session, by its address, its socket, its log and its events; and what it cleans up on a word.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use crate::harness::{Ran, World, until};
use crate::kit::{Amqp, Daemon, outcome, wait_for};
use crate::talk::Talk;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn operate(world: &World, daemon: &Daemon, words: &[&str]) -> Ran {
    Ran::of(daemon.command(world, words))
}

#[test]
fn a_session_s_lines_bear_its_ids_and_are_shown_and_its_events_go_on_with_its_trace() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    let task = world.lab_task("!write a.txt b\n!commit . One\n!hang");
    let session = task["session"].as_str().unwrap().to_owned();
    let amqp = Amqp::open();
    let mut events = amqp.listen(&format!("{}.events", daemon.prefix));
    let mut headers = FieldTable::default();
    let sent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    headers.insert("traceparent".into(), AMQPValue::LongString(sent.as_str().into()));
    let properties = BasicProperties::default().with_headers(headers);
    let tasks = format!("{}.tasks", daemon.prefix);
    assert!(amqp.publish_with("", &tasks, task.to_string().as_bytes(), properties));

    // While it runs: the address shows the same as the socket, and no more than ids, stages and times.
    let shown = until(Duration::from_secs(60), "the turn", || {
        let status: Value = serde_json::from_str(&daemon.page("/status")).ok()?;
        (status["sessions"][0]["stage"] == "turn").then_some(status)
    });
    assert_eq!(shown["sessions"][0]["session"], session.as_str());
    assert!(shown["sessions"][0]["age_s"].is_u64() && shown["sessions"][0]["stage_s"].is_u64());
    let text = shown.to_string();
    assert!(!text.contains("greeter") && !text.contains("a.txt"), "{text}");

    let end = json!({"version": 1, "id": "e-1", "kind": "end"}).to_string();
    let inbox = format!("{}.session.in", daemon.prefix);
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "finished") {
        let delivery = amqp.next(&mut events);
        let event: Value = serde_json::from_slice(&delivery.data).unwrap();
        kinds.push(event["data"]["event"].as_str().unwrap().to_owned());
        let headers = delivery.properties.headers().as_ref().unwrap().inner();
        let Some(AMQPValue::LongString(told)) = headers.get("traceparent") else {
            panic!("{kinds:?} without a trace");
        };
        assert!(told.to_string().starts_with(&format!("00-{TRACE}-")), "{told}");
        assert!(event.get("trace").is_none() && event.get("traceparent").is_none());
        // With its work done it may end: it was seen while it ran.
        let data = &event["data"];
        if data["status"] == "completed" && data["title"].as_str().is_some_and(|title| title.contains("git commit")) {
            assert!(amqp.publish(&inbox, &session, end.as_bytes()));
        }
    }

    let page = daemon.page("/metrics");
    let disk = |name: &str| -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap().parse().unwrap()
    };
    assert!(
        disk("cofferdam_disk_size_bytes") >= disk("cofferdam_disk_free_bytes"),
        "{page}"
    );

    // The log: JSON, and the ids in the span.
    let log = daemon.log();
    let own: Vec<Value> = log
        .lines()
        .filter(|line| line.contains(&session))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ended = own
        .iter()
        .find(|line| line["message"].as_str().unwrap().starts_with("session ended"));
    let ended = ended.unwrap_or_else(|| panic!("{log}"));
    assert_eq!(ended["span"]["session"], session.as_str());
    assert_eq!(ended["span"]["trace_id"], TRACE);

    let told = operate(&world, &daemon, &["logs", &session]);
    assert_eq!(told.exit, 0, "{}", told.stderr);
    let lines: Vec<Value> = told
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.iter().any(|line| line == ended), "{}", told.stdout);
    for kind in ["claimed", "turn_started", "change_request_opened", "finished"] {
        let name = format!("dev.cofferdam.session.{kind}");
        assert!(
            lines.iter().any(|line| line["event"] == name.as_str()),
            "{kind} in {}",
            told.stdout
        );
    }
    // What the agent says and does on its way is no state.
    assert!(!told.stdout.contains("agent_tool"), "{}", told.stdout);
    assert!(!told.stdout.contains("test-gitlab-api"));
    let other = operate(&world, &daemon, &["logs", &uuid::Uuid::new_v4().to_string()]);
    assert!(
        other.exit == 69 && other.stderr.contains("knows nothing"),
        "{}",
        other.stderr
    );
    world.assert_clean();
}

fn age(path: &Path, days: u32) {
    let status = Command::new("touch")
        .arg("-d")
        .arg(format!("{days} days ago"))
        .arg(path)
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn gc_lists_what_nobody_owns_removes_it_on_a_word_and_leaves_what_is_owned() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    // It runs as long as there is anything to look at.
    let task = world.lab_task("!write a.txt b\n!commit . One\n!hang");
    let talk = Talk::begin(&world, &daemon, &task);
    wait_for(&talk.events, "turn_started");
    let state = world.state_dir();
    let kept = |name: &str| {
        let path = state.join("kept").join(name);
        std::fs::write(&path, "bundle").unwrap();
        path
    };
    let (old, young) = (kept("old.bundle"), kept("young.bundle"));
    age(&old, 15);
    let mirrors = state.join("mirrors");
    let unused = mirrors.join("0".repeat(64));
    std::fs::create_dir_all(unused.join("mirror.git")).unwrap();
    std::fs::write(unused.join("refreshed"), "").unwrap();
    age(&unused.join("refreshed"), 31);
    let sandbox = state.join("sandboxes").join("0".repeat(32));
    std::fs::create_dir_all(&sandbox).unwrap();

    let listed = operate(&world, &daemon, &["gc", "--dry-run", "--json"]);
    assert_eq!(listed.exit, 0, "{}", listed.stderr);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let found = listed["found"].as_array().unwrap();
    let has = |found: &[Value], kind: &str, path: &Path, removed: bool| {
        found
            .iter()
            .any(|one| one["kind"] == kind && one["what"] == path.to_str().unwrap() && one["removed"] == removed)
    };
    assert!(
        has(found, "bundle", &old, false) && has(found, "mirror", &unused, false),
        "{found:?}"
    );
    // The session's own, and what is young, are not.
    assert!(
        found
            .iter()
            .all(|one| one["kind"] != "container" && one["kind"] != "session"),
        "{found:?}"
    );
    assert!(!has(found, "bundle", &young, false));
    assert!(
        old.exists() && unused.join("mirror.git").exists(),
        "it was only to be listed"
    );

    let removed = operate(&world, &daemon, &["gc"]);
    assert_eq!(removed.exit, 0, "{}", removed.stderr);
    assert!(
        removed.stdout.contains(&format!("removed bundle {}", old.display())),
        "{}",
        removed.stdout
    );
    assert!(!old.exists() && !unused.join("mirror.git").exists() && !sandbox.exists());
    assert!(young.exists());
    let again = operate(&world, &daemon, &["gc"]);
    assert!(again.stdout.contains("nothing is there"), "{}", again.stdout);
    // The session that ran meanwhile lost nothing.
    assert_eq!(talk.ran("git commit"), "completed");
    talk.applied("e-1", json!({"kind": "end"}));
    assert_eq!(outcome(&talk.events)["reason"], "published");
    // Without a worker nothing is removed.
    drop(daemon);
    let config = world.config("");
    let mut alone = world.command(&config);
    alone.arg("gc");
    let ran = Ran::of(alone);
    assert!(
        ran.exit == 69 && ran.stderr.contains("no worker runs"),
        "{}",
        ran.stderr
    );
}
