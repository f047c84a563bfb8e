//! Takes the teeth out of text that a model wrote before a forge renders it: mentions, references that close issues, quick actions,
//! images, raw HTML, hidden characters. Pure.
//!
//! Text in a fenced block at the margin is left readable, because forges do not interpret it; anything less certain counts as live text.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::message::readable::readable;

/// Most ticks of a fence.
pub const LONGEST_FENCE: usize = 32;

/// Breaks a token without changing how it looks.
const BREAK: char = '\u{200b}';

static MENTION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(@+)(\S)").ok());
static REFERENCE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"([#!$&%~])(\d)").ok());
static CLOSING: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)\b([cfri])(los(?:e[sd]?|ing)|ix(?:e[sd]|ing)?|esolv(?:e[sd]?|ing)|mplement(?:s|ed|ing)?)(\s*:?\s+(?:issues?\s+)?(?:[\w./-]*[#!]\d|https?://|gh-\d|[a-z][a-z0-9_]+-\d|\[))")
        .ok()
});
static TAG: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"<([A-Za-z/!?])").ok());
/// Entities are decoded before mentions and references are looked for; broken like the rest, since code spans would show an escape.
static ENTITY: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"&(#?[A-Za-z0-9]+;)").ok());
/// The address of an issue or a change request is a reference as much as its number.
static ADDRESS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?i)(https?:)(//)").ok());
static REFERRED: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)/(?:issues|merge_requests|pulls?|epics|work_items|discussions|commits?)/").ok());
/// `[issue:12]`, and what makes a forge skip its pipeline.
static BRACKET: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)\[([a-z_]+:|(?:skip|no) (?:ci|actions)\]|(?:ci|actions) skip\])").ok());
/// A squashed branch takes its commit message from this text.
static TRAILER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)^(\W*)([a-z])([a-z-]*-(?:by|session|to|checks)|hangelog)(\s*:)").ok());
static SHORT_REFERENCE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?i)\bGH-(\d)").ok());

