//! Control messages at every moment of a session: before it is claimed, twice, too late; and an owner that the broker cannot hear.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{LAB, Ran, World, signal, until};
use crate::kit::{Amqp, Daemon, Proxy, outcome, wait_for};

/// The data of the events that came, until one of this kind.
fn until_event(amqp: &Amqp, events: &mut lapin::Consumer, last: &str) -> Vec<Value> {
    let mut came = Vec::new();
    loop {
        let event: Value = serde_json::from_slice(&amqp.next(events).data).unwrap();
        let data = event["data"].clone();
        let ends = data["event"] == last;
        came.push(data);
        if ends {
            return came;
        }
    }
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|data| data["event"] == kind).collect()
}

/// What the forge was asked.
fn asked(world: &World) -> String {
    world.ask("GET", "/_test/requests", None).to_string()
}

#[test]
fn an_end_before_the_claim_gives_one_outcome_and_no_sandbox_and_asks_no_forge() {
    let world = World::new();
    let mut daemon = Daemon::start(&world, "");
    // Its queues stay; nobody takes tasks now.
    signal(&daemon.process.0, "TERM");
    daemon.wait();
    let amqp = Amqp::open();
    let mut events = amqp.listen(&format!("{}.events", daemon.prefix));
    let task = world.lab_task("!write a.txt b");
    let session = task["session"].as_str().unwrap().to_owned();
    let mut submit = daemon.command(&world, &["submit"]);
    submit.arg(world.write_task(&task));
    assert_eq!(Ran::of(submit).exit, 0);
    let end = Ran::of(daemon.command(&world, &["end", &session, "--no-wait"]));
    assert_eq!(end.exit, 0, "{}", end.stderr);
    let twice = Ran::of(daemon.command(&world, &["end", &session, "--discard", "--no-wait"]));
    assert_eq!(twice.exit, 0, "{}", twice.stderr);
    // Nothing of these is done any more, and each is answered.
    let inbox = format!("{}.session.in", daemon.prefix);
    let others = [
        json!({"version": 1, "id": "t-1", "kind": "cancel_turn"}),
        json!({"version": 1, "id": "p-1", "kind": "prompt", "text": "!write c.txt d"}),
        json!({"version": 1, "id": "a-1", "kind": "add_project", "connection": "hub", "path": "acme/website"}),
        json!({"version": 1, "id": "d-1", "kind": "disconnect", "connection": "lab"}),
    ];
    for other in &others {
        assert!(amqp.publish(&inbox, &session, other.to_string().as_bytes()));
    }
    world.ask("DELETE", "/_test/requests", None);

    let next = daemon.beside(&world, "next");
    let came = until_event(&amqp, &mut events, "finished");
    assert_eq!(
        of_kind(&came, "finished")[0]["outcome"]["reason"],
        "cancelled",
        "{came:?}"
    );
    assert_eq!(of_kind(&came, "stage").len(), 0, "{came:?}");
    let answers = of_kind(&came, "control_answered");
    assert_eq!(of_kind(&came, "control_received").len(), 6, "{came:?}");
    let applied = |id: &Value| {
        let found: Vec<bool> = answers
            .iter()
            .filter(|data| data["in_reply_to"] == *id)
            .map(|data| data["applied"].as_bool().unwrap())
            .collect();
        assert_eq!(found.len(), 1, "{id}: {came:?}");
        found[0]
    };
    assert!(applied(&json!(end.stdout.trim())));
    assert!(!applied(&json!(twice.stdout.trim())));
    for other in &others {
        assert!(!applied(&other["id"]));
    }
    assert_eq!(answers[0]["in_reply_to"], json!(end.stdout.trim()));
    let asked = asked(&world);
    assert!(!asked.contains("/api/v4"), "{asked}");
    world.assert_clean();
    // It is over: a task that would go on is told so, a plain duplicate is not.
    let tasks = format!("{}.tasks", daemon.prefix);
    assert!(amqp.publish("", &tasks, task.to_string().as_bytes()));
    let mut resume = task.clone();
    resume["resume"] = json!({"attempt": 1, "turns": 1});
    let ran = next.submit(&world, &resume);
    assert_eq!(ran.exit, 65, "{}", ran.stdout);
    assert_eq!(ran.events.len(), 1, "{}", ran.stdout);
    assert_eq!(
        (&ran.events[0]["data"]["event"], &ran.events[0]["data"]["code"]),
        (&json!("rejected"), &json!("session_over"))
    );
    let late = Ran::of(daemon.command(&world, &["end", &session]));
    assert_eq!(late.exit, 69, "{}", late.stderr);
}

