//! What a service manager hears of a worker, over a real socket.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use crate::harness::{World, signal, until};
use crate::kit::{Daemon, Proxy};
use crate::talk::Talk;

/// The manager's end: its socket, and all that came.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn of(world: &World) -> Self {
        let socket = UnixDatagram::bind(world.directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self {
            socket,
            heard: Vec::new(),
        }
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            self.heard.extend(text.lines().map(str::to_owned));
        }
    }

    /// Listens until something beginning with `words` was heard.
    fn hear(&mut self, words: &str) {
        until(Duration::from_secs(30), words, || {
            self.listen();
            self.heard.iter().any(|one| one.starts_with(words)).then_some(())
        });
    }

    fn count(&self, word: &str) -> usize {
        self.heard.iter().filter(|one| *one == word).count()
    }
}

#[test]
fn a_service_manager_hears_when_the_worker_is_up_that_it_lives_and_when_it_stops() {
    let world = World::new();
    let mut manager = Manager::of(&world);
    let socket = world.directory.path().join("notify");
    let world = world
        .variable("NOTIFY_SOCKET", socket.to_str().unwrap())
        .variable("WATCHDOG_USEC", "2000000")
        .variable("COFFERDAM__DRAIN_S", "60");
    let proxy = Proxy::new(false);
    let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
    let mut daemon = Daemon::begin(&world, &proxy.url(), &prefix, "");

    manager.hear("STATUS=the broker is away");
    // Long enough for the engine to have answered.
    until(Duration::from_secs(30), "the engine", || {
        daemon.page("/readyz").starts_with("the broker is away\n").then_some(())
    });
    manager.listen();
    assert_eq!(manager.count("READY=1"), 0, "{:?}", manager.heard);

    proxy.open.store(true, Ordering::Relaxed);
    manager.hear("READY=1");
    manager.hear("STATUS=takes tasks; 0 of 4 sessions");

    let talk = Talk::begin(&world, &daemon, &world.lab_task("!write a.txt b\n!hang"));
    // From here on always with an ear open: a socket holds ten words, and a worker that cannot say another waits until one is taken.
    until(Duration::from_secs(60), "the turn", || {
        manager.listen();
        (!talk.of("turn_started").is_empty()).then_some(())
    });
    manager.hear("STATUS=takes tasks; 1 of 4 sessions");
    // Four of its times without a session's work holding it up.
    let before = manager.count("WATCHDOG=1");
    until(Duration::from_secs(8), "a ping in each of its times", || {
        manager.listen();
        (manager.count("WATCHDOG=1") >= before + 4).then_some(())
    });

    signal(&daemon.process.0, "TERM");
    manager.hear("STOPPING=1");
    // Its session goes on until then.
    manager.hear("STATUS=draining");
    talk.post("e-1", json!({"kind": "end"}));
    let status = until(Duration::from_secs(90), "the end of the worker", || {
        manager.listen();
        daemon.process.0.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(0));
    manager.listen();
    let once = ["READY=1", "STOPPING=1"].map(|word| manager.count(word));
    assert_eq!(once, [1, 1], "{:?}", manager.heard);
}

#[test]
fn a_service_manager_that_is_gone_changes_nothing() {
    let world = World::new();
    let nowhere = world.directory.path().join("nowhere");
    let world = world
        .variable("NOTIFY_SOCKET", nowhere.to_str().unwrap())
        .variable("WATCHDOG_USEC", "1000000");
    let mut daemon = Daemon::start(&world, "");
    signal(&daemon.process.0, "TERM");
    assert_eq!(daemon.wait(), 0, "{}", daemon.log());
}
