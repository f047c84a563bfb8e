//! What a pod's own words mean for its sandbox. Pure: from a pod to what was seen of it.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

use super::spec::SANDBOX;
use crate::sandbox::Ended;

/// The longest words of a cluster that are told, in characters.
const LONGEST: usize = 300;

/// What the cluster says of a pod whose node it gave up.
const NODE_LOST: &str = "NodeLost";

/// What is seen of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// It does not run yet; why, where it was said.
    Waiting(Option<Delay>),
    /// `inside` was started.
    Running,
    /// It ended by itself, or for memory.
    Ended(Ended),
    /// The cluster took it away, or somebody did.
    Taken(String),
}

/// Why a pod does not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Delay {
    /// No node takes it.
    Unplaced(String),
    /// An image was not pulled, and is tried again.
    Pulling { image: String, detail: String },
    /// An image cannot be had.
    NoImage { image: String, detail: String },
    /// Something else that the node says; it may try again.
    Other(String),
}

/// What this pod says.
pub(super) fn seen(pod: &Pod) -> Seen {
    let empty = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&empty);
    let containers = status.container_statuses.iter().flatten();
    let sandbox = containers.into_iter().find(|one| one.name == SANDBOX);
    let ended = sandbox.and_then(|one| one.state.as_ref()?.terminated.as_ref());
    if ended.is_some_and(|ended| ended.reason.as_deref() == Some("OOMKilled")) {
        return Seen::Ended(Ended {
            status: ended.map_or(-1, |ended| i64::from(ended.exit_code)),
            out_of_memory: true,
        });
    }
    if let Some(why) = taken(pod, status) {
        return Seen::Taken(why);
    }
    if let Some(ended) = ended {
        return Seen::Ended(Ended {
            status: i64::from(ended.exit_code),
            out_of_memory: false,
        });
    }
    let of_tools = status.init_container_statuses.iter().flatten();
    let failed = of_tools.clone().find_map(|one| {
        let ended = one.state.as_ref()?.terminated.as_ref()?;
        (ended.exit_code != 0).then_some(ended)
    });
    if let Some(failed) = failed {
        let words = failed
            .message
            .as_deref()
            .or(failed.reason.as_deref())
            .unwrap_or_default();
        return Seen::Taken(format!(
            "`inside` of sandbox.kubernetes.tools_image could not be put into it, status {} {}",
            failed.exit_code,
            line(words)
        ));
    }
    if status.phase.as_deref() == Some("Failed") {
        return Seen::Taken("the cluster says that it failed, and not why".to_owned());
    }
    if sandbox.is_some_and(|one| one.state.as_ref().is_some_and(|state| state.running.is_some())) {
        return Seen::Running;
    }
    let delay = of_tools.chain(sandbox).find_map(delay).or_else(|| unplaced(status));
    Seen::Waiting(delay)
}

/// Why it was taken away, where it was.
fn taken(pod: &Pod, status: &PodStatus) -> Option<String> {
    let said = |reason: &str, message: Option<&str>| match message.map(line) {
        Some(message) if !message.is_empty() => format!("{}: {message}", line(reason)),
        Some(_) | None => line(reason),
    };
    let failed = matches!(status.phase.as_deref(), Some("Failed" | "Unknown"));
    // A node that says nothing any more cannot say that its pods failed: they stay as they were last seen.
    let told = |reason: &&str| !reason.is_empty() && (failed || *reason == NODE_LOST);
    if let Some(reason) = status.reason.as_deref().filter(told) {
        return Some(said(reason, status.message.as_deref()));
    }
    let disrupted = status
        .conditions
        .iter()
        .flatten()
        .find(|one| one.type_ == "DisruptionTarget" && one.status == "True");
    if let Some(one) = disrupted {
        let reason = one.reason.as_deref().unwrap_or("DisruptionTarget");
        return Some(said(reason, one.message.as_deref()));
    }
    let deleted = pod.metadata.deletion_timestamp.is_some();
    deleted.then(|| "its pod was deleted".to_owned())
}

/// Whether a pod was taken away because it filled what it may fill: its own doing, and no fault of the cluster.
pub(super) fn is_full(why: &str) -> bool {
    why.starts_with("Evicted")
        && ["EmptyDir volume", "ephemeral local storage", "local ephemeral storage"]
            .iter()
            .any(|what| why.contains(what))
        && (why.contains("exceeds") || why.contains("exceeded"))
}

fn unplaced(status: &PodStatus) -> Option<Delay> {
    let placed = status
        .conditions
        .iter()
        .flatten()
        .find(|one| one.type_ == "PodScheduled");
    let refused = placed.filter(|one| one.status == "False")?;
    Some(Delay::Unplaced(line(
        refused
            .message
            .as_deref()
            .or(refused.reason.as_deref())
            .unwrap_or_default(),
    )))
}

fn delay(container: &ContainerStatus) -> Option<Delay> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let image = container.image.clone();
    let detail = line(waiting.message.as_deref().unwrap_or(reason));
    match reason {
        "PodInitializing" | "ContainerCreating" => None,
        "ErrImagePull" | "RegistryUnavailable" => Some(Delay::Pulling { image, detail }),
        "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "SignatureValidationFailed" => Some(Delay::NoImage { image, detail }),
        other => Some(Delay::Other(format!("{}: {detail}", line(other)))),
    }
}

