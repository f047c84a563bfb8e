//! Relaying loopback ports: each TCP connection to an ordered port becomes one connection to the gateway. It listens on
//! 127.0.0.1 only, looks at no byte, and holds no buffer for an idle connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_inside::Preamble;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::chunk::{CHUNK_BYTES, next_chunk};
use super::dial::{Way, dial};
use super::from_gateway::split;

/// Connections at once, over all ports; one more is closed as soon as it is made.
const MAX_CONNECTIONS: usize = 512;
/// Accepting fails when files or memory have run out, which has no event that could be waited for.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// What all relayed ports share.
#[derive(Debug, Clone)]
pub(super) struct Relay {
    way: Way,
    room: Arc<Semaphore>,
}

impl Relay {
    pub(super) fn new(way: Way) -> Self {
        Self {
            way,
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    /// Listens from here on; returns at once.
    pub(super) fn listen(&self, port: u16) -> io::Result<()> {
        let listener = std::net::TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let relay = self.clone();
        tokio::spawn(async move { relay.accept(port, &listener).await });
        Ok(())
    }

    async fn accept(self, port: u16, listener: &TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(SHORTAGE_PAUSE).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
                continue;
            };
            let way = self.way.clone();
            tokio::spawn(async move {
                // Either side may break off at any time; the other one notices, and there is nobody else to tell.
                let _ = carry(stream, port, way).await;
                drop(permit);
            });
        }
    }
}

async fn carry(stream: TcpStream, port: u16, way: Way) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let gateway = dial(&way, &Preamble::Relay(port)).await?;
    let (from_client, to_client) = stream.into_split();
    let (from_gateway, to_gateway) = split(gateway);
    tokio::try_join!(copy(from_client, to_gateway), copy(from_gateway, to_client))?;
    Ok(())
}

/// One direction, up to and including its end. When the other side takes no more, what still comes is dropped: closing
/// over it would reset the connection, and take an answer with it that the client has not read yet.
pub(super) async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut taken = true;
    loop {
        let chunk = next_chunk(&mut from, 0, CHUNK_BYTES).await?;
        if chunk.is_empty() {
            return if taken { to.shutdown().await } else { Ok(()) };
        }
        taken = taken && to.write_all(&chunk).await.is_ok() && to.flush().await.is_ok();
    }
}
