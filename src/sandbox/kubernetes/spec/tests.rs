//! What a pod says of every wall.

use super::*;

fn config() -> Config {
    let mut config = Config::default();
    config.kubernetes.namespace = "sandboxes".into();
    config.kubernetes.tools_image = "tools:1".into();
    config
}

fn spec() -> SandboxSpec {
    SandboxSpec {
        id: SandboxId::random(),
        image: "image".into(),
        runtime: Some("strong".into()),
        worker: "w-1".into(),
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

fn made(config: &Config) -> PodSpec {
    pod(config, &spec(), None, "10.0.0.7:8473".parse().unwrap(), 60)
        .spec
        .unwrap()
}

#[test]
fn what_a_pod_notes_is_read_back() {
    let spec = spec();
    let read = listed(pod(&config(), &spec, None, "10.0.0.7:1".parse().unwrap(), 60)).unwrap();
    assert_eq!((read.sandbox, read.owner), (Some(spec.id), Some(spec.owner)));
    assert_eq!((read.deadline, read.worker.as_str()), (Some(7), "w-1"));
    assert_eq!(read.key, name(spec.id));
    let mut leaving = pod(&config(), &self::spec(), None, "10.0.0.7:1".parse().unwrap(), 60);
    leaving.metadata.deletion_timestamp = serde_json::from_value(serde_json::json!("2026-01-01T00:00:00Z")).unwrap();
    assert!(listed(leaving).is_none(), "it is on its way");
}

#[test]
fn everything_is_closed_by_default() {
    let made = made(&config());
    assert_eq!(made.automount_service_account_token, Some(false));
    assert_eq!(made.enable_service_links, Some(false));
    assert_eq!(made.runtime_class_name.as_deref(), Some("strong"));
    assert_eq!(made.dns_policy.as_deref(), Some("None"));
    assert_eq!(made.restart_policy.as_deref(), Some("Never"));
    assert_eq!(made.active_deadline_seconds, Some(60));
    let tolerated: Vec<_> = made.tolerations.into_iter().flatten().collect();
    assert_eq!(tolerated.len(), 2);
    assert!(tolerated.iter().all(|one| one.toleration_seconds == Some(30)));
    let pod = made.security_context.unwrap();
    assert_eq!((pod.run_as_user, pod.run_as_non_root), (Some(1000), Some(true)));
    assert_eq!(pod.seccomp_profile.unwrap().type_, "RuntimeDefault");
    for container in made.containers.iter().chain(made.init_containers.iter().flatten()) {
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.read_only_root_filesystem, Some(true));
        let capabilities = security.capabilities.as_ref().unwrap();
        assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]));
        assert!(capabilities.add.is_none());
        assert!(container.env.is_none() && container.env_from.is_none());
        let limits = container.resources.as_ref().unwrap().limits.as_ref().unwrap();
        assert_eq!(limits["memory"].0, "4294967296");
        assert_eq!(limits["cpu"].0, "2000m");
        assert_eq!(container.image_pull_policy.as_deref(), Some("Never"));
    }
    for volume in made.volumes.unwrap() {
        let bounded = volume
            .empty_dir
            .as_ref()
            .is_some_and(|empty| empty.size_limit.is_some());
        assert!(
            bounded || volume.secret.is_some(),
            "{}: no other kind of volume",
            volume.name
        );
    }
}

#[test]
fn the_worker_owns_it_only_in_its_own_namespace() {
    let mut config = config();
    assert!(config.kubernetes.owner("sandboxes").is_none());
    config.kubernetes.pod_name = Some("worker-0".into());
    config.kubernetes.pod_uid = Some("u-1".into());
    assert!(config.kubernetes.owner("workers").is_none());
    let owner = config.kubernetes.owner("sandboxes");
    let owner = metadata(&config, &spec(), owner).owner_references.unwrap().remove(0);
    assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Pod", "u-1"));
}

#[test]
fn what_has_ended_belongs_to_nobody_soon_whatever_its_deadline() {
    let mut pod = pod(&config(), &spec(), None, "10.0.0.7:1".parse().unwrap(), 60);
    pod.metadata
        .annotations
        .as_mut()
        .unwrap()
        .insert(DEADLINE.into(), "9000000000".into());
    pod.status = serde_json::from_value(serde_json::json!({"phase": "Failed", "containerStatuses": [{
        "name": "sandbox", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 3, "finishedAt": "2026-01-01T00:00:00Z"}}}]}))
    .unwrap();
    assert_eq!(listed(pod.clone()).unwrap().deadline, Some(1_767_225_600));
    pod.status = None;
    assert_eq!(listed(pod).unwrap().deadline, Some(9_000_000_000));
}

#[test]
fn what_the_operator_chooses_is_there() {
    let mut config = config();
    config.workspace = Workspace::Directory;
    config.pull = true;
    config.kubernetes.request_cpus = Some(0.5);
    config.kubernetes.seccomp_profile = Some("cofferdam.json".into());
    let made = made(&config);
    let container = &made.containers[0];
    let resources = container.resources.as_ref().unwrap();
    assert_eq!(resources.requests.as_ref().unwrap()["cpu"].0, "500m");
    assert_eq!(resources.limits.as_ref().unwrap()["cpu"].0, "2000m");
    assert_eq!(container.image_pull_policy.as_deref(), Some("IfNotPresent"));
    let profile = made.security_context.unwrap().seccomp_profile.unwrap();
    assert_eq!(
        (profile.type_.as_str(), profile.localhost_profile.as_deref()),
        ("Localhost", Some("cofferdam.json"))
    );
    let workspace = made
        .volumes
        .unwrap()
        .into_iter()
        .find(|volume| volume.name == "workspace");
    assert!(workspace.unwrap().empty_dir.unwrap().medium.is_none());
}
