//! An engine that stalls, dies and comes back: a proxy in front of its socket that accepts and says nothing.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{World, slowness, until};
use crate::kit::{Amqp, Daemon, outcome, wait_for};

const OPEN: u8 = 0;
/// New connections are taken, old ones kept, and nothing passes.
const STALLED: u8 = 1;
/// Connections end, and new ones end at once.
const AWAY: u8 = 2;

/// A way to the engine that can stall.
pub(crate) struct EngineProxy {
    path: PathBuf,
    state: Arc<AtomicU8>,
    /// What the questions have in them of which the answers are held back.
    mute: Arc<Mutex<Option<&'static str>>>,
}

impl EngineProxy {
    pub(crate) fn new(world: &World) -> Self {
        let path = world.directory.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(AtomicU8::new(OPEN));
        let muted = Arc::new(Mutex::new(None));
        let (gate, mute) = (state.clone(), muted.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                let (gate, mute) = (gate.clone(), mute.clone());
                std::thread::spawn(move || Self::carry(client, &gate, &mute));
            }
        });
        Self {
            path,
            state,
            mute: muted,
        }
    }

    fn carry(client: UnixStream, gate: &Arc<AtomicU8>, mute: &Arc<Mutex<Option<&'static str>>>) {
        while gate.load(Ordering::Relaxed) == STALLED {
            std::thread::sleep(Duration::from_millis(20));
        }
        let Ok(server) = UnixStream::connect("/var/run/docker.sock") else {
            return;
        };
        let is_muted = Arc::new(AtomicBool::new(false));
        for (asks, mut from, mut to) in [
            (true, client.try_clone().unwrap(), server.try_clone().unwrap()),
            (false, server, client),
        ] {
            let (gate, mute, is_muted) = (gate.clone(), mute.clone(), is_muted.clone());
            from.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0_u8; 16 * 1024];
                loop {
                    match gate.load(Ordering::Relaxed) {
                        OPEN => {}
                        AWAY => break,
                        _ => {
                            std::thread::sleep(Duration::from_millis(20));
                            continue;
                        }
                    }
                    match std::io::Read::read(&mut from, &mut buffer) {
                        Ok(0) => break,
                        Ok(count) => {
                            if asks {
                                // Each question is its first bytes, and a connection may carry several.
                                let asked = String::from_utf8_lossy(&buffer[..count]).into_owned();
                                let is_it = mute.lock().unwrap().is_some_and(|what| asked.contains(what));
                                is_muted.store(is_it, Ordering::Relaxed);
                            }
                            if !asks && is_muted.load(Ordering::Relaxed) {
                                continue;
                            }
                            while gate.load(Ordering::Relaxed) == STALLED {
                                std::thread::sleep(Duration::from_millis(20));
                            }
                            if std::io::Write::write_all(&mut to, &buffer[..count]).is_err() {
                                break;
                            }
                        }
                        Err(error)
                            if matches!(
                                error.kind(),
                                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                            ) => {}
                        Err(_) => break,
                    }
                }
                let _ = to.shutdown(std::net::Shutdown::Both);
                let _ = from.shutdown(std::net::Shutdown::Both);
            });
        }
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }

    /// From now on the answers to questions with this in them are held back.
    pub(crate) fn mute(&self, what: &'static str) {
        *self.mute.lock().unwrap() = Some(what);
    }

    /// The worker's configuration through this proxy. Keys of `[sandbox]` come from the environment, because that section stands already.
    pub(crate) fn daemon(&self, world: &World, more: &str) -> Daemon {
        Daemon::start_in(
            world,
            more,
            &[
                ("COFFERDAM__SANDBOX__DOCKER_SOCKET", self.path.to_str().unwrap()),
                // A machine that is slow is no engine that is away.
                ("COFFERDAM__SANDBOX__CALL_TIMEOUT_S", &(4 * slowness()).to_string()),
            ],
        )
    }
}

fn unready(daemon: &Daemon) {
    until(Duration::from_secs(45), "unreadiness", || {
        (daemon.status("/readyz") == 503).then_some(())
    });
    assert!(daemon.page("/readyz").contains("engine"), "{}", daemon.page("/readyz"));
}

