//! Projects that are added to a session that runs: at every moment of it, on either forge, and refused without a trace.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{HUB, LAB, Ran, World, signal, until};
use crate::kit::{Daemon, outcome, wait_for};
use crate::talk::Talk;

mod refused;
mod takeover;

const LEGACY: &str = "acme/legacy";
/// The directory that the agent of a session over one project starts in, seen from which the others are.
const BESIDE: &str = "..";

fn add(connection: &str, path: &str) -> Value {
    json!({"kind": "add_project", "connection": connection, "path": path})
}

/// A project of the other forge, with a connection that the session does not have.
fn add_new(world: &World, name: &str, variable: &str) -> Value {
    let mut add = add(name, HUB);
    add["new_connection"] = hub(world, variable);
    add
}

fn hub(world: &World, variable: &str) -> Value {
    json!({"forge": "github", "url": world.forge, "credential": {"env": format!("COFFERDAM_TOKEN_{variable}")}})
}

/// A task over the GitLab project, that knows no other connection and stays open.
fn lab_alone(world: &World, prompt: &str, idle_timeout_s: u64) -> Value {
    let mut task = world.lab_task(prompt);
    task["connections"].as_object_mut().unwrap().remove("hub");
    task["idle_timeout_s"] = json!(idle_timeout_s);
    task
}

/// Waits until the forge holds back the one answer that it shall be slow with: its fault is used up when the request comes.
fn fetching(world: &World) {
    until(Duration::from_secs(30), "the fetch", || {
        (world.ask("GET", "/_test/faults", None) == json!([])).then_some(())
    });
}

fn of_project<'o>(outcome: &'o Value, path: &str) -> &'o Value {
    let projects = outcome["projects"].as_array().unwrap();
    let found = projects.iter().find(|one| one["project"]["path"] == path);
    found.unwrap_or_else(|| panic!("{path} in {outcome}"))
}

