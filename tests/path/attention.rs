//! Questions of an agent to people: asked with a deadline and a default, answered once, cancelled with their turn, bounded in number. The slot of
//! a session that waits is another's meanwhile, and nothing is lost by it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{LAB, Process, Ran, World, signal, until};
use crate::kit::{Amqp, Daemon, outcome, wait_for};

/// A session and the people around it.
struct Desk {
    amqp: Amqp,
    inbox: String,
    session: String,
    events: PathBuf,
    _following: Process,
}

impl Desk {
    fn begin(world: &World, daemon: &Daemon, task: &Value) -> Self {
        let (following, events) = daemon.submit_aside(world, task);
        Self {
            amqp: Amqp::open(),
            inbox: format!("{}.session.in", daemon.prefix),
            session: task["session"].as_str().unwrap().to_owned(),
            events,
            _following: following,
        }
    }

    fn all(&self, kind: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.events).unwrap();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .map(|event| event["data"].clone())
            .filter(|data| data["event"] == kind)
            .collect()
    }

    /// Waits for an event of that kind.
    fn nth(&self, kind: &str, number: usize) -> Value {
        until(Duration::from_secs(60), kind, || self.all(kind).get(number).cloned())
    }

    /// Sends a control message and waits for its answer.
    fn send(&self, fields: Value) -> Value {
        let id = uuid::Uuid::new_v4().to_string();
        let mut control = fields;
        control["version"] = json!(1);
        control["id"] = json!(id);
        let body = control.to_string();
        assert!(
            self.amqp.publish(&self.inbox, &self.session, body.as_bytes()),
            "nobody holds {control}"
        );
        until(Duration::from_secs(60), "the answer", || {
            let answers = self.all("control_answered");
            answers.into_iter().find(|data| data["in_reply_to"] == id.as_str())
        })
    }

    fn answer(&self, question: &str, option: &str) -> Value {
        self.send(json!({"kind": "answer", "question": question, "option": option}))
    }

    fn said(&self) -> String {
        let said = self.all("agent_message");
        said.iter().map(|data| data["text"].as_str().unwrap()).collect()
    }
}

fn id_of(attention: &Value) -> &str {
    attention["question"]["id"].as_str().unwrap()
}

fn assert_refused(answer: &Value, words: &str) {
    assert_eq!(answer["applied"], false, "{answer}");
    assert!(
        answer["message"].as_str().unwrap().contains(words),
        "{words:?} in {answer}"
    );
}

const ASK: &str = "permissions = \"ask\"\n[session]\ngrace_s = 2\n";

