//! What breaks in the middle: sandboxes, agents, answers that are lost, sessions that are sent twice, agents that talk without end.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{HUB, LAB, Process, Ran, World, until};

/// Starts a task and waits until its events hold a word; then whatever `act` does to the world or the process.
fn interrupted(world: &World, task: &Value, word: &str, act: impl FnOnce()) -> Ran {
    let config = world.config("");
    let (events, log) = (
        world.directory.path().join("events"),
        world.directory.path().join("log"),
    );
    let mut command = world.command(&config);
    command.args(["exec", "--json"]).arg(world.write_task(task));
    command
        .stdout(std::fs::File::create(&events).unwrap())
        .stderr(std::fs::File::create(&log).unwrap());
    let mut child = Process(command.spawn().unwrap());
    let read = |path| std::fs::read_to_string(path).unwrap();
    until(Duration::from_secs(60), word, || {
        read(&events).contains(word).then_some(())
    });
    act();
    let status = until(Duration::from_secs(90), "the end", || child.0.try_wait().unwrap());
    let stdout = read(&events);
    Ran {
        exit: status.code().unwrap_or(-1),
        events: stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        stderr: read(&log),
        stdout,
    }
}

fn docker(arguments: &[&str]) {
    let output = std::process::Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_sandbox_that_is_killed_costs_its_session_and_nothing_that_was_pushed() {
    let world = World::new();
    let task = world.lab_task("!write a.txt b\n!commit . One\n!shell git push -q\n!hang");
    let ran = interrupted(&world, &task, "push_accepted", || {
        let sandboxes = world.sandboxes();
        assert_eq!(sandboxes.len(), 1);
        docker(&["kill", &sandboxes[0]]);
    });
    assert_eq!(
        (ran.exit, ran.reason()),
        (3, "sandbox_failed"),
        "{} {}",
        ran.outcome(),
        ran.stderr
    );
    let kept = ran.of_project(LAB)["kept"].as_str().unwrap();
    assert!(world.state_dir().join("kept").join(kept).exists());
    assert_eq!(ran.of_project(LAB)["head"], ran.all("push_accepted")[0]["head"]);
    world.assert_clean();
}

#[test]
fn an_agent_that_its_image_lacks_is_the_agents_failure() {
    let world = World::new();
    let other = "[agents.other]\nimage = \"cofferdam/sandbox-scripted:test\"\ncommand = [\"no-such-agent\"]\nco_author = \"A <a@b.example>\"";
    let mut task = world.lab_task("!say hi");
    task["agent"] = json!("other");
    let ran = world.exec_with(other, &task);
    assert_eq!((ran.exit, ran.reason()), (1, "agent_failed"), "{}", ran.stderr);
    let message = ran.outcome()["message"].as_str().unwrap();
    assert!(
        message.contains("no-such-agent") && message.contains("image"),
        "{message}"
    );
    world.assert_clean();
}

#[test]
fn a_push_whose_answer_is_lost_is_found_on_the_forge() {
    let world = World::new();
    let fault = json!({"match": {"method": "POST", "path_contains": "git-receive-pack"}, "status": 502, "after": true, "times": 1});
    world.ask("POST", "/_test/faults", Some(&fault));
    let ran = world.exec(&world.lab_task("!write a.txt b"));
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    let branch = ran.of_project(LAB)["branch"].as_str().unwrap();
    assert_eq!(world.project(LAB)["branches"][branch], ran.of_project(LAB)["head"]);
    assert_eq!(
        world.ask("GET", "/_test/faults", None),
        json!([]),
        "the fault was never played"
    );
}

#[test]
fn a_session_that_is_run_again_goes_on_from_the_forge_and_adopts_its_merge_request() {
    let world = World::new();
    let mut task = world.lab_task("!write one.txt 1");
    task["title"] = json!("Count");
    let first = world.exec(&task);
    assert_eq!(first.reason(), "published", "{}", first.stderr);
    task["prompt"] = json!("!shell test -e one.txt && echo 2 >two.txt");
    let second = world.exec(&task);
    assert_eq!(second.reason(), "published", "{}", second.stderr);
    assert_eq!(second.all("change_request_updated").len(), 1);
    assert_eq!(second.of_project(LAB)["branch"], first.of_project(LAB)["branch"]);
    assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
    let branch = second.of_project(LAB)["branch"].as_str().unwrap();
    let commits = world.commits("/gitlab/platform/tools/greeter.git", "test-gitlab-api", branch);
    assert_eq!(commits.len(), 2, "{commits:?}");
}

#[test]
fn an_attempt_that_brings_nothing_new_takes_what_earlier_ones_left_as_published() {
    let world = World::new();
    // The branch is called by the first line.
    let mut task = world.task(
        "Count up.\n!write greeter/one.txt 1\n!commit greeter One\n!write website/one.txt 1\n!commit website One",
    );
    let first = world.exec(&task);
    assert_eq!(first.reason(), "published", "{}", first.stderr);
    task["prompt"] = json!("Count up.\n!say nothing new");
    let second = world.exec(&task);
    assert_eq!(second.reason(), "published", "{}", second.stderr);
    for path in [LAB, HUB] {
        for same in ["branch", "head", "change_request"] {
            assert_eq!(
                second.of_project(path)[same],
                first.of_project(path)[same],
                "{same} of {path}"
            );
        }
        assert_eq!(second.of_project(path)["reason"], "published");
        assert_eq!(world.project(path)["change_requests"].as_array().unwrap().len(), 1);
    }
    // What the task asks for is there already.
    task["publish"] = json!("branch");
    let third = world.exec(&task);
    assert_eq!(third.reason(), "published", "{}", third.stderr);
    assert_eq!(third.of_project(LAB)["head"], first.of_project(LAB)["head"]);
    assert!(third.of_project(LAB)["change_request"].is_null());
}

#[test]
fn where_a_repository_has_no_drafts_the_pull_request_is_opened_and_says_what_it_is() {
    let world = World::new();
    let mut task = world.task("!write a.txt b");
    task["projects"] = json!([{"connection": "hub", "path": "acme/legacy"}]);
    task["publish"] = json!("draft");
    let ran = world.exec(&task);
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    let requests = world.project("acme/legacy")["change_requests"].clone();
    assert_eq!(
        (requests.as_array().unwrap().len(), &requests[0]["draft"]),
        (1, &json!(false))
    );
    assert_eq!(ran.of_project("acme/legacy")["change_request"]["draft"], false);
}

#[test]
fn pitfall_22_each_refused_push_is_told_by_its_own_rule() {
    let world = World::new();
    let bare = "git -c core.hooksPath=/dev/null commit -q --allow-empty -m Bare";
    let cases = [
        (
            "git push -q origin HEAD:refs/heads/main",
            "refs/heads/main may not be pushed",
        ),
        ("git tag v1; git push -q origin v1", "refs/tags/v1 may not be pushed"),
        (
            "git push -q origin :refs/heads/main",
            "refs/heads/main may not be pushed",
        ),
        ("git push -q origin :$(git symbolic-ref HEAD)", "may not be deleted"),
        (
            "git push -q origin HEAD:refs/heads/one HEAD:refs/heads/two",
            "2 references in one push",
        ),
        (
            "git commit -q --amend -m Rewritten; git push -qf origin HEAD",
            "would lose commit",
        ),
        (
            &format!("{bare}; git push -q origin HEAD"),
            "/opt/cofferdam/inside trailers",
        ),
    ];
    let attempts = cases.map(|(attempt, _)| format!("!shell {attempt}; git reset -q --hard @{{u}}\n"));
    let prompt = format!(
        "!write a.txt b\n!commit . One\n!shell git push -q\n{}",
        attempts.concat()
    );
    let ran = world.exec(&world.lab_task(&prompt));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    let told: Vec<&str> = ran
        .all("push_refused")
        .iter()
        .map(|data| data["message"].as_str().unwrap())
        .collect();
    assert_eq!(told.len(), cases.len(), "{told:#?}");
    for ((attempt, words), told) in cases.iter().zip(told) {
        assert!(told.contains(words), "{attempt}: {told}");
    }
}

#[test]
fn an_agent_that_talks_without_end_costs_the_worker_no_memory() {
    let world = World::new();
    let config = world.config("");
    let mut command = world.command(&config);
    let task = world.lab_task("!flood 60000000\n!hugeline 60000000\n!write a.txt b");
    command.args(["exec", "--json"]).arg(world.write_task(&task));
    let mut child = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let mut most = 0_u64;
    let status = until(Duration::from_secs(120), "the end", || {
        let about = std::fs::read_to_string(format!("/proc/{}/status", child.0.id())).unwrap_or_default();
        let peak = about
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        most = most.max(peak.map_or(0, |peak| peak.trim().parse().unwrap()));
        child.0.try_wait().unwrap()
    });
    assert!(status.success());
    assert!(
        (1..160 * 1024).contains(&most),
        "the worker held {most} KiB at its peak"
    );
    assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
}
