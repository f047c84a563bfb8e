//! Pods that end otherwise than by themselves: for memory, by eviction, preemption, deletion, with their node; and what strangers do to the port
//! that they dial.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{assert_ended, cluster, ended, exec, running};
use crate::harness::{World, signal, slowness, until};
use crate::kit::{Daemon, outcome, wait_for};
use crate::standin::NAMESPACE;

#[test]
fn memory_eviction_and_deletion_are_told_as_what_they_are() {
    let world = World::new().in_cluster();
    let small = [("MEMORY_BYTES", "268435456"), ("WORKSPACE_BYTES", "67108864")];
    let ran = exec(
        &world,
        &small,
        &world.lab_task("!write a.txt b\n!shell head -c 900000000 /dev/zero | tail\n!hang"),
    );
    assert_ended(&world, &ran, "out_of_memory", "sandbox.memory_bytes");

    let (child, _) = running(&world, &[]);
    cluster(&world).control("evict", &json!("The node was low on resource: memory."));
    let outcome = ended(child);
    assert_eq!(outcome["reason"], "sandbox_unavailable", "{outcome}");
    assert!(
        outcome["message"].as_str().unwrap().contains("low on resource"),
        "{outcome}"
    );
    world.assert_clean();
}

/// Of all events of this kind. Of the last line there may be no more than a beginning.
fn all(events: &std::path::Path, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(events).unwrap();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|event| event["data"]["event"] == kind).collect()
}

#[test]
fn a_session_whose_pod_is_taken_away_begins_anew_at_once() {
    let world = World::new().in_cluster();
    let daemon = Daemon::start(&world, "");
    let delete = |_: &str| {
        let pod = cluster(&world).pods().pop().unwrap();
        let name = pod["metadata"]["name"].as_str().unwrap();
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}");
        cluster(&world).request("DELETE", &path, &json!({"gracePeriodSeconds": 30}));
    };
    let order = |act: &str| {
        cluster(&world).control(act, &json!("somebody else needs the place"));
    };
    type Act<'a> = &'a dyn Fn(&str);
    let acts: [(&str, Act<'_>); 4] = [
        ("evict", &order),
        ("preempt", &order),
        ("delete", &delete),
        ("lose-node", &order),
    ];
    for (name, act) in acts {
        let task = world.lab_task("!write a.txt b\n!say ready\n!hang");
        let (_following, events) = daemon.submit_aside(&world, &task);
        wait_for(&events, "agent_message");
        act(name);
        let taken = Instant::now();
        wait_for(&events, "suspended");
        // The deadline of a turn is an hour.
        assert!(
            taken.elapsed() < Duration::from_secs(30) * slowness(),
            "{name}: {:?}",
            taken.elapsed()
        );
        eprintln!("{name}: handed on {} ms after it", taken.elapsed().as_millis());
        until(Duration::from_secs(60), "the next agent", || {
            let said = all(&events, "agent_message");
            said.iter().any(|event| event["data"]["attempt"] == 2).then_some(())
        });
        daemon.cancel_turn(&task["session"]);
        assert_eq!(outcome(&events)["reason"], "published", "{name}");
        let suspended = all(&events, "suspended");
        assert_eq!(suspended.len(), 1, "{name}: {suspended:?}");
        assert_eq!(suspended[0]["data"]["queued"], true, "{name}: {suspended:?}");
        assert_eq!(all(&events, "change_request_opened").len(), 1, "{name}");
        until(Duration::from_secs(60), "no pod", || {
            cluster(&world).pods().is_empty().then_some(())
        });
    }
    world.assert_clean();
}

/// A node that is lost ends no connection: the kernel of the worker's machine has to ask.
#[test]
fn the_kernel_asks_whether_the_other_end_of_a_link_is_there() {
    let world = World::new().in_cluster();
    let (child, _) = running(&world, &[]);
    // What is on its way has another timer for that moment.
    until(Duration::from_secs(60), "each link is asked for within seconds", || {
        let output = Command::new("ss")
            .args(["-tnoH", "state", "established"])
            .arg(format!("( sport = :{} )", cluster(&world).port))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_asked = |line: &str| {
            let timer = line.split("timer:(keepalive,").nth(1);
            let next = timer.and_then(|timer| timer.split(['.', 's', 'm']).next()?.parse::<u32>().ok());
            // Hours, where nobody chose.
            next.is_some_and(|next| next <= 30) && !line.contains("min")
        };
        // The link and what runs over it.
        (text.lines().count() >= 2 && text.lines().all(is_asked)).then_some(())
    });
    signal(&child.0, "INT");
    ended(child);
    world.assert_clean();
}

#[test]
fn a_flood_at_the_sandboxes_port_is_closed_and_counted_and_ends_no_session() {
    let world = World::new().in_cluster();
    let daemon = Daemon::start(&world, "");
    let task = world.lab_task("!write a.txt b\n!hang");
    let (_following, events) = daemon.submit_aside(&world, &task);
    wait_for(&events, "write a.txt");
    let page = daemon.page("/metrics");
    for why in ["rate", "places", "unknown"] {
        let line = format!("cofferdam_sandbox_links_refused_total{{why=\"{why}\"}} 0\n");
        assert!(page.contains(&line), "{line}{page}");
    }
    // From the same address as the sandbox: the hardest case, which a cluster has only behind a translation of addresses.
    let requests = cluster(&world).state()["pods"][0]["spec"]["containers"][0]["command"].to_string();
    let port = cluster(&world).port;
    let number = requests.split("10.96.7.").nth(1).unwrap().split(':').next().unwrap();
    let address: std::net::SocketAddr = format!("127.0.0.{number}:{port}").parse().unwrap();
    until(Duration::from_secs(60), "a refusal", || {
        for _ in 0..200 {
            drop(std::net::TcpStream::connect(address));
        }
        let page = daemon.page("/metrics");
        let zero = page.contains("cofferdam_sandbox_links_refused_total{why=\"rate\"} 0\n");
        (!zero).then_some(())
    });
    daemon.cancel_turn(&task["session"]);
    assert_eq!(outcome(&events)["reason"], "published");
    until(Duration::from_secs(60), "no pod", || {
        cluster(&world).pods().is_empty().then_some(())
    });
}
