//! Events on a terminal: one readable line per thing that happened, a single moving line for progress; or JSON, one event a line.
//!
//! Everything shown came through the progress room, which stripped control characters; this file adds none but its own.

use std::io::{IsTerminal as _, Write as _};

use super::Exit;
use crate::message::outcome::Outcome;
use crate::message::{Event, EventBody, ProjectKey, Question};

/// The exit code of a session's result.
pub(super) fn exit_of(result: Outcome) -> Exit {
    match result {
        Outcome::Success => Exit::Success,
        Outcome::Failure => Exit::Failure,
        Outcome::Error => Exit::Error,
        Outcome::Timeout => Exit::Timeout,
        Outcome::Cancellation => Exit::Cancelled,
    }
}

/// One line on standard output. A closed output is nobody's error.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// One line on standard error.
pub(super) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "cofferdam: {}", crate::secret::log_line(text));
}

/// Text of our own on standard error, as it is. A closed one is nobody's error.
pub(super) fn aside(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Shows events.
pub(super) struct Show {
    json: bool,
    terminal: bool,
    moving: bool,
    started: std::time::Instant,
}

impl Show {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            terminal: std::io::stdout().is_terminal(),
            moving: false,
            started: std::time::Instant::now(),
        }
    }

    /// Shows one event.
    pub(super) fn event(&mut self, event: &Event) {
        if self.json {
            if let Ok(text) = serde_json::to_string(event) {
                line(&text);
            }
            return;
        }
        match told(&event.data.body) {
            Told::Line(text) => {
                self.end();
                for (index, part) in text.lines().enumerate() {
                    if index == 0 {
                        line(&format!("{:>7.1}s  {part}", self.started.elapsed().as_secs_f32()));
                    } else {
                        line(&format!("          {part}"));
                    }
                }
            }
            Told::Moving(text) if self.terminal => {
                let cut: String = text
                    .chars()
                    .map(|c| if c == '\n' { ' ' } else { c })
                    .take(100)
                    .collect();
                let _ = write!(std::io::stdout().lock(), "\r\u{1b}[K          {cut}");
                let _ = std::io::stdout().flush();
                self.moving = true;
            }
            Told::Moving(_) | Told::Nothing => {}
        }
    }

    /// Ends the moving line.
    pub(super) fn end(&mut self) {
        if self.moving {
            let _ = write!(std::io::stdout().lock(), "\r\u{1b}[K");
            let _ = std::io::stdout().flush();
            self.moving = false;
        }
    }
}

enum Told {
    Line(String),
    Moving(String),
    Nothing,
}

