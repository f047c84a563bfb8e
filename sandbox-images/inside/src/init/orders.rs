//! What an order does. Checks it against the limits, hands it to whoever carries it out, and words the refusal where it
//! cannot be. It never blocks and never waits: answers that take time come as reports later.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cofferdam_inside::{Order, Report, WireError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::dial::Way;
use super::everything;
use super::file::{self, WriteFileError};
use super::identifiers::Identifiers;
use super::processes::{Processes, SpawnError, Spawning};
use super::relay::Relay;

/// Relayed ports; a session needs a handful.
const MAX_PORTS: usize = 64;
/// A grace is for ending, not for going on.
const MAX_GRACE: Duration = Duration::from_secs(600);
/// Refusals quote paths and programs, which may be long.
const MAX_REASON_CHARS: usize = 1000;

/// Something for the control connection.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A line.
    Report(Report),
    /// Answer when everything before this is written.
    Flush(oneshot::Sender<()>),
}

/// Why PID 1 ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By a shutdown order or SIGTERM.
    Ordered,
    /// The worker has been gone for too long.
    WorkerGone,
}

impl Ending {
    /// What the engine will see.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Ordered => 0,
            Self::WorkerGone => 3,
        }
    }
}

/// Why an order is refused; each is the sentence that the worker gets.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the id {0} was used before")]
    ReuseId(u32),
    #[error("this order is not known here: {0}")]
    ParseOrder(String),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    WriteFile(#[from] WriteFileError),
    #[error("port {port} cannot be listened on: {source}")]
    Listen { port: u16, source: std::io::Error },
    #[error("more than {MAX_PORTS} ports are not relayed")]
    CountPorts,
}

/// Everything that orders act on.
#[derive(Debug)]
pub(super) struct Sandbox {
    processes: Arc<Processes>,
    relay: Relay,
    identifiers: Mutex<Identifiers>,
    ports: AtomicUsize,
    ending: watch::Sender<Option<(Ending, Instant)>>,
    reports: mpsc::Sender<Outgoing>,
    way: Way,
}

impl Sandbox {
    pub(super) fn new(way: Way, open_files: u64, reports: mpsc::Sender<Outgoing>) -> Self {
        Self {
            processes: Arc::new(Processes::new(way.clone(), open_files, reports.clone())),
            relay: Relay::new(way.clone()),
            identifiers: Mutex::default(),
            ports: AtomicUsize::new(0),
            ending: watch::Sender::new(None),
            reports,
            way,
        }
    }

    pub(super) fn processes(&self) -> &Processes {
        &self.processes
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    pub(super) fn reports(&self) -> &mpsc::Sender<Outgoing> {
        &self.reports
    }

    /// When and why everything is to end, as soon as that is known.
    pub(super) fn ending(&self) -> watch::Receiver<Option<(Ending, Instant)>> {
        self.ending.subscribe()
    }

    /// Begins to end everything. The first reason stands; the deadline can only come closer.
    pub(super) fn end(&self, ending: Ending, grace: Duration) {
        let deadline = Instant::now() + grace.min(MAX_GRACE);
        self.ending.send_if_modified(|told| match told {
            None => {
                *told = Some((ending, deadline));
                true
            }
            Some((_, earlier)) if deadline < *earlier => {
                *earlier = deadline;
                true
            }
            Some(_) => false,
        });
    }

    /// Carries out one control line; returns what can be answered at once.
    pub(super) fn accept(&self, order: Result<Order, WireError>) -> Option<Report> {
        let (id, done) = match order {
            Ok(Order::Spawn {
                id,
                argv,
                env,
                cwd,
                token,
            }) => {
                let spawning = Spawning {
                    id,
                    argv,
                    env,
                    cwd,
                    token,
                };
                (
                    id,
                    self.take(id)
                        .and_then(|()| Ok(self.processes.spawn(spawning)?))
                        .map(|()| None),
                )
            }
            Ok(Order::Signal { id, signal }) => (
                id,
                self.processes.signal(id, signal).map(|()| None).map_err(Refusal::from),
            ),
            Ok(Order::WriteFile {
                id,
                path,
                mode,
                content,
            }) => {
                let done = self.take(id).and_then(|()| Ok(file::write(&path, mode, &content)?));
                (id, done.map(|()| Some(Report::Written { id })))
            }
            Ok(Order::Listen { id, port }) => {
                let done = self.take(id).and_then(|()| self.listen(port));
                (id, done.map(|()| Some(Report::Listening { id, port })))
            }
            Ok(Order::Quiet { id }) => {
                let taken = self.take(id);
                if taken.is_ok() {
                    let (processes, reports) = (Arc::clone(&self.processes), self.reports.clone());
                    tokio::spawn(async move {
                        everything::quiet(&processes).await;
                        // Fails only at the very end, when nobody waits any more.
                        let _ = reports.send(Outgoing::Report(Report::Quieted { id })).await;
                    });
                    return None;
                }
                (id, taken.map(|()| None))
            }
            Ok(Order::Shutdown { grace_ms }) => {
                self.end(Ending::Ordered, Duration::from_millis(grace_ms));
                return None;
            }
            Err(WireError::ParseOrder { id: Some(id), source }) => {
                // A later, understood order with this id would get an answer that looks like this one's.
                (
                    id,
                    self.take(id)
                        .and_then(|()| Err(Refusal::ParseOrder(source.to_string()))),
                )
            }
            // Without an id nobody could tell what the answer belongs to.
            Err(_) => return None,
        };
        done.unwrap_or_else(|refusal| Some(refused(id, &refusal)))
    }

    fn take(&self, id: u32) -> Result<(), Refusal> {
        let mut identifiers = self.identifiers.lock().unwrap_or_else(PoisonError::into_inner);
        if identifiers.take(id) {
            Ok(())
        } else {
            Err(Refusal::ReuseId(id))
        }
    }

    fn listen(&self, port: u16) -> Result<(), Refusal> {
        if port == 0 {
            return Err(Refusal::Listen {
                port,
                source: std::io::ErrorKind::InvalidInput.into(),
            });
        }
        if self.ports.load(Ordering::Relaxed) >= MAX_PORTS {
            return Err(Refusal::CountPorts);
        }
        self.relay
            .listen(port)
            .map_err(|source| Refusal::Listen { port, source })?;
        self.ports.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A refusal, cut to a length that always fits a line.
pub(super) fn refused(id: u32, why: &impl std::error::Error) -> Report {
    Report::Refused {
        id,
        reason: why.to_string().chars().take(MAX_REASON_CHARS).collect(),
    }
}
