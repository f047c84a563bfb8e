//! `cofferdam exec`: one task on the in-process queue, its events on the terminal.

use std::path::Path;

use bytes::Bytes;

use super::compose::{compose, read_task};
use super::show::Show;
use super::{Exit, log, run, show};
use crate::config::Config;
use crate::message::{EventBody, Task};
use crate::queue::Queue as _;
use crate::queue::memory::MemoryQueue;
use crate::session::steering::Cause;
use crate::worker::{Worker, reap};

/// Runs one task to its end.
pub(super) async fn exec(config: Config, task: &Path, json: bool) -> Exit {
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
    reap::left_by_a_killed_worker(&composed.rooms).await;
    let (queue, handle, mut events) = MemoryQueue::new();
    let worker = Worker::new(composed.rooms.clone(), queue.clone(), 1, composed.mask.clone());
    handle.push(Bytes::from(body)).await;
    let working = worker.clone();
    let mut running = tokio::spawn(async move {
        if let Some(delivery) = queue.next_task().await {
            working.take(delivery).await;
        }
    });
    let mut show = Show::new(json);
    let mut exit = Exit::Software;
    let mut interrupted = std::pin::pin!(run::stop_signal());
    let mut stopping = false;
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
            () = &mut interrupted, if !stopping => {
                stopping = true;
                show::complain("stopping: the work is kept and the sandbox removed");
                worker.stop_sessions(Cause::WorkerStopped);
            }
        }
    }
    // Teardown and the end of the claim come after the final event.
    if !ended {
        let _ = running.await;
    }
    show.end();
    exit
}
