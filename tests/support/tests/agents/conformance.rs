//! Holds what the scripted agent says, which is written by hand, against the types that the protocol's own project publishes.

use agent_client_protocol::v1::schema;
use serde_json::{Value, json};

use crate::client::Client;

/// Reads it as that type, or fails with both.
fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|failure| panic!("{failure}: {value}"))
}

#[test]
fn every_message_is_what_the_published_schema_wants() {
    let mut client = Client::bare(&[]);
    let hello = client.request("initialize", json!({"protocolVersion": 1}));
    let hello: schema::InitializeResponse = read(&hello["result"]);
    assert!(hello.agent_capabilities.mcp_capabilities.http && !hello.agent_capabilities.load_session);

    let mut client = Client::start(&[]);
    let prompt = "!plan a; b\n!think hm\n!write a.txt b\n!shell false\n!permission x\n!fs-write b.txt c\n!orphan-update\n!say end";
    let (updates, answer) = client.prompt(prompt);
    let mut kinds = Vec::new();
    for update in &updates {
        let notification = json!({"sessionId": client.session(), "update": update});
        let _: schema::SessionNotification = read(&notification);
        kinds.push(update["sessionUpdate"].as_str().unwrap());
    }
    for kind in [
        "plan",
        "agent_thought_chunk",
        "tool_call",
        "tool_call_update",
        "agent_message_chunk",
        "usage_update",
    ] {
        assert!(kinds.contains(&kind), "{kind}");
    }
    let answer: schema::PromptResponse = read(&answer["result"]);
    assert_eq!(answer.stop_reason, schema::StopReason::EndTurn);

    let question: schema::RequestPermissionRequest = read(client.questions("session/request_permission")[0]);
    assert_eq!(question.options.len(), 4);
    let write: schema::WriteTextFileRequest = read(client.questions("fs/write_text_file")[0]);
    assert!(write.path.is_absolute());
}

#[test]
fn only_the_update_that_is_meant_to_be_unknown_is() {
    let mut client = Client::start(&[]);
    let (updates, _) = client.prompt("!unknown-update");
    let notification = json!({"sessionId": client.session(), "update": updates[0]});
    assert!(serde_json::from_value::<schema::SessionNotification>(notification).is_err());
}
