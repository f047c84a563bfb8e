//! What a sandbox looks like to the cluster. Pure: from the configuration and a spec to a pod and a secret.
//!
//! Closed by default, as on a machine of one's own: no capability, no privilege gain, read-only root, bounded memory and temporary files, no
//! account of the cluster, no names. The network is closed by the namespace's policy (see `policy`), and the number of processes bounded by the
//! node (`podPidsLimit`): a pod can say neither. Nothing of a task, and no credential but the one-time ticket, ever stands here.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use cofferdam_inside::{CERTIFICATE_FILE, TICKET_FILE, Token};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, LocalObjectReference, Pod, PodDNSConfig, PodSecurityContext,
    PodSpec, PodStatus, ResourceRequirements, SeccompProfile, Secret, SecretVolumeSource, SecurityContext, Toleration,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::message::SandboxId;
use crate::sandbox::left::Listed;
use crate::sandbox::owner::Owner;
use crate::sandbox::{Config, HOME, INSIDE, SandboxSpec, TOOLS_DIRECTORY, WORKSPACE, Workspace};

/// Which sandbox a pod is; every pod of ours has it.
pub(super) const SANDBOX_LABEL: &str = "dev.cofferdam/sandbox";
/// What a label's value cannot hold.
const WORKER: &str = "dev.cofferdam/worker";
const STATE: &str = "dev.cofferdam/state";
const OWNER: &str = "dev.cofferdam/owner";
const PLACE: &str = "dev.cofferdam/place";
const DEADLINE: &str = "dev.cofferdam/deadline";

/// The container of the sandbox, and the one that brings `inside`.
pub(super) const SANDBOX: &str = "sandbox";
const TOOLS: &str = "tools";
const PAPERS: &str = "papers";
const PAPERS_DIRECTORY: &str = "/run/cofferdam-papers";

/// The temporary directory, and the home directory, in bytes.
const SCRATCH: u64 = 512 * 1024 * 1024;
/// `inside` and its hooks, in bytes.
const TOOLS_BYTES: u64 = 32 * 1024 * 1024;
/// Seconds between the cluster's word and its force.
const GRACE_S: i64 = 5;
/// For how long a pod stays with a node that the cluster has given up, in seconds; it would be five minutes by default.
const LOST_NODE_S: i64 = 30;
/// By how much a file's limit is above the largest file system, in bytes: a full one is an error that a program can handle.
const FILE_SLACK: u64 = 1024 * 1024;
/// For how long `inside` tries to reach the worker's gateway anew, in seconds; the link's own end ends it at once.
const GONE_AFTER: &str = "60";

/// The name of a sandbox's pod, and of its secret.
pub(super) fn name(id: SandboxId) -> String {
    format!("cofferdam-{id}")
}

/// Labels that every pod of ours has beside its own; the network policy may select by them.
pub(super) fn labels(id: SandboxId) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "cofferdam-sandbox".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "cofferdam".to_owned()),
        (SANDBOX_LABEL.to_owned(), id.to_string()),
    ])
}

/// What a listed pod says. Whoever may use the namespace could have written it. One that is being removed is nobody's to remove again: on a lost
/// node that may take long.
pub(super) fn listed(pod: Pod) -> Option<Listed> {
    let metadata = pod.metadata;
    if metadata.deletion_timestamp.is_some() {
        return None;
    }
    let annotations = metadata.annotations.unwrap_or_default();
    let noted = |name: &str| annotations.get(name).map_or("", String::as_str);
    let labels = metadata.labels.unwrap_or_default();
    let created = metadata.creation_timestamp.map_or(0, |created| created.0.as_second());
    let deadline: Option<i64> = noted(DEADLINE).parse().ok();
    // One that has ended holds nothing that its owner, if it lives, has not read by now.
    let over = pod.status.as_ref().and_then(|status| over_since(status, created));
    Some(Listed {
        key: metadata.name?,
        sandbox: labels.get(SANDBOX_LABEL).and_then(|id| SandboxId::parse(id)),
        worker: noted(WORKER).to_owned(),
        owner: Owner::read(noted(STATE), noted(OWNER), noted(PLACE)),
        deadline: over.or(deadline),
        created,
    })
}

