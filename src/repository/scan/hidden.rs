//! Characters in a change that a reviewer cannot see, or that turn what he sees around. Pure.
//!
//! Joiners between letters of other scripts and in emoji are how those are written: they are not told.

use crate::message::readable::is_shown;

/// Whether one line holds such a character; a byte order mark at a file's start is none.
pub(super) fn holds_hidden(line: &str, first_of_file: bool) -> bool {
    let line = if first_of_file {
        line.strip_prefix('\u{feff}').unwrap_or(line)
    } else {
        line
    };
    let mut before: Option<char> = None;
    line.chars().any(|c| {
        let hidden = counts(c, before);
        before = Some(c);
        hidden
    })
}

fn counts(c: char, before: Option<char>) -> bool {
    // Control characters are seen by every viewer of a diff, and hidden ones of ASCII are none.
    if c.is_ascii() || is_shown(c) || c.is_control() {
        return false;
    }
    let foreign =
        |near: Option<char>| near.is_some_and(|near| !near.is_ascii() && is_shown(near) && !near.is_whitespace());
    match c {
        // Part of emoji, and of how some scripts join their letters. Keycap emoji begin with a digit or a sign.
        '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{180b}'..='\u{180f}' => {
            let in_script = foreign(before) || before == Some('\u{fe0f}');
            let keycap =
                c == '\u{fe0f}' && before.is_some_and(|near| near.is_ascii_digit() || matches!(near, '#' | '*'));
            !in_script && !keycap
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_is_told_and_scripts_and_emoji_are_not() {
        for line in [
            "if admin\u{202e} {",
            "na\u{200b}me",
            "a\u{200d}b",
            "x\u{e0041}\u{e0042}",
            "\u{2066}a",
            "a\u{ad}b",
            "a \u{feff}",
            "\u{3164}",
        ] {
            assert!(holds_hidden(line, false), "{line:?}");
        }
        for line in [
            "plain",
            "größe 日本",
            "👩\u{200d}💻 and ❤\u{fe0f}",
            "👁\u{fe0f}\u{200d}🗨\u{fe0f}",
            "1\u{fe0f}\u{20e3}",
            "می\u{200c}خواهم",
            "क्\u{200d}ष",
            "a\tb\r",
        ] {
            assert!(!holds_hidden(line, false), "{line:?}");
        }
        assert!(!holds_hidden("\u{feff}using System;", true) && holds_hidden("\u{feff}using System;", false));
    }
}
