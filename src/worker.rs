//! The loop: a slot, a delivery, a claim, a session, an outcome. And the end: drain, then teardown.
//!
//! Never knows what a session does. A delivery is settled as soon as its session is claimed, so it is never held while an agent works.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::message::event::Stage;
use crate::message::outcome::Outcome;
use crate::message::{Event, EventBody, Reason, SessionId, SessionOutcome, Task};
use crate::progress::Progress;
use crate::queue::{Again, Claim, Claimed, Delivery, Queue, Settle};
use crate::secret::Mask;
use crate::session::steering::{Cause, Steering};
use crate::session::{self, Ended, Rooms, Suspension};

mod controls;
mod counted;
mod handover;
mod quota;
pub mod reap;
mod slot;

use controls::Controls;
pub use quota::Modes;
use quota::Quota;
use slot::{Slot, Slots};

/// How long the sessions of a stopped worker get to keep their work and remove their sandboxes.
const TEARDOWN: Duration = Duration::from_secs(120);
/// How often what nobody owns is looked for: a minute after a crash nothing of it is to be left.
const REAP_EVERY: Duration = Duration::from_secs(20);

/// How often it is asked whether the disk has room for new work.
const DISK_EVERY: Duration = Duration::from_secs(1);

/// A worker.
pub struct Worker {
    rooms: Arc<Rooms>,
    queue: Arc<dyn Queue>,
    slots: Arc<Slots>,
    running: Mutex<HashMap<SessionId, Running>>,
    quota: Arc<Quota>,
    /// No task is taken any more, whoever decided that.
    finishing: AtomicBool,
    /// Why all sessions are stopped, also those that only just begin.
    stopping: OnceLock<Cause>,
    /// Known secrets of the worker itself, masked in every event.
    mask: Mask,
}

/// A session of this worker.
struct Running {
    steering: Steering,
    attempt: u32,
    since: Instant,
}

