//! Carrying a process's stdio over its connection. Nothing is buffered but the chunk on its way: a process that writes
//! faster than the worker reads is slowed by its own pipe, and a worker that writes faster by the socket.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::time::Duration;

use cofferdam_inside::{FrameHeader, HEADER_BYTES, Stream, WireError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::Mutex;

use super::chunk::{CHUNK_BYTES, next_chunk};
use super::from_gateway::{FromGateway, split};

/// For how long a worker may keep a connection open that has said all; closing earlier, over unread input, would look
/// like a failure to it.
const FAREWELL: Duration = Duration::from_secs(5);

/// Our ends of a process's three pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    stdin: Sender,
    stdout: Receiver,
    stderr: Receiver,
}

impl Pipes {
    pub(super) fn new(stdin: ChildStdin, stdout: ChildStdout, stderr: ChildStderr) -> io::Result<Self> {
        Ok(Self {
            stdin: Sender::from_owned_fd(OwnedFd::from(stdin))?,
            stdout: Receiver::from_owned_fd(OwnedFd::from(stdout))?,
            stderr: Receiver::from_owned_fd(OwnedFd::from(stderr))?,
        })
    }
}

/// Carries until both outputs have ended and the process has exited, or until the worker closes the connection. Then
/// the pipes are closed: the process, or what it left behind, reads the end of its stdin and cannot write any more.
pub(super) async fn carry(socket: UnixStream, pipes: Pipes, exited: impl Future<Output = ()>) {
    let (mut from_worker, to_worker) = split(socket);
    let Pipes { stdin, stdout, stderr } = pipes;
    let to_worker = Mutex::new(to_worker);
    let outputs = async {
        tokio::try_join!(
            carry_output(stdout, Stream::Stdout, &to_worker),
            carry_output(stderr, Stream::Stderr, &to_worker)
        )?;
        exited.await;
        Ok::<(), WireError>(())
    };
    let input = carry_input(&mut from_worker, stdin);
    tokio::pin!(input);
    let said_all = tokio::select! {
        outputs = outputs => outputs.is_ok(),
        // Ended or broken: either way the worker is not there any more.
        _ = &mut input => false,
    };
    if said_all {
        drop(to_worker);
        // What is still coming in is read and dropped.
        let _ = tokio::time::timeout(FAREWELL, input).await;
    }
}

async fn carry_output(mut pipe: Receiver, stream: Stream, to_worker: &Mutex<OwnedWriteHalf>) -> Result<(), WireError> {
    loop {
        // A pipe that cannot be read has nothing more to say, like one that has ended.
        let mut frame = next_chunk(&mut pipe, HEADER_BYTES, CHUNK_BYTES)
            .await
            .unwrap_or_else(|_| vec![0; HEADER_BYTES]);
        let length = frame.len() - HEADER_BYTES;
        let header = FrameHeader::new(stream, length)?.encode();
        frame[..HEADER_BYTES].copy_from_slice(&header);
        to_worker
            .lock()
            .await
            .write_all(&frame)
            .await
            .map_err(WireError::Write)?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// Returns when the worker has closed the connection, or broken the agreement.
async fn carry_input(from_worker: &mut FromGateway, stdin: Sender) -> Result<(), WireError> {
    let mut ended = false;
    let mut stdin = Some(stdin);
    loop {
        let mut header = [0_u8; HEADER_BYTES];
        from_worker.read_exact(&mut header).await.map_err(WireError::Read)?;
        let header = FrameHeader::decode(header)?;
        match header.stream() {
            Stream::Stdin if ended => return Err(WireError::Ended { within: "stdin" }),
            Stream::Stdin => {}
            other @ (Stream::Stdout | Stream::Stderr) => return Err(WireError::ParseFrameStream(other.number())),
        }
        ended = header.length() == 0;
        if ended {
            stdin = None;
        }
        let mut left = header.length();
        while left > 0 {
            let chunk = next_chunk(from_worker, 0, left).await.map_err(WireError::Read)?;
            if chunk.is_empty() {
                return Err(WireError::Ended { within: "frame" });
            }
            left -= chunk.len();
            // Without a reader the rest is dropped, but still taken off the socket: the worker must not get stuck.
            if let Some(pipe) = &mut stdin
                && pipe.write_all(&chunk).await.is_err()
            {
                stdin = None;
            }
        }
    }
}
