//! What a turn can tell its client, whichever way the client listens. It decides nothing.

use std::time::Duration;

use serde_json::Value;

use super::directive::Directive;
use super::mcp::Server;

/// Where a turn's news go, and what it may ask for.
pub(super) trait Report {
    /// A piece of the agent's message.
    fn say(&self, text: &str);
    /// A piece of the agent's thoughts.
    fn think(&self, text: &str);
    /// The agent's plan.
    fn plan(&self, steps: &[String]);
    /// A tool call begins.
    fn tool_started(&self, call: &str, title: &str, kind: &str, input: Value);
    /// A tool call ended well or badly.
    fn tool_ended(&self, call: &str, succeeded: bool, output: &str);
    /// Asks for leave to do something; the words say what came back.
    fn permission(&self, call: &str, title: &str) -> String;
    /// Asks for leave so many times at once; the words say what came back each time.
    fn permissions(&self, call: &str, count: u64) -> Vec<String>;
    /// Keeps something to do for a later prompt that says nothing to do.
    fn later(&self, directive: &Directive);
    /// What the agent itself remembers of the turns before, in words.
    fn recall(&self) -> String;
    /// The lines of the running prompt that tell of the turns before (`> `), in words.
    fn quoted(&self) -> String;
    /// Asks the client to write a file; the words say what came back.
    fn client_write(&self, path: &str, text: &str) -> String;
    /// A session update in the protocol's own words, known or not.
    fn raw_update(&self, update: Value);
    /// A line that is not a message at all.
    fn raw_line(&self, line: &str);
    /// Waits, and says whether the turn was cancelled by then.
    fn cancelled_within(&self, wait: Duration) -> bool;
    /// From now on the end of the input ends nothing.
    fn outlive_the_client(&self);
    /// The MCP server that the client named.
    fn tool_server(&self) -> Option<&Server>;
}
