//! Credentials that cannot be printed, and masking of the ones that are known.
//!
//! A `Secret` has no `Display`, its `Debug` says nothing, and its memory is cleared when it goes. Never logs anything itself.

use std::fmt;

use base64::Engine as _;
use secrecy::{ExposeSecret, SecretString};

mod traces;

pub use traces::Traces;

/// A credential. Read it only where it is put on the wire.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a credential; surrounding white space (a file's last newline) is dropped.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(SecretString::from(text.trim().to_owned()))
    }

    /// The credential in clear. Every call is a place to review.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = zeroize::Zeroizing::new(String::deserialize(deserializer)?);
        Ok(Self::new(&text))
    }
}

/// Replaces known secrets, in clear, URL-encoded and base64 form, by a fixed mark.
#[derive(Clone, Default)]
pub struct Mask {
    needles: Vec<zeroize::Zeroizing<String>>,
}

impl fmt::Debug for Mask {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Mask({} forms)", self.needles.len())
    }
}

/// What stands in place of a masked value.
pub const MASKED: &str = "[MASKED]";

/// Shorter values would mask ordinary words.
const SHORTEST_MASKED: usize = 8;

impl Mask {
    /// A mask for these secrets. Values under 8 characters are not masked: they would hide ordinary words.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut mask = Self::default();
        for secret in secrets {
            mask.add(secret);
        }
        mask
    }

    /// Adds one more secret to be masked.
    pub fn add(&mut self, secret: &Secret) {
        let clear = secret.expose();
        if clear.len() < SHORTEST_MASKED {
            return;
        }
        let encoded = percent_encoding::utf8_percent_encode(clear, percent_encoding::NON_ALPHANUMERIC).to_string();
        let mut forms = vec![
            clear.to_owned(),
            encoded,
            base64::engine::general_purpose::STANDARD.encode(clear),
        ];
        // Basic authorisation encodes "user:token": mask it for the user names that forges accept.
        for user in ["oauth2", "x-access-token"] {
            forms.push(base64::engine::general_purpose::STANDARD.encode(format!("{user}:{clear}")));
        }
        for form in forms {
            if !self.needles.iter().any(|known| known.as_str() == form) {
                self.needles.push(zeroize::Zeroizing::new(form));
            }
        }
        // Longest first, so that no form is cut by a shorter one inside it.
        self.needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
    }

    /// The text with every known form replaced.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        for needle in &self.needles {
            if masked.contains(needle.as_str()) {
                masked = masked.replace(needle.as_str(), MASKED);
            }
        }
        masked
    }

    /// How much of a text that goes on may be masked and shown now, whatever follows: ends before anything that is, or may become, a known
    /// form cut in two. For text that arrives in pieces.
    #[must_use]
    pub fn settled(&self, text: &str) -> usize {
        let text = text.as_bytes();
        let mut cut = text.len();
        for needle in &self.needles {
            let first = text.len().saturating_sub(needle.len() - 1);
            if let Some(start) = (first..text.len()).find(|start| needle.as_bytes().starts_with(&text[*start..])) {
                cut = cut.min(start);
            }
        }
        // Moving the cut to the start of one complete form may cut through another.
        let across = |cut: usize| {
            self.needles.iter().find_map(|needle| {
                let first = cut.saturating_sub(needle.len() - 1);
                (first..cut).find(|start| start + needle.len() > cut && text[*start..].starts_with(needle.as_bytes()))
            })
        };
        while let Some(start) = across(cut) {
            cut = start;
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("glpat-very-secret")), "Secret(..)");
        assert!(!format!("{:?}", Mask::new([&Secret::new("glpat-very-secret")])).contains("glpat"));
    }

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
}
