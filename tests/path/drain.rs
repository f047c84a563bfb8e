//! How a worker ends: by command, in a hurry, after what it was started for; and what an operator sees of it meanwhile.

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{LAB, Process, Ran, World, signal, slowness, until};
use crate::kit::{Amqp, Daemon, Proxy, outcome, wait_for};

fn operate(world: &World, daemon: &Daemon, arguments: &[&str]) -> Ran {
    let mut command = world.command(&daemon.config);
    command.args(arguments);
    Ran::of(command)
}

#[test]
fn drain_by_command_lets_sessions_end_and_leaves_the_rest_to_others() {
    let world = World::new();
    let mut daemon = Daemon::start_in(&world, "", &[("COFFERDAM__DRAIN_S", "60")]);
    let amqp = Amqp::open();
    let task = world.lab_task("!write a.txt b\n!hang");
    let (_following, events) = daemon.submit_aside(&world, &task);
    wait_for(&events, "write a.txt");

    let shown = operate(&world, &daemon, &["sessions", "--json"]);
    let status: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((shown.exit, &status["not_ready"]), (0, &json!([])));
    let [session] = status["sessions"].as_array().unwrap().as_slice() else {
        panic!("one session runs: {status}");
    };
    assert_eq!(
        (&session["session"], &session["stage"], &session["attempt"]),
        (&task["session"], &json!("turn"), &json!(1))
    );
    assert!(
        session["age_s"].as_u64().unwrap() < u64::from(60 * slowness()),
        "{session}"
    );
    let told = operate(&world, &daemon, &["sessions"]).stdout;
    assert!(
        told.contains("ready; 1 of 4 sessions") && told.contains("turn"),
        "{told}"
    );

    let drained = operate(&world, &daemon, &["drain"]);
    assert_eq!(drained.exit, 0, "{}", drained.stderr);
    assert!(
        drained.stdout.contains("1 session runs on, for 60 s at most"),
        "{}",
        drained.stdout
    );
    assert_eq!(daemon.status("/readyz"), 503);
    assert!(daemon.page("/readyz").contains("draining"));
    assert_eq!(daemon.status("/livez"), 200);
    let tasks = format!("{}.tasks", daemon.prefix);
    assert!(amqp.publish("", &tasks, world.lab_task("!say late").to_string().as_bytes()));
    let told = world.directory.path().join("told");
    let mut waiting = world.command(&daemon.config);
    waiting
        .args(["drain", "--wait"])
        .stdout(std::fs::File::create(&told).unwrap())
        .stderr(Stdio::null());
    let mut waiting = Process(waiting.spawn().unwrap());
    wait_for(&told, "takes no more tasks");
    assert!(waiting.0.try_wait().unwrap().is_none(), "it waits for the session");
    daemon.cancel_turn(&task["session"]);
    let waited = until(Duration::from_secs(60), "the end of the wait", || {
        waiting.0.try_wait().unwrap()
    });
    assert_eq!(waited.code(), Some(0));
    // Its socket goes a moment before the process.
    assert_eq!(daemon.wait(), 0);
    assert_eq!(outcome(&events)["reason"], "published");
    assert_eq!(amqp.count(&tasks), 1, "what was not claimed is for others");
    world.assert_clean();

    let nobody = operate(&world, &daemon, &["drain"]);
    assert_eq!(nobody.exit, 69);
    assert!(
        nobody.stderr.contains("no worker runs with state_dir") && nobody.stderr.contains("cofferdam run"),
        "{}",
        nobody.stderr
    );
}

