//! The contents API (`generateContent`): what a request says, and an answer in one piece or in several. Pure.

use serde_json::{Value, json};

use super::conversation::{Conversation, Entry, Tool, list, text, texts};
use super::script::Next;
use super::shapes::Frame;

/// What a request says.
pub(super) fn read(request: &Value) -> Result<Conversation, String> {
    let mut conversation = Conversation::default();
    let contents = request.get("contents").and_then(Value::as_array);
    for content in contents.ok_or("contents is not an array")? {
        let has = |key: &str| list(content, "parts").iter().any(|part| part.get(key).is_some());
        conversation.entries.push(match text(content, "role") {
            "model" if has("functionCall") => Entry::Called,
            "model" => Entry::Said,
            _ => Entry::User(texts(content.get("parts"))),
        });
    }
    let declared = list(request, "tools")
        .iter()
        .flat_map(|tool| list(tool, "functionDeclarations"));
    conversation.tools = declared
        .map(|function| Tool {
            name: text(function, "name").to_owned(),
            takes: ["parametersJsonSchema", "parameters"]
                .iter()
                .find_map(|key| function.get(key))
                .cloned()
                .unwrap_or_default(),
            ..Tool::default()
        })
        .collect();
    Ok(conversation)
}

/// One piece with what has been used by then.
fn piece(frame: &Frame<'_>, parts: &[Value], written: u64, is_last: bool) -> Value {
    let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
    if is_last {
        candidate["finishReason"] = json!("STOP");
    }
    json!({
        "candidates": [candidate], "modelVersion": frame.model, "responseId": frame.id,
        "usageMetadata": {
            "promptTokenCount": frame.read, "candidatesTokenCount": written - written / 3, "thoughtsTokenCount": written / 3,
            "totalTokenCount": frame.read + written,
        },
    })
}

fn call(next: &Next) -> Option<Value> {
    let call = next.call.as_ref()?;
    Some(json!({"functionCall": {"id": call.id, "name": call.tool.name, "args": call.arguments}}))
}

/// The answer in one piece.
pub(super) fn whole(frame: &Frame<'_>, next: &Next) -> Value {
    let said = (!next.text.is_empty()).then(|| json!({"text": next.text}));
    let parts: Vec<Value> = said.into_iter().chain(call(next)).collect();
    piece(frame, &parts, frame.written, true)
}

/// The same in pieces, whose numbers grow; a call is never cut.
pub(super) fn pieces(frame: &Frame<'_>, next: &Next) -> Vec<Value> {
    let half = next.text.chars().count() / 2;
    let (first, second): (String, String) = (
        next.text.chars().take(half).collect(),
        next.text.chars().skip(half).collect(),
    );
    let mut parts: Vec<Value> = [first, second]
        .into_iter()
        .filter(|text| !text.is_empty())
        .map(|text| json!({"text": text}))
        .collect();
    parts.extend(call(next));
    let last = parts.len().saturating_sub(1);
    parts
        .into_iter()
        .enumerate()
        .map(|(number, part)| {
            let written = if number == last {
                frame.written
            } else {
                frame.written / 2
            };
            piece(frame, &[part], written, number == last)
        })
        .collect()
}
