//! The same answer in the words of three other APIs: responses, messages, contents. Text only, whole or as the events of a stream. Pure.
//!
//! Written from those APIs' descriptions, not from what our gateway reads.

use serde_json::{Value, json};

/// Which API was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Responses,
    Messages,
    Contents,
}

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    Events,
    /// A JSON list of pieces: what one of the APIs streams by default.
    List,
}

/// The shape and form that a request asks for.
pub(super) fn asked(path: &str, query: &str, request: &Value) -> Option<(Shape, Form)> {
    let streamed = if request.get("stream") == Some(&json!(true)) {
        Form::Events
    } else {
        Form::Whole
    };
    if path.ends_with("/v1/responses") {
        return Some((Shape::Responses, streamed));
    }
    if path.ends_with("/v1/messages") {
        return Some((Shape::Messages, streamed));
    }
    let (_, act) = path.split_once("/v1beta/models/")?.1.split_once(':')?;
    match act {
        "generateContent" => Some((Shape::Contents, Form::Whole)),
        "streamGenerateContent" if query.split('&').any(|pair| pair == "alt=sse") => {
            Some((Shape::Contents, Form::Events))
        }
        "streamGenerateContent" => Some((Shape::Contents, Form::List)),
        _ => None,
    }
}

/// Content type and body. `read` and `written` are what it costs.
pub(super) fn answer(shape: Shape, form: Form, text: &str, read: u64, written: u64) -> (&'static str, String) {
    let body = match (shape, form) {
        (Shape::Responses, Form::Events) => events(&responses_events(text, read, written), true),
        (Shape::Messages, Form::Events) => events(&messages_events(text, read, written), true),
        (Shape::Contents, Form::Events) => events(&contents_pieces(text, read, written), false),
        (Shape::Contents, Form::List) => Value::from(contents_pieces(text, read, written)).to_string(),
        (Shape::Responses, Form::Whole | Form::List) => response(text, read, written).to_string(),
        (Shape::Messages, Form::Whole | Form::List) => message(text, read, written).to_string(),
        (Shape::Contents, Form::Whole) => contents(text, read, written).to_string(),
    };
    let kind = if form == Form::Events {
        "text/event-stream"
    } else {
        "application/json"
    };
    (kind, body)
}

fn events(all: &[Value], named: bool) -> String {
    all.iter()
        .map(|event| match event.get("type").and_then(Value::as_str) {
            Some(name) if named => format!("event: {name}\ndata: {event}\n\n"),
            Some(_) | None => format!("data: {event}\n\n"),
        })
        .collect()
}

fn response(text: &str, read: u64, written: u64) -> Value {
    let output = json!([{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}]);
    json!({
        "id": "resp_1", "object": "response", "status": "completed", "model": "scripted", "output": output,
        "usage": {
            "input_tokens": read, "input_tokens_details": {"cached_tokens": read / 2},
            "output_tokens": written, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": read + written,
        },
    })
}

fn responses_events(text: &str, read: u64, written: u64) -> Vec<Value> {
    let mut begun = response("", read, written);
    begun["usage"] = Value::Null;
    begun["status"] = json!("in_progress");
    vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.output_text.delta", "delta": text}),
        json!({"type": "response.completed", "response": response(text, read, written)}),
    ]
}

/// This API leaves what it had in its cache out of `input_tokens`.
fn message(text: &str, read: u64, written: u64) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "scripted", "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": read - read / 2, "cache_creation_input_tokens": 0, "cache_read_input_tokens": read / 2, "output_tokens": written},
    })
}

fn messages_events(text: &str, read: u64, written: u64) -> Vec<Value> {
    let mut begun = message("", read, 1);
    begun["content"] = json!([]);
    begun["stop_reason"] = Value::Null;
    vec![
        json!({"type": "message_start", "message": begun}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": written}}),
        json!({"type": "message_stop"}),
    ]
}

fn contents(text: &str, read: u64, written: u64) -> Value {
    let content = json!({"role": "model", "parts": [{"text": text}]});
    json!({
        "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {
            "promptTokenCount": read, "candidatesTokenCount": written - written / 3, "thoughtsTokenCount": written / 3,
            "totalTokenCount": read + written,
        },
    })
}

/// The numbers grow from piece to piece.
fn contents_pieces(text: &str, read: u64, written: u64) -> Vec<Value> {
    let half = text.chars().count() / 2;
    let (first, second): (String, String) = (text.chars().take(half).collect(), text.chars().skip(half).collect());
    vec![contents(&first, read, written / 2), contents(&second, read, written)]
}