#[test]
fn who_writes_to_a_session_that_is_over_into_a_mailbox_of_his_own_is_answered() {
    let world = World::new();
    let mut daemon = Daemon::start(&world, "");
    let task = world.lab_task("!say done");
    let session = task["session"].as_str().unwrap().to_owned();
    assert_eq!(daemon.submit(&world, &task).exit, 0);
    signal(&daemon.process.0, "TERM");
    daemon.wait();
    // Whoever submits declares the mailbox first, and may write before he knows that the session is over.
    let amqp = Amqp::open();
    amqp.declare_mailbox(&daemon.prefix, &session);
    assert!(amqp.publish("", &format!("{}.tasks", daemon.prefix), task.to_string().as_bytes()));
    let inbox = format!("{}.session.in", daemon.prefix);
    for id in ["p-1", "p-2"] {
        let prompt = json!({"version": 1, "id": id, "kind": "prompt", "text": "!say more"});
        assert!(amqp.publish(&inbox, &session, prompt.to_string().as_bytes()));
    }
    assert!(amqp.publish(&inbox, &session, b"no message"));
    let mut events = amqp.listen(&format!("{}.events", daemon.prefix));
    let _next = daemon.beside(&world, "next");
    let mut answered = Vec::new();
    for _ in 0..3 {
        let data = until_event(&amqp, &mut events, "control_answered").pop().unwrap();
        assert_eq!(data["applied"], false, "{data}");
        assert!(data["message"].as_str().unwrap().contains("new session id"), "{data}");
        answered.push(data["in_reply_to"].as_str().unwrap().to_owned());
    }
    assert_eq!(answered, ["p-1", "p-2", ""]);
    // And the mailbox is gone: who comes later gets his message back.
    until(Duration::from_secs(20), "the mailbox to go", || {
        let late = json!({"version": 1, "id": "p-3", "kind": "prompt", "text": "!say more"});
        (!amqp.publish(&inbox, &session, late.to_string().as_bytes())).then_some(())
    });
}

#[test]
fn each_control_message_is_acknowledged_answered_and_known_by_its_id() {
    let world = World::new();
    let daemon = Daemon::start(&world, "[session]\ngrace_s = 1");
    let amqp = Amqp::open();
    let mut events = amqp.listen(&format!("{}.events", daemon.prefix));
    let inbox = format!("{}.session.in", daemon.prefix);
    let task = world.lab_task("!write a.txt b\n!hang");
    let session = task["session"].as_str().unwrap();
    assert!(amqp.publish("", &format!("{}.tasks", daemon.prefix), task.to_string().as_bytes()));
    until_event(&amqp, &mut events, "turn_started");
    let send = |control: &Value| assert!(amqp.publish(&inbox, session, control.to_string().as_bytes()));
    let answer =
        json!({"version": 1, "id": "c-1", "kind": "answer", "connection": "lab", "path": "no/such", "publish": true});
    send(&answer);
    let came = until_event(&amqp, &mut events, "control_answered");
    let received = of_kind(&came, "control_received");
    assert_eq!(
        (&received[0]["in_reply_to"], &received[0]["kind"]),
        (&json!("c-1"), &json!("answer"))
    );
    let first = came.last().unwrap();
    assert_eq!(
        (&first["in_reply_to"], &first["applied"]),
        (&json!("c-1"), &json!(false))
    );

    // The same again has no effect and the same answer, and no second receipt.
    send(&answer);
    let came = until_event(&amqp, &mut events, "control_answered");
    assert_eq!(of_kind(&came, "control_received").len(), 0, "{came:?}");
    let second = came.last().unwrap();
    assert_eq!(
        (&second["in_reply_to"], &second["applied"]),
        (&json!("c-1"), &json!(false))
    );
    assert!(
        second["message"].as_str().unwrap().contains("already handled"),
        "{second}"
    );

    send(&json!({"version": 1, "id": "c-2", "kind": "dance"}));
    let came = until_event(&amqp, &mut events, "control_answered");
    let malformed = came.last().unwrap();
    assert_eq!(
        (&malformed["in_reply_to"], &malformed["applied"]),
        (&json!("c-2"), &json!(false))
    );
    assert!(malformed["message"].as_str().unwrap().contains("dance"), "{malformed}");
    assert!(amqp.publish(&inbox, session, b"\xff{"));
    let came = until_event(&amqp, &mut events, "control_answered");
    assert_eq!(came.last().unwrap()["in_reply_to"], "");

    send(&json!({"version": 1, "id": "c-3", "kind": "end", "publish": false}));
    let came = until_event(&amqp, &mut events, "finished");
    assert_eq!(came.last().unwrap()["outcome"]["reason"], "cancelled", "{came:?}");
}

