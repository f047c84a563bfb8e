//! Replaces secrets in texts by a fixed mark: known ones in all their forms, and, where asked, what has the shape of a token. Pure.
//!
//! Whatever pieces a text comes in, the pieces masked are the text masked: `settled` says how far a text may go. Never leaves a part of a
//! known form standing.

use std::fmt;
use std::sync::{Arc, LazyLock};

use regex::Regex;

use super::finder::Finder;
use super::{Known, Secret, shapes};

/// What stands in place of a masked value.
pub const MASKED: &str = "[MASKED]";

/// Replaces known secrets, in every form that this room knows, by a fixed mark.
#[derive(Clone, Default)]
pub struct Mask {
    pub(super) known: Vec<Arc<Known>>,
    /// Made anew whenever a secret is added, not per text.
    pub(super) finder: Arc<Finder>,
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
            self.finder = Finder::of(self.known.iter().map(|known| Arc::clone(&known.forms)));
        }
    }

    /// Whether there is nothing that it hides.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.finder.is_empty() && !self.shapes
    }

    /// What is to be hidden, in order; overlapping places are one.
    fn places(&self, text: &str) -> Vec<(usize, usize)> {
        let mut places = stretches(&self.finder, text.as_bytes());
        if self.shapes {
            places.extend(shapes::found(text));
        }
        united(places)
    }

    /// The text with every known form replaced.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        self.apply_from(text, 0)
    }

    /// What comes behind the first `from` bytes of a text, with every form replaced that reaches into it: for text that goes on behind what
    /// was shown already.
    #[must_use]
    pub fn apply_from(&self, text: &str, from: usize) -> String {
        let mut places = self.places(text);
        places.retain_mut(|(start, end)| {
            *start = from.max(*start);
            start < end
        });
        replaced(text, from, &places)
    }

    /// Any bytes with every known form replaced. Token shapes are not looked for.
    #[must_use]
    pub fn apply_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let (mut shown, mut from) = (Vec::with_capacity(bytes.len()), 0);
        for (start, end) in united(stretches(&self.finder, bytes)) {
            shown.extend_from_slice(bytes.get(from..start).unwrap_or_default());
            shown.extend_from_slice(MASKED.as_bytes());
            from = end;
        }
        shown.extend_from_slice(bytes.get(from..).unwrap_or_default());
        shown
    }

    /// How much of a text that goes on may be masked and shown now, whatever follows: ends before anything that is, or may become, a known
    /// form cut in two. For text that arrives in pieces.
    #[must_use]
    pub fn settled(&self, text: &str) -> usize {
        let mut cut = self.finder.begun(text.as_bytes());
        if self.shapes
            && let Some(open) = shapes::open_at(text)
        {
            cut = cut.min(open);
        }
        whole_until(cut, &self.places(text))
    }

    /// The same of bytes. Token shapes are not looked for.
    #[must_use]
    pub fn settled_bytes(&self, bytes: &[u8]) -> usize {
        whole_until(self.finder.begun(bytes), &united(stretches(&self.finder, bytes)))
    }
}

fn stretches(finder: &Finder, bytes: &[u8]) -> Vec<(usize, usize)> {
    let places = finder.places(bytes).into_iter();
    places.map(|(start, end, _)| (start, end)).collect()
}

/// Moving the cut may bring it into a place that is whole.
fn whole_until(mut cut: usize, places: &[(usize, usize)]) -> usize {
    for (start, end) in places.iter().rev() {
        if *start < cut && cut < *end {
            cut = *start;
        }
    }
    cut
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

fn replaced(text: &str, mut from: usize, places: &[(usize, usize)]) -> String {
    let mut shown = String::with_capacity(text.len());
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

/// A whole line of a log, as it is or escaped as JSON.
pub(super) fn log_line(living: &Finder, line: &str) -> String {
    let mut places = stretches(living, line.as_bytes());
    places.extend(shapes::found(line));
    if let Some(password) = PASSWORD.as_ref() {
        let found = password.captures_iter(line).filter_map(|found| found.get(1));
        places.extend(found.map(|one| (one.start(), one.end())));
    }
    replaced(line, 0, &united(places))
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
    fn masks_every_form_that_the_check_before_publishing_knows() {
        let value = "t0k/en+\"123<45&~zZ";
        let mask = Mask::new([&Secret::new(value)]);
        let json = serde_json::to_string(value).unwrap();
        let wrapped: Vec<String> = base64::engine::general_purpose::STANDARD
            .encode(format!("{}{value}", "x".repeat(50)))
            .as_bytes()
            .chunks(76)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        for form in [
            hex::encode(value),
            hex::encode_upper(value),
            json.trim_matches('"').to_owned(),
            serde_json::to_string(&json)
                .unwrap()
                .trim_matches(['"', '\\'])
                .to_owned(),
            "t0k\\/en+\\\"123<45&~zZ".to_owned(),
            "t0k/en+\"123&lt;45&amp;~zZ".to_owned(),
            "t0k/en+&quot;123&lt;45&amp;~zZ".to_owned(),
            "t0k/en\n +\"12\r\n3<45&~zZ".to_owned(),
            "t0k/en\\n+\"123<45&~zZ".to_owned(),
        ] {
            assert_eq!(mask.apply(&format!("a {form} b")), format!("a {MASKED} b"), "{form}");
        }
        for text in [wrapped.join("\n"), wrapped.join("\\n")] {
            assert!(mask.apply(&text).contains(MASKED), "{text}");
        }
    }

    #[test]
    fn text_in_pieces_is_held_back_where_a_secret_may_go_on() {
        let mask = Mask::new([&Secret::new("glpat-0123456789")]);
        for (text, settled) in [
            ("nothing to see?", "nothing to see?"),
            ("a token: glpat-01", "a token: "),
            ("a token: g", "a token: "),
            ("whole: glpat-0123456789.", "whole: glpat-0123456789."),
            ("white space: glpat- 01\n", "white space: "),
            ("escaped: glpat-01\\n23\\", "escaped: "),
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
