//! PID 1: dials the worker's gateway, starts and ends processes on its word, carries their stdio, relays loopback ports
//! and reaps whatever dies.
//!
//! One thread. It never starts anything by itself, never buffers without bound, and never survives its worker for long:
//! without a control connection for the agreed time it ends everything.

mod chunk;
mod control;
mod dial;
mod everything;
mod file;
mod from_gateway;
mod identifiers;
mod link;
mod orders;
mod processes;
mod relay;
mod stdio;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use dial::Way;
use orders::{Ending, Sandbox};

/// How long `docker stop` and the like are given: less than the engine's own ten seconds.
const TERMINATION_GRACE: Duration = Duration::from_secs(2);
/// Enough for every process and relayed connection at their limits.
/// Memory that one process may lock, in bytes.
const LOCKED_MEMORY: u64 = 8 * 1024 * 1024;
const OPEN_FILES_WANTED: u64 = 4096;
/// Reports that wait for the worker; whoever has another one waits too.
const WAITING_REPORTS: usize = 64;

/// How PID 1 was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The gateway's socket.
    pub(crate) socket: PathBuf,
    /// The worker, where it shares no directory with this sandbox.
    pub(crate) worker: Option<Worker>,
    /// For how long the control connection may be gone.
    pub(crate) gone_after: Duration,
}

/// A worker on another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Worker {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The directory with the ticket and the worker's certificate.
    pub(crate) papers: PathBuf,
    /// The largest file that may be written, in bytes; as the system has it when absent.
    pub(crate) largest_file: Option<u64>,
}

/// Why PID 1 cannot do its work at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// Everything in the sandbox could read its memory.
    #[error("this process could not be made undumpable")]
    MakeUndumpable(#[source] nix::Error),
    /// Orphans would not come here.
    #[error("this process could not be made the reaper of orphans")]
    BecomeReaper(#[source] nix::Error),
    /// The worker is not there, or does not know the ticket.
    #[error("the worker could not be joined")]
    Join(#[source] std::io::Error),
    /// No event loop.
    #[error("the event loop could not be started")]
    StartRuntime(#[source] std::io::Error),
    /// No word of children or of the engine.
    #[error("signals could not be watched")]
    WatchSignals(#[source] std::io::Error),
}

/// Serves until the end: see [`Ending`].
pub(crate) fn run(options: &Options) -> Result<Ending, InitError> {
    // First of all: whatever runs later under the same user must not read this memory or environment.
    nix::sys::prctl::set_dumpable(false).map_err(InitError::MakeUndumpable)?;
    // PID 1 is the reaper of its namespace anyway.
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true)
        && nix::unistd::getpid().as_raw() != 1
    {
        return Err(InitError::BecomeReaper(error));
    }
    // SIGPIPE is ignored by the runtime of Rust before main, and default again in every child.
    if let Some(worker) = &options.worker {
        limit(worker);
    }
    let open_files = raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(InitError::StartRuntime)?;
    runtime.block_on(serve(options, open_files))
}

async fn serve(options: &Options, open_files: u64) -> Result<Ending, InitError> {
    let mut children = signal(SignalKind::child()).map_err(InitError::WatchSignals)?;
    let mut terminations = signal(SignalKind::terminate()).map_err(InitError::WatchSignals)?;
    let (reports, waiting) = mpsc::channel(WAITING_REPORTS);
    let (way, joined) = match &options.worker {
        None => (Way::Socket(options.socket.clone()), None),
        Some(worker) => {
            let (link, joined) = link::join(worker).await.map_err(InitError::Join)?;
            (Way::Link(Arc::new(link)), Some(joined))
        }
    };
    let sandbox = Arc::new(Sandbox::new(way, open_files, reports));
    if let Some(joined) = joined {
        let linked = Arc::clone(&sandbox);
        tokio::spawn(async move {
            joined.ended().await;
            linked.end(Ending::WorkerGone, Duration::ZERO);
        });
    }

    let reaping = Arc::clone(&sandbox);
    tokio::spawn(async move {
        loop {
            reaping.processes().reap();
            if children.recv().await.is_none() {
                return;
            }
        }
    });
    let told = Arc::clone(&sandbox);
    let gone_after = options.gone_after;
    tokio::spawn(async move {
        control::serve(&told, waiting, gone_after).await;
        told.end(Ending::WorkerGone, Duration::ZERO);
    });
    let stopped = Arc::clone(&sandbox);
    tokio::spawn(async move {
        while terminations.recv().await.is_some() {
            stopped.end(Ending::Ordered, TERMINATION_GRACE);
        }
    });

    Ok(everything::end_when_told(&sandbox).await)
}

/// Raises the soft limit of open files as far as it is needed and allowed; returns what it was.
/// What an engine sets elsewhere, for this process and all that it starts: a pod cannot ask for it. Where a limit is lower it stays.
fn limit(worker: &Worker) {
    let largest_file = worker.largest_file.map(|bytes| (Resource::RLIMIT_FSIZE, bytes));
    let fixed = [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, OPEN_FILES_WANTED),
        (Resource::RLIMIT_MEMLOCK, LOCKED_MEMORY),
    ];
    for (resource, wanted) in fixed.into_iter().chain(largest_file) {
        if let Ok((soft, hard)) = getrlimit(resource) {
            let hard = hard.min(wanted);
            // Lowering does not fail.
            let _ = setrlimit(resource, soft.min(hard), hard);
        }
    }
}

fn raise_open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    let wanted = OPEN_FILES_WANTED.min(hard);
    if soft < wanted {
        // Fewer connections at once, where this is forbidden.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
    }
    soft
}
