//! What killed and dead workers leave in a cluster, and who takes it: what owns a pod and what a pod owns, the garbage collector, other workers.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{cluster, running};
use crate::harness::{Process, World, slowness, until};
use crate::kit::Daemon;
use crate::standin::NAMESPACE;

#[test]
fn a_secret_is_its_pods_own_whenever_its_worker_is_killed() {
    let world = World::new().in_cluster();
    let asked_to_hang = world.lab_task("!hang");
    let config = world.config("");
    let asked_for_secrets = || {
        let requests = cluster(&world).state()["requests"].to_string();
        requests
            .matches(&format!("POST /api/v1/namespaces/{NAMESPACE}/secrets"))
            .count()
    };
    let begin = |stall_s: u32, answer: Value| {
        let before = asked_for_secrets();
        let mut stalled = json!({ "stall_s": stall_s });
        stalled
            .as_object_mut()
            .unwrap()
            .extend(answer.as_object().unwrap().clone());
        cluster(&world).fault("POST", "/secrets", 1, stalled);
        let mut command = world.command(&config);
        command.args(["exec", "--json"]).arg(world.write_task(&asked_to_hang));
        let mut child = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let pod = until(
            Duration::from_secs(60),
            "a pod before its secret, which is asked for",
            || (asked_for_secrets() > before).then(|| cluster(&world).pods().pop())?,
        );
        assert_eq!(cluster(&world).state()["secrets"], json!([]), "the pod is made first");
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        pod
    };
    // The call was cut, and the cluster carries it out all the same: what it made belongs to the pod, and goes with it whoever removes that.
    let pod = begin(10, json!({}));
    let state = until(
        Duration::from_secs(60),
        "the secret, and the pod that waited for it",
        || {
            let state = cluster(&world).state();
            (state["secrets"] != json!([]) && state["pods"][0]["status"]["phase"] == "Running").then_some(state)
        },
    );
    let secret = &state["secrets_metadata"][0];
    assert_eq!(secret["ownerReferences"][0]["uid"], pod["metadata"]["uid"], "{state}");
    let started = &state["pods"][0]["status"]["containerStatuses"][0]["state"]["running"]["startedAt"];
    let made = secret["creationTimestamp"].as_str().unwrap();
    assert!(
        started.as_str().unwrap() >= made,
        "a pod starts after what it names is there: {state}"
    );
    let name = pod["metadata"]["name"].as_str().unwrap();
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}");
    cluster(&world).request("DELETE", &path, &json!({"gracePeriodSeconds": 0}));
    until(Duration::from_secs(60), "nothing", || {
        let state = cluster(&world).state();
        (state["pods"] == json!([]) && state["secrets"] == json!([])).then_some(())
    });
    // It was not carried out: the pod waits for ever, and is reaped by the next start.
    begin(10, json!({"code": 500, "message": "etcdserver: request timed out"}));
    let _daemon = Daemon::start(&world, "");
    until(Duration::from_secs(60), "no pod", || {
        cluster(&world).pods().is_empty().then_some(())
    });
    cluster(&world).assert_clean();
}

