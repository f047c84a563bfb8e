//! What is looked at before anything leaves: credentials anywhere in the work, files that run on their own, public and private together.
//!
//! Every value is put together at run time and in the sandbox, so that neither this file nor a prompt holds one.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{HUB, LAB, Ran, World};
use crate::kit::{Amqp, Daemon, outcome, wait_for};

/// A token of no one, in two halves.
const HALVES: [&str; 2] = ["glpa", "t-Xk3J9vQ2mR7tB5nW8cLd"];
/// The session's own, in two halves.
const OWN: [&str; 2] = ["test-git", "lab-api"];

fn value() -> String {
    HALVES.concat()
}

/// A piece of shell that prints a value.
fn print(halves: [&str; 2]) -> String {
    format!("printf %s%s {} {}", halves[0], halves[1])
}

fn titled(mut task: Value, title: &str) -> Value {
    task["title"] = title.into();
    task
}

/// The work of a project was stopped for a secret: nothing on the forge, a bundle on the worker, the value nowhere.
#[track_caller]
fn assert_stopped(world: &World, ran: &Ran, path: &str, place: &str) {
    let of = ran.of_project(path);
    let message = of["message"].as_str().unwrap();
    assert_eq!(of["reason"], "secret_found", "{of} {}", ran.stderr);
    assert!(message.contains(place), "{place:?} in {message}");
    assert!(of.get("patch").is_none(), "{of}");
    assert!(
        !ran.stdout.contains(&value()) && !ran.stderr.contains(&value()),
        "the value was told"
    );
    let project = world.project(path);
    assert_eq!(project["branches"].as_object().unwrap().len(), 1, "{project}");
    assert!(project["change_requests"].as_array().unwrap().is_empty());
    let bundle = world.state_dir().join("kept").join(of["kept"].as_str().unwrap());
    let heads = Command::new("git")
        .args(["bundle", "list-heads"])
        .arg(&bundle)
        .output()
        .unwrap();
    let heads = String::from_utf8_lossy(&heads.stdout).into_owned();
    assert!(heads.contains(of["head"].as_str().unwrap()), "{heads}");
}

#[test]
fn a_secret_stops_its_project_and_not_the_other() {
    let world = World::new();
    let prompt = format!(
        "!shell echo one > greeter/conf; {} >> greeter/conf\n!write website/a.txt plain\n!say done",
        print(HALVES)
    );
    let ran = world.exec(&titled(world.task(&prompt), "Configure"));
    assert_eq!((ran.exit, ran.reason()), (1, "partly_published"), "{}", ran.stderr);
    assert_stopped(&world, &ran, LAB, "what looks like a GitLab token in conf:2 (commit ");
    assert_eq!(ran.of_project(HUB)["reason"], "published");
    assert_eq!(world.project(HUB)["change_requests"].as_array().unwrap().len(), 1);
    // The other's text names no change request that is not there.
    let text = world.project(HUB)["change_requests"][0]["description"].to_string();
    assert!(!text.contains("Belongs together"), "{text}");
    world.assert_clean();
}

#[test]
fn a_secret_is_found_wherever_it_would_leave() {
    let world = World::new();
    let own = print(OWN);
    let commit = "git add -A && git commit -q -m";
    for (what, prompt, place) in [
        (
            "a commit that a later one undoes",
            format!(
                "!shell {} > a && {commit} One && echo plain > a && {commit} Two",
                print(HALVES)
            ),
            "a:1 (commit ",
        ),
        (
            "a commit's message",
            format!("!shell echo x > a && {commit} \"Use $({})\"", print(HALVES)),
            "line 1 of the message of commit ",
        ),
        (
            "a file's name",
            format!("!shell touch \"$({}).txt\"", print(HALVES)),
            "in the name of a file (commit ",
        ),
        (
            "the agent's own text",
            format!(
                "!write a plain\n!say ## Changes\\nuses\\n{}\n!say {}\\n## Approach\\nnone",
                HALVES[0], HALVES[1]
            ),
            "the agent's section Changes, line 2",
        ),
        (
            "the session's own token, in base64 and broken into lines, in a file of bytes",
            format!(
                "!shell (head -c 300 /dev/urandom; printf '\\000'; (printf any:; {own}; printf ' and more') | base64 -w 9; head -c 9 /dev/zero) > blob"
            ),
            "a credential of this session in blob:",
        ),
        (
            "the session's own token, URL-encoded",
            "!shell printf 'x=test%%2Dgitlab%%2Dapi' > a".to_owned(),
            "a credential of this session in a:1",
        ),
    ] {
        // Text that is said reaches the events as it is: only the known is masked there.
        let ran = world.exec(&titled(world.lab_task(&prompt), "Work"));
        let said_aloud = what == "the agent's own text";
        if said_aloud {
            let of = ran.of_project(LAB);
            assert_eq!(of["reason"], "secret_found", "{of}");
            assert!(of["message"].as_str().unwrap().contains(place), "{of}");
            assert!(of["kept"].is_string() && world.project(LAB)["branches"].as_object().unwrap().len() == 1);
            continue;
        }
        assert_eq!(ran.reason(), "secret_found", "{what}: {} {}", ran.outcome(), ran.stderr);
        assert_stopped(&world, &ran, LAB, place);
    }
}

