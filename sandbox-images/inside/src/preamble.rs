//! The one line with which every connection begins. It never reads a byte beyond that line: what follows belongs to
//! whoever takes the connection.

use std::fmt;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{Token, WireError};

/// The longest first line that is read at all, newline included.
pub const MAX_PREAMBLE_BYTES: usize = 256;

const STDIO_PREFIX: &str = "cofferdam/1 stdio ";
const RELAY_PREFIX: &str = "cofferdam/1 relay ";
const CONTROL_LINE: &str = "cofferdam/1 control";

/// No preamble is shorter than this, newline included; so this much can be asked for at once.
const SHORTEST: usize = CONTROL_LINE.len() + 1;

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preamble {
    /// Orders and reports.
    Control,
    /// The stdio of the process whose spawn order carried this token.
    Stdio(Token),
    /// The bytes of one TCP connection to this loopback port.
    Relay(u16),
}

impl Preamble {
    /// Takes a whole line, without its newline.
    ///
    /// # Errors
    ///
    /// [`WireError::ParsePreamble`] for anything that [`Preamble`] would not format in exactly these bytes.
    pub fn parse(line: &[u8]) -> Result<Self, WireError> {
        let line = str::from_utf8(line).map_err(|_| WireError::ParsePreamble)?;
        if line == CONTROL_LINE {
            return Ok(Self::Control);
        }
        if let Some(token) = line.strip_prefix(STDIO_PREFIX) {
            return Ok(Self::Stdio(Token::parse(token).map_err(|_| WireError::ParsePreamble)?));
        }
        let port = line.strip_prefix(RELAY_PREFIX).ok_or(WireError::ParsePreamble)?;
        match port.parse::<u16>() {
            // One spelling for each port: `080` and `+80` are not taken.
            Ok(number) if number != 0 && number.to_string() == port => Ok(Self::Relay(number)),
            Ok(_) | Err(_) => Err(WireError::ParsePreamble),
        }
    }

    /// Reads the first line of a connection, and not a byte more. It waits for as long as the other side does: put a
    /// time limit around it.
    ///
    /// Not cancel-safe: what was read is lost, so a connection on which this was cancelled can only be closed.
    ///
    /// # Errors
    ///
    /// [`WireError::Read`], [`WireError::Ended`], or [`WireError::ParsePreamble`] when the line is not a preamble or
    /// not ended within [`MAX_PREAMBLE_BYTES`].
    pub async fn read<R: AsyncRead + Unpin>(source: &mut R) -> Result<Self, WireError> {
        let mut line = [0_u8; MAX_PREAMBLE_BYTES];
        let mut length = 0;
        loop {
            let end = least_total(&line[..length]).min(MAX_PREAMBLE_BYTES);
            let read = source.read(&mut line[length..end]).await.map_err(WireError::Read)?;
            if read == 0 {
                return Err(WireError::Ended { within: "preamble" });
            }
            length += read;
            if line[length - read..length].contains(&b'\n') {
                return match line[..length].strip_suffix(b"\n") {
                    Some(whole) => Self::parse(whole),
                    None => Err(WireError::ParsePreamble),
                };
            }
            if length == MAX_PREAMBLE_BYTES {
                return Err(WireError::ParsePreamble);
            }
        }
    }
}

/// How long the whole line is at least, judging by its beginning. Never more than it can turn out to be.
fn least_total(beginning: &[u8]) -> usize {
    if beginning.starts_with(STDIO_PREFIX.as_bytes()) && beginning.len() < STDIO_PREFIX.len() + Token::LENGTH {
        STDIO_PREFIX.len() + Token::LENGTH + 1
    } else {
        SHORTEST.max(beginning.len() + 1)
    }
}

/// The whole line, newline included.
impl fmt::Display for Preamble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => writeln!(formatter, "{CONTROL_LINE}"),
            Self::Stdio(token) => writeln!(formatter, "{STDIO_PREFIX}{}", token.as_str()),
            Self::Relay(port) => writeln!(formatter, "{RELAY_PREFIX}{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::from_bytes([0xa5; 16])
    }

    #[tokio::test]
    async fn reads_what_it_formats_and_not_a_byte_more() {
        for preamble in [
            Preamble::Control,
            Preamble::Stdio(token()),
            Preamble::Relay(1),
            Preamble::Relay(65535),
        ] {
            let mut bytes = preamble.to_string().into_bytes();
            bytes.extend_from_slice(b"rest\n");
            let mut source = bytes.as_slice();
            assert_eq!(Preamble::read(&mut source).await.unwrap(), preamble);
            assert_eq!(source, b"rest\n");
        }
    }

    #[tokio::test]
    async fn reads_a_line_that_arrives_byte_by_byte() {
        let (mut there, here) = tokio::io::duplex(1);
        let writing = tokio::spawn(async move {
            let mut here = here;
            tokio::io::AsyncWriteExt::write_all(&mut here, Preamble::Stdio(token()).to_string().as_bytes()).await
        });
        assert_eq!(Preamble::read(&mut there).await.unwrap(), Preamble::Stdio(token()));
        writing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn refuses_everything_else() {
        let endless = [b'x'; 4096];
        let lines: [&[u8]; 12] = [
            b"",
            b"\n",
            b"cofferdam/2 control\n",
            b"cofferdam/1 control \n",
            b"cofferdam/1 control\r\n",
            b"cofferdam/1 relay 0\n",
            b"cofferdam/1 relay 080\n",
            b"cofferdam/1 relay 65536\n",
            b"cofferdam/1 relay +8000\n",
            b"cofferdam/1 stdio A5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5\n",
            b"\xff\xfe control cofferdam\n",
            &endless,
        ];
        for line in lines {
            let mut source = line;
            assert!(Preamble::read(&mut source).await.is_err(), "{line:?}");
        }
    }
}
