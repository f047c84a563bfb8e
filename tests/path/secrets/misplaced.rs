//! Tokens of no known shape in every place where a sender may put one by mistake: none reaches a dead letter, a ticket, an event or the log.

use std::time::Duration;

use serde_json::{Value, json};

use super::hunt::{Canary, assert_none};
use crate::harness::{World, signal, until};
use crate::kit::{Amqp, Daemon, broker};

/// A worker that takes no tokens in clear, and tells all it does.
struct Refusing {
    world: World,
    daemon: Daemon,
    amqp: Amqp,
    events: lapin::Consumer,
}

impl Refusing {
    fn new() -> Self {
        let world = World::new();
        let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
        let tokens = world.directory.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let more = format!("[credentials]\ndirectory = {:?}\n", tokens.to_str().unwrap());
        let daemon = Daemon::begin_logging(&world, &broker(), &prefix, &more, "trace");
        until(Duration::from_secs(30), "readiness", || {
            (daemon.status("/readyz") == 200).then_some(())
        });
        let amqp = Amqp::open();
        let events = amqp.listen(&format!("{prefix}.events"));
        Self {
            world,
            daemon,
            amqp,
            events,
        }
    }

    fn queue(&self, name: &str) -> String {
        format!("{}.{name}", self.daemon.prefix)
    }

    /// Sends it, and searches all that is left of it; the rejection, and the dead letter without zero bytes.
    fn refuse(&mut self, name: &str, body: &[u8], canaries: &[Canary]) -> (Value, String) {
        assert!(self.amqp.publish("", &self.queue("tasks"), body), "{name}");
        self.refused(name, canaries)
    }

    fn refused(&mut self, name: &str, canaries: &[Canary]) -> (Value, String) {
        let event = self.amqp.next(&mut self.events).data;
        assert_none(canaries, &format!("the event of {name}"), &event);
        // Before the ticket, if there is one, goes on to where workers look.
        for queue in ["tickets", "ticket-checks"] {
            assert_eq!(self.amqp.get(&self.queue(queue)), None, "{name}: a ticket");
        }
        let dead = self.queue("dead");
        let (letter, properties) = until(Duration::from_secs(20), "a dead letter", || self.amqp.get(&dead));
        let letter: Vec<u8> = letter.into_iter().filter(|byte| *byte != 0).collect();
        assert_none(canaries, &format!("the dead letter of {name}"), &letter);
        let properties = format!("{properties:?}");
        assert_none(canaries, &format!("the properties of {name}"), properties.as_bytes());
        let event: Value = serde_json::from_slice(&event).unwrap();
        assert_eq!(event["data"]["event"], "rejected", "{name}: {event}");
        (event, String::from_utf8(letter).unwrap())
    }
}

