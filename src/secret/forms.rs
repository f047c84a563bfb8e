//! The one list of the forms in which a known secret may turn up: as it is, escaped as URLs, JSON and XML do, in hexadecimal, as the numbers of
//! its bytes, and inside base64 at any place. Masking, the search after a set-up and the check before publishing all look for these. Pure.
//!
//! Never makes a form so short that it would be found in ordinary words. Whoever wants to hide a secret from it can (two encodings on top of
//! each other, a cipher); it is for what slips in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

/// Values and forms under so many bytes are not looked for.
pub(super) const SHORTEST: usize = 8;

/// What stays as it is in most URLs.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One form, without white space: encoders break lines, so white space counts for nothing.
pub(super) type Form = Zeroizing<Vec<u8>>;

/// All forms of a secret; none of a value that is too short to be told from other text.
pub(super) fn of(clear: &str) -> Vec<Form> {
    if clear.len() < SHORTEST {
        return Vec::new();
    }
    let mut forms: Vec<Form> = Vec::new();
    let mut add = |form: String| {
        let mut form = Zeroizing::new(form.into_bytes());
        form.retain(|byte| !byte.is_ascii_whitespace());
        if form.len() >= SHORTEST && !forms.contains(&form) {
            forms.push(form);
        }
    };
    add(clear.to_owned());
    for set in [NON_ALPHANUMERIC, UNRESERVED] {
        let encoded = utf8_percent_encode(clear, set).to_string();
        add(lower_escapes(&encoded));
        add(encoded);
    }
    add(clear.bytes().map(|byte| format!("%{byte:02X}")).collect());
    add(clear.bytes().map(|byte| format!("%{byte:02x}")).collect());
    add(hex::encode(clear));
    add(hex::encode_upper(clear));
    // What holds JSON is often put into JSON itself, and so is what prints itself as a debugger does.
    let (once, slashed) = (in_json(clear), in_json(clear).replace('/', "\\/"));
    add(in_json(&once));
    add(once);
    add(slashed);
    let text = clear.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let quoted = text.replace('"', "&quot;");
    add(text);
    for apostrophe in ["&#39;", "&apos;", "&#x27;"] {
        add(quoted.replace('\'', apostrophe));
    }
    add(quoted);
    add(numbers(clear));
    // Whole words of base64: a token alone, and as forges' Basic authorisation has it.
    for user in ["", "oauth2:", "x-access-token:", "PRIVATE-TOKEN:", ":"] {
        let encoded = STANDARD.encode(Zeroizing::new(format!("{user}{clear}")).as_bytes());
        add(encoded.trim_end_matches('=').to_owned());
        add(encoded);
    }
    // Then what any base64 around it has in common, whatever stands before it.
    for before in 0..3 {
        let inner = inside_base64(clear, before);
        add(inner.replace('+', "-").replace('/', "_"));
        add(numbers(&inner));
        add(inner);
    }
    forms
}

/// As it stands between the quotes of a JSON string.
fn in_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or_default().to_owned()
}

/// As a library prints it that takes it for any bytes.
fn numbers(text: &str) -> String {
    text.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(",")
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

    fn has(forms: &[Form], form: &str) -> bool {
        forms.iter().any(|known| known.as_slice() == form.as_bytes())
    }

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
                        forms
                            .iter()
                            .any(|form| memchr::memmem::find(encoded.as_bytes(), form).is_some()),
                        "{before:?} {after:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn escapes_in_both_cases_and_both_habits() {
        let forms = of("a/b+c-d.e~f\"gh");
        for form in [
            "a%2Fb%2Bc-d.e~f%22gh",
            "a%2fb%2bc-d.e~f%22gh",
            "a%2Fb%2Bc%2Dd%2Ee%7Ef%22gh",
            "a%2fb%2bc%2dd%2ee%7ef%22gh",
            "a/b+c-d.e~f\\\"gh",
            "a\\/b+c-d.e~f\\\"gh",
            "a/b+c-d.e~f\\\\\\\"gh",
            "a/b+c-d.e~f&quot;gh",
        ] {
            assert!(has(&forms, form), "{form} in {forms:?}");
        }
        assert!(of("short").is_empty());
        assert!(has(&of("two words here"), "twowordshere"));
    }
}
