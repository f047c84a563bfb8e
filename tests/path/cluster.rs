//! Sandboxes in a cluster: a pod for each, against a stand-in that checks every request against the published schemas and runs pods as real
//! containers. Areas that know no engine run on it too (`COFFERDAM_TEST_BACKEND=kubernetes`); here is what only a cluster has.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{LAB, Process, Ran, World, signal, slowness, until};
use crate::standin::{NAMESPACE, StandIn};

mod doctor;
mod owners;
mod taken;

fn cluster(world: &World) -> &StandIn {
    world.cluster.as_ref().unwrap()
}

/// Runs a task with keys of the configuration set by variables.
fn exec(world: &World, variables: &[(&str, &str)], task: &Value) -> Ran {
    let config = world.config("");
    let mut command = world.command(&config);
    command.args(["exec", "--json"]).arg(world.write_task(task));
    for (key, value) in variables {
        command.env(format!("COFFERDAM__SANDBOX__{key}"), value);
    }
    Ran::of(command)
}

/// It ended so, in these words, and nothing is left in the cluster or on the disk.
fn assert_ended(world: &World, ran: &Ran, reason: &str, words: &str) {
    assert_eq!(ran.reason(), reason, "{} {}", ran.outcome(), ran.stderr);
    let message = ran.outcome()["message"].as_str().unwrap();
    assert!(message.contains(words), "{reason}: {message}");
    world.assert_clean();
}

/// A session that goes on, with its pod, until it is told something.
fn running(world: &World, variables: &[(&str, &str)]) -> (Process, Value) {
    let config = world.config("");
    let task = world.lab_task("!write a.txt b\n!commit . One\n!hang");
    let mut command = world.command(&config);
    command.args(["exec", "--json"]).arg(world.write_task(&task));
    for (key, value) in variables {
        command.env(format!("COFFERDAM__SANDBOX__{key}"), value);
    }
    let child = Process(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let pod = until(
        Duration::from_secs(60),
        "a pod that runs, and whose ticket was used",
        || {
            let state = cluster(world).state();
            let pod = state["pods"].get(0).cloned()?;
            let used = state["secrets"].as_array().unwrap().is_empty();
            (pod["status"]["phase"] == "Running" && used).then_some(pod)
        },
    );
    (child, pod)
}

/// The outcome of what was started with `running`.
fn ended(mut child: Process) -> Value {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.0.stdout.take().unwrap(), &mut text).unwrap();
    let mut events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let last = events.rfind(|event| event["data"]["event"] == "finished");
    last.unwrap_or_else(|| panic!("no end in {text}"))["data"]["outcome"].clone()
}

/// What must hold in the pod, one command each.
const LOOKS: &[&str] = &[
    // The clone came over the link: nothing is shown, and nothing is mounted from the worker.
    "test ! -e .git/objects/info/alternates && test -n \"$(find .git/objects -name '*.pack')\" && test ! -e /run/cofferdam-objects",
    "test ! -e /run/cofferdam && git fetch -q origin",
    // No name is resolved, nothing is reached but the worker's port, and the cluster gave it no account.
    "! timeout 5 bash -c '</dev/tcp/10.96.0.1/443' 2>/dev/null && ! getent hosts kubernetes.default.svc",
    "test ! -e /var/run/secrets/kubernetes.io && ! env | grep -q KUBERNETES_",
    // Nobody reads the memory in which the link's key is.
    "! cat /proc/1/environ 2>/dev/null && ! head -c 1 /proc/1/mem 2>/dev/null",
    // Read-only, without rights, as nobody.
    "! touch /x 2>/dev/null && ! touch /opt/cofferdam/x 2>/dev/null && test \"$(id -u):$(id -g)\" = 1000:1000",
    "grep -q '^CapEff:[[:space:]]*0*$' /proc/self/status && grep -q '^NoNewPrivs:[[:space:]]*1' /proc/self/status",
    "df --output=fstype /workspace | grep -q tmpfs && test -x /opt/cofferdam/hooks/commit-msg",
];

