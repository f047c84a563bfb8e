//! An agent's own memory travels with its session: saved when the session rests, loaded by whoever goes on, and never needed. Without it the
//! agent is told the conversation, as always.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::{LEAVES_AND_WAITS, leaves_and_waits};
use crate::harness::{World, signal, slowness, until};
use crate::kit::{Daemon, outcome};
use crate::talk::Talk;

const FIRST: &str = "!write one.txt 1\n!commit . First\n!say ## Changes\\nThe first thing.";
const RECALL: &str = "!recall\n!quoted\n!write two.txt 2\n!commit . Second";

fn states(world: &World) -> PathBuf {
    world.directory.path().join("states")
}

/// Workers that save, and an agent that can load as `loads` says.
fn saving(world: &World, loads: &str, more: &str) -> String {
    format!(
        "saved_state = [\".scripted\", \".nothing/here\"]\nenvironment = {{ SCRIPTED_LOADS = \"{loads}\" }}\n{more}\n\
         [session]\ngrace_s = 2\nsaved_states = \"{}\"\n",
        states(world).display()
    )
}

fn saved_files(world: &World) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(states(world)).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// What the agent said in this attempt.
fn said(talk: &Talk<'_>, attempt: u32) -> String {
    let messages = talk.of("agent_message");
    let here = messages.iter().filter(|data| data["attempt"] == attempt);
    here.map(|data| data["text"].as_str().unwrap()).collect()
}

fn warned(talk: &Talk<'_>, code: &str) -> Vec<String> {
    let warnings = talk.of("warning");
    let these = warnings.iter().filter(|data| data["code"] == code);
    these.map(|data| data["message"].as_str().unwrap().to_owned()).collect()
}

/// The agent went on from its own memory: it was told nothing, and nothing that it repeated became an event.
fn assert_remembered(talk: &Talk<'_>) {
    let said = said(talk, 2);
    assert!(
        said.starts_with("recall: asked !write one.txt 1"),
        "{said} {:?}",
        talk.all()
    );
    assert_eq!(said.matches("The first thing.").count(), 1, "{said}");
    assert!(said.contains("quoted: nothing"), "{said}");
    assert_nothing_repeated(talk);
    assert_eq!(warned(talk, "state_not_loaded"), Vec::<String>::new());
}

/// The agent was told the conversation, and remembers nothing by itself.
fn assert_told(talk: &Talk<'_>, why: &str) {
    let said = said(talk, 2);
    assert!(said.starts_with("recall: nothing"), "{said} {:?}", talk.all());
    assert!(
        said.contains("quoted: > !write one.txt 1") && said.contains("> The first thing."),
        "{said}"
    );
    assert_nothing_repeated(talk);
    let warned = warned(talk, "state_not_loaded");
    assert!(warned.len() == 1 && warned[0].contains(why), "{warned:?}");
}

fn assert_nothing_repeated(talk: &Talk<'_>) {
    let all = talk.all();
    let here = all.iter().filter(|data| data["attempt"] == 2);
    let repeated: Vec<&Value> = here.filter(|data| data.to_string().contains(" of before")).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
}

/// A session with one turn that rests; its task, ready to go on.
fn resting(world: &World, daemon: &Daemon, prompt: &str) -> (Value, Value) {
    let mut task = world.lab_task(prompt);
    task["idle_timeout_s"] = json!(1);
    let talk = Talk::begin(world, daemon, &task);
    let suspended = talk.first("the suspension", |data| data["event"] == "suspended");
    task["resume"] = suspended["resume"].clone();
    task["prompt"] = json!(RECALL);
    task.as_object_mut().unwrap().remove("idle_timeout_s");
    let warning = json!(warned(&talk, "state_not_saved"));
    (task, warning)
}

