//! The answer to an agent that asks for leave. Pure.
//!
//! The sandbox is the boundary, so leave is given: once, by the option's kind, never by its id or position. Each is an event.

use agent_client_protocol::v1::schema::{
    PermissionOptionKind, RequestPermissionOutcome, RequestPermissionRequest, RequestPermissionResponse,
    SelectedPermissionOutcome,
};

use crate::message::EventBody;

/// The answer, and the event that records it.
pub(super) fn decide(request: &RequestPermissionRequest) -> (RequestPermissionResponse, EventBody) {
    let title = request
        .tool_call
        .fields
        .title
        .clone()
        .unwrap_or_default()
        .chars()
        .take(500)
        .collect();
    let chosen = [
        (PermissionOptionKind::AllowOnce, "allow_once"),
        (PermissionOptionKind::AllowAlways, "allow_always"),
    ]
    .into_iter()
    .find_map(|(kind, word)| {
        request
            .options
            .iter()
            .find(|option| option.kind == kind)
            .map(|option| (option, word))
    });
    let (outcome, answer) = match chosen {
        Some((option, word)) => (
            RequestPermissionOutcome::Selected(SelectedPermissionOutcome::new(option.option_id.clone())),
            word,
        ),
        None => (RequestPermissionOutcome::Cancelled, "cancelled"),
    };
    (
        RequestPermissionResponse::new(outcome),
        EventBody::AgentPermission {
            title,
            answer: answer.to_owned(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(options: serde_json::Value) -> (serde_json::Value, String) {
        let request: RequestPermissionRequest = serde_json::from_value(
            json!({"sessionId": "s", "toolCall": {"toolCallId": "t", "title": "rm"}, "options": options}),
        )
        .unwrap();
        let (response, event) = decide(&request);
        let EventBody::AgentPermission { answer, .. } = event else {
            panic!("not a permission event")
        };
        (serde_json::to_value(response).unwrap()["outcome"].clone(), answer)
    }

    #[test]
    fn chooses_by_kind_and_the_narrower_one() {
        let (outcome, word) = answer(json!([
            {"optionId": "0", "name": "yes, always", "kind": "allow_always"},
            {"optionId": "reject", "name": "allow", "kind": "reject_once"},
            {"optionId": "9", "name": "no", "kind": "allow_once"},
        ]));
        assert_eq!((outcome["optionId"].as_str(), word.as_str()), (Some("9"), "allow_once"));
    }

    #[test]
    fn without_an_allowing_option_nothing_is_allowed() {
        let (outcome, word) = answer(json!([{"optionId": "a", "name": "allow", "kind": "reject_always"}]));
        assert_eq!(
            (outcome["outcome"].as_str(), word.as_str()),
            (Some("cancelled"), "cancelled")
        );
        assert_eq!(answer(json!([])).1, "cancelled");
    }
}