#[test]
fn a_person_answers_once_and_the_turns_time_stands_meanwhile() {
    let world = World::new();
    let daemon = Daemon::start(&world, &format!("{ASK}answer_wait_s = 300"));
    let mut task = world.lab_task(
        "!permitted run the migration\n!write a.txt b\n!commit . Migrate\n!permitted and again\n!write b.txt b",
    );
    // Neither limit would let anybody think.
    task["limits"] = json!({"turn_s": 12, "idle_s": 8});
    let desk = Desk::begin(&world, &daemon, &task);
    let attention = desk.nth("needs_attention", 0);
    assert_eq!(
        (&attention["reason"], &attention["default"], &attention["wait_s"]),
        (&json!("permission_asked"), &json!("refused"), &json!(300)),
        "{attention}"
    );
    assert!(attention.get("project").is_none(), "{attention}");
    assert!(
        attention["message"].as_str().unwrap().contains("run the migration"),
        "{attention}"
    );
    let question = &attention["question"];
    assert!(
        question["detail"].as_str().unwrap().contains("run the migration"),
        "{question}"
    );
    let options = question["options"].as_array().unwrap();
    assert_eq!(options.len(), 4);
    // The agent's own ids are not shown: they mean nothing.
    assert_eq!(
        (&options[1]["id"], &options[1]["kind"]),
        (&json!("2"), &json!("allow_once")),
        "{question}"
    );
    let id = id_of(&attention);
    assert_refused(&desk.answer("q-000000000000", "2"), "no such question");
    assert_refused(&desk.answer(id, "allow"), "2 (allow_once)");
    assert_refused(
        &desk.send(json!({"kind": "answer", "connection": "lab", "path": LAB, "publish": true})),
        "waits for no answer",
    );
    // Longer than silence and the turn may last.
    let asked = Instant::now();
    until(Duration::from_secs(40), "time to pass", || {
        (asked.elapsed() > Duration::from_secs(15)).then_some(())
    });
    assert!(desk.all("turn_ended").is_empty() && desk.all("agent_permission").is_empty());
    let answer = desk.answer(id, "2");
    assert_eq!(answer["applied"], true, "{answer}");
    let decided = desk.nth("agent_permission", 0);
    assert_eq!(
        (&decided["answer"], &decided["by"], &decided["question"]),
        (&json!("allow_once"), &json!("answer"), &json!(id)),
        "{decided}"
    );
    assert_refused(&desk.answer(id, "3"), "the first answer counts");
    // Where one option alone has it, the kind does as well.
    let again = desk.nth("needs_attention", 1);
    assert_ne!(id_of(&again), id);
    assert_eq!(desk.answer(id_of(&again), "reject_always")["applied"], true);
    let outcome = outcome(&desk.events);
    assert_eq!(outcome["reason"], "published", "{outcome}");
    let said = desk.said();
    assert!(
        said.contains("run the migration: selected allow_once") && said.contains("again: selected reject_always"),
        "{said}"
    );
    let branch = outcome["projects"][0]["branch"].as_str().unwrap();
    let commits = world.commits("/gitlab/platform/tools/greeter.git", "test-gitlab-api", branch);
    assert_eq!(commits.len(), 1, "what was refused was not done: {commits:?}");
    world.assert_clean();
}

#[test]
fn a_question_that_nobody_answers_is_refused_and_the_turn_goes_on() {
    let world = World::new();
    let daemon = Daemon::start(&world, &format!("{ASK}answer_wait_s = 2"));
    let task = world.lab_task("!permission one\n!write a.txt b\n!say went on\n!plan wait\n!hang");
    let desk = Desk::begin(&world, &daemon, &task);
    let attention = desk.nth("needs_attention", 0);
    let decided = desk.nth("agent_permission", 0);
    assert_eq!(
        (&decided["answer"], &decided["by"]),
        (&json!("reject_once"), &json!("deadline")),
        "{decided}"
    );
    assert_refused(&desk.answer(id_of(&attention), "2"), "nobody answered in time");
    wait_for(&desk.events, "went on");
    assert_eq!(desk.send(json!({"kind": "cancel_turn"}))["applied"], true);
    assert_eq!(outcome(&desk.events)["reason"], "published");
    assert!(desk.said().contains("one: selected reject_once"), "{}", desk.said());
}

#[test]
fn without_that_setting_nobody_is_asked() {
    let world = World::new();
    let ran = world.exec(&world.lab_task("!permitted one\n!write a.txt b"));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    assert!(ran.all("needs_attention").is_empty());
    assert_eq!(ran.all("agent_permission")[0]["by"], "policy");
}

#[test]
fn whatever_stops_the_turn_cancels_its_question() {
    let world = World::new();
    let daemon = Daemon::start(&world, &format!("{ASK}answer_wait_s = 300"));
    for (control, reason) in [
        (json!({"kind": "cancel_turn"}), "published"),
        (json!({"kind": "end", "publish": true}), "published"),
        (json!({"kind": "end", "publish": false}), "cancelled"),
        (
            json!({"kind": "prompt", "text": "!write c.txt b", "mode": "steer"}),
            "published",
        ),
    ] {
        let task = world.lab_task("!write a.txt b\n!commit . One\n!permission the rest\n!write b.txt b");
        let desk = Desk::begin(&world, &daemon, &task);
        let attention = desk.nth("needs_attention", 0);
        let answer = desk.send(control.clone());
        assert_eq!(answer["applied"], true, "{answer}");
        let outcome = outcome(&desk.events);
        assert_eq!(outcome["reason"], reason, "{control} {outcome}");
        // The agent was told so, as its protocol wants it, and so were we.
        assert!(desk.said().contains("the rest: cancelled"), "{control} {}", desk.said());
        let decided = &desk.all("agent_permission")[0];
        assert_eq!(
            (&decided["answer"], &decided["by"], &decided["question"]),
            (&json!("cancelled"), &json!("end"), &attention["question"]["id"]),
            "{control} {decided}"
        );
        world.assert_clean();
    }
}

