//! Drives the scripted agent's binary as a client would, in JSON lines, and looks at what comes back. It uses no ACP library.

use std::process::Command;

use serde_json::{Value, json};

use crate::client::{Client, Directory};
use crate::tool_server;
use crate::{statuses, text};

#[test]
fn a_turn_works_on_files_and_commits_them() {
    let mut client = Client::start(&[]);
    let checkout = client.directory().join("project");
    git(&["init", "-q", checkout.to_str().unwrap()]);
    git(&["-C", checkout.to_str().unwrap(), "config", "user.name", "A"]);
    git(&[
        "-C",
        checkout.to_str().unwrap(),
        "config",
        "user.email",
        "a@example.test",
    ]);
    let (updates, answer) = client.prompt(
        "Some words that are not for this agent.\n!plan look; write\n!think hm\n!write project/a/b.txt one\\ntwo\\n\n!append project/a/b.txt three\n!shell cat project/a/b.txt; exit 3\n!commit project Add a file",
    );
    assert_eq!(answer["result"]["stopReason"], "end_turn");
    assert!(answer["result"]["usage"]["totalTokens"].as_u64().unwrap() > 0);
    assert_eq!(
        std::fs::read_to_string(checkout.join("a/b.txt")).unwrap(),
        "one\ntwo\nthree"
    );
    assert_eq!(
        statuses(&updates, "write project/a/b.txt"),
        ["pending", "in_progress", "completed"]
    );
    assert_eq!(
        statuses(&updates, "cat project/a/b.txt; exit 3"),
        ["pending", "in_progress", "failed"]
    );
    assert!(
        updates
            .iter()
            .any(|update| update.to_string().contains("three(exit code 3)"))
    );
    assert_eq!(statuses(&updates, "git commit").last(), Some(&"completed"));
    assert_eq!(
        git(&["-C", checkout.to_str().unwrap(), "log", "--format=%s"]).trim(),
        "Add a file"
    );
    assert_eq!(text(&updates), ["done"]);
}

#[test]
fn where_it_is_told_to_it_remembers_its_sessions_and_repeats_them_when_they_are_loaded() {
    let home = Directory::new();
    let environment = [("HOME", home.path().to_str().unwrap()), ("SCRIPTED_LOADS", "yes")];
    let mut client = Client::start(&environment);
    let (updates, _) = client.prompt("!recall\n!say the first thing");
    assert_eq!(text(&updates), ["recall: nothing", "the first thing"]);
    let session = client.session().to_owned();
    drop(client);

    let load = |session: &str| json!({"sessionId": session, "cwd": "/", "mcpServers": []});
    let mut client = Client::bare(&environment);
    let hello = client.request("initialize", json!({"protocolVersion": 1}));
    assert_eq!(hello["result"]["agentCapabilities"]["loadSession"], true);
    assert_eq!(client.request("session/load", load("../x"))["error"]["code"], -32002);
    client.expect_session(&session);
    assert!(client.request("session/load", load(&session))["error"].is_null());
    let repeated = client.updates().to_vec();
    assert_eq!(text(&repeated).concat(), "recall: nothingthe first thing");
    assert_eq!(statuses(&repeated, "a call of before").last(), Some(&"completed"));
    let (updates, _) = client.prompt("!recall\n!quoted\n> an old line");
    let said = text(&updates).concat();
    assert!(
        said.contains("recall: asked !recall !say the first thing; answered recall: nothingthe first thing"),
        "{said}"
    );
    assert!(said.contains("quoted: > an old line"), "{said}");
    drop(client);

    let mut client = Client::bare(&[environment[0], ("SCRIPTED_LOADS", "refuse")]);
    client.request("initialize", json!({"protocolVersion": 1}));
    client.expect_session(&session);
    assert_eq!(client.request("session/load", load(&session))["error"]["code"], -32603);
    let opened = client.request("session/new", json!({"cwd": "/", "mcpServers": []}));
    assert_ne!(opened["result"]["sessionId"], json!(session));
}

