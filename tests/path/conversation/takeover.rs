//! The conversation outlives the worker that holds it: whoever goes on knows what was said, asks again what was not published, and nothing else.

use serde_json::{Value, json};

use crate::harness::{World, signal, until};
use crate::kit::{Daemon, outcome};
use crate::talk::Talk;

/// An agent that repeats what it is told of the conversation before, and then does as the scripted one.
const TELLER: &str = r#"
[agents.teller]
image = "cofferdam/sandbox-scripted:test"
protocol = "command"
command = ["sh", "-c", "printf '%s\\n' \"$1\" | grep '^> '; exec scripted-agent plain \"$1\"", "teller"]
co_author = "Teller <teller@agents.example>"
"#;

/// Turns and attempts, as they began.
fn begun(talk: &Talk<'_>) -> Vec<(u64, u64)> {
    let number = |data: &Value, name: &str| data[name].as_u64().unwrap();
    let started = talk.of("turn_started");
    started
        .iter()
        .map(|data| (number(data, "turn"), number(data, "attempt")))
        .collect()
}

fn answers<'a>(all: &'a [Value], id: &str) -> Vec<&'a Value> {
    all.iter().filter(|data| data["in_reply_to"] == id).collect()
}

#[test]
fn a_worker_killed_in_its_second_turn_is_replaced_by_one_that_knows_the_first_and_asks_the_second_again() {
    let world = World::new();
    let mut one = Daemon::start(&world, TELLER);
    let mut task = world.lab_task("!write one.txt 1\n!commit . First\n!say ## Changes\\nThe first thing.");
    task["agent"] = json!("teller");
    task["idle_timeout_s"] = json!(120);
    let talk = Talk::begin(&world, &one, &task);
    talk.first("the merge request", |data| data["event"] == "change_request_opened");
    let second = "!sleep 5000\n!write two.txt 2\n!commit . Second\n!say ## Changes\\nThe second thing.";
    assert_eq!(talk.prompt("p-2", second, "queue")["applied"], true);
    talk.first("the second turn", |data| {
        data["event"] == "turn_started" && data["turn"] == 2
    });
    // Waits while the second runs, and is not lost with it.
    let third = "!write three.txt 3\n!commit . Third";
    assert_eq!(talk.prompt("p-3", third, "queue")["applied"], true);
    signal(&one.process.0, "KILL");
    one.wait();

    let two = one.beside(&world, "two");
    talk.first("the third turn", |data| {
        data["event"] == "turn_ended" && data["turn"] == 3
    });
    assert_eq!(begun(&talk), [(1, 1), (2, 1), (2, 2), (3, 2)], "{}", two.log());
    let all = talk.all();
    let said: String = all
        .iter()
        .filter(|data| data["event"] == "agent_message" && data["attempt"] == 2)
        .map(|data| data["text"].as_str().unwrap())
        .collect();
    assert!(
        said.contains("> The first thing.") && said.contains("> !write one.txt 1"),
        "{said}"
    );
    assert!(!said.contains("> !sleep 5000"), "the second was not answered: {said}");

    // A prompt that a dead worker had taken is known by its id.
    let again = talk.prompt("p-2", second, "queue");
    assert_eq!(again["applied"], true, "{again}");
    until(std::time::Duration::from_secs(20), "the answer to the copy", || {
        let answered = talk.of("control_answered");
        let known = answers(&answered, "p-2").last()?["message"]
            .as_str()?
            .contains("already handled");
        known.then_some(())
    });
    talk.say("e-1", json!({"kind": "end", "publish": true}));
    let over = outcome(&talk.events);
    assert_eq!(over["reason"], "published", "{over}");
    assert_eq!(begun(&talk).len(), 4, "the copy was not asked");
    assert_eq!(talk.commits(), ["Third", "Second", "First"]);
    assert_eq!(talk.of("change_request_opened").len(), 1);
    let text = talk.request()["description"].as_str().unwrap().to_owned();
    assert!(
        text.contains("The first thing.") && text.contains("The second thing."),
        "{text}"
    );
    assert_eq!(talk.of("finished").len(), 1);
}

#[test]
fn a_worker_killed_while_nobody_asks_is_replaced_by_one_that_asks_nothing_and_waits() {
    let world = World::new();
    let mut one = Daemon::start(&world, "");
    let mut task = world.lab_task("!write one.txt 1\n!commit . First");
    task["idle_timeout_s"] = json!(120);
    let talk = Talk::begin(&world, &one, &task);
    talk.first("the merge request", |data| data["event"] == "change_request_opened");
    // Answered when the turn is published and noted: it is told in between.
    let answer = talk.say("c-1", json!({"kind": "cancel_turn"}));
    assert_eq!(answer["applied"], false, "{answer}");
    until(std::time::Duration::from_secs(20), "the notes of the turn", || {
        (talk
            .amqp
            .count(&format!("{}.session.{}.notes", one.prefix, talk.session))
            >= 2)
            .then_some(())
    });
    signal(&one.process.0, "KILL");
    one.wait();
    let _two = one.beside(&world, "two");
    talk.first("the take-over", |data| {
        data["event"] == "cloned" && data["attempt"] == 2
    });
    let answer = talk.prompt(
        "p-2",
        "!shell test -e one.txt\n!write two.txt 2\n!commit . Second",
        "queue",
    );
    assert_eq!(answer["applied"], true, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("turn 2"), "{answer}");
    talk.turn_ended(2);
    talk.say("e-1", json!({"kind": "end", "publish": true}));
    assert_eq!(outcome(&talk.events)["reason"], "published");
    assert_eq!(begun(&talk), [(1, 1), (2, 2)]);
    assert_eq!(talk.commits(), ["Second", "First"]);
}
