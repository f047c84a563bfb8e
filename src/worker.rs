//! The loop: a slot, a delivery, a claim, a session, an outcome. And the end: drain, then teardown.
//!
//! Never knows what a session does. A delivery is settled as soon as its session is claimed, so it is never held while an agent works.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::message::control::Control;
use crate::message::event::Stage;
use crate::message::task::ProjectRequest;
use crate::message::{ControlKind, Event, EventBody, ProjectKey, Reason, SessionId, SessionOutcome, Task};
use crate::progress::Progress;
use crate::queue::{Claim, Claimed, Delivery, Queue, Settle};
use crate::secret::Mask;
use crate::session::steering::{Cause, Order, OrderKind, Steering};
use crate::session::{self, Rooms};

mod counted;
pub mod reap;

/// How long the sessions of a stopped worker get to keep their work and remove their sandboxes.
const TEARDOWN: Duration = Duration::from_secs(120);
/// How often what nobody owns is looked for.
const REAP_EVERY: Duration = Duration::from_secs(60);

/// How often it is asked whether the disk has room for new work.
const DISK_EVERY: Duration = Duration::from_secs(1);

/// A worker.
pub struct Worker {
    rooms: Arc<Rooms>,
    queue: Arc<dyn Queue>,
    slots: Arc<Semaphore>,
    running: Mutex<HashMap<SessionId, Steering>>,
    /// Known secrets of the worker itself, masked in every event.
    mask: Mask,
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
    pub fn new(rooms: Arc<Rooms>, queue: Arc<dyn Queue>, concurrency: usize, mask: Mask) -> Arc<Self> {
        rooms.metrics.concurrency_limit(concurrency);
        // Every series is there from the start, so that an alert sees the first failure.
        let reasons = Reason::ALL
            .iter()
            .map(|reason| (reason.result().as_str(), reason.as_str()));
        rooms.metrics.expect_sessions(Stage::ALL.map(Stage::as_str), reasons);
        let queue = Arc::new(counted::Counted::new(queue, rooms.metrics.clone()));
        let slots = Arc::new(Semaphore::new(concurrency));
        Arc::new(Self {
            rooms,
            queue,
            slots,
            running: Mutex::new(HashMap::new()),
            mask,
        })
    }

