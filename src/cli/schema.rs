//! `cofferdam schema`: JSON Schemas, generated from the types, and the AsyncAPI document around them.

use clap::ValueEnum;

use super::{Exit, show};
use crate::config::Config;
use crate::message::{Control, Event, Task};

mod asyncapi;

/// What a schema can be had of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum What {
    /// The message that asks for a session.
    Task,
    /// A message to a running session.
    Control,
    /// What happened in a session.
    Event,
    /// The worker's configuration.
    Config,
    /// Exchanges, queues and messages, as AsyncAPI 3.
    Asyncapi,
}

/// Prints one.
pub(super) fn print(what: What) -> Exit {
    let schema = match what {
        What::Task => schemars::schema_for!(Task),
        What::Control => schemars::schema_for!(Control),
        What::Event => schemars::schema_for!(Event),
        What::Config => schemars::schema_for!(Config),
        What::Asyncapi => return show_json(&asyncapi::document()),
    };
    show_json(schema.as_value())
}

fn show_json(value: &serde_json::Value) -> Exit {
    match serde_json::to_string_pretty(value) {
        Ok(text) => {
            show::line(&text);
            Exit::Success
        }
        Err(error) => {
            show::complain(&error.to_string());
            Exit::Software
        }
    }
}