/// A cluster's words on one bounded line.
pub(super) fn line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(status: Value) -> Seen {
        seen(&serde_json::from_value(json!({"metadata": {"name": "x"}, "status": status})).unwrap())
    }

    fn container(state: Value) -> Value {
        json!({"name": "sandbox", "image": "i:1", "imageID": "", "ready": false, "restartCount": 0, "state": state})
    }

    fn sandbox(state: Value) -> Seen {
        of(json!({"phase": "Pending", "containerStatuses": [container(state)]}))
    }

    #[test]
    fn from_nothing_to_running() {
        assert_eq!(of(json!({})), Seen::Waiting(None));
        let unplaced = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes\n are available"}]});
        assert_eq!(
            of(unplaced),
            Seen::Waiting(Some(Delay::Unplaced("0/3 nodes are available".into())))
        );
        assert_eq!(
            sandbox(json!({"waiting": {"reason": "PodInitializing"}})),
            Seen::Waiting(None)
        );
        assert_eq!(sandbox(json!({"running": {}})), Seen::Running);
    }

    #[test]
    fn an_image_that_is_tried_again_is_not_one_that_cannot_be_had() {
        let pull = |reason: &str| sandbox(json!({"waiting": {"reason": reason, "message": "no such manifest"}}));
        let (image, detail) = ("i:1".to_owned(), "no such manifest".to_owned());
        let tried = Delay::Pulling {
            image: image.clone(),
            detail: detail.clone(),
        };
        assert_eq!(pull("ErrImagePull"), Seen::Waiting(Some(tried)));
        for reason in ["ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"] {
            let none = Delay::NoImage {
                image: image.clone(),
                detail: detail.clone(),
            };
            assert_eq!(pull(reason), Seen::Waiting(Some(none)));
        }
        assert!(matches!(
            pull("CreateContainerError"),
            Seen::Waiting(Some(Delay::Other(_)))
        ));
    }

    #[test]
    fn memory_is_told_before_all_and_an_eviction_before_its_status() {
        let ended = |reason: &str, code: i32| json!({"terminated": {"exitCode": code, "reason": reason}});
        let status = |state: Value, more: Value| {
            let mut status = json!({"phase": "Failed", "containerStatuses": [container(state)]});
            status
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            of(status)
        };
        let oom = Seen::Ended(Ended {
            status: 137,
            out_of_memory: true,
        });
        assert_eq!(status(ended("OOMKilled", 137), json!({})), oom);
        let plain = Seen::Ended(Ended {
            status: 3,
            out_of_memory: false,
        });
        assert_eq!(status(ended("Error", 3), json!({})), plain);
        let evicted = json!({"reason": "Evicted", "message": "The node was low on resource: memory."});
        assert_eq!(
            status(ended("Error", 137), evicted),
            Seen::Taken("Evicted: The node was low on resource: memory.".into())
        );
        let drained =
            json!({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]});
        assert_eq!(
            status(ended("Error", 137), drained),
            Seen::Taken("EvictionByEvictionAPI".into())
        );
        let late = json!({"reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the specified deadline"});
        assert!(
            matches!(status(json!({"running": {}}), late), Seen::Taken(why) if why.starts_with("DeadlineExceeded"))
        );
    }

    #[test]
    fn who_was_pushed_out_or_lost_with_a_node_is_taken_while_it_still_seems_to_run() {
        let running = |more: Value| {
            let mut status = json!({"phase": "Running", "containerStatuses": [container(json!({"running": {}}))]});
            status
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            of(status)
        };
        let disrupted = |reason: &str| {
            running(
                json!({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "why"}]}),
            )
        };
        for reason in [
            "PreemptionByScheduler",
            "DeletionByTaintManager",
            "EvictionByEvictionAPI",
            "DeletionByPodGC",
            "TerminationByKubelet",
        ] {
            assert_eq!(disrupted(reason), Seen::Taken(format!("{reason}: why")));
        }
        let lost = json!({"reason": "NodeLost", "message": "Node n-1 which was running pod x is unresponsive"});
        assert!(matches!(running(lost), Seen::Taken(why) if why.starts_with("NodeLost: Node n-1")));
        let over = json!({"conditions": [{"type": "DisruptionTarget", "status": "False", "reason": "x"}]});
        assert_eq!(running(over), Seen::Running);
    }

    #[test]
    fn a_deleted_pod_and_tools_that_failed_are_taken() {
        let pod = json!({"metadata": {"name": "x", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"containerStatuses": [container(json!({"running": {}}))]}});
        let deleted = seen(&serde_json::from_value(pod).unwrap());
        assert_eq!(deleted, Seen::Taken("its pod was deleted".into()));
        let mut tools = container(json!({"terminated": {"exitCode": 1, "reason": "Error"}}));
        tools["name"] = json!("tools");
        let failed = of(json!({"phase": "Failed", "initContainerStatuses": [tools]}));
        assert!(matches!(failed, Seen::Taken(why) if why.contains("tools_image") && why.contains("status 1")));
    }
}
