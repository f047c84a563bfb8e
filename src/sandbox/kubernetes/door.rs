//! Where sandboxes of other machines come in: one port, TLS with a certificate of this process, and for each sandbox a ticket that is good once.
//!
//! Whoever comes is a stranger until a ticket or a key says which sandbox it is: strangers have little time, and few places, fewer for one
//! address, as another sandbox may be the one that floods it; of those the one that waits longest gives way. Who begins more often than an
//! address may is closed before any work is done for him. What a known sandbox says goes to its own gateway's socket byte by byte, and to
//! nothing else.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cofferdam_inside::{Greeting, LINK_NAME, Token};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::Digest as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use self::limiter::Limiter;
use crate::sandbox::SandboxError;

mod limiter;

/// Most connections that have not yet shown what they are.
const MOST_STRANGERS: usize = 1024;
/// Most of them from one address.
const MOST_OF_ADDRESS: usize = 64;
/// How long one may take to show it.
const STRANGER_LIMIT: Duration = Duration::from_secs(5);
/// How often it is said that somebody was refused.
const SAID_EACH: Duration = Duration::from_secs(60);
/// Most connections of one sandbox; the gateway behind it has limits of its own below this.
const MOST_OF_ONE: usize = 1024;
/// After so long without a sign of the other end's machine a connection is over.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a gateway may take to have room for a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// A full backlog has no event that could be waited for.
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);

/// Why somebody was refused: each with a word of its own, which operators count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// His address began too many connections in a short time.
    Rate,
    /// He waited longest of too many who had not shown what they are.
    Places,
    /// His ticket or key is unknown, was used, or is over.
    Unknown,
}

impl Refusal {
    /// All of them, so that each is counted from zero.
    pub const ALL: [Self; 3] = [Self::Rate, Self::Places, Self::Unknown];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Places => "places",
            Self::Unknown => "unknown",
        }
    }
}

/// Who counts what was refused.
pub trait CountRefusals: Send + Sync {
    /// One connection was refused.
    fn refused(&self, refusal: Refusal);
}

/// What tickets and keys are known by: comparing them tells nothing of them.
type Digest = [u8; 32];

fn digest(token: &Token) -> Digest {
    sha2::Sha256::digest(token.as_str()).into()
}

/// A sandbox that may come.
#[derive(Clone)]
struct Guest {
    socket: PathBuf,
    stop: CancellationToken,
    joined: watch::Sender<bool>,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Known {
    tickets: HashMap<Digest, Guest>,
    keys: HashMap<Digest, Guest>,
}

type Guests = Arc<Mutex<Known>>;

fn known(guests: &Guests) -> MutexGuard<'_, Known> {
    guests.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The open port.
pub(super) struct Door {
    guests: Guests,
    certificate: Vec<u8>,
    #[cfg(test)]
    local: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A sandbox's right to come in, which ends with this, together with all its connections.
pub(super) struct Pass {
    /// Good for one join.
    pub(super) ticket: Token,
    joined: watch::Receiver<bool>,
    stop: CancellationToken,
    guests: Guests,
}

impl Pass {
    /// Waits until the ticket was used. Cancel-safe.
    pub(super) fn joined(&self) -> impl Future<Output = bool> + Send + use<> {
        let mut joined = self.joined.clone();
        async move { joined.wait_for(|joined| *joined).await.is_ok() }
    }

    /// Waits until a sandbox that came is gone. Cancel-safe.
    pub(super) async fn broken(&self) {
        if self.joined().await {
            self.stop.cancelled().await;
        } else {
            std::future::pending().await
        }
    }