#[test]
fn a_drained_session_goes_on_elsewhere_with_what_the_agent_itself_remembers() {
    let world = World::new().variable("COFFERDAM__DRAIN_S", "0");
    let mut one = Daemon::start(&world, &saving(&world, "yes", ""));
    let mut task = world.lab_task(FIRST);
    task["idle_timeout_s"] = json!(120);
    let talk = Talk::begin(&world, &one, &task);
    talk.turn_ended(1);
    // The second time it finds what the first left, and does not wait.
    let second = LEAVES_AND_WAITS.replace("one.txt", "two.txt");
    assert_eq!(talk.prompt("p-2", &second, "queue")["applied"], true);
    leaves_and_waits(&talk);
    assert_eq!(talk.prompt("p-3", "!recall\n!quoted", "queue")["applied"], true);
    assert_eq!(saved_files(&world), Vec::<PathBuf>::new());
    signal(&one.process.0, "TERM");
    let suspended = talk.first("the suspension", |data| data["event"] == "suspended");
    assert_eq!(suspended["queued"], true, "{suspended}");
    let saved = &suspended["resume"]["saved"];
    assert_eq!(saved["agent"], "scripted", "{suspended}");
    let name = saved["name"].as_str().unwrap();
    assert!(
        name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()),
        "{name}"
    );
    assert_eq!(one.wait(), 0);
    let files = saved_files(&world);
    assert_eq!(files.len(), 1, "{files:?}");
    let shown = files[0].file_name().unwrap().to_str().unwrap();
    assert!(shown.starts_with(&talk.session) && shown.contains(name), "{shown}");
    assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!one.log().contains(name), "its name is in the log");

    let two = one.beside(&world, "two");
    talk.first("the turn of the second worker", |data| {
        data["event"] == "turn_ended" && data["attempt"] == 2
    });
    assert_remembered(&talk);
    let said = said(&talk, 2);
    assert!(
        said.contains("recall: asked !shell test -e two.txt"),
        "the interrupted turn is remembered too: {said}"
    );
    assert_eq!(saved_files(&world), Vec::<PathBuf>::new(), "it is used once");
    talk.say("e-1", json!({"kind": "end", "publish": true}));
    assert_eq!(outcome(&talk.events)["reason"], "published", "{}", two.log());
    assert!(!two.log().contains(name), "its name is in the log");
    world.assert_clean();
}

#[test]
fn a_resting_session_wakes_with_what_the_agent_itself_remembers() {
    let world = World::new();
    let daemon = Daemon::start(&world, &saving(&world, "yes", ""));
    let (task, warning) = resting(&world, &daemon, FIRST);
    assert_eq!(warning, json!([]));
    assert_eq!(saved_files(&world).len(), 1);
    let talk = Talk::begin(&world, &daemon, &task);
    assert_eq!(outcome(&talk.events)["reason"], "published", "{}", daemon.log());
    assert_remembered(&talk);
    assert_eq!(talk.commits(), ["Second", "First"]);
    assert_eq!(saved_files(&world), Vec::<PathBuf>::new());
    world.assert_clean();
}

#[test]
fn without_the_file_the_agent_is_told_the_conversation() {
    let world = World::new();
    let daemon = Daemon::start(&world, &saving(&world, "yes", ""));
    let (task, _) = resting(&world, &daemon, FIRST);
    std::fs::remove_dir_all(states(&world)).unwrap();
    let talk = Talk::begin(&world, &daemon, &task);
    assert_eq!(outcome(&talk.events)["reason"], "published", "{}", daemon.log());
    assert_told(&talk, "not in this worker's session.saved_states");
    assert_eq!(talk.commits(), ["Second", "First"]);
}

#[test]
fn a_file_that_is_no_archive_is_of_no_use_and_does_no_harm() {
    let world = World::new();
    let daemon = Daemon::start(&world, &saving(&world, "yes", ""));
    let (task, _) = resting(&world, &daemon, FIRST);
    std::fs::write(&saved_files(&world)[0], "this is no archive ".repeat(1000)).unwrap();
    let talk = Talk::begin(&world, &daemon, &task);
    assert_eq!(outcome(&talk.events)["reason"], "published", "{}", daemon.log());
    assert_told(&talk, "tar in the sandbox ended with status");
    assert_eq!(saved_files(&world), Vec::<PathBuf>::new());
}

