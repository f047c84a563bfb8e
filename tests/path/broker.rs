//! The daemon on a real RabbitMQ: tasks, duplicates, dead letters, control, a broker that is away, and the ways to stop.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{LAB, Ran, World, signal, until};
use crate::kit::{Amqp, Daemon, Proxy, broker, outcome, wait_for};
use crate::main_job::assert_main_job;

#[test]
fn a_task_from_rabbitmq_becomes_a_merge_request_and_a_pull_request() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    let amqp = Amqp::open();
    let mut events = amqp.listen(&format!("{}.events", daemon.prefix));
    let task = world.task("Greet.\n!write greeter/a.txt b\n!commit greeter One\n!write website/a.txt b\n!say ## Changes\\nA\\n## Approach\\nB\\n## Trade-offs\\nC");
    let ran = daemon.submit(&world, &task);
    assert_main_job(&world, &ran, &task["session"]);

    // The same events, as any other subscriber sees them.
    let mut seqs = Vec::new();
    loop {
        let delivery = amqp.next(&mut events);
        let event: Value = serde_json::from_slice(&delivery.data).unwrap();
        let kind = event["data"]["event"].as_str().unwrap();
        assert_eq!(
            delivery.routing_key.as_str(),
            format!("session.{}.{kind}", task["session"].as_str().unwrap())
        );
        assert_eq!(event["specversion"], "1.0");
        let content = delivery.properties.content_type().as_ref().unwrap().as_str().to_owned();
        assert!(content.starts_with("application/cloudevents+json"), "{content}");
        let progress = ["clone", "agent_message", "agent_thought", "agent_tool", "agent_plan"].contains(&kind);
        assert_eq!(delivery.properties.delivery_mode() == &Some(2), !progress, "{kind}");
        seqs.push(event["data"]["seq"].as_u64().unwrap());
        if kind == "finished" {
            break;
        }
    }
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    assert_eq!(amqp.count(&format!("{}.tasks", daemon.prefix)), 0);

    let metrics = daemon.page("/metrics");
    for sample in [
        "cofferdam_sessions_finished_total{agent=\"scripted\",outcome=\"success\",reason=\"published\"} 1",
        "cofferdam_amqp_connected 1",
        "cofferdam_sessions_finished_total{agent=\"other\",outcome=\"failure\",reason=\"agent_failed\"} 0",
        "cofferdam_amqp_publishes_total{result=\"confirmed\"}",
        "cofferdam_change_requests_total{action=\"open\",forge=\"gitlab\",result=\"done\"} 1",
        "cofferdam_change_requests_total{action=\"open\",forge=\"github\",result=\"done\"} 1",
        "cofferdam_change_requests_total{action=\"open\",forge=\"github\",result=\"failed\"} 0",
        "cofferdam_sandboxes_created_total 1",
        "cofferdam_mirror_refreshes_total{result=\"made\"} 2",
        "cofferdam_amqp_redeliveries_total 0",
        "cofferdam_claims_lost_total 0",
        "cofferdam_sessions_in_progress{stage=\"turn\"} 0",
    ] {
        assert!(metrics.contains(sample), "{sample} in {metrics}");
    }
}

#[test]
fn a_duplicate_runs_once_whether_it_comes_during_or_after() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    let task = world.lab_task("!write a.txt b\n!hang");
    let amqp = Amqp::open();
    let (_following, events) = daemon.submit_aside(&world, &task);
    wait_for(&events, "write a.txt");
    let tasks = format!("{}.tasks", daemon.prefix);
    let dropped = |what: &str, result: &str| {
        until(Duration::from_secs(20), what, || {
            let sample = format!("result=\"{result}\"}} 1");
            daemon.page("/metrics").contains(&sample).then_some(())
        });
    };
    assert!(amqp.publish("", &tasks, task.to_string().as_bytes()));
    dropped("the first duplicate was dropped", "elsewhere");
    daemon.cancel_turn(&task["session"]);
    assert_eq!(outcome(&events)["reason"], "published");
    assert!(amqp.publish("", &tasks, task.to_string().as_bytes()));
    dropped("the second duplicate was dropped", "over");
    assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
    world.assert_clean();
}

