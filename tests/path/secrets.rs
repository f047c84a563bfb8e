//! Canaries: tokens and keys of a distinctive value are searched for wherever an agent, an operator or a reader of events could look.

use std::process::Command;

use crate::harness::{LAB, World};

mod canaries;
mod hunt;
mod memory;
mod misplaced;
mod rooms;
mod sealed;

use hunt::{Canary, Watched};

const GITLAB_CANARY: &str = "glpat-canary-7f3a91c2d4";
const GITHUB_CANARY: &str = "ghp_canary9e8d7c6b5a4f";
const MODEL_CANARY: &str = "sk-canary-0a1b2c3d4e5f";
/// What the search is tried on. Not one of the others, which no process of the machine may hold while this one lies open.
const CONTROL_CANARY: &str = "glpat-canary-7f-control";

/// The agent looks for what it is not to find, and leaves a file when it does: split, so that the prompt itself holds no canary.
const SEARCH: &str = "!shell P=canary; (env; cat /proc/*/environ /proc/*/cmdline; cat /proc/1/environ; grep -ra $P-7f / --include=* --exclude-dir=proc \
    --exclude-dir=sys; grep -ra ${P}9e8 /home /tmp /run /opt /workspace; cat /proc/mounts) > /tmp/found 2>/dev/null; \
    if grep -q \"glpat-$P-\\|ghp_${P}9\\|sk-$P-\" /tmp/found; then echo FOUND > greeter/found.txt; fi; true";

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
        "!write greeter/a.txt b\n!write website/a.txt b\n{SEARCH}\n!sleep 3000\n!say done"
    ));

    let canaries = [GITLAB_CANARY, GITHUB_CANARY, MODEL_CANARY].map(|value| Canary::of("fixed canary", value));
    let watched = Watched::begin(&world, &canaries);
    let ran = world.exec_with(&model, &task);
    let inspected = watched.end();
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
