//! What a sandbox's container looks like to the engine. Pure: from the configuration and a spec to the request's body.
//!
//! Closed by default: no network, no capability, no privilege gain, few system calls, read-only root, bounded memory, processes, logs and
//! temporary files. The engine's own masked and read-only paths of `/proc` and `/sys` stay as they are, so they are not set.
//! Nothing of a task, and no credential, ever stands here.
//!
//! There is no limit of processes by user (`nproc`): the kernel counts a user's processes on the whole machine, and all sandboxes have the same
//! user. The limit is the control group's.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountType,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use super::image::Image;
use crate::message::SandboxId;
use crate::sandbox::left::Listed;
use crate::sandbox::owner::Owner;
use crate::sandbox::{
    Config, HOME, INSIDE, OBJECTS_DIRECTORY, SOCKET_DIRECTORY, SandboxSpec, TOOLS_DIRECTORY, WORKSPACE,
};

/// The name of a sandbox's container.
pub(super) fn container_name(id: SandboxId) -> String {
    format!("cofferdam-{id}")
}

/// Which sandbox a container is; every container of ours has it.
pub(super) const SANDBOX_LABEL: &str = "dev.cofferdam.sandbox";
const WORKER_LABEL: &str = "dev.cofferdam.worker";
/// The owner's state directory, what stands in its lock, and where the path means it.
const STATE_LABEL: &str = "dev.cofferdam.state";
const OWNER_LABEL: &str = "dev.cofferdam.owner";
const PLACE_LABEL: &str = "dev.cofferdam.place";
const DEADLINE_LABEL: &str = "dev.cofferdam.deadline";

/// What all containers of one worker bear, as a filter of the engine.
pub(super) fn worker_label(spec: &SandboxSpec) -> String {
    format!("{WORKER_LABEL}={}", spec.worker)
}

/// What the labels of a listed container say. Whoever may use the engine could have written them.
pub(super) fn listed(key: String, created: i64, labels: &HashMap<String, String>) -> Listed {
    let label = |name: &str| labels.get(name).map_or("", String::as_str);
    Listed {
        key,
        sandbox: SandboxId::parse(label(SANDBOX_LABEL)),
        worker: label(WORKER_LABEL).to_owned(),
        owner: Owner::read(label(STATE_LABEL), label(OWNER_LABEL), label(PLACE_LABEL)),
        deadline: label(DEADLINE_LABEL).parse().ok(),
        created,
    }
}

/// Seconds that the engine waits when somebody stops a sandbox by hand.
const STOP_TIMEOUT_S: i64 = 10;
/// The temporary directory, and the home directory, in bytes.
const SCRATCH: u64 = 512 * 1024 * 1024;
/// Shared memory, in bytes.
const SHARED_MEMORY: i64 = 64 * 1024 * 1024;
/// Memory that one process may lock, in bytes.
const LOCKED_MEMORY: i64 = 8 * 1024 * 1024;
/// Bytes for each file that a file system in memory may hold: an empty one costs the host memory too.
const BYTES_PER_FILE: u64 = 4096;
/// By how much a file's limit is above the largest file system, in bytes.
const FILE_SLACK: u64 = 1024 * 1024;
/// Even a small file system may hold so many files.
const LEAST_FILES: u64 = 16 * 1024;

