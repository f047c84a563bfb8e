//! Canaries: tokens and keys of a distinctive value are searched for wherever an agent, an operator or a reader of events could look.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{LAB, World};

mod canaries;
mod hunt;
mod memory;
mod rooms;
mod sealed;

const GITLAB_CANARY: &str = "glpat-canary-7f3a91c2d4";
const GITHUB_CANARY: &str = "ghp_canary9e8d7c6b5a4f";
const MODEL_CANARY: &str = "sk-canary-0a1b2c3d4e5f";
/// What the search is tried on. Not one of the others, which no process of the machine may hold while this one lies open.
const CONTROL_CANARY: &str = "glpat-canary-7f-control";

/// The agent looks for what it is not to find, and leaves a file when it does: split, so that the prompt itself holds no canary.
const SEARCH: &str = "!shell P=canary; (env; cat /proc/*/environ /proc/*/cmdline; cat /proc/1/environ; grep -ra $P-7f / --include=* --exclude-dir=proc \
    --exclude-dir=sys; grep -ra ${P}9e8 /home /tmp /run /opt /workspace; cat /proc/mounts) > /tmp/found 2>/dev/null; \
    if grep -q \"glpat-$P-\\|ghp_${P}9\\|sk-$P-\" /tmp/found; then echo FOUND > greeter/found.txt; fi; true";

/// Whether a canary stands in any process's arguments or environment.
fn seen_in_processes() -> Option<String> {
    let own = std::process::id().to_string();
    for entry in std::fs::read_dir("/proc").ok()?.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) || name == own {
            continue;
        }
        for file in ["cmdline", "environ"] {
            let Ok(text) = std::fs::read(entry.path().join(file)) else {
                continue;
            };
            let program = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            // The worker itself gets the tokens by its environment here: that is how the task names them. A child of it that is about to
            // become git still has that environment and the worker's executable.
            let executable = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
            if file == "environ" && executable.ends_with("cofferdam") {
                continue;
            }
            let text = String::from_utf8_lossy(&text).into_owned();
            if [GITLAB_CANARY, GITHUB_CANARY, MODEL_CANARY]
                .iter()
                .any(|canary| text.contains(canary))
            {
                return Some(format!("{program} {file}"));
            }
        }
    }
    None
}

fn grep(directory: &std::path::Path) -> String {
    let pattern = format!("{GITLAB_CANARY}\\|{GITHUB_CANARY}\\|{MODEL_CANARY}");
    let output = Command::new("grep")
        .args(["-rla", &pattern])
        .arg(directory)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn pitfall_10_no_canary_is_found_anywhere() {
    let world = World::with_seed(|seed| {
        seed.replace("test-gitlab-api", GITLAB_CANARY)
            .replace("test-github-repo", GITHUB_CANARY)
    })
    .token("LAB", GITLAB_CANARY)
    .token("HUB", GITHUB_CANARY);
    let key = world.directory.path().join("key");
    std::fs::write(&key, MODEL_CANARY).unwrap();
    let model = format!(
        "model = \"m\"\n[models.m]\nurl = \"http://127.0.0.1:9\"\nkey_file = \"{}\"",
        key.display()
    );
    let task = world.task(&format!(
        "!write greeter/a.txt b\n!write website/a.txt b\n{SEARCH}\n!sleep 500\n!say done"
    ));

    let stop = Arc::new(AtomicBool::new(false));
    let watching = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut inspected = String::new();
            while !stop.load(Ordering::Relaxed) {
                if let Some(where_seen) = seen_in_processes() {
                    return Err(where_seen);
                }
                let ids = Command::new("docker")
                    .args(["ps", "-aq", "--filter", "label=dev.cofferdam.sandbox"])
                    .output()
                    .unwrap();
                for id in String::from_utf8_lossy(&ids.stdout).split_whitespace() {
                    let about = Command::new("docker").args(["inspect", id]).output().unwrap();
                    inspected.push_str(&String::from_utf8_lossy(&about.stdout));
                }
            }
            Ok(inspected)
        }
    });
    let ran = world.exec_with(&model, &task);
    stop.store(true, Ordering::Relaxed);
    let inspected = watching
        .join()
        .unwrap()
        .unwrap_or_else(|place| panic!("a canary stands in {place}"));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    assert!(inspected.contains("cofferdam-"), "no sandbox was inspected");
    for canary in [GITLAB_CANARY, GITHUB_CANARY, MODEL_CANARY] {
        assert!(!inspected.contains(canary), "docker inspect");
        assert!(!ran.stdout.contains(canary), "events");
        assert!(!ran.stderr.contains(canary), "log");
    }
    // The description lists every changed file.
    let found = world.project(LAB)["change_requests"][0]["description"].to_string();
    assert!(found.contains("a.txt"), "{found}");
    assert!(!found.contains("found.txt"), "the agent found a canary in its sandbox");
    assert_eq!(grep(&world.state_dir()), "", "state directory");
}

#[test]
fn the_search_for_canaries_finds_what_is_there() {
    let world = World::new();
    for place in ["environment", "file"] {
        let mut task = world.task(&format!("!write greeter/a.txt b\n{SEARCH}"));
        if place == "environment" {
            task["environment"] = serde_json::json!({"LEFT_HERE": CONTROL_CANARY});
        } else {
            let prompt = format!("!shell printf %s%s glpat- canary-7f-control > /home/agent/left\n{SEARCH}");
            task["prompt"] = prompt.into();
        }
        // Otherwise the branch would be named after the prompt, look like a token, and be masked in the outcome.
        task["title"] = "Search".into();
        let ran = world.exec(&task);
        assert_eq!(ran.reason(), "published", "{}", ran.stderr);
        let branch = ran.of_project(LAB)["branch"].as_str().unwrap();
        let requests = world.project(LAB)["change_requests"].clone();
        let request = requests
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["source"] == branch)
            .unwrap();
        assert!(
            request["description"].to_string().contains("found.txt"),
            "{place}: {request}"
        );
    }
}

#[test]
fn a_token_that_the_agent_guesses_is_masked_in_what_it_says() {
    let world = World::with_seed(|seed| seed.replace("test-gitlab-api", GITLAB_CANARY)).token("LAB", GITLAB_CANARY);
    // The pieces are joined in the sandbox, as an agent would that got hold of the parts.
    let ran = world.exec(&world.lab_task(&format!(
        "!say {}\n!say {}\n!say end",
        &GITLAB_CANARY[..9],
        &GITLAB_CANARY[9..]
    )));
    assert_eq!(ran.reason(), "nothing_to_publish", "{}", ran.stderr);
    assert!(
        !ran.said().contains(GITLAB_CANARY) && ran.said().contains("[MASKED]"),
        "{}",
        ran.said()
    );
}
