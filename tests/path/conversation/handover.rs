//! Sessions that rest or change their worker: who goes on, what the others are told, and what comes in between.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::{LEAVES_AND_WAITS, leaves_and_waits};
use crate::engine::EngineProxy;
use crate::harness::{Ran, World, signal, until};
use crate::kit::{Amqp, Daemon, Proxy, outcome, wait_for};
use crate::talk::Talk;

/// A session that rests, with its task's next `resume` in place.
fn suspended(world: &World, daemon: &Daemon, task: &mut Value) {
    task["idle_timeout_s"] = json!(1);
    let talk = Talk::begin(world, daemon, task);
    let event = talk.first("the suspension", |data| data["event"] == "suspended");
    task["resume"] = event["resume"].clone();
}

#[test]
fn of_two_tasks_that_would_go_on_one_does_and_the_other_is_told() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    let mut task = world.lab_task("!write one.txt 1\n!commit . First");
    suspended(&world, &daemon, &mut task);
    let amqp = Amqp::open();
    let mut events = amqp.listen(&format!("{}.events", daemon.prefix));
    let tasks = format!("{}.tasks", daemon.prefix);
    let mut rejected = |what: &str| loop {
        let event: Value = serde_json::from_slice(&amqp.next(&mut events).data).unwrap();
        let data = &event["data"];
        assert_ne!(data["event"], "finished", "{what} was not answered");
        if data["event"] == "rejected" {
            assert_eq!(
                (&data["code"], &data["attempt"]),
                (&json!("superseded"), &json!(1)),
                "{event}"
            );
            return event["id"].clone();
        }
    };
    task["prompt"] = json!("!write two.txt 2\n!commit . Second\n!sleep 3000");
    let winner = Talk::begin(&world, &daemon, &task);
    winner.first("the second turn", |data| data["event"] == "turn_started");
    let mut other = task.clone();
    other["prompt"] = json!("!write other.txt 2\n!commit . Other");
    assert!(amqp.publish("", &tasks, other.to_string().as_bytes()));
    let first = rejected("one that comes while the session runs");
    // Whoever follows the one that runs is not misled.
    winner.first("the next suspension", |data| data["event"] == "suspended");
    assert!(amqp.publish("", &tasks, other.to_string().as_bytes()));
    let second = rejected("one that comes while it rests again");
    assert_ne!(first, second, "two answers are two events");
    assert_eq!(winner.commits(), ["Second", "First"]);
    assert_eq!(winner.of("rejected").len(), 0, "a lower attempt is passed over");
}

#[test]
fn a_prompt_that_comes_while_a_worker_hands_the_session_on_is_asked_by_the_next_one() {
    let world = World::new().variable("COFFERDAM__DRAIN_S", "0");
    let mut one = Daemon::start(&world, "[session]\ngrace_s = 2");
    // The second time it finds what the first left, and does not wait.
    let task = world.lab_task(LEAVES_AND_WAITS);
    let talk = Talk::begin(&world, &one, &task);
    leaves_and_waits(&talk);
    let mut late = talk.amqp.listen(&format!("{}.events", one.prefix));
    signal(&one.process.0, "TERM");
    // From here on the worker takes no prompt any more.
    loop {
        let event: Value = serde_json::from_slice(&talk.amqp.next(&mut late).data).unwrap();
        if event["data"]["stage"] == "cleanup" {
            break;
        }
    }
    let prompt = json!({"version": 1, "id": "late", "kind": "prompt", "text": "!write two.txt 2\n!commit . Late"});
    assert!(talk.send(&prompt));
    let event = talk.first("the suspension", |data| data["event"] == "suspended");
    assert_eq!(event["queued"], true, "{event}");
    assert_eq!(one.wait(), 0);
    let two = one.beside(&world, "two");
    assert_eq!(outcome(&talk.events)["reason"], "published", "{}", two.log());
    let answered = talk.of("control_answered");
    assert_eq!(answered.len(), 1, "{answered:?}");
    assert_eq!(
        (&answered[0]["applied"], &answered[0]["attempt"]),
        (&json!(true), &json!(2))
    );
    assert_eq!(talk.commits()[0], "Late");
}

#[test]
fn an_end_that_comes_while_a_session_is_being_suspended_ends_it() {
    let world = World::new();
    // The sandbox is removed and nobody says so: the cleanup lasts until the call is given up, and whoever hears of it comes in time.
    let proxy = EngineProxy::new(&world);
    proxy.mute("DELETE /");
    let daemon = proxy.daemon(&world, "");
    let mut task = world.lab_task("!write one.txt 1\n!commit . First");
    task["idle_timeout_s"] = json!(1);
    let talk = Talk::begin(&world, &daemon, &task);
    let mut events = talk.amqp.listen(&format!("{}.events", daemon.prefix));
    loop {
        let event: Value = serde_json::from_slice(&talk.amqp.next(&mut events).data).unwrap();
        if event["data"]["stage"] == "cleanup" {
            break;
        }
    }
    let end = json!({"version": 1, "id": "e-1", "kind": "end", "publish": true});
    assert!(talk.send(&end));
    let over = outcome(&talk.events);
    assert_eq!(over["reason"], "published", "{over}");
    assert_eq!(over["projects"][0]["reason"], "published", "{over}");
    let answered = talk.of("control_answered");
    assert_eq!(
        (answered.len(), &answered[0]["applied"]),
        (1, &json!(true)),
        "{answered:?}"
    );
    assert_eq!(talk.of("suspended").len(), 0);
    // It is over, and not only at rest.
    task["resume"] = json!({"attempt": 1, "turns": 1});
    let ran = daemon.submit(&world, &task);
    assert_eq!(ran.all("rejected")[0]["code"], "session_over", "{}", ran.stdout);
}