#[test]
fn a_project_that_is_added_while_a_turn_runs_is_worked_on_in_the_next_and_linked() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    // The agent sees that the second one is there, and so that the first one is long there.
    let task = world.lab_task(&format!(
        "!write one.txt 1\n!commit . First\n!shell until [ -d {BESIDE}/legacy ]; do sleep 0.1; done\n!tool get_session {{}}\n\
         !say \\n## Changes\\nThe first thing."
    ));
    let session = Talk::begin(&world, &daemon, &task);
    wait_for(&session.events, "until [ -d");
    let said = session.applied("a-1", add("hub", HUB));
    assert!(
        said.contains("/workspace/website") && said.contains("next prompt"),
        "{said}"
    );
    let granted = session.of("granted");
    assert_eq!(granted.len(), 2, "{granted:?}");
    assert_eq!(granted[1]["project"]["path"], HUB);
    let cloned = session.of("cloned");
    assert_eq!(cloned[1]["directory"], "/workspace/website", "{cloned:?}");
    assert!(session.of("turn_ended").is_empty(), "the first turn goes on");
    // The prompt behind it is not given before the second project is there.
    session.post("a-2", add("hub", LEGACY));
    let prompt = format!(
        "!shell git -C {BESIDE}/legacy status\n!write {BESIDE}/website/two.txt 2\n!commit {BESIDE}/website Second\n\
         !tool list_issues {{\"project\":\"hub:{HUB}\"}}\n!say \\n## Changes\\nThe second thing."
    );
    session.post("p-1", json!({"kind": "prompt", "text": prompt}));
    let outcome = outcome(&session.events);
    assert_eq!(outcome["reason"], "published", "{outcome}");
    assert_eq!(session.answer("a-2")["applied"], true);
    assert_eq!(session.ran("legacy status"), "completed");
    for path in [LAB, HUB] {
        assert_eq!(of_project(&outcome, path)["reason"], "published", "{outcome}");
    }
    assert_eq!(
        of_project(&outcome, LEGACY)["reason"],
        "nothing_to_publish",
        "{outcome}"
    );
    assert_eq!(session.of("project_finished").len(), 3);
    let said = session.said();
    assert!(
        said.contains("/workspace/website"),
        "get_session in the first turn: {said}"
    );
    assert!(said.contains("The page has no language attribute"), "{said}");
    let (merge, pull) = (
        world.project(LAB)["change_requests"][0].clone(),
        world.project(HUB)["change_requests"][0].clone(),
    );
    let url = |path: &str| {
        of_project(&outcome, path)["change_request"]["url"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(pull["description"].as_str().unwrap().contains(&url(LAB)), "{pull}");
    assert!(
        merge["description"].as_str().unwrap().contains(&url(HUB)),
        "the merge request of the first turn names the pull request of the second: {merge}"
    );
    assert!(
        merge["description"].as_str().unwrap().contains("The first thing."),
        "{merge}"
    );
    let branch = pull["source"].as_str().unwrap();
    let commits = world.commits("/acme/website.git", "test-github-repo", branch);
    assert_eq!(commits.len(), 1, "{commits:?}");
    assert!(
        commits[0].contains("Second")
            && commits[0].contains("Cofferdam-Session:")
            && commits[0].contains("Co-authored-by:"),
        "{commits:?}"
    );
    world.assert_clean();
}

#[test]
fn an_idle_session_takes_a_project_of_the_other_forge_and_its_token_is_nowhere() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    let task = lab_alone(&world, "!write one.txt 1\n!commit . First", 120);
    let session = Talk::begin(&world, &daemon, &task);
    wait_for(&session.events, "change_request_opened");
    let said = session.applied("a-1", add_new(&world, "web", "HUB"));
    assert!(said.contains("web:acme/website"), "{said}");
    let connected = session.of("connected");
    assert_eq!(connected.len(), 2, "{connected:?}");
    assert_eq!(
        (&connected[1]["connection"], &connected[1]["account"]),
        (&json!("web"), &json!("ada"))
    );
    // Its halves are put together inside, so that the prompt is not what is found.
    session.ask(
        "p-1",
        &format!(
            "!shell t=test-github; ! grep -rqs -- \"$t-repo\" /home/agent /workspace /tmp /proc/self/environ /run\n\
             !say here: test-github-repo :there\n!write {BESIDE}/website/two.txt 2\n!commit {BESIDE}/website Second"
        ),
    );
    session.turn_ended(2);
    assert_eq!(session.ran("grep -rqs"), "completed");
    session.first("the pull request", |data| {
        data["event"] == "change_request_opened" && data["project"]["path"] == HUB
    });
    session.say("e-1", json!({"kind": "end"}));
    let outcome = outcome(&session.events);
    assert_eq!(of_project(&outcome, HUB)["reason"], "published", "{outcome}");
    let text = std::fs::read_to_string(&session.events).unwrap();
    assert!(text.contains("here: [MASKED] :there") && !text.contains("test-github-repo"));
    assert!(!daemon.log().contains("test-github-repo"));
    world.assert_clean();
}

#[test]
fn the_agent_is_told_once_with_its_next_prompt() {
    let world = World::new();
    let echo = "[agents.echo]\nimage = \"cofferdam/sandbox-scripted:test\"\nprotocol = \"command\"\n\
                command = [\"sh\", \"-c\", \"printf '%s' \\\"$1\\\"\", \"echo\"]\nco_author = \"Echo <echo@agents.example>\"";
    let daemon = Daemon::start(&world, echo);
    let mut task = world.lab_task("Say one");
    task["agent"] = json!("echo");
    task["idle_timeout_s"] = json!(120);
    let session = Talk::begin(&world, &daemon, &task);
    session.turn_ended(1);
    session.applied("a-1", add("hub", HUB));
    let told = |session: &Talk<'_>| session.said().matches("Added to this session").count();
    assert_eq!(told(&session), 0);
    session.ask("p-1", "Say two");
    session.turn_ended(2);
    session.ask("p-2", "Say three");
    session.turn_ended(3);
    let said = session.said();
    assert!(said.contains("Say two") && said.contains("Say three"), "{said}");
    assert_eq!(told(&session), 1, "{said}");
    assert!(
        said.contains("hub:acme/website is cloned at /workspace/website"),
        "{said}"
    );
    session.say("e-1", json!({"kind": "end"}));
    assert_eq!(outcome(&session.events)["projects"].as_array().unwrap().len(), 2);
}