/// The text, harmless.
#[must_use]
pub fn text(input: &str) -> String {
    let mut fence: Option<usize> = None;
    let mut out = String::with_capacity(input.len() + input.len() / 8);
    for line in visible(input).lines() {
        let ticks = ticks_of(line);
        match fence {
            // A closing fence may stand up to three spaces in.
            Some(open) if closes(line, open) => {
                fence = None;
                out.push_str(line);
            }
            Some(_) => out.push_str(&in_fence(line)),
            None if opens(line, ticks) => {
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

/// One line for a title, which no forge renders as Markdown: no line breaks, bounded.
#[must_use]
pub fn title(input: &str, longest: usize) -> String {
    let flat = visible(input).split_whitespace().collect::<Vec<_>>().join(" ");
    let mut flat = flat.as_str();
    // A draft mark would decide more than a title may, and so would a second one behind it.
    let marked = |flat: &str| {
        ["draft:", "[draft]", "(draft)", "wip:", "[wip]"]
            .iter()
            .find(|mark| {
                flat.get(..mark.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(mark))
            })
            .map(|mark| mark.len())
    };
    while let Some(length) = marked(flat) {
        flat = flat[length..].trim_start();
    }
    let cut: String = if flat.chars().count() > longest {
        flat.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
    } else {
        flat.to_owned()
    };
    references(&cut)
}

/// One line within a description.
#[must_use]
pub fn line(input: &str, longest: usize) -> String {
    let flat = visible(input).split_whitespace().collect::<Vec<_>>().join(" ");
    let bounded: String = flat.chars().take(longest).collect();
    live(&bounded)
}

/// A file's path between backticks.
#[must_use]
pub fn code(input: &str) -> String {
    let shown: String = visible(input)
        .chars()
        .map(|c| if matches!(c, '`' | '\n' | '\t') { '?' } else { c })
        .collect();
    format!("`{shown}`")
}

/// An address that a forge gave, as one that nothing can hide in; `None` when it is none.
#[must_use]
pub fn address(input: &str) -> Option<String> {
    let address = url::Url::parse(input)
        .ok()
        .filter(|address| matches!(address.scheme(), "http" | "https"))?;
    Some(address.to_string().replace(['(', ')', '<', '>', '`', '|'], ""))
}

/// How many ticks the fence has that a text of [`text`], cut at a line's end, leaves open.
#[must_use]
pub fn open_fence(kept: &str) -> Option<usize> {
    kept.lines().fold(None, |fence, line| match fence {
        Some(open) if closes(line, open) => None,
        Some(open) => Some(open),
        None => Some(ticks_of(line)).filter(|ticks| opens(line, *ticks)),
    })
}

fn ticks_of(line: &str) -> usize {
    line.bytes().take_while(|byte| *byte == b'`').count()
}

/// Whether a line that begins with that many ticks begins a fence. A very long one is none of ours, so that closing it costs little.
fn opens(line: &str, ticks: usize) -> bool {
    (3..=LONGEST_FENCE).contains(&ticks) && !line[ticks..].contains('`')
}

/// Whether a line ends the fence of that many ticks.
fn closes(line: &str, open: usize) -> bool {
    let indent = line.bytes().take_while(|byte| *byte == b' ').count();
    let rest = &line[indent..];
    let ticks = rest.bytes().take_while(|byte| *byte == b'`').count();
    indent <= 3 && ticks >= open && rest[ticks..].trim().is_empty()
}

/// Without what may not be shown.
fn visible(input: &str) -> String {
    let spaced: String = input
        .replace("\r\n", "\n")
        .chars()
        // Forges know only the plain space around fences and words; others would be read differently here and there.
        .map(|c| if c.is_whitespace() && !c.is_control() { ' ' } else { c })
        .collect();
    readable(&spaced)
}

/// A line that a forge interprets.
fn live(line: &str) -> String {
    // A fence that is not tracked here must be none on the forge either.
    let mut line = line
        .replace("```", &format!("`{BREAK}`{BREAK}`"))
        .replace("~~~", &format!("~{BREAK}~{BREAK}~"))
        .replace(">>>", &format!(">{BREAK}>{BREAK}>"))
        .replace("![", &format!("!{BREAK}["));
    line = replace(&ENTITY, &line, |found| format!("&{BREAK}{}", &found[1]));
    line = replace(&TAG, &line, |found| format!("<{BREAK}{}", &found[1]));
    line = replace(&TRAILER, &line, |found| {
        format!("{}{}{BREAK}{}{}", &found[1], &found[2], &found[3], &found[4])
    });
    line = references(&line);
    let indent = line.len() - line.trim_start().len();
    if line[indent..].starts_with('/') {
        line.insert(indent, '\\');
    }
    line
}

/// What acts in titles too: mentions, references, closing words, words that skip pipelines.
fn references(line: &str) -> String {
    let mut line = replace(&MENTION, line, |found| format!("{}{BREAK}{}", &found[1], &found[2]));
    line = replace(&BRACKET, &line, |found| format!("[{BREAK}{}", &found[1]));
    line = replace(&CLOSING, &line, |found| {
        format!("{}{BREAK}{}{}", &found[1], &found[2], &found[3])
    });
    line = replace(&REFERENCE, &line, |found| format!("{}{BREAK}{}", &found[1], &found[2]));
    line = addresses(&line);
    replace(&SHORT_REFERENCE, &line, |found| format!("GH-{BREAK}{}", &found[1]))
}

/// Each address by itself: one may begin within another. Each run of characters is looked through once, however many begin there.
fn addresses(line: &str) -> String {
    let ends = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '<' | '>');
    let broken = line.split_inclusive(ends).map(|run| {
        let last = match REFERRED.as_ref() {
            Some(pattern) => pattern.find_iter(run).last().map(|found| found.start()),
            None => Some(run.len()),
        };
        replace(&ADDRESS, run, |found| {
            let end = found.get(0).map_or(0, |whole| whole.end());
            let between = last
                .filter(|last| *last >= end)
                .map_or_else(String::new, |_| String::from(BREAK));
            format!("{}{between}{}", &found[1], &found[2])
        })
    });
    broken.collect()
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
        for pattern in [
            &MENTION,
            &REFERENCE,
            &CLOSING,
            &TAG,
            &SHORT_REFERENCE,
            &ENTITY,
            &ADDRESS,
            &REFERRED,
            &BRACKET,
            &TRAILER,
        ] {
            assert!(pattern.is_some());
        }
    }

    #[test]
    fn pitfall_19_mentions_references_and_closing_words_are_broken() {
        let got = text("cc @all and @ada. Closes #12, fixes: https://forge/x/issues/3, see !4 and GH-5");
        for live in ["@all", "@ada", "Closes", "#12", "fixes", "!4", "GH-5"] {
            assert!(!got.contains(live), "{live} in {got}");
        }
        // Found by fuzzing: of two signs only the first was broken.
        assert_eq!(text("@@all"), format!("@@{BREAK}all"));
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
        assert!(!text(&format!("{}\n@all", "`".repeat(5_000))).contains("@all"));
        // A closing fence must be as long as the opening one.
        assert!(!text("````\n```\n````\n@all").contains("@all"));
    }

    #[test]
    fn no_fence_is_seen_where_the_forge_sees_none() {
        for text_with_live_end in [
            "```\ncode\n  ```\n@all closes #1\n```",
            "~~~\n```\n~~~\n@all\n```",
            "  ```\n```\n@all\n```",
            ">>>\n```\n>>>\n@all\n```",
            "```\n```\u{a0}\n@all\n```",
        ] {
            let got = text(text_with_live_end);
            // As the forge counts: only fences at the margin or up to three spaces in, of ticks or tildes.
            let mut open = None;
            for line in got.lines() {
                let start = line.trim_start();
                let fence = ['`', '~']
                    .into_iter()
                    .find(|c| start.starts_with(&c.to_string().repeat(3)));
                match (open, fence) {
                    (None, Some(_)) => open = fence,
                    (Some(opened), Some(found)) if opened == found => open = None,
                    (Some(_), _) => {}
                    (None, None) => assert!(!(line.contains("@all") || line.starts_with(">>>")), "{got:?}"),
                }
            }
        }
    }

    #[test]
    fn entities_addresses_and_bracketed_references_are_broken() {
        let got = text(
            "&#64;all &commat;all \\@all @\\_x [issue:12] [skip ci] Closes JIRA-12 see https://forge/a/b/-/issues/7 and https://docs/x",
        );
        for live in [
            "&#64;",
            "&commat;",
            "@a",
            "[issue:",
            "[skip ci]",
            "Closes",
            "https://forge/",
        ] {
            assert!(!got.contains(live), "{live} in {got}");
        }
        assert!(got.contains("https://docs/x"));
        // Found by fuzzing: only the first of two addresses without a space between was broken.
        let got = text("https://x*https://forge/a/b/pull/1");
        assert!(!got.contains("https://"), "{got}");
    }

    #[test]
    fn no_trailer_can_be_slipped_in() {
        let got = text(
            "Co-authored-by: Boss <boss@example.org>\n  signed-off-by: x\n- Cofferdam-Session: 1\nskip-checks: true",
        );
        for live in ["Co-authored-by", "signed-off-by", "Cofferdam-Session", "skip-checks"] {
            assert!(!got.contains(live), "{live} in {got}");
        }
    }

    #[test]
    fn titles_keep_their_signs_and_lose_every_draft_mark() {
        assert_eq!(title("WIP: Draft: [draft] Use Vec<u8> & co", 80), "Use Vec<u8> & co");
        assert_eq!(address("https://x/a b\n/merge").unwrap(), "https://x/a%20b/merge");
        assert!(address("javascript:alert(1)").is_none());
        assert_eq!(code("a`b\u{202e}c"), "`a?bc`");
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

    proptest::proptest! {
        #[test]
        fn what_is_harmless_stays_as_it_is(pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "@", "@all", "\n", "\n", " ", "```", "````", "~~~", "> ", "- ", "   ", "/merge", "#1", "closes ", "<b", "&amp;", "![x](y)", "\u{200b}", "x", "\t",
                "\r", "[skip ci]", "Signed-off-by: x", "GH-1", "https://h/a/issues/1", "`", "\\",
            ]),
            0..12,
        )) {
            let got = text(&pieces.concat());
            proptest::prop_assert_eq!(text(&got), got);
        }
    }
}