fn ready(daemon: &Daemon) {
    until(Duration::from_secs(30), "readiness", || {
        (daemon.status("/readyz") == 200).then_some(())
    });
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn a_stalled_engine_makes_the_worker_unready_and_tasks_wait_until_it_is_back() {
    let world = World::new();
    let proxy = EngineProxy::new(&world);
    let daemon = proxy.daemon(&world, "");
    let amqp = Amqp::open();
    for state in [STALLED, AWAY] {
        proxy.set(state);
        let stalled = Instant::now();
        unready(&daemon);
        eprintln!("unready {} ms after the engine was gone", stalled.elapsed().as_millis());
        assert_eq!(daemon.status("/livez"), 200);
        let tasks = format!("{}.tasks", daemon.prefix);
        let (_following, events) = daemon.submit_aside(&world, &world.lab_task("!say hi"));
        // Nobody takes it: it is ready in the queue, not in a worker's hands.
        until(Duration::from_secs(10), "the task waits", || {
            (amqp.count(&tasks) == 1).then_some(())
        });
        assert_eq!(std::fs::read_to_string(&events).unwrap(), "");
        proxy.set(OPEN);
        ready(&daemon);
        assert_eq!(outcome(&events)["reason"], "nothing_to_publish");
    }
    world.assert_clean();
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn a_session_goes_on_while_the_engine_is_away_and_is_cleaned_up_when_it_is_back() {
    for state in [STALLED, AWAY] {
        let world = World::new();
        let proxy = EngineProxy::new(&world);
        let daemon = proxy.daemon(&world, "");
        let (_following, events) = daemon.submit_aside(&world, &world.lab_task("!write a.txt b\n!sleep 6000"));
        wait_for(&events, "turn_started");
        proxy.set(state);
        // Its end does not wait for the engine longer than a call may take.
        let outcome = outcome(&events);
        assert_eq!(outcome["reason"], "published", "{outcome}");
        assert_eq!(world.sandboxes().len(), 1, "nobody could remove it");
        proxy.set(OPEN);
        until(Duration::from_secs(45), "the sandbox is gone", || {
            world.sandboxes().is_empty().then_some(())
        });
        until(Duration::from_secs(45), "its directory too", || {
            let entries = std::fs::read_dir(world.state_dir().join("sandboxes")).unwrap();
            (entries.count() == 0).then_some(())
        });
        world.assert_clean();
    }
}

/// What the engine ends when it comes back: nobody told the worker.
fn kill(sandbox: &str) {
    let output = std::process::Command::new("docker")
        .args(["kill", sandbox])
        .output()
        .unwrap();
    assert!(output.status.success());
}

/// Of all events of this kind, the newest last. Of the last line there may be no more than a beginning.
fn all(events: &std::path::Path, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(events).unwrap();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|event| event["data"]["event"] == kind).collect()
}

/// Waits until the agent of this attempt has said something.
fn agent_is_ready(events: &std::path::Path, attempt: u32) {
    until(Duration::from_secs(60), "the agent", || {
        let said = all(events, "agent_message");
        said.iter()
            .any(|event| event["data"]["attempt"] == attempt)
            .then_some(())
    });
}

#[test]
fn a_session_that_loses_its_sandbox_with_the_engine_begins_anew_when_that_is_back() {
    for state in [STALLED, AWAY] {
        let world = World::new();
        let proxy = EngineProxy::new(&world);
        let daemon = proxy.daemon(&world, "");
        let task = world.lab_task("!write a.txt b\n!say ready\n!hang");
        let (_following, events) = daemon.submit_aside(&world, &task);
        agent_is_ready(&events, 1);
        let sandboxes = world.sandboxes();
        proxy.set(state);
        let killed = Instant::now();
        kill(&sandboxes[0]);
        wait_for(&events, "suspended");
        eprintln!("handed on {} ms after the sandbox's end", killed.elapsed().as_millis());
        assert!(
            killed.elapsed() < Duration::from_secs(30) * slowness(),
            "{:?}",
            killed.elapsed()
        );
        // Nobody burns the attempts at an engine that is not there: the task waits in its queue.
        let tasks = format!("{}.tasks", daemon.prefix);
        let amqp = Amqp::open();
        until(Duration::from_secs(10), "the next attempt waits", || {
            (amqp.count(&tasks) == 1).then_some(())
        });
        unready(&daemon);
        proxy.set(OPEN);
        agent_is_ready(&events, 2);
        daemon.cancel_turn(&task["session"]);
        let outcome = outcome(&events);
        assert_eq!(outcome["reason"], "published", "{outcome}");
        let suspended = all(&events, "suspended");
        assert_eq!(suspended.len(), 1, "{suspended:?}");
        assert_eq!(suspended[0]["data"]["queued"], true, "{suspended:?}");
        let message = suspended[0]["data"]["message"].as_str().unwrap();
        assert!(message.contains("engine went away"), "{message}");
        let claimed: Vec<Value> = all(&events, "claimed")
            .iter()
            .map(|event| event["data"]["attempt"].clone())
            .collect();
        assert_eq!(claimed, [json!(1), json!(2)]);
        assert_eq!(all(&events, "change_request_opened").len(), 1);
        until(Duration::from_secs(45), "the sandboxes are gone", || {
            world.sandboxes().is_empty().then_some(())
        });
        world.assert_clean();
    }
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn an_engine_that_is_lost_in_every_attempt_ends_the_session() {
    let world = World::new();
    let proxy = EngineProxy::new(&world);
    let daemon = proxy.daemon(&world, "[session]\nmost_takeovers = 1");
    let task = world.lab_task("!write a.txt b\n!say ready\n!hang");
    let (_following, events) = daemon.submit_aside(&world, &task);
    let mut killed = Vec::new();
    for attempt in 1..=2 {
        agent_is_ready(&events, attempt);
        proxy.set(AWAY);
        for sandbox in world.sandboxes() {
            // The first one may still be listed: nobody could remove it.
            if !killed.contains(&sandbox) {
                kill(&sandbox);
                killed.push(sandbox);
            }
        }
        if attempt == 1 {
            wait_for(&events, "suspended");
        } else {
            outcome(&events);
        }
        proxy.set(OPEN);
    }
    let outcome = outcome(&events);
    assert_eq!(outcome["reason"], "sandbox_unavailable", "{outcome}");
    assert!(
        outcome["message"].as_str().unwrap().contains("send the task again"),
        "{outcome}"
    );
    assert_eq!(all(&events, "suspended").len(), 1);
    until(Duration::from_secs(45), "the sandboxes are gone", || {
        world.sandboxes().is_empty().then_some(())
    });
}

/// The end of a sandbox where the engine does not answer one kind of question.
fn killed_while_mute(what: &'static str) {
    let world = World::new();
    let proxy = EngineProxy::new(&world);
    proxy.mute(what);
    let daemon = proxy.daemon(&world, "");
    let (_following, events) = daemon.submit_aside(&world, &world.lab_task("!write a.txt b\n!hang"));
    wait_for(&events, "turn_started");
    let output = std::process::Command::new("docker")
        .args(["kill", &world.sandboxes()[0]])
        .output()
        .unwrap();
    assert!(output.status.success());
    let outcome = outcome(&events);
    assert_eq!(outcome["reason"], "sandbox_failed", "{outcome}");
    // With the status, which only the engine knows: the connection that broke says less.
    assert!(outcome["message"].as_str().unwrap().contains("status 137"), "{outcome}");
    *proxy.mute.lock().unwrap() = None;
    until(Duration::from_secs(60), "the sandbox is gone", || {
        world.sandboxes().is_empty().then_some(())
    });
}

#[test]
fn an_end_that_the_engine_s_events_do_not_tell_is_seen_among_all_containers() {
    killed_while_mute("/events?");
}

#[test]
fn an_end_that_is_not_seen_among_all_containers_is_told_by_the_engine_s_events() {
    // The way in which only a look for ended ones asks.
    killed_while_mute("exited");
}

#[test]
fn a_start_that_stalls_is_tried_again_and_leaves_nothing() {
    let world = World::new();
    let proxy = EngineProxy::new(&world);
    let daemon = proxy.daemon(&world, "");
    // The mirror is slow, so that the engine is gone when the sandbox is to be started.
    let fault = json!({"match": {"method": "POST", "path_contains": "git-upload-pack"}, "delay_ms": 6000, "times": 1});
    world.ask("POST", "/_test/faults", Some(&fault));
    let (_following, events) = daemon.submit_aside(&world, &world.lab_task("!write a.txt b"));
    wait_for(&events, "\"stage\":\"mirror\"");
    proxy.set(STALLED);
    wait_for(&events, "suspended");
    proxy.set(OPEN);
    let outcome = outcome(&events);
    assert_eq!(outcome["reason"], "published", "{outcome}");
    until(Duration::from_secs(60), "nothing is left", || {
        world.sandboxes().is_empty().then_some(())
    });
}