/// A session whose agent looks, and commits something only where all of it holds.
fn look(world: &World, variables: &[(&str, &str)], looks: &[&str]) -> Ran {
    let each: Vec<String> = looks
        .iter()
        .map(|look| format!("!shell ({look}) && echo >>/tmp/held"))
        .collect();
    let prompt = format!(
        "{}\n!shell test \"$(wc -l </tmp/held)\" -eq {} && echo all >held.txt",
        each.join("\n"),
        looks.len()
    );
    let ran = exec(world, variables, &world.lab_task(&prompt));
    assert_eq!(ran.reason(), "published", "{:?} {}", ran.all("agent_tool"), ran.stderr);
    ran
}

/// What a process of an agent may have in a pod, one command each. `inside` sets the limits, as no pod can ask for them.
const LIMITS: &[&str] = &[
    "grep -Eq '^Max core file size +0 +0 ' /proc/self/limits",
    "grep -Eq '^Max open files +[0-9]+ +4096 ' /proc/self/limits",
    "grep -Eq '^Max locked memory +8388608 +8388608 ' /proc/self/limits",
    // The largest of its file systems, which is /tmp here, and a little: a full one is an error, and no signal that ends a program.
    "grep -Eq '^Max file size +537919488 +537919488 ' /proc/self/limits",
    "head -c 600000000 /dev/zero 2>&1 >/tmp/full | grep -q 'No space left'; said=$?; rm /tmp/full; exit $said",
    // None of them can be raised again.
    "! (ulimit -n 5000) 2>/dev/null && ! (ulimit -c 1) 2>/dev/null && ! (ulimit -f unlimited) 2>/dev/null",
    "! perl -e '$SIG{XFSZ} = q(IGNORE); open(F, q(>), q(/tmp/large)) or exit 0; exit(!truncate(F, 600000000))'",
    "grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/self/status && grep -q '^Seccomp:[[:space:]]*2$' /proc/self/status",
    "for set in CapInh CapPrm CapEff CapBnd CapAmb; do grep -q \"^$set:[[:space:]]*0*$\" /proc/self/status || exit 1; done",
    "grep -Eq '^Groups:[[:space:]]*1000 *$' /proc/self/status || ! grep -q '^Groups:.*[0-9]' /proc/self/status",
    // What the profile refuses: a user name space, which would give all capabilities in it, and the memory of others.
    "! unshare --user true 2>/dev/null && ! unshare --net true 2>/dev/null",
    // Nothing below /sys or /proc/sys is the agent's to change, and its own memory is the pod's.
    "! (echo 1 >/proc/sys/kernel/core_uses_pid) 2>/dev/null && ! (echo 1 >/proc/sysrq-trigger) 2>/dev/null",
];

#[test]
fn what_a_process_in_a_pod_may_have_is_limited() {
    let world = World::new().in_cluster();
    let sizes = [("MEMORY_BYTES", "1073741824"), ("WORKSPACE_BYTES", "268435456")];
    let ours = [sizes[0], sizes[1], ("KUBERNETES__SECCOMP_PROFILE", "sandbox.json")];
    // With the node's own profile of system calls, and with ours.
    for variables in [&sizes[..], &ours[..]] {
        look(&world, variables, LIMITS);
        world.assert_clean();
    }
}

#[test]
fn a_whole_session_runs_in_a_pod_from_the_prompt_to_the_merge_request() {
    let world = World::new().in_cluster();
    look(&world, &[], LOOKS);
    assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
    world.assert_clean();
    let requests = cluster(&world).state()["requests"].to_string();
    for verb in ["POST", "DELETE"] {
        for kind in ["pods", "secrets"] {
            assert!(
                requests.contains(&format!("{verb} /api/v1/namespaces/{NAMESPACE}/{kind}")),
                "{verb} {kind}"
            );
        }
    }
}