#[test]
fn it_speaks_the_handshake_and_refuses_what_is_out_of_order() {
    let mut client = Client::bare(&[]);
    let early = client.request("session/new", json!({"cwd": "/", "mcpServers": []}));
    assert_eq!(early["error"]["code"], -32600);
    let hello = client.request("initialize", json!({"protocolVersion": 1, "clientCapabilities": {}}));
    assert_eq!(hello["result"]["protocolVersion"], 1);
    assert_eq!(hello["result"]["agentCapabilities"]["loadSession"], false);
    assert_eq!(hello["result"]["agentCapabilities"]["mcpCapabilities"]["http"], true);
    assert_eq!(
        client.request("session/new", json!({"cwd": "relative", "mcpServers": []}))["error"]["code"],
        -32602
    );
    assert_eq!(
        client.request("session/new", json!({"cwd": "/"}))["error"]["code"],
        -32602
    );
    assert_eq!(client.request("session/load", json!({}))["error"]["code"], -32601);
    assert_eq!(
        client.request("session/prompt", json!({"sessionId": "x", "prompt": []}))["error"]["code"],
        -32002
    );
    client.send_line("{ nonsense");
    assert_eq!(client.next_message()["error"]["code"], -32700);
    let opened = client.request("session/new", json!({"cwd": "/", "mcpServers": []}));
    let session = opened["result"]["sessionId"].clone();
    client.expect_session(session.as_str().unwrap());
    assert_eq!(
        client.request("session/set_mode", json!({"sessionId": session, "modeId": "loud"}))["error"]["code"],
        -32602
    );
    assert_eq!(
        client.request(
            "session/set_mode",
            json!({"sessionId": session, "modeId": "full-access"})
        )["result"],
        json!({})
    );
    assert_eq!(client.updates().last().unwrap()["currentModeId"], "full-access");
}

#[test]
fn it_can_want_a_key_that_nobody_has() {
    let mut client = Client::bare(&[("SCRIPTED_AUTH_REQUIRED", "1")]);
    let hello = client.request("initialize", json!({"protocolVersion": 1}));
    assert_eq!(hello["result"]["authMethods"].as_array().unwrap().len(), 1);
    assert_eq!(
        client.request("session/new", json!({"cwd": "/", "mcpServers": []}))["error"]["code"],
        -32000
    );
}

#[test]
fn a_typing_error_in_a_prompt_is_told() {
    let mut client = Client::start(&[]);
    let (_, answer) = client.prompt("!wirte a b");
    assert_eq!(answer["error"]["code"], -32602);
    assert!(answer["error"]["message"].as_str().unwrap().contains("!wirte a b"));
}

#[test]
fn cancel_ends_a_turn_in_either_way() {
    for (environment, expected) in [
        (&[][..], json!("cancelled")),
        (&[("SCRIPTED_CANCEL", "error")][..], Value::Null),
    ] {
        for waiting in [
            "!hang",
            "!sleep 600000",
            "!shell sleep 600",
            "!permission never answered",
        ] {
            let mut client = Client::start(environment);
            client.ignore_questions();
            let prompt = client.send_prompt(&format!("!say begun\n{waiting}\n!say not reached"));
            client.wait_for_update(|update| update["content"]["text"] == "begun");
            client.notify("session/cancel", json!({"sessionId": client.session()}));
            let answer = client.wait_for_answer(prompt);
            assert_eq!(answer["result"]["stopReason"], expected, "{waiting}");
            assert_eq!(
                answer["error"]["code"],
                if expected.is_null() { json!(-32603) } else { Value::Null }
            );
            assert!(!text(client.updates()).contains(&"not reached"));
            // The session is as good as new.
            let (_, answer) = client.prompt("!say again");
            assert_eq!(answer["result"]["stopReason"], "end_turn");
        }
    }
}

#[test]
fn permission_is_asked_and_the_answer_told() {
    let mut client = Client::start(&[]);
    client.answer_permissions("reject_once");
    let (updates, _) = client.prompt("!permission delete everything\n!double-permission");
    assert_eq!(
        text(&updates)[..3],
        [
            "permission delete everything: selected reject_once",
            "permission, first time: selected reject_once",
            "permission, second time: selected reject_once"
        ]
    );
    client.answer_permissions("cancelled");
    let (updates, _) = client.prompt("!permission again");
    assert_eq!(text(&updates)[0], "permission again: cancelled");
}

#[test]
fn it_asks_to_write_although_nobody_offered() {
    let mut client = Client::start(&[]);
    let (updates, _) = client.prompt("!fs-write x.txt hello");
    assert_eq!(
        text(&updates)[0],
        "fs/write_text_file: error -32601 no such method here"
    );
    assert_eq!(
        std::fs::read_to_string(client.directory().join("x.txt")).unwrap(),
        "hello"
    );
}

