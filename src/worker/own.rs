//! A session that this worker owns: from the claim to the outcome, or to the ownership's loss.
//!
//! Never knows what a session does, and says nothing of one that another worker owns.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::Instrument as _;

use super::controls::{self, Controls};
use super::noting::Noted;
use super::slot::Slot;
use super::{Running, TEARDOWN, Worker, settle, suspend, trace};
use crate::message::{EventBody, Notes, Reason, SessionId, SessionOutcome, Task};
use crate::progress::Progress;
use crate::queue::{Again, Claim, Delivery, Settle};
use crate::session::failure::Failure;
use crate::session::saved::States;
use crate::session::steering::{Cause, Steering};
use crate::session::{self, Ended};

impl Worker {
    /// A session that this worker owns.
    pub(super) async fn own(&self, task: Task, mut delivery: Delivery, mut claim: Box<dyn Claim>, slot: &Arc<Slot>) {
        let (session, began) = (task.session, Instant::now());
        let agent = task.agent.clone().or_else(|| self.rooms.default_agent.clone());
        delivery.attempt = claim.attempt();
        let steering = Steering::of(claim.holds()).with_slot(slot.clone()).with_another(
            self.running_on.load(Ordering::Relaxed) && delivery.takeovers < self.rooms.config.most_takeovers,
        );
        if !self.enter(session, &steering, claim.attempt()).await {
            tracing::error!(%session, "the session's former run here does not end; its task goes back");
            drop(claim);
            settle(delivery, Settle::Return).await;
            return;
        }
        let ended = self.run_owned(task, delivery, claim.as_mut(), steering.clone()).await;
        self.leave(session);
        let metrics = &self.rooms.metrics;
        let Some((ended, again, progress, mut controls)) = ended else {
            metrics.broker.claim_lost();
            self.quota.ended(None);
            return;
        };
        if !still_owns(
            claim.holds(),
            Duration::from_secs(self.rooms.progress.final_event_limit_s),
        )
        .await
        {
            tracing::warn!(%session, "the session is owned elsewhere; its end here is not told");
            metrics.broker.claim_lost();
            self.quota.ended(None);
            return;
        }
        let count = |reason: Reason| {
            let agent = agent.as_ref().map(AsRef::as_ref);
            metrics
                .sessions
                .finished(agent, reason.result().as_str(), reason.as_str(), began.elapsed());
        };
        let outcome = match ended {
            Ended::Finished(outcome) => outcome,
            // Ended meanwhile, and told so.
            Ended::Suspended(suspension) if matches!(steering.cause(), Some(Cause::Publish | Cause::Discard)) => {
                suspension.ended()
            }
            Ended::Suspended(suspension) => {
                count(Reason::Suspended);
                let goes_on_elsewhere = suspension.next.is_some();
                self.quota
                    .ended((!goes_on_elsewhere).then(|| Reason::Suspended.result()));
                return suspend::suspend(session, again, *suspension, &progress, claim, controls).await;
            }
        };
        count(outcome.reason);
        controls.refuse_the_rest(claim.as_mut(), controls::OVER).await;
        self.quota.ended(Some(outcome.result));
        tracing::info!(%session, reason = outcome.reason.as_str(), duration_ms = outcome.duration_ms, "session ended: {}", outcome.message);
        if let Err(error) = progress.finish(EventBody::Finished { outcome }).await {
            tracing::error!(%session, %error, "the final event was not confirmed; the claim is left to expire");
            return;
        }
        close(session, claim).await;
        // Nobody goes on with it any more. Last, because the directory may be far away.
        if let Some(states) = States::of(&self.rooms.config) {
            states.forget(session).await;
        }
    }

