//! Agents driven as a client drives them, in JSON lines and without any ACP library.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of a test fails its test by panicking"
)]

#[path = "agents/client.rs"]
mod client;
#[path = "agents/conformance.rs"]
mod conformance;
#[path = "agents/scripted.rs"]
mod scripted;
#[path = "agents/tool_server.rs"]
mod tool_server;

use serde_json::Value;

/// The pieces of the agent's message.
pub(crate) fn text(updates: &[Value]) -> Vec<&str> {
    updates
        .iter()
        .filter(|update| update["sessionUpdate"] == "agent_message_chunk")
        .filter_map(|update| update["content"]["text"].as_str())
        .collect()
}

/// What became of the tool call with that title, in order.
pub(crate) fn statuses<'a>(updates: &'a [Value], title: &str) -> Vec<&'a str> {
    let call = updates
        .iter()
        .find(|update| update["sessionUpdate"] == "tool_call" && update["title"] == title)
        .unwrap();
    let of_the_call = |update: &&Value| update["toolCallId"] == call["toolCallId"];
    updates
        .iter()
        .filter(of_the_call)
        .filter_map(|update| update["status"].as_str())
        .collect()
}