#[test]
fn what_is_no_task_is_dead_lettered_with_its_reason_and_the_worker_goes_on() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    let amqp = Amqp::open();
    let mut events = amqp.listen(&format!("{}.events", daemon.prefix));
    let (tasks, dead) = (format!("{}.tasks", daemon.prefix), format!("{}.dead", daemon.prefix));
    let mut unknown = world.lab_task("!say hi");
    unknown["projekts"] = json!([]);
    for (code, body) in [
        ("not_json", b"{nope".to_vec()),
        ("unknown_version", br#"{"version":7}"#.to_vec()),
        ("bad_field", unknown.to_string().into_bytes()),
    ] {
        let is_document = code != "not_json";
        assert!(amqp.publish("", &tasks, &body));
        let (found, properties) = until(Duration::from_secs(20), "a dead letter", || amqp.get(&dead));
        // What is no document could hold a token anywhere; of others the names of credentials are not kept.
        let kept: Value = serde_json::from_slice(&found).unwrap();
        if is_document {
            let mut sent: Value = serde_json::from_slice(&body).unwrap();
            let connections = sent.get_mut("connections").and_then(Value::as_object_mut);
            for (_, connection) in connections.into_iter().flatten() {
                connection["credential"]["env"] = json!("[MASKED]");
            }
            assert_eq!(kept, sent);
        } else {
            assert_eq!(kept["size"], body.len(), "{kept}");
        }
        let headers = properties.headers().as_ref().unwrap().inner();
        let header = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.as_long_string())
                .map(ToString::to_string)
                .unwrap_or_default()
        };
        assert_eq!(header("cofferdam-code"), code);
        assert!(!header("cofferdam-message").is_empty());
        let event: Value = serde_json::from_slice(&amqp.next(&mut events).data).unwrap();
        assert_eq!(
            (&event["data"]["event"], &event["data"]["code"]),
            (&json!("rejected"), &json!(code))
        );
    }
    // A task that is well formed and cannot be done is no dead letter.
    let mut nobody = world.lab_task("!say hi");
    nobody["connections"]["lab"]["credential"] = json!({"env": "COFFERDAM_TOKEN_NOBODY"});
    assert_eq!(daemon.submit(&world, &nobody).reason(), "credential_missing");
    assert_eq!(amqp.count(&dead), 0);
    assert_eq!(
        daemon.submit(&world, &world.lab_task("!say hi")).reason(),
        "nothing_to_publish"
    );
}

#[test]
fn control_messages_are_answered_and_end_a_session_either_way() {
    let world = World::new();
    let daemon = Daemon::start(&world, "[session]\ngrace_s = 2");
    let amqp = Amqp::open();
    let inbox = format!("{}.session.in", daemon.prefix);
    for (control, reason, files) in [
        (
            json!({"version": 1, "id": "c-1", "kind": "end", "publish": true}),
            "published",
            1,
        ),
        (
            json!({"version": 1, "id": "c-2", "kind": "cancel_turn"}),
            "published",
            2,
        ),
        (
            json!({"version": 1, "id": "c-3", "kind": "end", "publish": false}),
            "cancelled",
            2,
        ),
    ] {
        let task = world.lab_task("!write a.txt b\n!hang");
        let session = task["session"].as_str().unwrap().to_owned();
        let (_following, events) = daemon.submit_aside(&world, &task);
        wait_for(&events, "write a.txt");
        assert!(amqp.publish(&inbox, &session, br#"{"version":1,"id":"c-0","kind":"dance"}"#));
        wait_for(&events, "dance");
        assert!(amqp.publish(&inbox, &session, control.to_string().as_bytes()));
        assert_eq!(outcome(&events)["reason"], reason);
        let text = std::fs::read_to_string(&events).unwrap();
        assert!(
            text.contains(&format!("\"in_reply_to\":{},\"applied\":true", control["id"])),
            "{text}"
        );
        assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), files);
        until(Duration::from_secs(10), "no route to a session that is over", || {
            (!amqp.publish(&inbox, &session, control.to_string().as_bytes())).then_some(())
        });
        world.assert_clean();
    }
}

