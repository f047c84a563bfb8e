//! An answer in the words of the chat-completions format: in one piece, or as the events of a stream. Pure.

use serde_json::{Value, json};

use super::script::Next;

/// Pieces of this many characters, so that a client has to put them together.
const PIECE: usize = 16;

/// What all parts of one answer share.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// The model's name, as the client gave it.
    pub(super) model: &'a str,
    /// The answer's id.
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: i64,
    /// How much was read and written.
    pub(super) usage: Value,
}

/// Made-up numbers that grow with the work, as a provider's do: about four bytes a token.
pub(super) fn usage(request_bytes: usize, next: &Next) -> Value {
    let arguments = next.call.as_ref().map_or(0, |call| call.arguments.to_string().len());
    let (read, written) = (request_bytes.div_ceil(4), (next.text.len() + arguments).div_ceil(4));
    json!({"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written})
}

fn finish_reason(next: &Next) -> &'static str {
    if next.call.is_some() { "tool_calls" } else { "stop" }
}

/// The answer in one piece.
pub(super) fn whole(frame: &Frame<'_>, next: &Next) -> Value {
    let mut message = json!({"role": "assistant", "content": next.text});
    if let Some(call) = &next.call {
        let function = json!({"name": call.tool, "arguments": call.arguments.to_string()});
        message["tool_calls"] = json!([{"id": call.id, "type": "function", "function": function}]);
    }
    json!({
        "id": frame.id, "object": "chat.completion", "created": frame.created, "model": frame.model, "usage": frame.usage,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason(next)}],
    })
}

/// The answer as server-sent events, the closing one included.
pub(super) fn events(frame: &Frame<'_>, next: &Next, with_usage: bool) -> Vec<String> {
    let mut deltas = vec![json!({"role": "assistant", "content": ""})];
    deltas.extend(pieces(&next.text).map(|piece| json!({"content": piece})));
    if let Some(call) = &next.call {
        let head =
            json!({"index": 0, "id": call.id, "type": "function", "function": {"name": call.tool, "arguments": ""}});
        deltas.push(json!({"tool_calls": [head]}));
        let arguments = call.arguments.to_string();
        deltas.extend(
            pieces(&arguments).map(|piece| json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})),
        );
    }
    let mut chunks: Vec<Value> = deltas
        .into_iter()
        .map(|delta| json!([{"index": 0, "delta": delta, "finish_reason": null}]))
        .collect();
    chunks.push(json!([{"index": 0, "delta": {}, "finish_reason": finish_reason(next)}]));
    let chunk = |choices: Value, usage: Value| {
        let (id, created, model) = (&frame.id, frame.created, frame.model);
        let body = json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": model, "choices": choices, "usage": usage,
        });
        format!("data: {body}\n\n")
    };
    let mut events: Vec<String> = chunks.into_iter().map(|choices| chunk(choices, Value::Null)).collect();
    if with_usage {
        events.push(chunk(json!([]), frame.usage.clone()));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn pieces(text: &str) -> impl Iterator<Item = String> {
    let characters: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = characters.chunks(PIECE).map(|piece| piece.iter().collect()).collect();
    pieces.into_iter()
}