#[test]
fn whatever_found_a_route_is_answered_also_while_the_session_ends() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    let amqp = Amqp::open();
    let mut events = amqp.listen(&format!("{}.events", daemon.prefix));
    let inbox = format!("{}.session.in", daemon.prefix);
    let task = world.lab_task("!write a.txt b\n!sleep 500");
    let session = task["session"].as_str().unwrap();
    assert!(amqp.publish("", &format!("{}.tasks", daemon.prefix), task.to_string().as_bytes()));
    let mut came = until_event(&amqp, &mut events, "turn_started");
    let mut sent = Vec::new();
    // Until there is no route any more: the session is over then.
    let control = |id: &str| {
        let control = json!({"version": 1, "id": id, "kind": "disconnect", "connection": "nobody"});
        amqp.publish(&inbox, session, control.to_string().as_bytes())
    };
    until(Duration::from_secs(90), "no route", || {
        let id = format!("c-{}", sent.len());
        if control(&id) {
            sent.push(id);
            None
        } else {
            Some(())
        }
    });
    came.extend(until_event(&amqp, &mut events, "finished"));
    assert_eq!(came.last().unwrap()["outcome"]["reason"], "published", "{came:?}");
    let answered: Vec<&str> = of_kind(&came, "control_answered")
        .iter()
        .map(|data| data["in_reply_to"].as_str().unwrap())
        .collect();
    let unanswered: Vec<&String> = sent.iter().filter(|id| !answered.contains(&id.as_str())).collect();
    assert!(sent.len() > 5, "{sent:?}");
    assert_eq!(unanswered, Vec::<&String>::new(), "of {}", sent.len());
    assert_eq!(answered.len(), sent.len(), "each once");
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn a_message_that_a_lost_connection_brings_back_is_known_and_has_no_second_effect() {
    let world = World::new();
    let proxy = Proxy::new(true);
    let daemon = Daemon::start_at(&world, &proxy.url(), "[session]\ngrace_s = 45");
    let amqp = Amqp::open();
    let mut events = amqp.listen(&format!("{}.events", daemon.prefix));
    let inbox = format!("{}.session.in", daemon.prefix);
    let task = world.lab_task("!write a.txt b\n!say written\n!hang-hard");
    let session = task["session"].as_str().unwrap();
    assert!(amqp.publish("", &format!("{}.tasks", daemon.prefix), task.to_string().as_bytes()));
    until_event(&amqp, &mut events, "agent_message");
    // The broker keeps it until the session is over, so it comes again with the connection.
    let end = json!({"version": 1, "id": "c-1", "kind": "end", "publish": true});
    assert!(amqp.publish(&inbox, session, end.to_string().as_bytes()));
    let mut came = until_event(&amqp, &mut events, "control_answered");
    proxy.open.store(false, Ordering::Relaxed);
    until(Duration::from_secs(20), "unreadiness", || {
        (daemon.status("/readyz") == 503).then_some(())
    });
    proxy.open.store(true, Ordering::Relaxed);
    came.extend(until_event(&amqp, &mut events, "finished"));
    assert_eq!(of_kind(&came, "control_received").len(), 1, "{came:?}");
    let answers = of_kind(&came, "control_answered");
    assert_eq!(answers.len(), 2, "{came:?}");
    assert!(
        answers
            .iter()
            .all(|data| data["in_reply_to"] == "c-1" && data["applied"] == true),
        "{came:?}"
    );
    assert!(
        answers[1]["message"].as_str().unwrap().contains("already handled"),
        "{came:?}"
    );
    assert_eq!(came.last().unwrap()["outcome"]["reason"], "published", "{came:?}");
}