#[test]
fn a_broker_that_is_away_at_the_start_is_waited_for() {
    let world = World::new();
    let proxy = Proxy::new(false);
    let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
    let daemon = Daemon::begin(&world, &proxy.url(), &prefix, "");
    until(Duration::from_secs(20), "liveness", || {
        (daemon.status("/livez") == 200).then_some(())
    });
    assert_eq!(daemon.status("/readyz"), 503);
    assert!(daemon.page("/readyz").contains("broker"));
    proxy.open.store(true, Ordering::Relaxed);
    until(Duration::from_secs(30), "readiness", || {
        (daemon.status("/readyz") == 200).then_some(())
    });
    assert_eq!(
        daemon.submit(&world, &world.lab_task("!say hi")).reason(),
        "nothing_to_publish"
    );
}

#[test]
fn a_connection_lost_in_the_middle_costs_no_session() {
    let world = World::new();
    let proxy = Proxy::new(true);
    let daemon = Daemon::start_at(&world, &proxy.url(), "");
    let amqp = Amqp::open();
    let mut events = amqp.listen(&format!("{}.events", daemon.prefix));
    let task = world.lab_task("!write a.txt b\n!sleep 4000\n!say done");
    assert!(amqp.publish("", &format!("{}.tasks", daemon.prefix), task.to_string().as_bytes()));
    let mut next = || serde_json::from_slice::<Value>(&amqp.next(&mut events).data).unwrap();
    while next()["data"]["event"] != "turn_started" {}
    proxy.open.store(false, Ordering::Relaxed);
    until(Duration::from_secs(20), "unreadiness", || {
        (daemon.status("/readyz") == 503).then_some(())
    });
    proxy.open.store(true, Ordering::Relaxed);
    let last = loop {
        let event = next();
        if event["data"]["event"] == "finished" {
            break event;
        }
    };
    assert_eq!(last["data"]["outcome"]["reason"], "published", "{last}");
    assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
}

#[test]
fn sigterm_lets_sessions_finish_and_a_second_one_keeps_their_work() {
    let world = World::new();
    let mut daemon = Daemon::start(&world, "");
    let task = world.lab_task("!write a.txt b\n!hang");
    let (_following, events) = daemon.submit_aside(&world, &task);
    wait_for(&events, "write a.txt");
    signal(&daemon.process.0, "TERM");
    until(Duration::from_secs(10), "unreadiness", || {
        daemon.page("/readyz").contains("draining").then_some(())
    });
    daemon.cancel_turn(&task["session"]);
    assert_eq!(outcome(&events)["reason"], "published");
    assert_eq!(daemon.wait(), 0);

    let mut daemon = Daemon::start(&world, "[session]\ngrace_s = 1");
    let (_following, events) = daemon.submit_aside(&world, &world.lab_task("!write a.txt b\n!hang"));
    wait_for(&events, "write a.txt");
    signal(&daemon.process.0, "TERM");
    until(Duration::from_secs(10), "unreadiness", || {
        daemon.page("/readyz").contains("draining").then_some(())
    });
    signal(&daemon.process.0, "TERM");
    let outcome = outcome(&events);
    assert_eq!(outcome["reason"], "worker_stopped");
    assert!(outcome["projects"][0]["kept"].is_string(), "{outcome}");
    assert_eq!(daemon.wait(), 0);
    world.assert_clean();
}

#[test]
fn a_killed_worker_leaves_nothing_that_the_next_one_does_not_clear_and_keep() {
    let world = World::new();
    let mut daemon = Daemon::start(&world, "");
    let (_following, events) = daemon.submit_aside(
        &world,
        &world.lab_task("!write a.txt b\n!commit . One\n!shell git push -q\n!hang"),
    );
    wait_for(&events, "push_accepted");
    signal(&daemon.process.0, "KILL");
    daemon.wait();
    let daemon = Daemon::start(&world, "");
    world.assert_clean();
    let kept: Vec<_> = std::fs::read_dir(world.state_dir().join("kept"))
        .unwrap()
        .filter_map(Result::ok)
        .collect();
    assert!(
        kept.iter()
            .any(|entry| entry.file_name().to_string_lossy().ends_with(".bundle")),
        "{}",
        daemon.log()
    );
    until(Duration::from_secs(10), "a word of it in the log", || {
        daemon.log().contains("kept as a bundle").then_some(())
    });
}

