//! The contract as it is committed: what the program says, what a stranger's validator says of real messages, and two programs that are
//! built on it, as a user would run them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{HUB, LAB, Process, Ran, World};
use crate::kit::{Daemon, broker, outcome};

const KINDS: [&str; 5] = ["task", "control", "event", "config", "asyncapi"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn committed(kind: &str) -> PathBuf {
    root().join(format!("deploy/contract/{kind}.json"))
}

fn schema(words: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
    command.arg("schema").args(words);
    Ran::of(command)
}

/// A Python with what the examples and the judge need.
fn python() -> PathBuf {
    let output = Command::new(root().join("tests/python.sh"))
        .args(["pika==1.3.2", "jsonschema[format-nongpl]==4.26.0"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Lets jsonschema judge bodies by the committed schemas.
fn judge(bodies: &[(&str, &Path)]) -> String {
    let mut command = Command::new(python());
    command.arg("-B").arg(root().join("tests/judges/contract.py"));
    command.arg(root().join("deploy/contract"));
    command.args(bodies.iter().map(|(kind, path)| format!("{kind}:{}", path.display())));
    let ran = Ran::of(command);
    assert_eq!(ran.exit, 0, "{}{}", ran.stdout, ran.stderr);
    ran.stdout
}

#[test]
fn what_is_committed_is_what_the_program_says_and_nothing_breaks() {
    for kind in KINDS {
        let path = committed(kind);
        let changes = schema(&[kind, "--against", path.to_str().unwrap()]);
        assert_eq!(
            changes.exit, 0,
            "deploy/contract/{kind}.json is promised, and this breaks it:\n{}",
            changes.stdout
        );
        assert!(
            std::fs::read_to_string(&path).unwrap() == schema(&[kind]).stdout,
            "deploy/contract/{kind}.json is not what the types say now. Nothing breaks, so: cofferdam schema {kind} > deploy/contract/{kind}.json\n{}",
            changes.stdout
        );
    }
}

#[test]
fn an_older_contract_is_compared_and_what_breaks_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let older = directory.path().join("older.json");
    let older_name = older.to_str().unwrap();
    let against = |kind: &str, change: &dyn Fn(&mut Value)| {
        let mut old: Value = serde_json::from_str(&std::fs::read_to_string(committed(kind)).unwrap()).unwrap();
        change(&mut old);
        std::fs::write(&older, old.to_string()).unwrap();
        schema(&[kind, "--against", older_name])
    };
    // An orchestrator that was built for a worker without `comment` goes on; one that knows a field that is gone does not.
    let newer = against("task", &|old| {
        drop(old["properties"].as_object_mut().unwrap().remove("comment"))
    });
    assert_eq!(
        (newer.exit, newer.stdout.trim()),
        (0, "fits /comment: the field is new")
    );
    let gone = against("task", &|old| old["properties"]["colour"] = json!({"type": "string"}));
    assert_eq!(
        (gone.exit, gone.stdout.trim()),
        (1, "breaks /colour: the field is gone")
    );
    let told = against("event", &|old| {
        old["$defs"]["EventData"]["properties"]["mood"] = json!({"type": "string"});
    });
    assert_eq!(
        (told.exit, told.stdout.trim()),
        (1, "breaks /data/mood: the field is gone")
    );
    let queue = against("asyncapi", &|old| old["channels"]["tasks"]["address"] = json!("work"));
    assert_eq!(queue.exit, 1);
    assert!(queue.stdout.contains("/channels/tasks/address"), "{}", queue.stdout);
    std::fs::write(&older, "{").unwrap();
    let none = schema(&["task", "--against", older_name]);
    assert_eq!(none.exit, 65);
    assert!(none.stderr.contains(older_name), "{}", none.stderr);
}

#[test]
fn a_strangers_validator_takes_what_a_session_says_and_was_told() {
    let world = World::new();
    let mut task = world.task("!write greeter/one.txt 1\n!commit greeter First\n!plan one\n!say Done.");
    task["egress"] = json!({"level": "connections"});
    task["limits"] = json!({"turn_s": 60});
    let ran = world.exec(&task);
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    let refused = world.exec(&{
        let mut task = world.lab_task("!say hi");
        task["agent"] = json!("nobody");
        task
    });
    assert_eq!(refused.reason(), "unknown_agent");
    let file = |name: &str, values: Vec<&Value>| {
        let path = world.directory.path().join(name);
        let lines = values.iter().map(|value| format!("{value}\n"));
        std::fs::write(&path, lines.collect::<String>()).unwrap();
        path
    };
    let events = file("all-events", ran.events.iter().chain(&refused.events).collect());
    let example: Value =
        serde_json::from_str(&std::fs::read_to_string(root().join("deploy/task.example.json")).unwrap()).unwrap();
    let tasks = file("tasks", vec![&task, &example]);
    let id = "c-1";
    let controls = [
        json!({"version": 1, "id": id, "kind": "prompt", "text": "More.", "mode": "steer"}),
        json!({"version": 1, "id": id, "kind": "add_project", "connection": "hub", "path": HUB, "new_connection": task["connections"]["hub"]}),
        json!({"version": 1, "id": id, "kind": "cancel_turn"}),
        json!({"version": 1, "id": id, "kind": "credential", "connection": "lab", "credential": {"env": "COFFERDAM_TOKEN_LAB"}}),
        json!({"version": 1, "id": id, "kind": "disconnect", "connection": "lab"}),
        json!({"version": 1, "id": id, "kind": "answer", "question": "q-1", "option": "2"}),
        json!({"version": 1, "id": id, "kind": "answer", "connection": "lab", "path": LAB, "publish": true}),
        json!({"version": 1, "id": id, "kind": "end", "publish": false}),
    ];
    let controls = file("controls", controls.iter().collect());
    let config: toml::Value =
        toml::from_str(&std::fs::read_to_string(root().join("deploy/config.example.toml")).unwrap()).unwrap();
    let config = file("config", vec![&serde_json::to_value(config).unwrap()]);
    let said = judge(&[
        ("event", &events),
        ("task", &tasks),
        ("control", &controls),
        ("config", &config),
    ]);
    for kind in [
        "claimed",
        "granted",
        "branch_published",
        "change_request_opened",
        "finished",
    ] {
        assert!(said.contains(kind), "{said}");
    }
}

/// What the programs are a part of.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The program as its user would start it.
fn started(world: &World, mut program: Command, task: &Value, prefix: &str) -> Ran {
    let prompt = "!write one.txt 1\n!commit . First\n!write ../website/two.txt 2\n!commit ../website Second";
    program
        .arg(world.write_task(task))
        .args(["hub", HUB, prompt])
        .env("COFFERDAM_AMQP_URL", broker())
        .env("TRACEPARENT", format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .env("COFFERDAM_PREFIX", prefix);
    Ran::of(program)
}

fn drives_a_session_to_its_end(program: &dyn Fn() -> Command) {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    let mut task = world.lab_task("!say Begun.\n!hang");
    let events = world.directory.path().join("seen");
    let mut watch = daemon.command(&world, &["watch", "--json", task["session"].as_str().unwrap()]);
    watch.stdout(std::fs::File::create(&events).unwrap());
    let _watching = Process(watch.spawn().unwrap());
    let ran = started(&world, program(), &task, &daemon.prefix);
    assert_eq!(ran.exit, 0, "{}{}", ran.stdout, ran.stderr);
    // As the session's last event says, whose trace is that of the task's headers.
    let ended = format!("\ntrace: {TRACE}\nsuccess published\n");
    assert!(ran.stdout.contains(&ended), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("answered: ").count(), 2, "{}", ran.stdout);
    let seen = outcome(&events);
    for (path, repository, token, subject) in [
        (LAB, "/gitlab/platform/tools/greeter.git", "test-gitlab-api", "First"),
        (HUB, "/acme/website.git", "test-github-repo", "Second"),
    ] {
        let requests = world.project(path)["change_requests"].clone();
        assert_eq!(requests.as_array().unwrap().len(), 1, "{requests}");
        let commits = world.commits(repository, token, requests[0]["source"].as_str().unwrap());
        assert!(commits.len() == 1 && commits[0].contains(subject), "{commits:?}");
        let of_project = seen["projects"].as_array().unwrap().iter();
        let url = of_project
            .filter(|one| one["project"]["path"] == path)
            .find_map(|one| one["change_request"]["url"].as_str());
        let line = format!("{path} published {}\n", url.unwrap());
        assert!(ran.stdout.contains(&line), "{line} in {}", ran.stdout);
    }
    judge(&[("event", &events)]);
    // What does not work is told, and is no success.
    task = world.lab_task("!say hi");
    task["agent"] = json!("nobody");
    let failed = started(&world, program(), &task, &daemon.prefix);
    assert_eq!(failed.exit, 1, "{}", failed.stderr);
    assert!(failed.stdout.contains("failure unknown_agent"), "{}", failed.stdout);
    let nobody = started(&world, program(), &task, "no-worker-here");
    assert!(
        nobody.exit == 1 && nobody.stderr.contains("no-worker-here"),
        "{}",
        nobody.stderr
    );
    world.assert_clean();
}

#[test]
fn the_python_example_drives_a_session_to_its_end() {
    let text = std::fs::read_to_string(root().join("deploy/examples/orchestrator.py")).unwrap();
    assert!(text.lines().count() <= 64, "an example that is read at a glance");
    drives_a_session_to_its_end(&|| {
        let mut command = Command::new(python());
        command.arg("-B").arg(root().join("deploy/examples/orchestrator.py"));
        command
    });
}

#[test]
fn the_rust_example_drives_a_session_to_its_end() {
    let program = Path::new(env!("CARGO_BIN_EXE_cofferdam")).with_file_name("examples/orchestrator");
    assert!(
        program.exists(),
        "{} is missing: cargo build --examples",
        program.display()
    );
    drives_a_session_to_its_end(&|| Command::new(&program));
}

/// What breaks whoever was built for a released version (a tag `v...`) of a repository that holds its contract.
fn broken_releases(repository: &Path) -> Vec<String> {
    let git = |words: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(repository)
            .args(words)
            .output()
            .unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8(output.stdout).unwrap())
    };
    let directory = tempfile::tempdir().unwrap();
    let older = directory.path().join("older.json");
    let mut broken = Vec::new();
    for tag in git(&["tag", "--list", "v*"]).unwrap_or_default().lines() {
        for kind in KINDS {
            // Releases before the contract was committed promised nothing that could be read here.
            let Some(text) = git(&["show", &format!("{tag}:deploy/contract/{kind}.json")]) else {
                continue;
            };
            std::fs::write(&older, text).unwrap();
            let ran = schema(&[kind, "--against", older.to_str().unwrap()]);
            if ran.exit != 0 {
                broken.push(format!("{tag} {kind}: {}{}", ran.stdout, ran.stderr));
            }
        }
    }
    broken
}

#[test]
fn no_release_is_broken() {
    // That it would be seen: a release whose tasks had a field that is gone.
    let directory = tempfile::tempdir().unwrap();
    let git = |words: &[&str]| {
        let identity = ["-c", "user.name=A", "-c", "user.email=a@b.example"];
        let mut command = Command::new("git");
        command.arg("-C").arg(directory.path()).args(identity).args(words);
        assert!(command.status().unwrap().success(), "{words:?}");
    };
    git(&["init", "-q"]);
    let place = directory.path().join("deploy/contract");
    std::fs::create_dir_all(&place).unwrap();
    for kind in KINDS {
        std::fs::copy(committed(kind), place.join(format!("{kind}.json"))).unwrap();
    }
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "One"]);
    git(&["tag", "v0.1.0"]);
    assert_eq!(broken_releases(directory.path()), Vec::<String>::new());
    let mut task: Value = serde_json::from_str(&std::fs::read_to_string(committed("task")).unwrap()).unwrap();
    task["properties"]["colour"] = json!({"type": "string"});
    std::fs::write(place.join("task.json"), task.to_string()).unwrap();
    git(&["commit", "-q", "-a", "-m", "Two"]);
    git(&["tag", "v0.2.0"]);
    let broken = broken_releases(directory.path());
    assert_eq!(broken, ["v0.2.0 task: breaks /colour: the field is gone\n"]);
    assert_eq!(broken_releases(root()), Vec::<String>::new());
}
