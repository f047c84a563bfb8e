//! `cofferdam prompt`, `add-project`, `cancel`, `answer` and `end`: each sends one control message to a session and waits for the event that answers it.
//!
//! Never repeats a message: whoever does not see the answer decides, and may send the same again only under the same id.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{Exit, log, show};
use crate::client::{Client, ClientError, Events, Message};
use crate::config::Config;
use crate::message::control::LARGEST_CONTROL;
use crate::message::{ConnectionName, Event, EventBody, SessionId};
use crate::queue::QueueError;

const TOO_LATE: &str = "the session ended before it took the message";

/// How a command waits for its answer.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Patience {
    /// Do not wait for the session's answer.
    #[arg(long)]
    no_wait: bool,
    /// Seconds to wait for the answer at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, conflicts_with = "no_wait")]
    wait: u32,
    /// Print the answering event as JSON.
    #[arg(long)]
    json: bool,
}

/// What is answered.
#[derive(Debug, Clone, clap::Args)]
#[command(group = clap::ArgGroup::new("verdict").args(["publish", "keep"]))]
pub(super) struct Reply {
    /// The id of the agent's question, from the event `needs_attention`.
    #[arg(required_unless_present = "project", conflicts_with = "project", requires = "option")]
    question: Option<String>,
    /// The id of one of its options, or the kind where only one has it, such as `allow_once`.
    option: Option<String>,
    /// In place of a question: the path of a project whose work is held.
    #[arg(long, value_name = "PATH", requires = "connection", requires = "verdict")]
    project: Option<String>,
    /// The project's connection.
    #[arg(long, value_name = "NAME", requires = "project")]
    connection: Option<ConnectionName>,
    /// Publish the project's work.
    #[arg(long, requires = "project")]
    publish: bool,
    /// Keep it on the worker.
    #[arg(long, requires = "project")]
    keep: bool,
}

/// Answers what a session waits for.
pub(super) async fn reply(config: &Config, session: SessionId, reply: &Reply, patience: Patience) -> Exit {
    let fields = match &reply.project {
        Some(path) => {
            json!({"kind": "answer", "connection": reply.connection, "path": path, "publish": reply.publish})
        }
        None => json!({"kind": "answer", "question": reply.question, "option": reply.option}),
    };
    send(config, session, fields, patience).await
}

/// Sends another prompt.
pub(super) async fn prompt(
    config: &Config,
    session: SessionId,
    text: Option<&str>,
    steer: bool,
    patience: Patience,
) -> Exit {
    let text = match text {
        None | Some("-") => match read_text() {
            Ok(text) => text,
            Err(message) => {
                show::complain(&message);
                return Exit::BadTask;
            }
        },
        Some(text) => text.to_owned(),
    };
    let mode = if steer { "steer" } else { "queue" };
    let fields = json!({"kind": "prompt", "text": text, "mode": mode});
    send(config, session, fields, patience).await
}

/// A project that is to be added.
pub(super) struct Project<'a> {
    pub(super) connection: &'a ConnectionName,
    /// A file that says what the connection is.
    pub(super) new_connection: Option<&'a Path>,
    pub(super) path: &'a str,
    pub(super) base: Option<&'a str>,
}

/// Adds a project.
pub(super) async fn add_project(config: &Config, session: SessionId, project: Project<'_>, patience: Patience) -> Exit {
    let mut fields = json!({"kind": "add_project", "connection": project.connection, "path": project.path});
    if let Some(base) = project.base {
        fields["base"] = json!(base);
    }
    if let Some(file) = project.new_connection {
        match read_connection(file) {
            Ok(connection) => fields["new_connection"] = connection,
            Err(message) => {
                show::complain(&message);
                return Exit::BadTask;
            }
        }
    }
    send(config, session, fields, patience).await
}

/// Stops the turn that runs.
pub(super) async fn cancel(config: &Config, session: SessionId, patience: Patience) -> Exit {
    send(config, session, json!({"kind": "cancel_turn"}), patience).await
}

/// Ends the session.
pub(super) async fn end(config: &Config, session: SessionId, discard: bool, patience: Patience) -> Exit {
    send(config, session, json!({"kind": "end", "publish": !discard}), patience).await
}

async fn send(config: &Config, session: SessionId, fields: Value, patience: Patience) -> Exit {
    log::to_standard_error();
    // What the worker would refuse is told here, without asking it.
    let message = match Message::new(fields) {
        Ok(message) => message,
        Err(error) => {
            show::complain(&error.to_string());
            return Exit::BadTask;
        }
    };
    match deliver(&Client::new(config.queue.clone()), session, &message, patience).await {
        Ok(None) => {
            show::line(&message.id);
            Exit::Success
        }
        Ok(Some(answers)) => wait(answers, &message.id, patience).await,
        Err(error) => {
            show::complain(&error.to_string());
            Exit::Unavailable
        }
    }
}