#[test]
fn a_worker_that_stops_hands_a_session_on_that_waits_for_a_person() {
    let world = World::new().variable("COFFERDAM__DRAIN_S", "0");
    let mut one = Daemon::start(&world, &format!("{ASK}answer_wait_s = 300"));
    let task = world.lab_task("!write a.txt b\n!commit . One\n!permitted the rest\n!write b.txt b");
    let desk = Desk::begin(&world, &one, &task);
    let first = desk.nth("needs_attention", 0);
    signal(&one.process.0, "TERM");
    let suspended = desk.nth("suspended", 0);
    assert_eq!(suspended["queued"], true, "{suspended}");
    assert_eq!(suspended["projects"][0]["reason"], "published", "{suspended}");
    assert_eq!(one.wait(), 0);
    let two = one.beside(&world, "two");
    // It asks anew, and an answer to the old question is not taken for one to the new.
    let second = desk.nth("needs_attention", 1);
    assert_eq!(second["attempt"], 2, "{}", two.log());
    assert_refused(&desk.answer(id_of(&first), "2"), "no such question");
    assert_eq!(desk.answer(id_of(&second), "allow_once")["applied"], true);
    let outcome = outcome(&desk.events);
    assert_eq!(outcome["reason"], "published", "{outcome}");
    let requests = world.project(LAB)["change_requests"].clone();
    assert_eq!(requests.as_array().unwrap().len(), 1, "{requests}");
}

#[test]
fn many_questions_at_once_are_bounded_and_so_are_many_in_a_row() {
    let world = World::new();
    let daemon = Daemon::start(&world, &format!("{ASK}answer_wait_s = 2"));
    let in_a_row = "!permission again\n".repeat(3);
    let task = world.lab_task(&format!("!permissions 40\n{in_a_row}!write a.txt b"));
    let desk = Desk::begin(&world, &daemon, &task);
    let outcome = outcome(&desk.events);
    assert_eq!(outcome["reason"], "published", "{outcome}");
    let said = desk.said();
    assert!(said.contains("permissions: 40 selected reject_once"), "{said}");
    let asked = desk.all("needs_attention");
    assert_eq!(asked.len(), 8 + 3, "{asked:?}");
    let decided = desk.all("agent_permission");
    let by = |word: &str| decided.iter().filter(|data| data["by"] == word).count();
    assert_eq!((by("bound"), by("deadline")), (32, 11), "{decided:?}");
}

