//! A session is a conversation: prompts that wait and prompts that steer, turns that are cancelled, sessions that give their slot back and go
//! on, here or on another worker. One branch and one merge request, whatever happens.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{World, signal, slowness, until};
use crate::kit::{Daemon, outcome, wait_for};
use crate::talk::Talk;

mod handover;
mod saved;
mod takeover;

/// An agent that has left something waits for longer than the test lasts; where it finds that, it does not.
const LEAVES_AND_WAITS: &str =
    "!shell test -e one.txt && touch /tmp/second || echo 1 > one.txt\n!shell test -e /tmp/second || sleep 600";

/// What it leaves is there when it waits: it does one after the other.
fn leaves_and_waits(talk: &Talk<'_>) {
    talk.first("the running command", |data| {
        let is_it = data["title"].as_str().is_some_and(|title| title.contains("sleep 600"));
        data["event"] == "agent_tool" && data["status"] == "in_progress" && is_it
    });
}

#[test]
fn a_prompt_that_waits_is_the_next_turn_of_the_same_agent_on_the_same_branch() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    let task = world.lab_task("!write one.txt 1\n!commit . First\n!say ## Changes\\nThe first thing.\n!sleep 4000");
    let talk = Talk::begin(&world, &daemon, &task);
    wait_for(&talk.events, "write one.txt");
    let answer = talk.prompt(
        "p-1",
        "!write two.txt 2\n!commit . Second\n!say ## Changes\\nThe second thing.",
        "queue",
    );
    assert_eq!(answer["applied"], true, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("turn 2"), "{answer}");
    assert_eq!(talk.turns(), [1], "it waits");
    assert_eq!(outcome(&talk.events)["reason"], "published");
    assert_eq!(talk.turns(), [1, 2]);
    assert_eq!(talk.of("turn_ended").len(), 2);
    // The agent counts its own turns: a new one would begin at 1 again.
    let calls = talk.of("agent_tool");
    assert!(calls.iter().any(|call| call["call"] == "call-2-1"), "{calls:?}");
    assert_eq!(talk.of("change_request_opened").len(), 1);
    assert_eq!(talk.of("change_request_updated").len(), 1);
    assert_eq!(talk.of("project_finished").len(), 1);
    assert_eq!(talk.commits(), ["Second", "First"]);
    let text = talk.request()["description"].as_str().unwrap().to_owned();
    for words in [
        "The first thing.",
        "The second thing.",
        "- First",
        "- Second",
        "one.txt",
        "two.txt",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    world.assert_clean();
}

#[test]
fn a_steered_session_is_suspended_when_nobody_speaks_and_goes_on_from_its_branch() {
    let world = World::new();
    let daemon = Daemon::start(&world, "[session]\ngrace_s = 2");
    let mut task = world.lab_task("!write one.txt 1\n!commit . First\n!say ## Changes\\nThe first thing.\n!hang");
    task["idle_timeout_s"] = json!(4);
    let talk = Talk::begin(&world, &daemon, &task);
    wait_for(&talk.events, "The first thing");
    let answer = talk.prompt(
        "s-1",
        "!write two.txt 2\n!commit . Second\n!say ## Changes\\nThe second thing.",
        "steer",
    );
    assert_eq!(answer["applied"], true, "{answer}");
    assert_eq!(talk.turn_ended(1)["stop_reason"], "cancelled");
    let suspended = talk.first("the suspension", |data| data["event"] == "suspended");
    assert_eq!(suspended["queued"], false);
    assert_eq!(suspended["projects"][0]["reason"], "published", "{suspended}");
    let resume = &suspended["resume"];
    assert_eq!(
        (&resume["attempt"], &resume["turns"]),
        (&json!(1), &json!(2)),
        "{resume}"
    );
    assert_eq!(resume["history"][0]["answer"], "", "the first was interrupted");
    assert!(
        resume["history"][1]["answer"]
            .as_str()
            .unwrap()
            .contains("The second thing.")
    );
    world.assert_clean();
    assert!(talk.of("finished").is_empty(), "the session is not over");
    until(Duration::from_secs(10), "no route to a suspended session", || {
        (!talk.send(&json!({"version": 1, "id": "late", "kind": "prompt", "text": "!say hi"}))).then_some(())
    });

    task["prompt"] = json!("!shell test -e one.txt && test -e two.txt && echo 3 > three.txt\n!commit . Third");
    task["resume"] = resume.clone();
    task.as_object_mut().unwrap().remove("idle_timeout_s");
    let next = Talk::begin(&world, &daemon, &task);
    assert_eq!(outcome(&next.events)["reason"], "published");
    let started = next.of("turn_started");
    assert_eq!(
        (&started[0]["turn"], &started[0]["attempt"]),
        (&json!(3), &json!(2)),
        "{started:?}"
    );
    assert_eq!(next.commits(), ["Third", "Second", "First"]);
    let text = next.request()["description"].as_str().unwrap().to_owned();
    assert!(text.contains("The second thing.") && text.contains("- Third"), "{text}");
    world.assert_clean();
}

