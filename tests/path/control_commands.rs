//! Steering a session from a terminal: what the commands print, and the exit codes.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Process, Ran, World, signal};
use crate::kit::{Daemon, outcome, wait_for};

fn ran(daemon: &Daemon, world: &World, words: &[&str]) -> Ran {
    Ran::of(daemon.command(world, words))
}

#[test]
fn a_session_is_steered_from_a_terminal() {
    let world = World::new();
    let daemon = Daemon::start(&world, "[session]\ngrace_s = 1");
    let task = world.lab_task("!write a.txt b\n!hang");
    let session = task["session"].as_str().unwrap();
    let (_following, events) = daemon.submit_aside(&world, &task);
    wait_for(&events, "write a.txt");
    let mut watching = daemon.command(&world, &["watch", session, "--json"]);
    let seen = world.directory.path().join("watched");
    watching
        .stdout(std::fs::File::create(&seen).unwrap())
        .stderr(Stdio::null());
    let mut watching = Process(watching.spawn().unwrap());

    // Refused before it is sent.
    for wrong in [
        &["prompt", session, "  "][..],
        &["add-project", session, "--connection", "lab", ".."],
    ] {
        let ran = ran(&daemon, &world, wrong);
        assert_eq!(ran.exit, 65, "{wrong:?} {}", ran.stderr);
    }
    // Whatever the answer is, it comes, and the exit code says which it was.
    let again = ran(
        &daemon,
        &world,
        &["add-project", session, "--connection", "nobody", "a/b", "--json"],
    );
    let answer: Value = serde_json::from_str(again.stdout.trim()).unwrap_or_else(|_| panic!("{}", again.stderr));
    assert_eq!(answer["data"]["event"], "control_answered");
    assert_eq!((answer["data"]["applied"].as_bool(), again.exit), (Some(false), 1));
    let refused = ran(
        &daemon,
        &world,
        &["add-project", session, "--connection", "nobody", "a/b"],
    );
    assert_eq!((refused.exit, refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.contains("refused: "), "{}", refused.stderr);

    // A watcher that came late may have missed the beginning; it must not miss the end.
    until_watching(&daemon, &world, session, &seen);
    let ended = ran(&daemon, &world, &["end", session, "--discard"]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("nothing more is published"), "{}", ended.stdout);
    assert_eq!(outcome(&events)["reason"], "cancelled");
    let status = crate::harness::until(std::time::Duration::from_secs(30), "the end of watch", || {
        watching.0.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(5));
    let watched = std::fs::read_to_string(&seen).unwrap();
    assert!(
        watched.trim_end().ends_with('}') && watched.contains("\"event\":\"finished\""),
        "{watched}"
    );
}

/// Sends what is refused until the watcher shows that it came: then it is there.
fn until_watching(daemon: &Daemon, world: &World, session: &str, seen: &std::path::Path) {
    crate::harness::until(std::time::Duration::from_secs(60), "the watcher", || {
        ran(
            daemon,
            world,
            &["add-project", session, "--connection", "nobody", "a/b"],
        );
        std::fs::read_to_string(seen)
            .unwrap()
            .contains("control_answered")
            .then_some(())
    });
}

#[test]
fn a_session_that_is_not_there_and_one_that_nobody_takes_are_told_apart() {
    let world = World::new();
    let mut daemon = Daemon::start(&world, "");
    let nobody = uuid::Uuid::new_v4().to_string();
    for words in [
        &["prompt", nobody.as_str(), "more"][..],
        &["cancel", nobody.as_str(), "--no-wait"],
        &["end", nobody.as_str()],
    ] {
        let ran = ran(&daemon, &world, words);
        assert_eq!(ran.exit, 69, "{words:?}");
        assert!(
            ran.stderr.contains("no worker has the session") && ran.stderr.contains("`resume`"),
            "{}",
            ran.stderr
        );
    }
    signal(&daemon.process.0, "TERM");
    daemon.wait();
    let task = world.lab_task("!say hi");
    let session = task["session"].as_str().unwrap();
    let mut submit = daemon.command(&world, &["submit"]);
    submit.arg(world.write_task(&task));
    assert_eq!(Ran::of(submit).exit, 0);
    // From standard input, and nobody is there to answer.
    let mut command = daemon.command(&world, &["prompt", session, "-", "--steer", "--wait", "1"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"!say more").unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("waits for a worker"), "{stderr}");

    // A broker that cannot be reached is not a session that is over.
    let mut away = daemon.command(&world, &["cancel", session]);
    away.env("COFFERDAM__QUEUE__URL", "amqp://guest:guest@127.0.0.1:9/%2f");
    let away = Ran::of(away);
    assert_eq!(away.exit, 69);
    assert!(away.stderr.contains("cannot be reached"), "{}", away.stderr);
}