#[test]
fn a_hostile_question_is_cut_and_holds_no_secret() {
    let world = World::new();
    let daemon = Daemon::start(&world, &format!("{ASK}answer_wait_s = 1"));
    // In the agent's own stream: the shell's parent is the agent. The token stands where texts are cut.
    let option = |n: &str| format!(r#"{{\"optionId\":\"{n}\",\"name\":\"$NAME\",\"kind\":\"allow_once\"}}"#);
    let options = vec![option("x"); 40].join(",");
    let request = format!(
        r#"{{\"jsonrpc\":\"2.0\",\"id\":900,\"method\":\"session/request_permission\",\"params\":{{\"sessionId\":\"s\",\"options\":[{options}],\"toolCall\":{{\"toolCallId\":\"t\",\"title\":\"$NAME\",\"rawInput\":{{\"command\":\"$LONG\"}}}}}}}}"#
    );
    let prompt = format!(
        "!shell NAME=$(printf '%0193d' 0)$(printf %s%s test-git lab-api); LONG=$(printf '%03788d' 0)$NAME$(printf '%099999d' 0); printf '%s\\n' \"{request}\" >/proc/$PPID/fd/1\n!sleep 2500\n!write a.txt b"
    );
    let mut task = world.lab_task(&prompt);
    task["title"] = json!("Work");
    let desk = Desk::begin(&world, &daemon, &task);
    let attention = desk.nth("needs_attention", 0);
    let options = attention["question"]["options"].as_array().unwrap();
    assert_eq!(options.len(), 16);
    let name = options[0]["name"].as_str().unwrap();
    assert!(name.len() < 220 && name.ends_with("[cut]"), "{name}");
    assert!(attention["question"]["detail"].as_str().unwrap().len() < 4100);
    let told = std::fs::read_to_string(&desk.events).unwrap();
    assert!(!told.contains("00test-gi"), "half of a token is told");
    // All have that kind, so only an id tells them apart.
    assert_eq!(outcome(&desk.events)["reason"], "published");
}

#[test]
fn a_question_is_answered_from_a_terminal() {
    let world = World::new();
    let daemon = Daemon::start(&world, &format!("{ASK}answer_wait_s = 300\nci_files = \"hold\""));
    let task = world.lab_task("!permitted the rest\n!write .gitlab-ci.yml job: {}");
    let session = task["session"].as_str().unwrap().to_owned();
    let desk = Desk::begin(&world, &daemon, &task);
    let attention = desk.nth("needs_attention", 0);
    let ran = |words: &[&str]| Ran::of(daemon.command(&world, words));
    for wrong in [
        &["answer", &session][..],
        &["answer", &session, "q-1"],
        &["answer", &session, "--project", LAB, "--connection", "lab"],
        &[
            "answer",
            &session,
            "q-1",
            "2",
            "--project",
            LAB,
            "--connection",
            "lab",
            "--keep",
        ],
        &[
            "answer",
            &session,
            "--project",
            LAB,
            "--connection",
            "lab",
            "--keep",
            "--publish",
        ],
    ] {
        assert_eq!(ran(wrong).exit, 2, "{wrong:?}");
    }
    let refused = ran(&["answer", &session, "q-1", "2"]);
    assert_eq!(refused.exit, 1);
    assert!(refused.stderr.contains("no such question"), "{}", refused.stderr);
    let answered = ran(&["answer", &session, id_of(&attention), "allow_once"]);
    assert_eq!(answered.exit, 0, "{}", answered.stderr);
    assert!(answered.stdout.contains("answered allow_once"), "{}", answered.stdout);
    let held = desk.nth("needs_attention", 1);
    assert_eq!(
        (&held["reason"], &held["default"], &held["project"]["path"]),
        (&json!("review_needed"), &json!("kept"), &json!(LAB)),
        "{held}"
    );
    let released = ran(&["answer", &session, "--project", LAB, "--connection", "lab", "--publish"]);
    assert_eq!(released.exit, 0, "{}", released.stderr);
    assert_eq!(outcome(&desk.events)["reason"], "published");
}

#[test]
fn while_people_think_their_sessions_slot_is_anothers_and_nothing_is_lost() {
    let world = World::new();
    let most = "answer_wait_s = 300\nci_files = \"hold\"\nmost_waiting = 1";
    let daemon = Daemon::start_in(&world, &format!("{ASK}{most}"), &[("COFFERDAM__CONCURRENCY", "1")]);
    let first = world
        .lab_task("!write a.txt b\n!commit . One\n!permitted the rest\n!write b.txt b\n!commit . Two\n!sleep 1500");
    let waiting = Desk::begin(&world, &daemon, &first);
    let attention = waiting.nth("needs_attention", 0);
    // Another runs from beginning to end in the only slot.
    let ran = daemon.submit(&world, &world.lab_task("!write other.txt b"));
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    let mut sessions = world.command(&daemon.config);
    sessions.arg("sessions");
    let told = Ran::of(sessions).stdout;
    assert!(told.contains("waits for somebody"), "{told}");
    let metrics = daemon.page("/metrics");
    assert!(
        metrics.contains("\ncofferdam_sessions_waiting{awaits=\"answer\"} 1\n"),
        "{metrics}"
    );
    // A second one that waits has no place beside the first: it keeps the slot, and a third is not taken.
    let held = Desk::begin(&world, &daemon, &world.lab_task("!write .gitlab-ci.yml job: {}"));
    held.nth("needs_attention", 0);
    let third = Desk::begin(&world, &daemon, &world.lab_task("!write third.txt b"));
    let tasks = format!("{}.tasks", daemon.prefix);
    until(Duration::from_secs(20), "the third in the queue", || {
        (third.amqp.count(&tasks) == 1).then_some(())
    });
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(third.amqp.count(&tasks), 1, "it is taken beside two others");
    }
    // The first goes on at once, though no slot is free.
    assert_eq!(waiting.answer(id_of(&attention), "allow_once")["applied"], true);
    let outcome_of_first = outcome(&waiting.events);
    assert_eq!(outcome_of_first["reason"], "published", "{outcome_of_first}");
    assert!(third.all("claimed").is_empty(), "the slot is still the second's");
    let branch = outcome_of_first["projects"][0]["branch"].as_str().unwrap();
    let commits = world.commits("/gitlab/platform/tools/greeter.git", "test-gitlab-api", branch);
    assert_eq!(commits.len(), 2, "{commits:?}");
    let release = json!({"kind": "answer", "connection": "lab", "path": LAB, "publish": true});
    assert_eq!(held.send(release)["applied"], true);
    assert_eq!(outcome(&held.events)["reason"], "published");
    assert_eq!(outcome(&third.events)["reason"], "published");
    let metrics = daemon.page("/metrics");
    assert!(
        metrics.contains("\ncofferdam_sessions_waiting{awaits=\"answer\"} 0\n"),
        "{metrics}"
    );
    world.assert_clean();
}

