//! The scripted agent: a coding agent that does exactly what the lines of its prompt say, and misbehaves when told to.
//!
//! Written by hand on plain JSON lines, so that it judges the product's client by the protocol's text and not by the
//! library that both would share. It never calls a model and opens no connection but to the MCP server it was given.

mod acp;
mod connection;
mod directive;
mod http;
mod mcp;
mod plain;
mod process;
mod report;
mod turn;

use std::process::ExitCode;

pub use directive::{Directive, NotADirective, parse};

/// How the scripted agent is called.
pub const USAGE: &str = "usage: scripted-agent acp | scripted-agent plain [PROMPT...]";

/// Runs the agent in the mode that the first argument names, until its client goes away.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    match arguments.split_first() {
        Some((mode, [])) if mode == "acp" => acp::serve(),
        Some((mode, prompt)) if mode == "plain" => plain::run(prompt),
        Some(_) | None => anyhow::bail!(USAGE),
    }
}
