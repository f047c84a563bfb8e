//! The rows of the failure table that no single room can show: networks and neighbours that fail while a session runs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fleet::{Site, Worker};
use crate::harness::{LAB, until};
use crate::proxy::{Mode, Proxy, Way};

/// The reason of a session's last final event.
fn reason(events: &[Value], session: &str) -> String {
    let last = events
        .iter()
        .rfind(|event| event["session"] == session && event["event"] == "finished");
    let outcome = &last.unwrap()["outcome"];
    crate::random::say(&format!("{session}: {}", outcome["message"]));
    outcome["reason"].as_str().unwrap().to_owned()
}

#[test]
fn a_partition_longer_than_the_lease_gives_the_session_to_another_and_the_old_owner_is_silent() {
    let mut site = Site::new(600, "[session]\ngrace_s = 1");
    let (mut one, mut two) = (site.worker("w1"), site.worker("w2"));
    one.start_ready(&site);
    site.desk.listen();
    let session = site.submit(
        &site
            .world
            .lab_task("!write work.txt done\n!commit . Work\n!say ready\n!sleep 25000"),
    );
    until(Duration::from_secs(60), "the turn", || {
        site.desk.saw(&session, "agent_message").then_some(())
    });
    two.start_ready(&site);
    one.amqp.set(Mode::Hole);
    // In the hole its turn comes to an end, or not: it may not publish before it knows that the session is still its own.
    until(Duration::from_secs(60), "the second attempt", || {
        let claimed = |event: &Value| event["event"] == "claimed" && event["attempt"] != 1;
        site.desk.events().iter().any(claimed).then_some(())
    });
    one.amqp.set(Mode::Open);
    until(Duration::from_secs(60), "the old owner's insight", || {
        one.log().contains("owned elsewhere").then_some(())
    });
    let record = site.assert_well(&mut [&mut one, &mut two]);
    assert_eq!(reason(&record.events, &session), "published");
    assert_eq!(record.projects[LAB].requests.len(), 1);
    let ends = record.events.iter().filter(|event| event["event"] == "finished");
    let attempts: Vec<&Value> = ends.map(|event| &event["attempt"]).collect();
    assert!(attempts.len() == 1 && attempts[0] != 1, "{attempts:?}");
}

#[test]
fn a_broker_that_is_away_for_longer_than_the_lease_costs_a_session_nothing() {
    let mut site = Site::new(600, "");
    let mut one = site.worker("w1");
    one.start_ready(&site);
    site.desk.listen();
    let session = site.submit(&site.world.lab_task("!write work.txt done\n!say ready\n!sleep 4000"));
    until(Duration::from_secs(60), "the turn", || {
        site.desk.saw(&session, "agent_message").then_some(())
    });
    // As a restart of the broker looks from here: everything is broken off, and nobody listens for a while.
    one.amqp.set(Mode::Reset);
    until(Duration::from_secs(30), "unreadiness", || {
        (one.status() == 503).then_some(())
    });
    let begun = std::time::Instant::now();
    until(Duration::from_secs(30), "time for two tickets", || {
        (begun.elapsed() > Duration::from_secs(10)).then_some(())
    });
    assert_eq!(
        site.world.project(LAB)["change_requests"],
        json!([]),
        "nothing is published while the ownership is in doubt"
    );
    one.amqp.set(Mode::Open);
    let record = site.assert_well(&mut [&mut one]);
    assert_eq!(reason(&record.events, &session), "published");
    assert_eq!(record.projects[LAB].requests.len(), 1);
    // In one attempt, every state event there: the numbers of an attempt's states have no gap that is not progress.
    assert!(
        record.events.iter().all(|event| event["attempt"] == 1),
        "{:?}",
        record.events
    );
    for kind in [
        "claimed",
        "turn_started",
        "turn_ended",
        "branch_published",
        "change_request_opened",
        "finished",
    ] {
        let told = record.events.iter().filter(|event| event["event"] == kind);
        let seqs: std::collections::BTreeSet<u64> = told.map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs.len(), 1, "{kind}");
    }
}

#[test]
fn an_engine_that_hangs_makes_the_worker_unready_and_a_running_session_goes_on() {
    let mut site = Site::new(600, "");
    let mut one = site.worker("w1");
    one.start_ready(&site);
    site.desk.listen();
    let running = site.submit(
        &site
            .world
            .lab_task("!write work.txt done\n!say ready\n!sleep 30000\n!say through"),
    );
    until(Duration::from_secs(60), "the turn", || {
        site.desk.saw(&running, "agent_message").then_some(())
    });
    one.docker.set(Mode::Stall);
    until(Duration::from_secs(60), "unreadiness", || {
        (one.status() == 503).then_some(())
    });
    one.docker.set(Mode::Open);
    one.ready();
    let after = site.submit(&site.world.lab_task("!write after.txt done"));
    let record = site.assert_well(&mut [&mut one]);
    assert_eq!(reason(&record.events, &running), "published");
    assert_eq!(reason(&record.events, &after), "published");
    assert!(record.events.iter().all(|event| event["attempt"] == 1));
}

