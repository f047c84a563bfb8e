//! How the child process hands over what a session's commits add: a line of JSON, then as many bytes as it says. Pure.
//!
//! The child read an agent's objects: its words are as untrusted as they are. Anything unexpected ends the reading with an error.

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// Bytes of one piece.
pub(crate) const LARGEST_PIECE: usize = 128 * 1024;
/// Bytes of a commit, as large as staging takes them.
pub(crate) const LARGEST_COMMIT: usize = 1024 * 1024;
/// Bytes of a path or a link's target; git's own limit.
pub(crate) const LONGEST_PATH: usize = 4096;
/// Bytes of the line of JSON: a byte of a path may take 6 in it.
const LONGEST_HEADER: u64 = 64 * 1024;

/// What a line of JSON says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Header {
    /// Lines that a commit adds to a file. `line` is that of the first byte; `joined` says that the piece before it ends where it begins.
    Lines {
        commit: String,
        path: String,
        line: u64,
        joined: bool,
        bytes: usize,
    },
    /// The name of a file that a commit adds.
    Name { commit: String, bytes: usize },
    /// A commit itself: who made it and its message.
    Commit { commit: String, bytes: usize },
    /// A path that differs between the base and the head; where it leads when it is a link.
    Changed { path: String, target: Option<String> },
    /// Everything was handed over. Without it something is missing.
    End,
}

impl Header {
    fn bytes(&self) -> usize {
        match self {
            Self::Lines { bytes, .. } | Self::Name { bytes, .. } | Self::Commit { bytes, .. } => *bytes,
            Self::Changed { .. } | Self::End => 0,
        }
    }

    fn largest(&self) -> usize {
        match self {
            Self::Commit { .. } => LARGEST_COMMIT,
            Self::Lines { .. } | Self::Name { .. } | Self::Changed { .. } | Self::End => LARGEST_PIECE,
        }
    }
}

/// Writes one.
pub(crate) fn write(output: &mut impl std::io::Write, header: &Header, bytes: &[u8]) -> std::io::Result<()> {
    serde_json::to_writer(&mut *output, header)?;
    output.write_all(b"\n")?;
    output.write_all(bytes)
}

/// Reads the next one; `None` at the end of the stream.
pub(crate) async fn read(input: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<(Header, Vec<u8>)>, String> {
    let said = |error: std::io::Error| error.to_string();
    let mut line = Vec::new();
    let count = (&mut *input)
        .take(LONGEST_HEADER)
        .read_until(b'\n', &mut line)
        .await
        .map_err(said)?;
    if count == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err("its answer was cut".to_owned());
    }
    let header: Header = serde_json::from_slice(&line).map_err(|_| "its answer does not read".to_owned())?;
    if header.bytes() > header.largest() {
        return Err("its answer is longer than it may be".to_owned());
    }
    let mut bytes = vec![0; header.bytes()];
    input.read_exact(&mut bytes).await.map_err(said)?;
    Ok(Some((header, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_and_nonsense_is_refused() {
        let name = Header::Name {
            commit: "a".repeat(40),
            bytes: 3,
        };
        let mut text = Vec::new();
        write(&mut text, &name, b"\n\0x").unwrap();
        write(&mut text, &Header::End, b"").unwrap();
        let mut input = text.as_slice();
        assert_eq!(read(&mut input).await.unwrap(), Some((name, b"\n\0x".to_vec())));
        assert_eq!(read(&mut input).await.unwrap(), Some((Header::End, Vec::new())));
        assert_eq!(read(&mut input).await.unwrap(), None);
        for broken in [
            &b"{\"kind\":\"end\"}"[..],
            b"{\"kind\":\"name\",\"commit\":\"a\",\"bytes\":5}\nabc",
            b"{\"kind\":\"name\",\"commit\":\"a\",\"bytes\":99999999999}\n",
            b"{\"kind\":\"name\",\"commit\":\"a\",\"bytes\":-1}\n",
            b"{\"kind\":\"other\"}\n",
            b"\xff\n",
        ] {
            assert!(
                read(&mut &broken[..]).await.is_err(),
                "{}",
                String::from_utf8_lossy(broken)
            );
        }
    }
}