#[test]
fn the_cluster_is_told_of_every_wall_and_of_no_session() {
    let world = World::new().in_cluster();
    cluster(&world).control("owner", &json!("u-1"));
    let owner = [("KUBERNETES__POD_NAME", "worker-0"), ("KUBERNETES__POD_UID", "u-1")];
    let runtime = [owner[0], owner[1], ("RUNTIME", "runc")];
    let (child, pod) = running(&world, &runtime);
    let spec = &pod["spec"];
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["enableServiceLinks"], false);
    assert_eq!(spec["restartPolicy"], "Never");
    assert_eq!(spec["runtimeClassName"], "runc");
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert!(
        ["RuntimeDefault", "Localhost"].contains(&spec["securityContext"]["seccompProfile"]["type"].as_str().unwrap())
    );
    assert!(spec["activeDeadlineSeconds"].as_i64().unwrap() > 3600);
    // The worker's Lease owns it, and its pod owns that where it is in this namespace.
    let lease = cluster(&world).state()["leases"][0].clone();
    let owner = &pod["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"]),
        (&json!("Lease"), &lease["metadata"]["uid"])
    );
    assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], "u-1");
    assert!(spec["containers"][0].get("env").is_none());
    let ticket = spec.to_string();
    assert!(!ticket.contains("hostPath") && !ticket.contains("\"privileged\":true"));
    signal(&child.0, "INT");
    ended(child);
    world.assert_clean();
    assert_eq!(
        cluster(&world).state()["leases"],
        json!([]),
        "what ends takes its lease with it"
    );
}

#[test]
fn what_a_cluster_refuses_is_told_in_one_sentence_and_leaves_nothing() {
    let world = World::new().in_cluster();
    let task = || world.lab_task("!say hi");
    let quota = "pods \"x\" is forbidden: exceeded quota: sandboxes, requested: pods=1, used: pods=4, limited: pods=4";
    for (code, message, reason, words) in [
        (403, quota, "sandbox_unavailable", "exceeded quota"),
        (
            403,
            "pods is forbidden: violates PodSecurity",
            "sandbox_failed",
            "violates PodSecurity",
        ),
        (
            409,
            "object is being deleted: pods \"x\" already exists",
            "sandbox_failed",
            "already exists",
        ),
        (
            500,
            "etcdserver: leader changed",
            "sandbox_unavailable",
            "leader changed",
        ),
    ] {
        cluster(&world).fault("POST", "/pods", 1, json!({"code": code, "message": message}));
        assert_ended(&world, &world.exec(&task()), reason, words);
    }
    // Long enough for every other call.
    let limit = 2 * slowness();
    cluster(&world).fault(
        "POST",
        "/pods",
        1,
        json!({"stall_s": 3 * limit, "code": 504, "message": "too late"}),
    );
    let stalled = exec(&world, &[("CALL_TIMEOUT_S", &limit.to_string())], &task());
    let words = format!("no answer within {limit} s");
    assert_ended(&world, &stalled, "sandbox_unavailable", &words);
    let class = exec(&world, &[("RUNTIME", "kata-is-not-here")], &task());
    assert_ended(&world, &class, "runtime_missing", "kata-is-not-here");
    // And after all of that a session as any other.
    assert_eq!(world.exec(&task()).reason(), "nothing_to_publish");
    world.assert_clean();
}

#[test]
fn a_pod_that_cannot_start_says_why_within_its_time() {
    let world = World::new().in_cluster();
    let config = world.config("");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace("cofferdam/sandbox-scripted:test", "cofferdam/no-such-image:1"),
    )
    .unwrap();
    let missing = |pull: &str| {
        let mut command = world.command(&config);
        command.env("COFFERDAM__SANDBOX__PULL", pull);
        command
            .args(["exec", "--json"])
            .arg(world.write_task(&world.lab_task("!say hi")));
        Ran::of(command)
    };
    assert_ended(&world, &missing("true"), "image_missing", "failed to pull and unpack");
    assert_ended(&world, &missing("false"), "image_missing", "pull policy of Never");
    cluster(&world).control("unplaced", &json!("0/3 nodes are available: 3 Insufficient memory."));
    let began = Instant::now();
    let ran = exec(
        &world,
        &[("KUBERNETES__START_TIMEOUT_S", &(2 * slowness()).to_string())],
        &world.lab_task("!say hi"),
    );
    assert_ended(&world, &ran, "sandbox_unavailable", "Insufficient memory");
    assert!(began.elapsed() < Duration::from_secs(30) * slowness());
    cluster(&world).control("unplaced", &Value::Null);
}

