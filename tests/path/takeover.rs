//! Workers that die in the middle: another goes on from what the forge has, once, and a task that kills its workers ends.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{LAB, World, signal, until};
use crate::kit::{Amqp, Daemon, outcome, wait_for};

#[test]
fn a_killed_worker_s_session_is_finished_by_another_with_one_merge_request() {
    let world = World::new();
    let one = Daemon::start(&world, "");
    let two = one.beside(&world, "two");
    // Whoever has it when it hangs is killed; the next attempt finds the marker on the forge and does not hang.
    let task = world.lab_task("!write a.txt b\n!commit . One\n!sleep 20000");
    let (_following, events) = one.submit_aside(&world, &task);
    wait_for(&events, "turn_started");
    let text = std::fs::read_to_string(&events).unwrap();
    let source = |text: &str| -> String {
        let first = text
            .lines()
            .find(|line| line.contains("\"event\":\"claimed\""))
            .unwrap();
        let event: Value = serde_json::from_str(first).unwrap();
        event["data"]["worker"].as_str().unwrap().to_owned()
    };
    let mut daemons = [one_first(&source(&text), &world.worker, one, two)];
    let [(dying, living)] = &mut daemons;
    signal(&dying.process.0, "KILL");
    dying.wait();
    wait_for(&events, "\"attempt\":2");
    let outcome = outcome(&events);
    assert_eq!(outcome["reason"], "published", "{outcome}");
    assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
    let text = std::fs::read_to_string(&events).unwrap();
    let finals = text
        .lines()
        .filter(|line| line.contains("\"event\":\"finished\""))
        .count();
    assert_eq!(finals, 1);
    assert!(living.log().contains("owner is gone"), "{}", living.log());
    let page = living.page("/metrics");
    assert!(page.contains("\ncofferdam_takeovers_total 1\n"), "{page}");
}

/// The daemon of this name first.
fn one_first(name: &str, first: &str, one: Daemon, two: Daemon) -> (Daemon, Daemon) {
    if name == first { (one, two) } else { (two, one) }
}

#[test]
fn a_task_that_kills_every_worker_ends_in_the_dead_letter_queue_with_a_reason() {
    let world = World::new();
    let mut daemon = Daemon::start(&world, "[session]\nmost_takeovers = 1");
    let amqp = Amqp::open();
    let task = world.lab_task("!write a.txt b\n!hang");
    let (_following, events) = daemon.submit_aside(&world, &task);
    for attempt in 1..=2 {
        until(Duration::from_secs(60), "the turn of this attempt", || {
            let text = std::fs::read_to_string(&events).unwrap();
            let begun = text
                .lines()
                .filter(|line| line.contains("\"event\":\"turn_started\""))
                .count();
            (begun == attempt).then_some(())
        });
        signal(&daemon.process.0, "KILL");
        daemon.wait();
        daemon = daemon.beside(&world, "s");
    }
    let outcome = outcome(&events);
    assert_eq!(
        (&outcome["reason"], &outcome["result"]),
        (&json!("abandoned"), &json!("error"))
    );
    let dead = format!("{}.dead", daemon.prefix);
    let (body, _) = until(Duration::from_secs(20), "the dead letter", || amqp.get(&dead));
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap()["session"],
        task["session"]
    );
    // It is over, or about to be, for the dead letter comes before the claim is closed: sent again it is dropped, and nothing of it circulates.
    assert!(amqp.publish("", &format!("{}.tasks", daemon.prefix), task.to_string().as_bytes()));
    until(Duration::from_secs(20), "the duplicate is dropped", || {
        let page = daemon.page("/metrics");
        let dropped = ["over", "elsewhere"].map(|result| page.contains(&format!("result=\"{result}\"}} 1\n")));
        dropped.contains(&true).then_some(())
    });
}
