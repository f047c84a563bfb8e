//! `cofferdam run`: the daemon. Signals: the first SIGTERM or SIGINT drains, the second ends the sessions at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::compose::compose;
use super::notify;
use super::{Exit, log, show};
use crate::admin::socket::{Collected, Garbage, Operated, SessionStatus, Socket, Status};
use crate::admin::{Admin, Readiness};
use crate::config::Config;
use crate::metrics::{Recent, Told};
use crate::queue::Queue;
use crate::queue::rabbitmq::RabbitMq;
use crate::sandbox::EngineFacts;
use crate::session::steering::Cause;
use crate::worker::{Modes, Worker, reap};

/// How often the engine is asked whether it is there. After three failures in a row no task is taken.
const ENGINE_EVERY: Duration = Duration::from_secs(5);

/// When the daemon ends by itself.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct RunModes {
    /// Run one session, then end with its exit code.
    #[arg(long, conflicts_with = "max_sessions")]
    once: bool,
    /// End after so many sessions.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_sessions: Option<u64>,
    /// End when no task came for so many seconds and no session runs.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
    idle_timeout: Option<u64>,
}

impl RunModes {
    fn of_worker(self) -> Modes {
        Modes {
            max_sessions: self.once.then_some(1).or(self.max_sessions),
            idle_timeout: self.idle_timeout.map(Duration::from_secs),
        }
    }
}

/// Runs until it is told to stop, or has done what its modes ask for.
pub(super) async fn run(config: Config, modes: RunModes) -> Exit {
    let _kept = match log::as_json() {
        Ok(kept) => kept,
        Err(message) => {
            show::complain(&format!("traces cannot be exported: {message}"));
            return Exit::BadConfig;
        }
    };
    let composed = match compose(&config).await {
        Ok(composed) => composed,
        Err((exit, message)) => {
            show::complain(&message);
            return exit;
        }
    };
    log::remember(composed.rooms.metrics.recent.clone());
    let queue = match RabbitMq::start(&config.queue) {
        Ok(queue) => Arc::new(queue),
        Err(error) => {
            show::complain(&error.to_string());
            return Exit::BadConfig;
        }
    };
    let readiness = Arc::new(Readiness::default());
    readiness.require("the broker is away", {
        let queue = queue.clone();
        move || queue.is_connected()
    });
    readiness.require("the container engine is away", {
        let engine = composed.rooms.engine_health.clone();
        move || engine.is_fit()
    });
    readiness.require("the disk is nearly full", {
        let disk = composed.rooms.disk.clone();
        move || !disk.is_low()
    });
    let stop = CancellationToken::new();
    let admin = match Admin::start(&config.admin, composed.rooms.metrics.clone(), readiness.clone()).await {
        Ok(admin) => admin,
        Err(error) => {
            show::complain(&error.to_string());
            return Exit::BadConfig;
        }
    };
    tracing::info!(
        worker = composed.rooms.worker,
        broker = queue.address(),
        version = env!("CARGO_PKG_VERSION"),
        "worker started"
    );
    reap::Reaper::default().at_start(&composed.rooms).await;
    let runtimes = config
        .runtimes()
        .into_iter()
        .map(|(key, name)| (key, name.to_owned()))
        .collect();
    let watching = [
        tokio::spawn(watch(composed.rooms.clone(), queue.clone())),
        tokio::spawn(ask_engine(composed.rooms.clone(), runtimes)),
    ];

    let worker = Worker::new(
        composed.rooms.clone(),
        queue.clone(),
        config.concurrency,
        composed.mask.clone(),
        modes.of_worker(),
    );
    readiness.require("no more tasks are taken", {
        let worker = worker.clone();
        move || !worker.is_finishing()
    });
    let drain = Duration::from_secs(config.drain_s);
    let operator = Arc::new(Operator {
        worker: worker.clone(),
        readiness: readiness.clone(),
        stop: stop.clone(),
        name: composed.rooms.worker.clone(),
        slots: config.concurrency,
        since: jiff::Timestamp::now().as_second(),
        drain_s: config.drain_s,
        recent: composed.rooms.metrics.recent.clone(),
    });
    if let Some(admin) = &admin {
        admin.shows(operator.clone());
    }
    let socket = match Socket::start(&config.state_dir, operator.clone()) {
        Ok(socket) => socket,
        Err(error) => {
            show::complain(&error.to_string());
            return Exit::BadConfig;
        }
    };
    let signals = tokio::spawn(async move {
        let mut signals = StopSignals::new();
        signals.next().await;
        operator.drain();
        loop {
            signals.next().await;
            operator.hurry();
        }
    });
    notify::during(worker.run(stop.clone(), drain), || notify::Told {
        // Not the disk: a worker that waits for room is up.
        up: queue.is_connected() && composed.rooms.engine_health.is_fit(),
        stopping: stop.is_cancelled(),
        whole: !signals.is_finished() && !watching.iter().any(tokio::task::JoinHandle::is_finished),
        line: line_of(&worker, &readiness, config.concurrency),
    })
    .await;
    signals.abort();
    watching.iter().for_each(tokio::task::JoinHandle::abort);
    if let Some(admin) = admin {
        admin.stop(Duration::from_secs(2)).await;
    }
    composed.rooms.engine.leave().await;
    // Last: whoever waits for its end (`drain --wait`) waits for this.
    drop(socket);
    tracing::info!("worker stopped");
    match worker.last() {
        Some(Some(outcome)) if modes.once => show::exit_of(outcome),
        Some(None) if modes.once => Exit::Error,
        Some(_) | None => Exit::Success,
    }
}

