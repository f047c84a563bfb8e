//! Sealing: a token encrypted to workers' public keys in the age format (X25519), so that whoever carries it does not hold it. Pure.
//!
//! What is sealed is a token alone, or a JSON object that also says where the token may be used: age itself binds a text to nothing, and
//! whoever carries a sealed token could put it into a message of his own. Never accepts a bound that it does not know.

use std::io::{Read as _, Write as _};
use std::str::FromStr;

use base64::Engine as _;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Secret;

/// Longest sealed text, in bytes.
pub const LARGEST_SEALED: usize = 16 * 1024;

/// Why something cannot be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Longer than `LARGEST_SEALED`.
    #[error("it is {0} bytes, the limit is {LARGEST_SEALED}")]
    TooLarge(usize),
    /// Neither armored age nor base64 of it, or damaged.
    #[error("it is not an age file in ASCII armor or base64, or it is damaged ({0})")]
    Malformed(String),
    /// For somebody else.
    #[error("it is sealed to another key")]
    OtherKey,
    /// What came out is no token.
    #[error("what is sealed in it is neither a token nor an object with token, url, session and not_after ({0})")]
    Content(String),
    /// A text that should be a key.
    #[error("{0}")]
    Key(&'static str),
    /// Sealing failed.
    #[error("it could not be sealed ({0})")]
    Seal(String),
}

/// A worker's own key. Cannot be printed.
pub struct Identity(age::x25519::Identity);

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Identity({})", self.recipient())
    }
}

impl Identity {
    /// Makes a fresh one.
    #[must_use]
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// The text that goes into an identity file; a secret.
    #[must_use]
    pub fn text(&self) -> Secret {
        Secret::new(self.0.to_string().expose_secret())
    }

    /// What others seal to: `age1...`.
    #[must_use]
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }

    /// Reads an identity file: one key a line, comments begin with `#`.
    ///
    /// # Errors
    /// A line is no X25519 identity, or there is none. No line is repeated.
    pub fn read_all(text: &str) -> Result<Vec<Self>, SealError> {
        let lines = text.lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let parsed: Result<Vec<_>, _> = keys
            .map(|line| age::x25519::Identity::from_str(line).map(Self))
            .collect();
        match parsed {
            Ok(identities) if !identities.is_empty() => Ok(identities),
            Ok(_) => Err(SealError::Key("it holds no identity: make one with cofferdam keygen")),
            Err(_) => Err(SealError::Key(
                "it holds a line that is no identity like AGE-SECRET-KEY-1...: make it with cofferdam keygen or age-keygen",
            )),
        }
    }
}

/// A worker's public key.
#[derive(Debug, Clone)]
pub struct Recipient(age::x25519::Recipient);

impl FromStr for Recipient {
    type Err = SealError;

    fn from_str(text: &str) -> Result<Self, SealError> {
        age::x25519::Recipient::from_str(text.trim())
            .map(Self)
            .map_err(|_| SealError::Key("a recipient looks like age1...; the worker's cofferdam doctor prints it"))
    }
}

/// Where a sealed token may be used; nothing where it does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Bounds {
    /// The forge's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The session's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<uuid::Uuid>,
    /// Until when, as `2026-12-31T00:00:00Z`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<jiff::Timestamp>,
}

/// The object as it is sealed. Unknown fields are refused: they may be bounds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    token: Secret,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    session: Option<uuid::Uuid>,
    #[serde(default)]
    not_after: Option<jiff::Timestamp>,
}

#[derive(Serialize)]
struct Outgoing<'a> {
    token: &'a str,
    #[serde(flatten)]
    bounds: &'a Bounds,
}

