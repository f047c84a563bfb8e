//! Which characters people and models are shown: no control characters, nothing invisible, nothing that turns the reading direction. Pure.
//!
//! The one list of all rooms. Such characters drive terminals, hide words, or make text read as what it is not. Never changes any other.

/// Whether a character may be shown. Line feed and tab may.
#[must_use]
pub fn is_shown(c: char) -> bool {
    let hidden = matches!(c,
        // Soft hyphen, joiners, fillers, vowel separators: nothing is drawn.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{3164}' | '\u{ffa0}'
        // Zero width, directional marks, embeddings and overrides, word joiner, invisible operators, isolates.
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        // Variation selectors, interlinear annotation, shorthand and musical marks; tags, in which whole sentences can be hidden.
        | '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}');
    matches!(c, '\n' | '\t') || !(hidden || c.is_control())
}

/// The text without what may not be shown.
#[must_use]
pub fn readable(text: &str) -> String {
    text.chars().filter(|c| is_shown(*c)).collect()
}

/// The text with `<U+202E>` in place of what may not be shown: for code and names, where a hidden character is news and not noise. A carriage
/// return at a line's end stays: it is how some files end their lines.
#[must_use]
pub fn revealed(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if is_shown(c) || (c == '\r' && characters.peek() == Some(&'\n')) {
            shown.push(c);
        } else {
            shown.push_str(&format!("<U+{:04X}>", u32::from(c)));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_driven_and_nothing_is_hidden() {
        assert_eq!(readable("a\u{1b}]52;c;x\u{7}b\r\n\tc"), "a]52;c;xb\n\tc");
        assert_eq!(readable("\u{202e}evil\u{2066}\u{200b}\u{e0041}\u{9b}\u{feff}"), "evil");
        assert_eq!(readable("größe 日本 🙂"), "größe 日本 🙂");
    }

    #[test]
    fn what_hides_in_code_is_made_visible() {
        assert_eq!(
            revealed("if a\u{202e}\u{2066} {\r\n\r\u{e0041}"),
            "if a<U+202E><U+2066> {\r\n<U+000D><U+E0041>"
        );
        assert_eq!(revealed("größe\t日本"), "größe\t日本");
    }
}
