//! The reading half of a connection to the gateway. It never takes a short read for the last one before the next event: gVisor tells of bytes
//! and of the end behind them in one event, and not that the end was in it, which tokio's own reading then waits for in vain.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Reads until the socket says that there is nothing; only then it waits.
#[derive(Debug)]
pub(super) struct FromGateway(OwnedReadHalf);

/// Both halves of a connection.
pub(super) fn split(gateway: UnixStream) -> (FromGateway, OwnedWriteHalf) {
    let (from_gateway, to_gateway) = gateway.into_split();
    (FromGateway(from_gateway), to_gateway)
}

impl AsyncRead for FromGateway {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = self.0.as_ref();
        loop {
            ready!(socket.poll_read_ready(context))?;
            match socket.try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                // That was no event, or an old one: now it is waited for the next.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
