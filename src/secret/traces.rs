//! Finds known secrets in what is about to leave, in clear and in the usual encodings, also across line breaks. Pure.
//!
//! Says where one begins and never which: nothing that it returns holds a value. Whoever wants to hide a secret from it can (two encodings on
//! top of each other, a cipher); it is for what slips in.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use super::Secret;

/// Shorter values would be found in ordinary words.
const SHORTEST: usize = 8;

/// What many encoders of addresses leave alone.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The forms in which the known secrets may turn up, without white space.
#[derive(Clone, Default)]
pub struct Traces {
    needles: Vec<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for Traces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Traces({} forms)", self.needles.len())
    }
}

impl Traces {
    /// Looks for one more secret from now on. Values under 8 bytes are not looked for.
    pub fn add(&mut self, secret: &Secret) {
        let clear: Zeroizing<Vec<u8>> = Zeroizing::new(secret.expose().bytes().collect());
        if clear.len() < SHORTEST {
            return;
        }
        let text = secret.expose();
        let mut forms: Vec<Zeroizing<Vec<u8>>> = vec![clear.clone()];
        let mut add = |form: String| forms.push(Zeroizing::new(form.into_bytes()));
        for set in [NON_ALPHANUMERIC, UNRESERVED] {
            let encoded = utf8_percent_encode(text, set).to_string();
            add(lowered_escapes(&encoded));
            add(encoded);
        }
        add(clear.iter().map(|byte| format!("%{byte:02X}")).collect());
        add(clear.iter().map(|byte| format!("%{byte:02x}")).collect());
        add(hex::encode(clear.as_slice()));
        add(hex::encode_upper(clear.as_slice()));
        if let Ok(json) = serde_json::to_string(text) {
            let inner = json.trim_matches('"').to_owned();
            add(inner.replace('/', "\\/"));
            add(inner);
        }
        for before in 0..3 {
            let inside = inside_base64(&clear, before);
            add(inside.replace('+', "-").replace('/', "_"));
            add(inside);
        }
        for mut form in forms {
            form.retain(|byte| !byte.is_ascii_whitespace());
            if form.len() >= SHORTEST && !self.needles.contains(&form) {
                self.needles.push(form);
            }
        }
    }

    /// Where the first trace of a secret begins, as a place in `bytes`. White space counts for nothing: encoders break lines.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<usize> {
        if self.needles.is_empty() {
            return None;
        }
        let dense: Vec<u8> = bytes
            .iter()
            .copied()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        let found = self
            .needles
            .iter()
            .filter_map(|needle| memchr::memmem::find(&dense, needle))
            .min()?;
        bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| !byte.is_ascii_whitespace())
            .nth(found)
            .map(|(place, _)| place)
    }
}

/// What base64 makes of the value wherever it stands with so many bytes before it, without the characters that its neighbours touch. That
/// covers `user:token` of any user.
fn inside_base64(clear: &[u8], before: usize) -> String {
    let mut bytes = Zeroizing::new(vec![0; before]);
    bytes.extend_from_slice(clear);
    let encoded = STANDARD_NO_PAD.encode(bytes.as_slice());
    let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    encoded.get(first..end).unwrap_or_default().to_owned()
}

/// `%2f` in place of `%2F`.
fn lowered_escapes(encoded: &str) -> String {
    let mut left = 0;
    encoded
        .chars()
        .map(|c| {
            if c == '%' {
                left = 2;
                return c;
            }
            let escape = left > 0;
            left = i32::max(left - 1, 0);
            if escape { c.to_ascii_lowercase() } else { c }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    const VALUE: &str = "t0k/en+\"12345~zZ";

    fn traces() -> Traces {
        let mut traces = Traces::default();
        traces.add(&Secret::new(VALUE));
        traces
    }

    #[test]
    fn every_form_is_found_where_it_begins() {
        for form in [
            VALUE.to_owned(),
            "t0k%2Fen%2B%2212345%7EzZ".to_owned(),
            "t0k%2fen%2b%2212345~zZ".to_owned(),
            VALUE.bytes().map(|byte| format!("%{byte:02x}")).collect(),
            hex::encode(VALUE),
            serde_json::to_string(VALUE).unwrap().trim_matches('"').to_owned(),
            "t0k\\/en+\\\"12345~zZ".to_owned(),
            "t0k/en\n+\"1234\r\n5~zZ".to_owned(),
        ] {
            let text = format!("some words\nx {form} y");
            assert_eq!(traces().find(text.as_bytes()), Some(13), "{form}");
        }
        assert_eq!(traces().find(b"t0k/en+\"12345~z"), None);
        assert_eq!(Traces::default().find(b"anything"), None);
    }

    #[test]
    fn base64_is_found_whatever_stands_around_it() {
        for before in ["", "a", "ab", "abc", "oauth2:", "x-access-token:", "anybody:"] {
            for after in ["", "\n", "zz"] {
                let whole = format!("{before}{VALUE}{after}");
                for text in [STANDARD.encode(&whole), URL_SAFE.encode(&whole)] {
                    assert!(traces().find(text.as_bytes()).is_some(), "{before:?} {after:?}");
                    // As `base64 -w 10` writes it.
                    let broken: Vec<&str> = text
                        .as_bytes()
                        .chunks(10)
                        .map(|line| std::str::from_utf8(line).unwrap())
                        .collect();
                    assert!(
                        traces().find(broken.join("\n").as_bytes()).is_some(),
                        "{before:?} {after:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn short_values_are_words_and_nothing_is_printed() {
        let mut traces = Traces::default();
        traces.add(&Secret::new("main"));
        assert_eq!(traces.find(b"the branch main"), None);
        traces.add(&Secret::new(VALUE));
        assert!(!format!("{traces:?}").contains("12345"));
    }
}
