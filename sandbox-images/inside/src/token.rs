//! The token that ties a stdio connection to its spawn order. It makes no token: the worker draws 16 random bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::WireError;

/// Thirty-two lower-case hexadecimal digits. Not printed by `Debug`, because whoever knows it can take the place of
/// the process on the wire.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(String);

impl Token {
    /// How many characters a token has.
    pub const LENGTH: usize = 32;

    /// Formats sixteen random bytes as a token.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Takes exactly what [`Token::from_bytes`] formats.
    ///
    /// # Errors
    ///
    /// [`WireError::ParseToken`] for anything else.
    pub fn parse(text: &str) -> Result<Self, WireError> {
        let well_formed =
            text.len() == Self::LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(WireError::ParseToken)
        }
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Token {
    type Error = WireError;

    fn try_from(text: String) -> Result<Self, WireError> {
        Self::parse(&text)
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}