#[test]
fn an_agent_is_told_that_it_may_not_say_a_secret() {
    let world = World::new();
    let mut task = world.lab_task(&format!(
        "!tool create_change_request {}\n!tool comment_on_issue {}\n!write a plain",
        json!({"title": "Use it", "changes": format!("It is {}", value()), "approach": "a", "trade_offs": "b"}),
        json!({"number": 1, "body": "the token is test-gitlab-api, take it"}),
    ));
    task["comment"] = true.into();
    let ran = world.exec(&titled(task, "Work"));
    let said = ran.said();
    assert!(
        said.contains("changes holds what looks like a GitLab token: nothing was sent"),
        "{said}"
    );
    assert!(
        said.contains("body holds a credential of this session: nothing was sent"),
        "{said}"
    );
    assert!(ran.all("commented").is_empty());
    // The wish was not taken; the work is fine.
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    let text = world.project(LAB)["change_requests"][0]["description"].to_string();
    assert!(!text.contains("Xk3J9v"), "{text}");
}

#[test]
fn a_patch_with_a_secret_is_not_offered() {
    let world = World::new().token("LAB", "test-gitlab-read-api");
    let plain = world.exec(&titled(world.lab_task("!write a plain"), "Work"));
    assert!(plain.of_project(LAB)["patch"].is_string());
    let ran = world.exec(&titled(
        world.lab_task(&format!("!shell {} > a", print(HALVES))),
        "Work",
    ));
    assert_stopped(&world, &ran, LAB, "a:1 (commit ");
}

#[test]
fn what_the_operator_allows_is_published_and_the_sessions_own_never() {
    let world = World::new();
    // Each time another content: what the forge has already is not searched again.
    let task = |more: &str| {
        let prompt = format!(
            "!shell mkdir -p fixtures; {} > fixtures/key.txt; echo ' {more}' >> fixtures/key.txt",
            print(HALVES)
        );
        titled(world.lab_task(&prompt), "Work")
    };
    let more = world.directory.path().join("rules.toml");
    std::fs::write(
        &more,
        "[[rule]]\nid = \"house\"\nsays = \"a key of this house\"\npattern = 'plain'",
    )
    .unwrap();
    for (config, prompt, reason) in [
        (
            "[session.secret_scan.allow]\npaths = [\"fixtures/**\"]".to_owned(),
            task("one"),
            "published",
        ),
        (
            "[session.secret_scan]\nmode = \"off\"".to_owned(),
            task("two"),
            "published",
        ),
        (
            "[session.secret_scan]\nmode = \"warn\"".to_owned(),
            task("three"),
            "published",
        ),
        // The session's own is not let through.
        (
            "[session.secret_scan]\nmode = \"off\"".to_owned(),
            titled(world.lab_task(&format!("!shell {} > a", print(OWN))), "Work"),
            "secret_found",
        ),
        (
            "[session.secret_scan]\nmode = \"warn\"\n[session.secret_scan.allow]\npaths = [\"**\"]".to_owned(),
            titled(world.lab_task(&format!("!shell {} > a", print(OWN))), "Work"),
            "secret_found",
        ),
        (
            format!("[session.secret_scan]\nrules = \"{}\"", more.display()),
            titled(world.lab_task("!write a plain"), "Work"),
            "secret_found",
        ),
        // What is too much to be searched is kept.
        (
            "[session.secret_scan]\nlargest_bytes = 1000".to_owned(),
            titled(world.lab_task("!shell seq 2000 > a"), "Work"),
            "review_needed",
        ),
    ] {
        let ran = world.exec_with(&config, &prompt);
        assert_eq!(ran.reason(), reason, "{config}: {} {}", ran.outcome(), ran.stderr);
        if config.contains("\"warn\"") && reason == "published" {
            let warning = ran.all("warning")[0].clone();
            assert_eq!(warning["code"], "secret_suspected");
            assert!(
                warning["message"].as_str().unwrap().contains("fixtures/key.txt:1"),
                "{warning}"
            );
            let branch = ran.of_project(LAB)["branch"].clone();
            let requests = world.project(LAB)["change_requests"].clone();
            let request = requests
                .as_array()
                .unwrap()
                .iter()
                .find(|one| one["source"] == branch)
                .unwrap();
            assert!(
                request["description"]
                    .as_str()
                    .unwrap()
                    .contains("what looks like a GitLab token"),
                "{request}"
            );
        } else {
            assert!(ran.all("warning").is_empty(), "{:?}", ran.all("warning"));
        }
    }
    let ran = world.exec_with("[session.secret_scan]\nrules = \"/nowhere\"", &task("four"));
    assert_eq!(ran.exit, 78);
    assert!(
        ran.stderr.contains("session.secret_scan.rules /nowhere"),
        "{}",
        ran.stderr
    );
}

