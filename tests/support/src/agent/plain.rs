//! The agent as a plain command: a prompt in, text out, an exit code. There is no client to ask and nobody to cancel but signals.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::directive::{self, Directive};
use super::mcp::Server;
use super::report::Report;
use super::turn::{Ending, Turn};

struct Terminal;

/// Runs one prompt: the arguments, a line each, or else the standard input.
pub(super) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let mut prompt = arguments.join("\n");
    if prompt.is_empty() {
        std::io::stdin()
            .read_to_string(&mut prompt)
            .context("reading the prompt")?;
    }
    let directives = directive::parse(&prompt)?;
    let directory = std::env::current_dir().context("finding the current directory")?;
    let ending = Turn {
        directory: &directory,
        number: 1,
        report: &Terminal,
    }
    .run(&directives);
    match ending {
        Ending::Stopped(_) => Ok(ExitCode::SUCCESS),
        Ending::Cancelled => anyhow::bail!("cancelled"),
        Ending::Failed(message) => anyhow::bail!(message),
    }
}

/// A reader that went away is no reason to stop half way.
fn print(mut stream: impl Write, text: &str) {
    let _ = writeln!(stream, "{text}").and_then(|()| stream.flush());
}

impl Report for Terminal {
    fn say(&self, text: &str) {
        print(std::io::stdout(), text);
    }

    fn think(&self, text: &str) {
        print(std::io::stderr(), text);
    }

    fn plan(&self, steps: &[String]) {
        print(std::io::stderr(), &steps.join("\n"));
    }

    fn tool_started(&self, _call: &str, title: &str, _kind: &str, _input: Value) {
        print(std::io::stderr(), &format!("> {title}"));
    }

    fn tool_ended(&self, _call: &str, succeeded: bool, output: &str) {
        print(
            std::io::stderr(),
            &format!("{}: {output}", if succeeded { "completed" } else { "failed" }),
        );
    }

    fn permission(&self, _call: &str, _title: &str) -> String {
        "nobody to ask".to_owned()
    }

    fn permissions(&self, _call: &str, _count: u64) -> Vec<String> {
        vec!["nobody to ask".to_owned()]
    }

    fn later(&self, _directive: &Directive) {}

    fn recall(&self) -> String {
        "recall: nothing".to_owned()
    }

    fn quoted(&self) -> String {
        "quoted: nothing".to_owned()
    }

    fn client_write(&self, _path: &str, _text: &str) -> String {
        "nobody to ask".to_owned()
    }

    fn raw_update(&self, update: Value) {
        print(std::io::stdout(), &update.to_string());
    }

    fn raw_line(&self, line: &str) {
        print(std::io::stdout(), line);
    }

    fn cancelled_within(&self, wait: Duration) -> bool {
        std::thread::sleep(wait);
        false
    }

    fn outlive_the_client(&self) {}

    fn tool_server(&self) -> Option<&Server> {
        None
    }
}
