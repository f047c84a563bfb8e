//! The faults of a network between two programs, over TCP or a unix socket: one proxy, whose mode is set for each direction while it runs.
//!
//! Ends with the value. Reaches nothing but the address that it was given, and changes no byte of what passes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

use crate::harness::until;

/// What becomes of the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything passes.
    Open,
    /// What is connected goes on; new connections are closed at once.
    Refuse,
    /// Old and new connections are broken off.
    Reset,
    /// Connections stay and nothing passes; what went in is lost, and its connection with it when the mode changes.
    Hole,
    /// Nothing passes now; what went in comes out when the mode changes.
    Stall,
    /// So many bytes a second.
    Slow(u32),
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client to the server.
    There,
    /// From the server to the client.
    Back,
}

#[derive(Debug, Clone, Copy)]
struct State {
    there: Mode,
    back: Mode,
    /// Counts the times that everything was broken off.
    resets: u64,
}

impl State {
    fn of(&self, way: Way) -> Mode {
        match way {
            Way::There => self.there,
            Way::Back => self.back,
        }
    }

    fn closed(&self) -> bool {
        [self.there, self.back]
            .iter()
            .any(|mode| matches!(mode, Mode::Refuse | Mode::Reset))
    }
}

/// Stops everything just before the first bytes that hold a pattern would pass.
#[derive(Debug, Clone)]
struct Trap {
    way: Way,
    pattern: Vec<u8>,
    sprung: bool,
}

/// Where the other end is.
#[derive(Debug, Clone)]
enum Upstream {
    Tcp(String),
    Unix(PathBuf),
}

#[derive(Clone)]
struct Shared {
    state: watch::Sender<State>,
    trap: Arc<Mutex<Option<Trap>>>,
}

impl Shared {
    /// Whether these bytes spring the trap; then nothing passes any more, in either direction.
    fn springs(&self, way: Way, seen: &[u8]) -> bool {
        let mut trap = self.trap.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(set) = trap.as_mut().filter(|trap| trap.way == way && !trap.sprung) else {
            return false;
        };
        if !seen.windows(set.pattern.len()).any(|window| window == set.pattern) {
            return false;
        }
        set.sprung = true;
        self.state
            .send_modify(|state| (state.there, state.back) = (Mode::Stall, Mode::Stall));
        true
    }
}

/// The proxy.
pub(crate) struct Proxy {
    shared: Shared,
    /// Its port, or its socket.
    pub(crate) address: String,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    /// In front of `host:port`, on a port of its own.
    pub(crate) fn tcp(upstream: &str) -> Self {
        Self::start(Upstream::Tcp(upstream.to_owned()), None)
    }

    /// In front of a unix socket, on another.
    pub(crate) fn unix(upstream: &Path, at: &Path) -> Self {
        Self::start(Upstream::Unix(upstream.to_owned()), Some(at.to_owned()))
    }

    fn start(upstream: Upstream, at: Option<PathBuf>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let state = State {
            there: Mode::Open,
            back: Mode::Open,
            resets: 0,
        };
        let shared = Shared {
            state: watch::Sender::new(state),
            trap: Arc::default(),
        };
        let own = shared.clone();
        let address = runtime.block_on(async {
            match at {
                None => {
                    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                    let address = listener.local_addr().unwrap().to_string();
                    tokio::spawn(async move {
                        while let Ok((client, _)) = listener.accept().await {
                            tokio::spawn(serve(client, upstream.clone(), own.clone()));
                        }
                    });
                    address
                }
                Some(path) => {
                    let listener = UnixListener::bind(&path).unwrap();
                    tokio::spawn(async move {
                        while let Ok((client, _)) = listener.accept().await {
                            tokio::spawn(serve(client, upstream.clone(), own.clone()));
                        }
                    });
                    path.display().to_string()
                }
            }
        });
        Self {
            shared,
            address,
            _runtime: runtime,
        }
    }

