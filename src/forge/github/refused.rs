//! What GitHub's refusals mean: the status first, the words second. Pure.

use serde_json::Value;

use crate::forge::ForgeError;
use crate::forge::http::{Answer, Api, Asked};
use crate::forge::refusal::Marker;
use crate::forge::text::{clean, looks_like_html};

/// The error for a refused request; `what` names the thing that was asked for.
pub(super) fn error(api: &Api, asked: Asked, what: &str, answer: &Answer) -> ForgeError {
    let instance = api.address.instance.clone();
    let act = asked.act.to_owned();
    match answer.status.as_u16() {
        401 if looks_like_html(&String::from_utf8_lossy(&answer.body)) => api.login_page(asked, answer),
        401 => ForgeError::TokenInvalid { instance },
        403 if message(answer).contains("resource not accessible by") => {
            let named = header(answer, "x-accepted-github-permissions");
            let needs = if named.is_empty() {
                "a permission that it was not given".to_owned()
            } else {
                clean(&format!("the permission {named}"), &api.mask)
            };
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

/// Whether a 403 is a rate limit: the primary one names no requests left, the secondary one says so in words.
pub(in crate::forge) fn limits_rate(answer: &Answer) -> bool {
    if answer.status.as_u16() != 403 {
        return false;
    }
    let message = message(answer);
    header(answer, "x-ratelimit-remaining") == "0"
        || !header(answer, "retry-after").is_empty()
        || message.contains("rate limit")
        || message.contains("abuse detection")
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer
        .headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::trim)
        .unwrap_or_default()
}

fn message(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let said = body.get("message").and_then(Value::as_str).unwrap_or_default();
    said.to_ascii_lowercase()
}

/// Why a pull request was not created, where something can be done about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotCreated {
    /// An open one exists.
    Exists,
    /// The branch was pushed a moment ago and is not seen yet.
    BranchUnseen,
    /// This repository has no drafts.
    NoDrafts,
    /// Anything else.
    Other,
}

/// Reads why a pull request was not created.
pub(super) fn not_created(answer: &Answer) -> NotCreated {
    if answer.status.as_u16() != 422 {
        return NotCreated::Other;
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let errors = body
        .get("errors")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let any = |name: &str, holds: &dyn Fn(&str) -> bool| {
        errors
            .iter()
            .any(|error| error.get(name).and_then(Value::as_str).is_some_and(holds))
    };
    if any("message", &|said| said.to_ascii_lowercase().contains("already exists")) {
        NotCreated::Exists
    } else if message(answer).contains("draft")
        || any("message", &|said| said.to_ascii_lowercase().contains("draft pull"))
    {
        NotCreated::NoDrafts
    } else if any("field", &|field| field == "head") && any("code", &|code| code == "invalid") {
        NotCreated::BranchUnseen
    } else {
        NotCreated::Other
    }
}

/// What GitHub prints when it refuses a push.
pub(in crate::forge) const PUSH_MARKERS: &[(Marker, &str)] = &[
    (Marker::SecretFound, "github push protection"),
    (Marker::SecretFound, "push cannot contain secrets"),
    (Marker::WorkflowScope, "create or update workflow"),
    (Marker::ForcePush, "gh003"),
    (Marker::ForcePush, "force-pushing"),
    (Marker::Protected, "gh006"),
    (Marker::Protected, "protected branch"),
    (Marker::PushRule, "gh013"),
    (Marker::PushRule, "repository rule violations"),
    (Marker::NotAllowed, "write access to repository not granted"),
    (Marker::NotAllowed, "invalid username or"),
    (Marker::NotAllowed, "repository not found"),
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
        for (body, expected) in [
            (
                r#"{"message":"Validation Failed","errors":[{"code":"custom","message":"A pull request already exists for o:b."}]}"#,
                NotCreated::Exists,
            ),
            (
                r#"{"message":"Draft pull requests are not supported in this repository."}"#,
                NotCreated::NoDrafts,
            ),
            (
                r#"{"message":"Validation Failed","errors":[{"field":"head","code":"invalid"}]}"#,
                NotCreated::BranchUnseen,
            ),
            (
                r#"{"message":"Validation Failed","errors":[{"code":"custom","message":"No commits between main and f"}]}"#,
                NotCreated::Other,
            ),
            (r#"{"message":"Validation Failed","errors":"odd"}"#, NotCreated::Other),
            ("<html>", NotCreated::Other),
        ] {
            assert_eq!(not_created(&answer(422, body)), expected, "{body}");
        }
        assert_eq!(not_created(&answer(403, r#"{"message":"draft"}"#)), NotCreated::Other);
    }
}
