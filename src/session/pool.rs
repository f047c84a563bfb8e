//! Sandboxes that are started before anybody asks for one: a session takes one and need not wait for the engine.
//!
//! Each is sealed as any other, has an identity of its own, and knows nothing of a session before it is taken: its gateway answers nothing. One
//! that was used is removed, never put back. How many are kept is `demand`'s decision.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::demand::Demand;
use super::failure::Failure;
use super::live::Live;
use super::{Rooms, tenant};

mod demand;

/// How old one may become that nobody takes: then it is replaced, because its deadline for other workers comes nearer.
const OLDEST: Duration = Duration::from_secs(3600);
/// How long one that was taken is not replaced while sessions run, which need the processors more: most have begun by then.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked meanwhile whether any session runs.
const PAUSE: Duration = Duration::from_millis(100);
/// How long after a failure that kind is not tried again, whoever asks for it; others do not wait for it.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(60);
/// How often it is looked for what died, became too old or is not wanted any more.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What makes a sandbox fit for a session; all else is the same for all sandboxes of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    image: String,
    /// What the image's name means at this moment.
    image_id: String,
    runtime: Option<String>,
}

impl Kind {
    pub(super) fn of(image: &str, image_id: String, runtime: Option<&str>) -> Self {
        Self {
            image: image.to_owned(),
            image_id,
            runtime: runtime.map(str::to_owned),
        }
    }
}

/// One that waits.
struct Ready {
    kind: Kind,
    since: Instant,
    live: Live,
}

#[derive(Default)]
struct State {
    ready: Vec<Ready>,
    demand: Demand,
    /// What could not be started lately, and when.
    failed: Vec<(Kind, Instant)>,
    /// The first claim that was not made good for yet.
    short_since: Option<Instant>,
    /// Whether anybody keeps it filled.
    is_kept: bool,
}

impl State {
    /// How many of which kind are to be ready. What could not be started lately takes no place of what can.
    fn wanted(&mut self, rooms: &Rooms, first: Option<&Kind>) -> Vec<(Kind, usize)> {
        self.failed.retain(|(_, at)| at.elapsed() < PAUSE_AFTER_FAILURE);
        for (kind, _) in &self.failed {
            self.demand.forget(kind);
        }
        self.demand.wanted(first, rooms.sandbox.warm, Instant::now())
    }
}