/// The request's body. `image` is what was looked at, `seccomp` the text of a profile, or nothing for the engine's own.
pub(super) fn create_body(
    config: &Config,
    spec: &SandboxSpec,
    image: &Image,
    seccomp: Option<&str>,
) -> ContainerCreateBody {
    let owner = format!("uid={uid},gid={uid}", uid = config.uid);
    let mut tmpfs = HashMap::from([
        ("/tmp".to_owned(), memory_file_system(SCRATCH, "1777", &owner)),
        (HOME.to_owned(), memory_file_system(SCRATCH, "0755", &owner)),
    ]);
    let mut mounts = vec![
        bind(&spec.socket_directory, SOCKET_DIRECTORY, true),
        bind(&spec.objects_directory, OBJECTS_DIRECTORY, true),
        bind(&spec.tools_directory, TOOLS_DIRECTORY, true),
    ];
    match &spec.workspace_directory {
        Some(directory) => mounts.push(bind(directory, WORKSPACE, false)),
        None => {
            let size = config.workspace_bytes;
            tmpfs.insert(WORKSPACE.to_owned(), memory_file_system(size, "0755", &owner));
        }
    }
    // A place that an image declares as a volume would be on the host's disk, and nothing would bound it there.
    for place in &image.volumes {
        let taken = mounts.iter().any(|mount| mount.target.as_deref() == Some(place));
        if place.starts_with('/') && !taken {
            tmpfs
                .entry(place.clone())
                .or_insert_with(|| memory_file_system(SCRATCH, "0755", &owner));
        }
    }
    let labels = HashMap::from([
        (SANDBOX_LABEL.to_owned(), spec.id.to_string()),
        (WORKER_LABEL.to_owned(), spec.worker.clone()),
        (STATE_LABEL.to_owned(), spec.owner.state_dir.display().to_string()),
        (OWNER_LABEL.to_owned(), spec.owner.id.to_string()),
        (PLACE_LABEL.to_owned(), spec.owner.place.clone()),
        (DEADLINE_LABEL.to_owned(), spec.deadline.to_string()),
        ("dev.cofferdam.image".to_owned(), spec.image.clone()),
    ]);
    let mut security = vec!["no-new-privileges".to_owned()];
    security.extend(seccomp.map(|profile| format!("seccomp={profile}")));
    // A little more than any file system holds: a full one is an error that a program can handle, this limit is a signal that ends it.
    let largest_file =
        i64::try_from(config.workspace_bytes.max(SCRATCH).saturating_add(FILE_SLACK)).unwrap_or(i64::MAX);
    ContainerCreateBody {
        image: Some(image.id.clone()),
        hostname: Some("sandbox".to_owned()),
        user: Some(format!("{uid}:{uid}", uid = config.uid)),
        entrypoint: Some(vec![INSIDE.to_owned()]),
        cmd: Some(Vec::new()),
        working_dir: Some("/".to_owned()),
        labels: Some(labels),
        network_disabled: Some(true),
        stop_timeout: Some(STOP_TIMEOUT_S),
        // An image's health check would be a second process that the engine starts.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(security),
            readonly_rootfs: Some(true),
            privileged: Some(false),
            ipc_mode: Some("private".to_owned()),
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            shm_size: Some(SHARED_MEMORY),
            runtime: spec.runtime.clone(),
            memory: Some(config.memory_bytes),
            memory_swap: Some(config.memory_bytes),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a processor count in billionths fits an i64"
            )]
            nano_cpus: Some((config.cpus * 1e9) as i64),
            pids_limit: Some(config.pids),
            oom_score_adj: Some(500),
            ulimits: Some(vec![
                ulimit("nofile", 8192),
                ulimit("core", 0),
                ulimit("fsize", largest_file),
                ulimit("memlock", LOCKED_MEMORY),
            ]),
            tmpfs: Some(tmpfs),
            mounts: Some(mounts),
            log_config: Some(HostConfigLogConfig {
                typ: Some("local".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), "1m".to_owned()),
                    ("max-file".to_owned(), "2".to_owned()),
                ])),
            }),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            // The exit state is read after the end, so the engine must not remove the container by itself.
            auto_remove: Some(false),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// The options of a file system in memory that holds at most so many bytes, and files.
fn memory_file_system(bytes: u64, mode: &str, owner: &str) -> String {
    let files = (bytes / BYTES_PER_FILE).max(LEAST_FILES);
    format!("rw,exec,nosuid,nodev,size={bytes},nr_inodes={files},mode={mode},{owner}")
}

