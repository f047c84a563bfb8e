//! Whether the namespace's network policies close the network of sandboxes but for the worker's port. Pure.
//!
//! Policies add up: one that closes does not help where another opens, so each one that selects a sandbox is looked at. Whether the cluster's
//! network enforces them at all, no API says.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Says what is open, as the end of a sentence.
///
/// # Errors
/// Something is open, or nothing closes it.
pub(super) fn closed(policies: &[NetworkPolicy], labels: &BTreeMap<String, String>, port: u16) -> Result<(), String> {
    let (mut no_entry, mut no_exit) = (false, false);
    for policy in policies {
        let Some(spec) = policy.spec.as_ref() else { continue };
        if !selects(spec.pod_selector.as_ref(), labels) {
            continue;
        }
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let is = |kind: &str| governs(spec, kind);
        if is("Ingress") {
            if spec.ingress.as_ref().is_some_and(|rules| !rules.is_empty()) {
                return Err(format!("its network policy {name:?} lets others in"));
            }
            no_entry = true;
        }
        if is("Egress") {
            if !spec.egress.iter().flatten().all(|rule| {
                let ports = rule.ports.as_deref().unwrap_or_default();
                let to = rule.to.as_deref().unwrap_or_default();
                let only_ours = ports.iter().all(|one| {
                    one.protocol.as_deref().unwrap_or("TCP") == "TCP"
                        && one.end_port.is_none()
                        && one.port == Some(IntOrString::Int(i32::from(port)))
                });
                !ports.is_empty() && !to.is_empty() && only_ours && to.iter().all(is_named)
            }) {
                return Err(format!(
                    "its network policy {name:?} lets sandboxes out to more than TCP port {port} of named peers"
                ));
            }
            no_exit = true;
        }
    }
    match (no_entry, no_exit) {
        (true, true) => Ok(()),
        (_, false) => Err("it has no network policy that closes the way out of sandboxes".to_owned()),
        (false, true) => Err("it has no network policy that closes the way into sandboxes".to_owned()),
    }
}

/// Whether a peer is one address, or pods that some label tells from others: the port alone would lead to whoever listens there.
fn is_named(peer: &NetworkPolicyPeer) -> bool {
    if let Some(block) = &peer.ip_block {
        let length = block
            .cidr
            .rsplit_once('/')
            .map(|(address, length)| (address.contains(':'), length));
        return matches!(length, Some((false, "32") | (true, "128")));
    }
    let says = |selector: &Option<LabelSelector>| {
        selector.as_ref().is_some_and(|selector| {
            selector.match_labels.as_ref().is_some_and(|labels| !labels.is_empty())
                || selector
                    .match_expressions
                    .as_ref()
                    .is_some_and(|expressions| !expressions.is_empty())
        })
    };
    says(&peer.namespace_selector) || says(&peer.pod_selector)
}

/// Whether a policy governs a direction; where it does not say, as the API's own default has it.
fn governs(spec: &NetworkPolicySpec, kind: &str) -> bool {
    match spec.policy_types.as_deref() {
        Some(kinds) if !kinds.is_empty() => kinds.iter().any(|one| one == kind),
        Some(_) | None => kind == "Ingress" || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    }
}

/// Whether a selector takes something with these labels. An empty one takes everything.
fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else { return true };
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(name, value)| labels.get(name) == Some(value));
    let expressed = selector.match_expressions.iter().flatten().all(|one| {
        let values = one.values.as_deref().unwrap_or_default();
        let value = labels.get(&one.key);
        match one.operator.as_str() {
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "In" => value.is_some_and(|value| values.contains(value)),
            "NotIn" => value.is_none_or(|value| !values.contains(value)),
            _ => false,
        }
    });
    equal && expressed
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::message::SandboxId;
    use crate::sandbox::kubernetes::spec::labels;

    fn look(specs: &[Value]) -> Result<(), String> {
        let policies: Vec<NetworkPolicy> = specs
            .iter()
            .map(|spec| serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap())
            .collect();
        closed(&policies, &labels(SandboxId::random()), 8473)
    }

    fn good() -> Value {
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [
            {"to": [{"podSelector": {"matchLabels": {"app": "worker"}}}], "ports": [{"protocol": "TCP", "port": 8473}]}]})
    }

    #[test]
    fn the_workers_port_may_be_reached_and_nothing_else() {
        assert_eq!(look(&[good()]), Ok(()));
        let mut by_label = good();
        by_label["podSelector"] = json!({"matchExpressions": [{"key": "dev.cofferdam/sandbox", "operator": "Exists"}]});
        assert_eq!(look(&[by_label]), Ok(()));
        for peer in [
            json!({"ipBlock": {"cidr": "10.1.2.3/32"}}),
            json!({"ipBlock": {"cidr": "fd00::1/128"}}),
            json!({"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {}}),
        ] {
            let mut named = good();
            named["egress"][0]["to"] = json!([peer]);
            assert_eq!(look(&[named]), Ok(()), "{peer}");
        }
        for peer in [
            json!({"ipBlock": {"cidr": "0.0.0.0/0"}}),
            json!({"ipBlock": {"cidr": "10.1.2.0/24"}}),
            json!({"ipBlock": {"cidr": "::/32"}}),
            json!({"namespaceSelector": {}}),
            json!({"podSelector": {}}),
            json!({"namespaceSelector": {}, "podSelector": {}}),
            json!({}),
        ] {
            let mut anybody = good();
            anybody["egress"][0]["to"].as_array_mut().unwrap().push(peer.clone());
            assert!(look(&[anybody]).is_err(), "{peer}");
        }
        let sealed = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
        assert_eq!(
            look(&[sealed]),
            Ok(()),
            "whether the worker is reached at all shows by itself"
        );
    }

    #[test]
    fn nothing_that_closes_and_anything_that_opens_is_told() {
        assert!(look(&[]).unwrap_err().contains("way out"));
        let for_others =
            json!({"podSelector": {"matchLabels": {"app": "other"}}, "policyTypes": ["Ingress", "Egress"]});
        assert!(look(std::slice::from_ref(&for_others)).is_err());
        assert_eq!(look(&[good(), for_others]), Ok(()));
        assert!(
            look(&[json!({"podSelector": {}, "policyTypes": ["Egress"]})])
                .unwrap_err()
                .contains("way into")
        );
        assert!(look(&[json!({"podSelector": {}})]).unwrap_err().contains("way out"));
        let open = |egress: Value| {
            let mut spec = good();
            spec["egress"] = egress;
            look(&[good(), spec])
        };
        let worker = json!([{"podSelector": {}}]);
        for wrong in [
            json!([{}]),
            json!([{"to": worker}]),
            json!([{"ports": [{"port": 8473}]}]),
            json!([{"to": worker, "ports": [{"port": 8473}, {"protocol": "UDP", "port": 53}]}]),
            json!([{"to": worker, "ports": [{"port": 8473, "endPort": 9000}]}]),
            json!([{"to": worker, "ports": [{"port": "link"}]}]),
        ] {
            assert!(
                open(wrong.clone()).unwrap_err().contains("lets sandboxes out"),
                "{wrong}"
            );
        }
        let mut entry = good();
        entry["ingress"] = json!([{}]);
        assert!(look(&[entry]).unwrap_err().contains("lets others in"));
    }
}