/// Since when it has ended, in seconds of Unix time.
fn over_since(status: &PodStatus, created: i64) -> Option<i64> {
    matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")).then_some(())?;
    let containers = status.container_statuses.iter().flatten();
    let ended = containers.filter_map(|one| {
        Some(
            one.state
                .as_ref()?
                .terminated
                .as_ref()?
                .finished_at
                .as_ref()?
                .0
                .as_second(),
        )
    });
    Some(ended.max().unwrap_or(created))
}

/// A pod as the owner of what goes with it.
pub(super) fn owned_by(pod: &Pod) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.metadata.name.clone()?,
        uid: pod.metadata.uid.clone()?,
        controller: None,
        block_owner_deletion: None,
    })
}

/// The ticket and the certificate, for this sandbox alone; its pod owns them.
pub(super) fn secret(
    config: &Config,
    spec: &SandboxSpec,
    pod: OwnerReference,
    ticket: &Token,
    certificate: &[u8],
) -> Secret {
    let file = |name: &str, content: &[u8]| (name.to_owned(), ByteString(content.to_vec()));
    Secret {
        metadata: metadata(config, spec, Some(pod)),
        immutable: Some(true),
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([
            file(TICKET_FILE, ticket.as_str().as_bytes()),
            file(CERTIFICATE_FILE, certificate),
        ])),
        ..Secret::default()
    }
}

