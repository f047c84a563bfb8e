//! A parser's words without what its sender wrote: which type stood there, and what is expected. Pure.
//!
//! Only sentences whose form is known are passed on, and of those only the parts that no sender can choose. A name is repeated when it looks
//! like a name; a token does not.

use std::borrow::Cow;

use super::super::host::NotAHost;

/// Longest name that is repeated.
const LONGEST_NAME: usize = 24;
/// What stands for anything else.
const HIDDEN: &str = "…";
/// The types as serde calls them.
const TYPES: [&str; 9] = [
    "boolean",
    "integer",
    "floating point",
    "string",
    "null",
    "unit value",
    "map",
    "sequence",
    "Option value",
];

/// Whether a text is a name and no token: short words of lower-case letters, at most two digits at the end of each.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    let word = |word: &str| {
        let letters = word.trim_end_matches(|c: char| c.is_ascii_digit());
        word.len() - letters.len() <= 2 && letters.bytes().all(|b| b.is_ascii_lowercase())
    };
    !text.is_empty() && text.len() <= LONGEST_NAME && text.split(['-', '_']).all(word)
}

/// The same of a variable's name, in capitals.
pub(super) fn is_plain_variable(text: &str) -> bool {
    let capitals = text
        .bytes()
        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    capitals
        && text
            .split('_')
            .all(|word| word.is_empty() || is_plain(&word.to_ascii_lowercase()))
        && text.len() <= 64
}

/// A name as it may be repeated: a word in small letters, or a variable's.
#[must_use]
pub fn shown(name: &str) -> &str {
    if is_plain(name) || is_plain_variable(name) {
        name
    } else {
        HIDDEN
    }
}

/// A place in a document, with its names as they may be repeated.
pub(super) fn place(path: &str) -> String {
    let part = |part: &str| {
        let (name, index) = part.split_at(part.find('[').unwrap_or(part.len()));
        let counted = index.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'[' | b']'));
        let named = name.is_empty() || matches!(name, "?") || is_plain(name) || is_plain_variable(name);
        if counted && named {
            part.to_owned()
        } else {
            HIDDEN.to_owned()
        }
    };
    path.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// The sentence, or a general one where its form is not known.
pub(super) fn without_values(words: &str) -> String {
    known(words).map_or_else(|| "it has not the form that is expected".to_owned(), Cow::into_owned)
}

fn known(words: &str) -> Option<Cow<'_, str>> {
    // What is expected is ours, so the last such word begins it, whatever the sender wrote.
    let expected = || words.rfind(", expected ").map(|at| &words[at..]);
    for begin in ["invalid type: ", "invalid value: "] {
        if let Some(rest) = words.strip_prefix(begin) {
            let kind = TYPES.iter().find(|kind| rest.starts_with(**kind)).unwrap_or(&"another");
            return Some(format!("{begin}{kind}{}", expected()?).into());
        }
    }
    if words.starts_with("unknown variant `") {
        return Some(format!("unknown word{}", expected()?).into());
    }
    if let Some(rest) = words.strip_prefix("unknown field `") {
        let tail = expected().or_else(|| {
            words
                .ends_with(", there are no fields")
                .then_some(", there are no fields")
        })?;
        let name = rest.strip_suffix(tail)?.strip_suffix('`')?;
        return Some(format!("unknown field `{}`{tail}", shown(name)).into());
    }
    if words.starts_with("missing field `") || words == "a name stands twice in one object" {
        return Some(words.into());
    }
    if let Some(rest) = words.strip_prefix("invalid length ") {
        let (count, _) = rest.split_once(',')?;
        return count
            .parse::<usize>()
            .ok()
            .and_then(|_| Some(format!("invalid length{}", expected()?).into()));
    }
    // Of the names of `id`: what kind, and its rule.
    if let Some(rule) = words.rfind(" is not valid: ") {
        let (what, _) = words.split_once(" \"")?;
        let ours = what.len() <= 20 && what.bytes().all(|b| b.is_ascii_lowercase() || b == b' ');
        return ours.then(|| format!("the {what}{}", &words[rule..]).into());
    }
    let hosts = [NotAHost::Address, NotAHost::Form, NotAHost::Port];
    let host = hosts.iter().find(|one| one.to_string() == words);
    host.map(|one| one.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "Opaque7Canary9Tok";

    #[test]
    fn names_are_told_from_tokens() {
        for name in [
            "projekts",
            "lab",
            "lab2",
            "gitlab-11",
            "mixed_visibility",
            "idle_timeout_s",
        ] {
            assert!(is_plain(name), "{name}");
        }
        for token in [
            CANARY,
            "opaque7canary9tok",
            "0a1b2c3d4e5f",
            "a b",
            "",
            "a123",
            "x.y",
            "abcdefghijklmnopqrstuvwxyz",
        ] {
            assert!(!is_plain(token), "{token}");
        }
        assert!(
            is_plain_variable("COFFERDAM_TOKEN_ADA2") && !is_plain_variable("Path") && !is_plain_variable("A1B2C3")
        );
    }

    #[test]
    fn no_value_is_repeated_in_whatever_sentence() {
        for (words, told) in [
            (
                format!("invalid type: string \"{CANARY}, expected {CANARY}\", expected struct X"),
                "invalid type: string, expected struct X",
            ),
            (
                format!("invalid value: string \"{CANARY}\", expected u32"),
                "invalid value: string, expected u32",
            ),
            (
                format!("unknown variant `{CANARY}`, expected `a` or `b`"),
                "unknown word, expected `a` or `b`",
            ),
            (
                format!("unknown field `{CANARY}`, expected `a` or `b`"),
                "unknown field `…`, expected `a` or `b`",
            ),
            (
                "unknown field `projekts`, expected `a`".to_owned(),
                "unknown field `projekts`, expected `a`",
            ),
            (
                format!("unknown field `{CANARY}`, there are no fields"),
                "unknown field `…`, there are no fields",
            ),
            (
                format!("branch name \"{CANARY}\" is not valid: at most 200"),
                "the branch name is not valid: at most 200",
            ),
            ("missing field `session`".to_owned(), "missing field `session`"),
            (
                format!("something new about {CANARY}"),
                "it has not the form that is expected",
            ),
        ] {
            assert_eq!(without_values(&words), told);
        }
        assert_eq!(place("connections.lab.url"), "connections.lab.url");
        assert_eq!(place("projects[0].path"), "projects[0].path");
        assert_eq!(place(&format!("connections.{CANARY}.x.y[1]")), "connections.….x.y[1]");
    }
}