    /// Sets both directions.
    pub(crate) fn set(&self, mode: Mode) {
        self.shared
            .state
            .send_modify(|state| (state.there, state.back) = (mode, mode));
    }

    /// Sets one direction.
    pub(crate) fn set_way(&self, way: Way, mode: Mode) {
        self.shared.state.send_modify(|state| match way {
            Way::There => state.there = mode,
            Way::Back => state.back = mode,
        });
    }

    /// Breaks off what is connected; what comes after that finds the mode as it is.
    pub(crate) fn reset(&self) {
        self.shared.state.send_modify(|state| state.resets += 1);
    }

    /// Sets a trap; see [`Proxy::sprung`].
    pub(crate) fn trap(&self, way: Way, pattern: &[u8]) {
        let trap = Trap {
            way,
            pattern: pattern.to_owned(),
            sprung: false,
        };
        *self.shared.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some(trap);
    }

    /// Waits until the trap is sprung: from then on nothing passes, and the pattern has not passed.
    pub(crate) fn sprung(&self, what: &str) {
        until(Duration::from_secs(60), what, || {
            let trap = self.shared.trap.lock().unwrap_or_else(PoisonError::into_inner);
            trap.as_ref().is_some_and(|trap| trap.sprung).then_some(())
        });
    }
}

/// An end that can be broken off without a good-bye.
trait End: AsyncRead + AsyncWrite + Unpin + Send {
    fn break_off(&self);
}

impl End for TcpStream {
    fn break_off(&self) {
        let _ = self.set_zero_linger();
    }
}

impl End for UnixStream {
    fn break_off(&self) {}
}

async fn serve(client: impl End, upstream: Upstream, shared: Shared) {
    let now = *shared.state.borrow();
    if now.closed() {
        if now.there == Mode::Reset || now.back == Mode::Reset {
            client.break_off();
        }
        return;
    }
    match upstream {
        Upstream::Tcp(address) => {
            if let Ok(server) = TcpStream::connect(&address).await {
                pump(client, server, shared).await;
            }
        }
        Upstream::Unix(path) => {
            if let Ok(server) = UnixStream::connect(&path).await {
                pump(client, server, shared).await;
            }
        }
    }
}

async fn pump(mut client: impl End, mut server: impl End, shared: Shared) {
    let mut states = shared.state.subscribe();
    let resets = states.borrow().resets;
    let broken =
        states.wait_for(move |state| state.resets != resets || state.there == Mode::Reset || state.back == Mode::Reset);
    let reset = {
        let (mut from_client, mut to_client) = tokio::io::split(&mut client);
        let (mut from_server, mut to_server) = tokio::io::split(&mut server);
        tokio::select! {
            biased;
            // First: what is held back and broken off may not pass because the mode is another already.
            _ = broken => true,
            () = copy(&mut from_client, &mut to_server, Way::There, &shared) => false,
            () = copy(&mut from_server, &mut to_client, Way::Back, &shared) => false,
        }
    };
    if reset {
        client.break_off();
        server.break_off();
    }
}

