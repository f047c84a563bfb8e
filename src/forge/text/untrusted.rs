//! What strangers wrote on a forge, made fit to be read by people and models: bounded, and with nothing in it that a reader cannot see. Pure.
//!
//! Never judges what a text says: whoever shows it says that it is a stranger's.

use super::one_line;
use crate::forge::inspect::{LONGEST_LINE, LONGEST_TEXT};
use crate::secret::Mask;

/// Most labels, reviewers or assignees that are kept.
const MOST_NAMES: usize = 100;

/// What stands where a text was cut.
const CUT: &str = "\n[cut here: the rest is on the forge]";

/// Characters that are not seen, or that change how what comes after them is read: zero-width and direction characters, fillers, variation
/// selectors, interlinear marks, and the tag block, in which whole sentences can be hidden.
pub(super) fn is_hidden(character: char) -> bool {
    matches!(character,
        '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// A title, name or label: one bounded line without hidden characters or known secrets.
pub(in crate::forge) fn line(text: &str, mask: &Mask) -> String {
    let visible: String = text.chars().filter(|c| !is_hidden(*c)).collect();
    one_line(&mask.apply(&visible), LONGEST_LINE)
}

/// A word of the forge's own (a state, a status), which may be one that nobody has heard of yet.
pub(in crate::forge) fn word(text: &str, mask: &Mask) -> String {
    line(text, mask).chars().take(64).collect()
}

/// Labels or names, the first ones where there are very many.
pub(in crate::forge) fn labels<'a>(names: impl IntoIterator<Item = &'a str>, mask: &Mask) -> Vec<String> {
    let lines = names.into_iter().map(|name| line(name, mask));
    lines.filter(|name| !name.is_empty()).take(MOST_NAMES).collect()
}

/// A description or note: its lines and tabs stay, other control characters and hidden ones go, known secrets are masked (after that, so that
/// none is put together by it), and what is too long is cut and says so.
pub(in crate::forge) fn paragraphs(text: &str, mask: &Mask) -> String {
    let visible: String = text
        .chars()
        // One more than can be kept tells that there was more; no text needs to be walked to its end.
        .take(LONGEST_TEXT + 1)
        .map(|c| if matches!(c, '\u{2028}' | '\u{2029}') { '\n' } else { c })
        .filter(|c| matches!(c, '\n' | '\t') || !(c.is_control() || is_hidden(*c)))
        .collect();
    let more = text.len() > LONGEST_TEXT && text.chars().nth(LONGEST_TEXT + 1).is_some();
    // Where the text goes on, its end may be the first half of a secret.
    let end = if more { mask.settled(&visible) } else { visible.len() };
    let masked = mask.apply(visible.get(..end).unwrap_or_default());
    match cut(&masked) {
        Some(kept) => format!("{kept}{CUT}"),
        None if more => format!("{masked}{CUT}"),
        None => masked,
    }
}

/// The hunks of one file, and whether they were cut. What is hidden in code is what a reviewer must see: it is written out, not removed.
pub(in crate::forge) fn hunks(text: &str, mask: &Mask) -> (String, bool) {
    let mut shown = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let plain = match character {
            '\n' | '\t' => true,
            '\r' => characters.peek() == Some(&'\n'),
            other => !(other.is_control() || is_hidden(other)),
        };
        if plain {
            shown.push(character);
        } else {
            shown.push_str(&format!("<U+{:04X}>", u32::from(character)));
        }
        if shown.len() > 2 * LONGEST_TEXT {
            break;
        }
    }
    let masked = mask.apply(&shown);
    match cut(&masked) {
        // A hunk that ends in the middle of a line would show a line that nobody wrote.
        Some(kept) => (kept.rsplit_once('\n').map_or(kept, |(lines, _)| lines).to_owned(), true),
        None => (masked, false),
    }
}

/// The beginning that can be kept, where the whole cannot.
fn cut(text: &str) -> Option<&str> {
    if text.len() <= LONGEST_TEXT {
        return None;
    }
    let mut end = LONGEST_TEXT - CUT.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{MASKED, Secret};

    fn mask() -> Mask {
        Mask::new([&Secret::new("glpat-0123456789")])
    }

    #[test]
    fn hidden_and_control_characters_go_but_lines_stay() {
        let hidden: String = "ignore"
            .chars()
            .filter_map(|c| char::from_u32(0xe0000 + u32::from(c)))
            .collect();
        let text = format!("a\r\n\tb\u{200b}\u{202e}c{hidden}\u{1b}[31m\u{0}d\u{2028}e\u{fe0f}\u{ad}");
        assert_eq!(paragraphs(&text, &mask()), "a\n\tbc[31md\ne");
        assert_eq!(line(&format!("Fix\u{200b} it{hidden}\nnow"), &mask()), "Fix it now");
        assert_eq!(paragraphs("日本語 é 🦀", &mask()), "日本語 é 🦀");
    }

    #[test]
    fn secrets_are_masked_even_when_hidden_characters_part_them() {
        let text = "my token: glpat-01\u{200b}23456789.";
        assert_eq!(paragraphs(text, &mask()), format!("my token: {MASKED}."));
        assert_eq!(line("glpat-01\u{2060}23456789", &mask()), MASKED);
        let long = format!("{}glpat-0123456789", "x".repeat(LONGEST_TEXT - 50));
        assert!(!paragraphs(&long, &mask()).contains("glpat"));
    }

    #[test]
    fn texts_are_bounded_and_say_so() {
        for long in [
            "é".repeat(LONGEST_TEXT),
            "x".repeat(10 * LONGEST_TEXT),
            "\u{200b}x".repeat(LONGEST_TEXT),
        ] {
            let kept = paragraphs(&long, &mask());
            assert!(
                kept.len() <= LONGEST_TEXT + CUT.len() && kept.ends_with(CUT),
                "{}",
                kept.len()
            );
        }
        assert_eq!(paragraphs(&"x".repeat(LONGEST_TEXT), &mask()).len(), LONGEST_TEXT);
        assert!(word(&"x".repeat(9999), &mask()).len() <= 64);
        assert_eq!(
            labels(["a", "", "\u{200b}"].into_iter().chain(["b"; 500]), &mask()).len(),
            MOST_NAMES
        );
    }

    #[test]
    fn hunks_show_what_is_hidden_in_code() {
        let (shown, cut) = hunks("+if a {\u{202e} }\r\n+\u{200b}x\r", &mask());
        assert_eq!(
            (shown.as_str(), cut),
            ("+if a {<U+202E> }\r\n+<U+200B>x<U+000D>", false)
        );
        let (shown, cut) = hunks(&"+line\n".repeat(50_000), &mask());
        assert!(cut && shown.len() <= LONGEST_TEXT && shown.ends_with("+line"));
    }
}
