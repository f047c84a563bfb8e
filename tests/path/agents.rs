//! What breaks naive clients of the Agent Client Protocol, each seen with a real agent, and here played by the scripted one. Lessons that need
//! no test: we advertise neither file system nor terminal; we never authenticate; permission is answered by kind (unit-tested); our MCP
//! tools are an offer on which nothing depends; the sandbox is removed with whatever the agent left running.

use serde_json::json;

use crate::harness::{LAB, World};

#[test]
fn odd_messages_are_tolerated() {
    let world = World::new();
    let ran = world.exec(&world.lab_task(
        "!unknown-update\n!orphan-update\n!garbage\n!double-permission\n!permission rm -rf\n!fs-write a.txt written\n!think hm\n!spawn-daemon\n!say fine",
    ));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    let asked = ran.all("agent_permission");
    assert!(
        asked.len() >= 2 && asked.iter().all(|data| data["answer"] == "allow_once"),
        "{asked:?}"
    );
    assert!(ran.said().contains("fine"));
    world.assert_clean();
}

#[test]
fn floods_and_huge_lines_are_bounded() {
    let world = World::new();
    // Without a bound of its own, what is told grows with the time that the flood takes.
    let ran = world.exec_with(
        "[progress]\nmost_bytes = 2000000",
        &world.lab_task("!flood 20000000\n!hugeline 12000000\n!write a.txt b\n!say end"),
    );
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    assert!(
        !ran.all("output_dropped").is_empty(),
        "nothing says that output was dropped"
    );
    assert!(ran.stdout.len() < 3_000_000, "{} bytes of events", ran.stdout.len());
    assert!(ran.outcome()["answer"].as_str().unwrap().len() <= 16 * 1024);
}

#[test]
fn any_answer_after_our_cancel_means_cancelled() {
    let world = World::new();
    let mut task = world.lab_task("!write a.txt b\n!hang");
    task["limits"] = json!({"turn_s": 2});
    let ran = world.exec_with("environment = { SCRIPTED_CANCEL = \"error\" }", &task);
    assert_eq!(ran.reason(), "turn_timeout", "{}", ran.stderr);
}

#[test]
fn the_tools_are_offered_and_a_wish_decides_the_text() {
    let world = World::new();
    let wish = json!({"project": format!("lab:{LAB}"), "title": "Say it in German", "changes": "C-by-tool", "approach": "A-by-tool",
        "trade_offs": "T-by-tool", "checked": "K-by-tool"});
    let ran = world.exec(&world.task(&format!(
        "!tools\n!tool get_session {{}}\n!tool create_change_request {wish}\n!write greeter/a.txt b\n!write website/a.txt b\n!say ## Changes\\nsaid"
    )));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    let request = world.project(LAB)["change_requests"][0].clone();
    assert_eq!(request["title"], "Say it in German");
    for part in ["C-by-tool", "A-by-tool", "T-by-tool", "K-by-tool"] {
        assert!(request["description"].as_str().unwrap().contains(part), "{request}");
    }
    assert!(
        ran.said().contains("create_change_request") && ran.said().contains("/workspace/greeter"),
        "{}",
        ran.said()
    );
}

#[test]
fn a_plain_command_is_an_agent_too() {
    let world = World::new();
    let plain = "[agents.plain]\nimage = \"cofferdam/sandbox-scripted:test\"\ncommand = [\"scripted-agent\", \"plain\"]\nprotocol = \"command\"\n\
        co_author = \"Plain <plain@agents.example>\"";
    let mut task = world.lab_task("!write a.txt b\n!commit . By a command\n!say ## Changes\\nBy a command");
    task["agent"] = json!("plain");
    let ran = world.exec_with(plain, &task);
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    let branch = ran.of_project(LAB)["branch"].as_str().unwrap().to_owned();
    let commits = world.commits("/gitlab/platform/tools/greeter.git", "test-gitlab-api", &branch);
    assert!(
        commits[0].contains("Co-authored-by: Plain <plain@agents.example>"),
        "{commits:?}"
    );
    assert!(
        world.project(LAB)["change_requests"][0]["description"]
            .as_str()
            .unwrap()
            .contains("By a command")
    );

    let mut task = world.lab_task("!exit 9");
    task["agent"] = json!("plain");
    let ran = world.exec_with(plain, &task);
    assert_eq!(ran.reason(), "agent_failed", "{}", ran.stderr);
    assert!(ran.outcome()["message"].as_str().unwrap().contains("status 9"));
}
