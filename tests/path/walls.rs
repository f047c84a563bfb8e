//! The walls of a sandbox as an outsider sees them: what the engine was told, which images and runtimes are refused, and that no task can choose.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{LAB, Process, Ran, World, runtime, until};

const IMAGE: &str = "cofferdam/sandbox-scripted:test";

/// Nothing was started, and nothing is left.
fn assert_refused(world: &World, ran: &Ran, reason: &str, words: &str) {
    assert_eq!(ran.reason(), reason, "{}", ran.outcome());
    let message = ran.outcome()["message"].as_str().unwrap();
    assert!(message.contains(words), "{reason}: {message}");
    assert_eq!(ran.exit, 1, "{}", ran.stderr);
    assert!(
        world.project(LAB)["change_requests"].as_array().unwrap().is_empty(),
        "nothing is published"
    );
    world.assert_clean();
}

/// The id of an image of this machine.
fn image_id(image: &str) -> String {
    let output = Command::new("docker")
        .args(["image", "inspect", "--format", "{{.Id}}", image])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The configuration with the agent's image replaced, and more in its section.
fn with_image(world: &World, image: &str, more: &str, task: &Value) -> Ran {
    let config = world.config(more);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(IMAGE, image)).unwrap();
    let mut command = world.command(&config);
    command.args(["exec", "--json"]).arg(world.write_task(task));
    Ran::of(command)
}

#[test]
fn an_image_that_the_operator_does_not_list_is_refused() {
    let world = World::new();
    let list = |images: &str| {
        let task = world.lab_task("!say hi");
        let config = world.config("");
        let mut command = world.command(&config);
        command.env("COFFERDAM__SANDBOX__IMAGES", images);
        command.args(["exec", "--json"]).arg(world.write_task(&task));
        Ran::of(command)
    };
    for images in ["[\"other/*\"]", "[\"cofferdam/sandbox-scripted:other\"]"] {
        assert_refused(&world, &list(images), "image_refused", "sandbox.images");
    }
    let wrong = format!("[\"cofferdam/sandbox-scripted@sha256:{}\"]", "0".repeat(64));
    assert_refused(&world, &list(&wrong), "image_refused", "sandbox.images");
    // By beginning, and by the digest of what is there whatever its name.
    for images in [
        "[\"other:1\", \"cofferdam/*\"]".to_owned(),
        format!("[\"any/name@{}\"]", image_id(IMAGE)),
    ] {
        let ran = list(&images);
        assert_eq!(ran.reason(), "nothing_to_publish", "{images}: {}", ran.outcome());
    }
}

#[test]
fn an_image_with_a_digest_is_started_only_if_it_is_that_one() {
    let world = World::new();
    let task = || world.lab_task("!say hi");
    let right = format!("{IMAGE}@{}", image_id(IMAGE));
    let ran = with_image(&world, &right, "", &task());
    assert_eq!(ran.reason(), "nothing_to_publish", "{}", ran.outcome());
    let wrong = format!("{IMAGE}@sha256:{}", "0".repeat(64));
    assert_refused(
        &world,
        &with_image(&world, &wrong, "", &task()),
        "image_refused",
        "digest",
    );
    let other = with_image(&world, "cofferdam/no-such-image:1", "", &task());
    assert_refused(&world, &other, "image_missing", "docker pull");
}