    /// Ends it now.
    pub(super) fn end(&self) {
        self.stop.cancel();
        known(&self.guests).tickets.remove(&digest(&self.ticket));
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.end();
    }
}

impl Door {
    /// Listens, with a certificate that lives as long as this.
    ///
    /// # Errors
    /// The port is taken, or no certificate could be made.
    pub(super) async fn open(listen: SocketAddr, counts: Arc<dyn CountRefusals>) -> Result<Self, SandboxError> {
        let failed = |detail: String| SandboxError::Prepare { detail };
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            failed(format!(
                "sandbox.kubernetes.listen {listen} cannot be listened on: {error}"
            ))
        })?;
        #[cfg(test)]
        let local = listener.local_addr().map_err(|error| failed(error.to_string()))?;
        let made = rcgen::generate_simple_self_signed(vec![LINK_NAME.to_owned()]);
        let made = made.map_err(|error| failed(format!("no certificate could be made: {error}")))?;
        let certificate = made.cert.der().to_vec();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| {
                let trusted = vec![CertificateDer::from(certificate.clone())];
                builder.with_no_client_auth().with_single_cert(trusted, key)
            })
            .map_err(|error| failed(format!("no certificate could be used: {error}")))?;
        let (guests, stop) = (Guests::default(), CancellationToken::new());
        let accepting = accept(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            guests.clone(),
            counts,
            stop.clone(),
        );
        tokio::spawn(accepting);
        Ok(Self {
            guests,
            certificate,
            #[cfg(test)]
            local,
            stop,
        })
    }

    /// What sandboxes shall trust, in DER.
    pub(super) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Lets one sandbox in; what it says goes to this socket.
    pub(super) fn expect(&self, socket: &Path) -> Pass {
        let ticket = random();
        let (joined_tx, joined) = watch::channel(false);
        let stop = self.stop.child_token();
        let guest = Guest {
            socket: socket.to_owned(),
            stop: stop.clone(),
            joined: joined_tx,
            places: Arc::new(Semaphore::new(MOST_OF_ONE)),
        };
        known(&self.guests).tickets.insert(digest(&ticket), guest);
        Pass {
            ticket,
            joined,
            stop,
            guests: self.guests.clone(),
        }
    }
}

fn random() -> Token {
    Token::from_bytes(*uuid::Uuid::new_v4().as_bytes())
}

