//! Replaces secrets in texts by a fixed mark: known ones in all their forms, and, where asked, what has the shape of a token. Pure.
//!
//! Whatever pieces a text comes in, the pieces masked are the text masked: `settled` says how far a text may go. Never leaves a part of a
//! known form standing.

use std::fmt;
use std::sync::{Arc, LazyLock};

use regex::Regex;

use super::{Known, Secret, shapes};

/// What stands in place of a masked value.
pub const MASKED: &str = "[MASKED]";

/// Replaces known secrets, in clear, URL-encoded and base64 form, by a fixed mark.
#[derive(Clone, Default)]
pub struct Mask {
    known: Vec<Arc<Known>>,
    shapes: bool,
}

impl fmt::Debug for Mask {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Mask({} secrets)", self.known.len())
    }
}

impl Mask {
    /// A mask for these secrets. Values under 8 characters are not masked: they would hide ordinary words.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut mask = Self::default();
        for secret in secrets {
            mask.add(secret);
        }
        mask
    }

    /// The mask that also hides whatever has the shape of a well-known token, known or not.
    #[must_use]
    pub fn and_token_shapes(mut self) -> Self {
        self.shapes = true;
        self
    }

    /// Adds one more secret to be masked.
    pub fn add(&mut self, secret: &Secret) {
        if !self.known.iter().any(|known| Arc::ptr_eq(known, &secret.0)) {
            self.known.push(Arc::clone(&secret.0));
        }
    }

    fn forms(&self) -> impl Iterator<Item = &str> {
        self.known
            .iter()
            .flat_map(|known| known.forms.iter().map(|form| form.as_str()))
    }

    /// What is to be hidden, in order; overlapping places are one.
    fn places(&self, text: &str) -> Vec<(usize, usize)> {
        let mut places: Vec<(usize, usize)> = self.forms().flat_map(|form| occurrences(text, form)).collect();
        if self.shapes {
            places.extend(shapes::found(text));
        }
        united(places)
    }

    /// The text with every known form replaced.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        replaced(text, &self.places(text))
    }

    /// How much of a text that goes on may be masked and shown now, whatever follows: ends before anything that is, or may become, a known
    /// form cut in two. For text that arrives in pieces.
    #[must_use]
    pub fn settled(&self, text: &str) -> usize {
        let bytes = text.as_bytes();
        let begun = |form: &str| {
            let first = bytes.len().saturating_sub(form.len() - 1);
            (first..bytes.len()).find(|start| form.as_bytes().starts_with(&bytes[*start..]))
        };
        let mut cut = self.forms().filter_map(begun).min().unwrap_or(bytes.len());
        if self.shapes
            && let Some(open) = shapes::open_at(text)
        {
            cut = cut.min(open);
        }
        // Moving the cut may bring it into a place that is whole.
        for (start, end) in self.places(text).into_iter().rev() {
            if start < cut && cut < end {
                cut = start;
            }
        }
        cut
    }
}

/// Everywhere that it stands, also where two overlap.
fn occurrences<'a>(text: &'a str, form: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + text.get(from..)?.find(form)?;
        from = text.ceil_char_boundary(start + 1);
        Some((start, start + form.len()))
    })
}

fn united(mut places: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    places.sort_unstable();
    let mut united: Vec<(usize, usize)> = Vec::with_capacity(places.len());
    for (start, end) in places {
        match united.last_mut() {
            Some(last) if start < last.1 => last.1 = last.1.max(end),
            Some(_) | None => united.push((start, end)),
        }
    }
    united
}

fn replaced(text: &str, places: &[(usize, usize)]) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut from = 0;
    for (start, end) in places {
        shown.push_str(text.get(from..*start).unwrap_or_default());
        shown.push_str(MASKED);
        from = *end;
    }
    shown.push_str(text.get(from..).unwrap_or_default());
    shown
}

/// The password in an address. A pattern of ours that does not compile finds nothing; a test shows that it finds.
static PASSWORD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#"://[^\s/:@"'\\]*:([^\s/@"'\\]+)@"#).ok());

