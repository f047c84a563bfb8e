//! The control connection: dialled, lost, dialled again. One report at a time is on its way, so that none is lost with
//! a connection that breaks under it; what the worker had not yet read of a broken connection is. Orders are read while
//! a report waits to be written: a worker that is slow to listen can still shut the sandbox down.

use std::collections::VecDeque;
use std::time::Duration;

use cofferdam_inside::{ControlReader, ControlWriter, Order, Preamble, Report, WIRE_VERSION, WireError};
use nix::unistd::{getpid, getuid};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::dial::dial;
use super::from_gateway::split;
use super::orders::{Outgoing, Sandbox};

/// Between two attempts.
const REDIAL: Duration = Duration::from_secs(1);
/// Answers to orders that a worker may leave unread before no more of its orders are read.
const MAX_UNSENT: usize = 64;

/// Serves one connection after another; returns when there was none for `gone_after`.
pub(super) async fn serve(sandbox: &Sandbox, mut waiting: mpsc::Receiver<Outgoing>, gone_after: Duration) {
    let mut unsent = VecDeque::new();
    let mut given_up = Instant::now() + gone_after;
    loop {
        let dialling = dial(sandbox.way(), &Preamble::Control);
        if let Ok(Ok(stream)) = tokio::time::timeout_at(given_up, dialling).await {
            // However it broke, the answer is to dial again.
            let _ = converse(sandbox, stream, &mut waiting, &mut unsent).await;
            given_up = Instant::now() + gone_after;
        }
        tokio::time::sleep_until(given_up.min(Instant::now() + REDIAL)).await;
        if Instant::now() >= given_up {
            return;
        }
    }
}

async fn converse(
    sandbox: &Sandbox,
    stream: UnixStream,
    waiting: &mut mpsc::Receiver<Outgoing>,
    unsent: &mut VecDeque<Report>,
) -> Result<(), WireError> {
    let (from_worker, to_worker) = split(stream);
    let mut reader = ControlReader::new(from_worker);
    let mut writer = ControlWriter::new(to_worker);
    let pid = u32::try_from(getpid().as_raw()).unwrap_or(0);
    writer
        .write_report(&Report::Hello {
            version: WIRE_VERSION,
            pid,
            uid: getuid().as_raw(),
        })
        .await?;
    let mut writing = false;
    loop {
        if !writing && let Some(report) = unsent.front() {
            writer.enqueue_report(report)?;
            writing = true;
        }
        tokio::select! {
            written = writer.flush(), if writing => {
                written?;
                unsent.pop_front();
                writing = false;
            }
            line = reader.read_line(), if unsent.len() < MAX_UNSENT => match line {
                Ok(Some(line)) => unsent.extend(sandbox.accept(Order::parse(line))),
                Ok(None) => return Ok(()),
                // It has been skipped.
                Err(WireError::LineTooLong) => {}
                Err(error) => return Err(error),
            },
            outgoing = waiting.recv(), if unsent.is_empty() => match outgoing {
                Some(Outgoing::Report(report)) => unsent.push_back(report),
                // Nobody waits any more where this fails.
                Some(Outgoing::Flush(written)) => { let _ = written.send(()); }
                None => return Ok(()),
            },
        }
    }
}
