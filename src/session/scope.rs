//! The two scopes of a session: what stops when it is told to stop, and what its teardown still waits for, and how long.

use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::failure::Failure;
use super::steering::{Cause, Steering};
use crate::message::{EventBody, Reason};
use crate::progress::Progress;

/// How long a comment that is on its way may take at the end.
const SAYING: Duration = Duration::from_secs(60);
/// How long an event of the teardown may wait for a broker that is away.
pub(super) const TELLING: Duration = Duration::from_secs(10);

/// Goes on with something until the session is told to stop.
pub(super) async fn stoppable<T>(
    steering: &Steering,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        () = steering.token().cancelled() => Err(stopped(steering)),
        done = work => done,
    }
}

pub(super) fn stopped(steering: &Steering) -> Failure {
    match steering.cause() {
        Some(Cause::WorkerStopped) => {
            Failure::new(Reason::WorkerStopped, "the worker was stopped: send the task again")
        }
        Some(Cause::Drain) => Failure::new(
            Reason::WorkerStopped,
            "the worker was stopped: another goes on with the session",
        ),
        Some(Cause::OwnershipLost) => Failure::new(Reason::WorkerStopped, "another worker took the session over"),
        Some(Cause::Publish | Cause::Discard) | None => {
            Failure::new(Reason::Cancelled, "a control message ended the session")
        }
    }
}

/// Waits for what an agent is saying on a forge: nothing is said that is not told.
pub(super) async fn said(speaking: &TaskTracker) {
    speaking.close();
    if tokio::time::timeout(SAYING, speaking.wait()).await.is_err() {
        tracing::warn!("a comment was on its way when its session ended; whether it arrived is not told");
    }
}

/// Emits an event of the teardown. When the broker is away for long it is given up: the final event says the same, and cleaning up must go on.
pub(super) async fn tell(progress: &Progress, event: EventBody) {
    let kind = event.kind();
    if tokio::time::timeout(TELLING, progress.state(event)).await.is_err() {
        tracing::warn!(kind, "an event of the teardown was given up: the broker takes none");
    }
}
