//! Tells random text from words: entropy, change between kinds of characters, and the words of placeholders. Pure.

/// Shannon entropy in bits a byte; 0 for an empty value.
pub(super) fn entropy(value: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in value {
        counts[usize::from(*byte)] += 1;
    }
    let length = value.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / length;
            -share * share.log2()
        })
        .sum()
}

#[derive(PartialEq, Eq)]
enum Kind {
    Lower,
    Upper,
    Digit,
    Other,
}

/// Whether a value looks drawn by lot: letters and digits both, changing often. Names of things, paths, versions and UUIDs do not.
pub(super) fn is_random(value: &[u8]) -> bool {
    let kinds: Vec<Kind> = value
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' => Kind::Lower,
            b'A'..=b'Z' => Kind::Upper,
            b'0'..=b'9' => Kind::Digit,
            _ => Kind::Other,
        })
        .collect();
    let digits = kinds.iter().filter(|kind| **kind == Kind::Digit).count();
    let letters = kinds
        .iter()
        .filter(|kind| matches!(kind, Kind::Lower | Kind::Upper))
        .count();
    // Words joined by signs change at each sign: that says nothing.
    let changes = kinds
        .windows(2)
        .filter(|pair| pair[0] != pair[1] && !pair.contains(&Kind::Other))
        .count();
    let signs = kinds.len() - digits - letters;
    digits >= 2 && letters >= 4 && changes * 4 >= value.len() && signs * 6 <= value.len() && !is_uuid(value)
}

fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value.iter().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Words that no credential drawn by lot holds.
const ALWAYS: [&str; 9] = [
    "example",
    "placeholder",
    "dummy",
    "changeme",
    "redacted",
    "xxxxxx",
    "000000",
    "......",
    "insert",
];
/// Words that a real value of a service's own shape might hold by chance, but hardly one that was only assigned to a name.
const WHEN_ASSIGNED: [&str; 14] = [
    "test",
    "sample",
    "fake",
    "mock",
    "your",
    "foobar",
    "12345",
    "abcde",
    "secret",
    "passw",
    "token",
    "process.env",
    "environ",
    "localhost",
];

/// Whether a value says itself that it is none.
pub(super) fn is_placeholder(value: &[u8], assigned: bool) -> bool {
    let lower = String::from_utf8_lossy(value).to_ascii_lowercase();
    ALWAYS.iter().any(|word| lower.contains(word))
        || (assigned && WHEN_ASSIGNED.iter().any(|word| lower.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_that_of_the_books() {
        assert!(entropy(b"").abs() < 1e-9 && entropy(b"aaaa").abs() < 1e-9);
        assert!((entropy(b"abab") - 1.0).abs() < 1e-9 && (entropy(b"abcdefgh") - 3.0).abs() < 1e-9);
    }

    #[test]
    fn words_are_not_random() {
        for value in [
            "Xk3J9vQ2mR7tB5nW8cLd",
            "d41d8cd98f00b204e9800998ecf8427e",
            "a8f5f167f44f4964e6c998dee827110c1",
            "h7f3k2m9p4q8r1s6",
        ] {
            assert!(is_random(value.as_bytes()), "{value}");
        }
        for value in [
            "generate_token_v2_from_request",
            "com.example.auth.token.service2",
            "authentication-service-1",
            "550e8400-e29b-41d4-a716-446655440000",
            "1.2.3-beta.4+build.5678",
            "2024-11-25T20:00:00Z0000",
            "AbstractSingletonProxyFactoryBean",
            "/usr/local/share/keys/file1",
            "refs/heads/release-2024",
        ] {
            assert!(!is_random(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn placeholders_say_so() {
        assert!(is_placeholder(b"AKIAIOSFODNN7EXAMPLE", false));
        assert!(is_placeholder(b"my-test-value-99", true) && !is_placeholder(b"my-test-value-99", false));
    }
}