fn bind(source: &std::path::Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

fn ulimit(name: &str, limit: i64) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(limit),
        hard: Some(limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SandboxSpec {
        SandboxSpec {
            id: SandboxId::random(),
            image: "image".into(),
            runtime: Some("strong".into()),
            worker: "w".into(),
            owner: Owner {
                state_dir: "/state".into(),
                id: uuid::Uuid::nil(),
                place: "here".into(),
            },
            deadline: 7,
            socket_directory: "/state/mount".into(),
            objects_directory: "/state/objects".into(),
            tools_directory: "/state/inside".into(),
            workspace_directory: None,
        }
    }

    fn body() -> ContainerCreateBody {
        body_of(&spec())
    }

    fn body_of(spec: &SandboxSpec) -> ContainerCreateBody {
        let image = Image {
            id: "sha256:1".into(),
            volumes: vec!["/data".into(), "/tmp".into(), SOCKET_DIRECTORY.into()],
        };
        create_body(&Config::default(), spec, &image, Some("{}"))
    }

    #[test]
    fn what_the_labels_say_is_read_back() {
        let spec = spec();
        let labels = body_of(&spec).labels.unwrap();
        let read = listed("key".into(), 5, &labels);
        assert_eq!((read.sandbox, read.owner), (Some(spec.id), Some(spec.owner)));
        assert_eq!((read.deadline, read.worker.as_str(), read.created), (Some(7), "w", 5));
        let strange = listed(
            "key".into(),
            5,
            &HashMap::from([(DEADLINE_LABEL.to_owned(), "soon".to_owned())]),
        );
        assert!(strange.owner.is_none() && strange.deadline.is_none() && strange.sandbox.is_none());
    }

    #[test]
    fn everything_is_closed_by_default() {
        let body = body();
        let host = body.host_config.unwrap();
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges", "seccomp={}"]);
        assert_eq!(host.runtime.as_deref(), Some("strong"));
        assert!(host.devices.is_none() && host.cap_add.is_none() && host.volumes_from.is_none());
        assert!(
            host.masked_paths.is_none() && host.readonly_paths.is_none(),
            "the engine's own are kept"
        );
        assert_eq!(host.oom_score_adj, Some(500));
        assert_eq!(
            body.image.as_deref(),
            Some("sha256:1"),
            "what was looked at is what is started"
        );
        assert_eq!(body.healthcheck.unwrap().test.unwrap(), ["NONE"]);
        assert_eq!(host.readonly_rootfs, Some(true));
        assert_eq!(host.privileged, Some(false));
        assert_eq!(host.memory, host.memory_swap);
        assert_eq!(host.pids_limit, Some(1024));
        assert!(host.binds.is_none());
        assert_eq!(body.user.as_deref(), Some("1000:1000"));
        assert!(
            body.env.is_none(),
            "the container's environment is readable by anyone who may inspect it"
        );
    }

    #[test]
    fn every_file_system_in_memory_is_bounded_in_bytes_and_in_files() {
        let tmpfs = body().host_config.unwrap().tmpfs.unwrap();
        assert_eq!(
            tmpfs.len(),
            4,
            "the workspace, two for scratch, and the place for which the image wants a volume"
        );
        assert!(tmpfs.contains_key("/data"));
        for (place, options) in tmpfs {
            for part in ["nosuid", "nodev", ",size=", ",nr_inodes="] {
                assert!(options.contains(part), "{place}: {options}");
            }
        }
        assert!(memory_file_system(1, "0755", "uid=1").contains("nr_inodes=16384"));
    }

    #[test]
    fn only_the_workspace_may_be_a_writable_mount() {
        let mounts = body().host_config.unwrap().mounts.unwrap();
        assert_eq!(mounts.len(), 3);
        assert!(mounts.iter().all(|mount| mount.read_only == Some(true)));
    }
}
