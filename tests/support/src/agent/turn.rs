//! Carries out the directives of one prompt, in order. A directive that fails is told to the client, and the turn goes on, as real
//! agents do; it never ends the process unless the prompt says so.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::directive::Directive;
use super::process::{self, Ended};
use super::report::Report;

const FLOOD_PIECE: usize = 1024;
const FOREVER: Duration = Duration::from_secs(3600);

/// How a turn ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With this stop reason.
    Stopped(String),
    /// Because the client cancelled it.
    Cancelled,
    /// With an error in place of an answer.
    Failed(String),
}

/// One turn under way.
pub(super) struct Turn<'a> {
    /// Where relative paths start.
    pub(super) directory: &'a Path,
    /// Makes tool call ids unlike those of other turns.
    pub(super) number: u64,
    /// Who listens.
    pub(super) report: &'a dyn Report,
}

impl Turn<'_> {
    /// Does it all.
    pub(super) fn run(&self, directives: &[Directive]) -> Ending {
        let mut has_spoken = false;
        for (position, directive) in directives.iter().enumerate() {
            if self.report.cancelled_within(Duration::ZERO) {
                return Ending::Cancelled;
            }
            has_spoken |= matches!(directive, Directive::Say(_));
            let call = format!("call-{}-{}", self.number, position + 1);
            if let Some(ending) = self.step(&call, directive) {
                return ending;
            }
        }
        if self.report.cancelled_within(Duration::ZERO) {
            return Ending::Cancelled;
        }
        if !has_spoken {
            self.report.say("done");
        }
        Ending::Stopped("end_turn".into())
    }

    fn step(&self, call: &str, directive: &Directive) -> Option<Ending> {
        match directive {
            Directive::Write { path, text } => self.write(call, path, text, false),
            Directive::Append { path, text } => self.write(call, path, text, true),
            Directive::FsWrite { path, text } => {
                let answer = self.report.client_write(&self.resolve(path).to_string_lossy(), text);
                self.report.say(&format!("fs/write_text_file: {answer}"));
                self.write(call, path, text, false);
            }
            Directive::Shell(command) => {
                self.command(call, command, || process::shell(command, self.directory, self.report));
            }
            Directive::Commit { directory, message } => {
                let checkout = self.resolve(directory);
                self.command(call, "git commit", || process::commit(&checkout, message, self.report));
            }
            Directive::Tool { name, arguments } => self.tool(call, name, arguments),
            Directive::Tools => self.tools(),
            Directive::Permission(title) => {
                let answer = self.report.permission(call, title);
                self.report.say(&format!("permission {title}: {answer}"));
            }
            Directive::DoublePermission => {
                for time in ["first", "second"] {
                    let answer = self.report.permission(call, "asked twice");
                    self.report.say(&format!("permission, {time} time: {answer}"));
                }
            }
            Directive::Permitted(title) => {
                let answer = self.report.permission(call, title);
                self.report.say(&format!("permission {title}: {answer}"));
                if !answer.starts_with("selected allow") {
                    return Some(Ending::Stopped("end_turn".into()));
                }
            }
            Directive::Permissions(count) => {
                let mut answers = BTreeMap::<String, u64>::new();
                for answer in self.report.permissions(call, *count) {
                    *answers.entry(answer).or_default() += 1;
                }
                let words: Vec<_> = answers.iter().map(|(answer, count)| format!("{count} {answer}")).collect();
                self.report.say(&format!("permissions: {}", words.join(", ")));
            }
            Directive::Next(later) => self.report.later(later),
            Directive::Say(text) => self.report.say(text),
            Directive::Think(text) => self.report.think(text),
            Directive::Plan(steps) => self.report.plan(steps),
            Directive::Sleep(milliseconds) => {
                self.report.cancelled_within(Duration::from_millis(*milliseconds));
            }
            Directive::Hang => while !self.report.cancelled_within(FOREVER) {},
            Directive::HangHard => self.hang_hard(),
            Directive::Fail(message) => return Some(Ending::Failed(message.clone())),
            Directive::Stop(reason) => return Some(Ending::Stopped(reason.clone())),
            Directive::Flood(bytes) => self.flood(*bytes),
            Directive::Stderr(text) => {
                // Nobody may be reading it; the turn goes on all the same.
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            Directive::Exit(code) => die(*code),
            Directive::Garbage => self.report.raw_line("this is not JSON {"),
            Directive::HugeLine(bytes) => self.report.say(&"h".repeat(usize::try_from(*bytes).unwrap_or(usize::MAX))),
            Directive::UnknownUpdate => self.report.raw_update(json!({
                "sessionUpdate": "weather_update", "sky": "grey", "sessionId": "not the real one", "depth": {"of": ["anything", null]},
            })),
            Directive::OrphanUpdate => self.report.raw_update(json!({
                "sessionUpdate": "tool_call_update", "toolCallId": format!("never-announced-{}", self.number), "status": "completed",
            })),
            Directive::Env(name) => {
                let value = std::env::var_os(name);
                let words = value.map_or_else(|| format!("{name} is not set"), |value| format!("{name}={}", value.to_string_lossy()));
                self.report.say(&words);
            }
            Directive::Recall => self.report.say(&self.report.recall()),
            Directive::Quoted => self.report.say(&self.report.quoted()),
            Directive::SpawnDaemon => match process::leave_behind() {
                Ok(id) => self.report.say(&format!("left process {id} behind")),
                Err(failure) => self.report.say(&format!("could not leave a process behind: {failure}")),
            },
        }
        None
    }

    fn resolve(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    fn write(&self, call: &str, path: &str, text: &str, append: bool) {
        let target = self.resolve(path);
        self.report.tool_started(
            call,
            &format!("write {path}"),
            "edit",
            json!({"path": target, "content": text}),
        );
        let written = (|| {
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let mut options = std::fs::OpenOptions::new();
            options.create(true).append(append).write(!append).truncate(!append);
            options.open(&target)?.write_all(text.as_bytes())
        })();
        match written {
            Ok(()) => self
                .report
                .tool_ended(call, true, &format!("wrote {} bytes", text.len())),
            Err(failure) => self.report.tool_ended(call, false, &failure.to_string()),
        }
    }

    fn command(&self, call: &str, title: &str, run: impl FnOnce() -> std::io::Result<Ended>) {
        self.report
            .tool_started(call, title, "execute", json!({"command": title}));
        match run() {
            Ok(Ended { code, output }) => {
                let code = code.map_or_else(|| "killed".to_owned(), |code| format!("exit code {code}"));
                self.report
                    .tool_ended(call, code == "exit code 0", &format!("{output}({code})"));
            }
            Err(failure) => self.report.tool_ended(call, false, &failure.to_string()),
        }
    }

    fn tool(&self, call: &str, name: &str, arguments: &Value) {
        let Some(server) = self.report.tool_server() else {
            self.report.say(&format!("tool {name}: there is no MCP server"));
            return;
        };
        self.report.tool_started(call, name, "other", arguments.clone());
        let (succeeded, text) = match server.call(name, arguments) {
            Ok(answer) => (!answer.is_error, answer.text),
            Err(failure) => (false, format!("{failure:#}")),
        };
        self.report.tool_ended(call, succeeded, &text);
        let word = if succeeded { "" } else { " failed" };
        self.report.say(&format!("tool {name}{word}: {text}"));
    }

    fn tools(&self) {
        let words = match self.report.tool_server().map(super::mcp::Server::list) {
            Some(Ok(names)) => format!("tools: {}", names.join(" ")),
            Some(Err(failure)) => format!("tools failed: {failure:#}"),
            None => "tools: there is no MCP server".to_owned(),
        };
        self.report.say(&words);
    }

    fn flood(&self, bytes: u64) {
        let piece = "f".repeat(FLOOD_PIECE);
        let mut left = bytes;
        while left > 0 && !self.report.cancelled_within(Duration::ZERO) {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(FLOOD_PIECE);
            self.report.say(&piece[..length]);
            left -= length as u64;
        }
    }

    fn hang_hard(&self) {
        self.report.outlive_the_client();
        let hung = ignore_polite_signals();
        self.report.say(if hung {
            "hanging"
        } else {
            "hanging, but signals still end me"
        });
        loop {
            std::thread::sleep(FOREVER);
        }
    }
}

/// A signal that somebody listens to has lost its default action for the rest of the process; nobody needs to hear it.
fn ignore_polite_signals() -> bool {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return false;
    };
    let _context = runtime.enter();
    [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .into_iter()
        .all(|kind| signal(kind).is_ok())
}

#[expect(clippy::exit, reason = "dying in the middle of a turn is what the prompt asked for")]
fn die(code: i32) {
    std::process::exit(code)
}
