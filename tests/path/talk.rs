//! A session and whoever talks to it: control messages, their answers, and what the events say.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{LAB, Process, World, until};
use crate::kit::{Amqp, Daemon};

pub(crate) struct Talk<'a> {
    world: &'a World,
    pub(crate) amqp: Amqp,
    inbox: String,
    pub(crate) session: String,
    pub(crate) events: PathBuf,
    _following: Process,
}

impl<'a> Talk<'a> {
    pub(crate) fn begin(world: &'a World, daemon: &Daemon, task: &Value) -> Self {
        let (following, events) = daemon.submit_aside(world, task);
        Self {
            world,
            amqp: Amqp::open(),
            inbox: format!("{}.session.in", daemon.prefix),
            session: task["session"].as_str().unwrap().to_owned(),
            events,
            _following: following,
        }
    }

    /// Sends a control message; says whether anybody holds it.
    pub(crate) fn send(&self, control: &Value) -> bool {
        self.amqp
            .publish(&self.inbox, &self.session, control.to_string().as_bytes())
    }

    /// Sends one of this kind.
    pub(crate) fn post(&self, id: &str, kind: Value) {
        let mut control = kind;
        control["version"] = json!(1);
        control["id"] = json!(id);
        assert!(self.send(&control), "nobody holds {control}");
    }

    /// The first answer to it.
    pub(crate) fn answer(&self, id: &str) -> Value {
        self.first(&format!("the answer to {id}"), |data| {
            data["event"] == "control_answered" && data["in_reply_to"] == id
        })
    }

    /// Sends one and waits for its answer.
    pub(crate) fn say(&self, id: &str, kind: Value) -> Value {
        self.post(id, kind);
        self.answer(id)
    }

    /// Sends one that is applied; the sentence of the answer.
    pub(crate) fn applied(&self, id: &str, kind: Value) -> String {
        let answer = self.say(id, kind);
        assert_eq!(answer["applied"], true, "{answer}");
        answer["message"].as_str().unwrap().to_owned()
    }

    /// Sends one that is refused; the sentence of the refusal.
    pub(crate) fn refused(&self, id: &str, kind: Value) -> String {
        let answer = self.say(id, kind);
        assert_eq!(answer["applied"], false, "{answer}");
        answer["message"].as_str().unwrap().to_owned()
    }

    pub(crate) fn prompt(&self, id: &str, text: &str, mode: &str) -> Value {
        self.say(id, json!({"kind": "prompt", "text": text, "mode": mode}))
    }

    /// A prompt that waits for its turn.
    pub(crate) fn ask(&self, id: &str, text: &str) {
        self.applied(id, json!({"kind": "prompt", "text": text}));
    }

    pub(crate) fn all(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.events).unwrap();
        let read = |line: &str| serde_json::from_str::<Value>(line).ok();
        text.lines()
            .filter_map(read)
            .map(|event| event["data"].clone())
            .collect()
    }

    pub(crate) fn of(&self, kind: &str) -> Vec<Value> {
        self.all().into_iter().filter(|data| data["event"] == kind).collect()
    }

    pub(crate) fn first(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        until(Duration::from_secs(60), what, || {
            self.all().into_iter().find(|data| is_it(data))
        })
    }

    /// Waits for the end of a turn.
    pub(crate) fn turn_ended(&self, turn: u32) -> Value {
        self.first(&format!("the end of turn {turn}"), |data| {
            data["event"] == "turn_ended" && data["turn"] == turn
        })
    }

    pub(crate) fn turns(&self) -> Vec<u64> {
        let started = self.of("turn_started");
        started.iter().map(|data| data["turn"].as_u64().unwrap()).collect()
    }

    /// Everything that the agent said, joined.
    pub(crate) fn said(&self) -> String {
        let said = self.of("agent_message");
        said.iter().map(|data| data["text"].as_str().unwrap()).collect()
    }

    /// How a command of the agent's ended.
    pub(crate) fn ran(&self, command: &str) -> String {
        let ended = self.first(command, |data| {
            data["event"] == "agent_tool"
                && data["title"].as_str().is_some_and(|title| title.contains(command))
                && ["completed", "failed"].contains(&data["status"].as_str().unwrap_or_default())
        });
        ended["status"].as_str().unwrap().to_owned()
    }

    /// The one merge request of the GitLab project.
    pub(crate) fn request(&self) -> Value {
        let requests = self.world.project(LAB)["change_requests"].clone();
        assert_eq!(requests.as_array().unwrap().len(), 1, "{requests}");
        requests[0].clone()
    }

    /// The subjects on the session's branch there, newest first.
    pub(crate) fn commits(&self) -> Vec<String> {
        let branch = self.request()["source"].as_str().unwrap().to_owned();
        let commits = self
            .world
            .commits("/gitlab/platform/tools/greeter.git", "test-gitlab-api", &branch);
        let subject = |text: &String| text.lines().nth(2).unwrap().to_owned();
        commits.iter().map(subject).collect()
    }

    /// What the worker's disk has of the session's projects, by number.
    pub(crate) fn staged(&self) -> Vec<String> {
        let directory = self.world.state_dir().join("sessions").join(&self.session);
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}