#[test]
fn an_end_outlives_the_worker_that_read_it() {
    let world = World::new();
    let mut daemon = Daemon::start(&world, "[session]\ngrace_s = 30");
    let task = world.lab_task("!write a.txt b\n!hang-hard");
    let session = task["session"].as_str().unwrap().to_owned();
    let (_following, events) = daemon.submit_aside(&world, &task);
    wait_for(&events, "turn_started");
    let end = Ran::of(daemon.command(&world, &["end", &session, "--discard"]));
    assert_eq!(end.exit, 0, "{}", end.stderr);
    // Between the answer and the outcome.
    let text = std::fs::read_to_string(&events).unwrap();
    assert!(!text.contains("\"event\":\"finished\""), "{text}");
    signal(&daemon.process.0, "KILL");
    daemon.wait();
    let _next = daemon.beside(&world, "next");
    let outcome = outcome(&events);
    assert_eq!(outcome["reason"], "cancelled", "{outcome}");
    let text = std::fs::read_to_string(&events).unwrap();
    let turns = text.lines().filter(|line| line.contains("\"event\":\"turn_started\""));
    assert_eq!(turns.count(), 1, "the second attempt did not begin: {text}");
}

#[test]
fn a_worker_in_a_black_hole_pushes_nothing_once_another_took_over_and_stops_when_it_learns_that() {
    let world = World::new();
    let proxy = Proxy::new(true);
    let one = Daemon::start_at(&world, &proxy.url(), "");
    let amqp = Amqp::open();
    let mut events = amqp.listen(&format!("{}.events", one.prefix));
    // Longer than the take-over needs with the tests' intervals (13 s), so that the loser is done while the other works.
    let task = world.lab_task("!write a.txt b\n!commit . One\n!sleep 18000");
    assert!(amqp.publish("", &format!("{}.tasks", one.prefix), task.to_string().as_bytes()));
    until_event(&amqp, &mut events, "turn_started");
    proxy.hole.store(true, Ordering::Relaxed);
    let two = one.beside(&world, "two");
    let claimed = until_event(&amqp, &mut events, "claimed");
    assert_eq!(claimed.last().unwrap()["attempt"], 2, "{claimed:?}");

    // The loser is done and would publish.
    until(Duration::from_secs(60), "the loser to be done with its turn", || {
        one.page("/metrics").contains("stage=\"publish\"} 1").then_some(())
    });
    // Until the other is done too, and comes to publish: nobody has pushed since the loser lost the broker.
    until(Duration::from_secs(60), "the other to publish", || {
        let asked_meanwhile = asked(&world);
        let metrics = two.page("/metrics");
        if metrics.contains("stage=\"publish\"} 1") || metrics.contains("reason=\"published\"} 1") {
            return Some(());
        }
        for trace in ["receive-pack", "merge_requests"] {
            assert!(!asked_meanwhile.contains(trace), "{trace}: {asked_meanwhile}");
        }
        None
    });
    proxy.hole.store(false, Ordering::Relaxed);
    let came = until_event(&amqp, &mut events, "finished");
    let finished = came.last().unwrap();
    assert_eq!(
        (&finished["attempt"], &finished["outcome"]["reason"]),
        (&json!(2), &json!("published")),
        "{came:?}"
    );
    until(Duration::from_secs(60), "the loser to stop", || {
        one.log().contains("it stops here").then_some(())
    });
    until(Duration::from_secs(60), "the loser's session to end", || {
        one.page("/metrics").contains("stage=\"publish\"} 0").then_some(())
    });
    assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
    let branch = finished["outcome"]["projects"][0]["branch"].as_str().unwrap();
    assert_eq!(
        world.project(LAB)["branches"][branch],
        finished["outcome"]["projects"][0]["head"],
        "what the other published stands"
    );
    until(Duration::from_secs(30), "the loser's sandbox to go", || {
        world.sandboxes().is_empty().then_some(())
    });
}

