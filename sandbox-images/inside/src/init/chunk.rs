//! Reading what is there, without holding a buffer while nothing is. It never reads ahead of what the caller will pass
//! on at once.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// The most that is read at once.
pub(super) const CHUNK_BYTES: usize = 32 * 1024;

/// Reads at most `limit` bytes (and [`CHUNK_BYTES`]) into a new buffer that begins with `room` zero bytes. Nothing after
/// the room means the end. Cancel-safe: bytes are taken only when it returns them.
pub(super) async fn next_chunk<R: AsyncRead + Unpin>(source: &mut R, room: usize, limit: usize) -> io::Result<Vec<u8>> {
    std::future::poll_fn(|context| {
        // On the stack only while it is polled, so that ten thousand idle connections would cost nothing.
        let mut space = [MaybeUninit::<u8>::uninit(); CHUNK_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space[..limit.min(CHUNK_BYTES)]);
        ready!(Pin::new(&mut *source).poll_read(context, &mut buffer))?;
        let mut chunk = Vec::with_capacity(room + buffer.filled().len());
        chunk.resize(room, 0);
        chunk.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(chunk))
    })
    .await
}
