//! What `doctor` finds of a cluster: whether it answers, what the worker may do there, whether sandboxes could get out, what bounds their
//! namespace, and whether their pods would be taken. What cannot be seen is said to be unseen.
//!
//! Only looks: a pod is tried, and never made.

use super::{Finding, ok, problem, warning};
use crate::config::Config;
use crate::sandbox::Engine as _;
use crate::sandbox::SandboxError;
use crate::sandbox::kubernetes::KubernetesEngine;
use crate::sandbox::kubernetes::bounds::ENFORCE;

/// Looks at all of it.
pub(super) async fn cluster(config: &Config, engine: &KubernetesEngine, findings: &mut Vec<Finding>) {
    match engine.check().await {
        Ok(facts) => findings.push(ok("cluster", format!("version {}", facts.version))),
        Err(error) => {
            let remedy = "start this in a pod with an account of the cluster, or set sandbox.kubernetes.kubeconfig";
            findings.push(problem("cluster", error.to_string(), remedy));
            return;
        }
    }
    let role = "bind the worker's account to a role with the verbs that the README lists (Sandboxes in a cluster)";
    match engine.denied().await {
        Ok(denied) if denied.is_empty() => findings.push(ok("cluster's rights", "all that are needed".to_owned())),
        Ok(denied) => {
            let found = format!("the worker may not {}", denied.join(", "));
            findings.push(problem("cluster's rights", found, role));
            return;
        }
        Err(error) => {
            findings.push(problem("cluster's rights", error.to_string(), role));
            return;
        }
    }
    findings.push(match engine.is_closed().await {
        Ok(()) => ok(
            "cluster's network policy",
            "closes all but the worker's port; that the network enforces it, no API says".to_owned(),
        ),
        Err(error) => problem(
            "cluster's network policy",
            error.to_string(),
            "apply the one that the README shows (Sandboxes in a cluster)",
        ),
    });
    bounds(&config.sandbox.kubernetes.namespace, engine, findings).await;
    for (name, agent) in &config.agents {
        let runtime = agent.runtime.as_deref().or(config.sandbox.runtime.as_deref());
        let check = format!("pod of agent {name}");
        let tried = match engine.require_image(&agent.image).await {
            Ok(_) => engine.would_take(&agent.image, runtime).await,
            Err(error) => Err(error),
        };
        findings.push(match tried {
            Ok(()) => ok(&check, format!("would be taken, with image {}", agent.image)),
            Err(error) => problem(
                &check,
                error.to_string(),
                "have the cluster's words corrected, or those of the agent",
            ),
        });
    }
}

/// What bounds the pods of the namespace, as far as the API shows it.
async fn bounds(namespace: &str, engine: &KubernetesEngine, findings: &mut Vec<Finding>) {
    let unseen = |check: &str, error: &SandboxError, right: &str| {
        let remedy =
            format!("look at it yourself, or give the worker's account the right to {right} in namespace {namespace}");
        warning(check, format!("cannot be seen: {error}"), &remedy)
    };
    let check = "cluster's pod security";
    let label = format!("kubectl label namespace {namespace} {ENFORCE}=restricted");
    findings.push(match engine.pod_security().await {
        Ok(Some(level)) if level == "restricted" => ok(check, format!("namespace {namespace} enforces restricted")),
        Ok(Some(level)) => {
            let found = format!(
                "namespace {namespace} enforces {level}: who may make pods there could make some that own their node"
            );
            warning(check, found, &label)
        }
        Ok(None) => {
            let found = format!(
                "namespace {namespace} enforces nothing: who may make pods there could make some that own their node"
            );
            warning(check, found, &label)
        }
        Err(error) => unseen(check, &error, "get namespaces"),
    });
    let check = "cluster's quota";
    findings.push(match engine.quotas().await {
        Ok(quotas) if quotas.is_empty() => warning(
            check,
            format!("no ResourceQuota of namespace {namespace} bounds how many pods there may be"),
            "apply one with `pods` and the sandboxes' processors and memory",
        ),
        Ok(quotas) => ok(check, format!("at most so many pods: {}", quotas.join(", "))),
        Err(error) => unseen(check, &error, "list resourcequotas"),
    });
    let check = "cluster's limit ranges";
    findings.push(match engine.limit_ranges().await {
        Ok(ranges) if ranges.is_empty() => ok(check, "none; a sandbox's pod says all of its own limits".to_owned()),
        Ok(ranges) => {
            let names: Vec<String> = ranges.into_iter().collect();
            let found = format!(
                "{}; whether sandboxes fit, the pods say that are tried below",
                names.join(", ")
            );
            ok(check, found)
        }
        Err(error) => unseen(check, &error, "list limitranges"),
    });
    findings.push(warning(
        "cluster's process limit",
        "cannot be seen: no API says what podPidsLimit the nodes have, and a pod cannot ask for one; without it one sandbox can take all process \
         numbers of its node"
            .to_owned(),
        "set podPidsLimit (for example 1024) in the kubelet's configuration of each node that runs sandboxes, and look in a pod there: \
         cat /sys/fs/cgroup/pids.max",
    ));
}