    /// Runs it; `None` when another worker owns it now.
    async fn run_owned(
        &self,
        mut task: Task,
        delivery: Delivery,
        claim: &mut dyn Claim,
        steering: Steering,
    ) -> Option<(Ended, Again, Arc<Progress>, Controls)> {
        let session = task.session;
        let mut mask = self.mask.clone();
        let notes = before(session, claim);
        let amended = notes.as_ref().map_or(Ok(()), |notes| notes.amendment.apply(&mut task));
        let secrets = amended
            .map_err(|error| Failure::new(Reason::Disconnected, format!("the session cannot go on: {error}")))
            .and_then(|()| session::admit::credentials(&self.rooms, &task));
        for secret in secrets.iter().flat_map(|secrets| secrets.values()) {
            mask.add(secret);
        }
        let progress = self.progress(session, delivery.attempt, mask);
        let progress = Arc::new(progress.traced(trace::outgoing(delivery.trace)));
        progress
            .state(EventBody::Claimed {
                worker: self.rooms.worker.clone(),
            })
            .await;
        let (attempt, again) = (
            delivery.attempt,
            delivery.again(task.resume.as_ref().map_or(0, |resume| resume.attempt)),
        );
        settle(delivery, Settle::Ack).await;
        if let Some(cause) = self.stopping.get() {
            steering.stop(*cause);
        }
        let mut controls = Controls::new(steering.clone(), progress.clone(), notes.as_ref());
        let mut noted = Noted::new(&steering, notes.clone());
        if let Some(notes) = &notes {
            controls.inherit(notes).await;
        }
        // What was sent before the claim goes first: a session that was ended early has no sandbox, and no forge hears of it.
        controls.early(claim).await;
        let ended = match secrets {
            _ if matches!(steering.cause(), Some(Cause::Publish | Cause::Discard)) => {
                session::decline(&progress, &steering).await;
                Ended::Finished(ended_early(attempt))
            }
            Ok(secrets) => {
                // In a task of its own: a bug that panics costs this session, not the worker.
                let (rooms, own_progress, own_steering) = (self.rooms.clone(), progress.clone(), steering.clone());
                let run =
                    async move { session::run(&rooms, &task, notes, secrets, &own_progress, &own_steering).await };
                let mut running = tokio::spawn(run.in_current_span());
                loop {
                    tokio::select! {
                        ended = &mut running => break ended.unwrap_or_else(|error| Ended::Finished(bug(&error))),
                        control = claim.next_control(), if steering.cause() != Some(Cause::OwnershipLost) => match control {
                            Some(given) => controls.take(claim, given).await,
                            None => {
                                tracing::warn!(%session, "the session is owned elsewhere; it stops here");
                                steering.stop(Cause::OwnershipLost);
                            }
                        },
                        () = noted.changed() => noted.keep(claim).await,
                    }
                    controls.release(claim, &noted);
                }
            }
            Err(failure) => {
                session::decline(&progress, &steering).await;
                Ended::Finished(refused(failure))
            }
        };
        if steering.cause() == Some(Cause::OwnershipLost) {
            return None;
        }
        // Should what goes on not be queued, the next owner needs the last word.
        noted.keep(claim).await;
        controls.release(claim, &noted);
        Some((ended, again, progress, controls))
    }

    /// Counts the session among the running ones. One that this worker runs already has lost its mailbox, because it is claimed anew: it
    /// stops first, because both would have the same directories. Says whether it could be.
    async fn enter(&self, session: SessionId, steering: &Steering, attempt: u32) -> bool {
        let entering = async {
            loop {
                let gone = self.gone.notified();
                tokio::pin!(gone);
                // From here on no end is missed.
                gone.as_mut().enable();
                {
                    let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                    let Some(former) = running.get(&session) else {
                        running.insert(
                            session,
                            Running {
                                steering: steering.clone(),
                                attempt,
                                since: Instant::now(),
                            },
                        );
                        return;
                    };
                    former.steering.stop(Cause::OwnershipLost);
                }
                gone.await;
            }
        };
        tokio::time::timeout(TEARDOWN, entering).await.is_ok()
    }

    fn leave(&self, session: SessionId) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&session);
        self.gone.notify_waiters();
    }

    /// Whether a session that runs here is certainly this worker's, now and later.
    pub(super) fn ownership_of(&self, session: SessionId) -> Option<watch::Receiver<bool>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(&session).map(|one| one.steering.ownership())
    }
}

/// What the owner before noted, where it can be read.
fn before(session: SessionId, claim: &dyn Claim) -> Option<Notes> {
    let notes = Notes::parse(&claim.kept()?);
    match &notes {
        Some(notes) => tracing::info!(%session, turns = notes.turns, "goes on from what its last owner noted"),
        None => tracing::warn!(%session, "what the last owner noted cannot be read: the session begins from its task"),
    }
    notes
}

/// Waits until it is certain whether the session is still this worker's: the end of another's must not be told here. A broker that stays away
/// decides nothing, and takes no event either.
async fn still_owns(mut holds: watch::Receiver<bool>, limit: Duration) -> bool {
    let certain = tokio::time::timeout(limit, holds.wait_for(|holds| *holds)).await;
    !matches!(certain, Ok(Err(_)))
}

pub(super) async fn close(session: SessionId, claim: Box<dyn Claim>) {
    if let Err(error) = claim.close().await {
        tracing::warn!(%session, %error, "the claim was not closed; it ends with the connection");
    }
}

/// The outcome of a session that was ended before this attempt at it began.
fn ended_early(attempt: u32) -> SessionOutcome {
    let message = if attempt == 1 {
        "the session was ended before it began: nothing was done"
    } else {
        "the session was ended before it went on; what was published before stays on the forge"
    };
    refused(Failure::new(Reason::Cancelled, message))
}

/// The outcome of a session in which nothing was done.
pub(super) fn refused(failure: Failure) -> SessionOutcome {
    SessionOutcome {
        result: failure.reason.result(),
        reason: failure.reason,
        message: failure.message,
        projects: Vec::new(),
        answer: String::new(),
        duration_ms: 0,
    }
}

fn bug(error: &tokio::task::JoinError) -> SessionOutcome {
    tracing::error!(%error, "a session ended by a bug of the worker");
    SessionOutcome {
        result: Reason::Internal.result(),
        reason: Reason::Internal,
        message: "the worker failed in a way that is a bug: its log says more".to_owned(),
        projects: Vec::new(),
        answer: String::new(),
        duration_ms: 0,
    }
}