#[test]
fn a_forge_that_fails_and_asks_for_patience_delays_a_session_and_no_more() {
    let mut site = Site::new(600, "");
    let mut one = site.worker("w1");
    one.start_ready(&site);
    site.desk.listen();
    for fault in [
        json!({"match": {"method": "GET", "path_contains": "/api/v4/"}, "status": 503, "times": 1}),
        json!({"match": {"method": "GET", "path_contains": "service=git-upload-pack"}, "status": 502, "times": 1}),
        json!({"match": {"method": "GET", "path_contains": "/api/v4/"}, "skip": 2, "status": 429, "headers": {"retry-after": "1"}, "times": 1}),
        json!({"match": {"method": "POST", "path_contains": "git-receive-pack"}, "status": 503, "times": 1}),
        json!({"match": {"method": "POST", "path_contains": "/merge_requests"}, "cut": true, "after": true, "times": 1}),
    ] {
        site.world.ask("POST", "/_test/faults", Some(&fault));
    }
    let session = site.submit(&site.world.lab_task("!write work.txt done"));
    let record = site.assert_well(&mut [&mut one]);
    assert_eq!(reason(&record.events, &session), "published");
    assert_eq!(record.projects[LAB].requests.len(), 1);
    assert_eq!(
        site.world.ask("GET", "/_test/faults", None),
        json!([]),
        "a fault was never played"
    );
}

#[test]
fn a_forge_that_is_swallowed_in_the_middle_of_a_push_is_asked_again() {
    let mut site = Site::new(600, "[repository]\npush_timeout_s = 5");
    let mut one = site.worker("w1");
    one.start_ready(&site);
    site.desk.listen();
    let forge = Proxy::tcp(site.world.forge.trim_start_matches("http://"));
    // The head of the push itself passes no more; nor does anything else until the hole is gone.
    forge.trap(Way::There, b"POST /gitlab/platform/tools/greeter.git/git-receive-pack");
    let mut task = site.world.lab_task("!write work.txt done");
    task["connections"]["lab"]["url"] = json!(format!("http://{}/gitlab", forge.address));
    let session = site.submit(&task);
    forge.sprung("the push");
    forge.set(Mode::Hole);
    until(Duration::from_secs(60), "the limit of the push", || {
        one.log()
            .contains("a push to the forge failed and is tried again")
            .then_some(())
    });
    assert!(!site.desk.saw(&session, "finished"));
    forge.set(Mode::Open);
    let record = site.assert_well(&mut [&mut one]);
    assert_eq!(reason(&record.events, &session), "published");
    assert_eq!(record.projects[LAB].requests.len(), 1);
}

/// Begins a session, lets its worker go away in this way, and says how long it took until another claimed it, in seconds.
fn replaced_after(away: impl FnOnce(&mut Worker)) -> f64 {
    let mut site = Site::with_default_leases(600);
    let (mut one, mut two) = (site.worker("w1"), site.worker("w2"));
    one.start_ready(&site);
    site.desk.listen();
    // Long enough that the old owner would publish while nobody has taken over yet, if it were not careful.
    let session = site.submit(
        &site
            .world
            .lab_task("!write work.txt done\n!commit . Work\n!say ready\n!sleep 25000"),
    );
    until(Duration::from_secs(60), "the turn", || {
        site.desk.saw(&session, "agent_message").then_some(())
    });
    two.start_ready(&site);
    let gone = std::time::Instant::now();
    away(&mut one);
    until(Duration::from_secs(120), "the second attempt", || {
        let claimed = |event: &Value| event["event"] == "claimed" && event["attempt"] == 2;
        site.desk.events().iter().any(claimed).then_some(())
    });
    let took = gone.elapsed().as_secs_f64();
    one.amqp.set(Mode::Open);
    let record = site.assert_well(&mut [&mut one, &mut two]);
    assert_eq!(reason(&record.events, &session), "published");
    assert_eq!(record.projects[LAB].requests.len(), 1);
    let published = record
        .events
        .iter()
        .find(|event| event["event"] == "branch_published")
        .unwrap();
    assert_eq!(published["attempt"], 2, "{published}");
    took
}

#[test]
#[ignore = "waits for the leases that a worker has by default"]
fn a_dead_or_silent_owner_is_replaced_within_75_seconds_at_the_default_settings() {
    let silent = replaced_after(|worker| worker.amqp.set(Mode::Hole));
    let dead = replaced_after(Worker::kill);
    crate::random::say(&format!(
        "replaced: {dead:.1} s after a kill, {silent:.1} s in a black hole"
    ));
    assert!(dead <= 75.0 && silent <= 75.0, "{dead} {silent}");
}
