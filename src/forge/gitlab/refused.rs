//! What GitLab's refusals mean: the status first, the words second. Pure.

use serde_json::Value;

use crate::forge::ForgeError;
use crate::forge::http::{Answer, Api, Asked};
use crate::forge::refusal::Marker;
use crate::forge::text::{clean, looks_like_html};

/// The error for a refused request; `what` names the thing that was asked for.
pub(super) fn error(api: &Api, asked: Asked, what: &str, answer: &Answer) -> ForgeError {
    let instance = api.address.instance.clone();
    let act = asked.act.to_owned();
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let word = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    match answer.status.as_u16() {
        401 if looks_like_html(&String::from_utf8_lossy(&answer.body)) => api.login_page(asked, answer),
        401 => {
            let description = word("error_description").to_ascii_lowercase();
            if description.contains("revoked") {
                ForgeError::TokenRevoked { instance }
            } else if description.contains("expired") {
                ForgeError::TokenExpired { instance }
            } else {
                ForgeError::TokenInvalid { instance }
            }
        }
        403 if word("error") == "insufficient_scope" => {
            let named: Vec<&str> = word("scope").split_whitespace().collect();
            let needs = match named.as_slice() {
                [] => "the scope api".to_owned(),
                [one] => format!("the scope {one}"),
                several => format!("one of the scopes {}", several.join(", ")),
            };
            let needs = clean(&needs, &api.mask);
            ForgeError::ScopeMissing { instance, act, needs }
        }
        404 => ForgeError::NotFound {
            instance,
            what: what.to_owned(),
        },
        _ => ForgeError::Refused {
            instance,
            act,
            detail: api.detail(answer),
        },
    }
}

/// GitLab limits the rate by the status 429 alone.
pub(in crate::forge) fn limits_rate(_: &Answer) -> bool {
    false
}

/// Why a merge request was not created, where something can be done about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotCreated {
    /// An open one exists; its number where the answer tells it.
    Exists(Option<u64>),
    /// The branch was pushed a moment ago and is not seen yet.
    BranchUnseen,
    /// Anything else.
    Other,
}

/// Reads why a merge request was not created.
pub(super) fn not_created(answer: &Answer) -> NotCreated {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    match answer.status.as_u16() {
        409 => NotCreated::Exists(number_in(&String::from_utf8_lossy(&answer.body))),
        400 if body.pointer("/message/source_branch").is_some() => NotCreated::BranchUnseen,
        _ => NotCreated::Other,
    }
}

/// The number of the first `!N` in a text.
fn number_in(text: &str) -> Option<u64> {
    text.split('!').skip(1).find_map(|after| {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        after[..end].parse().ok()
    })
}

/// What GitLab prints when it refuses a push.
pub(in crate::forge) const PUSH_MARKERS: &[(Marker, &str)] = &[
    (Marker::SecretFound, "push blocked: secrets detected"),
    (Marker::SecretFound, "secret push protection found"),
    (Marker::ForcePush, "not allowed to force push"),
    (Marker::Protected, "protected branch"),
    (Marker::Protected, "default branch of a project cannot be deleted"),
    (Marker::PushRule, "does not follow the pattern"),
    (Marker::PushRule, "you cannot push commits for"),
    (Marker::PushRule, "is not a member of team"),
    (Marker::PushRule, "40-character hexadecimal branch name"),
    (Marker::PushRule, "lfs objects are missing"),
    (Marker::NotAllowed, "not allowed to upload code"),
    (Marker::NotAllowed, "not allowed to download code"),
    (Marker::NotAllowed, "not allowed to push code"),
    (Marker::NotAllowed, "http basic: access denied"),
    (Marker::NotAllowed, "project you were looking for could not be found"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: http::StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn pitfall_03_the_status_first_and_the_words_second() {
        for (status, body, expected) in [
            (
                409,
                r#"{"message":["Another open merge request already exists for this source branch: !59"]}"#,
                NotCreated::Exists(Some(59)),
            ),
            (409, r#"{"message":"Oh no! None"}"#, NotCreated::Exists(None)),
            (409, "!99999999999999999999999", NotCreated::Exists(None)),
            (
                400,
                r#"{"message":{"source_branch":["does not exist"]}}"#,
                NotCreated::BranchUnseen,
            ),
            (400, r#"{"error":"title is missing"}"#, NotCreated::Other),
            (422, "<html>", NotCreated::Other),
        ] {
            assert_eq!(not_created(&answer(status, body)), expected, "{body}");
        }
    }
}
