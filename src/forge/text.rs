//! Text that a forge answered, made safe to show, log and hand on: one bounded line without control characters or known secrets. Pure.
//!
//! Never returns more than its bound, and never fails: what cannot be understood is described.

mod untrusted;

use serde_json::Value;
use url::Url;

use crate::secret::Mask;
use untrusted::is_hidden;
pub(super) use untrusted::{hunks, labels, line, paragraphs, word};

/// Longest detail in an error, in characters.
pub(super) const LONGEST_DETAIL: usize = 300;

/// Longest name or address that is taken over.
const LONGEST_NAME: usize = 200;

/// Deepest nesting of an error body that is read.
const DEEPEST: usize = 4;

/// One line: control and direction characters become spaces, runs of white space one space, at most `most` characters.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let mut line = String::new();
    let mut length = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control() || is_hidden(c)) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
            length += 1;
        }
        for character in word.chars() {
            if length >= most {
                // A space between words may stand beyond the bound already.
                let kept: String = line.chars().take(most.saturating_sub(1)).collect();
                return format!("{kept}…");
            }
            line.push(character);
            length += 1;
        }
    }
    line
}

/// One masked, bounded line.
pub(super) fn clean(text: &str, mask: &Mask) -> String {
    masked_line(text, LONGEST_DETAIL, mask)
}

/// One line of what is readable; then masked, so that nothing hidden parts a secret; then cut, so that none is left half readable.
pub(super) fn masked_line(text: &str, most: usize, mask: &Mask) -> String {
    one_line(&mask.apply(&one_line(text, usize::MAX)), most)
}

/// What an error body says, whichever of the forges' envelopes it uses.
pub(super) fn detail(body: &[u8], mask: &Mask) -> String {
    let text = String::from_utf8_lossy(body);
    let said = match serde_json::from_str::<Value>(&text) {
        Ok(value) => envelope(&value),
        Err(_) if looks_like_html(&text) => html(&text, mask),
        Err(_) => text.into_owned(),
    };
    clean(&said, mask)
}

/// Whether a body is a page for people.
pub(super) fn looks_like_html(text: &str) -> bool {
    text.trim_start().starts_with('<')
}

fn html(text: &str, mask: &Mask) -> String {
    let lower = text.to_ascii_lowercase();
    let title = lower
        .find("<title>")
        .and_then(|start| Some((start + 7, lower.find("</title>").filter(|end| *end >= start + 7)?)))
        .and_then(|(start, end)| text.get(start..end));
    match title {
        Some(title) => format!("an HTML page titled \"{}\"", masked_line(title, 100, mask)),
        None => "an HTML page".to_owned(),
    }
}

/// The words of an error object: `error` with its description, else `message` with what it lists.
fn envelope(value: &Value) -> String {
    let Value::Object(fields) = value else {
        return flat(value, 0);
    };
    let mut parts: Vec<String> = ["error", "error_description", "message", "errors"]
        .iter()
        .filter_map(|name| fields.get(*name))
        .map(|part| flat(part, 0))
        .filter(|part| !part.is_empty())
        .collect();
    parts.dedup();
    if parts.is_empty() {
        flat(value, 0)
    } else {
        parts.join(": ")
    }
}