#[test]
fn what_waits_before_the_claim_finds_the_first_prompt_waiting_too() {
    let world = World::new();
    let mut one = Daemon::start(&world, "");
    // Its queues stay; nobody takes tasks now.
    signal(&one.process.0, "TERM");
    one.wait();
    let task = world.lab_task("!write one.txt 1\n!commit . First");
    let session = task["session"].as_str().unwrap().to_owned();
    let mut submit = one.command(&world, &["submit"]);
    submit.arg(world.write_task(&task));
    assert_eq!(Ran::of(submit).exit, 0);
    let amqp = Amqp::open();
    let inbox = format!("{}.session.in", one.prefix);
    let steer = json!({"version": 1, "id": "s-1", "kind": "prompt", "mode": "steer", "text": "!write two.txt 2\n!commit . Second"});
    assert!(amqp.publish(&inbox, &session, steer.to_string().as_bytes()));
    let mut events = amqp.listen(&format!("{}.events", one.prefix));
    let two = one.beside(&world, "two");
    let mut all = Vec::new();
    loop {
        let event: Value = serde_json::from_slice(&amqp.next(&mut events).data).unwrap();
        let data = event["data"].clone();
        let is_last = data["event"] == "finished";
        all.push(data);
        if is_last {
            break;
        }
    }
    let of = |kind: &str| all.iter().filter(|data| data["event"] == kind).collect::<Vec<_>>();
    let answer = of("control_answered")[0];
    assert_eq!(answer["applied"], true, "{answer}");
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("together with the first prompt"),
        "{answer}"
    );
    assert_eq!(of("turn_started").len(), 1, "{}", two.log());
    let branch = of("granted")[0]["branch"].as_str().unwrap();
    let commits = world.commits("/gitlab/platform/tools/greeter.git", "test-gitlab-api", branch);
    assert_eq!(commits.len(), 2, "{commits:?}");
    assert!(
        commits[0].contains("Second") && commits[1].contains("First"),
        "{commits:?}"
    );
}

#[test]
fn a_session_that_is_handed_on_before_its_first_turn_has_no_finished_project() {
    let world = World::new().variable("COFFERDAM__DRAIN_S", "0");
    let set_up = "[agents.scripted.set_up]\nscript = '''\ntest -e /tmp/never || sleep 4\n'''";
    let mut one = Daemon::start(&world, set_up);
    let talk = Talk::begin(&world, &one, &world.lab_task("!write one.txt 1\n!commit . First"));
    wait_for(&talk.events, "\"stage\":\"set_up\"");
    signal(&one.process.0, "TERM");
    let event = talk.first("the suspension", |data| data["event"] == "suspended");
    assert_eq!(event["queued"], true, "{event}");
    assert_eq!(talk.of("project_finished").len(), 0);
    assert_eq!(one.wait(), 0);
    let _two = one.beside(&world, "two");
    assert_eq!(outcome(&talk.events)["reason"], "published");
    assert_eq!(talk.of("project_finished").len(), 1);
}

#[test]
fn a_session_whose_hand_over_is_not_queued_is_taken_over_with_its_conversation() {
    let world = World::new().variable("COFFERDAM__DRAIN_S", "0");
    let proxy = Proxy::new(true);
    let mut one = Daemon::start_at(&world, &proxy.url(), "[session]\ngrace_s = 1");
    let mut task = world.lab_task("!write one.txt 1\n!commit . First");
    task["idle_timeout_s"] = json!(300);
    let talk = Talk::begin(&world, &one, &task);
    talk.turn_ended(1);
    // The second time it finds what the first left, and does not wait.
    talk.ask(
        "p-1",
        "!shell test -e two.txt || { echo 2 > two.txt; git add two.txt; git commit -qm Second; git push -q; echo waits; sleep 600; }\n\
         !write three.txt 3\n!commit . Third",
    );
    until(Duration::from_secs(60), "the running command", || {
        let calls = talk.of("agent_tool");
        calls
            .iter()
            .any(|call| call["status"] == "in_progress" && call["title"].to_string().contains("two.txt"))
            .then_some(())
    });
    talk.first("its push", |data| data["event"] == "push_accepted");
    let two = one.beside(&world, "two");
    // From here on the first one cannot be heard: what it would queue and tell goes nowhere.
    proxy.hole.store(true, Ordering::Relaxed);
    signal(&one.process.0, "TERM");
    talk.first("the take-over", |data| {
        data["event"] == "turn_started" && data["attempt"] == 2
    });
    proxy.hole.store(false, Ordering::Relaxed);
    talk.first("the end of its turn", |data| {
        data["event"] == "turn_ended" && data["attempt"] == 2
    });
    talk.say("e-1", json!({"kind": "end"}));
    let over = outcome(&talk.events);
    assert_eq!(over["reason"], "published", "{over} {}", two.log());
    assert_eq!(talk.of("suspended").len(), 0, "nobody says that it is queued");
    assert_eq!(talk.commits(), ["Third", "Second", "First"]);
    assert_eq!(talk.of("finished").len(), 1);
    one.wait();
    assert!(world.sandboxes().is_empty());
}
