//! The responses API: what a request says, and an answer in one piece or as the events of a stream. Pure.

use serde_json::{Value, json};

use super::conversation::{Conversation, Entry, Tool, list, text, texts};
use super::script::Next;
use super::shapes::{Frame, pieces};

/// What a request says. `input` is a text, or a list of messages, calls and what the tools answered.
pub(super) fn read(request: &Value) -> Result<Conversation, String> {
    let mut conversation = Conversation::default();
    match request.get("input") {
        Some(Value::String(text)) => conversation.push(Entry::User(vec![text.clone()])),
        Some(Value::Array(items)) => items
            .iter()
            .filter_map(entry)
            .for_each(|entry| conversation.push(entry)),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
            return Err("input is neither a text nor an array".to_owned());
        }
    }
    add(&mut conversation.tools, list(request, "tools"));
    // Tools may come later in the conversation, too.
    for item in list(request, "input") {
        add(&mut conversation.tools, list(item, "tools"));
    }
    Ok(conversation)
}

fn add(tools: &mut Vec<Tool>, listed: &[Value]) {
    for tool in listed {
        match text(tool, "type") {
            "function" | "custom" => tools.push(one(tool, None)),
            // Tools in a group, whose name goes with each call.
            "namespace" => {
                let group = text(tool, "name");
                tools.extend(list(tool, "tools").iter().map(|tool| one(tool, Some(group))));
            }
            // Of no use to a script.
            _ => {}
        }
    }
}

/// Thoughts are no contribution.
fn entry(item: &Value) -> Option<Entry> {
    match (text(item, "type"), text(item, "role")) {
        ("" | "message", "user") => Some(Entry::User(texts(item.get("content")))),
        ("" | "message", "assistant") => Some(Entry::Said),
        ("function_call" | "custom_tool_call", _) => Some(Entry::Called),
        ("reasoning", _) => None,
        (_, _) => Some(Entry::Other),
    }
}

fn one(tool: &Value, group: Option<&str>) -> Tool {
    Tool {
        name: text(tool, "name").to_owned(),
        group: group.map(str::to_owned),
        takes: tool.get("parameters").cloned().unwrap_or_default(),
        is_free: text(tool, "type") == "custom",
    }
}

fn message(id: &str, status: &str, text: &str) -> Value {
    let content = json!([{"type": "output_text", "text": text, "annotations": []}]);
    json!({"type": "message", "id": id, "status": status, "role": "assistant", "content": content})
}

/// The answer's items: its text, then its call.
fn items(frame: &Frame<'_>, next: &Next) -> Vec<Value> {
    let mut items = Vec::new();
    if !next.text.is_empty() {
        items.push(message(&format!("msg_{}", frame.id), "completed", &next.text));
    }
    if let Some(call) = &next.call {
        let (kind, place) = if call.tool.is_free {
            ("custom_tool_call", "input")
        } else {
            ("function_call", "arguments")
        };
        let mut item = json!({
            "type": kind, "id": format!("fc_{}", frame.id), "status": "completed", "call_id": call.id, "name": call.tool.name,
        });
        item[place] = json!(call.input());
        if let Some(group) = &call.tool.group {
            item["namespace"] = json!(group);
        }
        items.push(item);
    }
    items
}

fn response(frame: &Frame<'_>, status: &str, output: &[Value]) -> Value {
    let usage = json!({
        "input_tokens": frame.read, "input_tokens_details": {"cached_tokens": frame.read / 2},
        "output_tokens": frame.written, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": frame.read + frame.written,
    });
    let usage = if status == "completed" { usage } else { Value::Null };
    json!({
        "id": frame.id, "object": "response", "created_at": frame.created, "status": status, "model": frame.model, "output": output,
        "error": null, "usage": usage,
    })
}

/// The answer in one piece.
pub(super) fn whole(frame: &Frame<'_>, next: &Next) -> Value {
    response(frame, "completed", &items(frame, next))
}

/// The data of the events of a stream.
pub(super) fn events(frame: &Frame<'_>, next: &Next) -> Vec<Value> {
    let begun = response(frame, "in_progress", &[]);
    let mut events = vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.in_progress", "response": begun}),
    ];
    let items = items(frame, next);
    for (index, item) in items.iter().enumerate() {
        let id = text(item, "id");
        let event = |kind: &str, key: &str, value: Value| {
            let mut event = json!({"type": kind, "item_id": id, "output_index": index});
            event[key] = value;
            event
        };
        let (place, prefix) = match text(item, "type") {
            "message" => ("text", "response.output_text"),
            "function_call" => ("arguments", "response.function_call_arguments"),
            _ => ("input", "response.custom_tool_call_input"),
        };
        let content = if place == "text" {
            next.text.as_str()
        } else {
            text(item, place)
        };
        let mut added = item.clone();
        added["status"] = json!("in_progress");
        added[if place == "text" { "content" } else { place }] = if place == "text" { json!([]) } else { json!("") };
        events.push(json!({"type": "response.output_item.added", "output_index": index, "item": added}));
        let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
        let mut parts = Vec::new();
        if place == "text" {
            parts.push(event("response.content_part.added", "part", part("")));
        }
        parts.extend(pieces(content).map(|piece| event(&format!("{prefix}.delta"), "delta", json!(piece))));
        parts.push(event(&format!("{prefix}.done"), place, json!(content)));
        if place == "text" {
            parts.push(event("response.content_part.done", "part", part(content)));
            parts.iter_mut().for_each(|part| part["content_index"] = json!(0));
        }
        events.append(&mut parts);
        events.push(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
    }
    events.push(json!({"type": "response.completed", "response": response(frame, "completed", &items)}));
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(number);
    }
    events
}
