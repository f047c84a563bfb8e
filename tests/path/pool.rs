//! Sandboxes that are ready before anybody asks: a session takes one, nobody uses one twice, and none is left.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{World, signal, until};
use crate::kit::{Daemon, outcome, wait_for};
use crate::talk::Talk;

/// A world whose worker keeps that many ready.
fn world(warm: usize) -> World {
    World::new().variable("COFFERDAM__SANDBOX__WARM", &warm.to_string())
}

/// What the engine says of a container or an image.
fn inspect(id: &str) -> Value {
    let output = Command::new("docker").args(["inspect", id]).output().unwrap();
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    all[0].clone()
}

/// Waits until that many wait for a session, as the worker itself counts them.
fn ready(daemon: &Daemon, count: usize) {
    let line = format!("cofferdam_sandboxes_warm {count}");
    until(Duration::from_secs(60), &line, || {
        daemon.page("/metrics").lines().any(|one| one == line).then_some(())
    });
}

fn claims(daemon: &Daemon, from: &str) -> u64 {
    let page = daemon.page("/metrics");
    let start = format!("cofferdam_sandbox_claims_total{{from=\"{from}\"}} ");
    page.lines()
        .find_map(|line| line.strip_prefix(&start)?.parse().ok())
        .unwrap_or_default()
}

fn end(mut daemon: Daemon) {
    signal(&daemon.process.0, "TERM");
    let status = until(Duration::from_secs(60), "the worker's end", || {
        daemon.process.0.try_wait().unwrap()
    });
    assert!(status.success(), "{status}");
}

#[test]
fn a_session_takes_what_is_ready_and_another_one_takes_its_place() {
    let world = world(1);
    let daemon = Daemon::start(&world, "");
    ready(&daemon, 1);
    let waiting = world.sandboxes();
    assert_eq!(waiting.len(), 1);
    let task = world.lab_task("!write a.txt b\n!say ready\n!hang");
    let session = task["session"].as_str().unwrap().to_owned();
    assert!(!inspect(&waiting[0]).to_string().contains(&session));
    let talk = Talk::begin(&world, &daemon, &task);
    wait_for(&talk.events, "agent_message");
    assert_eq!((claims(&daemon, "warm"), claims(&daemon, "cold")), (1, 0));
    // It is the one that waited: another one is only being started.
    assert!(world.sandboxes().contains(&waiting[0]));
    talk.applied("e-1", json!({"kind": "end"}));
    assert_eq!(outcome(&talk.events)["reason"], "published");
    until(Duration::from_secs(30), "the end of what was used", || {
        (!world.sandboxes().contains(&waiting[0])).then_some(())
    });
    ready(&daemon, 1);
    let next = world.sandboxes();
    assert!(next.len() == 1 && next != waiting, "{waiting:?} {next:?}");
    end(daemon);
    world.assert_clean();
}

#[test]
fn what_is_ready_is_as_sealed_as_what_is_started_for_a_session() {
    let world = world(1);
    let daemon = Daemon::start(&world, "");
    ready(&daemon, 1);
    let warm = world.sandboxes();
    // The second finds none ready. Both stay until they were looked at.
    let mut talks = Vec::new();
    for _ in 0..2 {
        let talk = Talk::begin(&world, &daemon, &world.lab_task("!say hi\n!hang"));
        wait_for(&talk.events, "agent_message");
        talks.push(talk);
    }
    assert_eq!(claims(&daemon, "warm") + claims(&daemon, "cold"), 2);
    let walls = |id: &str| {
        let about = inspect(id);
        // What differs is whose it is.
        let home = about["Mounts"]
            .as_array()
            .unwrap()
            .iter()
            .find(|mount| mount["Destination"] == "/run/cofferdam")
            .unwrap()["Source"]
            .as_str()
            .unwrap()
            .trim_end_matches("/mount")
            .to_owned();
        let mut host = about["HostConfig"].clone();
        host["ContainerIDFile"] = Value::Null;
        let text = format!("{host} {} {}", about["Config"]["Env"], about["Config"]["User"]);
        text.replace(&home, "HOME")
    };
    let others: Vec<String> = world.sandboxes().into_iter().filter(|id| !warm.contains(id)).collect();
    assert!(!others.is_empty());
    for other in &others {
        assert_eq!(walls(&warm[0]), walls(other));
    }
    for talk in &talks {
        talk.applied("e-1", json!({"kind": "end", "publish": false}));
    }
    end(daemon);
    world.assert_clean();
}

