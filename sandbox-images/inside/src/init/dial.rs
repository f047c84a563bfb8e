//! Dialling the gateway. It knows one address, the socket's path, and resolves no name.

use std::io;
use std::path::Path;
use std::time::Duration;

use cofferdam_inside::Preamble;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

/// How long a gateway may take to have room for a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// A full backlog has no event that could be waited for.
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);

/// A connection whose preamble is written.
pub(super) async fn dial(socket: &Path, preamble: &Preamble) -> io::Result<UnixStream> {
    let dialling = async {
        let mut stream = loop {
            match UnixStream::connect(socket).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(BACKLOG_PAUSE).await,
                done @ (Ok(_) | Err(_)) => break done?,
            }
        };
        stream.write_all(preamble.to_string().as_bytes()).await?;
        Ok(stream)
    };
    tokio::time::timeout(PATIENCE, dialling)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
