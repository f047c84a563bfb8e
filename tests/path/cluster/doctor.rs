//! What `doctor` says of a cluster: what the worker may not do there, what is open, what bounds its namespace, and what cannot be seen.

use serde_json::{Value, json};

use super::cluster;
use crate::harness::{Ran, World};

#[test]
fn doctor_names_what_the_worker_may_not_do_there_and_what_is_open() {
    let world = World::new().in_cluster();
    let doctor = || {
        let mut command = world.command(&world.config(""));
        command.args(["doctor", "--json"]);
        let ran = Ran::of(command);
        serde_json::from_str::<Value>(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr))
    };
    let finding = |report: &Value, check: &str| {
        let found = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("{check} in {report}")).clone()
    };
    let report = doctor();
    for check in [
        "cluster",
        "cluster's rights",
        "cluster's network policy",
        "pod of agent scripted",
    ] {
        assert_eq!(finding(&report, check)["state"], "ok", "{report}");
    }
    for check in ["cluster's pod security", "cluster's quota", "cluster's limit ranges"] {
        assert_eq!(finding(&report, check)["state"], "ok", "{report}");
    }
    // What no API says is never called good.
    let pids = finding(&report, "cluster's process limit");
    assert_eq!(pids["state"], "warning", "{pids}");
    assert!(pids["remedy"].as_str().unwrap().contains("podPidsLimit"), "{pids}");
    assert!(cluster(&world).pods().is_empty(), "a pod that is tried is not made");
    cluster(&world).control("quotas", &json!([]));
    let range =
        json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": []}});
    cluster(&world).control("limit-ranges", &json!([range]));
    let warned = |check: &str, words: &str| {
        let found = finding(&doctor(), check);
        assert_eq!(found["state"], "warning", "{found}");
        assert!(found["found"].as_str().unwrap().contains(words), "{words}: {found}");
    };
    warned("cluster's quota", "no ResourceQuota");
    assert!(
        finding(&doctor(), "cluster's limit ranges")["found"]
            .to_string()
            .contains("small")
    );
    for (labels, words) in [
        (json!({}), "enforces nothing"),
        (
            json!({"pod-security.kubernetes.io/enforce": "baseline"}),
            "enforces baseline",
        ),
    ] {
        cluster(&world).control("namespace-labels", &labels);
        warned("cluster's pod security", words);
    }
    let hidden = json!(["get namespaces", "list resourcequotas", "list limitranges"]);
    cluster(&world).control("deny", &hidden);
    for check in ["cluster's pod security", "cluster's quota", "cluster's limit ranges"] {
        warned(check, "cannot be seen");
    }
    cluster(&world).control("deny", &json!([]));
    cluster(&world).control("policies", &json!([]));
    assert_eq!(finding(&doctor(), "cluster's network policy")["state"], "problem");
    cluster(&world).control("deny", &json!(["watch pods", "delete secrets"]));
    let rights = finding(&doctor(), "cluster's rights");
    assert!(
        rights["found"].as_str().unwrap().contains("watch pods, delete secrets"),
        "{rights}"
    );
    // Each verb that the worker uses, and no other, is asked for.
    for verb in [
        "create pods",
        "list pods",
        "watch pods",
        "delete pods",
        "create secrets",
        "delete secrets",
        "create leases",
        "patch leases",
        "list leases",
        "delete leases",
        "list networkpolicies",
    ] {
        cluster(&world).control("deny", &json!([verb]));
        let rights = finding(&doctor(), "cluster's rights");
        assert_eq!(rights["found"], format!("the worker may not {verb}"), "{rights}");
    }
    cluster(&world).assert_clean();
}
