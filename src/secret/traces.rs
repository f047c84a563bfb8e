//! Finds known secrets in what is about to leave, in every form, also across line breaks. Pure.
//!
//! Says where one begins, and whose it is by its number: nothing that it returns holds a value.

use std::fmt;

use super::{Mask, Secret, finder};

/// The secrets that are looked for.
#[derive(Clone, Default)]
pub struct Traces(Mask);

impl fmt::Debug for Traces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Traces({} secrets)", self.0.known.len())
    }
}

impl Traces {
    /// Looks for one more secret from now on. Values under 8 bytes are not looked for.
    pub fn add(&mut self, secret: &Secret) {
        self.0.add(secret);
    }

    /// Where the first trace of a secret begins, as a place in `bytes`.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<usize> {
        self.0.finder.places(bytes).into_iter().map(|(start, _, _)| start).min()
    }

    /// A search through what comes in pieces; it tells secrets by the order in which they were added, the first one being 0.
    #[must_use]
    pub fn trail(&self) -> finder::Trail<'_> {
        self.0.finder.trail()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
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
