//! A real engine that is stopped, and one that is killed, under a running session: an engine of the test's own, which ends with it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Process, World, signal, until};
use crate::kit::{Daemon, outcome, wait_for};

const IMAGE: &str = "cofferdam/sandbox-scripted:test";

/// An engine without networks, in a directory of its own.
struct Engine {
    directory: tempfile::TempDir,
    process: Option<Process>,
}

impl Engine {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("cde-").tempdir_in("/var/tmp").unwrap();
        let mut engine = Self {
            directory,
            process: None,
        };
        engine.run();
        let load = format!(
            "docker save {IMAGE} | docker -H unix://{} load -q",
            engine.socket().display()
        );
        assert!(
            Command::new("sh")
                .args(["-c", &load])
                .stdout(Stdio::null())
                .status()
                .unwrap()
                .success()
        );
        engine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("e.sock")
    }

    fn run(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let child = Command::new("dockerd")
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .arg(option("--data-root", &self.path("data")))
            .arg(option("--exec-root", &self.path("exec")))
            .arg(option("--pidfile", &self.path("pid")))
            .arg(format!("--host=unix://{}", self.socket().display()))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(Process(child));
        until(Duration::from_secs(60), "the engine", || {
            self.docker(&["version"]).then_some(())
        });
    }

    /// Ends it by this signal, and waits until it has ended.
    fn end(&mut self, by: &str) {
        let mut process = self.process.take().unwrap();
        signal(&process.0, by);
        process.0.wait().unwrap();
        // What it started ends with it; where nobody waits for such orphans, as in some containers, their number seems taken for ever.
        let _ = std::fs::remove_file(self.path("exec/containerd/containerd.pid"));
    }

    fn docker(&self, arguments: &[&str]) -> bool {
        let ran = Command::new("docker")
            .arg(format!("--host=unix://{}", self.socket().display()))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        ran.unwrap().success()
    }

    fn containers(&self) -> usize {
        let output = Command::new("docker")
            .arg(format!("--host=unix://{}", self.socket().display()))
            .args(["ps", "-aq"])
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).lines().count()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Its children end with it when it ends in order, and its mounts.
        match self.process {
            Some(_) => {
                self.end("TERM");
                // It leaves its own directory mounted on itself.
                let _ = Command::new("umount").arg(self.path("data")).status();
            }
            None => crate::random::say(&std::fs::read_to_string(self.path("log")).unwrap_or_default()),
        }
    }
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

#[test]
#[ignore = "starts an engine of its own and copies an image into it"]
fn a_session_whose_engine_restarts_begins_anew_on_the_same_worker() {
    let mut engine = Engine::start();
    for by in ["TERM", "KILL"] {
        let world = World::new();
        let socket = engine.socket();
        let daemon = Daemon::start_in(
            &world,
            "",
            &[("COFFERDAM__SANDBOX__DOCKER_SOCKET", socket.to_str().unwrap())],
        );
        let task = world.lab_task("!write a.txt b\n!say ready\n!sleep 8000");
        let (_following, events) = daemon.submit_aside(&world, &task);
        wait_for(&events, "agent_message");
        let begun = std::time::Instant::now();
        engine.end(by);
        engine.run();
        let outcome = outcome(&events);
        assert_eq!(outcome["reason"], "published", "{by}: {outcome}");
        let text = std::fs::read_to_string(&events).unwrap();
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let count = |kind: &str| events.iter().filter(|event| event["data"]["event"] == kind).count();
        crate::random::say(&format!(
            "{by}: {} attempts, over after {:.1} s",
            count("claimed"),
            begun.elapsed().as_secs_f64()
        ));
        assert_eq!(
            (count("suspended"), count("claimed"), count("change_request_opened")),
            (1, 2, 1),
            "{by}: {text}"
        );
        until(Duration::from_secs(90), "nothing is left", || {
            (engine.containers() == 0).then_some(())
        });
    }
}