async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), way: Way, shared: &Shared) {
    let mut states = shared.state.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    // The end of what passed, for patterns that come in two parts.
    let mut seen: Vec<u8> = Vec::new();
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..count];
        seen.extend_from_slice(bytes);
        shared.springs(way, &seen);
        seen.drain(..seen.len().saturating_sub(256));
        let mode = states.borrow_and_update().of(way);
        let rate = match mode {
            Mode::Open | Mode::Refuse => None,
            Mode::Reset => return,
            Mode::Hole => {
                let _ = states.wait_for(|state| state.of(way) != Mode::Hole).await;
                return;
            }
            Mode::Stall => {
                let _ = states.wait_for(|state| state.of(way) != Mode::Stall).await;
                None
            }
            Mode::Slow(rate) => Some(rate.max(20)),
        };
        let piece = rate.map_or(count, |rate| (rate / 20).max(1) as usize);
        for part in bytes.chunks(piece) {
            if to.write_all(part).await.is_err() {
                return;
            }
            // One set to another mode meanwhile takes effect with the next bytes.
            if rate.is_some() && matches!(states.borrow().of(way), Mode::Slow(_)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

mod tests {
    //! That each mode does what it says.

    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::{Mode, Proxy, Way};

    /// A server that says back what it hears.
    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for mut client in listener.incoming().filter_map(Result::ok) {
                std::thread::spawn(move || {
                    let mut buffer = [0; 1024];
                    while let Ok(count @ 1..) = client.read(&mut buffer) {
                        if client.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(&proxy.address).unwrap()
    }

    /// What comes, or how the connection ends.
    fn heard(client: &mut TcpStream) -> Result<String, std::io::ErrorKind> {
        heard_within(Duration::from_secs(30), client)
    }

    /// Whether nothing comes, for a while.
    fn is_silent(client: &mut TcpStream) -> bool {
        heard_within(Duration::from_millis(300), client) == Err(std::io::ErrorKind::WouldBlock)
    }

    fn heard_within(limit: Duration, client: &mut TcpStream) -> Result<String, std::io::ErrorKind> {
        client.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 1024];
        match client.read(&mut buffer) {
            Ok(count) => Ok(String::from_utf8_lossy(&buffer[..count]).into_owned()),
            Err(error) => Err(error.kind()),
        }
    }

    #[test]
    fn every_mode_does_what_it_says() {
        let proxy = Proxy::tcp(&echo());
        let mut client = connect(&proxy);
        client.write_all(b"one").unwrap();
        assert_eq!(heard(&mut client).unwrap(), "one");

        proxy.set_way(Way::Back, Mode::Stall);
        client.write_all(b"two").unwrap();
        assert!(is_silent(&mut client));
        proxy.set(Mode::Open);
        assert_eq!(heard(&mut client).unwrap(), "two");

        proxy.set(Mode::Refuse);
        let refused = heard(&mut connect(&proxy));
        assert!(refused.is_err() || refused == Ok(String::new()), "{refused:?}");
        client.write_all(b"three").unwrap();
        assert_eq!(heard(&mut client).unwrap(), "three");

        proxy.set(Mode::Slow(40));
        let began = Instant::now();
        client.write_all(b"0123456789").unwrap();
        let mut all = String::new();
        while all.len() < 10 {
            all += &heard(&mut client).unwrap();
        }
        assert!(began.elapsed() > Duration::from_millis(200), "{:?}", began.elapsed());

        proxy.set(Mode::Hole);
        client.write_all(b"lost").unwrap();
        assert!(is_silent(&mut client));
        proxy.set(Mode::Open);
        assert!(
            matches!(heard(&mut client).as_deref(), Ok("") | Err(_)),
            "its connection is lost too"
        );

        let mut client = connect(&proxy);
        client.write_all(b"four").unwrap();
        assert_eq!(heard(&mut client).unwrap(), "four");
        proxy.reset();
        assert_eq!(heard(&mut client).unwrap_err(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(
            {
                let mut client = connect(&proxy);
                client.write_all(b"five").unwrap();
                heard(&mut client)
            }
            .unwrap(),
            "five"
        );
    }

    #[test]
    fn a_trap_holds_what_it_was_set_for_even_in_two_parts() {
        let proxy = Proxy::tcp(&echo());
        let mut client = connect(&proxy);
        proxy.trap(Way::There, b"secret word");
        client.write_all(b"the sec").unwrap();
        assert_eq!(heard(&mut client).unwrap(), "the sec");
        client.write_all(b"ret word").unwrap();
        proxy.sprung("the trap");
        assert!(is_silent(&mut client));
        proxy.set(Mode::Open);
        assert_eq!(heard(&mut client).unwrap(), "ret word");
    }
}