fn told(body: &EventBody) -> Told {
    match body {
        EventBody::Rejected { code, message } => Told::Line(format!("rejected ({code}): {message}")),
        EventBody::Claimed { worker } => Told::Line(format!("claimed by {worker}")),
        EventBody::Stage { stage } => Told::Line(format!("-- {}", stage.as_str())),
        EventBody::Connected {
            connection,
            account,
            scopes,
            expires,
            capabilities: _,
        } => {
            let scopes = if scopes.is_empty() {
                String::new()
            } else {
                format!(", scopes {}", scopes.join(" "))
            };
            let expires = expires
                .as_ref()
                .map(|day| format!(", expires {day}"))
                .unwrap_or_default();
            Told::Line(format!("connected {connection}: {account}{scopes}{expires}"))
        }
        EventBody::Granted { project, base, branch } => Told::Line(format!("granted {project}: {branch} from {base}")),
        EventBody::Clone {
            project,
            phase,
            percent,
        } => Told::Moving(format!("{project}: {phase} {percent}%")),
        EventBody::Cloned {
            project,
            directory,
            base,
        } => Told::Line(format!("cloned {project} into {directory} at {}", base.short())),
        EventBody::TurnStarted { turn } => Told::Line(format!("turn {turn}: the agent works")),
        EventBody::AgentMessage { text } | EventBody::AgentThought { text } => Told::Moving(text.clone()),
        EventBody::AgentTool {
            title, kind, status, ..
        } => match status.as_str() {
            "completed" | "failed" => Told::Line(format!("{kind} {status}: {title}")),
            _ => Told::Moving(format!("{kind}: {title}")),
        },
        EventBody::AgentPlan { entries } => {
            let done = entries.iter().filter(|entry| entry.status == "completed").count();
            let now = entries
                .iter()
                .find(|entry| entry.status == "in_progress")
                .map_or("", |entry| entry.text.as_str());
            let now = if now.is_empty() {
                String::new()
            } else {
                format!(": {now}")
            };
            Told::Line(format!("plan {done}/{}{now}", entries.len()))
        }
        EventBody::AgentPermission { title, answer, .. } => Told::Line(format!("permission {answer}: {title}")),
        EventBody::AgentUsage {
            input_tokens,
            output_tokens,
        } => Told::Line(format!("tokens: {input_tokens} in, {output_tokens} out")),
        EventBody::OutputDropped { what, bytes } => Told::Line(format!("{bytes} bytes dropped: {what}")),
        EventBody::EgressRefused {
            host,
            port,
            rule,
            message,
        } => Told::Line(format!("refused the way to {host}:{port} ({rule}): {message}")),
        EventBody::ModelUsage {
            model,
            requests,
            input_tokens,
            output_tokens,
            ..
        } => Told::Line(format!(
            "model {model}: {requests} requests, {input_tokens} tokens in, {output_tokens} out"
        )),
        EventBody::TurnEnded { turn, stop_reason } => Told::Line(format!("turn {turn} ended: {stop_reason}")),
        EventBody::PushAccepted { project, head } => Told::Line(format!("staged {project} at {}", head.short())),
        EventBody::PushRefused { project, message } => Told::Line(format!("push refused for {project}: {message}")),
        EventBody::BranchPublished { project, branch, head } => {
            Told::Line(format!("published {project}: {branch} at {}", head.short()))
        }
        EventBody::ChangeRequestOpened {
            project,
            change_request,
        } => Told::Line(format!(
            "opened {} for {project}: {}",
            change_request.word, change_request.url
        )),
        EventBody::ChangeRequestUpdated {
            project,
            change_request,
        } => Told::Line(format!(
            "updated {} for {project}: {}",
            change_request.word, change_request.url
        )),
        EventBody::NeedsAttention {
            project,
            message,
            wait_s,
            question,
            ..
        } => Told::Line(attention(project.as_ref(), message, *wait_s, question.as_ref())),
        EventBody::Commented {
            project,
            on,
            number,
            url,
            text,
        } => Told::Line(format!(
            "commented on {} {number} of {project}{}: {text}",
            on.as_str(),
            url.as_ref().map_or_else(String::new, |url| format!(" at {url}"))
        )),
        EventBody::ProjectFinished { .. } => Told::Nothing,
        EventBody::Warning { code, message } => Told::Line(format!("warning ({code}): {message}")),
        EventBody::ControlReceived { kind, .. } => Told::Line(format!("control {kind} received")),
        EventBody::Suspended { message, queued, .. } => Told::Line(format!(
            "suspended{}: {message}",
            if *queued { ", to go on elsewhere" } else { "" }
        )),
        EventBody::ControlAnswered { applied, message, .. } => Told::Line(format!(
            "control {}: {message}",
            if *applied { "applied" } else { "refused" }
        )),
        EventBody::Finished { outcome } => {
            let mut text = format!(
                "{} ({}) after {:.1} s: {}",
                outcome.result.as_str(),
                outcome.reason.as_str(),
                std::time::Duration::from_millis(outcome.duration_ms).as_secs_f32(),
                outcome.message
            );
            for project in &outcome.projects {
                text.push_str(&format!(
                    "\n{} {}: {}",
                    project.project,
                    project.reason.as_str(),
                    project.message
                ));
            }
            Told::Line(text)
        }
    }
}
/// What somebody is asked for, with the answers that there are.
fn attention(project: Option<&ProjectKey>, message: &str, wait_s: u64, question: Option<&Question>) -> String {
    let whose = project.map_or_else(|| "the agent".to_owned(), ToString::to_string);
    let mut told = format!("{whose} needs attention ({wait_s} s left): {message}");
    if let Some(question) = question {
        // One line each, whatever the agent puts into its words.
        let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        if !question.detail.is_empty() {
            told.push_str(&format!("\n  {}", flat(&question.detail)));
        }
        for option in &question.options {
            let kind = option.kind.as_str();
            told.push_str(&format!(
                "\n  question {} option {} ({kind}): {}",
                question.id,
                option.id,
                flat(&option.name)
            ));
        }
    }
    told
}
