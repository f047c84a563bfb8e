//! Gives a session that is not over back: what goes on is queued first, then it is told, then the ownership ends.
//!
//! Never says that something is queued that is not. What cannot be queued or told is left to a take-over, which goes on from the notes.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::controls::{self, Controls};
use super::handover;
use crate::message::{EventBody, SessionId};
use crate::progress::Progress;
use crate::queue::{Again, Claim, QueueError};
use crate::session::Suspension;

/// How long a broker may take to queue what goes on.
const QUEUEING: Duration = Duration::from_secs(60);
/// Pause after it did not.
const PAUSE: Duration = Duration::from_millis(500);

/// Ends this worker's part in a session.
pub(super) async fn suspend(
    session: SessionId,
    again: Again,
    suspension: Suspension,
    progress: &Progress,
    mut claim: Box<dyn Claim>,
    mut controls: Controls,
) {
    let Suspension {
        mut message,
        projects,
        mut resume,
        amendment,
        next,
        is_lost,
        duration_ms: _,
    } = suspension;
    resume.attempt = again.attempt;
    let next = next.and_then(|prompt| {
        let body = handover::body(&again.body, &prompt, resume.clone(), &amendment);
        if body.is_none() {
            message.push_str("; what was asked last is too long to be handed on and must be sent again");
        }
        body.map(|body| Again {
            body,
            attempt: again.attempt.saturating_add(1),
            after: again.attempt,
            takeovers: if is_lost { again.takeovers.saturating_add(1) } else { 0 },
            ..again
        })
    });
    let goes_on = next.is_some();
    match next {
        Some(next) => {
            if let Err(error) = hand_on(claim.as_ref(), next).await {
                tracing::error!(%session, %error, "what goes on with the session was not queued; the claim is left to expire");
                return;
            }
            controls.release_asked(claim.as_mut());
        }
        None => controls.refuse_the_rest(claim.as_mut(), controls::RESTS).await,
    }
    tracing::info!(%session, queued = goes_on, "session suspended: {message}");
    let event = EventBody::Suspended {
        message,
        queued: goes_on,
        projects,
        resume,
    };
    if let Err(error) = progress.finish(event).await {
        tracing::error!(%session, %error, "the suspension was not confirmed; the claim is left to expire");
        return;
    }
    if let Err(error) = claim.suspend(goes_on).await {
        tracing::warn!(%session, %error, "the claim was not given back; it ends with the connection");
    }
}

/// Queues what goes on, as often as it takes within the time.
async fn hand_on(claim: &dyn Claim, next: Again) -> Result<(), QueueError> {
    let until = Instant::now() + QUEUEING;
    loop {
        match claim.hand_on(next.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= until => return Err(error),
            Err(error) => tracing::warn!(%error, "what goes on with a session is not queued yet"),
        }
        sleep(PAUSE).await;
    }
}