#[test]
fn a_second_word_ends_the_sessions_with_their_work_kept() {
    // By command and by signal, the same.
    for by_command in [true, false] {
        let world = World::new();
        let mut daemon = Daemon::start_in(&world, "", &[("COFFERDAM__DRAIN_S", "3000")]);
        let task = world.lab_task("!write a.txt b\n!commit . One\n!shell git push -q\n!hang");
        let (_following, events) = daemon.submit_aside(&world, &task);
        wait_for(&events, "push_accepted");
        if by_command {
            assert_eq!(operate(&world, &daemon, &["drain"]).exit, 0);
            let hurried = operate(&world, &daemon, &["drain", "--hurry", "--wait"]);
            assert_eq!(hurried.exit, 0, "{}", hurried.stderr);
        } else {
            signal(&daemon.process.0, "TERM");
            until(Duration::from_secs(10), "the drain", || {
                (daemon.status("/readyz") == 503).then_some(())
            });
            signal(&daemon.process.0, "TERM");
        }
        assert_eq!(daemon.wait(), 0);
        let outcome = outcome(&events);
        assert_eq!(outcome["reason"], "worker_stopped", "{outcome}");
        let kept = outcome["projects"][0]["kept"].as_str().unwrap();
        assert!(world.state_dir().join("kept").join(kept).exists());
        world.assert_clean();
    }
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn a_worker_that_drains_without_a_broker_keeps_its_work_before_it_goes() {
    let world = World::new();
    let proxy = Proxy::new(true);
    let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
    let world = world.variable("COFFERDAM__DRAIN_S", "0");
    let mut daemon = Daemon::begin(&world, &proxy.url(), &prefix, "[progress]\nfinal_event_limit_s = 5");
    until(Duration::from_secs(30), "readiness", || {
        (daemon.status("/readyz") == 200).then_some(())
    });
    let task = world.lab_task("!write a.txt b\n!commit . One\n!sleep 4000");
    let amqp = Amqp::open();
    assert!(amqp.publish("", &format!("{prefix}.tasks"), task.to_string().as_bytes()));
    until(Duration::from_secs(60), "the turn", || {
        daemon.page("/metrics").contains("stage=\"turn\"} 1").then_some(())
    });
    proxy.hole.store(true, Ordering::Relaxed);
    until(Duration::from_secs(60), "work to publish", || {
        daemon.page("/metrics").contains("stage=\"publish\"} 1").then_some(())
    });
    signal(&daemon.process.0, "TERM");
    assert_eq!(daemon.wait(), 0, "{}", daemon.log());
    assert!(!daemon.log().contains("did not end in their time"), "{}", daemon.log());
    let kept = std::fs::read_dir(world.state_dir().join("kept")).unwrap();
    let bundles = kept.filter(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "bundle");
    assert_eq!(bundles.count(), 1, "{}", daemon.log());
    assert!(
        !world
            .ask("GET", "/_test/requests", None)
            .to_string()
            .contains("receive-pack")
    );
    world.assert_clean();
}

#[test]
fn a_worker_for_one_session_ends_with_its_exit_code_and_takes_no_other() {
    for (prompt, base, exit) in [("!write a.txt b", "main", 0), ("!say hi", "no-such-branch", 1)] {
        let world = World::new();
        let mut daemon = Daemon::start_with(&world, "", &["--once"]);
        let amqp = Amqp::open();
        let tasks = format!("{}.tasks", daemon.prefix);
        // What is no task is no session either.
        assert!(amqp.publish("", &tasks, b"{nope"));
        let mut task = world.lab_task(prompt);
        task["projects"][0]["base"] = json!(base);
        for task in [&task, &world.lab_task("!say second")] {
            assert!(amqp.publish("", &tasks, task.to_string().as_bytes()));
        }
        assert_eq!(daemon.wait(), exit, "{}", daemon.log());
        assert_eq!(amqp.count(&tasks), 1);
        assert_eq!(amqp.count(&format!("{}.dead", daemon.prefix)), 1);
        world.assert_clean();
    }
}

#[test]
fn a_worker_for_some_sessions_runs_them_side_by_side_and_no_more() {
    let world = World::new();
    let mut daemon = Daemon::start_with(&world, "", &["--max-sessions", "2"]);
    let amqp = Amqp::open();
    let tasks = format!("{}.tasks", daemon.prefix);
    for _ in 0..3 {
        assert!(amqp.publish("", &tasks, world.lab_task("!sleep 2000").to_string().as_bytes()));
    }
    assert_eq!(daemon.wait(), 0, "{}", daemon.log());
    assert_eq!(amqp.count(&tasks), 1);
    assert_eq!(daemon.log().matches("session ended").count(), 2);
    world.assert_clean();
}

#[test]
fn an_idle_worker_ends_and_a_busy_one_does_not() {
    let world = World::new();
    let mut daemon = Daemon::start(&world, "");
    // Its queues stay, and the task is there before the worker that shall not be idle.
    signal(&daemon.process.0, "TERM");
    daemon.wait();
    let (_following, events) = daemon.submit_aside(&world, &world.lab_task("!write a.txt b\n!sleep 8000"));
    let (amqp, tasks) = (Amqp::open(), format!("{}.tasks", daemon.prefix));
    until(Duration::from_secs(30), "the task in its queue", || {
        (amqp.count(&tasks) == 1).then_some(())
    });
    let mut daemon = daemon.again_with(&world, &["--idle-timeout", "4"]);
    assert_eq!(outcome(&events)["reason"], "published");
    assert_eq!(daemon.wait(), 0);
    assert!(daemon.log().contains("no task came"), "{}", daemon.log());
    assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
}

/// `exec` on a task that hangs, with work in staging.
fn hanging_exec(world: &World) -> (Process, std::path::PathBuf, std::path::PathBuf) {
    let config = world.config("[session]\ngrace_s = 20");
    let (events, log) = (
        world.directory.path().join("events"),
        world.directory.path().join("log"),
    );
    // It does not stop when it is asked to: what ends the session before the grace is over is the second signal.
    let task = world.lab_task("!write a.txt b\n!commit . One\n!shell git push -q\n!hang-hard");
    let mut command: Command = world.command(&config);
    command.args(["exec", "--json"]).arg(world.write_task(&task));
    command
        .stdout(std::fs::File::create(&events).unwrap())
        .stderr(std::fs::File::create(&log).unwrap());
    let child = Process(command.spawn().unwrap());
    wait_for(&events, "push_accepted");
    // It says so when it has begun to hang.
    wait_for(&events, "agent_message");
    (child, events, log)
}

#[test]
fn a_second_ctrl_c_ends_exec_at_once_and_the_next_start_keeps_the_work() {
    let world = World::new();
    let (mut child, events, log) = hanging_exec(&world);
    signal(&child.0, "INT");
    wait_for(&log, "once more ends it at once");
    signal(&child.0, "INT");
    let status = until(Duration::from_secs(12), "the end", || child.0.try_wait().unwrap());
    let text = std::fs::read_to_string(&events).unwrap();
    if text.contains("\"event\":\"finished\"") {
        panic!("the session ended by itself before the second signal; nothing was tested: {text}");
    }
    assert_eq!(status.code(), Some(5));
    assert_eq!(world.sandboxes(), Vec::<String>::new());
    let next = world.exec(&world.lab_task("!say hi"));
    assert_eq!(next.reason(), "nothing_to_publish", "{}", next.stderr);
    let kept = std::fs::read_dir(world.state_dir().join("kept")).unwrap();
    assert_eq!(
        kept.filter(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "bundle")
            .count(),
        1
    );
    world.assert_clean();
}