#[test]
fn it_misbehaves_when_told_to() {
    let mut client = Client::start(&[("A_NAME", "a value")]);
    let (updates, answer) = client.prompt("!unknown-update\n!orphan-update\n!flood 5000\n!hugeline 200000\n!env A_NAME\n!env NO_NAME\n!stop refusal\n!say not reached");
    assert_eq!(answer["result"]["stopReason"], "refusal");
    assert_eq!(updates[0]["sessionUpdate"], "weather_update");
    assert_eq!(updates[1]["sessionUpdate"], "tool_call_update");
    let text = text(&updates);
    assert_eq!(
        text.iter()
            .filter(|piece| piece.starts_with('f'))
            .map(|piece| piece.len())
            .sum::<usize>(),
        5000
    );
    assert!(text.iter().any(|piece| piece.len() == 200_000));
    assert_eq!(text[text.len() - 2..], ["A_NAME=a value", "NO_NAME is not set"]);
    let (_, answer) = client.prompt("!fail the model is down");
    assert_eq!(answer["error"], json!({"code": -32603, "message": "the model is down"}));
    let prompt = client.send_prompt("!garbage\n!say after");
    assert_eq!(client.next_garbage(), "this is not JSON {");
    assert_eq!(client.wait_for_answer(prompt)["result"]["stopReason"], "end_turn");
    client.send_prompt("!stderr going\n!exit 7\n!say not reached");
    let (status, errors) = client.wait_for_exit();
    assert_eq!((status.code(), errors.as_str()), (Some(7), "going\n"));
}

#[test]
fn hanging_hard_outlives_cancel_the_end_of_input_and_a_polite_signal() {
    let mut client = Client::start(&[]);
    let prompt = client.send_prompt("!hang-hard");
    client.wait_for_update(|update| update["content"]["text"] == "hanging");
    client.notify("session/cancel", json!({"sessionId": client.session()}));
    // The agent reads in order: by this answer it has seen the cancel.
    assert_eq!(client.request("nothing", json!({}))["error"]["code"], -32601);
    assert!(client.answer_so_far(prompt).is_none());
    client.close_input();
    let process = client.process().to_string();
    // The kernel's own word, as a signal's effect may come late: the process catches these signals, so they cannot end it.
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
    let caught = u64::from_str_radix(caught, 16).unwrap();
    for number in [1, 2, 15] {
        assert!(
            caught & (1 << (number - 1)) != 0,
            "signal {number} is not caught: {caught:x}"
        );
    }
    let signal = |name: &str| {
        Command::new("kill")
            .args(["-s", name, &process])
            .status()
            .unwrap()
            .success()
    };
    assert!(signal("TERM") && signal("INT"));
    assert!(client.is_running());
    assert!(signal("KILL"));
    assert_eq!(client.wait_for_exit().0.code(), None);
}

#[test]
fn a_process_left_behind_outlives_the_agent() {
    let mut client = Client::start(&[]);
    let (updates, _) = client.prompt("!spawn-daemon");
    let words = text(&updates)[0].to_owned();
    let process = words.split(' ').nth(2).unwrap();
    client.close_input();
    assert!(client.wait_for_exit().0.success());
    let command = std::fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap();
    assert_eq!(command, "sleep\x00600\x00");
    assert!(Command::new("kill").arg(process).status().unwrap().success());
}

#[test]
fn tools_are_called_with_the_session_s_own_header() {
    let server = tool_server::start("Bearer of-this-session");
    let mut client = Client::with_tools(&server.url, "Bearer of-this-session");
    let (updates, _) = client.prompt("!tools\n!tool echo {\"text\": \"hello\"}\n!tool refuse");
    assert_eq!(
        text(&updates)[..3],
        [
            "tools: echo refuse",
            "tool echo: hello",
            "tool refuse failed: not today"
        ]
    );
    assert_eq!(statuses(&updates, "echo").last(), Some(&"completed"));
    assert_eq!(statuses(&updates, "refuse").last(), Some(&"failed"));
    assert_eq!(
        server.methods(),
        [
            "initialize",
            "notifications/initialized",
            "tools/list",
            "tools/call",
            "tools/call"
        ]
    );

    let mut stranger = Client::with_tools(&server.url, "Bearer of-another");
    let (updates, _) = stranger.prompt("!tool echo {}");
    assert!(text(&updates)[0].contains("HTTP 401"), "{updates:?}");

    let mut without = Client::start(&[]);
    let (updates, _) = without.prompt("!tools");
    assert_eq!(text(&updates)[0], "tools: there is no MCP server");
}

#[test]
fn the_plain_command_does_the_same_and_says_it_in_text() {
    let directory = Directory::new();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scripted-agent"));
        command.args(arguments).current_dir(directory.path()).output().unwrap()
    };
    let output = run(&["plain", "!say one\n!write a.txt b", "!say two"]);
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(0), &b"one\ntwo\n"[..])
    );
    assert_eq!(std::fs::read_to_string(directory.path().join("a.txt")).unwrap(), "b");
    assert_eq!(run(&["plain", "!exit 5"]).status.code(), Some(5));
    let failed = run(&["plain", "!fail no luck"]);
    assert_eq!(
        (failed.status.code(), failed.stderr.as_slice()),
        (Some(1), &b"scripted-agent: no luck\n"[..])
    );
    assert_eq!(run(&["plain", "!nonsense"]).status.code(), Some(1));
    assert_eq!(run(&["dance"]).status.code(), Some(1));
}

fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
