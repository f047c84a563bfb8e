//! A process in the sandbox as the worker holds it: its streams, the end of its error output, its exit.
//!
//! Output is never buffered without bound: what nobody reads stops the process's writes, all the way through the socket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use cofferdam_inside::{Stream, read_frame, write_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How much of the error output's end is kept, in bytes.
const KEPT_ERRORS: usize = 16 * 1024;
/// How long the end of the error output may take after a process ended.
const SETTLING: std::time::Duration = std::time::Duration::from_millis(500);
/// Size of the pipe between the socket and the reader, in bytes.
const PIPE: usize = 64 * 1024;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, or 128 and the signal that killed it.
    pub status: i32,
}

impl Exit {
    pub(super) fn new(code: Option<i32>, signal: Option<i32>) -> Self {
        // A report is untrusted: nonsense becomes a plain failure.
        let status = match (code, signal) {
            (Some(code), _) if (0..=255).contains(&code) => code,
            (None, Some(signal)) if (1..=64).contains(&signal) => 128 + signal,
            (_, _) => 255,
        };
        Self { status }
    }

    /// Whether it ended with exit code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self.status == 0
    }
}

/// A started process.
#[derive(Debug)]
pub struct Process {
    id: u32,
    stdin: Option<DuplexStream>,
    stdout: Option<DuplexStream>,
    errors: Tail,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    pub(super) fn new(
        id: u32,
        stream: UnixStream,
        exit: watch::Receiver<Option<Exit>>,
        gone: CancellationToken,
    ) -> Self {
        let (read, write) = stream.into_split();
        let (stdin, stdin_end) = tokio::io::duplex(PIPE);
        let (stdout_end, stdout) = tokio::io::duplex(PIPE);
        let errors = Tail::default();
        let kept = errors.clone();
        tokio::spawn(async move {
            // The output's end is the end of both: until then the connection must not close, also when the input is long over.
            tokio::select! {
                () = pump_output(read, stdout_end, kept.clone()) => {}
                () = pump_input(stdin_end, write) => {}
                () = gone.cancelled() => {}
            }
            kept.ended.cancel();
        });
        Self {
            id,
            stdin: Some(stdin),
            stdout: Some(stdout),
            errors,
            exit,
        }
    }

    /// By which `inside` knows it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its standard input; taken once. Dropping it ends the input.
    pub fn take_stdin(&mut self) -> Option<DuplexStream> {
        self.stdin.take()
    }

    /// Its standard output; taken once.
    pub fn take_stdout(&mut self) -> Option<DuplexStream> {
        self.stdout.take()
    }

    /// The end of what it wrote to standard error so far, as text.
    #[must_use]
    pub fn errors(&self) -> String {
        self.errors.text()
    }

    /// Waits, for a moment at most, until all that an ended process wrote to standard error is here: its end may be seen before.
    pub fn settle(&self) -> impl Future<Output = ()> + Send + use<> {
        let ended = self.errors.ended.clone();
        async move {
            let _ = tokio::time::timeout(SETTLING, ended.cancelled()).await;
        }
    }

    /// How much of what it wrote to standard error is not kept, in bytes.
    #[must_use]
    pub fn dropped_errors(&self) -> u64 {
        self.errors.dropped()
    }

    /// Waits for its exit; a connection that broke counts as status 255. Cancel-safe.
    pub async fn wait(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit { status: 255 }),
            Err(_) => Exit { status: 255 },
        }
    }

    /// Waits for its exit and for its output, of which at most `most` bytes are kept.
    pub async fn finish(mut self, most: usize) -> (Exit, Vec<u8>, String) {
        self.stdin = None;
        let mut output = Vec::new();
        if let Some(mut stdout) = self.stdout.take() {
            let mut buffer = vec![0_u8; 16 * 1024];
            let read_all = async {
                while let Ok(count) = stdout.read(&mut buffer).await {
                    if count == 0 {
                        break;
                    }
                    let room = most.saturating_sub(output.len());
                    output.extend_from_slice(&buffer[..count.min(room)]);
                }
            };
            let mut exit = self.exit.clone();
            tokio::select! {
                () = read_all => {}
                // A grandchild may hold the output open for ever; the exit is what counts, with a moment for the rest.
                () = async {
                    let _ = exit.wait_for(Option::is_some).await;
                    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                } => {}
            }
        }
        let exit = self.wait().await;
        (exit, output, self.errors.text())
    }
}

/// The end of a stream of bytes.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    kept: Arc<Mutex<Kept>>,
    /// Nothing more comes.
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct Kept {
    end: VecDeque<u8>,
    dropped: u64,
}

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = bytes.len().saturating_sub(KEPT_ERRORS);
        kept.end.extend(&bytes[skipped..]);
        let excess = kept.end.len().saturating_sub(KEPT_ERRORS);
        kept.end.drain(..excess);
        kept.dropped = kept.dropped.saturating_add((skipped + excess) as u64);
    }

    /// Bytes that are not kept.
    fn dropped(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).dropped
    }

    /// What is kept, as text.
    #[must_use]
    pub fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (front, back) = kept.end.as_slices();
        String::from_utf8_lossy(&[front, back].concat()).into_owned()
    }
}

/// From the worker's pipe to the process's input.
async fn pump_input(mut from: DuplexStream, mut to: OwnedWriteHalf) {
    // A session keeps this as long as its agent lives.
    let mut buffer = vec![0_u8; 1024];
    loop {
        let count = from.read(&mut buffer).await.unwrap_or(0);
        // An empty frame ends the input.
        if write_frame(&mut to, Stream::Stdin, &buffer[..count]).await.is_err() || count == 0 {
            break;
        }
    }
    // Dropping the half here would look like the worker going away.
    std::future::pending::<()>().await;
}

/// From the process's output to the worker's pipe and the kept end of its errors.
async fn pump_output(mut from: OwnedReadHalf, mut to: DuplexStream, errors: Tail) {
    let mut wanted = true;
    while let Ok(Some(frame)) = read_frame(&mut from).await {
        match frame.stream {
            Stream::Stdout if frame.payload.is_empty() => {
                let _ = to.shutdown().await;
                wanted = false;
            }
            // When nobody reads any more the rest is taken and dropped, so that the process can end.
            Stream::Stdout if wanted => wanted = to.write_all(&frame.payload).await.is_ok(),
            Stream::Stderr => errors.push(&frame.payload),
            Stream::Stdout | Stream::Stdin => {}
        }
    }
}