/// The line that a service manager shows of the worker.
fn line_of(worker: &Worker, readiness: &Readiness, slots: usize) -> String {
    let running = worker.sessions().len();
    let state = match readiness.reasons().as_slice() {
        [] => "takes tasks".to_owned(),
        reasons => reasons.join(", "),
    };
    format!("{state}; {running} of {slots} sessions")
}

/// What an operator does to the worker, by signals and by the socket.
struct Operator {
    worker: Arc<Worker>,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
    name: String,
    slots: usize,
    since: i64,
    drain_s: u64,
    recent: Arc<Recent>,
}

#[async_trait::async_trait]
impl Operated for Operator {
    fn status(&self) -> Status {
        let sessions = self.worker.sessions().into_iter().map(|seen| SessionStatus {
            session: seen.session.to_string(),
            attempt: seen.attempt,
            stage: seen.stage.map(|(stage, _)| stage.as_str().to_owned()),
            stage_s: seen.stage.map_or(0, |(_, since)| since.elapsed().as_secs()),
            age_s: seen.since.elapsed().as_secs(),
            stopping: seen.stopping,
            waiting: seen.waiting,
        });
        Status {
            worker: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            since: self.since,
            not_ready: self.readiness.reasons().into_iter().map(str::to_owned).collect(),
            drain_s: self.drain_s,
            slots: self.slots,
            sessions: sessions.collect(),
        }
    }

    fn drain(&self) {
        if !self.stop.is_cancelled() {
            tracing::info!(drain_s = self.drain_s, "draining: no new task is taken");
            self.readiness.drain();
            self.stop.cancel();
        }
    }

    fn hurry(&self) {
        self.drain();
        tracing::info!("stopping at once: sessions end and keep their work");
        self.worker.stop_sessions(Cause::WorkerStopped);
    }

    fn told(&self, session: &str) -> Option<Told> {
        self.recent.of(session)
    }

    async fn collect(&self, only_list: bool) -> Collected {
        let collected = self.worker.collect(only_list).await;
        let found = collected.found.iter().map(|one| Garbage {
            kind: one.kind.to_owned(),
            what: one.what.clone(),
            why: one.why.to_owned(),
            removed: !collected.left.contains(one),
        });
        Collected {
            found: found.collect(),
            problems: collected.problems,
        }
    }
}

/// Keeps the broker's state known, and does the hourly work on mirrors and bundles.
async fn watch(rooms: Arc<crate::session::Rooms>, queue: Arc<RabbitMq>) {
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    let mut maintain_due = tokio::time::Instant::now() + Duration::from_secs(3600);
    let mut broker_was = None;
    loop {
        clock.tick().await;
        let broker = queue.is_connected();
        rooms.metrics.broker.connected(broker);
        if broker_was.replace(broker) != Some(broker) {
            tracing::info!(connected = broker, "broker");
        }
        if tokio::time::Instant::now() >= maintain_due {
            maintain_due = tokio::time::Instant::now() + Duration::from_secs(3600);
            if let Err(error) = rooms.repositories.maintain().await {
                tracing::warn!(%error, "mirrors could not be maintained");
            }
        }
    }
}

/// Asks the engine whether it is there, on a clock of its own: nothing else that takes long may hold this up.
async fn ask_engine(rooms: Arc<crate::session::Rooms>, runtimes: Vec<(String, String)>) {
    let mut clock = tokio::time::interval(ENGINE_EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told_away = false;
    loop {
        clock.tick().await;
        let answer = rooms.engine.ping().await;
        let changed = rooms.engine_health.note(answer.is_ok());
        rooms.metrics.sandboxes.engine(rooms.engine_health.is_fit());
        match (changed, answer) {
            (Some(true), _) => {
                told_away = false;
                match rooms.engine.check().await {
                    Ok(facts) => tell_engine(&facts, &runtimes),
                    Err(error) => tracing::warn!(%error, "the engine answers, but does not say what it is"),
                }
            }
            (Some(false) | None, Err(error)) if !rooms.engine_health.is_fit() => {
                if !told_away {
                    tracing::warn!(%error, "no task is taken: the engine is away");
                }
                told_away = true;
            }
            (Some(false) | None, Err(error)) => tracing::debug!(%error, "the engine did not answer"),
            (Some(false) | None, Ok(())) => {}
        }
    }
}

fn tell_engine(facts: &EngineFacts, runtimes: &[(String, String)]) {
    tracing::info!(
        version = facts.version,
        api = facts.api,
        runtime = facts.runtime,
        "engine"
    );
    for (key, runtime) in runtimes.iter().filter(|(_, name)| !facts.runtimes.contains(name)) {
        tracing::warn!(
            key,
            runtime,
            "the engine lacks this runtime: sessions that ask for it are refused"
        );
    }
}

/// SIGTERM and SIGINT, each one heard, also those that come between two questions.
pub(super) struct StopSignals(Option<(Signal, Signal)>);

impl StopSignals {
    pub(super) fn new() -> Self {
        let both = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        match both {
            (Ok(terminate), Ok(interrupt)) => Self(Some((terminate, interrupt))),
            // Without handlers the default action ends the process, which is what a signal asks for.
            _ => Self(None),
        }
    }

    /// Waits for the next one. Cancel-safe.
    pub(super) async fn next(&mut self) {
        let Some((terminate, interrupt)) = &mut self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
