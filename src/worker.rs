//! The loop: a slot, a delivery, a claim, a session, an outcome. And the end: drain, then teardown.
//!
//! Never knows what a session does. A delivery is settled as soon as its session is claimed, so it is never held while an agent works.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::message::event::Stage;
use crate::message::outcome::Outcome;
use crate::message::{ForgeKind, Reason, SessionId};
use crate::progress::Progress;
use crate::queue::{Delivery, Queue, Settle};
use crate::secret::Mask;
use crate::session::steering::{Cause, Steering};
use crate::session::{self, Rooms};

mod controls;
mod counted;
pub mod gc;
mod handover;
mod noting;
mod own;
mod quota;
pub mod reap;
mod slot;
mod suspend;
mod take;
mod trace;

pub use quota::Modes;
use quota::Quota;
use slot::Slots;

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
    /// A session is gone from among the running ones.
    gone: Notify,
    quota: Arc<Quota>,
    /// No task is taken any more, whoever decided that.
    finishing: AtomicBool,
    /// It takes what is queued: also a session that begins anew. Who does one task only leaves nothing to others.
    running_on: AtomicBool,
    /// Why all sessions are stopped, also those that only just begin.
    stopping: OnceLock<Cause>,
    /// Known secrets of the worker itself, masked in every event.
    mask: Mask,
    /// One look at a time.
    reaper: tokio::sync::Mutex<reap::Reaper>,
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
        rooms.metrics.sessions.limit(concurrency);
        // Every series is there from the start, so that an alert sees the first failure.
        let reasons = Reason::ALL
            .iter()
            .map(|reason| (reason.result().as_str(), reason.as_str()));
        let agents = rooms.agents.keys().map(ToString::to_string);
        let sessions = &rooms.metrics.sessions;
        sessions.expect(agents, Stage::ALL.map(Stage::as_str), &reasons.collect::<Vec<_>>());
        sessions.expect_change_requests([ForgeKind::Gitlab, ForgeKind::Github].map(ForgeKind::as_str));
        rooms
            .metrics
            .gateway
            .expect_models(rooms.models.keys().map(AsRef::as_ref));
        let queue = Arc::new(counted::Counted::new(queue, rooms.metrics.clone()));
        let slots = Slots::of(concurrency, rooms.config.most_waiting, rooms.metrics.clone());
        Arc::new(Self {
            rooms,
            queue,
            slots,
            running: Mutex::new(HashMap::new()),
            gone: Notify::new(),
            quota: Quota::of(modes),
            finishing: AtomicBool::new(false),
            running_on: AtomicBool::new(false),
            stopping: OnceLock::new(),
            mask,
            reaper: tokio::sync::Mutex::default(),
        })
    }

    /// Takes tasks until `stop`, then lets sessions go on for `drain`, then ends them, keeping their work. Ends by itself as its modes say.
    pub async fn run(self: &Arc<Self>, stop: CancellationToken, drain: Duration) {
        let sessions = TaskTracker::new();
        self.running_on.store(true, Ordering::Relaxed);
        let reaper = tokio::spawn(self.clone().reap_regularly());
        self.look_at_disk().await;
        let disk = tokio::spawn(self.clone().look_at_disk_regularly());
        let enough = stop.child_token();
        let pool = tokio::spawn(session::pool::keep(self.rooms.clone(), enough.clone()));
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
        // What waits for a session waits in vain from here on.
        enough.cancel();
        done.abort();
        self.rooms.metrics.machine.draining(true);
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
        if tokio::time::timeout(TEARDOWN, pool).await.is_err() {
            tracing::error!("sandboxes that waited for sessions were not removed; the next worker removes them");
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

    fn progress(&self, session: SessionId, attempt: u32, mask: Mask) -> Progress {
        let (queue, worker) = (self.queue.clone(), &self.rooms.worker);
        Progress::new(queue, worker, session, attempt, mask, &self.rooms.progress)
    }

    /// Counts what is stored. A disk that does not answer says nothing.
    async fn measure(&self) {
        match self.rooms.repositories.measure().await {
            Ok(stored) => {
                let forges = &self.rooms.metrics.forges;
                forges.stored(stored.mirrors, stored.mirror_bytes, stored.bundles);
            }
            Err(error) => tracing::debug!(%error, "what is stored could not be counted"),
        }
    }

    async fn look_at_disk(&self) {
        if let Some(free) = self.rooms.disk.sample().await {
            let is_low = self.rooms.disk.is_low();
            self.rooms.metrics.machine.disk(free.size, free.bytes, is_low);
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
        let mut clock = tokio::time::interval(REAP_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            self.reap(&mut *self.reaper.lock().await).await;
            self.measure().await;
        }
    }

    async fn reap(&self, reaper: &mut reap::Reaper) {
        reaper.own(&self.rooms, &|session| self.put_away(session)).await;
        reaper.others(&self.rooms).await;
    }

    fn runs(&self, session: SessionId) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.contains_key(&session)
    }
}

async fn settle(delivery: Delivery, settle: Settle) {
    if let Err(error) = delivery.handle.settle(settle).await {
        // The broker hands it out again; a claim or a tombstone then drops the duplicate.
        tracing::warn!(%error, "a delivery was not settled");
    }
}