#[test]
fn an_engine_that_is_away_is_told_by_readiness_doctor_and_outcome() {
    let world = World::new();
    let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
    let config = world.config(&format!(
        "[queue]\nurl = \"{}\"\nprefix = \"{prefix}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n",
        broker()
    ));
    let doctor = |socket: Option<&str>, amqp: Option<&str>| {
        let mut command = world.command(&config);
        command
            .env("COFFERDAM_LOG", "error,lapin=off")
            .args(["doctor", "--json"]);
        if let Some(socket) = socket {
            command.env("COFFERDAM__SANDBOX__DOCKER_SOCKET", socket);
        }
        if let Some(amqp) = amqp {
            command.env("COFFERDAM__QUEUE__URL", amqp);
        }
        let ran = Ran::of(command);
        (ran.exit, serde_json::from_str::<Value>(&ran.stdout).unwrap())
    };
    let (exit, found) = doctor(None, None);
    assert_eq!((exit, &found["ok"]), (0, &json!(true)), "{found}");
    for (socket, amqp, check) in [
        (Some("/nonexistent.sock"), None, "engine"),
        (None, Some("amqp://guest:guest@127.0.0.1:9/%2f"), "broker"),
    ] {
        let (exit, found) = doctor(socket, amqp);
        assert_eq!((exit, &found["ok"]), (69, &json!(false)), "{found}");
        let problems: Vec<&Value> = found["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["state"] == "problem")
            .collect();
        assert_eq!(problems.len(), 1, "{found}");
        assert_eq!(problems[0]["check"], check);
        assert!(problems[0]["remedy"].is_string());
    }
}

#[test]
fn schemas_are_json_schemas_and_the_example_task_is_one() {
    let world = World::new();
    for what in ["task", "control", "event", "config"] {
        let config = world.config("");
        let mut command = world.command(&config);
        command.args(["schema", what]);
        let ran = Ran::of(command);
        let schema: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(
            schema["$schema"], "https://json-schema.org/draft/2020-12/schema",
            "{what}"
        );
        assert!(schema["properties"].is_object(), "{what}");
    }
}

#[test]
fn a_task_that_nobody_takes_is_told_by_submit_and_one_that_comes_while_draining_stays() {
    let world = World::new();
    let mut daemon = Daemon::start(&world, "");
    let task = world.lab_task("!write a.txt b\n!hang");
    let (_following, events) = daemon.submit_aside(&world, &task);
    wait_for(&events, "write a.txt");
    signal(&daemon.process.0, "TERM");
    until(Duration::from_secs(10), "unreadiness", || {
        daemon.page("/readyz").contains("draining").then_some(())
    });
    let amqp = Amqp::open();
    let tasks = format!("{}.tasks", daemon.prefix);
    let late = world.lab_task("!say late");
    assert!(amqp.publish("", &tasks, late.to_string().as_bytes()));
    daemon.cancel_turn(&task["session"]);
    assert_eq!(outcome(&events)["reason"], "published");
    assert_eq!(daemon.wait(), 0);
    assert_eq!(amqp.count(&tasks), 1, "another worker will take it");

    // Without its queues there is nobody to send to: a worker declares them.
    let config = world.config(&format!(
        "[queue]\nurl = \"{}\"\nprefix = \"nobody-{}\"\n",
        broker(),
        uuid::Uuid::new_v4().simple()
    ));
    let mut command = world.command(&config);
    command
        .env("COFFERDAM_LOG", "error,lapin=off")
        .arg("submit")
        .arg(world.write_task(&late));
    let ran = Ran::of(command);
    assert_eq!(ran.exit, 69, "{}", ran.stderr);
    assert!(ran.stderr.contains("cofferdam run"), "{}", ran.stderr);
}