#[test]
fn one_that_died_while_it_waited_is_given_to_nobody_and_a_killed_worker_s_are_removed() {
    let world = world(1);
    let mut daemon = Daemon::start(&world, "");
    ready(&daemon, 1);
    let dead = world.sandboxes();
    assert!(
        Command::new("docker")
            .args(["kill", &dead[0]])
            .output()
            .unwrap()
            .status
            .success()
    );
    let (_following, events) = daemon.submit_aside(&world, &world.lab_task("!write a.txt b"));
    assert_eq!(outcome(&events)["reason"], "published");
    until(Duration::from_secs(60), "the end of the dead one", || {
        (!world.sandboxes().contains(&dead[0])).then_some(())
    });
    ready(&daemon, 1);
    signal(&daemon.process.0, "KILL");
    daemon.process.0.wait().unwrap();
    let left = world.sandboxes();
    assert_eq!(left.len(), 1);
    let again = daemon.again(&world);
    until(
        Duration::from_secs(60),
        "the end of what the dead worker had ready",
        || (!world.sandboxes().contains(&left[0])).then_some(()),
    );
    end(again);
    world.assert_clean();
}

fn docker(words: &[&str], input: &str) {
    let mut child = Command::new("docker")
        .args(words)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{words:?}");
}

#[test]
fn an_image_that_is_another_by_now_is_never_taken_from_what_is_ready() {
    let world = world(1);
    let tag = format!("cofferdam/pool-{}:test", uuid::Uuid::new_v4().simple());
    docker(&["tag", "cofferdam/sandbox-scripted:test", &tag], "");
    // Built before: the pool looks every 10 s for what its images are, and the session has to come before that.
    let next = format!("{tag}-next");
    let newer = format!("FROM cofferdam/sandbox-scripted:test\nLABEL which={tag}\n");
    docker(&["build", "--quiet", "--tag", &next, "-"], &newer);
    let new = inspect(&next)["Id"].clone();
    let more = format!(
        "[agents.other]\nimage = \"{tag}\"\ncommand = [\"scripted-agent\", \"acp\"]\nco_author = \"Other <other@agents.example>\"\n"
    );
    let world = world.variable("COFFERDAM__DEFAULT_AGENT", "other");
    let daemon = Daemon::start(&world, &more);
    ready(&daemon, 1);
    docker(&["tag", &next, &tag], "");
    let talk = Talk::begin(&world, &daemon, &world.lab_task("!say hi\n!hang"));
    wait_for(&talk.events, "agent_message");
    assert_eq!((claims(&daemon, "warm"), claims(&daemon, "cold")), (0, 1));
    let images: Vec<Value> = world
        .sandboxes()
        .iter()
        .map(|id| inspect(id)["Image"].clone())
        .collect();
    assert!(images.contains(&new), "{new} in {images:?}");
    talk.applied("e-1", json!({"kind": "end", "publish": false}));
    assert_eq!(outcome(&talk.events)["reason"], "cancelled");
    end(daemon);
    world.assert_clean();
    docker(&["rmi", &tag, &next], "");
}

#[test]
fn an_image_that_never_starts_costs_others_nothing_and_is_not_tried_over_and_over() {
    let tag = format!("cofferdam/pool-{}:broken", uuid::Uuid::new_v4().simple());
    // No file system can be mounted on a file.
    let broken = "FROM cofferdam/sandbox-scripted:test\nUSER 0:0\nRUN rm -rf /workspace && touch /workspace\n";
    docker(&["build", "--quiet", "--network", "none", "--tag", &tag, "-"], broken);
    let more = format!(
        "[agents.broken]\nimage = \"{tag}\"\ncommand = [\"scripted-agent\", \"acp\"]\nco_author = \"Broken <broken@agents.example>\"\n"
    );
    let world = world(2);
    let daemon = Daemon::start(&world, &more);
    ready(&daemon, 1);
    let ask = |agent: Option<&str>| {
        let mut task = world.lab_task("!say hi");
        if let Some(agent) = agent {
            task["agent"] = Value::from(agent);
        }
        let (_following, events) = daemon.submit_aside(&world, &task);
        outcome(&events)["reason"].clone()
    };
    assert_eq!(ask(Some("broken")), "sandbox_failed");
    let failures = || {
        let page = daemon.page("/metrics");
        let mut lines = page.lines();
        lines.find_map(|line| {
            line.strip_prefix("cofferdam_sandbox_create_failures_total ")?
                .parse::<u64>()
                .ok()
        })
    };
    until(Duration::from_secs(30), "the pool's own failure", || {
        (failures() == Some(2)).then_some(())
    });
    // What is asked for again is ready again, both of them, and nothing was tried in vain meanwhile.
    for _ in 0..2 {
        assert_eq!(ask(None), "nothing_to_publish");
    }
    ready(&daemon, 2);
    assert_eq!(failures(), Some(2));
    end(daemon);
    world.assert_clean();
    docker(&["rmi", &tag], "");
}
