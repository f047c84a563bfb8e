//! What a sandbox's container looks like to the engine. Pure: from the configuration and a spec to the request's body.
//!
//! Closed by default: no network, no capability, no privilege gain, read-only root, bounded memory, processes, logs and temporary files.
//! Nothing of a task, and no credential, ever stands here.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};

use crate::message::SandboxId;
use crate::sandbox::{Config, HOME, INSIDE, SOCKET_DIRECTORY, SandboxSpec, TOOLS_DIRECTORY, WORKSPACE};

/// The name of a sandbox's container.
pub(super) fn container_name(id: SandboxId) -> String {
    format!("cofferdam-{id}")
}

/// The label by which the reaper finds a worker's containers.
pub(super) fn worker_label(worker: &str) -> String {
    format!("dev.cofferdam.worker={worker}")
}

/// The request's body.
pub(super) fn create_body(config: &Config, spec: &SandboxSpec) -> ContainerCreateBody {
    let owner = format!("uid={uid},gid={uid}", uid = config.uid);
    let mut tmpfs = HashMap::from([
        (
            "/tmp".to_owned(),
            format!("rw,exec,nosuid,nodev,size=512m,mode=1777,{owner}"),
        ),
        (
            HOME.to_owned(),
            format!("rw,exec,nosuid,nodev,size=512m,mode=0755,{owner}"),
        ),
    ]);
    let mut mounts = vec![
        bind(&spec.socket_directory, SOCKET_DIRECTORY, true),
        bind(&spec.tools_directory, TOOLS_DIRECTORY, true),
    ];
    match &spec.workspace_directory {
        Some(directory) => mounts.push(bind(directory, WORKSPACE, false)),
        None => {
            let size = config.workspace_bytes;
            tmpfs.insert(
                WORKSPACE.to_owned(),
                format!("rw,exec,nosuid,nodev,size={size},mode=0755,{owner}"),
            );
        }
    }
    let labels = HashMap::from([
        ("dev.cofferdam.sandbox".to_owned(), spec.id.to_string()),
        ("dev.cofferdam.worker".to_owned(), spec.worker.clone()),
    ]);
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: Some("sandbox".to_owned()),
        user: Some(format!("{uid}:{uid}", uid = config.uid)),
        entrypoint: Some(vec![INSIDE.to_owned()]),
        cmd: Some(Vec::new()),
        working_dir: Some("/".to_owned()),
        labels: Some(labels),
        network_disabled: Some(true),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            readonly_rootfs: Some(true),
            privileged: Some(false),
            ipc_mode: Some("private".to_owned()),
            runtime: config.runtime.clone(),
            memory: Some(config.memory_bytes),
            memory_swap: Some(config.memory_bytes),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a processor count in billionths fits an i64"
            )]
            nano_cpus: Some((config.cpus * 1e9) as i64),
            pids_limit: Some(config.pids),
            oom_score_adj: Some(500),
            ulimits: Some(vec![ulimit("nofile", 8192), ulimit("core", 0)]),
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

    fn body() -> ContainerCreateBody {
        let spec = SandboxSpec {
            id: SandboxId::random(),
            image: "image".into(),
            worker: "w".into(),
            socket_directory: "/state/mount".into(),
            tools_directory: "/state/inside".into(),
            workspace_directory: None,
        };
        create_body(&Config::default(), &spec)
    }

    #[test]
    fn everything_is_closed_by_default() {
        let body = body();
        let host = body.host_config.unwrap();
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
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
    fn only_the_workspace_may_be_a_writable_mount() {
        let mounts = body().host_config.unwrap().mounts.unwrap();
        assert_eq!(mounts.len(), 2);
        assert!(mounts.iter().all(|mount| mount.read_only == Some(true)));
    }
}
