//! Takes the teeth out of text that a model wrote before a forge renders it: mentions, references that close issues, quick actions,
//! images, raw HTML, hidden characters. Pure.
//!
//! Text in a fenced block at the margin is left readable, because forges do not interpret it; anything less certain counts as live text.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Breaks a token without changing how it looks.
const BREAK: char = '\u{200b}';

static MENTION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"@([\p{L}\p{N}_])").ok());
static REFERENCE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"([#!$&%~])(\d)").ok());
static CLOSING: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)\b([cfri])(los(?:e[sd]?|ing)|ix(?:e[sd]|ing)?|esolv(?:e[sd]?|ing)|mplement(?:s|ed|ing)?)(\s*:?\s+(?:issues?\s+)?(?:[\w./-]*[#!]\d|https?://|gh-\d|\[))")
        .ok()
});
static TAG: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"<([A-Za-z/!?])").ok());
static SHORT_REFERENCE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?i)\bGH-(\d)").ok());

/// The text, harmless.
#[must_use]
pub fn text(input: &str) -> String {
    let mut fence: Option<usize> = None;
    let mut out = String::with_capacity(input.len() + input.len() / 8);
    for line in visible(input).lines() {
        let ticks = line.bytes().take_while(|byte| *byte == b'`').count();
        match fence {
            Some(open) if ticks >= open && line[ticks..].trim().is_empty() => {
                fence = None;
                out.push_str(line);
            }
            Some(_) => out.push_str(&in_fence(line)),
            None if ticks >= 3 && !line[ticks..].contains('`') => {
                fence = Some(ticks);
                // The info string of a fence is shown nowhere, but some renderers interpret it.
                out.push_str(&line[..ticks]);
                out.extend(
                    line[ticks..]
                        .chars()
                        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+'))
                        .take(30),
                );
            }
            None => out.push_str(&live(line)),
        }
        out.push('\n');
    }
    if let Some(open) = fence {
        // What follows this text must not be swallowed by a fence that was left open.
        out.push_str(&"`".repeat(open));
        out.push('\n');
    }
    out.trim_end().to_owned()
}

/// One line for a title: no line breaks, bounded.
#[must_use]
pub fn title(input: &str, longest: usize) -> String {
    let flat = visible(input).split_whitespace().collect::<Vec<_>>().join(" ");
    let mut flat = flat.as_str();
    // A draft mark would decide more than a title may.
    for mark in ["draft:", "[draft]", "(draft)", "wip:", "[wip]"] {
        if flat
            .get(..mark.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(mark))
        {
            flat = flat[mark.len()..].trim_start();
        }
    }
    let cut: String = if flat.chars().count() > longest {
        flat.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
    } else {
        flat.to_owned()
    };
    live(&cut)
}

/// Without control, direction, zero-width and tag characters.
fn visible(input: &str) -> String {
    input
        .replace("\r\n", "\n")
        .chars()
        .filter(|c| {
            let hidden = matches!(*c,
                '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}'
                | '\u{e0000}'..='\u{e007f}' | '\u{fff9}'..='\u{fffb}');
            !hidden && (!c.is_control() || matches!(c, '\n' | '\t'))
        })
        .collect()
}

/// A line that a forge interprets.
fn live(line: &str) -> String {
    let mut line = line.replace("![", &format!("!{BREAK}["));
    line = replace(&TAG, &line, |found| format!("<{BREAK}{}", &found[1]));
    line = replace(&MENTION, &line, |found| format!("@{BREAK}{}", &found[1]));
    line = replace(&CLOSING, &line, |found| {
        format!("{}{BREAK}{}{}", &found[1], &found[2], &found[3])
    });
    line = replace(&REFERENCE, &line, |found| format!("{}{BREAK}{}", &found[1], &found[2]));
    line = replace(&SHORT_REFERENCE, &line, |found| format!("GH-{BREAK}{}", &found[1]));
    let indent = line.len() - line.trim_start().len();
    if line[indent..].starts_with('/') {
        line.insert(indent, '\\');
    }
    line
}

/// A line in a fence: only what acts on raw text, before any rendering, is broken.
fn in_fence(line: &str) -> String {
    if line.trim_start().starts_with('/') {
        format!("{BREAK}{line}")
    } else {
        line.to_owned()
    }
}

fn replace(pattern: &LazyLock<Option<Regex>>, line: &str, with: impl Fn(&Captures<'_>) -> String) -> String {
    match pattern.as_ref() {
        Some(pattern) => pattern
            .replace_all(line, |found: &Captures<'_>| with(found))
            .into_owned(),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patterns_compile() {
        for pattern in [&MENTION, &REFERENCE, &CLOSING, &TAG, &SHORT_REFERENCE] {
            assert!(pattern.is_some());
        }
    }

    #[test]
    fn mentions_references_and_closing_words_are_broken() {
        let got = text("cc @all and @ada. Closes #12, fixes: https://forge/x/issues/3, see !4 and GH-5");
        for live in ["@all", "@ada", "Closes", "#12", "fixes", "!4", "GH-5"] {
            assert!(!got.contains(live), "{live} in {got}");
        }
        assert_eq!(
            got.replace(BREAK, ""),
            "cc @all and @ada. Closes #12, fixes: https://forge/x/issues/3, see !4 and GH-5"
        );
    }

    #[test]
    fn quick_actions_are_broken_everywhere() {
        assert_eq!(text("/approve\n  /merge"), "\\/approve\n  \\/merge");
        let fenced = text("```\n/approve\n```\n/close");
        assert!(
            !fenced.lines().any(|line| line.trim_start().starts_with('/')),
            "{fenced}"
        );
    }

    #[test]
    fn images_and_html_are_broken_and_code_stays() {
        let got = text("![x](https://evil/?d=1) <img src=x> <!-- hidden --> a < b `x`");
        assert!(
            !got.contains("![") && !got.contains("<img") && !got.contains("<!--"),
            "{got}"
        );
        assert!(got.contains("a < b"));
        assert_eq!(
            text("```rust\nlet a = Vec::<u8>::new(); // @x\n```"),
            "```rust\nlet a = Vec::<u8>::new(); // @x\n```"
        );
    }

    #[test]
    fn a_doubtful_fence_is_live_text_and_an_open_one_is_closed() {
        for doubtful in ["- item\n  ```\n@all", "~~~\n@all\n~~~", "> ```\n> @all"] {
            assert!(!text(doubtful).contains("@all"), "{doubtful}");
        }
        assert!(text("```\nleft open").ends_with("```"));
        // A closing fence must be as long as the opening one.
        assert!(!text("````\n```\n````\n@all").contains("@all"));
    }

    #[test]
    fn hidden_characters_are_gone_and_titles_are_one_harmless_line() {
        assert_eq!(text("a\u{202e}b\u{e0041}c\u{1b}[31m\u{200b}"), "abc[31m");
        assert_eq!(title("Draft: WIP: fix\nit", 100), "fix it");
        assert_eq!(title("x".repeat(300).as_str(), 10).chars().count(), 10);
        assert!(!title("ping @all", 50).contains("@all"));
        assert_eq!(
            title("Fix the build, close the door", 50),
            "Fix the build, close the door"
        );
        assert!(!title("Fix group/project#4", 50).contains("Fix "));
    }
}
