//! What tokens of well-known services look like: a fixed beginning and a run of letters. Pure.
//!
//! For what nobody told us is a secret. Short on purpose: only beginnings that ordinary words do not have. Never the judge of what may be
//! published; the search before a publish has a list of its own.

use std::sync::LazyLock;

use regex::{Regex, bytes};

use super::MASKED;

/// The beginning, what must follow, and every character that may still belong to it.
struct Shape {
    begins: &'static [&'static str],
    body: &'static str,
    letters: &'static str,
}

const WORD: &str = "[A-Za-z0-9_-]";

const SHAPES: &[Shape] = &[
    // GitLab: personal, project and group, deploy, runner, trigger, feed, SCIM, OAuth, build, incoming mail, agent, feature flags, workspace.
    Shape {
        begins: &[
            "glpat-",
            "gldt-",
            "glrt-",
            "glrtr-",
            "glptt-",
            "glft-",
            "glsoat-",
            "gloas-",
            "glcbt-",
            "glimt-",
            "glagent-",
            "glffct-",
            "glwt-",
            "GR1348941",
        ],
        body: r"[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]+)*",
        letters: "[A-Za-z0-9_.-]",
    },
    // GitHub: classic, OAuth, user, server, refresh; fine-grained.
    Shape {
        begins: &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
        body: "[A-Za-z0-9_]{20,}",
        letters: "[A-Za-z0-9_]",
    },
    // Model providers.
    Shape {
        begins: &["sk-proj-", "sk-svcacct-", "sk-admin-", "sk-ant-", "sk-or-v1-"],
        body: "[A-Za-z0-9_-]{20,}",
        letters: WORD,
    },
    Shape {
        begins: &["sk-"],
        body: "[A-Za-z0-9]{48,}",
        letters: "[A-Za-z0-9]",
    },
    Shape {
        begins: &["AIza"],
        body: "[A-Za-z0-9_-]{35,}",
        letters: WORD,
    },
    Shape {
        begins: &["hf_"],
        body: "[A-Za-z0-9]{30,}",
        letters: "[A-Za-z0-9]",
    },
    // Registries, clouds, chat, payment.
    Shape {
        begins: &["npm_"],
        body: "[A-Za-z0-9]{36,}",
        letters: "[A-Za-z0-9]",
    },
    Shape {
        begins: &[
            "pypi-AgE", "dop_v1_", "xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xapp-", "sk_live_", "rk_live_",
        ],
        body: "[A-Za-z0-9_-]{20,}",
        letters: WORD,
    },
    Shape {
        begins: &["AKIA", "ASIA"],
        body: "[A-Z0-9]{16,}",
        letters: "[A-Z0-9]",
    },
    // A worker's own key.
    Shape {
        begins: &["AGE-SECRET-KEY-1"],
        body: "[A-Z0-9]{50,}",
        letters: "[A-Z0-9]",
    },
    // Signed tokens of three parts.
    Shape {
        begins: &["eyJ"],
        body: r"[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
        letters: "[A-Za-z0-9_.-]",
    },
];

fn pattern(of: impl Fn(&Shape) -> String) -> String {
    SHAPES.iter().map(of).collect::<Vec<_>>().join("|")
}

fn whole() -> String {
    pattern(|shape| format!("(?:{})(?:{})", shape.begins.join("|"), shape.body))
}

/// A pattern of ours that does not compile finds nothing; a test compiles them.
static WHOLE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(&whole()).ok());
static WHOLE_BYTES: LazyLock<Option<bytes::Regex>> =
    LazyLock::new(|| bytes::Regex::new(&format!("(?-u){}", whole())).ok());
/// What reaches the end of a text and may go on behind it.
static OPEN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let open = pattern(|shape| format!("(?:{}){}*", shape.begins.join("|"), shape.letters));
    Regex::new(&format!(r"(?:{open})\z")).ok()
});

/// Where tokens stand.
pub(super) fn found(text: &str) -> impl Iterator<Item = (usize, usize)> + '_ {
    let all = WHOLE.as_ref().map(|shapes| shapes.find_iter(text));
    all.into_iter().flatten().map(|one| (one.start(), one.end()))
}

/// Where at the end of a text a token begins, or may begin, that goes on behind it.
pub(super) fn open_at(text: &str) -> Option<usize> {
    let begun = OPEN.as_ref().and_then(|open| open.find(text)).map(|one| one.start());
    let begins = SHAPES.iter().flat_map(|shape| shape.begins.iter());
    let cut = begins.filter_map(|begin| {
        let longest = (1..begin.len())
            .rev()
            .find(|length| text.ends_with(&begin[..*length]))?;
        Some(text.len() - longest)
    });
    begun.into_iter().chain(cut).min()
}

/// Any bytes without what looks like a token; `None` where nothing does.
#[must_use]
pub fn without_token_shapes(text: &[u8]) -> Option<Vec<u8>> {
    let shapes = WHOLE_BYTES.as_ref()?;
    let replaced = shapes.replace_all(text, MASKED.as_bytes());
    match replaced {
        std::borrow::Cow::Borrowed(_) => None,
        std::borrow::Cow::Owned(text) => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_known_by_their_shape_and_words_are_not() {
        assert!(WHOLE.is_some() && WHOLE_BYTES.is_some() && OPEN.is_some());
        let long = "0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX2yZ3aB4cD5eF6gH7";
        let upper = long.to_ascii_uppercase();
        for begin in SHAPES.iter().flat_map(|shape| shape.begins) {
            let body = if begin.ends_with(|c: char| c.is_ascii_uppercase()) || begin.ends_with("KEY-1") {
                &upper
            } else {
                long
            };
            let token = match *begin {
                "eyJ" => format!("eyJ{long}.{long}.{long}"),
                _ => format!("{begin}{body}"),
            };
            assert_eq!(
                found(&format!("a {token} b")).next(),
                Some((2, 2 + token.len())),
                "{token}"
            );
            assert_eq!(open_at(&token), Some(0), "{token}");
        }
        for word in [
            "task-0123456789012345678901234567890123456789",
            "glpat-short",
            "the risk-assessment-of-a-very-long-hyphenated-name-in-the-text",
            "eyJhbGciOiJIUzI1NiJ9.only-two",
        ] {
            assert_eq!(found(word).next(), None, "{word}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_searched_too() {
        let body = b"{\"x\": \xff glpat-abcdefghij0123456789\"";
        assert_eq!(without_token_shapes(body).unwrap(), b"{\"x\": \xff [MASKED]\"");
        assert_eq!(without_token_shapes(b"nothing"), None);
    }
}
