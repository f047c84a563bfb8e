//! Hears from the engine when the kernel killed something in a container for memory (PID 1 lives on then, and nothing else tells it), and when
//! a container ended.
//!
//! One subscription for each container, filtered by the engine: a container that is killed in all the time costs its own session only, and the
//! subscription ends with it. What `inside` says is not asked, because it is not believed.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Pause before a broken subscription is made anew.
const PAUSE: Duration = Duration::from_secs(1);

/// A subscription that ends when it is dropped.
#[derive(Debug)]
pub(super) struct EventWatch {
    kills: watch::Receiver<u64>,
    died: watch::Receiver<Option<i64>>,
    task: JoinHandle<()>,
}

/// Where what was heard is told.
struct Told {
    kills: watch::Sender<u64>,
    died: watch::Sender<Option<i64>>,
}

impl EventWatch {
    /// Listens from now on.
    pub(super) fn start(client: Docker, container: String) -> Self {
        let (kills_told, kills) = watch::channel(0);
        let (died_told, died) = watch::channel(None);
        let told = Told {
            kills: kills_told,
            died: died_told,
        };
        let task = tokio::spawn(async move {
            let began = jiff::Timestamp::now().as_nanosecond();
            let mut since = began;
            loop {
                listen(&client, &container, &mut since, &told).await;
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { kills, died, task }
    }

    /// How often something was killed so far.
    pub(super) fn kills(&self) -> watch::Receiver<u64> {
        self.kills.clone()
    }

    /// Waits until the container ended; says with which status. Cancel-safe.
    pub(super) async fn died(&self) -> i64 {
        let mut died = self.died.clone();
        let status = died.wait_for(Option::is_some).await.ok().map(|status| *status);
        match status {
            Some(status) => status.unwrap_or(UNKNOWN_STATUS),
            // The task ends only when this is dropped.
            None => std::future::pending().await,
        }
    }
}

/// Of a container whose end was told without its status.
const UNKNOWN_STATUS: i64 = -1;

impl Drop for EventWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One subscription, until it breaks. `since` goes on from what was heard, so that a new one repeats and misses nothing.
async fn listen(client: &Docker, container: &str, since: &mut i128, told: &Told) {
    let filters = HashMap::from([("container", vec![container]), ("event", vec!["oom", "die"])]);
    let options = EventsOptionsBuilder::default()
        .since(&format!("{}.{:09}", *since / 1_000_000_000, *since % 1_000_000_000))
        .filters(&filters)
        .build();
    let mut events = Box::pin(client.events(Some(options)));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let at = i128::from(event.time_nano.unwrap_or_default());
                // The engine repeats what happened in the very moment that is asked for.
                if at >= *since {
                    *since = at + 1;
                    tell(&event, told);
                }
            }
            Err(error) => {
                tracing::debug!(%error, container, "the engine's events broke off; listening again");
                return;
            }
        }
    }
}

fn tell(event: &EventMessage, told: &Told) {
    match event.action.as_deref() {
        Some("oom") => told.kills.send_modify(|kills| *kills += 1),
        Some("die") => {
            let attributes = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
            let status = attributes.and_then(|attributes| attributes.get("exitCode")?.parse().ok());
            told.died.send_replace(Some(status.unwrap_or(UNKNOWN_STATUS)));
        }
        Some(_) | None => {}
    }
}
