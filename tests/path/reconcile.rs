//! What dead workers leave: other workers take it over, and never what a living one owns.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{LAB, World, signal, until};
use crate::kit::{Daemon, outcome, wait_for};
use crate::talk::Talk;

/// How soon after a crash nothing of it may be left.
const RECONCILED: Duration = Duration::from_secs(60);

fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory)
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

/// What is there of sandboxes and sessions in a state directory.
fn leftovers(state: &Path) -> Vec<PathBuf> {
    ["sandboxes", "sessions"]
        .iter()
        .flat_map(|name| entries(&state.join(name)))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// The containers whose owner is this directory.
fn containers(state: &Path) -> Vec<String> {
    let output = std::process::Command::new("docker")
        .args(["ps", "-a", "-q", "--filter"])
        .arg(format!("label=dev.cofferdam.state={}", state.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    listed.lines().map(str::to_owned).collect()
}

/// A task whose session hangs with something in staging.
fn hanging(world: &World, daemon: &Daemon) -> (crate::harness::Process, PathBuf, Value) {
    let task = world.lab_task("!write a.txt b\n!commit . One\n!shell git push -q\n!hang");
    let (following, events) = daemon.submit_aside(world, &task);
    wait_for(&events, "push_accepted");
    (following, events, task)
}

#[test]
fn what_a_dead_worker_left_is_gone_a_minute_later_though_it_never_comes_back() {
    let world = World::new();
    // The task goes nowhere else: what is taken over is not what is tested here.
    let mut dead = Daemon::start(&world, "[session]\nmost_takeovers = 0");
    let (_following, _events, task) = hanging(&world, &dead);
    assert_eq!(containers(&world.state_dir()).len(), 1);
    // What lies there now is left; once it is dead, a worker of another test may be the first to look.
    assert!(
        leftovers(&world.state_dir()).len() >= 2,
        "nothing was left to begin with"
    );
    signal(&dead.process.0, "KILL");
    dead.wait();
    let killed = Instant::now();
    let living = dead.beside(&world, "two");
    until(RECONCILED, "nothing is left", || {
        (containers(&world.state_dir()).is_empty() && leftovers(&world.state_dir()).is_empty()).then_some(())
    });
    eprintln!("reconciled after {} ms", killed.elapsed().as_millis());
    // What had been accepted is a bundle, in the directory of the one that accepted it.
    let kept = entries(&world.state_dir().join("kept"));
    let session = task["session"].as_str().unwrap();
    let bundle = kept
        .iter()
        .find(|path| path.to_string_lossy().ends_with(".bundle"))
        .unwrap();
    assert!(bundle.to_string_lossy().contains(session), "{kept:?}");
    // Whoever looks first does it: the worker of another test sees the same engine.
    drop(living);
    // The directory is free again: its worker may come back, and counts what lies there.
    let back = dead.again(&world);
    until(Duration::from_secs(40), "the bundle in the metrics", || {
        let page = back.page("/metrics");
        page.contains("\ncofferdam_kept_bundles 1\n").then_some(())
    });
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn a_worker_that_is_stopped_keeps_what_it_owns() {
    let world = World::new();
    let stopped = Daemon::start(&world, "");
    // Long enough for the engine's list, before the worker is stopped.
    let task = world.lab_task("!write a.txt b\n!sleep 12000");
    let (_following, events) = stopped.submit_aside(&world, &task);
    wait_for(&events, "turn_started");
    let (theirs, before) = (containers(&world.state_dir()), leftovers(&world.state_dir()));
    assert_eq!((theirs.len(), before.len()), (1, 2));
    signal(&stopped.process.0, "STOP");
    let other = stopped.beside(&world, "two");
    // A look of the other worker is over when a later one begins; its own directory shows when it looks.
    let planted = world.directory.path().join("two/sandboxes").join("0".repeat(32));
    for look in ["a look of the other worker", "another look"] {
        std::fs::create_dir_all(&planted).unwrap();
        until(Duration::from_secs(50), look, || (!planted.exists()).then_some(()));
    }
    assert_eq!(
        containers(&world.state_dir()),
        theirs,
        "a live owner's container was removed"
    );
    assert_eq!(leftovers(&world.state_dir()), before);
    let theirs = format!("\"state_dir\":\"{}\"", world.state_dir().display());
    let log = other.log();
    let is_theirs = |line: &&str| line.contains("cleaning up after a dead worker") && line.contains(&theirs);
    assert_eq!(log.lines().find(is_theirs), None);
    // The broker gave its session to the other; it finds that out, and lets go of what was its own.
    signal(&stopped.process.0, "CONT");
    assert_eq!(outcome(&events)["reason"], "published");
    until(Duration::from_secs(60), "it let go", || {
        (containers(&world.state_dir()).is_empty() && leftovers(&world.state_dir()).is_empty()).then_some(())
    });
    assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
}

#[test]
fn what_a_worker_itself_forgot_goes_while_it_runs() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    // It lives as long as the next look may take to come.
    let talk = Talk::begin(&world, &daemon, &world.lab_task("!write a.txt b\n!hang"));
    wait_for(&talk.events, "turn_started");
    let (live, running) = (leftovers(&world.state_dir()), containers(&world.state_dir()));
    let state = world.state_dir();
    let forgotten = [
        state.join("sandboxes").join("0".repeat(32)),
        state.join("sessions").join(uuid::Uuid::new_v4().to_string()),
    ];
    for directory in &forgotten {
        std::fs::create_dir_all(directory.join("0")).unwrap();
    }
    assert_eq!(leftovers(&state).len(), live.len() + 2);
    until(RECONCILED, "the forgotten directories are gone", || {
        (leftovers(&state) == live).then_some(())
    });
    // Nobody else removes what is in a living worker's directory, so this one counts it.
    until(Duration::from_secs(30), "the counts", || {
        let page = daemon.page("/metrics");
        ["directory", "session"]
            .iter()
            .all(|kind| page.contains(&format!("cofferdam_orphans_removed_total{{kind=\"{kind}\"}} 1\n")))
            .then_some(())
    });
    assert_eq!(containers(&state), running);
    assert_eq!(talk.ran("write a.txt"), "completed");
    talk.applied("e-1", json!({"kind": "end"}));
    assert_eq!(outcome(&talk.events)["reason"], "published");
    world.assert_clean();
}

/// A container with the labels of a worker that cannot be seen from here; gone with the test at the latest.
struct Foreign(String);

impl Foreign {
    fn new(world: &World, deadline: i64, state: &str) -> Self {
        let labels = [
            format!("sandbox={}", uuid::Uuid::new_v4().simple()),
            format!("worker={}-foreign", world.worker),
            format!("state={state}"),
            format!("owner={}", uuid::Uuid::new_v4()),
            "place=elsewhere".to_owned(),
            format!("deadline={deadline}"),
        ];
        let mut command = std::process::Command::new("docker");
        command.args(["create", "--network", "none"]);
        for label in labels {
            command.args(["--label", &format!("dev.cofferdam.{label}")]);
        }
        let output = command
            .args(["cofferdam/sandbox-scripted:test", "true"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn is_there(&self) -> bool {
        let asked = std::process::Command::new("docker").args(["inspect", &self.0]).output();
        asked.unwrap().status.success()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = std::process::Command::new("docker")
            .args(["rm", "-f", &self.0])
            .output();
    }
}

#[test]
fn where_nobody_can_tell_whether_the_owner_lives_the_deadline_decides() {
    let world = World::new();
    let now = jiff::Timestamp::now().as_second();
    // Paths of another file system: one that is not here, and one that is something else here.
    let elsewhere = Foreign::new(&world, now + 3600, "/etc");
    // Clocks may differ by five minutes, and the looks of this test may take some of them.
    let young = Foreign::new(&world, now - 1, "/nowhere/cofferdam");
    let [over, crooked] =
        ["/nowhere/cofferdam", "relative/../path"].map(|state| Foreign::new(&world, now - 301, state));
    let _daemon = Daemon::start(&world, "");
    until(RECONCILED, "what is overdue is gone", || {
        (!over.is_there() && !crooked.is_there()).then_some(())
    });
    assert!(
        young.is_there() && elsewhere.is_there(),
        "before its deadline it may be anybody's"
    );
}

#[test]
fn a_mirror_s_locks_and_half_packs_survive_no_killed_refresh() {
    let world = World::new();
    let mut daemon = Daemon::start(&world, "");
    // The first fetch never ends: the forge says nothing.
    let fault = json!({"match": {"method": "POST", "path_contains": "git-upload-pack"}, "delay_ms": 30000, "times": 1});
    world.ask("POST", "/_test/faults", Some(&fault));
    let (_following, events) = daemon.submit_aside(&world, &world.lab_task("!write a.txt b"));
    wait_for(&events, "\"stage\":\"mirror\"");
    let mirrors = world.state_dir().join("mirrors");
    let mirror = until(Duration::from_secs(20), "the refresh", || {
        entries(&mirrors)
            .into_iter()
            .find(|path| path.join("fetching").exists())
    });
    signal(&daemon.process.0, "KILL");
    daemon.wait();
    // What a git leaves that is killed while it writes.
    let repository = mirror.join("mirror.git");
    for name in ["packed-refs.lock", "objects/pack/tmp_pack_x", "HEAD.lock"] {
        std::fs::write(repository.join(name), "half").unwrap();
    }
    world.ask("DELETE", "/_test/faults", None);
    let again = daemon.again(&world);
    let ran = again.submit(&world, &world.lab_task("!write c.txt d"));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    assert!(!repository.join("packed-refs.lock").exists());
    assert!(!repository.join("objects/pack/tmp_pack_x").exists());
}
