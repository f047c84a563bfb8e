//! `cofferdam schema`: JSON Schemas, generated from the types, and the AsyncAPI document around them; and what changed since an older one.

use std::path::Path;

use clap::ValueEnum;
use serde_json::Value;

use super::{Exit, show};
use crate::config::Config;
use crate::message::{Control, Event, Task};

mod asyncapi;
mod compare;

use compare::Side;

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

impl What {
    fn document(self) -> Value {
        match self {
            Self::Task => schemars::schema_for!(Task),
            Self::Control => schemars::schema_for!(Control),
            Self::Event => schemars::schema_for!(Event),
            Self::Config => schemars::schema_for!(Config),
            Self::Asyncapi => return asyncapi::document(),
        }
        .to_value()
    }

    fn changes(self, old: &Value, new: &Value) -> Vec<compare::Change> {
        match self {
            Self::Task | Self::Control => compare::changes(Side::Read, old, new),
            Self::Config => compare::changes(Side::Configured, old, new),
            Self::Event => compare::changes(Side::Sent, old, new),
            Self::Asyncapi => compare::broker_changes(old, new),
        }
    }
}

/// Prints one, or what changed in it since the one in a file.
pub(super) fn print(what: What, against: Option<&Path>) -> Exit {
    let new = what.document();
    let Some(path) = against else {
        return show_json(&new);
    };
    let read = std::fs::read(path).map_err(|error| error.to_string());
    let old = read.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
    let old: Value = match old {
        Ok(old) => old,
        Err(error) => {
            show::complain(&format!("{} cannot be compared with: {error}", path.display()));
            return Exit::BadTask;
        }
    };
    let changes = what.changes(&old, &new);
    for change in &changes {
        show::line(&change.to_string());
    }
    if changes.iter().any(|change| change.breaks) {
        Exit::Failure
    } else {
        Exit::Success
    }
}

fn show_json(value: &Value) -> Exit {
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