/// Accepts until stopped; each connection lives in a task of its own.
async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    guests: Guests,
    counts: Arc<dyn CountRefusals>,
    stop: CancellationToken,
) {
    let (mut limiter, mut strangers) = (Limiter::default(), Strangers::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, from) = match accepted {
            Ok((stream, from)) => (stream, from.ip()),
            Err(error) => {
                // Out of descriptors, most likely: waiting is the only thing that helps.
                tracing::warn!(%error, "a sandbox's connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if !limiter.admit(from, Instant::now()) {
            // Closed before a byte of it was read: `inside` waits a moment and comes again.
            refused(from, Refusal::Rate, counts.as_ref());
            continue;
        }
        let (stranger, gave_way) = strangers.admit(from);
        if let Some(other) = gave_way {
            refused(other, Refusal::Places, counts.as_ref());
        }
        let (acceptor, guests, counts, stop) = (acceptor.clone(), guests.clone(), counts.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = receive(stream, from, &acceptor, &guests, stranger, counts.as_ref()) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Who has not yet shown what they are, in the order in which they came.
#[derive(Default)]
struct Strangers(VecDeque<(IpAddr, CancellationToken)>);

impl Strangers {
    /// One more; another gives way where there are too many, and whose that was.
    fn admit(&mut self, from: IpAddr) -> (CancellationToken, Option<IpAddr>) {
        self.0.retain(|(_, stranger)| !stranger.is_cancelled());
        let of_address = self.0.iter().filter(|(address, _)| *address == from).count();
        let gives_way = if of_address >= MOST_OF_ADDRESS {
            self.0.iter().position(|(address, _)| *address == from)
        } else {
            (self.0.len() >= MOST_STRANGERS).then_some(0)
        };
        let gave_way = gives_way
            .and_then(|place| self.0.remove(place))
            .map(|(other, longest)| {
                longest.cancel();
                other
            });
        let stranger = CancellationToken::new();
        self.0.push_back((from, stranger.clone()));
        (stranger, gave_way)
    }
}

/// Counts who was refused, and says it; once a minute so that somebody sees it, however often somebody tries.
fn refused(from: IpAddr, refusal: Refusal, counts: &dyn CountRefusals) {
    counts.refused(refusal);
    let what = match refusal {
        Refusal::Rate => "more connections in a second than an address may begin",
        Refusal::Places => "too many connections that did not show what they are",
        Refusal::Unknown => "a ticket or a key that is unknown, was used, or is over",
    };
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_none_or(|at| at.elapsed() >= SAID_EACH) {
        *last = Some(Instant::now());
        tracing::warn!(%from, what, "refused at the sandboxes' port; more of this is said at most once a minute");
    } else {
        tracing::debug!(%from, what, "refused at the sandboxes' port");
    }
}

/// Has the kernel end a connection whose other end says nothing, as a node that was lost does: over a link nothing is said for hours.
fn notice_silence(stream: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENCE / 2)?;
    sockopt::set_tcp_keepintvl(stream, SILENCE / 6)?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// Asks who comes, and then carries what is said.
async fn receive(
    stream: TcpStream,
    from: IpAddr,
    acceptor: &TlsAcceptor,
    guests: &Guests,
    stranger: CancellationToken,
    counts: &dyn CountRefusals,
) {
    let asking = async {
        stream.set_nodelay(true)?;
        notice_silence(&stream)?;
        let mut stream = acceptor.accept(stream).await?;
        let greeting = Greeting::read(&mut stream).await.map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>((stream, greeting))
    };
    let asked = tokio::select! {
        asked = tokio::time::timeout(STRANGER_LIMIT, asking) => asked,
        () = stranger.cancelled() => return,
    };
    // Shown or not: either way it is no stranger that waits any more.
    stranger.cancel();
    let (stream, greeting) = match asked {
        Ok(Ok(asked)) => asked,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection to the sandboxes' port was no sandbox's"),
        Err(_) => return,
    };
    match greeting {
        Greeting::Join(ticket) => {
            // Gone before it is answered: nobody else can use it meanwhile.
            let Some(guest) = known(guests).tickets.remove(&digest(&ticket)) else {
                return refused(from, Refusal::Unknown, counts);
            };
            hold(stream, guest, guests).await;
        }
        Greeting::Open(key) => {
            let Some(guest) = known(guests).keys.get(&digest(&key)).cloned() else {
                return refused(from, Refusal::Unknown, counts);
            };
            let Ok(_place) = guest.places.try_acquire() else {
                return;
            };
            tokio::select! {
                () = carry(stream, &guest.socket) => {}
                () = guest.stop.cancelled() => {}
            }
        }
    }
}

/// Holds a link for as long as both ends live; its key is good for so long.
async fn hold(mut stream: TlsStream<TcpStream>, guest: Guest, guests: &Guests) {
    let key = random();
    let known_by = digest(&key);
    known(guests).keys.insert(known_by, guest.clone());
    guest.joined.send_replace(true);
    let linked = async {
        stream.write_all(Greeting::answer(&key).as_bytes()).await?;
        stream.flush().await?;
        // Nothing more is said over it: a byte ends it as its end does.
        stream.read_u8().await
    };
    tokio::select! {
        _ = linked => {}
        () = guest.stop.cancelled() => {}
    }
    known(guests).keys.remove(&known_by);
    // What still runs over it ends too.
    guest.stop.cancel();
}

/// Carries one connection to the gateway and back.
async fn carry(stream: TlsStream<TcpStream>, socket: &Path) {
    let gateway = match tokio::time::timeout(PATIENCE, connect(socket)).await {
        Ok(Ok(gateway)) => gateway,
        Ok(Err(error)) => return tracing::debug!(%error, "a sandbox's gateway is gone"),
        Err(_) => return tracing::warn!("a sandbox's gateway takes no connection"),
    };
    let (from_sandbox, to_sandbox) = tokio::io::split(stream);
    let (from_gateway, to_gateway) = gateway.into_split();
    tokio::join!(one_way(from_sandbox, to_gateway), one_way(from_gateway, to_sandbox));
}

async fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => tokio::time::sleep(BACKLOG_PAUSE).await,
            done @ (Ok(_) | Err(_)) => return done,
        }
    }
}

/// One direction, up to and including its end. When the other side takes no more, what still comes is dropped: closing over it would take an
/// answer with it that has not been read yet.
async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    if tokio::io::copy(&mut from, &mut to).await.is_ok() {
        let _ = to.shutdown().await;
    } else {
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
}

#[cfg(test)]
mod tests;