/// The pod. It reaches the worker at this address, and lives for so many seconds at most.
pub(super) fn pod(
    config: &Config,
    spec: &SandboxSpec,
    owner: Option<OwnerReference>,
    worker: SocketAddr,
    limit_s: i64,
) -> Pod {
    let cluster = &config.kubernetes;
    let uid = i64::from(config.uid);
    let mut volumes = vec![
        memory("tmp", SCRATCH),
        memory("home", SCRATCH),
        memory(TOOLS, TOOLS_BYTES),
        match config.workspace {
            Workspace::Tmpfs => memory("workspace", config.workspace_bytes),
            Workspace::Directory => disk("workspace", config.workspace_bytes),
        },
    ];
    volumes.push(Volume {
        name: PAPERS.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name(spec.id)),
            default_mode: Some(0o440),
            optional: Some(false),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    let arguments = [
        INSIDE,
        "--worker",
        &worker.to_string(),
        "--papers",
        PAPERS_DIRECTORY,
        "--largest-file",
        &config
            .workspace_bytes
            .max(config.kubernetes.scratch_bytes)
            .max(SCRATCH)
            .saturating_add(FILE_SLACK)
            .to_string(),
        "--gone-after",
        GONE_AFTER,
    ];
    let sandbox = Container {
        name: SANDBOX.to_owned(),
        image: Some(spec.image.clone()),
        command: Some(arguments.map(str::to_owned).to_vec()),
        args: Some(Vec::new()),
        working_dir: Some("/".to_owned()),
        resources: Some(resources(config)),
        volume_mounts: Some(vec![
            mount("tmp", "/tmp", false),
            mount("home", HOME, false),
            mount("workspace", WORKSPACE, false),
            mount(TOOLS, TOOLS_DIRECTORY, true),
            mount(PAPERS, PAPERS_DIRECTORY, true),
        ]),
        ..container(config)
    };
    let tools = Container {
        name: TOOLS.to_owned(),
        image: Some(cluster.tools_image.clone()),
        command: Some(
            [&cluster.tools_program, "install", TOOLS_DIRECTORY]
                .map(str::to_owned)
                .to_vec(),
        ),
        args: Some(Vec::new()),
        // The same: the scheduler takes the larger, so this costs nothing, and a quota wants every container to say it.
        resources: Some(resources(config)),
        volume_mounts: Some(vec![mount(TOOLS, TOOLS_DIRECTORY, false)]),
        ..container(config)
    };
    Pod {
        metadata: metadata(config, spec, owner),
        spec: Some(PodSpec {
            hostname: Some("sandbox".to_owned()),
            runtime_class_name: spec.runtime.clone(),
            restart_policy: Some("Never".to_owned()),
            active_deadline_seconds: Some(limit_s.max(1)),
            termination_grace_period_seconds: Some(GRACE_S),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            // A server must be named, and behind this one is nobody.
            dns_policy: Some("None".to_owned()),
            dns_config: Some(PodDNSConfig {
                nameservers: Some(vec!["127.0.0.1".to_owned()]),
                ..PodDNSConfig::default()
            }),
            host_network: Some(false),
            host_pid: Some(false),
            host_ipc: Some(false),
            share_process_namespace: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_user: Some(uid),
                run_as_group: Some(uid),
                run_as_non_root: Some(true),
                fs_group: Some(uid),
                seccomp_profile: Some(seccomp(cluster.seccomp_profile.as_deref())),
                ..PodSecurityContext::default()
            }),
            node_selector: (!cluster.node_selector.is_empty()).then(|| cluster.node_selector.clone()),
            tolerations: Some(["not-ready", "unreachable"].map(until_lost).to_vec()),
            image_pull_secrets: (!cluster.pull_secrets.is_empty()).then(|| {
                let secret = |name: &String| LocalObjectReference { name: name.clone() };
                cluster.pull_secrets.iter().map(secret).collect()
            }),
            init_containers: Some(vec![tools]),
            containers: vec![sandbox],
            volumes: Some(volumes),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn metadata(config: &Config, spec: &SandboxSpec, owner: Option<OwnerReference>) -> ObjectMeta {
    let cluster = &config.kubernetes;
    let note = |name: &str, value: String| (name.to_owned(), value);
    ObjectMeta {
        name: Some(name(spec.id)),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(labels(spec.id)),
        annotations: Some(BTreeMap::from([
            note(WORKER, spec.worker.clone()),
            note(STATE, spec.owner.state_dir.display().to_string()),
            note(OWNER, spec.owner.id.to_string()),
            note(PLACE, spec.owner.place.clone()),
            note(DEADLINE, spec.deadline.to_string()),
            // An autoscaler that moves it ends the session.
            note("cluster-autoscaler.kubernetes.io/safe-to-evict", "false".to_owned()),
        ])),
        owner_references: owner.map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// What every container has: nothing.
fn container(config: &Config) -> Container {
    Container {
        image_pull_policy: Some(if config.pull { "IfNotPresent" } else { "Never" }.to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// Tolerates for a moment that its node is so.
fn until_lost(what: &str) -> Toleration {
    Toleration {
        key: Some(format!("node.kubernetes.io/{what}")),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        toleration_seconds: Some(LOST_NODE_S),
        value: None,
    }
}

fn seccomp(profile: Option<&str>) -> SeccompProfile {
    SeccompProfile {
        type_: profile.map_or("RuntimeDefault", |_| "Localhost").to_owned(),
        localhost_profile: profile.map(str::to_owned),
    }
}

fn resources(config: &Config) -> ResourceRequirements {
    let cluster = &config.kubernetes;
    // A workspace on disk counts there.
    let disk = match config.workspace {
        Workspace::Tmpfs => cluster.scratch_bytes,
        Workspace::Directory => cluster.scratch_bytes.saturating_add(config.workspace_bytes),
    };
    let of = |cpus: f64, memory: i64| {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(format!("{}m", (cpus * 1000.0).ceil()))),
            ("memory".to_owned(), Quantity(memory.to_string())),
            ("ephemeral-storage".to_owned(), Quantity(disk.to_string())),
        ])
    };
    // What is set aside is never more than what may be used.
    let cpus = cluster.request_cpus.unwrap_or(config.cpus).min(config.cpus);
    let memory = cluster
        .request_memory_bytes
        .unwrap_or(config.memory_bytes)
        .min(config.memory_bytes);
    ResourceRequirements {
        limits: Some(of(config.cpus, config.memory_bytes)),
        requests: Some(of(cpus, memory)),
        claims: None,
    }
}

fn memory(name: &str, bytes: u64) -> Volume {
    empty(name, bytes, Some("Memory".to_owned()))
}

fn disk(name: &str, bytes: u64) -> Volume {
    empty(name, bytes, None)
}

fn empty(name: &str, bytes: u64, medium: Option<String>) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium,
            size_limit: Some(Quantity(bytes.to_string())),
        }),
        ..Volume::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    }
}

#[cfg(test)]
mod tests;