/// The sandboxes of a worker that wait for sessions.
#[derive(Default)]
pub struct Pool {
    state: Mutex<State>,
    claimed: Notify,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Pool(..)")
    }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of this kind, if one waits. Either way it is known from now on that the kind is asked for.
    pub(super) fn claim(&self, rooms: &Rooms, kind: &Kind) -> Option<Live> {
        let mut state = self.state();
        if !state.is_kept {
            drop(state);
            rooms.metrics.sandboxes.claimed(false);
            return None;
        }
        let now = Instant::now();
        state.demand.asked(kind, now);
        state.short_since.get_or_insert(now);
        let found = state
            .ready
            .iter()
            .position(|one| one.kind == *kind && one.live.is_well());
        let taken = found.map(|place| state.ready.remove(place).live);
        drop(state);
        self.count(rooms);
        rooms.metrics.sandboxes.claimed(taken.is_some());
        self.claimed.notify_one();
        taken
    }

    /// Keeps it filled until it is told to stop, then removes what waits. Nothing waits where `sandbox.warm` is 0.
    pub async fn keep(&self, rooms: &Rooms, stop: CancellationToken) {
        if rooms.sandbox.warm == 0 {
            return;
        }
        self.state().is_kept = true;
        let mut is_told = false;
        while !stop.is_cancelled() {
            if self.must_wait(rooms) {
                self.rest(&stop, PAUSE).await;
                continue;
            }
            let first = default_kind(rooms).await;
            self.remove_unfit(rooms, first.as_ref()).await;
            let Some(kind) = self.next(rooms, first.as_ref()) else {
                self.state().short_since = None;
                self.rest(&stop, LOOK_EVERY).await;
                continue;
            };
            match Self::start(rooms, &kind).await {
                Ok(None) => self.state().demand.forget(&kind),
                Ok(Some(live)) => {
                    is_told = false;
                    let since = Instant::now();
                    self.state().ready.push(Ready { kind, since, live });
                }
                Err(failure) => {
                    if !is_told {
                        tracing::warn!("no sandbox is kept ready: {}", failure.message);
                    }
                    is_told = true;
                    self.state().failed.push((kind, Instant::now()));
                }
            }
            self.count(rooms);
        }
        let left = {
            let mut state = self.state();
            state.is_kept = false;
            std::mem::take(&mut state.ready)
        };
        futures::future::join_all(left.into_iter().map(|one| close(one.live))).await;
        self.count(rooms);
    }

    /// Which kind is wanted most and not there, of those that did not fail lately, where the worker can carry one.
    fn next(&self, rooms: &Rooms, first: Option<&Kind>) -> Option<Kind> {
        if rooms.disk.is_low() || !rooms.engine_health.is_fit() {
            return None;
        }
        let mut state = self.state();
        let wanted = state.wanted(rooms, first);
        let has = |kind: &Kind| state.ready.iter().filter(|one| one.kind == *kind).count();
        let is_hopeless = |kind: &Kind| state.failed.iter().any(|(failed, _)| failed == kind);
        wanted
            .iter()
            .find(|(kind, count)| has(kind) < *count && !is_hopeless(kind))
            .map(|(kind, _)| kind.clone())
    }

    /// Whether one was taken only just and sessions run.
    fn must_wait(&self, rooms: &Rooms) -> bool {
        let state = self.state();
        let is_recent = state.short_since.is_some_and(|since| since.elapsed() < PATIENCE);
        is_recent && rooms.live_sandboxes.count() > state.ready.len()
    }

    async fn rest(&self, stop: &CancellationToken, time: Duration) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.claimed.notified() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// Starts one; none where the image's name means another by now.
    async fn start(rooms: &Rooms, kind: &Kind) -> Result<Option<Live>, Failure> {
        if rooms.engine.require_image(&kind.image).await? != kind.image_id {
            return Ok(None);
        }
        let mut live = Live::default();
        let made = live.make(rooms, &kind.image, kind.runtime.as_deref(), OLDEST).await;
        match made {
            Ok(()) => Ok(Some(live)),
            Err(failure) => {
                close(live).await;
                Err(failure)
            }
        }
    }

    /// Removes what died, became too old, is of another image by now, or is not wanted any more.
    async fn remove_unfit(&self, rooms: &Rooms, first: Option<&Kind>) {
        let unfit: Vec<Ready> = {
            let mut state = self.state();
            let wanted = state.wanted(rooms, first);
            let mut kept = Vec::new();
            let mut unfit = Vec::new();
            for one in std::mem::take(&mut state.ready) {
                let of_kind = kept.iter().filter(|other: &&Ready| other.kind == one.kind).count();
                let wants = wanted
                    .iter()
                    .find(|(kind, _)| *kind == one.kind)
                    .map_or(0, |(_, count)| *count);
                let is_fit = one.live.is_well() && one.since.elapsed() < OLDEST && of_kind < wants;
                if is_fit { kept.push(one) } else { unfit.push(one) }
            }
            state.ready = kept;
            unfit
        };
        futures::future::join_all(unfit.into_iter().map(|one| close(one.live))).await;
        self.count(rooms);
    }

    fn count(&self, rooms: &Rooms) {
        rooms.metrics.sandboxes.warm(self.state().ready.len());
    }
}

async fn close(live: Live) {
    live.close_sandbox(&"none").await;
}

/// What a session gets that asks for nothing special: one of these is kept even when nobody came for a while.
async fn default_kind(rooms: &Rooms) -> Option<Kind> {
    let agent = rooms.agents.get(rooms.default_agent.as_ref()?)?;
    let all = rooms.sandbox.runtime.as_deref();
    let runtime = tenant::runtime(&rooms.tenants, None, agent.runtime.as_deref(), all).ok()?;
    // Where the image is not fit, sessions say so.
    let image_id = rooms.engine.require_image(&agent.image).await.ok()?;
    Some(Kind::of(&agent.image, image_id, runtime))
}

/// For whoever keeps the pool in a task of its own.
pub async fn keep(rooms: Arc<Rooms>, stop: CancellationToken) {
    rooms.pool.keep(&rooms, stop).await;
}