#[test]
fn a_cancelled_turn_leaves_the_session_open_and_an_end_is_answered_for_what_it_does() {
    let world = World::new();
    let daemon = Daemon::start(&world, "[session]\ngrace_s = 1");
    let mut task = world
        .lab_task("!write one.txt 1\n!commit . First\n!say ## Changes\\nThe first thing, at some length.\n!hang-hard");
    task["idle_timeout_s"] = json!(120);
    let talk = Talk::begin(&world, &daemon, &task);
    wait_for(&talk.events, "The first thing");
    let asked = Instant::now();
    let answer = talk.say("c-1", json!({"kind": "cancel_turn"}));
    assert_eq!(
        (
            &answer["applied"],
            answer["message"].as_str().unwrap().contains("turn 1")
        ),
        (&json!(true), true)
    );
    talk.turn_ended(1);
    // The usual grace is 10 s.
    assert!(
        asked.elapsed() < Duration::from_secs(1) + Duration::from_secs(3) * slowness().min(3),
        "{:?} with a grace of 1 s",
        asked.elapsed()
    );
    // Its committed work is published, and the session waits.
    talk.first("the merge request", |data| data["event"] == "change_request_opened");
    let again = until(Duration::from_secs(20), "an idle session", || {
        let id = format!("c-{}", uuid::Uuid::new_v4());
        let answer = talk.say(&id, json!({"kind": "cancel_turn"}));
        (answer["applied"] == false).then_some(answer)
    });
    assert!(again["message"].as_str().unwrap().contains("no turn runs"), "{again}");
    // The agent that did not stop was killed: another one takes the next prompt, and is told of the first.
    let answer = talk.prompt("p-2", "!write two.txt 2\n!commit . Second", "queue");
    assert_eq!(answer["applied"], true);
    talk.turn_ended(2);
    talk.first("the update", |data| data["event"] == "change_request_updated");
    assert!(talk.of("finished").is_empty());
    assert_eq!(talk.commits(), ["Second", "First"]);
    let end = talk.say("e-1", json!({"kind": "end", "publish": false}));
    assert!(!end["message"].as_str().unwrap().is_empty());
    let over = outcome(&talk.events);
    assert_eq!(over["reason"], "cancelled");
    assert_eq!(
        over["projects"][0]["reason"], "published",
        "what is published stays told: {over}"
    );
    assert_eq!(talk.of("suspended").len(), 0);
    world.assert_clean();
}

#[test]
fn a_draining_worker_hands_its_conversation_to_the_next_one() {
    let world = World::new().variable("COFFERDAM__DRAIN_S", "0");
    let mut one = Daemon::start(&world, "[session]\ngrace_s = 2");
    // The second time it finds what the first left, and does not wait.
    let task = world.lab_task(&format!("!say ## Changes\\nThe first thing.\n{LEAVES_AND_WAITS}"));
    let talk = Talk::begin(&world, &one, &task);
    leaves_and_waits(&talk);
    let answer = talk.prompt("p-1", "!write two.txt 2\n!commit . Second", "queue");
    assert_eq!(answer["applied"], true);
    signal(&one.process.0, "TERM");
    let suspended = talk.first("the suspension", |data| data["event"] == "suspended");
    assert_eq!((&suspended["queued"], &suspended["attempt"]), (&json!(true), &json!(1)));
    assert_eq!(suspended["projects"][0]["reason"], "published", "{suspended}");
    assert_eq!(one.wait(), 0);
    world.assert_clean();

    let two = one.beside(&world, "two");
    assert_eq!(outcome(&talk.events)["reason"], "published", "{}", two.log());
    let claimed = talk.of("claimed");
    assert_eq!(claimed.len(), 2);
    assert_eq!(claimed[1]["attempt"], 2);
    assert_ne!(claimed[0]["worker"], claimed[1]["worker"]);
    assert_eq!(
        talk.turns(),
        [1, 2],
        "what was interrupted and what waited are one turn"
    );
    assert_eq!(talk.of("change_request_opened").len(), 1);
    let commits = talk.commits();
    assert_eq!((commits.len(), commits[0].as_str()), (2, "Second"), "{commits:?}");
    assert_eq!(talk.of("finished").len(), 1);
}
