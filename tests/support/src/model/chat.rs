//! The chat-completions API: what a request says, and an answer in one piece or as the events of a stream. Pure.

use serde_json::{Value, json};

use super::conversation::{Conversation, Entry, Tool, list, text, texts};
use super::script::Next;
use super::shapes::{Frame, pieces};

/// What a request says.
pub(super) fn read(request: &Value) -> Result<Conversation, String> {
    let mut conversation = Conversation::default();
    let messages = request.get("messages").and_then(Value::as_array);
    for message in messages.ok_or("messages is not an array")? {
        conversation.entries.push(match text(message, "role") {
            "user" => Entry::User(texts(message.get("content"))),
            "assistant" if list(message, "tool_calls").is_empty() => Entry::Said,
            "assistant" => Entry::Called,
            _ => Entry::Other,
        });
    }
    conversation.tools = list(request, "tools").iter().filter_map(tool).collect();
    Ok(conversation)
}

fn tool(tool: &Value) -> Option<Tool> {
    let function = tool.get("function")?;
    Some(Tool {
        name: text(function, "name").to_owned(),
        takes: function.get("parameters").cloned().unwrap_or_default(),
        ..Tool::default()
    })
}

fn finish_reason(next: &Next) -> &'static str {
    if next.call.is_some() { "tool_calls" } else { "stop" }
}

fn usage(frame: &Frame<'_>) -> Value {
    json!({"prompt_tokens": frame.read, "completion_tokens": frame.written, "total_tokens": frame.read + frame.written})
}

/// The answer in one piece.
pub(super) fn whole(frame: &Frame<'_>, next: &Next) -> Value {
    let mut message = json!({"role": "assistant", "content": next.text});
    if let Some(call) = &next.call {
        let function = json!({"name": call.tool.name, "arguments": call.input()});
        message["tool_calls"] = json!([{"id": call.id, "type": "function", "function": function}]);
    }
    json!({
        "id": frame.id, "object": "chat.completion", "created": frame.created, "model": frame.model, "usage": usage(frame),
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason(next)}],
    })
}

/// The data of the events of a stream, but for the closing one.
pub(super) fn events(frame: &Frame<'_>, next: &Next, with_usage: bool) -> Vec<Value> {
    let mut deltas = vec![json!({"role": "assistant", "content": ""})];
    deltas.extend(pieces(&next.text).map(|piece| json!({"content": piece})));
    if let Some(call) = &next.call {
        let function = json!({"name": call.tool.name, "arguments": ""});
        let head = json!({"index": 0, "id": call.id, "type": "function", "function": function});
        deltas.push(json!({"tool_calls": [head]}));
        deltas.extend(
            pieces(&call.input()).map(|piece| json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})),
        );
    }
    let mut chunks: Vec<Value> = deltas
        .into_iter()
        .map(|delta| json!([{"index": 0, "delta": delta, "finish_reason": null}]))
        .collect();
    chunks.push(json!([{"index": 0, "delta": {}, "finish_reason": finish_reason(next)}]));
    let chunk = |choices: Value, usage: Value| {
        json!({
            "id": frame.id, "object": "chat.completion.chunk", "created": frame.created, "model": frame.model,
            "choices": choices, "usage": usage,
        })
    };
    let mut events: Vec<Value> = chunks.into_iter().map(|choices| chunk(choices, Value::Null)).collect();
    if with_usage {
        events.push(chunk(json!([]), usage(frame)));
    }
    events
}
