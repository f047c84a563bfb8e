//! The gateway over a real socket, with a test in the place of `inside` and of an agent that dials the socket itself.
//!
//! Every wait has an end.

use std::path::PathBuf;
use std::time::Duration;

use cofferdam_inside::{ControlReader, ControlWriter, Order, Preamble, Report, Stream, write_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::inside::Command;
use super::{Gateway, GatewayError, HTTP_PORT, Inside, MOST_SILENT};

const LIMIT: Duration = Duration::from_secs(20);

struct Scene {
    _directory: tempfile::TempDir,
    socket: PathBuf,
    gateway: Gateway,
}

impl Scene {
    fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let gateway = Gateway::open(&socket).unwrap();
        Self {
            _directory: directory,
            socket,
            gateway,
        }
    }

    async fn dial(&self, preamble: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(preamble.as_bytes()).await.unwrap();
        stream
    }

    /// Plays `inside` as far as its greeting.
    async fn greeted(&mut self) -> (Inside, Fake) {
        let stream = self.dial(&Preamble::Control.to_string()).await;
        let (read, write) = stream.into_split();
        let (reader, mut writer) = (ControlReader::new(read), ControlWriter::new(write));
        let hello = Report::Hello {
            version: 1,
            pid: 7,
            uid: 1000,
        };
        writer.write_report(&hello).await.unwrap();
        let inside = self.gateway.inside(LIMIT).await.unwrap();
        let socket = self.socket.clone();
        (inside, Fake { reader, writer, socket })
    }
}

struct Fake {
    reader: ControlReader<OwnedReadHalf>,
    writer: ControlWriter<OwnedWriteHalf>,
    socket: PathBuf,
}

impl Fake {
    async fn spawn_order(&mut self) -> (u32, cofferdam_inside::Token) {
        let order = tokio::time::timeout(LIMIT, self.reader.read_order()).await.unwrap();
        let Some(Order::Spawn { id, token, .. }) = order.unwrap() else {
            panic!("no spawn order")
        };
        (id, token)
    }

    async fn started(&mut self) -> (u32, UnixStream) {
        let (id, token) = self.spawn_order().await;
        let mut stdio = UnixStream::connect(&self.socket).await.unwrap();
        let preamble = Preamble::Stdio(token).to_string();
        stdio.write_all(preamble.as_bytes()).await.unwrap();
        self.writer.write_report(&Report::Started { id, pid: 9 }).await.unwrap();
        (id, stdio)
    }

    async fn exited(&mut self, id: u32) {
        let report = Report::Exited {
            id,
            code: Some(0),
            signal: None,
        };
        self.writer.write_report(&report).await.unwrap();
    }
}

fn command() -> Command {
    Command {
        argv: vec!["x".into()],
        env: Vec::new(),
        directory: "/".into(),
    }
}

/// Whether the other side has closed, within the limit.
async fn is_closed(stream: &mut UnixStream) -> bool {
    let mut byte = [0_u8; 1];
    matches!(
        tokio::time::timeout(LIMIT, stream.read(&mut byte)).await,
        Ok(Ok(0) | Err(_))
    )
}

#[tokio::test]
async fn a_second_control_and_an_unknown_token_are_closed_and_the_first_works() {
    let mut scene = Scene::open();
    let (inside, mut fake) = scene.greeted().await;
    let mut second = scene.dial(&Preamble::Control.to_string()).await;
    assert!(is_closed(&mut second).await);
    let unknown = cofferdam_inside::Token::from_bytes([1; 16]);
    let mut guessed = scene.dial(&Preamble::Stdio(unknown).to_string()).await;
    assert!(is_closed(&mut guessed).await);
    let mut nonsense = scene.dial("GET / HTTP/1.1\r\n\r\n").await;
    assert!(is_closed(&mut nonsense).await);

    let (process, started) = tokio::join!(inside.spawn(command()), fake.started());
    let (id, mut stdio) = started;
    write_frame(&mut stdio, Stream::Stdout, b"hello").await.unwrap();
    write_frame(&mut stdio, Stream::Stdout, b"").await.unwrap();
    fake.exited(id).await;
    let (exit, output, _) = process.unwrap().finish(100).await;
    assert!(exit.is_success());
    assert_eq!(output, b"hello");
}