/// What a program is started with, in a view of the file systems of its own: nobody beside it can tell whether it lives.
fn elsewhere(command: &Command) -> Command {
    let mut other = Command::new("unshare");
    other.arg("--mount").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other.stdin(Stdio::null());
    other
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn what_a_dead_worker_owned_goes_with_its_lease_which_any_other_worker_removes() {
    let world = World::new().in_cluster();
    let lease_of = |name: &str| {
        let state = cluster(&world).state();
        let leases = state["leases"].as_array().unwrap().clone();
        leases.into_iter().find(|lease| lease["metadata"]["name"] == name)
    };
    let looks = || {
        let requests = cluster(&world).state()["requests"].to_string();
        let list = format!("\"GET /apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases\"");
        requests.matches(&list).count()
    };
    let config = world.config("");
    let lease_s = 5 * slowness();
    let mut command = world.command(&config);
    command
        .args(["exec", "--json"])
        .arg(world.write_task(&world.lab_task("!hang")))
        .env("COFFERDAM__SANDBOX__KUBERNETES__LEASE_S", lease_s.to_string());
    let mut command = elsewhere(&command);
    let mut child = Process(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let pod = until(Duration::from_secs(60), "a pod that runs", || {
        let pod = cluster(&world).pods().pop()?;
        (pod["status"]["phase"] == "Running").then_some(pod)
    });
    let owner = &pod["metadata"]["ownerReferences"][0];
    let name = owner["name"].as_str().unwrap().to_owned();
    let first = lease_of(&name).unwrap();
    assert_eq!(
        (&owner["kind"], &owner["uid"]),
        (&json!("Lease"), &first["metadata"]["uid"])
    );
    assert_eq!(first["spec"]["leaseDurationSeconds"], lease_s);
    // Another worker, which shares nothing with the first, leaves alone what is renewed.
    let other = world.directory.path().join("other");
    let daemon = Daemon::start_in(
        &world,
        "",
        &[
            ("COFFERDAM__STATE_DIR", other.to_str().unwrap()),
            ("COFFERDAM__WORKER", "another"),
        ],
    );
    let before = looks();
    until(Duration::from_secs(90), "two looks of the other worker", || {
        (looks() >= before + 2).then_some(())
    });
    let renewed = lease_of(&name).expect("it is renewed, and stays");
    assert_ne!(renewed["spec"]["renewTime"], first["spec"]["renewTime"]);
    assert_eq!(cluster(&world).pods()[0]["status"]["phase"], "Running");
    // It dies, and with it whatever could look for its pods.
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    until(Duration::from_secs(120), "neither lease nor pod", || {
        (lease_of(&name).is_none() && cluster(&world).pods().is_empty()).then_some(())
    });
    // The line is written when the cluster has answered.
    until(Duration::from_secs(20), "a word of it in the log", || {
        let why = "its worker did not renew it in its time";
        daemon.log().contains(why).then_some(())
    });
    cluster(&world).assert_clean();
}

#[test]
fn what_a_killed_worker_leaves_is_reaped_by_the_cluster_or_by_its_next_start() {
    let world = World::new().in_cluster();
    cluster(&world).control("owner", &json!("u-1"));
    let owner = [("KUBERNETES__POD_NAME", "worker-0"), ("KUBERNETES__POD_UID", "u-1")];
    let (mut child, _) = running(&world, &owner);
    child.0.kill().unwrap();
    // `inside` lost its link, and ends what it holds.
    until(Duration::from_secs(20), "the end of the pod", || {
        let pod = cluster(&world).pods().pop().unwrap();
        (pod["status"]["phase"] == "Failed").then(|| {
            let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
            assert_eq!(ended["exitCode"], 3, "{pod}");
        })
    });
    // The worker's pod is gone, and with it what it owned.
    cluster(&world).control("owner-gone", &json!("u-1"));
    cluster(&world).assert_clean();

    // Without an owner the next worker in this directory knows it by its notes.
    let (mut child, pod) = running(&world, &[]);
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "Lease");
    let lease = &cluster(&world).state()["leases"][0];
    assert!(lease["metadata"].get("ownerReferences").is_none(), "{lease}");
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    let _daemon = Daemon::start(&world, "");
    until(Duration::from_secs(30), "neither pod nor lease", || {
        let state = cluster(&world).state();
        (state["pods"] == json!([]) && state["leases"] == json!([])).then_some(())
    });
    cluster(&world).assert_clean();
}

#[test]
fn a_session_after_its_worker_s_lease_was_removed_gets_another_lease() {
    let world = World::new().in_cluster();
    // The usual time, of which a twentieth passes between two renewals: what is removed in between is seen before the next pod is made.
    let daemon = Daemon::start_in(&world, "", &[("COFFERDAM__SANDBOX__WARM", "0")]);
    let run = || {
        let ran = daemon.submit(&world, &world.lab_task("!write a.txt b"));
        assert_eq!(ran.outcome()["reason"], "published");
        let leases = cluster(&world).state()["leases"].as_array().unwrap().clone();
        assert_eq!(leases.len(), 1, "{leases:?}");
        leases[0]["metadata"].clone()
    };
    let first = run();
    let name = first["name"].as_str().unwrap();
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{name}");
    cluster(&world).request("DELETE", &path, &json!({}));
    assert_eq!(cluster(&world).state()["leases"], json!([]));
    let second = run();
    assert_ne!(second["uid"], first["uid"]);
    until(Duration::from_secs(20), "a word of it in the log", || {
        daemon.log().contains("this worker's lease was removed").then_some(())
    });
    cluster(&world).assert_clean();
}
