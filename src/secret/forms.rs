//! The forms in which a known secret may turn up in a text: as it is, URL-encoded, and inside base64 at any place. Pure.
//!
//! Never makes a form so short that it would hide ordinary words.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

/// Values under so many characters are not masked.
const SHORTEST: usize = 8;

/// What stays as it is in most URLs.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// All forms of a secret.
pub(super) fn of(clear: &str) -> Vec<Zeroizing<String>> {
    if clear.len() < SHORTEST {
        return Vec::new();
    }
    let mut forms = vec![Zeroizing::new(clear.to_owned())];
    let mut add = |form: String| {
        let form = Zeroizing::new(form);
        if !forms.contains(&form) {
            forms.push(form);
        }
    };
    for set in [NON_ALPHANUMERIC, UNRESERVED] {
        let encoded = utf8_percent_encode(clear, set).to_string();
        add(lower_escapes(&encoded));
        add(encoded);
    }
    // Whole words of base64 first: a token alone, and as forges' Basic authorisation has it.
    for user in ["", "oauth2:", "x-access-token:", "PRIVATE-TOKEN:", ":"] {
        let encoded = Zeroizing::new(STANDARD.encode(Zeroizing::new(format!("{user}{clear}")).as_bytes()));
        add(encoded.trim_end_matches('=').to_owned());
        add(encoded.to_string());
    }
    // Then what any base64 around it has in common, whatever stands before it.
    for before in 0..3 {
        let inner = inside_base64(clear, before);
        add(inner.replace('+', "-").replace('/', "_"));
        add(inner);
    }
    forms
}

/// The characters of base64 that depend on the secret alone when so many bytes (modulo three) stand before it.
fn inside_base64(clear: &str, before: usize) -> String {
    let mut bytes = Zeroizing::new(vec![0_u8; before]);
    bytes.extend_from_slice(clear.as_bytes());
    let encoded = Zeroizing::new(STANDARD.encode(bytes.as_slice()));
    let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    encoded.get(first..end).unwrap_or_default().to_owned()
}

/// `%2F` as `%2f`.
fn lower_escapes(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let mut lowered = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // The encoder writes two digits after each sign.
        let (digits, rest) = part.split_at(part.len().min(2));
        lowered.push('%');
        lowered.push_str(&digits.to_ascii_lowercase());
        lowered.push_str(rest);
    }
    lowered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_anything_around_a_secret_holds_one_of_its_forms() {
        let secret = "tok/en+12345-and?more";
        let forms = of(secret);
        for before in ["", "u", "us", "use", "user:"] {
            for after in ["", "\n", "\"}", " and then some"] {
                let text = format!("{before}{secret}{after}");
                let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&text);
                for encoded in [STANDARD.encode(&text), url_safe] {
                    assert!(
                        forms.iter().any(|form| encoded.contains(form.as_str())),
                        "{before:?} {after:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn escapes_in_both_cases_and_both_habits() {
        let forms = of("a/b+c-d.e~fgh");
        for form in [
            "a%2Fb%2Bc-d.e~fgh",
            "a%2fb%2bc-d.e~fgh",
            "a%2Fb%2Bc%2Dd%2Ee%7Efgh",
            "a%2fb%2bc%2dd%2ee%7efgh",
        ] {
            assert!(forms.iter().any(|known| known.as_str() == form), "{form} in {forms:?}");
        }
        assert!(of("short").is_empty());
    }
}
