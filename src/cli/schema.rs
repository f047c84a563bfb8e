//! `cofferdam schema`: JSON Schemas, generated from the types.

use clap::ValueEnum;

use super::{Exit, show};
use crate::config::Config;
use crate::message::{Control, Event, Task};

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
}

/// Prints one.
pub(super) fn print(what: What) -> Exit {
    let schema = match what {
        What::Task => schemars::schema_for!(Task),
        What::Control => schemars::schema_for!(Control),
        What::Event => schemars::schema_for!(Event),
        What::Config => schemars::schema_for!(Config),
    };
    match serde_json::to_string_pretty(&schema) {
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
