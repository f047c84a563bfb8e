//! The answer to an agent that asks for leave. Pure.
//!
//! The sandbox is the boundary, so by policy leave is given: once, by the option's kind, never by its id or position. Where people are
//! asked, their choice is given back, and a refusal where they made none. Each is an event.

use agent_client_protocol::v1::schema::{
    PermissionOption, PermissionOptionKind, RequestPermissionOutcome, RequestPermissionRequest,
    RequestPermissionResponse, SelectedPermissionOutcome,
};

use crate::agent::ask::{Decided, Request};
use crate::message::{ChoiceKind, DecidedBy, EventBody};

/// Options of one request that people are shown; no agent has more.
const MOST_OPTIONS: usize = 16;
/// How much of what a tool call is to do is looked at, in bytes.
const LONGEST_DETAIL: usize = 64 * 1024;

/// The answer by policy, and the event that records it.
pub(super) fn decide(request: &RequestPermissionRequest) -> (RequestPermissionResponse, EventBody) {
    let chosen = by_kind(
        request,
        &[PermissionOptionKind::AllowOnce, PermissionOptionKind::AllowAlways],
    );
    answer(request, chosen, DecidedBy::Policy, None)
}

/// What people decided, or did not; and the event that records it.
pub(super) fn decided(request: &RequestPermissionRequest, decided: Decided) -> (RequestPermissionResponse, EventBody) {
    let chosen = match decided.by {
        // The protocol's own word for a turn that was stopped.
        DecidedBy::End => None,
        DecidedBy::Policy | DecidedBy::Answer | DecidedBy::Deadline | DecidedBy::Bound => {
            decided.option.and_then(|place| request.options.get(place)).or_else(|| {
                by_kind(
                    request,
                    &[PermissionOptionKind::RejectOnce, PermissionOptionKind::RejectAlways],
                )
            })
        }
    };
    answer(request, chosen, decided.by, decided.question)
}

/// The request as people are asked it; nothing where the agent takes no answer that is known here.
pub(super) fn asked(request: &RequestPermissionRequest) -> Option<Request> {
    let options: Vec<(ChoiceKind, String)> = request
        .options
        .iter()
        .take(MOST_OPTIONS)
        // Places count, so nothing in the middle is left out.
        .map_while(|option| Some((choice_kind(option.kind)?, option.name.clone())))
        .collect();
    let input = request.tool_call.fields.raw_input.as_ref();
    let mut detail = input.map(ToString::to_string).unwrap_or_default();
    detail.truncate(detail.floor_char_boundary(LONGEST_DETAIL));
    (!options.is_empty()).then(|| Request {
        title: request.tool_call.fields.title.clone().unwrap_or_default(),
        detail,
        options,
    })
}

fn by_kind<'a>(request: &'a RequestPermissionRequest, kinds: &[PermissionOptionKind]) -> Option<&'a PermissionOption> {
    kinds
        .iter()
        .find_map(|kind| request.options.iter().find(|option| option.kind == *kind))
}

fn answer(
    request: &RequestPermissionRequest,
    chosen: Option<&PermissionOption>,
    by: DecidedBy,
    question: Option<String>,
) -> (RequestPermissionResponse, EventBody) {
    let title = request.tool_call.fields.title.clone().unwrap_or_default();
    let (outcome, answer) = match chosen {
        Some(option) => (
            RequestPermissionOutcome::Selected(SelectedPermissionOutcome::new(option.option_id.clone())),
            choice_kind(option.kind).map_or("other", ChoiceKind::as_str),
        ),
        None => (RequestPermissionOutcome::Cancelled, "cancelled"),
    };
    let event = EventBody::AgentPermission {
        title: title.chars().take(500).collect(),
        answer: answer.to_owned(),
        by,
        question,
    };
    (RequestPermissionResponse::new(outcome), event)
}

/// The kinds of the protocol's first version; a later one's is none that anybody here could judge.
fn choice_kind(kind: PermissionOptionKind) -> Option<ChoiceKind> {
    match kind {
        PermissionOptionKind::AllowOnce => Some(ChoiceKind::AllowOnce),
        PermissionOptionKind::AllowAlways => Some(ChoiceKind::AllowAlways),
        PermissionOptionKind::RejectOnce => Some(ChoiceKind::RejectOnce),
        PermissionOptionKind::RejectAlways => Some(ChoiceKind::RejectAlways),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(options: serde_json::Value) -> RequestPermissionRequest {
        serde_json::from_value(json!({
            "sessionId": "s",
            "toolCall": {"toolCallId": "t", "title": "rm", "rawInput": {"command": "rm -r x"}},
            "options": options
        }))
        .unwrap()
    }

    fn said((response, event): (RequestPermissionResponse, EventBody)) -> (serde_json::Value, String) {
        let EventBody::AgentPermission { answer, .. } = event else {
            panic!("not a permission event")
        };
        (serde_json::to_value(response).unwrap()["outcome"].clone(), answer)
    }

    #[test]
    fn chooses_by_kind_and_the_narrower_one() {
        let (outcome, word) = said(decide(&request(json!([
            {"optionId": "0", "name": "yes, always", "kind": "allow_always"},
            {"optionId": "reject", "name": "allow", "kind": "reject_once"},
            {"optionId": "9", "name": "no", "kind": "allow_once"},
        ]))));
        assert_eq!((outcome["optionId"].as_str(), word.as_str()), (Some("9"), "allow_once"));
    }

    #[test]
    fn without_an_allowing_option_nothing_is_allowed() {
        let only = request(json!([{"optionId": "a", "name": "allow", "kind": "reject_always"}]));
        let (outcome, word) = said(decide(&only));
        assert_eq!(
            (outcome["outcome"].as_str(), word.as_str()),
            (Some("cancelled"), "cancelled")
        );
        assert_eq!(said(decide(&request(json!([])))).1, "cancelled");
        assert_eq!(asked(&request(json!([]))), None);
    }

    #[test]
    fn what_people_choose_is_given_back_and_their_silence_refuses() {
        let request = request(json!([
            {"optionId": "x", "name": "Always", "kind": "allow_always"},
            {"optionId": "y", "name": "No, never", "kind": "reject_always"},
            {"optionId": "z", "name": "No", "kind": "reject_once"},
        ]));
        let shown = asked(&request).unwrap();
        assert_eq!(
            (shown.title.as_str(), shown.detail.as_str()),
            ("rm", r#"{"command":"rm -r x"}"#)
        );
        assert_eq!(shown.options[1], (ChoiceKind::RejectAlways, "No, never".to_owned()));
        let of = |option, by| {
            said(decided(
                &request,
                Decided {
                    option,
                    by,
                    question: None,
                },
            ))
        };
        assert_eq!(of(Some(0), DecidedBy::Answer).0["optionId"], "x");
        // The narrower refusal.
        assert_eq!(of(None, DecidedBy::Deadline).0["optionId"], "z");
        assert_eq!(of(None, DecidedBy::Bound).1, "reject_once");
        assert_eq!(of(None, DecidedBy::End).0["outcome"], "cancelled");
        assert_eq!(
            of(Some(7), DecidedBy::Answer).0["optionId"],
            "z",
            "no such option is no leave"
        );
    }
}