#[test]
fn a_runtime_that_the_engine_lacks_refuses_the_session_and_is_never_replaced() {
    let world = World::new();
    // What is appended stands in the agent's section.
    let ran = world.exec_with("runtime = \"kata-is-not-here\"", &world.lab_task("!say hi"));
    assert_refused(&world, &ran, "runtime_missing", "kata-is-not-here");

    let tenants = "[tenants.gold]\nruntime = \"kata-is-not-here\"\n[tenants.plain]\n";
    let of = |tenant: Option<&str>| {
        let mut task = world.lab_task("!say hi");
        if let Some(name) = tenant {
            task["tenant"] = json!(name);
        }
        world.exec_with(tenants, &task)
    };
    assert_refused(&world, &of(Some("gold")), "runtime_missing", "nothing weaker");
    assert_refused(&world, &of(Some("stranger")), "unknown_tenant", "tenants.stranger");
    for tenant in [Some("plain"), None] {
        let ran = of(tenant);
        assert_eq!(ran.reason(), "nothing_to_publish", "{tenant:?}: {}", ran.outcome());
    }
    // The tenant's wins over the agent's: the same tenant is served although the agent's own is missing.
    let agent_lacks = "runtime = \"kata-is-not-here\"\n[tenants.gold]\nruntime = \"runc\"\n";
    let mut task = world.lab_task("!say hi");
    task["tenant"] = json!("gold");
    let ran = world.exec_with(agent_lacks, &task);
    assert_eq!(ran.reason(), "nothing_to_publish", "{}", ran.outcome());
}

/// The engine would make a volume on the host's disk, which nothing bounds.
#[test]
fn a_place_that_an_image_declares_as_a_volume_is_bounded_memory() {
    let world = World::new();
    let context = world.directory.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), format!("FROM {IMAGE}\nVOLUME /data\n")).unwrap();
    let built = Command::new("docker")
        .args([
            "build",
            "--quiet",
            "--network",
            "none",
            "--tag",
            "cofferdam/sandbox-volume:test",
        ])
        .arg(&context)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let agent = "[agents.volume]\nimage = \"cofferdam/sandbox-volume:test\"\nprotocol = \"command\"\n\
                 command = [\"sh\", \"-c\", \"touch /data/written && df --output=fstype,size /data\"]\n\
                 co_author = \"Volume <volume@agents.example>\"\n";
    let mut task = world.lab_task("Look at the volume.");
    task["agent"] = json!("volume");
    let ran = world.exec_with(agent, &task);
    assert_eq!(ran.reason(), "nothing_to_publish", "{}", ran.outcome());
    let said = ran.said();
    assert!(said.contains("tmpfs") && said.contains("524288"), "{said}");
}

