//! What is taken out of a message before it is shown or kept: tokens in clear. Pure.
//!
//! A token has no form that could be known, so what may stay is listed, not what must go. A body that is no readable document is not kept at
//! all. Never changes a body in which nothing had to go: that one is kept byte for byte.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::bytes::Regex;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::id::SessionId;
use super::task::LARGEST_TASK;
use super::tree;
use crate::secret::without_token_shapes;

mod kept;
mod words;

pub use words::{is_plain, shown};

/// What a sender is told of a credential that cannot be read; the parser's own words would repeat it.
pub(super) const CREDENTIAL: &str = "a credential is one of {\"sealed\": TEXT}, {\"file\": NAME}, {\"env\": NAME} and {\"plain\": TOKEN}; what stands there is not repeated here";

/// A place in a document and a parser's words about it, as they may be told: no value is repeated, and no name that could be a token.
#[must_use]
pub fn told(path: &str, words: &str) -> (String, String) {
    let place = words::place(path);
    if path.split('.').any(|part| part == "credential") {
        return (place, CREDENTIAL.to_owned());
    }
    (place, words::without_values(words))
}

/// A parser's words without what the sender wrote.
pub(super) fn detail(words: &str) -> String {
    words::without_values(words)
}

/// A message's body as it may lie in the dead-letter queue: only what a token cannot hide in, or a note of what is not kept.
#[must_use]
pub fn body(body: &[u8]) -> Cow<'_, [u8]> {
    // Larger ones are no task, and a tree of one could be many times its size.
    if body.len() > LARGEST_TASK {
        return Cow::Owned(note(body, "it is larger than a task may be"));
    }
    let Ok(value) = tree::parse(body) else {
        return Cow::Owned(note(body, "it is no JSON whose objects have every name once"));
    };
    let masked = kept::only(&value).map(|masked| masked.to_string().into_bytes());
    let shown = masked.as_deref().unwrap_or(body);
    match (without_token_shapes(shown), masked) {
        (Some(shapeless), _) => Cow::Owned(shapeless),
        (None, Some(masked)) => Cow::Owned(masked),
        (None, None) => Cow::Borrowed(body),
    }
}

/// What stands for a body that is not kept: enough to find its sender's copy.
fn note(body: &[u8], why: &str) -> Vec<u8> {
    let session = session_in(body).map(|session| session.to_string());
    json!({
        "not_kept": format!("the body is not kept, because nobody can tell where a token stands in it: {why}"),
        "session": session,
        "size": body.len(),
        "sha256": hex::encode(Sha256::digest(body)),
    })
    .to_string()
    .into_bytes()
}

/// A pattern of ours that does not compile finds nothing; a test shows that it finds.
static SESSION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?-u)\bsession["']?\s*[:=]\s*["']?([0-9A-Fa-f-]{32,36})\b"#).ok());

/// The session's id in what is no document, by the word before it.
fn session_in(body: &[u8]) -> Option<SessionId> {
    let found = SESSION.as_ref()?.captures(body)?;
    std::str::from_utf8(found.get(1)?.as_bytes()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
