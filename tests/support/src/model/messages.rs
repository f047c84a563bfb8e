//! The messages API: what a request says, and an answer in one piece or as the events of a stream. Pure.

use serde_json::{Value, json};

use super::conversation::{Conversation, Entry, Tool, list, text, texts};
use super::script::Next;
use super::shapes::{Frame, pieces};

/// What a request says.
pub(super) fn read(request: &Value) -> Result<Conversation, String> {
    let mut conversation = Conversation::default();
    let messages = request.get("messages").and_then(Value::as_array);
    for message in messages.ok_or("messages is not an array")? {
        let calls = || {
            list(message, "content")
                .iter()
                .any(|block| text(block, "type") == "tool_use")
        };
        conversation.entries.push(match text(message, "role") {
            "user" => Entry::User(texts(message.get("content"))),
            "assistant" if calls() => Entry::Called,
            "assistant" => Entry::Said,
            _ => Entry::Other,
        });
    }
    // The provider's own tools have a type and no schema; a script does not call them.
    let described = list(request, "tools")
        .iter()
        .filter(|tool| tool.get("input_schema").is_some());
    conversation.tools = described
        .map(|tool| Tool {
            name: text(tool, "name").to_owned(),
            takes: tool.get("input_schema").cloned().unwrap_or_default(),
            ..Tool::default()
        })
        .collect();
    Ok(conversation)
}

fn stop_reason(next: &Next) -> &'static str {
    if next.call.is_some() { "tool_use" } else { "end_turn" }
}

fn content(next: &Next) -> Vec<Value> {
    let mut content = Vec::new();
    if !next.text.is_empty() {
        content.push(json!({"type": "text", "text": next.text}));
    }
    if let Some(call) = &next.call {
        content.push(json!({"type": "tool_use", "id": call.id, "name": call.tool.name, "input": call.arguments}));
    }
    content
}

/// This API leaves what it had in its cache out of `input_tokens`.
fn usage(frame: &Frame<'_>, written: u64) -> Value {
    let cached = frame.read / 2;
    json!({
        "input_tokens": frame.read - cached, "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached,
        "output_tokens": written,
    })
}

/// The answer in one piece.
pub(super) fn whole(frame: &Frame<'_>, next: &Next) -> Value {
    json!({
        "id": frame.id, "type": "message", "role": "assistant", "model": frame.model, "content": content(next),
        "stop_reason": stop_reason(next), "stop_sequence": null, "usage": usage(frame, frame.written),
    })
}

/// The data of the events of a stream.
pub(super) fn events(frame: &Frame<'_>, next: &Next) -> Vec<Value> {
    let begun = json!({
        "id": frame.id, "type": "message", "role": "assistant", "model": frame.model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage(frame, 1),
    });
    let mut events = vec![json!({"type": "message_start", "message": begun})];
    for (index, block) in content(next).into_iter().enumerate() {
        let (mut begun, whole, kind, key) = match &next.call {
            Some(call) if block["type"] == "tool_use" => (block, call.input(), "input_json_delta", "partial_json"),
            Some(_) | None => (block, next.text.clone(), "text_delta", "text"),
        };
        if kind == "text_delta" {
            begun["text"] = json!("");
        } else {
            begun["input"] = json!({});
        }
        events.push(json!({"type": "content_block_start", "index": index, "content_block": begun}));
        events.extend(pieces(&whole).map(|piece| {
            let mut delta = json!({"type": kind});
            delta[key] = json!(piece);
            json!({"type": "content_block_delta", "index": index, "delta": delta})
        }));
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    let delta = json!({"stop_reason": stop_reason(next), "stop_sequence": null});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": frame.written}}));
    events.push(json!({"type": "message_stop"}));
    events
}