fn flat(value: &Value, depth: usize) -> String {
    if depth > DEEPEST {
        return String::new();
    }
    let join = |parts: Vec<String>, between: &str| {
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(between)
    };
    match value {
        Value::Null => String::new(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => join(items.iter().take(20).map(|item| flat(item, depth + 1)).collect(), "; "),
        Value::Object(fields) => match fields.get("message") {
            // One entry of a list of errors: its own sentence says more than its codes.
            Some(message) if depth > 0 => flat(message, depth + 1),
            _ => join(
                fields
                    .iter()
                    .take(20)
                    .map(|(name, item)| format!("{name} {}", flat(item, depth + 1)))
                    .collect(),
                ", ",
            ),
        },
    }
}

/// A person's name fit for a commit: one line without the characters that delimit the e-mail address.
pub(super) fn person(text: &str) -> String {
    one_line(&text.replace(['<', '>'], " "), LONGEST_NAME)
}

/// An e-mail address fit for a commit, or nothing.
pub(super) fn email(text: &str) -> Option<String> {
    let text = text.trim();
    let bad = |c: char| c.is_whitespace() || c.is_control() || is_hidden(c) || matches!(c, '<' | '>' | ',');
    let (local, domain) = text.rsplit_once('@')?;
    let usable = !local.is_empty() && !domain.is_empty() && text.len() <= LONGEST_NAME && !text.contains(bad);
    usable.then(|| text.to_owned())
}

/// An address that people can be sent to, or nothing.
pub(super) fn web_address(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let usable = text.len() <= 2048
        && matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none();
    usable.then(|| url.to_string())
}

/// The text of a change request, cut at a line when the forge would refuse its length (counted in UTF-16 units, the larger count).
pub(super) fn description(text: &str, most: usize) -> String {
    const NOTE: &str = "\n\n_(Cut here: the text is longer than the forge accepts.)_";
    if text.encode_utf16().count() <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub(NOTE.len());
    let mut used = 0;
    let end = text
        .char_indices()
        .find(|(_, character)| {
            used += character.len_utf16();
            used > room
        })
        .map_or(text.len(), |(end, _)| end);
    let kept = &text[..end];
    let kept = kept.rsplit_once('\n').map_or(kept, |(lines, _)| lines);
    format!("{kept}{NOTE}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{MASKED, Secret};

    fn said(body: &str) -> String {
        detail(body.as_bytes(), &Mask::default())
    }

    #[test]
    fn every_envelope_gives_its_words() {
        for (body, expected) in [
            (r#"{"message":"404 Project Not Found"}"#, "404 Project Not Found"),
            (r#"{"message":["Another one: !1"]}"#, "Another one: !1"),
            (
                r#"{"message":{"source_branch":["does not exist"]}}"#,
                "source_branch does not exist",
            ),
            (
                r#"{"message":{"name":["taken"],"path":["taken","bad"]}}"#,
                "name taken, path taken; bad",
            ),
            (r#"{"message":{"error":"Try again later."}}"#, "error Try again later."),
            (r#"{"error":"title is missing"}"#, "title is missing"),
            (
                r#"{"error":"invalid_token","error_description":"Token was revoked."}"#,
                "invalid_token: Token was revoked.",
            ),
            (
                r#"{"message":"Validation Failed","errors":[{"resource":"P","code":"custom","message":"No commits"}]}"#,
                "Validation Failed: No commits",
            ),
            (
                r#"{"message":"Validation Failed","errors":[{"code":"invalid","field":"head"},"plain"]}"#,
                "Validation Failed: code invalid, field head; plain",
            ),
            ("Retry later\n", "Retry later"),
            (
                "<html><head><TITLE>502 Bad\nGateway</TITLE>",
                "an HTML page titled \"502 Bad Gateway\"",
            ),
            ("<!DOCTYPE html><p>x", "an HTML page"),
            ("</title><title>", "an HTML page"),
            ("", ""),
            ("[]", ""),
            (r#"{"message":"#, r#"{"message":"#),
        ] {
            assert_eq!(said(body), expected, "{body}");
        }
    }

    #[test]
    fn details_are_bounded_lines_without_secrets() {
        let mask = Mask::new([&Secret::new("glpat-0123456789")]);
        let long = format!("{} glpat-0123456789 tail", "x".repeat(LONGEST_DETAIL - 8));
        let cut = clean(&long, &mask);
        assert!(!cut.contains("glpat") && cut.chars().count() <= LONGEST_DETAIL, "{cut}");
        assert_eq!(
            clean("a\u{1b}[2J\r\nb\u{202e}c\0 glpat-0123456789", &mask),
            format!("a [2J b c {MASKED}")
        );
        // Found by fuzzing: a space at the bound made it one too long.
        assert_eq!(one_line("abc def", 3), "ab…");
        assert_eq!(one_line("abc def", 4), "abc…");
        let nested = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        assert_eq!(said(&nested), "");
        assert!(said(&"[".repeat(100_000)).chars().count() <= LONGEST_DETAIL);
        assert_eq!(detail(&[0xff, 0xfe, b'a'], &mask), "\u{fffd}\u{fffd}a");
    }

    #[test]
    fn no_text_is_cut_or_put_together_after_it_was_masked() {
        let mask = Mask::new([&Secret::new("glpat-0123456789abcdef")]);
        let titled = format!("<html><title>{} glpat-0123456789abcdef</title>", "x".repeat(86));
        let said = detail(titled.as_bytes(), &mask);
        assert!(!said.contains("glpat"), "{said}");
        for parted in [
            "glpat-01\u{200b}23456789abcdef",
            "glpat-01\u{0}23456789abcdef",
            "glpat-01\u{2060}2345\n6789abcdef",
        ] {
            assert_eq!(
                clean(&format!("a {parted} b"), &mask),
                format!("a {MASKED} b"),
                "{parted:?}"
            );
        }
    }

    #[test]
    fn people_cannot_smuggle_delimiters_into_commits() {
        assert_eq!(
            person("Ann <evil@x>\nCo-authored-by: B"),
            "Ann evil@x Co-authored-by: B"
        );
        assert_eq!(email(" ann@example.org ").as_deref(), Some("ann@example.org"));
        for bad in ["", "@", "ann", "a@b>\nx", "a b@c", "<a@b>"] {
            assert_eq!(email(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_web_addresses_are_shown() {
        assert_eq!(web_address("https://h/a").as_deref(), Some("https://h/a"));
        for bad in ["javascript:alert(1)", "https://u:p@h/", "x", "file:///etc"] {
            assert_eq!(web_address(bad), None, "{bad}");
        }
    }

    #[test]
    fn pitfall_18_long_descriptions_are_cut_at_a_line() {
        let text = "ä 🦀 line\n".repeat(100);
        let cut = description(&text, 200);
        assert!(cut.encode_utf16().count() <= 200 && cut.contains("Cut here"), "{cut}");
        assert!(cut.starts_with("ä 🦀 line\nä"));
        assert_eq!(description("short", 200), "short");
    }
}
