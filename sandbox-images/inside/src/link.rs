//! How a sandbox that shares no directory with its worker greets it, over TLS whose certificate it was given beforehand. Opens no connection.
//!
//! The first connection is the link: it carries the one-time ticket, is answered with a key, and says by living that both ends live. Every
//! further one carries that key, and then what a connection to the gateway's socket carries: its preamble first. The key is never written
//! anywhere in the sandbox, and worth nothing once the link has ended.

use std::fmt;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{Token, WireError};

/// The name in the worker's certificate. It resolves to nothing: whoever holds the certificate's key is the worker.
pub const LINK_NAME: &str = "worker.cofferdam.internal";
/// The file with the ticket: the digits of a token, and nothing else.
pub const TICKET_FILE: &str = "ticket";
/// The file with the worker's certificate, in DER.
pub const CERTIFICATE_FILE: &str = "certificate";

const JOIN_PREFIX: &str = "cofferdam/1 join ";
const OPEN_PREFIX: &str = "cofferdam/1 open ";

/// The first line of a connection to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// The link, once for each ticket.
    Join(Token),
    /// One connection to the gateway, by the link's key.
    Open(Token),
}

impl Greeting {
    /// Every greeting is so long, newline included; so nothing is read beyond it.
    pub const BYTES: usize = JOIN_PREFIX.len() + Token::LENGTH + 1;
    /// The answer to a join is so long: a key and a newline.
    pub const ANSWER_BYTES: usize = Token::LENGTH + 1;

    /// Reads one. It waits for as long as the other side does: put a time limit around it.
    ///
    /// # Errors
    ///
    /// [`WireError::Read`], or [`WireError::ParsePreamble`] for anything that is no greeting.
    pub async fn read<R: AsyncRead + Unpin>(source: &mut R) -> Result<Self, WireError> {
        let mut line = [0_u8; Self::BYTES];
        source.read_exact(&mut line).await.map_err(WireError::Read)?;
        let line = line.strip_suffix(b"\n").and_then(|line| str::from_utf8(line).ok());
        let line = line.ok_or(WireError::ParsePreamble)?;
        let token = |text: &str| Token::parse(text).map_err(|_| WireError::ParsePreamble);
        match (line.strip_prefix(JOIN_PREFIX), line.strip_prefix(OPEN_PREFIX)) {
            (Some(ticket), _) => Ok(Self::Join(token(ticket)?)),
            (None, Some(key)) => Ok(Self::Open(token(key)?)),
            (None, None) => Err(WireError::ParsePreamble),
        }
    }

    /// Reads the answer to a join.
    ///
    /// # Errors
    ///
    /// [`WireError::Read`], or [`WireError::ParseToken`] for anything that is no key.
    pub async fn read_answer<R: AsyncRead + Unpin>(source: &mut R) -> Result<Token, WireError> {
        let mut line = [0_u8; Self::ANSWER_BYTES];
        source.read_exact(&mut line).await.map_err(WireError::Read)?;
        let line = line.strip_suffix(b"\n").and_then(|line| str::from_utf8(line).ok());
        Token::parse(line.unwrap_or_default())
    }

    /// The answer to a join.
    #[must_use]
    pub fn answer(key: &Token) -> String {
        format!("{}\n", key.as_str())
    }
}

/// The whole line, newline included. Holds the token: to be written to the other end, and to nothing else.
impl fmt::Display for Greeting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join(ticket) => writeln!(formatter, "{JOIN_PREFIX}{}", ticket.as_str()),
            Self::Open(key) => writeln!(formatter, "{OPEN_PREFIX}{}", key.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_what_it_formats_and_not_a_byte_more() {
        let token = Token::from_bytes([0xa5; 16]);
        for greeting in [Greeting::Join(token.clone()), Greeting::Open(token.clone())] {
            let mut bytes = greeting.to_string().into_bytes();
            assert_eq!(bytes.len(), Greeting::BYTES);
            bytes.extend_from_slice(b"cofferdam/1 control\n");
            let mut source = bytes.as_slice();
            assert_eq!(Greeting::read(&mut source).await.unwrap(), greeting);
            assert_eq!(source, b"cofferdam/1 control\n");
        }
        let answer = Greeting::answer(&token);
        assert_eq!(Greeting::read_answer(&mut answer.as_bytes()).await.unwrap(), token);
        assert!(!format!("{:?}", Greeting::Join(token)).contains("a5"));
    }

    #[tokio::test]
    async fn refuses_everything_else() {
        let right = Greeting::Join(Token::from_bytes([1; 16])).to_string();
        for wrong in [
            right.replace("join", "take"),
            right.to_uppercase(),
            right.replace('\n', " "),
            right.replace("/1", "/2"),
            right[1..].to_owned(),
            "GET / HTTP/1.1\r\nHost: worker.cofferdam.internal\r\n\r\n".to_owned(),
        ] {
            assert!(Greeting::read(&mut wrong.as_bytes()).await.is_err(), "{wrong:?}");
        }
    }
}