/// Seals a token with its bounds, in ASCII armor.
///
/// # Errors
/// There is no recipient, or the result would be too large.
pub fn seal(token: &Secret, bounds: &Bounds, recipients: &[Recipient]) -> Result<String, SealError> {
    let failed = |error: &dyn std::fmt::Display| SealError::Seal(error.to_string());
    let plain = Zeroizing::new(if *bounds == Bounds::default() {
        token.expose().to_owned()
    } else {
        let sealed = Outgoing {
            token: token.expose(),
            bounds,
        };
        serde_json::to_string(&sealed).map_err(|error| failed(&error))?
    });
    let keys = recipients.iter().map(|one| &one.0 as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(keys).map_err(|error| failed(&error))?;
    let armor = age::armor::ArmoredWriter::wrap_output(Vec::new(), age::armor::Format::AsciiArmor);
    let sealed = armor
        .and_then(|armor| encryptor.wrap_output(armor))
        .and_then(|mut writer| {
            writer.write_all(plain.as_bytes())?;
            writer.finish()?.finish()
        });
    let sealed = String::from_utf8(sealed.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
    if sealed.len() > LARGEST_SEALED {
        return Err(SealError::TooLarge(sealed.len()));
    }
    Ok(sealed)
}

/// Opens a sealed token with the first identity that fits.
///
/// # Errors
/// It is for another key, damaged, too large, or holds something else.
pub fn open(sealed: &str, identities: &[Identity]) -> Result<(Secret, Bounds), SealError> {
    if sealed.len() > LARGEST_SEALED {
        return Err(SealError::TooLarge(sealed.len()));
    }
    let malformed = |error: &dyn std::fmt::Display| SealError::Malformed(error.to_string());
    let sealed = sealed.trim();
    let binary = if sealed.starts_with("-----BEGIN") {
        let mut binary = Vec::new();
        let read = age::armor::ArmoredReader::new(sealed.as_bytes()).read_to_end(&mut binary);
        read.map_err(|error| malformed(&error))?;
        binary
    } else {
        let packed: Zeroizing<String> = Zeroizing::new(sealed.split_ascii_whitespace().collect());
        let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
        let decoded = engine.decode(packed.trim_end_matches('='));
        // The decoder's words may repeat a letter of what was sent, which need not be sealed at all.
        decoded.map_err(|_| malformed(&"no base64"))?
    };
    let decryptor = age::Decryptor::new_buffered(binary.as_slice()).map_err(|_| malformed(&"no age header"))?;
    let keys = identities.iter().map(|one| &one.0 as &dyn age::Identity);
    let opened = decryptor.decrypt(keys).map_err(|error| {
        if matches!(error, age::DecryptError::NoMatchingKeys) {
            SealError::OtherKey
        } else {
            malformed(&"its header does not hold")
        }
    })?;
    // Bounded by the sealed text itself; room for all of it, so that no growth leaves a copy behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(LARGEST_SEALED));
    let mut opened = opened.take(LARGEST_SEALED as u64);
    opened
        .read_to_end(&mut plain)
        .map_err(|_| malformed(&"its text does not hold"))?;
    content(&plain)
}

fn content(plain: &[u8]) -> Result<(Secret, Bounds), SealError> {
    let wrong = |what: &str| Err(SealError::Content(what.to_owned()));
    let Ok(text) = std::str::from_utf8(plain) else {
        return wrong("no text");
    };
    let text = text.trim();
    let (token, bounds) = if text.starts_with('{') {
        let Ok(content) = serde_json::from_str::<Content>(text) else {
            // The parser's words may repeat what it read.
            return wrong("an unknown or malformed field");
        };
        let Content {
            token,
            url,
            session,
            not_after,
        } = content;
        let bounds = Bounds {
            url,
            session,
            not_after,
        };
        (token, bounds)
    } else {
        (Secret::new(text), Bounds::default())
    };
    if token.is_empty() || token.expose().chars().any(|c| c.is_control() || c.is_whitespace()) {
        return wrong("a token is one word");
    }
    Ok((token, bounds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (Identity, Recipient) {
        let identity = Identity::generate();
        let recipient = identity.recipient().parse().unwrap();
        (identity, recipient)
    }

    #[test]
    fn what_is_sealed_comes_back_with_its_bounds() {
        let (identity, recipient) = keys();
        let (other, _) = keys();
        let token = Secret::new("glpat-canary-seal");
        let bounds = Bounds {
            url: Some("https://gitlab.example.org".into()),
            session: Some(uuid::Uuid::nil()),
            not_after: Some("2026-12-31T00:00:00Z".parse().unwrap()),
        };
        for bounds in [Bounds::default(), bounds] {
            let sealed = seal(&token, &bounds, std::slice::from_ref(&recipient)).unwrap();
            assert!(sealed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") && !sealed.contains("canary"));
            // Rotation: the old key is still there, behind the new one.
            let both = [Identity(other.0.clone()), Identity(identity.0.clone())];
            let (opened, found) = open(&sealed, &both).unwrap();
            assert_eq!((opened.expose(), &found), (token.expose(), &bounds));
            let packed: String = sealed.lines().filter(|line| !line.starts_with("-----")).collect();
            for text in [
                packed.clone(),
                packed.trim_end_matches('=').to_owned(),
                format!(" {sealed}\n"),
            ] {
                assert_eq!(open(&text, &both).unwrap().0.expose(), token.expose());
            }
            assert_eq!(
                open(&sealed, &[Identity(other.0.clone())]).unwrap_err(),
                SealError::OtherKey
            );
            assert_eq!(open(&sealed, &[]).unwrap_err(), SealError::OtherKey);
        }
    }

    #[test]
    fn what_is_damaged_or_no_token_is_refused_and_not_repeated() {
        let (identity, recipient) = keys();
        let keys = [identity];
        let sealed = seal(
            &Secret::new("glpat-canary-seal"),
            &Bounds::default(),
            std::slice::from_ref(&recipient),
        )
        .unwrap();
        let packed: String = sealed.lines().filter(|line| !line.starts_with("-----")).collect();
        let mut damaged = base64::engine::general_purpose::STANDARD.decode(&packed).unwrap();
        *damaged.last_mut().unwrap() ^= 1;
        let damaged = base64::engine::general_purpose::STANDARD.encode(damaged);
        for bad in [
            "",
            "glpat-canary-plain",
            "Z2xwYXQtY2FuYXJ5",
            &sealed[..sealed.len() / 2],
            &damaged,
        ] {
            let error = open(bad, &keys).unwrap_err();
            assert!(matches!(error, SealError::Malformed(_)), "{bad}: {error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        assert!(matches!(
            open(&"a".repeat(LARGEST_SEALED + 1), &keys),
            Err(SealError::TooLarge(_))
        ));
        for content in [
            "{\"token\":\"canary\",\"sesion\":\"x\"}",
            "{\"token\":5}",
            "{}",
            "two words",
            " ",
            "{\"token\":\"\"}",
        ] {
            let sealed = seal(
                &Secret::new(content),
                &Bounds::default(),
                std::slice::from_ref(&recipient),
            )
            .unwrap();
            let error = open(&sealed, &keys).unwrap_err();
            assert!(matches!(error, SealError::Content(_)), "{content}: {error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn identity_files_are_read_line_by_line() {
        let (one, two) = (Identity::generate(), Identity::generate());
        let text = format!("# made today\n{}\n\n  {}\n", one.text().expose(), two.text().expose());
        let read: Vec<_> = Identity::read_all(&text)
            .unwrap()
            .iter()
            .map(Identity::recipient)
            .collect();
        assert_eq!(read, [one.recipient(), two.recipient()]);
        assert!(format!("{one:?}").contains("age1") && !format!("{one:?}").contains("SECRET"));
        for bad in ["", "# only words\n", "AGE-SECRET-KEY-1CANARY", "age1xyz"] {
            let error = Identity::read_all(bad).unwrap_err();
            assert!(!error.to_string().contains("CANARY"), "{error}");
        }
        assert!("age1nonsense".parse::<Recipient>().is_err());
    }
}
