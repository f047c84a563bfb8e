//! What the fuzzers reach here: an agent's output, line by line. It only calls what a real agent's bytes meet.

use agent_client_protocol::v1::schema::RequestPermissionRequest;
use tokio::io::BufReader;

use super::lines::{Line, next_line};
use super::{permission, update};
use crate::message::EventBody;

/// What is made of a whole output: what it said, and what became events.
pub async fn output(bytes: &[u8]) -> (Vec<String>, Vec<EventBody>) {
    let mut reader = BufReader::with_capacity(16, bytes);
    let mut calls = update::Calls::default();
    let (mut said, mut events) = (Vec::new(), Vec::new());
    while let Ok(Some(line)) = next_line(&mut reader).await {
        let Line::Whole(line) = line else { continue };
        let Ok(message) = serde_json::from_slice(&line) else {
            continue;
        };
        for update in update::read(&message, &mut calls) {
            match update {
                update::Update::Said(text) => said.push(text),
                update::Update::Event(event) => events.push(*event),
            }
        }
        events.extend(update::usage(&message));
        let asked = message.get("params").cloned().unwrap_or_default();
        if let Ok(request) = serde_json::from_value::<RequestPermissionRequest>(asked) {
            events.push(permission::decide(&request).1);
            let asked = permission::asked(&request);
            assert!(asked.is_none_or(|asked| (1..=16).contains(&asked.options.len())));
        }
    }
    (said, events)
}
