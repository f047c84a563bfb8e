//! A running `cofferdam` and what it told: events, exit code, standard error.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::{LONGEST, text};

/// A program on its way; killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    errors: JoinHandle<String>,
    ran: Ran,
    started: Instant,
}

impl Running {
    /// Starts a program that prints an event per line.
    pub(crate) fn spawn(mut command: Command, session: &str) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut errors = child.stderr.take().unwrap();
        let errors = tokio::spawn(async move {
            let mut text = Vec::new();
            drop(errors.read_to_end(&mut text).await);
            String::from_utf8_lossy(&text).into_owned()
        });
        let ran = Ran {
            session: session.to_owned(),
            exit: -1,
            events: Vec::new(),
            other: Vec::new(),
            stderr: String::new(),
            elapsed: Duration::ZERO,
        };
        Self {
            child,
            lines,
            errors,
            ran,
            started: Instant::now(),
        }
    }

    /// The program's process id, while it runs.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("the program still runs")
    }

    /// Asks it to stop, as a service manager or Ctrl-C would.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.id()).unwrap());
        nix::sys::signal::kill(id, signal).unwrap();
    }

    /// Waits for an event of that kind and returns its data.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        self.until_event(kind, |_| true).await
    }

    /// Waits for an event of that kind that satisfies a condition, and returns its data.
    pub(crate) async fn until_event(&mut self, kind: &str, holds: impl Fn(&Value) -> bool) -> Value {
        while let Some(event) = self.next().await {
            if text(&event["data"], "/event") == kind && holds(&event["data"]) {
                return event["data"].clone();
            }
        }
        panic!("no event {kind} came: {}", self.ran.story());
    }

    async fn next(&mut self) -> Option<Value> {
        let left = LONGEST.saturating_sub(self.started.elapsed());
        let line = tokio::time::timeout(left, self.lines.next_line()).await;
        let Ok(line) = line else {
            panic!("the program took too long: {}", self.ran.story());
        };
        let line = line.unwrap()?;
        match serde_json::from_str::<Value>(&line) {
            Ok(event) => {
                self.ran.events.push(event.clone());
                Some(event)
            }
            Err(_) => {
                self.ran.other.push(line);
                Some(Value::Null)
            }
        }
    }

    /// Reads on to the end.
    pub(crate) async fn finish(mut self) -> Ran {
        while self.next().await.is_some() {}
        let status = tokio::time::timeout(LONGEST, self.child.wait()).await;
        let status = status.expect("the program ends after its output").unwrap();
        self.ran.exit = status.code().unwrap_or(-1);
        self.ran.elapsed = self.started.elapsed();
        self.ran.stderr = self.errors.await.unwrap();
        self.ran
    }
}

/// What a program told.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The session.
    pub(crate) session: String,
    /// The exit code; -1 when a signal ended it.
    pub(crate) exit: i32,
    /// Every event, in order.
    pub(crate) events: Vec<Value>,
    /// Lines on standard output that are no events.
    pub(crate) other: Vec<String>,
    /// Standard error.
    pub(crate) stderr: String,
    /// How long it took.
    pub(crate) elapsed: Duration,
}

impl Ran {
    /// The data of every event of a kind.
    pub(crate) fn all(&self, kind: &str) -> Vec<&Value> {
        let data = self.events.iter().map(|event| &event["data"]);
        data.filter(|data| text(data, "/event") == kind).collect()
    }

    /// The data of the first event of a kind.
    #[track_caller]
    pub(crate) fn event(&self, kind: &str) -> &Value {
        match self.all(kind).first() {
            Some(data) => data,
            None => panic!("there is no event {kind}: {}", self.story()),
        }
    }

    /// The outcome of the session.
    #[track_caller]
    pub(crate) fn outcome(&self) -> &Value {
        let all = self.all("finished");
        assert_eq!(all.len(), 1, "a session finishes once: {}", self.story());
        &all[0]["outcome"]
    }

    /// The reason of the outcome.
    #[track_caller]
    pub(crate) fn reason(&self) -> &str {
        text(self.outcome(), "/reason")
    }

    /// The outcome of one project, by `connection` and path.
    #[track_caller]
    pub(crate) fn project(&self, connection: &str, path: &str) -> &Value {
        let projects = self.outcome()["projects"].as_array().unwrap();
        let found = projects
            .iter()
            .find(|one| text(one, "/project/connection") == connection && text(one, "/project/path") == path);
        found.unwrap_or_else(|| panic!("no outcome of {connection}:{path}: {}", self.story()))
    }

    /// Asserts exit code and reason, and returns the message.
    #[track_caller]
    pub(crate) fn ended(&self, exit: i32, reason: &str) -> &str {
        assert_eq!((self.reason(), self.exit), (reason, exit), "{}", self.story());
        text(self.outcome(), "/message")
    }

    /// All that is known, for the message of a failed assertion.
    pub(crate) fn story(&self) -> String {
        let events: Vec<String> = self.events.iter().map(|event| event["data"].to_string()).collect();
        format!(
            "\nexit {}\n{}\n{}\nstderr: {}",
            self.exit,
            events.join("\n"),
            self.other.join("\n"),
            self.stderr
        )
    }
}
