//! A gateway for tests: accepts what `inside` dials and sorts it by preamble. It gives no order of its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cofferdam_inside::{ControlReader, ControlWriter, Order, Preamble, Report, Stream, Token, read_frame, write_frame};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::task::JoinHandle;

pub(crate) const INSIDE: &str = env!("CARGO_BIN_EXE_inside");

/// Fails instead of hanging; later on a machine that compiles beside the tests.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    let told = std::env::var("COFFERDAM_TEST_SLOWNESS").ok();
    let slowness: u32 = told.map_or(1, |told| told.parse().expect("COFFERDAM_TEST_SLOWNESS is a number"));
    tokio::time::timeout(Duration::from_secs(30) * slowness, what)
        .await
        .expect("it takes too long")
}

/// Looks again until a condition that has no event is met.
pub(crate) async fn until(mut met: impl FnMut() -> bool) {
    within(async {
        while !met() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[derive(Default)]
struct Waiting {
    stdio: HashMap<String, UnixStream>,
}

/// The listening side.
pub(crate) struct Gateway {
    pub(crate) directory: tempfile::TempDir,
    waiting: Arc<Mutex<Waiting>>,
    arrived: watch::Receiver<usize>,
    controls: AsyncMutex<mpsc::UnboundedReceiver<UnixStream>>,
    relays: AsyncMutex<mpsc::UnboundedReceiver<(u16, UnixStream)>>,
    accepting: JoinHandle<()>,
}

impl Gateway {
    pub(crate) fn open() -> Self {
        Self::open_in(tempfile::tempdir().unwrap())
    }

    pub(crate) fn open_in(directory: tempfile::TempDir) -> Self {
        let socket = directory.path().join("gateway.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let waiting: Arc<Mutex<Waiting>> = Arc::default();
        let (arrived_sender, arrived) = watch::channel(0);
        let (control_sender, controls) = mpsc::unbounded_channel();
        let (relay_sender, relays) = mpsc::unbounded_channel();
        let sorted = Arc::clone(&waiting);
        let accepting = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                match Preamble::read(&mut stream).await.unwrap() {
                    Preamble::Control => drop(control_sender.send(stream)),
                    Preamble::Relay(port) => drop(relay_sender.send((port, stream))),
                    Preamble::Stdio(token) => {
                        sorted.lock().unwrap().stdio.insert(token.as_str().to_owned(), stream);
                        arrived_sender.send_modify(|count| *count += 1);
                    }
                }
            }
        });
        let (controls, relays) = (AsyncMutex::new(controls), AsyncMutex::new(relays));
        Self {
            directory,
            waiting,
            arrived,
            controls,
            relays,
            accepting,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("gateway.sock")
    }

    /// Stops listening and gives the directory back; connections that are open stay so.
    pub(crate) async fn close(self) -> tempfile::TempDir {
        self.accepting.abort();
        let _ = self.accepting.await;
        std::fs::remove_file(self.directory.path().join("gateway.sock")).unwrap();
        self.directory
    }

    pub(crate) async fn raw_control(&self) -> UnixStream {
        within(async { self.controls.lock().await.recv().await }).await.unwrap()
    }

    pub(crate) async fn control(&self) -> Control {
        let (reader, writer) = self.raw_control().await.into_split();
        Control {
            reader: ControlReader::new(reader),
            writer: ControlWriter::new(writer),
            spawned: 0,
        }
    }

    pub(crate) async fn relay(&self) -> (u16, UnixStream) {
        within(async { self.relays.lock().await.recv().await }).await.unwrap()
    }

    pub(crate) async fn stdio(&self, token: &Token) -> Stdio3 {
        let mut arrived = self.arrived.clone();
        within(async {
            loop {
                arrived.borrow_and_update();
                if let Some(stream) = self.waiting.lock().unwrap().stdio.remove(token.as_str()) {
                    let (reader, writer) = stream.into_split();
                    return Stdio3 { reader, writer };
                }
                arrived.changed().await.unwrap();
            }
        })
        .await
    }
}

/// A running `inside`; told to end when it is dropped, so that nothing stays behind.
pub(crate) struct Inside {
    child: Child,
}

impl Inside {
    pub(crate) fn start(socket: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(INSIDE);
        command
            .arg("--socket")
            .arg(socket)
            .args(more)
            .env("ONLY_OF_INSIDE", "secret");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self {
            child: command.spawn().unwrap(),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until(|| {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// Its own memory in kilobytes, without the pages of its program: those come as its code runs for the first time.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// How many of its children are dead and not reaped.
    pub(crate) fn zombies(&self) -> usize {
        let stats = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            entry.file_name().to_str()?.parse::<u32>().ok()?;
            std::fs::read_to_string(entry.path().join("stat")).ok()
        });
        let of_this = format!(" Z {} ", self.pid());
        stats.filter(|stat| stat.contains(&of_this)).count()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::SIGTERM);
            self.child.wait().unwrap();
        }
    }
}

/// One control connection.
pub(crate) struct Control {
    pub(crate) reader: ControlReader<OwnedReadHalf>,
    pub(crate) writer: ControlWriter<OwnedWriteHalf>,
    pub(crate) spawned: u32,
}

impl Control {
    pub(crate) async fn report(&mut self) -> Report {
        within(self.reader.read_report())
            .await
            .unwrap()
            .expect("the control connection ended")
    }

    pub(crate) async fn order(&mut self, order: Order) {
        within(self.writer.write_order(&order)).await.unwrap();
    }

    pub(crate) async fn hello(&mut self) -> Report {
        let hello = self.report().await;
        assert!(matches!(hello, Report::Hello { .. }), "{hello:?}");
        hello
    }

    /// Orders a shell script; returns its id and token.
    pub(crate) async fn shell(&mut self, script: &str) -> (u32, Token) {
        self.spawn(&["sh", "-c", script], "/").await
    }

    pub(crate) async fn spawn(&mut self, argv: &[&str], cwd: &str) -> (u32, Token) {
        let id = self.spawned;
        self.spawned += 1;
        let mut bytes = [0xee; 16];
        bytes[..4].copy_from_slice(&id.to_be_bytes());
        let token = Token::from_bytes(bytes);
        let argv = argv.iter().map(|&argument| argument.to_owned()).collect();
        let env = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        self.order(Order::Spawn {
            id,
            argv,
            env,
            cwd: cwd.to_owned(),
            token: token.clone(),
        })
        .await;
        (id, token)
    }

    pub(crate) async fn started(&mut self, id: u32) -> u32 {
        match self.report().await {
            Report::Started { id: named, pid } if named == id => pid,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn refused(&mut self, id: u32) -> String {
        match self.report().await {
            Report::Refused { id: named, reason } if named == id => reason,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn exited(&mut self, id: u32) -> (Option<i32>, Option<i32>) {
        match self.report().await {
            Report::Exited {
                id: named,
                code,
                signal,
            } if named == id => (code, signal),
            other => panic!("{other:?}"),
        }
    }
}

/// The stdio of one process.
pub(crate) struct Stdio3 {
    pub(crate) reader: OwnedReadHalf,
    pub(crate) writer: OwnedWriteHalf,
}

impl Stdio3 {
    pub(crate) async fn write(&mut self, payload: &[u8]) {
        within(write_frame(&mut self.writer, Stream::Stdin, payload))
            .await
            .unwrap();
    }

    /// All of stdout and stderr, until both have ended.
    pub(crate) async fn read_all(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (mut stdout, mut stderr, mut ended) = (Vec::new(), Vec::new(), 0);
        while ended < 2 {
            let frame = within(read_frame(&mut self.reader))
                .await
                .unwrap()
                .expect("the stdio connection ended");
            ended += usize::from(frame.payload.is_empty());
            match frame.stream {
                Stream::Stdout => stdout.extend(frame.payload),
                Stream::Stderr => stderr.extend(frame.payload),
                Stream::Stdin => panic!("stdin comes back"),
            }
        }
        (stdout, stderr)
    }

    /// The next output, which must be on stdout.
    pub(crate) async fn line(&mut self) -> String {
        let frame = within(read_frame(&mut self.reader))
            .await
            .unwrap()
            .expect("the stdio connection ended");
        assert_eq!(
            frame.stream,
            Stream::Stdout,
            "{}",
            String::from_utf8_lossy(&frame.payload)
        );
        String::from_utf8(frame.payload).unwrap().trim().to_owned()
    }
}

/// A gateway with an `inside` that has said hello.
pub(crate) async fn connected() -> (Gateway, Inside, Control) {
    let gateway = Gateway::open();
    let inside = Inside::start(&gateway.socket(), &[]);
    let mut control = gateway.control().await;
    control.hello().await;
    (gateway, inside, control)
}