#[test]
fn a_project_that_is_added_before_the_claim_is_there_in_the_first_turn() {
    let world = World::new();
    let mut daemon = Daemon::start(&world, "");
    // Its queues stay; nobody takes tasks now.
    signal(&daemon.process.0, "TERM");
    daemon.wait();
    let task = world.lab_task("!shell git -C /workspace/website status\n!tool get_session {}");
    let session = Talk::begin(&world, &daemon, &task);
    until(Duration::from_secs(30), "the mailbox", || {
        let mut sending = daemon.command(
            &world,
            &["add-project", &session.session, HUB, "--connection", "hub", "--no-wait"],
        );
        sending.env("COFFERDAM_LOG", "off");
        (Ran::of(sending).exit == 0).then_some(())
    });
    let _next = daemon.beside(&world, "next");
    let outcome = outcome(&session.events);
    assert_eq!(session.ran("website status"), "completed");
    assert!(session.said().contains("hub:acme/website"), "{}", session.said());
    assert_eq!(of_project(&outcome, HUB)["reason"], "nothing_to_publish", "{outcome}");
    let order: Vec<String> = session
        .all()
        .iter()
        .map(|data| data["event"].as_str().unwrap().to_owned())
        .filter(|kind| ["cloned", "turn_started"].contains(&kind.as_str()))
        .collect();
    assert_eq!(order, ["cloned", "cloned", "turn_started"]);
}

#[test]
fn a_suspended_session_comes_back_with_what_was_added() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    // It rests soon, and not before the project is there.
    let prompt = format!("!write one.txt 1\n!commit . First\n!shell until [ -d {BESIDE}/website ]; do sleep 0.1; done");
    let mut task = lab_alone(&world, &prompt, 4);
    let session = Talk::begin(&world, &daemon, &task);
    wait_for(&session.events, "until [ -d");
    session.applied("a-1", add_new(&world, "web", "HUB"));
    let suspended = session.first("the suspension", |data| data["event"] == "suspended");
    let resume = suspended["resume"].clone();
    assert_eq!(
        resume["added"],
        json!([{"connection": "web", "path": HUB}]),
        "{suspended}"
    );
    assert_eq!(suspended["projects"].as_array().unwrap().len(), 2, "{suspended}");
    assert!(
        !resume.to_string().contains("COFFERDAM_TOKEN"),
        "no credential travels in an event: {resume}"
    );
    world.assert_clean();

    task["prompt"] = json!("!write website/two.txt 2\n!commit website Second");
    task["resume"] = resume;
    task.as_object_mut().unwrap().remove("idle_timeout_s");
    // Whoever forgets the connection is told.
    let forgotten = daemon.submit(&world, &task);
    assert_eq!(forgotten.exit, 65, "{}", forgotten.stdout);
    assert!(
        forgotten.stderr.contains("uses the connection \"web\""),
        "{}",
        forgotten.stderr
    );
    task["connections"]["web"] = hub(&world, "HUB");
    let next = Talk::begin(&world, &daemon, &task);
    let outcome = outcome(&next.events);
    assert_eq!(of_project(&outcome, HUB)["reason"], "published", "{outcome}");
    assert_eq!(outcome["projects"].as_array().unwrap().len(), 2, "{outcome}");
    world.assert_clean();
}

