//! Carries the request of a fetch to git as it comes, unpacked where a client packed it: nothing of it is held but the piece on its way.
//!
//! Bounded in bytes and in time; what is too much or too late ends the request, and is told in git's own packet for it.

use std::io::Write as _;
use std::time::Duration;

use axum::body::BodyDataStream;
use bytes::Bytes;
use flate2::write::GzDecoder;
use futures::StreamExt as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// Largest fetch request, after decompression, in bytes: a list of commit ids.
pub(super) const LARGEST: usize = 16 * 1024 * 1024;
/// How long the request of a fetch may take to arrive.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// How much is unpacked at once, in bytes: it may become a thousand times that.
const PACKED_PIECE: usize = 1024;

/// Why a request was not carried to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untaken {
    TooLarge,
    Broken,
    Late,
}

impl Untaken {
    /// A packet that git's clients show as the other side's error.
    pub(super) fn packet(self) -> Bytes {
        let text = match self {
            Self::TooLarge => "ERR the fetch request is too large",
            Self::Broken => "ERR the fetch request broke off, or its gzip is broken",
            Self::Late => "ERR the fetch request did not arrive in time",
        };
        format!("{:04x}{text}", text.len() + 4).into()
    }
}

/// From the request's body to git's input, piece by piece.
///
/// # Errors
/// Why git did not get all of it.
pub(super) async fn feed(
    body: BodyDataStream,
    compressed: bool,
    input: &mut (impl AsyncWrite + Unpin),
    limit: Duration,
) -> Result<(), Untaken> {
    tokio::time::timeout(limit, read(body, compressed, input))
        .await
        .unwrap_or(Err(Untaken::Late))
}

async fn read(
    mut body: BodyDataStream,
    compressed: bool,
    input: &mut (impl AsyncWrite + Unpin),
) -> Result<(), Untaken> {
    let mut unpacker = compressed.then(Unpacker::default);
    let (mut length, mut wanted) = (0, true);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|_| Untaken::Broken)?;
        for part in piece.chunks(PACKED_PIECE) {
            let plain = match &mut unpacker {
                None => part.to_vec(),
                Some(unpacker) => unpacker.piece(part).ok_or(Untaken::Broken)?,
            };
            length += plain.len();
            if length > LARGEST {
                return Err(Untaken::TooLarge);
            }
            // A program that ends early closes its input; its answer says why.
            wanted = wanted && input.write_all(&plain).await.is_ok();
        }
    }
    if let Some(unpacker) = unpacker {
        let rest = unpacker.end().ok_or(Untaken::Broken)?;
        if length + rest.len() > LARGEST {
            return Err(Untaken::TooLarge);
        }
        let _ = input.write_all(&rest).await;
    }
    Ok(())
}

struct Unpacker(GzDecoder<Vec<u8>>);

impl Default for Unpacker {
    fn default() -> Self {
        Self(GzDecoder::new(Vec::new()))
    }
}

impl Unpacker {
    fn piece(&mut self, piece: &[u8]) -> Option<Vec<u8>> {
        self.0.write_all(piece).ok()?;
        self.0.flush().ok()?;
        Some(std::mem::take(self.0.get_mut()))
    }

    fn end(self) -> Option<Vec<u8>> {
        self.0.finish().ok()
    }
}

/// What the fuzzers reach: a compressed request as git would get it, unless it is too large or broken.
#[cfg(feature = "fuzzing")]
pub(super) fn decompressed(body: &[u8]) -> Option<Vec<u8>> {
    let mut unpacker = Unpacker::default();
    let mut plain = Vec::new();
    for part in body.chunks(PACKED_PIECE) {
        plain.append(&mut unpacker.piece(part)?);
        if plain.len() > LARGEST {
            return None;
        }
    }
    plain.append(&mut unpacker.end()?);
    (plain.len() <= LARGEST).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn packed(size: usize) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..size / 1024 {
            encoder.write_all(&[b'x'; 1024]).unwrap();
        }
        encoder.finish().unwrap()
    }

    async fn fed(body: Vec<u8>, compressed: bool) -> (Result<(), Untaken>, usize) {
        let mut out = Vec::new();
        let said = feed(Body::from(body).into_data_stream(), compressed, &mut out, TIMEOUT).await;
        (said, out.len())
    }

    #[tokio::test]
    async fn requests_are_unpacked_on_their_way_and_bounded() {
        assert_eq!(fed(packed(3 << 20), true).await, (Ok(()), 3 << 20));
        assert_eq!(fed(vec![0; 5000], false).await, (Ok(()), 5000));
        let (said, length) = fed(packed(LARGEST + (1 << 20)), true).await;
        assert_eq!(said, Err(Untaken::TooLarge));
        assert!(length <= LARGEST);
        assert_eq!(fed(vec![0; LARGEST + 1], false).await.0, Err(Untaken::TooLarge));
        assert_eq!(fed(b"not gzip".to_vec(), true).await.0, Err(Untaken::Broken));
        let mut cut = packed(1 << 20);
        cut.truncate(cut.len() - 9);
        assert_eq!(fed(cut, true).await.0, Err(Untaken::Broken));
    }

    #[tokio::test]
    async fn a_request_that_does_not_come_is_told_in_a_packet() {
        let never = Body::from_stream(futures::stream::pending::<std::io::Result<Bytes>>());
        let said = feed(
            never.into_data_stream(),
            false,
            &mut Vec::new(),
            Duration::from_millis(1),
        )
        .await;
        assert_eq!(said, Err(Untaken::Late));
        assert_eq!(&said.unwrap_err().packet()[..8], b"0030ERR ");
    }
}