#[test]
fn a_session_that_waits_for_its_next_prompt_gives_its_slot_away_too() {
    let world = World::with_seed(|seed| format!("{seed}\n[gitlab]\nrate_limit = 2000\n"));
    let daemon = Daemon::start_in(&world, "", &[("COFFERDAM__CONCURRENCY", "1")]);
    let mut task = world.lab_task("!write a.txt b\n!commit . One");
    task["idle_timeout_s"] = json!(300);
    let idle = Desk::begin(&world, &daemon, &task);
    idle.nth("turn_ended", 0);
    let ran = daemon.submit(&world, &world.lab_task("!write other.txt b"));
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    // What that one published is in the mirror, so the next finds nothing new.
    assert_eq!(
        daemon.submit(&world, &world.lab_task("!say hi")).reason(),
        "nothing_to_publish"
    );
    let page = daemon.page("/metrics");
    for line in [
        "cofferdam_sessions_waiting{awaits=\"prompt\"} 1",
        "cofferdam_sessions_waiting{awaits=\"answer\"} 0",
        "cofferdam_mirror_refreshes_total{result=\"made\"} 1",
        "cofferdam_mirror_refreshes_total{result=\"updated\"} 1",
        "cofferdam_mirror_refreshes_total{result=\"hit\"} 1",
    ] {
        assert!(page.lines().any(|told| told == line), "{line} in {page}");
    }
    assert!(
        page.contains("cofferdam_forge_rate_remaining_ratio{forge=\"gitlab\"} "),
        "{page}"
    );
    until(Duration::from_secs(40), "the mirror's size", || {
        let page = daemon.page("/metrics");
        let size = page
            .lines()
            .find_map(|line| line.strip_prefix("cofferdam_mirrors_size_bytes "))?;
        (page.contains("\ncofferdam_mirrors 1\n") && size.parse::<u64>().is_ok_and(|size| size > 1000)).then_some(())
    });
    let prompt = json!({"kind": "prompt", "text": "!write b.txt b\n!commit . Two"});
    assert_eq!(idle.send(prompt)["applied"], true);
    idle.nth("turn_ended", 1);
    wait_for(&idle.events, "change_request_updated");
    assert_eq!(idle.send(json!({"kind": "end"}))["applied"], true);
    assert_eq!(outcome(&idle.events)["reason"], "published");
    world.assert_clean();
}