#[test]
fn a_token_of_no_known_shape_is_kept_nowhere_it_was_put_by_mistake() {
    let mut stage = Refusing::new();
    let hex = uuid::Uuid::new_v4().simple().to_string();
    // In small letters: so it is a good name for a file, a connection and a branch.
    let small = Canary::of("opaque token", &format!("opq{}", &hex[..18]));
    let mixed = Canary::of("opaque token of both cases", &format!("Opq7{}Tok", &hex[12..24]));
    let number = Canary::of(
        "token of digits",
        &format!("70{:014}", u64::from(uuid::Uuid::new_v4().as_fields().0)),
    );
    let all = [small.clone(), mixed.clone(), number.clone()];
    for token in [&small.value, &mixed.value] {
        let good = stage.world.lab_task("!say hi");
        let at = |pointer: &str, value: Value| {
            let mut task = good.clone();
            *task.pointer_mut(pointer).unwrap() = value;
            task
        };
        // Well formed but for a word that no task has.
        let unknown = |pointer: &str, value: Value| {
            let mut task = at(pointer, value);
            task["projekts"] = json!([]);
            task.to_string().into_bytes()
        };
        let beside = |name: &str, value: Value| {
            let mut task = good.clone();
            task["connections"]["lab"][name] = value;
            task.to_string().into_bytes()
        };
        let top = |name: &str, value: Value| {
            let mut task = good.clone();
            task[name] = value;
            task.to_string().into_bytes()
        };
        let credential = "/connections/lab/credential";
        let url = "/connections/lab/url";
        let session = good["session"].as_str().unwrap();
        let plain = at(credential, json!({"plain": token})).to_string();
        let twice = plain.replace("\"credential\":", "\"credential\":{\"file\":\"x\"},\"credential\":");
        let cases: Vec<(&str, Vec<u8>)> = vec![
            (
                "python",
                format!(
                    "{{'session': '{session}', 'connections': {{'lab': {{'credential': {{'plain': '{token}'}}}}}}}}"
                )
                .into(),
            ),
            ("twice", twice.into()),
            (
                "cut",
                plain.as_bytes()[..plain.find(token.as_str()).unwrap() + token.len()].to_vec(),
            ),
            ("utf-16", plain.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            (
                "deep",
                format!("{}\"{token}\"{}", "[".repeat(300), "]".repeat(300)).into(),
            ),
            ("alone", token.clone().into()),
            ("a text", format!("{token:?}").into()),
            ("beside", beside("token", json!(token))),
            ("Credential.Plain", beside("Credential", json!({"Plain": token}))),
            ("credential.Plain", unknown(credential, json!({"Plain": token}))),
            ("credentials.token", top("credentials", json!({"token": token}))),
            (
                "user in the url",
                unknown(url, json!(format!("https://oauth2:{token}@127.0.0.1/gitlab"))),
            ),
            (
                "query of the url",
                unknown(url, json!(format!("https://127.0.0.1/gitlab?private_token={token}"))),
            ),
            ("host of the url", unknown(url, json!(format!("https://{token}")))),
            ("file", unknown(credential, json!({"file": token}))),
            ("env", unknown(credential, json!({"env": token}))),
            ("sealed", unknown(credential, json!({"sealed": token}))),
            ("credential", at(credential, json!(token)).to_string().into()),
            ("connection", at("/connections/lab", json!(token)).to_string().into()),
            ("connections", at("/connections", json!(token)).to_string().into()),
            ("forge", at("/connections/lab/forge", json!(token)).to_string().into()),
            ("version", at("/version", json!(token)).to_string().into()),
            (
                "connection's name",
                unknown("/connections", json!({token.as_str(): good["connections"]["lab"]})),
            ),
            ("project's connection", unknown("/projects/0/connection", json!(token))),
            ("path", at("/projects/0/path", json!(token)).to_string().into()),
            ("a field's name", top(token, json!(1))),
            ("a field's name in a connection", beside(token, json!(1))),
            ("agent", {
                let mut task = good.clone();
                task["agent"] = json!(token);
                task["projekts"] = json!([]);
                task.to_string().into()
            }),
            ("environment", {
                let mut task = good.clone();
                task["environment"] = json!({"TOKEN": token, token.as_str(): "x"});
                task["projekts"] = json!([]);
                task.to_string().into()
            }),
            (
                "a number",
                unknown(credential, json!({"plain": number.value.parse::<u64>().unwrap()})),
            ),
            (
                "a number as version",
                at("/version", json!(number.value.parse::<u64>().unwrap()))
                    .to_string()
                    .into(),
            ),
        ];
        for (name, body) in cases {
            let (event, letter) = stage.refuse(name, &body, &all);
            if matches!(name, "python" | "twice" | "cut") {
                assert!(
                    letter.contains("not_kept") && letter.contains(session),
                    "{name}: {letter}"
                );
            }
            if name == "twice" {
                assert_eq!(event["data"]["code"], "not_json", "{event}");
            }
        }
    }
    let token = &mixed.value;
    let mut headers = lapin::types::FieldTable::default();
    headers.insert(
        token.as_str().into(),
        lapin::types::AMQPValue::LongString(token.as_str().into()),
    );
    let properties = lapin::BasicProperties::default()
        .with_message_id(token.as_str().into())
        .with_content_type(token.as_str().into())
        .with_correlation_id(token.as_str().into())
        .with_reply_to(token.as_str().into())
        .with_type(token.as_str().into())
        .with_headers(headers);
    let tasks = stage.queue("tasks");
    assert!(stage.amqp.publish_with("", &tasks, b"{}", properties));
    stage.refused("the message's properties", &all);
    assert_none(&all, "the log", stage.daemon.log().as_bytes());
}

#[test]
fn a_token_in_clear_that_is_not_allowed_is_refused_before_anything_is_laid_down_at_the_broker_again() {
    let mut stage = Refusing::new();
    let hex = uuid::Uuid::new_v4().simple().to_string();
    let canary = Canary::of("opaque token", &format!("opq{}", &hex[..18]));
    let mut task = stage.world.lab_task("!say hi");
    task["connections"]["lab"]["credential"] = json!({"plain": canary.value});
    let all = [canary];
    let (event, letter) = stage.refuse("plain", task.to_string().as_bytes(), &all);
    assert_eq!(event["data"]["code"], "credential_refused", "{event}");
    assert_eq!(event["data"]["session"], task["session"]);
    let message = event["data"]["message"].as_str().unwrap();
    assert!(message.contains("allow_plain"), "{message}");
    let kept: Value = serde_json::from_str(&letter).unwrap();
    assert_eq!(kept["session"], task["session"]);
    assert_eq!(kept["prompt"], task["prompt"]);
    assert_eq!(kept["connections"]["lab"]["credential"], json!({"plain": "[MASKED]"}));
    // No session of that id was begun: with a sealed or named credential the same id is good.
    task["connections"]["lab"]["credential"] = json!({"env": "COFFERDAM_TOKEN_LAB"});
    assert_eq!(stage.daemon.submit(&stage.world, &task).reason(), "nothing_to_publish");
    assert_none(&all, "the log", stage.daemon.log().as_bytes());
}

#[test]
fn a_token_in_clear_is_refused_on_its_second_delivery_too() {
    let mut stage = Refusing::new();
    let hex = uuid::Uuid::new_v4().simple().to_string();
    let all = [Canary::of("opaque token", &format!("opq{}", &hex[..18]))];
    let mut task = stage.world.lab_task("!say hi");
    task["connections"]["lab"]["credential"] = json!({"plain": all[0].value});
    signal(&stage.daemon.process.0, "TERM");
    assert_eq!(stage.daemon.wait(), 0);
    let tasks = stage.queue("tasks");
    assert!(stage.amqp.publish("", &tasks, task.to_string().as_bytes()));
    stage.amqp.give_back(&tasks);
    stage.daemon = stage.daemon.beside_logging(&stage.world, "second", "trace");
    let (event, _) = stage.refused("plain", &all);
    assert_eq!(
        (&event["data"]["code"], &event["data"]["attempt"]),
        (&json!("credential_refused"), &json!(2)),
        "{event}"
    );
    let page = stage.daemon.page("/metrics");
    assert!(page.contains("\ncofferdam_amqp_redeliveries_total 1\n"), "{page}");
}

#[test]
fn a_token_in_place_of_a_name_is_not_repeated_by_the_refusal() {
    let world = World::new();
    let hex = uuid::Uuid::new_v4().simple().to_string();
    let canary = Canary::of("opaque token", &format!("opq{}", &hex[..18]));
    let token = &canary.value;
    let tokens = world.directory.path().join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let directory = format!("[credentials]\ndirectory = {:?}\n", tokens.to_str().unwrap());
    for (more, credential, reason) in [
        ("", json!({"env": token}), "credential_refused"),
        (
            "",
            json!({"env": format!("COFFERDAM_TOKEN_{token}")}),
            "credential_missing",
        ),
        ("", json!({"file": token}), "credential_refused"),
        (&directory, json!({"file": token}), "credential_missing"),
        (&directory, json!({"file": format!("{token}/x")}), "credential_refused"),
        ("", json!({"sealed": token}), "credential_refused"),
    ] {
        let mut task = world.lab_task("!say hi");
        task["connections"]["lab"]["credential"] = credential;
        let ran = world.exec_with(more, &task);
        assert_eq!(ran.reason(), reason, "{}", ran.outcome());
        assert_none(std::slice::from_ref(&canary), "the events", ran.stdout.as_bytes());
        assert_none(std::slice::from_ref(&canary), "the log", ran.stderr.as_bytes());
    }
    // And in the worker's own configuration.
    for more in [
        format!("[connections.lab]\nforge = \"gitlab\"\ncredential = \"{token}\""),
        format!("[connections.lab]\nforge = \"gitlab\"\ncredential = {{ plain = \"{token}\""),
        format!("[connections.lab]\nforge = \"{token}\"\ncredential = {{ file = \"x\" }}"),
    ] {
        let config = world.config(&more);
        let mut command = world.command(&config);
        command.args(["config", "check"]);
        let ran = crate::harness::Ran::of(command);
        assert_eq!(ran.exit, 78, "{}", ran.stderr);
        assert_none(std::slice::from_ref(&canary), "the complaint", ran.stderr.as_bytes());
    }
}