/// The events, where they are waited for.
async fn deliver(
    client: &Client,
    session: SessionId,
    message: &Message,
    patience: Patience,
) -> Result<Option<Events>, ClientError> {
    // Followed first, so that no answer is missed.
    let answers = if patience.no_wait {
        None
    } else {
        match client.follow(session).await {
            Ok(answers) => Some(answers),
            // There is no exchange of events where no worker ever was.
            Err(ClientError::Queue(QueueError::Declare { .. })) => return Err(ClientError::NoSession(session)),
            Err(error) => return Err(error),
        }
    };
    client.send(session, message).await?;
    Ok(answers)
}

async fn wait(mut answers: Events, id: &str, patience: Patience) -> Exit {
    let until = Instant::now() + Duration::from_secs(patience.wait.into());
    let mut was_received = false;
    loop {
        let event = match timeout_at(until, answers.next()).await {
            Ok(Some(Ok(event))) => event,
            Ok(None) => {
                show::complain(TOO_LATE);
                return Exit::Failure;
            }
            Ok(Some(Err(error))) => {
                show::complain(&format!("{error}; whether the message {id} was applied is not known"));
                return Exit::Unavailable;
            }
            Err(_) => {
                let where_it_is = if was_received {
                    "the session has it and answers when it comes to it: `cofferdam watch` shows that"
                } else {
                    "it waits for a worker to take the session"
                };
                show::complain(&format!("no answer within {} s: {where_it_is}", patience.wait));
                return Exit::Timeout;
            }
        };
        match answer(&event.data.body, id) {
            Answer::None => {}
            Answer::Received => was_received = true,
            Answer::Answered { applied, message } => {
                tell(&event, applied, &message, patience);
                return if applied { Exit::Success } else { Exit::Failure };
            }
            Answer::TooLate => {
                show::complain(TOO_LATE);
                return Exit::Failure;
            }
        }
    }
}

fn tell(event: &Event, applied: bool, message: &str, patience: Patience) {
    if patience.json {
        if let Ok(text) = serde_json::to_string(event) {
            show::line(&text);
        }
    } else if applied {
        show::line(message);
    } else {
        show::complain(&format!("refused: {message}"));
    }
}

/// What an event means to the sender of a message.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    None,
    Received,
    Answered { applied: bool, message: String },
    TooLate,
}

fn answer(body: &EventBody, id: &str) -> Answer {
    if let EventBody::ControlReceived { in_reply_to, .. } = body
        && in_reply_to == id
    {
        return Answer::Received;
    }
    if let EventBody::ControlAnswered {
        in_reply_to,
        applied,
        message,
    } = body
        && in_reply_to == id
    {
        return Answer::Answered {
            applied: *applied,
            message: message.clone(),
        };
    }
    if body.is_terminal() {
        return Answer::TooLate;
    }
    Answer::None
}

/// Reads a connection from a file, bounded. What it holds is not repeated: it may be a token.
fn read_connection(path: &Path) -> Result<Value, String> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST_CONTROL as u64 + 1).read_to_string(&mut text))
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|_| format!("{} is no JSON", path.display()))
}

/// Reads a prompt from standard input, bounded.
fn read_text() -> Result<String, String> {
    let most = LARGEST_CONTROL as u64 + 1;
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(most)
        .read_to_string(&mut text)
        .map_err(|error| format!("the prompt cannot be read from standard input: {error}"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_answered_by_the_event_that_names_it_or_by_the_sessions_end() {
        let answered = |id: &str| EventBody::ControlAnswered {
            in_reply_to: id.into(),
            applied: false,
            message: "no".into(),
        };
        assert_eq!(answer(&answered("other"), "mine"), Answer::None);
        let mine = Answer::Answered {
            applied: false,
            message: "no".into(),
        };
        assert_eq!(answer(&answered("mine"), "mine"), mine);
        let received = EventBody::ControlReceived {
            in_reply_to: "mine".into(),
            kind: "end".into(),
        };
        assert_eq!(answer(&received, "mine"), Answer::Received);
        let rejected = EventBody::Rejected {
            code: "x".into(),
            message: String::new(),
        };
        assert_eq!(answer(&rejected, "mine"), Answer::TooLate);
    }
}
