//! Many sessions over three workers while kills, resets, holes, duplicates and drains come at random; then the checker judges.
//!
//! Bounded in time. Prints its seed and its figures; `COFFERDAM_CHAOS_SEED` repeats a seed (the order of faults, not the machine's timing).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::{Site, Worker};
use crate::proxy::{Mode, Proxy};

/// Numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }
}

/// Says something that the test harness does not swallow.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A task of one of a few kinds, over one project or two, its forge behind the proxy.
fn task(site: &Site, forge: &Proxy, dice: &mut Dice) -> Value {
    let pause = 100 + dice.below(1500);
    let work = |directory: &str| {
        format!("!write {directory}/a.txt {pause}\n!commit {directory} One\n!shell git -C {directory} push -q\n")
    };
    let mut task = match dice.below(4) {
        0 => site.world.lab_task("!say nothing to do"),
        1 => site.world.lab_task(&format!("{}!sleep {pause}", work("."))),
        2 => site
            .world
            .lab_task(&format!("{}!sleep {pause}\n!write b.txt 2\n!commit . Two", work("."))),
        _ => site
            .world
            .task(&format!("{}{}!sleep {pause}", work("greeter"), work("website"))),
    };
    task["connections"]["lab"]["url"] = json!(format!("http://{}/gitlab", forge.address));
    task["connections"]["hub"]["url"] = json!(format!("http://{}", forge.address));
    if task["projects"].as_array().unwrap().len() == 1 {
        task["connections"].as_object_mut().unwrap().remove("hub");
    }
    task
}

/// What the disturber does to the worker of its choice.
fn disturb(site: &Site, workers: &mut [Worker], forge: &Proxy, sent: &[Value], dice: &mut Dice) -> &'static str {
    let chosen = dice.below(workers.len());
    let worker = &mut workers[chosen];
    let pause = |dice: &mut Dice, most: usize| {
        std::thread::sleep(Duration::from_millis(u64::try_from(200 + dice.below(most)).unwrap()))
    };
    match dice.below(9) {
        0 | 1 if worker.is_running() => {
            worker.kill();
            pause(dice, 1500);
            worker.start(site);
            "kills"
        }
        2 if worker.is_running() => {
            worker.amqp.reset();
            "resets"
        }
        3 => {
            worker.amqp.set(Mode::Hole);
            pause(dice, 7000);
            worker.amqp.set(Mode::Open);
            "holes to the broker"
        }
        4 => {
            worker.docker.set(Mode::Stall);
            pause(dice, 2000);
            worker.docker.set(Mode::Open);
            "stalls of the engine"
        }
        5 => {
            let mode = [Mode::Reset, Mode::Hole, Mode::Slow(20_000)][dice.below(3)];
            forge.set(mode);
            pause(dice, 1500);
            forge.set(Mode::Open);
            "faults to the forge"
        }
        6 if !sent.is_empty() => {
            site.desk.submit(&sent[dice.below(sent.len())]);
            "duplicates"
        }
        7 if worker.is_running() => {
            worker.drain();
            "drains"
        }
        _ => {
            let (status, after) = ([500, 502, 503][dice.below(3)], dice.below(2) == 0);
            let fault = json!({"match": {"method": "POST"}, "status": status, "after": after, "times": 1});
            site.world.ask("POST", "/_test/faults", Some(&fault));
            "broken answers"
        }
    }
}

/// Runs so many sessions, disturbed for at most so long, and judges.
fn run(tasks: usize, seconds: u64) {
    let seed = std::env::var("COFFERDAM_CHAOS_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    say(&format!(
        "chaos: COFFERDAM_CHAOS_SEED={seed}, {tasks} sessions, at most {seconds} s"
    ));
    let mut dice = Dice(seed);
    let began = Instant::now();
    // So many takeovers that nobody is given up for the kills alone.
    let mut site = Site::new(
        u32::try_from(seconds + 300).unwrap(),
        "[session]\nmost_takeovers = 20\ngrace_s = 2",
    );
    // Each keeps one sandbox ready, so that kills meet those too.
    site.warm = 1;
    let forge = Proxy::tcp(site.world.forge.trim_start_matches("http://"));
    let mut workers: Vec<Worker> = ["w1", "w2", "w3"].iter().map(|name| site.worker(name)).collect();
    for worker in &mut workers {
        worker.start_ready(&site);
    }
    site.desk.listen();
    let mut sent: Vec<Value> = Vec::new();
    let mut done: BTreeMap<&str, usize> = BTreeMap::new();
    // The last third of the time is for the end of what was begun.
    let calm = Duration::from_secs(seconds * 2 / 3);
    while began.elapsed() < calm && (sent.len() < tasks || site.desk.ended().len() < tasks) {
        while sent.len() < tasks && sent.len() < site.desk.ended().len() + 8 {
            let task = task(&site, &forge, &mut dice);
            site.submit(&task);
            sent.push(task);
        }
        let what = disturb(&site, &mut workers, &forge, &sent, &mut dice);
        *done.entry(what).or_default() += 1;
        for worker in &mut workers {
            if !worker.is_running() {
                worker.bury();
                worker.start(&site);
            }
        }
        std::thread::sleep(Duration::from_millis(u64::try_from(300 + dice.below(1200)).unwrap()));
    }
    let disturbed = began.elapsed();
    site.world.ask("DELETE", "/_test/faults", None);
    for worker in &mut workers {
        // Whoever drains ends; then all three are there for the rest.
        if !worker.is_running() {
            worker.bury();
            worker.start(&site);
        }
    }
    while sent.len() < tasks {
        let task = task(&site, &forge, &mut dice);
        site.submit(&task);
        sent.push(task);
    }
    let left = Duration::from_secs(seconds)
        .saturating_sub(began.elapsed())
        .max(Duration::from_secs(30));
    let mut all: Vec<&mut Worker> = workers.iter_mut().collect();
    let (record, violations) = site.judge(&mut all, left);
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for event in record.events.iter().filter(|event| event["event"] == "finished") {
        *reasons.entry(event["outcome"]["reason"].as_str().unwrap()).or_default() += 1;
    }
    let attempts = record.events.iter().filter(|event| event["event"] == "claimed").count();
    let requests: usize = record.projects.values().map(|project| project.requests.len()).sum();
    let pushed = record
        .events
        .iter()
        .filter(|event| event["event"] == "push_accepted")
        .count();
    say(&format!(
        "chaos: {} sessions, {attempts} attempts, {pushed} pushes into staging, {requests} change requests, {} events; disturbed for {} s, \
         {} s in all\nchaos: {done:?}\nchaos: ends {reasons:?}\nchaos: {} violations",
        record.submitted.len(),
        record.events.len(),
        disturbed.as_secs(),
        began.elapsed().as_secs(),
        violations.len(),
    ));
    if !violations.is_empty() {
        let kept = std::env::temp_dir().join(format!("cofferdam-chaos-{seed}"));
        std::fs::create_dir_all(&kept).unwrap();
        let events: Vec<String> = record.events.iter().map(Value::to_string).collect();
        std::fs::write(kept.join("events"), events.join("\n")).unwrap();
        for (number, worker) in workers.iter().enumerate() {
            std::fs::write(kept.join(format!("log-{}", number + 1)), worker.log()).unwrap();
        }
        panic!("COFFERDAM_CHAOS_SEED={seed}, see {}: {violations:#?}", kept.display());
    }
}

#[test]
fn after_a_short_random_run_all_is_well() {
    run(25, 120);
}

#[test]
#[ignore = "takes up to ten minutes"]
fn after_a_long_random_run_all_is_well() {
    run(200, 600);
}
