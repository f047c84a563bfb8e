//! An engine that stalls, dies and comes back: a proxy in front of its socket that accepts and says nothing.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{World, until};
use crate::kit::{Amqp, Daemon, outcome, wait_for};

const OPEN: u8 = 0;
/// New connections are taken, old ones kept, and nothing passes.
const STALLED: u8 = 1;
/// Connections end, and new ones end at once.
const AWAY: u8 = 2;

/// A way to the engine that can stall.
struct EngineProxy {
    path: PathBuf,
    state: Arc<AtomicU8>,
    /// Whether answers to the question for a container's end are held back.
    mute_waits: Arc<AtomicBool>,
}

impl EngineProxy {
    fn new(world: &World) -> Self {
        let path = world.directory.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(AtomicU8::new(OPEN));
        let mute_waits = Arc::new(AtomicBool::new(false));
        let (gate, mute) = (state.clone(), mute_waits.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                let (gate, mute) = (gate.clone(), mute.clone());
                std::thread::spawn(move || Self::carry(client, &gate, &mute));
            }
        });
        Self {
            path,
            state,
            mute_waits,
        }
    }

    fn carry(client: UnixStream, gate: &Arc<AtomicU8>, mute: &Arc<AtomicBool>) {
        while gate.load(Ordering::Relaxed) == STALLED {
            std::thread::sleep(Duration::from_millis(20));
        }
        let Ok(server) = UnixStream::connect("/var/run/docker.sock") else {
            return;
        };
        let waits = Arc::new(AtomicBool::new(false));
        for (asks, mut from, mut to) in [
            (true, client.try_clone().unwrap(), server.try_clone().unwrap()),
            (false, server, client),
        ] {
            let (gate, mute, waits) = (gate.clone(), mute.clone(), waits.clone());
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
                            if asks && String::from_utf8_lossy(&buffer[..count]).contains("/wait") {
                                waits.store(true, Ordering::Relaxed);
                            }
                            if !asks && waits.load(Ordering::Relaxed) && mute.load(Ordering::Relaxed) {
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

    /// The worker's configuration through this proxy. Keys of `[sandbox]` come from the environment, because that section stands already.
    fn daemon(&self, world: &World, more: &str) -> Daemon {
        Daemon::start_in(
            world,
            more,
            &[
                ("COFFERDAM__SANDBOX__DOCKER_SOCKET", self.path.to_str().unwrap()),
                ("COFFERDAM__SANDBOX__CALL_TIMEOUT_S", "4"),
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

#[test]
fn a_sandbox_that_ends_while_the_engine_says_nothing_ends_its_session_within_limits() {
    let world = World::new();
    let proxy = EngineProxy::new(&world);
    let daemon = proxy.daemon(&world, "");
    let (_following, events) = daemon.submit_aside(&world, &world.lab_task("!write a.txt b\n!hang"));
    wait_for(&events, "turn_started");
    let sandboxes = world.sandboxes();
    proxy.set(STALLED);
    let killed = Instant::now();
    let output = std::process::Command::new("docker")
        .args(["kill", &sandboxes[0]])
        .output()
        .unwrap();
    assert!(output.status.success());
    let outcome: Value = outcome(&events);
    assert_eq!(outcome["reason"], json!("sandbox_failed"), "{outcome}");
    eprintln!(
        "the session ended {} ms after its sandbox",
        killed.elapsed().as_millis()
    );
    assert!(killed.elapsed() < Duration::from_secs(30), "{:?}", killed.elapsed());
    proxy.set(OPEN);
    until(Duration::from_secs(45), "the sandbox is gone", || {
        world.sandboxes().is_empty().then_some(())
    });
}

#[test]
fn an_end_that_waiting_does_not_tell_is_told_by_the_engine_s_events() {
    let world = World::new();
    let proxy = EngineProxy::new(&world);
    proxy.mute_waits.store(true, Ordering::Relaxed);
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
    until(Duration::from_secs(30), "the sandbox is gone", || {
        world.sandboxes().is_empty().then_some(())
    });
}

#[test]
fn a_start_that_stalls_ends_its_session_and_leaves_nothing() {
    let world = World::new();
    let proxy = EngineProxy::new(&world);
    let daemon = proxy.daemon(&world, "");
    // The mirror is slow, so that the engine is gone when the sandbox is to be started.
    let fault = json!({"match": {"method": "POST", "path_contains": "git-upload-pack"}, "delay_ms": 2000, "times": 1});
    world.ask("POST", "/_test/faults", Some(&fault));
    let (_following, events) = daemon.submit_aside(&world, &world.lab_task("!write a.txt b"));
    wait_for(&events, "\"stage\":\"mirror\"");
    proxy.set(STALLED);
    let outcome = outcome(&events);
    assert_eq!(outcome["reason"], "sandbox_unavailable", "{outcome}");
    proxy.set(OPEN);
    until(Duration::from_secs(60), "nothing is left", || {
        world.sandboxes().is_empty().then_some(())
    });
}
