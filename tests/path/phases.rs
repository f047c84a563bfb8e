//! The limits of a session's phases: each ends it with a reason of its own and a sentence that names the limit. And the word to an agent
//! whose time is nearly over.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{LAB, Ran, World};

/// The session ended by a time limit, for that reason, and its sentence says which.
#[track_caller]
fn assert_late(world: &World, ran: &Ran, reason: &str, words: &str) {
    assert_eq!(
        (ran.exit, ran.reason()),
        (4, reason),
        "{} {}",
        ran.outcome(),
        ran.stderr
    );
    assert_eq!(ran.outcome()["result"], "timeout");
    let message = ran.outcome()["message"].as_str().unwrap();
    assert!(message.contains(words), "{words:?} in {message}");
    world.assert_clean();
}

#[test]
fn an_image_that_does_not_come_ends_its_session_in_time() {
    let world = World::new();
    // A registry that takes what it is asked and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for client in listener.incoming().filter_map(Result::ok) {
            let mut reader = client.try_clone().unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while reader.read(&mut buffer).is_ok_and(|count| count > 0) {}
            });
            held.push(client);
        }
    });
    let agent =
        format!("[agents.far]\nimage = \"127.0.0.1:{port}/far:1\"\ncommand = [\"x\"]\nco_author = \"F <f@a.example>\"");
    let mut task = world.lab_task("!say hi");
    task["agent"] = json!("far");
    let world = world
        .variable("COFFERDAM__SANDBOX__PULL", "true")
        .variable("COFFERDAM__SANDBOX__PULL_TIMEOUT_S", "2");
    let ran = world.exec_with(&agent, &task);
    assert_late(&world, &ran, "pull_timeout", "sandbox.pull_timeout_s");
    assert!(ran.all("granted").is_empty(), "nothing was begun");
}

#[test]
fn mirrors_and_clones_have_their_time_together() {
    let world = World::new();
    let slow = json!({"match": {"method": "POST", "path_contains": "git-upload-pack"}, "delay_ms": 100000});
    world.ask("POST", "/_test/faults", Some(&slow));
    let asked = Instant::now();
    let ran = world.exec_with("[session]\nclone_s = 2", &world.lab_task("!say hi"));
    assert_late(&world, &ran, "clone_timeout", "session.clone_s");
    // Before the forge answered, however long the rest took.
    assert!(asked.elapsed() < Duration::from_secs(95), "{:?}", asked.elapsed());
    assert!(ran.all("turn_started").is_empty());
}

#[test]
fn an_agent_that_does_not_come_up_is_told_apart_from_one_that_fails() {
    let world = World::new();
    let agent = "[agents.mute]\nimage = \"cofferdam/sandbox-scripted:test\"\ncommand = [\"sleep\", \"600\"]\n\
                 co_author = \"M <m@a.example>\"\nstart_timeout_s = 2";
    let mut task = world.lab_task("!say hi");
    task["agent"] = json!("mute");
    let ran = world.exec_with(agent, &task);
    assert_late(&world, &ran, "start_timeout", "start_timeout_s");
}

#[test]
fn each_later_limit_names_itself() {
    let world = World::new();
    for (limits, reason, words) in [
        // Long enough for the commit, and the last for the first steps as well.
        (json!({"idle_s": 5}), "agent_stalled", "session.idle_s"),
        (json!({"turn_s": 8}), "turn_timeout", "session.turn_s"),
        (json!({"session_s": 25}), "session_timeout", "session.session_s"),
    ] {
        let mut task = world.lab_task("!write a.txt b\n!commit . One\n!hang");
        task["limits"] = limits;
        let ran = world.exec_with("[session]\ngrace_s = 1", &task);
        assert_late(&world, &ran, reason, words);
        assert!(ran.of_project(LAB)["kept"].is_string(), "{}", ran.outcome());
    }
}

const WIND_DOWN: &str = "[session]\ngrace_s = 1\nwind_down_s = 5";

#[test]
#[ignore = "long: tests/run.sh --full"]
fn an_agent_whose_time_is_nearly_over_is_told_and_commits_what_it_has() {
    let world = World::new();
    for (limits, whose) in [
        (json!({"turn_s": 20}), "the turn ends in"),
        // Its first steps take some of it.
        (json!({"session_s": 50}), "the session ends in"),
    ] {
        let prompt = "!next write last.txt c\n!next commit . What I have\n!next say ## Changes\\nHalf of it.\n!write a.txt b\n!hang";
        let mut task = world.lab_task(prompt);
        task["limits"] = limits;
        let ran = world.exec_with(WIND_DOWN, &task);
        let warnings = ran.all("warning");
        let warned: Vec<_> = warnings.iter().filter(|data| data["code"] == "time_is_short").collect();
        assert_eq!(warned.len(), 1, "{warnings:?}");
        assert!(warned[0]["message"].as_str().unwrap().contains(whose), "{warned:?}");
        // It ended its turn in time, so that is published as any other.
        assert_eq!(
            (ran.exit, ran.reason()),
            (0, "published"),
            "{} {}",
            ran.outcome(),
            ran.stderr
        );
        assert_eq!(ran.all("turn_started").len(), 1, "it is the same turn");
        assert_eq!(ran.all("turn_ended")[0]["stop_reason"], "end_turn");
        let branch = ran.of_project(LAB)["branch"].as_str().unwrap();
        let commits = world.commits("/gitlab/platform/tools/greeter.git", "test-gitlab-api", branch);
        assert!(commits[0].contains("What I have"), "{commits:?}");
        let requests = world.project(LAB)["change_requests"].clone();
        assert!(requests.to_string().contains("Half of it."), "{requests}");
        world.assert_clean();
    }
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn an_agent_that_does_not_heed_the_word_ends_by_its_limit() {
    let world = World::new();
    for (prompt, warnings) in [
        // Deaf to the interruption: it keeps its whole time.
        ("!write a.txt b\n!hang-hard", 0),
        // Told, and hangs again.
        ("!next hang\n!write a.txt b\n!hang", 1),
        ("!next fail no idea\n!write a.txt b\n!hang", 1),
    ] {
        let mut task = world.lab_task(prompt);
        task["limits"] = json!({"turn_s": 20});
        let began = Instant::now();
        let ran = world.exec_with(WIND_DOWN, &task);
        assert_late(&world, &ran, "turn_timeout", "session.turn_s");
        let warned = ran.all("warning");
        let warned = warned.iter().filter(|data| data["code"] == "time_is_short").count();
        assert_eq!(warned, warnings, "{prompt:?}");
        assert!(ran.of_project(LAB)["kept"].is_string(), "{}", ran.outcome());
        if prompt.contains("hang-hard") {
            assert!(began.elapsed() > Duration::from_secs(19), "{:?}", began.elapsed());
        }
    }
}

#[test]
fn a_turn_that_ends_by_itself_and_one_without_the_setting_are_not_warned() {
    let world = World::new();
    for (config, prompt) in [
        (WIND_DOWN, "!write a.txt b\n!sleep 2000"),
        ("[session]\nwind_down_s = 0", "!write a.txt b\n!sleep 16500"),
    ] {
        let mut task = world.lab_task(prompt);
        task["limits"] = json!({"turn_s": 20});
        let ran = world.exec_with(config, &task);
        assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
        assert!(ran.all("warning").iter().all(|data| data["code"] != "time_is_short"));
    }
}
