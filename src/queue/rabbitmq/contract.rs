//! What an orchestrator must know of the broker's objects: names and the mailbox's arguments, from where the worker itself takes them.

use serde_json::{Value, json};

use super::Config;
use super::topology::{MAILBOX_EXPIRES_MS, MAILBOX_LENGTH, MAILBOX_OVERFLOW, Names};
use crate::message::SessionId;

/// Names on the broker, and how the mailbox is declared.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// The first task queue.
    pub tasks: String,
    /// The topic exchange of events.
    pub events: String,
    /// The direct exchange of control messages.
    pub controls: String,
    /// The queue of what was no task.
    pub dead: String,
    /// A session's mailbox, with `{session}` for the session's id.
    pub mailbox: String,
    /// The arguments that the mailbox is declared with; it is durable.
    pub mailbox_arguments: Value,
}

impl Contract {
    /// That of an installation with this configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let names = Names::new(&config.prefix, &config.lanes);
        let some = SessionId(uuid::Uuid::nil());
        Self {
            tasks: names.lanes.first().cloned().unwrap_or_default(),
            mailbox: names.mailbox(some).replace(&some.to_string(), "{session}"),
            events: names.events,
            controls: names.session_in,
            dead: names.dead,
            mailbox_arguments: json!({
                "x-expires": MAILBOX_EXPIRES_MS,
                "x-max-length": MAILBOX_LENGTH,
                "x-overflow": MAILBOX_OVERFLOW,
            }),
        }
    }
}
