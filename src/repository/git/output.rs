//! Reads what a child says, never more than is wanted of it, and drains the rest so that the child does not block.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much of an error stream is kept.
const TAIL: usize = 32 * 1024;

/// All of the stream, or `None` when it is longer than `largest`.
pub(crate) async fn read_head(stream: Option<impl AsyncRead + Unpin>, largest: usize) -> Option<Vec<u8>> {
    let Some(mut stream) = stream else {
        return Some(Vec::new());
    };
    let mut kept = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    let mut overflowed = false;
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) if kept.len() + count > largest => {
                overflowed = true;
                kept.clear();
            }
            Ok(count) if !overflowed => kept.extend_from_slice(&chunk[..count]),
            Ok(_) => {}
        }
    }
    (!overflowed).then_some(kept)
}

/// The end of the stream as plain text.
pub(crate) async fn read_tail(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else {
        return String::new();
    };
    let mut kept: Vec<u8> = Vec::new();
    let mut chunk = vec![0; 8 * 1024];
    let mut cut = false;
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                kept.extend_from_slice(&chunk[..count]);
                if kept.len() > 2 * TAIL {
                    kept.drain(..kept.len() - TAIL);
                    cut = true;
                }
            }
        }
    }
    if cut {
        // The first line is not whole: half a secret in it would escape the mask.
        let line_end = kept
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(kept.len(), |at| at + 1);
        kept.drain(..line_end);
    }
    plain(&kept)
}

/// Text without anything that a terminal or a log could take for a command. A carriage return redraws a line, so it begins a new one.
pub(crate) fn plain(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|character| if character == '\r' { '\n' } else { character })
        .filter(|character| matches!(character, '\n' | '\t') || !character.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_answers_are_refused_and_long_complaints_keep_their_end() {
        let text = [b'x'; 100];
        assert_eq!(read_head(Some(&text[..]), 100).await.map(|kept| kept.len()), Some(100));
        assert_eq!(read_head(Some(&text[..]), 99).await, None);
        let mut long = vec![b'a'; 3 * TAIL];
        long.extend_from_slice(b"\nfatal: the end\n");
        assert_eq!(read_tail(Some(&long[..])).await, "fatal: the end\n");
    }

    #[test]
    fn control_characters_do_not_pass() {
        assert_eq!(plain(b"a\x1b]52;c;x\x07b\rc\xff"), "a]52;c;xb\nc\u{fffd}");
    }
}
