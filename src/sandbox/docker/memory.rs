//! Hears from the engine when the kernel killed something in a container for memory: PID 1 lives on then, and nothing else tells it.
//!
//! One subscription for each container, filtered by the engine: a container that is killed in all the time costs its own session only, and the
//! subscription ends with it. What `inside` says is not asked, because it is not believed.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Pause before a broken subscription is made anew.
const PAUSE: Duration = Duration::from_secs(1);

/// A subscription that ends when it is dropped.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    kills: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl MemoryWatch {
    /// Listens from now on.
    pub(super) fn start(client: Docker, container: String) -> Self {
        let (told, kills) = watch::channel(0);
        let task = tokio::spawn(async move {
            let began = jiff::Timestamp::now().as_nanosecond();
            let mut since = began;
            loop {
                listen(&client, &container, &mut since, &told).await;
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { kills, task }
    }

    /// How often something was killed so far.
    pub(super) fn kills(&self) -> watch::Receiver<u64> {
        self.kills.clone()
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One subscription, until it breaks. `since` goes on from what was heard, so that a new one repeats and misses nothing.
async fn listen(client: &Docker, container: &str, since: &mut i128, told: &watch::Sender<u64>) {
    let filters = HashMap::from([("container", vec![container]), ("event", vec!["oom"])]);
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
                    told.send_modify(|kills| *kills += 1);
                }
            }
            Err(error) => {
                tracing::debug!(%error, container, "the engine's events broke off; listening again");
                return;
            }
        }
    }
}