#[test]
fn doctor_names_versions_missing_runtimes_and_refused_images() {
    let world = World::new();
    let config = world.config("[tenants.gold]\nruntime = \"kata-is-not-here\"\n");
    let mut command = world.command(&config);
    command.env("COFFERDAM__SANDBOX__IMAGES", "[\"other/*\"]");
    command.args(["doctor", "--json"]);
    let ran = Ran::of(command);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let finding = |check: &str| {
        let findings = report["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("{check} in {report}")).clone()
    };
    let parts = finding("engine's parts")["found"].as_str().unwrap().to_owned();
    for part in ["runc ", "containerd ", "cgroups version "] {
        assert!(parts.contains(part), "{part} in {parts}");
    }
    let missing = finding("tenants.gold.runtime");
    assert_eq!(missing["state"], "problem");
    assert!(
        missing["found"].as_str().unwrap().contains("kata-is-not-here"),
        "{missing}"
    );
    assert_eq!(finding("image of agent scripted")["state"], "problem");
}

#[test]
fn a_task_has_no_field_for_the_walls() {
    let world = World::new();
    for field in [
        "privileged",
        "image",
        "runtime",
        "mounts",
        "volumes",
        "binds",
        "devices",
        "network",
        "seccomp",
        "security_opt",
        "capabilities",
        "cap_add",
        "sandbox",
        "docker_socket",
        "user_id",
        "uid",
        "memory_bytes",
        "pids",
        "ulimits",
        "pull",
        "hostname",
        "labels",
    ] {
        for place in ["", "/limits", "/projects/0", "/connections/lab"] {
            let mut task = world.lab_task("!say hi");
            task["limits"] = json!({});
            task.pointer_mut(place).unwrap()[field] = json!("x");
            let config = world.config("");
            let mut command = world.command(&config);
            command.args(["exec", "--json"]).arg(world.write_task(&task));
            let ran = Ran::of(command);
            assert_eq!(ran.exit, 65, "{place}/{field}: {}", ran.stderr);
            assert!(ran.stderr.contains(field), "{place}/{field}: {}", ran.stderr);
        }
    }
    assert!(!world.state_dir().exists());
}

#[test]
fn the_engine_is_told_of_every_wall() {
    let world = World::new();
    let config = world.config("");
    let task = world.lab_task("!sleep 60000");
    let mut command = world.command(&config);
    command.args(["exec", "--json"]).arg(world.write_task(&task));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut child = Process(child);
    let id = until(Duration::from_secs(60), "a sandbox", || world.sandboxes().pop());
    let inspected: Value = until(Duration::from_secs(30), "the sandbox's state", || {
        let output = Command::new("docker").args(["inspect", &id]).output().unwrap();
        let value: Value = serde_json::from_slice(&output.stdout).ok()?;
        (value[0]["State"]["Running"] == true).then(|| value[0].clone())
    });
    crate::harness::signal(&child.0, "INT");
    let host = &inspected["HostConfig"];
    assert_eq!(host["NetworkMode"], "none");
    assert_eq!(host["CapDrop"], json!(["ALL"]));
    assert_eq!(host["CapAdd"], Value::Null);
    assert_eq!(host["Privileged"], false);
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["CgroupnsMode"], "private");
    assert_eq!(host["IpcMode"], "private");
    assert_eq!(host["Memory"], host["MemorySwap"]);
    assert_eq!(host["OomScoreAdj"], 500);
    assert_eq!(host["LogConfig"]["Type"], "local");
    assert_eq!(host["LogConfig"]["Config"]["max-size"], "1m");
    assert!(host["MaskedPaths"].as_array().unwrap().contains(&json!("/proc/kcore")));
    assert!(host["ReadonlyPaths"].as_array().unwrap().contains(&json!("/proc/sys")));
    let options: Vec<&str> = host["SecurityOpt"]
        .as_array()
        .unwrap()
        .iter()
        .map(|option| option.as_str().unwrap())
        .collect();
    assert_eq!(options[0], "no-new-privileges");
    assert!(
        options[1].starts_with("seccomp={") && !options[1].contains("io_uring"),
        "{}",
        options[1]
    );
    let ulimits: Vec<&str> = host["Ulimits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|limit| limit["Name"].as_str().unwrap())
        .collect();
    assert_eq!(ulimits, ["nofile", "core", "fsize", "memlock"]);
    assert_eq!(host["Runtime"], runtime().unwrap_or_else(|| "runc".to_owned()));
    let config = &inspected["Config"];
    assert_eq!(config["User"], "1000:1000");
    assert_eq!(config["StopTimeout"], 10);
    // What was looked at is what is started: the id, not a name that can move.
    assert_eq!(config["Image"], image_id(IMAGE));
    let text = inspected.to_string();
    assert!(
        !text.contains(task["session"].as_str().unwrap()),
        "a sandbox does not know its session"
    );
    until(Duration::from_secs(60), "the end", || child.0.try_wait().unwrap());
    world.assert_clean();
}

/// Whether the end of an answer comes with its last bytes or behind them: gVisor tells of both in one event, and not of the end.
#[test]
fn the_end_of_a_connection_reaches_the_sandbox_with_the_answer() {
    let world = World::new();
    let asks = "n=0; for i in 1 2 3 4 5 6 7 8 9 10; do exec 3<>/dev/tcp/127.0.0.1/8470; \
        printf \"GET /nothing HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n\" >&3; \
        if timeout 8 cat <&3 >/dev/null; then n=$((n+1)); fi; exec 3>&-; done; echo \"ended $n of 10\" >ended.txt";
    let ran = world.exec(&world.lab_task(&format!("!shell bash -c '{asks}'")));
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    let page = world.ask("GET", &format!("/gitlab/{LAB}/-/merge_requests/1"), None);
    assert!(page.as_str().unwrap().contains("ended 10 of 10"), "{page}");
}