const CI: &str =
    "!write greeter/.gitlab-ci.yml job: {}\n!write website/.github/workflows/x.yml on: push\n!write website/a.txt b";

/// A token that may push workflow files, which GitHub asks a scope of its own for.
fn workflows(seed: String) -> String {
    let plain = "value = \"test-github-repo\"\nuser = \"ada\"\nforge = \"github\"\nscopes = [\"repo\"";
    assert!(seed.contains(plain));
    seed.replace(plain, &format!("{plain}, \"workflow\""))
}

#[test]
fn ci_files_and_hidden_characters_are_flagged_on_both_forges() {
    let world = World::with_seed(workflows);
    let prompt = format!("{CI}\n!shell printf 'ok\\nif a\\342\\200\\256 {{\\n' > greeter/a.c");
    let ran = world.exec(&titled(world.task(&prompt), "Work"));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    let text = |path: &str| {
        world.project(path)["change_requests"][0]["description"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (lab, hub) = (text(LAB), text(HUB));
    assert!(
        lab.starts_with(
            "## Look at this before you merge\n\n- `.gitlab-ci.yml` is changed, which runs on its own (GitLab CI)."
        ),
        "{lab}"
    );
    assert!(
        lab.contains("`a.c` line 2 holds characters that cannot be seen"),
        "{lab}"
    );
    assert!(
        hub.starts_with("## Look at this before you merge\n\n- `.github/workflows/x.yml` is changed"),
        "{hub}"
    );
    assert!(!hub.contains("a.txt` is changed"), "{hub}");
    let codes: Vec<_> = ran
        .all("warning")
        .iter()
        .map(|warning| warning["code"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        codes.iter().filter(|code| *code == "review_needed").count(),
        2,
        "{codes:?}"
    );
    assert_eq!(
        codes.iter().filter(|code| *code == "hidden_characters").count(),
        1,
        "{codes:?}"
    );
}

#[test]
fn ci_files_are_refused_where_the_operator_says_so() {
    let world = World::new();
    let ran = world.exec_with("[session]\nci_files = \"refuse\"", &titled(world.task(CI), "Work"));
    assert_eq!(ran.reason(), "review_needed", "{}", ran.stderr);
    for path in [LAB, HUB] {
        assert!(ran.of_project(path)["kept"].is_string());
        assert_eq!(world.project(path)["branches"].as_object().unwrap().len(), 1);
    }
}

#[test]
fn held_work_waits_for_an_answer_and_the_first_one_counts() {
    let world = World::with_seed(workflows);
    let daemon = Daemon::start(&world, "[session]\nci_files = \"hold\"\nanswer_wait_s = 60");
    let amqp = Amqp::open();
    let task = titled(world.task(CI), "Work");
    let (_following, events) = daemon.submit_aside(&world, &task);
    let send = |id: &str, connection: &str, path: &str, publish: bool| {
        let control = json!({"version": 1, "id": id, "kind": "answer", "connection": connection, "path": path, "publish": publish});
        let inbox = format!("{}.session.in", daemon.prefix);
        assert!(amqp.publish(
            &inbox,
            task["session"].as_str().unwrap(),
            control.to_string().as_bytes()
        ));
    };
    wait_for(&events, "changes what runs on its own: .gitlab-ci.yml");
    wait_for(&events, "changes what runs on its own: .github/workflows/x.yml");
    for (path, count) in [(LAB, 1), (HUB, 1)] {
        assert_eq!(
            world.project(path)["branches"].as_object().unwrap().len(),
            count,
            "{path}"
        );
    }
    send("a-0", "lab", "platform/unknown", true);
    wait_for(&events, "this session has no project lab:platform/unknown");
    send("a-1", "lab", LAB, false);
    wait_for(&events, "a-1");
    send("a-2", "lab", LAB, true);
    wait_for(&events, "was answered before: not to publish it");
    send("a-3", "hub", HUB, true);
    let outcome = outcome(&events);
    assert_eq!(outcome["reason"], "partly_published", "{outcome}");
    let of = |path: &str| {
        let projects = outcome["projects"].as_array().unwrap();
        projects
            .iter()
            .find(|one| one["project"]["path"] == path)
            .unwrap()
            .clone()
    };
    assert_eq!(
        (&of(LAB)["reason"], &of(HUB)["reason"]),
        (&json!("review_needed"), &json!("published"))
    );
    assert!(
        of(LAB)["kept"].is_string()
            && of(LAB)["message"]
                .as_str()
                .unwrap()
                .contains("the answer was not to publish it")
    );
    assert_eq!(world.project(LAB)["branches"].as_object().unwrap().len(), 1);
    let text = world.project(HUB)["change_requests"][0]["description"].to_string();
    assert!(text.contains("Look at this before you merge"), "{text}");
    let told = std::fs::read_to_string(&events).unwrap();
    let attention: Vec<Value> = told
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let attention: Vec<&Value> = attention
        .iter()
        .map(|event| &event["data"])
        .filter(|data| data["event"] == "needs_attention")
        .collect();
    assert_eq!(attention.len(), 2, "{told}");
    assert!(
        attention
            .iter()
            .all(|data| data["reason"] == "review_needed" && data["wait_s"] == 60),
        "{attention:?}"
    );
    world.assert_clean();
}

#[test]
fn held_work_that_nobody_answers_for_is_kept() {
    let world = World::new();
    let mut task = titled(world.lab_task("!write .gitlab-ci.yml job: {}"), "Work");
    let ran = world.exec_with("[session]\nci_files = \"hold\"\nanswer_wait_s = 1", &task);
    assert_eq!(ran.reason(), "review_needed", "{}", ran.stderr);
    assert!(
        ran.of_project(LAB)["message"]
            .as_str()
            .unwrap()
            .contains("nobody answered within 1 s")
    );
    assert!(ran.of_project(LAB)["kept"].is_string());
    assert_eq!(world.project(LAB)["branches"].as_object().unwrap().len(), 1);
    // Work that holds nothing of the kind asks nobody.
    task["prompt"] = "!write a.txt plain".into();
    task["session"] = json!(uuid::Uuid::new_v4());
    let ran = world.exec_with("[session]\nci_files = \"hold\"\nanswer_wait_s = 1", &task);
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    assert!(ran.all("needs_attention").is_empty());
}

#[test]
fn a_dropped_connection_ends_the_wait_for_an_answer() {
    let world = World::new();
    let daemon = Daemon::start(&world, "[session]\nci_files = \"hold\"\nanswer_wait_s = 60");
    let amqp = Amqp::open();
    let task = titled(world.lab_task("!write .gitlab-ci.yml job: {}"), "Work");
    let (_following, events) = daemon.submit_aside(&world, &task);
    wait_for(&events, "needs_attention");
    let control = json!({"version": 1, "id": "d-1", "kind": "disconnect", "connection": "lab"});
    let inbox = format!("{}.session.in", daemon.prefix);
    assert!(amqp.publish(
        &inbox,
        task["session"].as_str().unwrap(),
        control.to_string().as_bytes()
    ));
    let outcome = outcome(&events);
    assert_eq!(outcome["reason"], "disconnected", "{outcome}");
    assert!(outcome["projects"][0]["kept"].is_string());
}

#[test]
fn public_and_private_together_are_refused_unless_that_is_allowed() {
    let open = |seed: String| {
        let private = "description = \"The site of Acme\"\nvisibility = \"private\"";
        assert!(seed.contains(private));
        seed.replace(private, &private.replace("private", "public"))
    };
    let world = World::with_seed(open);
    let prompt = "!write greeter/a.txt b\n!write website/a.txt b";
    let asking = |asks: bool| {
        let mut task = titled(world.task(prompt), "Work");
        if asks {
            task["mixed_visibility"] = true.into();
        }
        task
    };
    for (config, asks, allowed) in [
        ("", false, false),
        ("[session]\nmixed_visibility = \"refuse\"", true, false),
        ("", true, true),
        ("[session]\nmixed_visibility = \"allow\"", false, true),
    ] {
        let ran = world.exec_with(config, &asking(asks));
        let reason = if allowed { "published" } else { "mixed_visibility" };
        assert_eq!(
            ran.reason(),
            reason,
            "{config} {asks}: {} {}",
            ran.outcome(),
            ran.stderr
        );
        if !allowed {
            let message = ran.outcome()["message"].as_str().unwrap();
            assert!(
                message.contains(&format!("hub:{HUB}, which is public"))
                    && message.contains(&format!("lab:{LAB}, which is private")),
                "{message}"
            );
            // Refused before anything is started or shown to an agent.
            assert!(ran.all("granted").is_empty() && ran.all("turn_started").is_empty());
        }
    }
    // One alone is no mix.
    let ran = world.exec(&titled(world.lab_task("!write a.txt b"), "Work"));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
}
