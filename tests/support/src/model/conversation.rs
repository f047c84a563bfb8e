//! A conversation so far, whichever API it came in: who spoke, whether the model called a tool, which tools it has. Pure.

use serde_json::Value;

/// What a request says.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// In order.
    pub(super) entries: Vec<Entry>,
    /// What the model may call.
    pub(super) tools: Vec<Tool>,
}

/// One contribution to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// Texts of the user, or of the agent in the user's name.
    User(Vec<String>),
    /// The model called tools, whatever it said before.
    Called,
    /// The model spoke and called nothing: a turn's end.
    Said,
    /// Instructions, and what tools answered.
    Other,
}

/// A tool that the model was offered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tool {
    /// Its name.
    pub(super) name: String,
    /// The group that its API wants named beside it, if any.
    pub(super) group: Option<String>,
    /// The JSON Schema of what it takes; null where nothing is said, or where it takes free text.
    pub(super) takes: Value,
    /// Whether it takes text in place of an object.
    pub(super) is_free: bool,
}

impl Conversation {
    /// Adds an entry. Some APIs list one answer's text and calls one after the other: together they are one answer that called.
    pub(super) fn push(&mut self, entry: Entry) {
        if entry == Entry::Called && matches!(self.entries.last(), Some(Entry::Said | Entry::Called)) {
            self.entries.pop();
        }
        self.entries.push(entry);
    }
}

/// The texts of a message's content, which is a string or a list of parts.
pub(super) fn texts(content: Option<&Value>) -> Vec<String> {
    match content {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(parts)) => parts
            .iter()
            .filter_map(|part| part.get("text").and_then(Value::as_str).map(str::to_owned))
            .collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
    }
}

/// A list in a request; empty where there is none.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// A text in a request; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
