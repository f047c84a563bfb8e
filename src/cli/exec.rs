//! `cofferdam exec`: one task on the in-process queue, its events on the terminal.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::compose::{compose, read_task};
use super::show::Show;
use super::timings::Timings;
use super::{Exit, log, run, show};
use crate::config::Config;
use crate::message::{EventBody, Task};
use crate::queue::Queue as _;
use crate::queue::memory::MemoryQueue;
use crate::session::Rooms;
use crate::session::steering::Cause;
use crate::worker::{Modes, Worker, reap};

/// How long the end at once may take.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Runs one task to its end. The first signal stops it and keeps its work, the second ends it at once.
///
/// With `timings`, where its time went is told at the end, on standard error.
pub(super) async fn exec(config: Config, task: &Path, json: bool, timings: bool) -> Exit {
    log::to_standard_error();
    let body = match read_task(task) {
        Ok(body) => body,
        Err(message) => {
            show::complain(&message);
            return Exit::BadTask;
        }
    };
    // Said at once, so that a mistake in a task costs no set-up.
    if let Err(error) = Task::parse(&body) {
        show::complain(&format!("the task is not valid ({}): {error}", error.code()));
        return Exit::BadTask;
    }
    let composed = match compose(&config).await {
        Ok(composed) => composed,
        Err((exit, message)) => {
            show::complain(&message);
            return exit;
        }
    };
    reap::Reaper::default().at_start(&composed.rooms).await;
    let (queue, handle, mut events) = MemoryQueue::new();
    let worker = Worker::new(
        composed.rooms.clone(),
        queue.clone(),
        1,
        composed.mask.clone(),
        Modes::default(),
    );
    let mut timings = timings.then(|| Timings::from(Timestamp::now()));
    handle.push(Bytes::from(body)).await;
    let working = worker.clone();
    let mut running = tokio::spawn(async move {
        if let Some(delivery) = queue.next_task().await {
            working.take(delivery).await;
        }
    });
    let mut show = Show::new(json);
    let mut exit = Exit::Software;
    let mut signals = run::StopSignals::new();
    let mut interrupted = 0;
    let mut ended = false;
    while !ended || !events.is_empty() {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(event) => {
                    if let EventBody::Finished { outcome } = &event.data.body {
                        exit = show::exit_of(outcome.result);
                    }
                    if let EventBody::Rejected { .. } = &event.data.body {
                        exit = Exit::BadTask;
                    }
                    if let EventBody::Suspended { .. } = &event.data.body {
                        exit = Exit::Success;
                    }
                    show.event(&event);
                    if let Some(timings) = &mut timings {
                        timings.event(&event);
                    }
                    if event.data.body.is_terminal() {
                        break;
                    }
                }
                None => break,
            },
            // Without a final event, by a bug: what was told is shown already, and nothing more comes.
            _ = &mut running, if !ended => {
                ended = true;
            }
            () = signals.next() => {
                interrupted += 1;
                if interrupted > 1 {
                    show.end();
                    return at_once(&composed.rooms, &mut signals).await;
                }
                show::complain("stopping: the work is kept and the sandbox removed; once more ends it at once");
                worker.stop_sessions(Cause::WorkerStopped);
            }
        }
    }
    // The end of the claim comes after the final event.
    if !ended {
        tokio::select! {
            _ = &mut running => {}
            () = signals.next() => {
                show.end();
                return at_once(&composed.rooms, &mut signals).await;
            }
        }
    }
    composed.rooms.engine.leave().await;
    show.end();
    if let Some(timings) = timings {
        show::aside(&timings.table(Timestamp::now()));
    }
    exit
}

/// The end without waiting for the session: its sandbox is removed if that is quick. What is staged is kept by the next start.
async fn at_once(rooms: &Rooms, signals: &mut run::StopSignals) -> Exit {
    show::complain("ending at once: what was not yet kept is kept by the next start with this state_dir");
    tokio::select! {
        () = reap::everything(rooms) => {}
        () = tokio::time::sleep(AT_ONCE) => {}
        () = signals.next() => {}
    }
    Exit::Cancelled
}