/// What can be seen of a running session.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its id.
    pub session: SessionId,
    /// Which attempt at it this is.
    pub attempt: u32,
    /// Where it is, and since when.
    pub stage: Option<(Stage, Instant)>,
    /// When this worker began it.
    pub since: Instant,
    /// Whether it was told to stop.
    pub stopping: bool,
    /// Whether it waits for people, or for its next prompt.
    pub waiting: bool,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Worker")
            .field("rooms", &self.rooms)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker with that many slots.
    #[must_use]
    pub fn new(rooms: Arc<Rooms>, queue: Arc<dyn Queue>, concurrency: usize, mask: Mask, modes: Modes) -> Arc<Self> {
        rooms.metrics.concurrency_limit(concurrency);
        // Every series is there from the start, so that an alert sees the first failure.
        let reasons = Reason::ALL
            .iter()
            .map(|reason| (reason.result().as_str(), reason.as_str()));
        rooms.metrics.expect_sessions(Stage::ALL.map(Stage::as_str), reasons);
        let queue = Arc::new(counted::Counted::new(queue, rooms.metrics.clone()));
        let slots = Slots::of(concurrency, rooms.config.most_waiting);
        Arc::new(Self {
            rooms,
            queue,
            slots,
            running: Mutex::new(HashMap::new()),
            quota: Quota::of(modes),
            finishing: AtomicBool::new(false),
            stopping: OnceLock::new(),
            mask,
        })
    }

    /// Takes tasks until `stop`, then lets sessions go on for `drain`, then ends them, keeping their work. Ends by itself as its modes say.
    pub async fn run(self: &Arc<Self>, stop: CancellationToken, drain: Duration) {
        let sessions = TaskTracker::new();
        let reaper = tokio::spawn(self.clone().reap_regularly());
        self.look_at_disk().await;
        let disk = tokio::spawn(self.clone().look_at_disk_regularly());
        let enough = stop.child_token();
        let done = tokio::spawn({
            let (quota, enough) = (self.quota.clone(), enough.clone());
            async move {
                let why = quota.done().await;
                tracing::info!("no more tasks are taken: {why}");
                enough.cancel();
            }
        });
        loop {
            // The slot first: a delivery that cannot be worked on belongs to another worker.
            let slot = tokio::select! {
                biased;
                () = enough.cancelled() => break,
                slot = self.slots.take() => slot,
            };
            // What is not asked for stays with the broker, for this worker later or for another now.
            tokio::select! {
                biased;
                () = enough.cancelled() => break,
                () = self.quota.room() => {}
            }
            tokio::select! {
                biased;
                () = enough.cancelled() => break,
                () = self.fit() => {}
            }
            let delivery = tokio::select! {
                biased;
                () = enough.cancelled() => break,
                () = self.rooms.disk.until(true) => continue,
                () = self.rooms.engine_health.until(false) => continue,
                delivery = self.queue.next_task() => delivery,
            };
            let Some(delivery) = delivery else { break };
            let (worker, in_hand) = (self.clone(), self.quota.took());
            sessions.spawn(async move {
                worker.take_in(delivery, &slot).await;
                drop((slot, in_hand));
            });
        }
        self.finishing.store(true, Ordering::Relaxed);
        done.abort();
        self.rooms.metrics.draining(true);
        self.queue.stop_consuming().await;
        sessions.close();
        // Who ends by himself is in no hurry, until somebody says so.
        tokio::select! {
            () = sessions.wait() => {}
            () = stop.cancelled() => {}
        }
        if tokio::time::timeout(drain, sessions.wait()).await.is_err() {
            self.stop_sessions(Cause::Drain);
            if tokio::time::timeout(TEARDOWN, sessions.wait()).await.is_err() {
                tracing::error!("sessions did not end in their time; the next worker removes what they left");
            }
        }
        reaper.abort();
        disk.abort();
    }

    /// Waits until disk and engine can carry a new session, both at the same time.
    async fn fit(&self) {
        while self.rooms.disk.is_low() || !self.rooms.engine_health.is_fit() {
            self.rooms.disk.until(false).await;
            self.rooms.engine_health.until(true).await;
        }
    }

    /// Ends every running session.
    pub fn stop_sessions(&self, cause: Cause) {
        let _ = self.stopping.set(cause);
        for one in self.running.lock().unwrap_or_else(PoisonError::into_inner).values() {
            one.steering.stop(cause);
        }
    }

    /// Whether it takes no task any more.
    #[must_use]
    pub fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::Relaxed)
    }

    /// How the last session ended here: `None` when none has, `Some(None)` when it went to another worker.
    #[must_use]
    pub fn last(&self) -> Option<Option<Outcome>> {
        self.quota.last()
    }

    /// The running sessions, the oldest first.
    #[must_use]
    pub fn sessions(&self) -> Vec<Seen> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen: Vec<Seen> = running
            .iter()
            .map(|(session, one)| Seen {
                session: *session,
                attempt: one.attempt,
                stage: one.steering.stage(),
                since: one.since,
                stopping: one.steering.cause().is_some(),
                waiting: one.steering.is_waiting(),
            })
            .collect();
        seen.sort_by_key(|one| one.since);
        seen
    }

    /// One delivery, from its body to the end of its session.
    async fn take_in(&self, mut delivery: Delivery, slot: &Arc<Slot>) {
        let task = match Task::parse(&delivery.body) {
            Ok(task) => task,
            Err(error) => {
                let session = Task::session_of(&delivery.body).unwrap_or(SessionId(uuid::Uuid::nil()));
                self.reject(session, delivery, error.code(), &error.to_string()).await;
                return;
            }
        };
        let session = task.session;
        let after = task.resume.as_ref().map_or(0, |resume| resume.attempt);
        delivery.count_from(after);
        // What was taken over was claimed before, where it was allowed: whether its owner is really gone, only a claim can tell.
        if delivery.takeovers == 0
            && let Some(refused) = session::admit::in_clear(&self.rooms, &task)
        {
            self.reject(session, delivery, refused.reason.as_str(), &refused.message)
                .await;
            return;
        }
        match self.queue.claim(session, delivery.again(after)).await {
            Ok(Claimed::Owner(claim)) if delivery.takeovers > self.rooms.config.most_takeovers => {
                self.rooms.metrics.amqp_delivery("abandoned");
                self.give_up(session, delivery, claim).await;
            }
            Ok(Claimed::Owner(claim)) => {
                self.rooms.metrics.amqp_delivery("claimed");
                self.own(task, delivery, claim, slot).await;
            }
            Ok(Claimed::Elsewhere) => {
                tracing::info!(%session, "a duplicate of a task was dropped: its session runs already");
                self.rooms.metrics.amqp_delivery("elsewhere");
                settle(delivery, Settle::Ack).await;
            }
            Ok(Claimed::Superseded) => {
                tracing::info!(%session, "a duplicate of a task was dropped: its session went on from there since");
                self.rooms.metrics.amqp_delivery("superseded");
                settle(delivery, Settle::Ack).await;
            }
            Ok(Claimed::Over) => {
                tracing::info!(%session, "a task was dropped: its session is over");
                self.rooms.metrics.amqp_delivery("over");
                if task.resume.is_some() {
                    self.refuse_to_resume(session, delivery.attempt).await;
                }
                settle(delivery, Settle::Ack).await;
            }
            Err(error) => {
                tracing::warn!(%session, %error, "a session was not claimed; its task goes back");
                self.rooms.metrics.amqp_delivery("returned");
                // Each return counts against the task: a broker that is unwell for a while must not use them up.
                tokio::time::sleep(pause(delivery.attempt)).await;
                settle(delivery, Settle::Return).await;
            }
        }
    }

    /// Whoever asks to go on with a session that is over waits for an answer; the sender of a plain duplicate does not.
    async fn refuse_to_resume(&self, session: SessionId, attempt: u32) {
        let body = EventBody::Rejected {
            code: "session_over".to_owned(),
            message: "this session is over and cannot go on: send a task with a new session id".to_owned(),
        };
        let event = Event::now(&self.rooms.worker, session, attempt, 1, body);
        if let Err(error) = self.queue.publish(&event).await {
            tracing::warn!(%session, %error, "the rejection of a task was not published");
        }
    }

    /// What is not taken goes to the dead-letter queue, and its sender is told why.
    async fn reject(&self, session: SessionId, delivery: Delivery, code: &str, message: &str) {
        let (code, message) = (code.to_owned(), self.mask.apply(message));
        tracing::warn!(%session, code, "a task was refused: {message}");
        self.rooms.metrics.amqp_delivery("dead_lettered");
        let body = EventBody::Rejected {
            code: code.clone(),
            message: message.clone(),
        };
        let event = Event::now(&self.rooms.worker, session, delivery.attempt, 1, body);
        if let Err(error) = self.queue.publish(&event).await {
            tracing::warn!(%session, %error, "the rejection of a task was not published");
        }
        settle(delivery, Settle::DeadLetter { code, message }).await;
    }

    /// A task whose every worker died. It may be the task that kills them: it goes where it kills nobody, with the reason.
    async fn give_up(&self, session: SessionId, delivery: Delivery, mut claim: Box<dyn Claim>) {
        let reason = Reason::Abandoned;
        let message = format!(
            "{} workers died while they had this session: look into their logs before you send it again",
            delivery.takeovers
        );
        tracing::error!(%session, "{message}");
        let progress = Arc::new(self.progress(session, delivery.attempt, self.mask.clone()));
        Controls::new(Steering::default(), progress.clone())
            .refuse_the_rest(claim.as_mut(), controls::OVER)
            .await;
        let body = EventBody::Finished {
            outcome: refused(session::failure::Failure::new(reason, message.clone())),
        };
        if let Err(error) = progress.finish(body).await {
            tracing::warn!(%session, %error, "the end of an abandoned session was not published; its task comes again");
            settle(delivery, Settle::Return).await;
            return;
        }
        let code = reason.as_str().to_owned();
        settle(delivery, Settle::DeadLetter { code, message }).await;
        close(session, claim).await;
    }

    fn progress(&self, session: SessionId, attempt: u32, mask: Mask) -> Progress {
        let (queue, worker) = (self.queue.clone(), &self.rooms.worker);
        Progress::new(queue, worker, session, attempt, mask, &self.rooms.progress)
    }

    /// A session that this worker owns.
    async fn own(&self, task: Task, delivery: Delivery, mut claim: Box<dyn Claim>, slot: &Arc<Slot>) {
        let session = task.session;
        let mut mask = self.mask.clone();
        let secrets = session::admit::credentials(&self.rooms, &task);
        for secret in secrets.iter().flat_map(|secrets| secrets.values()) {
            mask.add(secret);
        }
        let progress = Arc::new(self.progress(session, delivery.attempt, mask));
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

        let steering = Steering::of(claim.holds()).with_slot(slot.clone());
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(
            session,
            Running {
                steering: steering.clone(),
                attempt,
                since: Instant::now(),
            },
        );
        if let Some(cause) = self.stopping.get() {
            steering.stop(*cause);
        }
        let mut controls = Controls::new(steering.clone(), progress.clone());
        // What was sent before the claim goes first: a session that was ended early has no sandbox, and no forge hears of it.
        controls.early(claim.as_mut()).await;
        let ended = match secrets {
            _ if matches!(steering.cause(), Some(Cause::Publish | Cause::Discard)) => {
                Ended::Finished(ended_early(attempt))
            }
            Ok(secrets) => {
                // In a task of its own: a bug that panics costs this session, not the worker.
                let (rooms, own_progress, own_steering) = (self.rooms.clone(), progress.clone(), steering.clone());
                let mut running =
                    tokio::spawn(
                        async move { session::run(&rooms, &task, secrets, &own_progress, &own_steering).await },
                    );
                loop {
                    tokio::select! {
                        ended = &mut running => break ended.unwrap_or_else(|error| Ended::Finished(bug(&error))),
                        control = claim.next_control(), if steering.cause() != Some(Cause::OwnershipLost) => match control {
                            Some(body) => controls.take(claim.as_mut(), &body).await,
                            None => {
                                tracing::warn!(%session, "the session is owned elsewhere; it stops here");
                                steering.stop(Cause::OwnershipLost);
                            }
                        },
                    }
                }
            }
            Err(failure) => Ended::Finished(refused(failure)),
        };
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&session);
        if steering.cause() == Some(Cause::OwnershipLost) {
            self.quota.ended(None);
            return;
        }
        if !still_owns(
            claim.holds(),
            Duration::from_secs(self.rooms.progress.final_event_limit_s),
        )
        .await
        {
            tracing::warn!(%session, "the session is owned elsewhere; its end here is not told");
            self.quota.ended(None);
            return;
        }
        let outcome = match ended {
            Ended::Finished(outcome) => outcome,
            // Ended meanwhile, and told so.
            Ended::Suspended(suspension) if matches!(steering.cause(), Some(Cause::Publish | Cause::Discard)) => {
                suspension.ended()
            }
            Ended::Suspended(suspension) => {
                let goes_on_elsewhere = suspension.next.is_some();
                self.quota
                    .ended((!goes_on_elsewhere).then(|| Reason::Suspended.result()));
                return suspend(session, again, suspension, &progress, claim, controls).await;
            }
        };
        controls.refuse_the_rest(claim.as_mut(), controls::OVER).await;
        self.quota.ended(Some(outcome.result));
        tracing::info!(%session, reason = outcome.reason.as_str(), duration_ms = outcome.duration_ms, "session ended: {}", outcome.message);
        if let Err(error) = progress.finish(EventBody::Finished { outcome }).await {
            tracing::error!(%session, %error, "the final event was not confirmed; the claim is left to expire");
            return;
        }
        close(session, claim).await;
    }

    async fn look_at_disk(&self) {
        if let Some(free) = self.rooms.disk.sample().await {
            self.rooms.metrics.disk(free.bytes, self.rooms.disk.is_low());
        }
    }

    async fn look_at_disk_regularly(self: Arc<Self>) {
        let mut clock = tokio::time::interval(DISK_EVERY);
        loop {
            clock.tick().await;
            self.look_at_disk().await;
        }
    }

    /// Under the lock without which no session begins here: one that begins later finds nothing of the former.
    fn put_away(&self, session: SessionId) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if !running.contains_key(&session) {
            reap::put_away(&self.rooms.repositories, session);
        }
    }

    async fn reap_regularly(self: Arc<Self>) {
        let mut reaper = reap::Reaper::default();
        let mut clock = tokio::time::interval(REAP_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            reaper.own(&self.rooms, &|session| self.put_away(session)).await;
            reaper.others(&self.rooms).await;
        }
    }
}

