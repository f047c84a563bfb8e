//! `cofferdam run`: the daemon. Signals: the first SIGTERM or SIGINT drains, the second ends the sessions at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::compose::compose;
use super::{Exit, log, show};
use crate::admin::{Admin, Readiness};
use crate::config::Config;
use crate::queue::Queue;
use crate::queue::rabbitmq::RabbitMq;
use crate::sandbox::EngineFacts;
use crate::session::steering::Cause;
use crate::worker::{Worker, reap};

/// How often the engine is asked whether it is there. After three failures in a row no task is taken.
const ENGINE_EVERY: Duration = Duration::from_secs(5);

/// Runs until it is told to stop.
pub(super) async fn run(config: Config) -> Exit {
    log::as_json();
    let composed = match compose(&config).await {
        Ok(composed) => composed,
        Err((exit, message)) => {
            show::complain(&message);
            return exit;
        }
    };
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

    let worker = Worker::new(composed.rooms.clone(), queue, config.concurrency, composed.mask.clone());
    let drain = Duration::from_secs(config.drain_s);
    let signals = tokio::spawn({
        let (worker, stop, readiness) = (worker.clone(), stop.clone(), readiness.clone());
        async move {
            stop_signal().await;
            tracing::info!(drain_s = drain.as_secs(), "draining: no new task is taken");
            readiness.drain();
            stop.cancel();
            stop_signal().await;
            tracing::info!("stopping at once: sessions end and keep their work");
            worker.stop_sessions(Cause::WorkerStopped);
        }
    });
    worker.run(stop.clone(), drain).await;
    signals.abort();
    watching.iter().for_each(tokio::task::JoinHandle::abort);
    if let Some(admin) = admin {
        admin.stop(Duration::from_secs(2)).await;
    }
    tracing::info!("worker stopped");
    Exit::Success
}

/// Keeps the broker's state known, and does the hourly work on mirrors and bundles.
async fn watch(rooms: Arc<crate::session::Rooms>, queue: Arc<RabbitMq>) {
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    let mut maintain_due = tokio::time::Instant::now() + Duration::from_secs(3600);
    let mut broker_was = None;
    loop {
        clock.tick().await;
        let broker = queue.is_connected();
        rooms.metrics.amqp_connected(broker);
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
        match (rooms.engine_health.note(answer.is_ok()), answer) {
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

/// Waits for SIGTERM or SIGINT.
pub(super) async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the default action ends the process, which is what a signal asks for.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
