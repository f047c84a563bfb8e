//! Many short sessions of one worker, one after the other: what it holds at the end is what it held after the first ones.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::fleet::{Site, Worker, slowness};
use crate::harness::{LAB, until};
use crate::random::say;

/// Everything that could grow.
#[derive(Debug, Clone, Copy)]
struct Held {
    resident_kib: u64,
    descriptors: usize,
    threads: u64,
    containers: usize,
    messages: u32,
    disk_kib: u64,
}

fn disk(directory: &Path) -> u64 {
    let output = std::process::Command::new("du")
        .arg("-sk")
        .arg(directory)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn held(site: &Site, worker: &Worker) -> Held {
    let process = format!("/proc/{}", worker.pid());
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    let figure = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    Held {
        resident_kib: figure("VmRSS:"),
        descriptors: std::fs::read_dir(format!("{process}/fd")).unwrap().count(),
        threads: figure("Threads:"),
        containers: site.world.sandboxes().len(),
        messages: ["tasks", "tickets", "ticket-checks", "dead"]
            .iter()
            .map(|queue| site.desk.ready(queue))
            .sum(),
        disk_kib: disk(&worker.state),
    }
}

/// Waits until so many sessions ended; says what the others came to, where they do not.
fn wait_for_ends(site: &Site, worker: &Worker, wanted: usize) {
    let limit = Duration::from_secs(120) * slowness();
    let end = Instant::now() + limit;
    while site.desk.ended().len() < wanted {
        if Instant::now() > end {
            let ended = site.desk.ended();
            let events = site.desk.events();
            for session in site.submitted.iter().filter(|session| !ended.contains(*session)) {
                let told = events.iter().filter(|data| data["session"] == session.as_str());
                let told: Vec<String> = told.map(ToString::to_string).collect();
                say(&format!("soak: {session}:\n{}", told.join("\n")));
            }
            let log = worker.log();
            let tail = &log[log.floor_char_boundary(log.len().saturating_sub(20_000))..];
            panic!(
                "{} of {wanted} sessions ended, and no more for {} s; the worker's log ends:\n{tail}",
                ended.len(),
                limit.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs so many sessions; the first `warm_up` do not count.
fn soak(sessions: usize, warm_up: usize) {
    let began = Instant::now();
    let mut site = Site::new(u32::try_from(120 + sessions * 6).unwrap(), "");
    let mut worker = site.worker("w1");
    worker.start_ready(&site);
    site.desk.listen();
    let mut before = None;
    for number in 0..sessions {
        // A few at a time; every other one changes something.
        let prompt = if number % 2 == 0 {
            "!say hi".to_owned()
        } else {
            format!("!write soak.txt {number}")
        };
        site.submit(&site.world.lab_task(&prompt));
        let wanted = if number + 1 == sessions || number + 1 == warm_up {
            number + 1
        } else {
            (number + 1).saturating_sub(3)
        };
        wait_for_ends(&site, &worker, wanted);
        if number + 1 == warm_up {
            until(Duration::from_secs(60), "rest", || site.is_settled().then_some(()));
            before = Some(held(&site, &worker));
        }
    }
    until(Duration::from_secs(60), "rest", || site.is_settled().then_some(()));
    let (before, after) = (before.unwrap(), held(&site, &worker));
    let queues: BTreeSet<String> = site
        .submitted
        .iter()
        .filter(|session| site.desk.ready(&format!("session.{session}.in")) > 0)
        .cloned()
        .collect();
    say(&format!(
        "soak: {sessions} sessions in {} s\nsoak: after {warm_up}: {before:?}\nsoak: at the end: {after:?}",
        began.elapsed().as_secs()
    ));
    let counted = u64::try_from(sessions - warm_up).unwrap();
    assert_eq!((before.containers, after.containers), (0, 0));
    assert_eq!((before.messages, after.messages), (0, 0));
    assert_eq!(queues, BTreeSet::new(), "mailboxes hold messages");
    // Connections that are kept for a while come and go.
    assert!(
        after.descriptors <= before.descriptors + 8,
        "descriptors: {before:?}, {after:?}"
    );
    assert!(after.threads <= before.threads + 4, "threads: {before:?}, {after:?}");
    // An allocator keeps what it once had; a leak grows with the sessions.
    assert!(
        after.resident_kib <= before.resident_kib + 16 * 1024 + 8 * counted,
        "memory: {before:?}, {after:?}"
    );
    // The mirror holds the branches of all sessions, as the forge does.
    assert!(
        after.disk_kib <= before.disk_kib + 4 * 1024 + 24 * counted,
        "disk: {before:?}, {after:?}"
    );
    let record = site.assert_well(&mut [&mut worker]);
    assert_eq!(record.projects[LAB].requests.len(), sessions / 2);
    assert!(record.events.iter().all(|event| event["attempt"] == 1));
}

#[test]
fn forty_sessions_leave_a_worker_as_it_was() {
    soak(40, 12);
}

#[test]
#[ignore = "takes half an hour"]
fn five_hundred_sessions_leave_a_worker_as_it_was() {
    soak(500, 60);
}
