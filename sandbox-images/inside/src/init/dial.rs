//! Dialling the gateway. It knows one way, a socket's path or the link to the worker, and resolves no name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_inside::Preamble;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::link::Link;

/// How long a gateway may take to have room for a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// A full backlog has no event that could be waited for.
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);

/// How the gateway is reached.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// By its socket, which is mounted.
    Socket(PathBuf),
    /// By the worker, which is elsewhere.
    Link(Arc<Link>),
}

/// A connection whose preamble is written.
pub(super) async fn dial(way: &Way, preamble: &Preamble) -> io::Result<UnixStream> {
    let dialling = async {
        let mut stream = match way {
            Way::Socket(path) => connect(path).await?,
            Way::Link(link) => link.open().await?,
        };
        stream.write_all(preamble.to_string().as_bytes()).await?;
        Ok(stream)
    };
    tokio::time::timeout(PATIENCE, dialling)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn connect(socket: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(BACKLOG_PAUSE).await,
            done @ (Ok(_) | Err(_)) => return done,
        }
    }
}