#[test]
fn a_draining_worker_hands_on_what_was_added_with_its_connection() {
    let world = World::new().variable("COFFERDAM__DRAIN_S", "0");
    let mut one = Daemon::start(&world, "[session]\ngrace_s = 1");
    let task = lab_alone(&world, "!say here\n!hang", 0);
    let session = Talk::begin(&world, &one, &task);
    wait_for(&session.events, "here");
    session.applied("a-1", add_new(&world, "web", "HUB"));
    session.ask(
        "p-1",
        "!shell test -d website/.git && test -d greeter/.git\n!stop end_turn",
    );
    signal(&one.process.0, "TERM");
    session.first("the suspension", |data| {
        data["event"] == "suspended" && data["queued"] == true
    });
    assert_eq!(one.wait(), 0);
    let _two = one.beside(&world, "two");
    // What was interrupted is asked once more, and hangs again.
    session.first("the second attempt", |data| {
        data["event"] == "cloned" && data["attempt"] == 2 && data["project"]["path"] == HUB
    });
    session.first("its turn", |data| {
        data["event"] == "turn_started" && data["attempt"] == 2
    });
    session.say("e-1", json!({"kind": "end"}));
    let outcome = outcome(&session.events);
    assert_eq!(outcome["projects"].as_array().unwrap().len(), 2, "{outcome}");
}

#[test]
fn a_draining_worker_still_adds_while_its_session_goes_on() {
    let world = World::new();
    let mut daemon = Daemon::start(&world, "");
    let task = lab_alone(
        &world,
        "!write one.txt 1\n!commit . First\n!shell until [ -d ../website ]; do sleep 0.1; done",
        0,
    );
    let talk = Talk::begin(&world, &daemon, &task);
    wait_for(&talk.events, "until [ -d");
    signal(&daemon.process.0, "TERM");
    until(Duration::from_secs(20), "the drain", || {
        (daemon.status("/readyz") == 503).then_some(())
    });
    talk.applied("a-1", add_new(&world, "web", "HUB"));
    let outcome = outcome(&talk.events);
    assert_eq!(of_project(&outcome, HUB)["reason"], "nothing_to_publish", "{outcome}");
    assert_eq!(of_project(&outcome, LAB)["reason"], "published", "{outcome}");
    assert_eq!(daemon.wait(), 0);
}

#[test]
fn a_connection_that_came_with_a_project_can_be_renewed_and_dropped() {
    let fresh = "\n[[tokens]]\nname = \"ada-hub-fresh\"\nvalue = \"test-github-fresh\"\nuser = \"ada\"\nforge = \"github\"\nscopes = [\"repo\"]\n";
    let world = World::with_seed(|seed| seed + fresh).token("FRESH", "test-github-fresh");
    let daemon = Daemon::start(&world, "");
    let session = Talk::begin(
        &world,
        &daemon,
        &lab_alone(&world, "!write one.txt 1\n!commit . First", 120),
    );
    wait_for(&session.events, "change_request_opened");
    session.applied("a-1", add_new(&world, "web", "HUB"));
    let renewed = session.say(
        "c-1",
        json!({"kind": "credential", "connection": "web", "credential": {"env": "COFFERDAM_TOKEN_FRESH"}}),
    );
    assert_eq!(renewed["applied"], true, "{renewed}");
    world.ask("POST", "/_test/tokens/ada-github-repo", Some(&json!({"revoked": true})));
    session.ask(
        "p-1",
        &format!("!write {BESIDE}/website/two.txt 2\n!commit {BESIDE}/website Second"),
    );
    session.first("the pull request by the fresh token", |data| {
        data["event"] == "change_request_opened" && data["project"]["path"] == HUB
    });
    let dropped = session.say("d-1", json!({"kind": "disconnect", "connection": "web"}));
    assert_eq!(dropped["applied"], true, "{dropped}");
    assert_eq!(session.staged(), ["0"]);
    let said = session.refused("a-2", add("web", LEGACY));
    assert!(said.contains("dropped"), "{said}");
    session.ask(
        "p-2",
        &format!("!shell test ! -e {BESIDE}/website\n!shell git ls-remote http://127.0.0.1:8470/git/web/acme/website.git && echo served"),
    );
    session.turn_ended(3);
    assert_eq!(session.ran("test ! -e"), "completed");
    assert_eq!(session.ran("ls-remote"), "failed");
    session.say("e-1", json!({"kind": "end"}));
    let outcome = outcome(&session.events);
    assert_eq!(
        of_project(&outcome, HUB)["reason"],
        "published",
        "what was published stays: {outcome}"
    );
    world.assert_clean();
}
