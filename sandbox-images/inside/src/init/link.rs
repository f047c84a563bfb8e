//! The link to a worker that shares no directory with this sandbox: joined once with the ticket, then opened anew for each connection.
//!
//! It trusts the one certificate that it was given, and no authority. What comes of the ticket stays in this memory, which nothing else in
//! the sandbox can read; the ticket's file may be read by anyone here, and is worth nothing by then.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_inside::{CERTIFICATE_FILE, Greeting, LINK_NAME, TICKET_FILE, Token};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Worker;
use super::from_gateway::split;
use super::relay::copy;

/// How long a worker may take to be reachable: a cluster's network learns of a new pod a while after it runs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How often the ticket is shown to a worker that closes the connection: it may have too many of them for a moment.
const SHOWN: u32 = 5;
/// Connections that are being made at a time; a worker takes few from one address that have not yet shown what they are.
const DIALLING: usize = 8;

/// What further connections are made with.
pub(super) struct Link {
    address: SocketAddr,
    connector: TlsConnector,
    key: Token,
    places: Semaphore,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Link").field(&self.address).finish()
    }
}

/// The connection whose life is the link's.
pub(super) struct Joined(TlsStream<TcpStream>);

impl Joined {
    /// Waits until the worker ends it, or breaks off. Nothing is said over it any more.
    pub(super) async fn ended(mut self) {
        let mut byte = [0_u8; 1];
        // A byte would be out of turn, and ends it too.
        let _ = self.0.read(&mut byte).await;
    }
}

/// Joins the worker with the ticket.
pub(super) async fn join(worker: &Worker) -> io::Result<(Link, Joined)> {
    let ticket = std::fs::read_to_string(worker.papers.join(TICKET_FILE))?;
    let ticket = Token::parse(ticket.trim()).map_err(invalid)?;
    let certificate = std::fs::read(worker.papers.join(CERTIFICATE_FILE))?;
    let connector = connector(certificate)?;
    let mut shown = 0;
    let (stream, key) = loop {
        let mut stream = reach(worker.address, &connector).await?;
        let answer = async {
            say(&mut stream, &Greeting::Join(ticket.clone())).await?;
            Greeting::read_answer(&mut stream).await.map_err(invalid)
        };
        let answer = tokio::time::timeout(ATTEMPT, answer).await;
        shown += 1;
        match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(key) => break (stream, key),
            Err(error) if shown >= SHOWN => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let link = Link {
        address: worker.address,
        connector,
        key,
        places: Semaphore::new(DIALLING),
    };
    Ok((link, Joined(stream)))
}

impl Link {
    /// One more connection to the gateway, as if it had been made to its socket.
    pub(super) async fn open(&self) -> io::Result<UnixStream> {
        let place = self.places.acquire().await.map_err(invalid)?;
        // A worker closes what comes too fast before it says anything: that is waited out, for as long as the dialling may take. The wrong
        // certificate does not become the right one.
        let mut stream = loop {
            match connect(self.address, &self.connector).await {
                Err(error) if is_passing(&error) => tokio::time::sleep(PAUSE).await,
                done @ (Ok(_) | Err(_)) => break done?,
            }
        };
        say(&mut stream, &Greeting::Open(self.key.clone())).await?;
        drop(place);
        let (ours, theirs) = UnixStream::pair()?;
        tokio::spawn(async move {
            let (from_sandbox, to_sandbox) = split(ours);
            let (from_worker, to_worker) = tokio::io::split(stream);
            // Either side may break off at any time; the other one notices.
            let _ = tokio::try_join!(copy(from_sandbox, to_worker), copy(from_worker, to_sandbox));
        });
        Ok(theirs)
    }
}

/// Whether the other end closed a connection without a word, as one that has no room does.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn connector(certificate: Vec<u8>) -> io::Result<TlsConnector> {
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from(certificate)).map_err(invalid)?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(invalid)?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The first connection: tried again while the network does not let it through.
async fn reach(address: SocketAddr, connector: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let begun = tokio::time::Instant::now();
    loop {
        let attempt = tokio::time::timeout(ATTEMPT, connect(address, connector)).await;
        match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            // The wrong certificate does not become the right one.
            Err(error) if error.kind() != io::ErrorKind::InvalidData && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            done @ (Ok(_) | Err(_)) => return done,
        }
    }
}

async fn connect(address: SocketAddr, connector: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(LINK_NAME).map_err(invalid)?;
    connector.connect(name, stream).await
}

async fn say(stream: &mut TlsStream<TcpStream>, greeting: &Greeting) -> io::Result<()> {
    stream.write_all(greeting.to_string().as_bytes()).await?;
    stream.flush().await
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