/// A whole line of a log. A library that prints bytes prints numbers: these count as a form as well.
pub(super) fn log_line(living: &[Arc<Known>], line: &str) -> String {
    let mut places: Vec<(usize, usize)> = shapes::found(line).collect();
    for form in living.iter().flat_map(|known| known.forms.iter()) {
        places.extend(occurrences(line, form));
        if line.contains(", ") {
            let numbers =
                zeroize::Zeroizing::new(form.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", "));
            places.extend(occurrences(line, &numbers));
        }
    }
    if let Some(password) = PASSWORD.as_ref() {
        let found = password.captures_iter(line).filter_map(|found| found.get(1));
        places.extend(found.map(|one| (one.start(), one.end())));
    }
    replaced(line, &united(places))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn masks_clear_encoded_and_basic_forms() {
        let mask = Mask::new([&Secret::new("tok/en+12345")]);
        for form in [
            "tok/en+12345".to_owned(),
            "tok%2Fen%2B12345".to_owned(),
            base64::engine::general_purpose::STANDARD.encode("oauth2:tok/en+12345"),
        ] {
            assert_eq!(mask.apply(&format!("a {form} b")), format!("a {MASKED} b"));
        }
    }

    #[test]
    fn text_in_pieces_is_held_back_where_a_secret_may_go_on() {
        let mask = Mask::new([&Secret::new("glpat-0123456789")]);
        for (text, settled) in [
            ("nothing to see?", "nothing to see?"),
            ("a token: glpat-01", "a token: "),
            ("a token: g", "a token: "),
            ("whole: glpat-0123456789", "whole: glpat-0123456789"),
            ("no glpat-0x", "no glpat-0x"),
        ] {
            assert_eq!(&text[..mask.settled(text)], settled);
        }
        // A form that is complete is not cut by another that may begin in its end.
        let mask = Mask::new([&Secret::new("abcdefgh-end"), &Secret::new("end-ijklmnop")]);
        assert_eq!(mask.settled("x abcdefgh-end"), 2);
        assert_eq!(Mask::default().settled("anything"), 8);
    }

    #[test]
    fn short_values_do_not_hide_words() {
        assert_eq!(Mask::new([&Secret::new("main")]).apply("branch main"), "branch main");
    }

    #[test]
    fn unknown_tokens_are_hidden_only_where_that_is_asked() {
        let text = "use glpat-abcdefghij0123456789, please";
        assert_eq!(Mask::default().apply(text), text);
        assert_eq!(
            Mask::default().and_token_shapes().apply(text),
            format!("use {MASKED}, please")
        );
    }

    /// Pieces of texts in which secrets stand whole, cut, doubled, encoded and beside each other.
    fn text() -> impl Strategy<Value = String> {
        let basic = base64::engine::general_purpose::STANDARD.encode("someone:s3cr3t/größe+x");
        let piece = prop::sample::select(vec![
            "s3cr3t/größe+x".to_owned(),
            "s3cr3t/gr".to_owned(),
            "x3x3x3x3x".to_owned(),
            "x3x3".to_owned(),
            "s3cr3t%2Fgr%C3%B6%C3%9Fe%2Bx".to_owned(),
            basic,
            "glpat-abcdefghij0123456789".to_owned(),
            "glpat-".to_owned(),
            ".01.0a1b2c3".to_owned(),
            "abcdefghij".to_owned(),
            "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4".to_owned(),
            "sk-".to_owned(),
            "AKIA".to_owned(),
            "ABCDEFGHIJKLMNOP".to_owned(),
            " ".to_owned(),
            "größe ".to_owned(),
            "\n".to_owned(),
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn however_a_text_is_cut_its_pieces_show_what_the_whole_shows(text in text(), cuts in prop::collection::vec(0_usize..200, 0..8)) {
            let mask = Mask::new([&Secret::new("s3cr3t/größe+x"), &Secret::new("x3x3x3x3x")]).and_token_shapes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| text.floor_char_boundary(at.min(text.len()))).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let (mut held, mut shown) = (String::new(), String::new());
            for piece in cuts.windows(2) {
                held.push_str(&text[piece[0]..piece[1]]);
                let rest = held.split_off(mask.settled(&held));
                shown.push_str(&mask.apply(&held));
                held = rest;
            }
            shown.push_str(&mask.apply(&held));
            prop_assert_eq!(&shown, &mask.apply(&text));
            for secret in ["s3cr3t/größe+x", "x3x3x3x3x", "glpat-abcdefghij0123456789"] {
                prop_assert!(!shown.contains(secret), "{}", shown);
            }
        }
    }
}