    /// Takes tasks until `stop`, then lets sessions go on for `drain`, then ends them, keeping their work.
    pub async fn run(self: &Arc<Self>, stop: CancellationToken, drain: Duration) {
        let sessions = TaskTracker::new();
        let reaper = tokio::spawn(self.clone().reap_regularly());
        self.look_at_disk().await;
        let disk = tokio::spawn(self.clone().look_at_disk_regularly());
        loop {
            // The slot first: a delivery that cannot be worked on belongs to another worker.
            let slot = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                slot = self.slots.clone().acquire_owned() => slot,
            };
            let Ok(slot) = slot else { break };
            // What is not asked for stays with the broker, for this worker later or for another now.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.rooms.disk.until(false) => {}
            }
            let delivery = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.rooms.disk.until(true) => continue,
                delivery = self.queue.next_task() => delivery,
            };
            let Some(delivery) = delivery else { break };
            let worker = self.clone();
            sessions.spawn(async move {
                worker.take(delivery).await;
                drop(slot);
            });
        }
        self.rooms.metrics.draining(true);
        self.queue.stop_consuming().await;
        sessions.close();
        if tokio::time::timeout(drain, sessions.wait()).await.is_err() {
            self.stop_sessions(Cause::WorkerStopped);
            if tokio::time::timeout(TEARDOWN, sessions.wait()).await.is_err() {
                tracing::error!("sessions did not end in their time; the next worker removes what they left");
            }
        }
        reaper.abort();
        disk.abort();
    }

    /// Ends every running session.
    pub fn stop_sessions(&self, cause: Cause) {
        for steering in self.running.lock().unwrap_or_else(PoisonError::into_inner).values() {
            steering.stop(cause);
        }
    }

    /// One delivery, from its body to the end of its session.
    pub async fn take(&self, delivery: Delivery) {
        let task = match Task::parse(&delivery.body) {
            Ok(task) => task,
            Err(error) => {
                let session = Task::session_of(&delivery.body).unwrap_or(SessionId(uuid::Uuid::nil()));
                self.reject(session, delivery, error.code(), &error.to_string()).await;
                return;
            }
        };
        let session = task.session;
        // What was taken over was claimed before, where it was allowed: whether its owner is really gone, only a claim can tell.
        if delivery.takeovers == 0
            && let Some(refused) = session::admit::in_clear(&self.rooms, &task)
        {
            self.reject(session, delivery, refused.reason.as_str(), &refused.message)
                .await;
            return;
        }
        match self.queue.claim(session, delivery.again()).await {
            Ok(Claimed::Owner(claim)) if delivery.takeovers > self.rooms.config.most_takeovers => {
                self.rooms.metrics.amqp_delivery("abandoned");
                self.give_up(session, delivery, claim).await;
            }
            Ok(Claimed::Owner(claim)) => {
                self.rooms.metrics.amqp_delivery("claimed");
                self.own(task, delivery, claim).await;
            }
            Ok(Claimed::Elsewhere) => {
                tracing::info!(%session, "a duplicate of a task was dropped: its session runs already");
                self.rooms.metrics.amqp_delivery("elsewhere");
                settle(delivery, Settle::Ack).await;
            }
            Ok(Claimed::Over) => {
                tracing::info!(%session, "a duplicate of a task was dropped: its session is over");
                self.rooms.metrics.amqp_delivery("over");
                settle(delivery, Settle::Ack).await;
            }
            Err(error) => {
                tracing::warn!(%session, %error, "a session was not claimed; its task goes back");
                self.rooms.metrics.amqp_delivery("returned");
                settle(delivery, Settle::Return).await;
            }
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
    async fn give_up(&self, session: SessionId, delivery: Delivery, claim: Box<dyn Claim>) {
        let reason = Reason::Abandoned;
        let message = format!(
            "{} workers died while they had this session: look into their logs before you send it again",
            delivery.takeovers
        );
        tracing::error!(%session, "{message}");
        let body = EventBody::Finished {
            outcome: refused(session::failure::Failure::new(reason, message.clone())),
        };
        let event = Event::now(&self.rooms.worker, session, delivery.attempt, 1, body);
        if let Err(error) = self.queue.publish(&event).await {
            tracing::warn!(%session, %error, "the end of an abandoned session was not published; its task comes again");
            settle(delivery, Settle::Return).await;
            return;
        }
        let code = reason.as_str().to_owned();
        settle(delivery, Settle::DeadLetter { code, message }).await;
        close(session, claim).await;
    }

    /// A session that this worker owns.
    async fn own(&self, task: Task, delivery: Delivery, mut claim: Box<dyn Claim>) {
        let session = task.session;
        let mut mask = self.mask.clone();
        let secrets = session::admit::credentials(&self.rooms, &task);
        for secret in secrets.iter().flat_map(|secrets| secrets.values()) {
            mask.add(secret);
        }
        let progress = Arc::new(Progress::new(
            self.queue.clone(),
            &self.rooms.worker,
            session,
            delivery.attempt,
            mask,
            &self.rooms.progress,
        ));
        progress
            .state(EventBody::Claimed {
                worker: self.rooms.worker.clone(),
            })
            .await;
        settle(delivery, Settle::Ack).await;

        let steering = Steering::of(claim.holds());
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(session, steering.clone());
        let outcome = match secrets {
            Ok(secrets) => {
                // In a task of its own: a bug that panics costs this session, not the worker.
                let (rooms, own_progress, own_steering) = (self.rooms.clone(), progress.clone(), steering.clone());
                let mut running =
                    tokio::spawn(
                        async move { session::run(&rooms, &task, secrets, &own_progress, &own_steering).await },
                    );
                loop {
                    tokio::select! {
                        ended = &mut running => break ended.unwrap_or_else(|error| bug(&error)),
                        control = claim.next_control(), if steering.cause() != Some(Cause::OwnershipLost) => match control {
                            Some(body) => apply(&body, &steering, &progress).await,
                            None => {
                                tracing::warn!(%session, "the session is owned elsewhere; it stops here");
                                steering.stop(Cause::OwnershipLost);
                            }
                        },
                    }
                }
            }
            Err(failure) => refused(failure),
        };
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&session);
        if steering.cause() == Some(Cause::OwnershipLost) {
            return;
        }
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

    async fn reap_regularly(self: Arc<Self>) {
        let mut clock = tokio::time::interval(REAP_EVERY);
        loop {
            clock.tick().await;
            reap::sandboxes(&self.rooms).await;
        }
    }
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

/// Applies a control message and answers it by an event.
async fn apply(body: &[u8], steering: &Steering, progress: &Progress) {
    const ENDING: &str = "the session is ending already";
    let stop = |cause, said: &str| {
        let first = steering.stop(cause);
        Some((first, if first { said } else { ENDING }.to_owned()))
    };
    // An order is answered by the session, when it is done.
    let order = |id: &str, kind| {
        let id = id.to_owned();
        let refused = "the session is ending, or too many orders wait already";
        (!steering.order(Order { id, kind })).then(|| (false, refused.to_owned()))
    };
    let (in_reply_to, answer) = match Control::parse(body) {
        Ok(Control { id, kind, .. }) => {
            let answer = match kind {
                ControlKind::Prompt { text, mode } => order(&id, OrderKind::Prompt { text, mode }),
                ControlKind::AddProject {
                    connection,
                    path,
                    base,
                    new_connection,
                } => {
                    let project = ProjectRequest { connection, path, base };
                    order(
                        &id,
                        OrderKind::AddProject {
                            project,
                            new_connection,
                        },
                    )
                }
                ControlKind::CancelTurn => stop(Cause::Publish, "the turn is stopped; what was committed is published"),
                ControlKind::End { publish: true } => {
                    stop(Cause::Publish, "the session ends; what was committed is published")
                }
                ControlKind::End { publish: false } => stop(Cause::Discard, "the session ends; nothing is published"),
                ControlKind::Credential { connection, credential } => {
                    order(&id, OrderKind::Credential { connection, credential })
                }
                ControlKind::Disconnect { connection } => order(&id, OrderKind::Disconnect { connection }),
                ControlKind::Answer {
                    connection,
                    path,
                    publish,
                } => {
                    let project = ProjectKey { connection, path };
                    order(&id, OrderKind::Answer { project, publish })
                }
            };
            (id, answer)
        }
        Err(error) => (String::new(), Some((false, error.to_string()))),
    };
    let Some((applied, message)) = answer else { return };
    progress
        .state(EventBody::ControlAnswered {
            in_reply_to,
            applied,
            message,
        })
        .await;
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
