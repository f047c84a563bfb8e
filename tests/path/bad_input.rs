//! Bad input: each kind has its own stable word and a sentence that a user can act on, and leaves nothing behind.

use serde_json::{Value, json};

use crate::harness::{LAB, World};

#[test]
fn a_task_that_is_none_is_refused_before_anything_starts() {
    let world = World::new();
    let good = world.lab_task("!say hi");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut task = good.clone();
        change(&mut task);
        task.to_string()
    };
    let cases: Vec<(&str, String, &str)> = vec![
        ("not_json", "{nope".into(), "not JSON"),
        ("unknown_version", with(&|task| task["version"] = json!(9)), "version 9"),
        ("bad_field", with(&|task| task["projekts"] = json!([])), "projekts"),
        ("no_project", with(&|task| task["projects"] = json!([])), "project"),
        ("bad_session_id", with(&|task| task["session"] = json!("abc")), "UUID"),
        (
            "duplicate_project",
            with(&|task| {
                let one = task["projects"][0].clone();
                task["projects"] = json!([one.clone(), one]);
            }),
            "twice",
        ),
        (
            "unknown_connection",
            with(&|task| task["projects"][0]["connection"] = json!("other")),
            "other",
        ),
        ("empty_prompt", with(&|task| task["prompt"] = json!(" ")), "prompt"),
    ];
    for (code, body, words) in cases {
        let path = world.directory.path().join("bad.json");
        std::fs::write(&path, body).unwrap();
        let ran = world.exec_file("", &path);
        assert_eq!(ran.exit, 65, "{code}: {}", ran.stderr);
        assert!(
            ran.stderr.contains(code) && ran.stderr.contains(words),
            "{code}: {}",
            ran.stderr
        );
    }
    assert!(
        !world.state_dir().exists(),
        "nothing was set up for a task that is none"
    );
}

#[test]
fn what_the_worker_or_the_forge_lacks_is_told_by_its_name() {
    let world = World::with_seed(|seed| {
        seed + "\n[[projects]]\nid = 150\nforge = \"gitlab\"\npath = \"platform/void\"\nvisibility = \"private\"\nempty = true\n\
                members = [{ user = \"ada\", role = \"developer\" }]\n"
    })
    .token("EXPIRED", "test-gitlab-expired")
    .token("REVOKED", "test-gitlab-revoked")
    .token("USERS", "test-gitlab-read-user")
    .token("WRONG", "no-such-token")
;
    let credential = |name: &str| json!({"env": format!("COFFERDAM_TOKEN_{name}")});
    let with = |change: &dyn Fn(&mut Value)| {
        let mut task = world.lab_task("!say hi");
        change(&mut task);
        task
    };
    let of = |name: &'static str| with(&move |task| task["connections"]["lab"]["credential"] = credential(name));
    let project = |path: &'static str| with(&move |task| task["projects"][0]["path"] = json!(path));
    let cases = vec![
        ("credential_missing", 1, of("NOBODY"), "COFFERDAM_TOKEN_NOBODY"),
        (
            "credential_refused",
            1,
            with(&|task| task["connections"]["lab"]["credential"] = json!({"env": "PATH"})),
            "COFFERDAM_TOKEN_",
        ),
        (
            "credential_refused",
            1,
            with(&|task| task["connections"]["lab"]["credential"] = json!({"file": "../token"})),
            "credentials.directory",
        ),
        (
            "unknown_agent",
            1,
            with(&|task| task["agent"] = json!("nobody")),
            "scripted",
        ),
        ("token_expired", 1, of("EXPIRED"), "new one"),
        ("token_revoked", 1, of("REVOKED"), "new one"),
        ("token_invalid", 1, of("WRONG"), "does not accept the token"),
        ("scope_missing", 1, of("USERS"), "read_api"),
        ("project_not_found", 1, project("platform/secret"), "platform/secret"),
        ("project_empty", 1, project("platform/void"), "first"),
        (
            "base_not_found",
            1,
            with(&|task| task["projects"][0]["base"] = json!("no-such-branch")),
            "no-such-branch",
        ),
        (
            "address_refused",
            1,
            with(&|task| task["connections"]["lab"]["url"] = json!("ftp://x")),
            "ftp",
        ),
        (
            "forge_unavailable",
            3,
            with(&|task| task["connections"]["lab"]["url"] = json!("http://127.0.0.1:9/gitlab")),
            "cannot be reached",
        ),
    ];
    for (reason, exit, task, words) in cases {
        let ran = world.exec(&task);
        assert_eq!(
            (ran.reason(), ran.exit),
            (reason, exit),
            "{} {}",
            ran.outcome(),
            ran.stderr
        );
        assert!(
            ran.outcome()["message"].as_str().unwrap().contains(words),
            "{words} in {}",
            ran.outcome()
        );
        assert!(ran.all("turn_started").is_empty());
        world.assert_clean();
    }
    // A token in clear is no matter of a session: it is rejected like what is no task.
    let ran = world.exec(&with(&|task| {
        task["connections"]["lab"]["credential"] = json!({"plain": "test-gitlab-api"});
    }));
    let rejected = &ran.all("rejected")[0];
    assert_eq!(
        (ran.exit, &rejected["code"]),
        (65, &json!("credential_refused")),
        "{rejected}"
    );
    assert!(
        rejected["message"].as_str().unwrap().contains("allow_plain"),
        "{rejected}"
    );
    world.assert_clean();
    assert!(world.project(LAB)["change_requests"].as_array().unwrap().is_empty());
}

#[test]
fn a_missing_image_and_a_missing_engine_are_told_apart() {
    let world = World::new();
    let image =
        "[agents.other]\nimage = \"cofferdam/no-such-image:1\"\ncommand = [\"x\"]\nco_author = \"A <a@b.example>\"";
    let mut task = world.lab_task("!say hi");
    task["agent"] = json!("other");
    let ran = world.exec_with(image, &task);
    assert_eq!((ran.exit, ran.reason()), (1, "image_missing"), "{}", ran.stderr);
    assert!(
        ran.outcome()["message"]
            .as_str()
            .unwrap()
            .contains("cofferdam/no-such-image:1")
    );
    world.assert_clean();

    let config = world.config("");
    let mut command = world.command(&config);
    command.env("COFFERDAM__SANDBOX__DOCKER_SOCKET", "/nonexistent/docker.sock");
    command
        .args(["exec", "--json"])
        .arg(world.write_task(&world.lab_task("!say hi")));
    let ran = crate::harness::Ran::of(command);
    assert_eq!((ran.exit, ran.reason()), (3, "sandbox_unavailable"), "{}", ran.stderr);
}

#[test]
fn a_configuration_mistake_names_its_key_and_exits_78() {
    let world = World::new();
    let task = world.write_task(&world.lab_task("!say hi"));
    let ran = world.exec_file("[sandbox2]", &task);
    assert_eq!(ran.exit, 78);
    assert!(ran.stderr.contains("sandbox2"), "{}", ran.stderr);
}