#[tokio::test]
async fn silent_connections_do_not_keep_inside_out() {
    let mut scene = Scene::open();
    let mut silent = Vec::new();
    for _ in 0..MOST_SILENT * 4 {
        silent.push(UnixStream::connect(&scene.socket).await.unwrap());
    }
    let (inside, mut fake) = scene.greeted().await;
    let (process, _started) = tokio::join!(inside.spawn(command()), fake.started());
    assert!(process.is_ok());
    // The one that waited longest had to go.
    assert!(is_closed(&mut silent[0]).await);
}

#[tokio::test]
async fn the_end_of_inside_ends_what_waits_for_it() {
    let mut scene = Scene::open();
    let (inside, mut fake) = scene.greeted().await;
    let spawning = async {
        fake.spawn_order().await;
        drop(fake);
    };
    let (process, ()) = tokio::join!(inside.spawn(command()), spawning);
    assert!(matches!(process, Err(GatewayError::Gone)), "{process:?}");
    tokio::time::timeout(LIMIT, inside.gone()).await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_told_without_what_drives_terminals() {
    let mut scene = Scene::open();
    let (inside, mut fake) = scene.greeted().await;
    let refusing = async {
        let (id, _) = fake.spawn_order().await;
        let reason = "no\u{1b}[31m such program".into();
        fake.writer.write_report(&Report::Refused { id, reason }).await.unwrap();
    };
    let (process, ()) = tokio::join!(inside.spawn(command()), refusing);
    assert_eq!(
        process.unwrap_err().to_string(),
        "the sandbox could not start a process: no[31m such program"
    );
}

#[tokio::test]
async fn garbage_on_the_control_connection_is_its_end() {
    let mut scene = Scene::open();
    let mut control = scene.dial(&Preamble::Control.to_string()).await;
    control
        .write_all(b"{\"hello\":{\"version\":1,\"pid\":7,\"uid\":1000}}\n")
        .await
        .unwrap();
    let inside = scene.gateway.inside(LIMIT).await.unwrap();
    control.write_all(b"this is no report\n").await.unwrap();
    tokio::time::timeout(LIMIT, inside.gone()).await.unwrap();
}

#[tokio::test]
async fn a_flood_that_nobody_reads_stops_the_writer_and_the_worker_goes_on() {
    let mut scene = Scene::open();
    let (inside, mut fake) = scene.greeted().await;
    let (process, started) = tokio::join!(inside.spawn(command()), fake.started());
    let (id, mut stdio) = started;
    let process = process.unwrap();
    let piece = vec![b'x'; 32 * 1024];
    let mut written = 0_usize;
    // What the socket and one pipe take is little; then writing waits.
    while let Ok(Ok(())) = tokio::time::timeout(
        Duration::from_millis(300),
        write_frame(&mut stdio, Stream::Stdout, &piece),
    )
    .await
    {
        written += piece.len();
        assert!(written < 16 * 1024 * 1024, "nothing held the flood back");
    }
    fake.exited(id).await;
    // A grandchild holds the output open: the exit is what counts.
    let (exit, output, _) = tokio::time::timeout(LIMIT, process.finish(1000)).await.unwrap();
    assert!(exit.is_success());
    assert_eq!(output.len(), 1000);
}

#[tokio::test]
async fn closing_the_gateway_closes_streams_too() {
    let mut scene = Scene::open();
    let (inside, mut fake) = scene.greeted().await;
    let (process, started) = tokio::join!(inside.spawn(command()), fake.started());
    let (_, mut stdio) = started;
    let mut relayed = scene.dial(&Preamble::Relay(HTTP_PORT).to_string()).await;
    relayed.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0_u8; 12];
    relayed.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    drop(scene.gateway);
    assert!(is_closed_after_rest(&mut stdio).await);
    assert!(is_closed_after_rest(&mut relayed).await);
    drop((process, inside));
}

async fn is_closed_after_rest(stream: &mut UnixStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await.is_ok()
}
