//! From a `session/update` message to events. Pure, and lenient: unknown kinds, missing fields and calls that were never announced are
//! all normal in the field.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::message::EventBody;
use crate::message::event::PlanEntry;

/// Most tool calls remembered by id; older ones are forgotten, which costs only a title.
const MOST_CALLS: usize = 1000;
/// Most plan entries passed on.
const MOST_ENTRIES: usize = 100;

/// What one message means.
#[derive(Debug)]
pub(super) enum Update {
    /// The agent said something to the user.
    Said(String),
    /// Anything else that is worth an event.
    Event(Box<EventBody>),
}

/// What is known of the tool calls by id: agents send updates for calls that they never announced, and omit what did not change.
#[derive(Debug, Default)]
pub(super) struct Calls(BTreeMap<String, Call>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Call {
    title: String,
    kind: String,
    status: String,
}

/// Reads one message; an unknown or broken one means nothing.
pub(super) fn read(message: &Value, calls: &mut Calls) -> Vec<Update> {
    let Some(update) = message.pointer("/params/update") else {
        return Vec::new();
    };
    let kind = update.get("sessionUpdate").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "agent_message_chunk" => text_of(update).map(Update::Said).into_iter().collect(),
        "agent_thought_chunk" => text_of(update)
            .map(|text| Update::Event(Box::new(EventBody::AgentThought { text })))
            .into_iter()
            .collect(),
        "tool_call" | "tool_call_update" => tool_call(update, calls).into_iter().collect(),
        "plan" => plan(update).into_iter().collect(),
        // Modes, commands, configuration, usage of the context window, the user's own words, and what later versions bring.
        _ => Vec::new(),
    }
}

/// The tokens that an agent says it used, on its answer to a prompt. Not in the protocol's first version; many agents send it anyway.
pub(super) fn usage(message: &Value) -> Option<EventBody> {
    let usage = message.pointer("/result/usage")?;
    let read = |name: &str| usage.get(name).and_then(Value::as_u64);
    Some(EventBody::AgentUsage {
        input_tokens: read("inputTokens")?,
        output_tokens: read("outputTokens")?,
    })
}

fn text_of(update: &Value) -> Option<String> {
    let text = update.pointer("/content/text").and_then(Value::as_str)?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn tool_call(update: &Value, calls: &mut Calls) -> Option<Update> {
    let id: String = update
        .get("toolCallId")
        .and_then(Value::as_str)?
        .chars()
        .take(200)
        .collect();
    if calls.0.len() >= MOST_CALLS && !calls.0.contains_key(&id) {
        calls.0.pop_first();
    }
    let call = calls.0.entry(id.clone()).or_default();
    let before = call.clone();
    let take = |name: &str, slot: &mut String| {
        if let Some(text) = update.get(name).and_then(Value::as_str) {
            *slot = text.chars().take(500).collect();
        }
    };
    take("title", &mut call.title);
    take("kind", &mut call.kind);
    take("status", &mut call.status);
    for (slot, default) in [(&mut call.kind, "other"), (&mut call.status, "pending")] {
        if slot.is_empty() {
            *slot = default.to_owned();
        }
    }
    // Agents repeat an update for each piece of output; only a change is an event.
    (*call != before).then(|| {
        Update::Event(Box::new(EventBody::AgentTool {
            call: id,
            title: call.title.clone(),
            kind: call.kind.clone(),
            status: call.status.clone(),
        }))
    })
}

fn plan(update: &Value) -> Option<Update> {
    let entries = update.get("entries").and_then(Value::as_array)?;
    let entries = entries
        .iter()
        .take(MOST_ENTRIES)
        .filter_map(|entry| {
            Some(PlanEntry {
                text: entry
                    .get("content")
                    .and_then(Value::as_str)?
                    .chars()
                    .take(500)
                    .collect(),
                status: entry
                    .get("status")
                    .and_then(Value::as_str)
                    .unwrap_or("pending")
                    .chars()
                    .take(40)
                    .collect(),
            })
        })
        .collect();
    Some(Update::Event(Box::new(EventBody::AgentPlan { entries })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn events(updates: &[Value]) -> Vec<String> {
        let mut calls = Calls::default();
        updates
            .iter()
            .flat_map(|update| {
                read(
                    &json!({"method": "session/update", "params": {"update": update}}),
                    &mut calls,
                )
            })
            .map(|update| match update {
                Update::Said(text) => format!("said {text}"),
                Update::Event(event) => serde_json::to_string(&event).unwrap(),
            })
            .collect()
    }

    #[test]
    fn a_call_that_was_never_announced_is_an_event_and_repetitions_are_not() {
        let update = json!({"sessionUpdate": "tool_call_update", "toolCallId": "a", "status": "in_progress"});
        let got = events(&[
            update.clone(),
            update,
            json!({"sessionUpdate": "tool_call_update", "toolCallId": "a", "title": "ls"}),
        ]);
        assert_eq!(got.len(), 2, "{got:?}");
        assert!(got[1].contains("\"in_progress\"") && got[1].contains("\"ls\""));
    }

    #[test]
    fn unknown_and_broken_updates_mean_nothing() {
        assert!(
            events(&[
                json!({"sessionUpdate": "from_the_future"}),
                json!({"sessionUpdate": "tool_call"}),
                json!({"sessionUpdate": "plan", "entries": 7}),
                json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "image"}}),
                json!(null),
                json!([]),
            ])
            .is_empty()
        );
    }

    #[test]
    fn usage_is_read_where_it_is_whole() {
        let whole =
            json!({"id": 3, "result": {"stopReason": "end_turn", "usage": {"inputTokens": 5, "outputTokens": 7}}});
        assert!(matches!(
            usage(&whole),
            Some(EventBody::AgentUsage {
                input_tokens: 5,
                output_tokens: 7
            })
        ));
        assert!(usage(&json!({"result": {"usage": {"inputTokens": -5, "outputTokens": "x"}}})).is_none());
        assert!(usage(&json!({"result": {"stopReason": "end_turn"}})).is_none());
    }

    #[test]
    fn remembered_calls_are_bounded() {
        let mut calls = Calls::default();
        for n in 0..5000 {
            let update = json!({"params": {"update": {"sessionUpdate": "tool_call", "toolCallId": n.to_string()}}});
            read(&update, &mut calls);
        }
        assert!(calls.0.len() <= MOST_CALLS);
    }
}