#[test]
fn an_api_that_stumbles_does_not_end_a_session() {
    let world = World::new().in_cluster();
    let config = world.config("");
    let task = world.lab_task("!write a.txt b\n!sleep 8000\n!say done");
    let mut command = world.command(&config);
    command.args(["exec", "--json"]).arg(world.write_task(&task));
    let child = Process(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    until(Duration::from_secs(60), "a pod that runs", || {
        cluster(&world)
            .pods()
            .first()
            .filter(|pod| pod["status"]["phase"] == "Running")
            .map(|_| ())
    });
    // What it watches is too old, and the list that it asks for then fails twice.
    cluster(&world).fault(
        "GET",
        "/pods",
        2,
        json!({"code": 500, "message": "etcdserver: request timed out"}),
    );
    cluster(&world).control("compact", &Value::Null);
    assert_eq!(ended(child)["reason"], "published");
    world.assert_clean();
    let requests = cluster(&world).state()["requests"].to_string();
    assert!(
        requests.matches("GET /api/v1/namespaces/sandboxes/pods").count() >= 4,
        "it asked again: {requests}"
    );
}

#[test]
fn no_pod_is_made_where_the_network_is_open() {
    let world = World::new().in_cluster();
    let mut open = cluster(&world).policy();
    open["metadata"]["name"] = json!("let-all-out");
    open["spec"]["egress"] = json!([{}]);
    for (policies, words) in [
        (json!([]), "no network policy that closes the way out"),
        (json!([cluster(&world).policy(), open]), "let-all-out"),
    ] {
        cluster(&world).control("policies", &policies);
        assert_ended(&world, &world.exec(&world.lab_task("!say hi")), "sandbox_failed", words);
    }
    let requests = cluster(&world).state()["requests"].to_string();
    assert!(!requests.contains("POST"), "{requests}");
}

#[test]
fn a_configuration_that_a_cluster_cannot_have_is_refused() {
    let world = World::new().in_cluster();
    for (key, value, words) in [
        (
            "SANDBOX__KUBERNETES__ADVERTISE",
            "worker.example",
            "sandbox.kubernetes.advertise",
        ),
        (
            "SANDBOX__KUBERNETES__NAMESPACE",
            "Not A Name",
            "sandbox.kubernetes.namespace",
        ),
        ("SANDBOX__BACKEND", "nomad", "sandbox.backend"),
    ] {
        let mut command: Command = world.command(&world.config(""));
        command.env(format!("COFFERDAM__{key}"), value);
        command.args(["config", "check"]);
        let ran = Ran::of(command);
        assert_ne!(ran.exit, 0);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// A judge that lets everything pass would make all of the above worth nothing.
#[test]
fn the_stand_in_refuses_what_a_real_api_would() {
    let world = World::new().in_cluster();
    let pod = |change: fn(&mut Value)| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "a", "image": "i", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}}]}});
        change(&mut pod);
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All");
        let answer = cluster(&world).request("POST", &path, &pod);
        (answer["code"].as_i64(), answer.to_string())
    };
    assert_eq!(pod(|_| {}).0, None);
    type Spoil = fn(&mut Value);
    let wrong: [(Spoil, &str); 8] = [
        (|pod| pod["spec"]["hostNetworks"] = json!(false), "hostNetworks"),
        (
            |pod| pod["spec"]["activeDeadlineSeconds"] = json!("60"),
            "activeDeadlineSeconds",
        ),
        (|pod| pod["spec"]["activeDeadlineSeconds"] = json!(0), "greater than 0"),
        (
            |pod| pod["spec"]["containers"][0]["imagePullPolicy"] = json!("Sometimes"),
            "imagePullPolicy",
        ),
        (|pod| pod["spec"]["dnsPolicy"] = json!("None"), "nameserver"),
        (|pod| pod["metadata"]["name"] = json!("X_1"), "no name"),
        (|pod| pod["metadata"]["labels"]["a"] = json!("/var/lib"), "no label"),
        (
            |pod| pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2"),
            "limit",
        ),
    ];
    for (change, words) in &wrong {
        let (code, answer) = pod(*change);
        assert_eq!(code, Some(422), "{words}: {answer}");
        assert!(answer.contains(words), "{words}: {answer}");
    }
    assert_eq!(
        cluster(&world).state()["violations"].as_array().unwrap().len(),
        wrong.len()
    );
}