#[test]
fn a_push_that_failed_is_not_tried_again_by_a_worker_that_lost_sight_of_the_broker() {
    let world = World::new();
    let proxy = Proxy::new(true);
    let one = Daemon::start_at(&world, &proxy.url(), "");
    let amqp = Amqp::open();
    let mut events = amqp.listen(&format!("{}.events", one.prefix));
    // Answered long after the worker knows that it hears nothing (3 s with the tests' intervals).
    let fault = json!({"match": {"method": "POST", "path_contains": "git-receive-pack"}, "status": 502, "delay_ms": 10000, "times": 1});
    world.ask("POST", "/_test/faults", Some(&fault));
    let task = world.lab_task("!write a.txt b\n!commit . One");
    assert!(amqp.publish("", &format!("{}.tasks", one.prefix), task.to_string().as_bytes()));
    until(Duration::from_secs(60), "the first push", || {
        (world.ask("GET", "/_test/faults", None) == json!([])).then_some(())
    });
    proxy.hole.store(true, Ordering::Relaxed);
    // It would be tried again before there is anybody who could take over.
    until(Duration::from_secs(60), "the push to fail", || {
        one.log()
            .contains("a push to the forge failed and is tried again")
            .then_some(())
    });
    let _two = one.beside(&world, "two");
    let claimed = until_event(&amqp, &mut events, "claimed");
    assert_eq!(claimed.last().unwrap()["attempt"], 1, "{claimed:?}");
    let claimed = until_event(&amqp, &mut events, "claimed");
    assert_eq!(claimed.last().unwrap()["attempt"], 2, "{claimed:?}");
    let asked = world.ask("GET", "/_test/requests", None);
    let pushes = asked.as_array().unwrap().iter().filter(|one| {
        one["method"] == "POST"
            && one["path"]
                .as_str()
                .is_some_and(|path| path.contains("git-receive-pack"))
    });
    assert_eq!(pushes.count(), 1, "{asked}");
    proxy.hole.store(false, Ordering::Relaxed);
    let came = until_event(&amqp, &mut events, "finished");
    let last = came.last().unwrap();
    assert_eq!(
        (&last["attempt"], &last["outcome"]["reason"]),
        (&json!(2), &json!("published")),
        "{came:?}"
    );
    assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn the_end_of_a_session_that_another_worker_has_is_not_told_by_the_one_that_lost_it() {
    let world = World::new();
    let proxy = Proxy::new(true);
    let one = Daemon::start_at(&world, &proxy.url(), "");
    let amqp = Amqp::open();
    let mut events = amqp.listen(&format!("{}.events", one.prefix));
    // Nothing to publish: the loser is done without asking whether it may push.
    let task = world.lab_task("!sleep 18000");
    assert!(amqp.publish("", &format!("{}.tasks", one.prefix), task.to_string().as_bytes()));
    until_event(&amqp, &mut events, "turn_started");
    proxy.hole.store(true, Ordering::Relaxed);
    let _two = one.beside(&world, "two");
    let claimed = until_event(&amqp, &mut events, "claimed");
    assert_eq!(claimed.last().unwrap()["attempt"], 2, "{claimed:?}");
    until(Duration::from_secs(60), "the loser to be done", || {
        one.page("/metrics")
            .contains("cofferdam_session_stage_duration_seconds_count{stage=\"cleanup\"} 1")
            .then_some(())
    });
    proxy.hole.store(false, Ordering::Relaxed);
    let came = until_event(&amqp, &mut events, "finished");
    assert_eq!(came.last().unwrap()["attempt"], 2, "{came:?}");
    until(Duration::from_secs(60), "the loser to learn that it lost", || {
        one.log().contains("its end here is not told").then_some(())
    });
    assert!(!one.log().contains("session ended"), "{}", one.log());
    // Counted after it is logged.
    let page = until(Duration::from_secs(30), "the count of lost claims", || {
        let page = one.page("/metrics");
        page.contains("\ncofferdam_claims_lost_total 1\n").then_some(page)
    });
    assert!(!page.contains("reason=\"nothing_to_publish\"} 1"), "{page}");
}