#[test]
fn an_agent_that_refuses_to_load_or_never_answers_is_told_the_conversation() {
    for (loads, why) in [("refuse", "cannot be loaded"), ("hang", "start_timeout_s")] {
        let world = World::new();
        let daemon = Daemon::start(
            &world,
            &saving(&world, loads, &format!("start_timeout_s = {}", 6 * slowness())),
        );
        let (task, _) = resting(&world, &daemon, FIRST);
        assert_eq!(saved_files(&world).len(), 1);
        let talk = Talk::begin(&world, &daemon, &task);
        assert_eq!(outcome(&talk.events)["reason"], "published", "{}", daemon.log());
        assert_told(&talk, why);
        assert_eq!(saved_files(&world), Vec::<PathBuf>::new());
        world.assert_clean();
    }
}

#[test]
fn a_memory_that_is_too_large_is_not_saved_and_the_session_rests_all_the_same() {
    let world = World::new();
    let daemon = Daemon::start(&world, &(saving(&world, "yes", "") + "most_saved_state = 20000"));
    let prompt = format!("{FIRST}\n!shell mkdir -p ~/.scripted && head -c 2000000 /dev/zero > ~/.scripted/big");
    let (mut task, warning) = resting(&world, &daemon, &prompt);
    assert!(
        warning[0].as_str().unwrap().contains("session.most_saved_state"),
        "{warning}"
    );
    assert!(task["resume"].get("saved").is_none(), "{task}");
    assert_eq!(saved_files(&world), Vec::<PathBuf>::new());
    // Whoever makes a name up reaches nothing, and a path is no name.
    task["resume"]["saved"] =
        json!({"name": "../../etc/passwd", "session": "s", "agent": "scripted", "directory": "/workspace"});
    let ran = daemon.submit(&world, &task);
    assert!(
        ran.exit != 0 && ran.stderr.contains("resume.saved.name"),
        "{}",
        ran.stderr
    );
    task["resume"]["saved"]["name"] = json!("0".repeat(64));
    let talk = Talk::begin(&world, &daemon, &task);
    assert_eq!(outcome(&talk.events)["reason"], "published", "{}", daemon.log());
    assert_told(&talk, "not in this worker's session.saved_states");
}

#[test]
fn what_nobody_asks_for_is_removed_when_its_session_or_its_time_is_over() {
    let world = World::new();
    let config = saving(&world, "yes", "");
    let mut daemon = Daemon::start(&world, &config);
    let (mut task, _) = resting(&world, &daemon, FIRST);
    let files = saved_files(&world);
    assert_eq!(files.len(), 1);
    // Another session's is left alone when this one ends.
    let digits = "0".repeat(64);
    let other = states(&world).join(format!("{}.{digits}.state", uuid::Uuid::new_v4()));
    std::fs::write(&other, "x").unwrap();
    task["connections"]["lab"]["credential"] = json!({"env": "COFFERDAM_TOKEN_NOBODY"});
    let talk = Talk::begin(&world, &daemon, &task);
    assert_eq!(
        outcome(&talk.events)["reason"],
        "credential_missing",
        "{}",
        daemon.log()
    );
    until(Duration::from_secs(20), "the end of the state", || {
        (saved_files(&world) == [other.clone()]).then_some(())
    });
    signal(&daemon.process.0, "TERM");
    daemon.wait();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    let file = std::fs::File::options().write(true).open(&other).unwrap();
    file.set_modified(long_ago).unwrap();
    let _again = daemon.again(&world);
    until(Duration::from_secs(40), "the end of the old state", || {
        saved_files(&world).is_empty().then_some(())
    });
}