/// Waits until it is certain whether the session is still this worker's: the end of another's must not be told here. A broker that stays away
/// decides nothing, and takes no event either.
async fn still_owns(mut holds: watch::Receiver<bool>, limit: Duration) -> bool {
    let certain = tokio::time::timeout(limit, holds.wait_for(|holds| *holds)).await;
    !matches!(certain, Ok(Err(_)))
}

/// How long a task that could not be claimed is kept before it goes back, by how often it came.
fn pause(attempt: u32) -> Duration {
    Duration::from_secs(u64::from(attempt.clamp(1, 15)))
}

async fn settle(delivery: Delivery, settle: Settle) {
    if let Err(error) = delivery.handle.settle(settle).await {
        // The broker hands it out again; a claim or a tombstone then drops the duplicate.
        tracing::warn!(%error, "a delivery was not settled");
    }
}

async fn close(session: SessionId, claim: Box<dyn Claim>) {
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
    refused(session::failure::Failure::new(Reason::Cancelled, message))
}

/// Gives a session that is not over back: told first, then queued where the worker itself wants it to go on.
async fn suspend(
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
        next,
        duration_ms: _,
    } = suspension;
    resume.attempt = again.attempt;
    let next = next.and_then(|prompt| {
        let body = handover::body(&again.body, &prompt, resume.clone());
        if body.is_none() {
            message.push_str("; what was asked last is too long to be handed on and must be sent again");
        }
        body.map(|body| Again {
            body,
            attempt: again.attempt.saturating_add(1),
            after: again.attempt,
            takeovers: 0,
            ..again
        })
    });
    tracing::info!(%session, queued = next.is_some(), "session suspended: {message}");
    if next.is_none() {
        controls.refuse_the_rest(claim.as_mut(), controls::RESTS).await;
    }
    let event = EventBody::Suspended {
        message,
        queued: next.is_some(),
        projects,
        resume,
    };
    if let Err(error) = progress.finish(event).await {
        tracing::error!(%session, %error, "the suspension was not confirmed; the claim is left to expire");
        return;
    }
    if let Err(error) = claim.suspend(next).await {
        tracing::warn!(%session, %error, "the claim was not given back; it ends with the connection");
    }
}

/// The outcome of a task whose credentials cannot be had.
fn refused(failure: session::failure::Failure) -> SessionOutcome {
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
