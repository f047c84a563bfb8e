//! What is taken out of a message before it is shown or kept: tokens in clear. Pure.
//!
//! Never changes a body that holds none: what is dead-lettered is then what was sent, byte for byte.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::bytes::Regex;
use serde_json::Value;

use super::task::LARGEST_TASK;
use crate::secret::{MASKED, without_token_shapes};

/// What a sender is told of a credential that cannot be read; the parser's own words would repeat it.
pub(super) const CREDENTIAL: &str = "a credential is one of {\"sealed\": TEXT}, {\"file\": NAME}, {\"env\": NAME} and {\"plain\": TOKEN}; what stands there is not repeated here";

/// A parser's words about a field, as they may be told.
pub(super) fn detail(path: &str, words: &str) -> String {
    if path.split('.').any(|part| part == "credential") {
        return CREDENTIAL.to_owned();
    }
    let words: String = words.chars().take(300).collect();
    match without_token_shapes(words.as_bytes()) {
        Some(masked) => String::from_utf8_lossy(&masked).into_owned(),
        None => words,
    }
}

/// A message's body as it may lie in the dead-letter queue: without plain credentials, and without what looks like a token.
#[must_use]
pub fn body(body: &[u8]) -> Cow<'_, [u8]> {
    // Larger ones are no task, and a tree of one could be many times its size.
    let parsed = if body.len() <= LARGEST_TASK {
        serde_json::from_slice::<Value>(body).ok()
    } else {
        None
    };
    let without_plain = match parsed {
        Some(mut value) => credentials(&mut value, false).then(|| value.to_string().into_bytes()),
        None => by_words(body),
    };
    let shown = without_plain.as_deref().unwrap_or(body);
    match (without_token_shapes(shown), without_plain) {
        (Some(masked), _) => Cow::Owned(masked),
        (None, Some(redacted)) => Cow::Owned(redacted),
        (None, None) => Cow::Borrowed(body),
    }
}

/// Masks every text in a credential but the sealed one and the names; says whether there was any.
fn credentials(value: &mut Value, inside: bool) -> bool {
    match value {
        Value::Object(fields) => {
            let mut found = false;
            for (name, field) in fields.iter_mut() {
                let named = inside && matches!(name.as_str(), "sealed" | "file" | "env");
                let within = name == "credential" || name == "plain" || (inside && !named);
                found |= credentials(field, within);
            }
            found
        }
        Value::Array(items) => items
            .iter_mut()
            .fold(false, |found, item| credentials(item, inside) | found),
        Value::String(text) if inside => {
            zeroize::Zeroize::zeroize(text);
            MASKED.clone_into(text);
            true
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A pattern of ours that does not compile finds nothing; a test shows that it finds.
static PLAIN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let text = r#""(?:[^"\\]|\\.)*"?"#;
    Regex::new(&format!(r#"(?s-u)("plain"\s*:\s*|"credential"\s*:\s*){text}"#)).ok()
});

/// The same in what is no JSON: by the name that stands before it.
fn by_words(body: &[u8]) -> Option<Vec<u8>> {
    match PLAIN.as_ref()?.replace_all(body, &b"$1\"[MASKED]\""[..]) {
        Cow::Borrowed(_) => None,
        Cow::Owned(redacted) => Some(redacted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str) -> String {
        String::from_utf8(body(text.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn a_body_without_tokens_is_kept_as_it_is() {
        for text in [
            "no task {",
            r#"{"version": 1,   "connections": {"lab": {"credential": {"file": "ada"}}}}"#,
            r#"{"connections": {"lab": {"credential": {"sealed": "-----BEGIN AGE"}}}, "prompt": "a plain word"}"#,
            r#"{"prompt": "the \"plain\" truth"}"#,
        ] {
            assert!(matches!(body(text.as_bytes()), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn tokens_are_taken_out_wherever_a_sender_puts_them() {
        for text in [
            r#"{"connections": {"lab": {"credential": {"plain": "canary"}}}}"#,
            r#"{"connections": {"lab": {"credential": "canary"}}}"#,
            r#"{"connections": {"lab": {"credential": {"plian": ["canary"]}}}}"#,
            r#"{"version": 1, "kind": "credential", "credential": {"\u0070lain": "canary"}}"#,
            r#"{"version": 9, "credential": {"plain": "can\u0061ry"}}"#,
            r#"{"connections": {"lab": {"credential": {"plain": "canary"}}}, oops"#,
            r#"{"credential": {"plain": "canary"#,
            r#"{"credential" : "canary" "#,
            r#"{"prompt": "use glpat-canary-0123456789-0123"}"#,
            "glpat-canary-0123456789-0123 and no JSON",
        ] {
            let shown = redacted(text);
            assert!(!shown.contains("canary") && !shown.contains("can\\u0061ry"), "{shown}");
            assert!(shown.contains(MASKED), "{shown}");
        }
    }

    #[test]
    fn what_is_too_large_to_be_a_task_is_searched_by_words() {
        let mut text = " ".repeat(LARGEST_TASK);
        text.push_str(r#"{"credential": {"plain": "canary"}}"#);
        assert!(!redacted(&text).contains("canary"));
    }
}
