//! Hears from the engine when the kernel killed something in a container for memory (PID 1 lives on then, and nothing else tells it), and when
//! a container ended.
//!
//! The engine tells an end in more than one way, and each has been seen to stay away: so its events are heard, and it is asked in between which
//! containers have ended. One subscription and one question for all of a worker's containers: a subscription and a call that waits for each
//! would be two connections and 70 KB for as long as a session lives. What `inside` says is not asked, because it is not believed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, EventMessage};
use bollard::query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder};
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Pause before a broken subscription is made anew.
const PAUSE: Duration = Duration::from_secs(1);
/// By how much the machine's clock may be set back while a sandbox runs. Its name is its own, so no event before its start can be meant.
const CLOCK_SLACK: i128 = 300 * 1_000_000_000;
/// Pause between two looks at what has ended.
const LOOK: Duration = Duration::from_secs(3);
/// How long one look may take, and the beginning of a subscription.
const LIMIT: Duration = Duration::from_secs(30);
/// So much is asked for again after a break: what happens at once may be told in another order.
const AGAIN: i128 = 1_000_000_000;
/// So many events are known again when they are repeated. The engine itself remembers 256.
const REMEMBERED: usize = 256;
/// Of a container whose end was told without its status.
const UNKNOWN_STATUS: i64 = -1;

/// What all containers of an engine's worker share.
#[derive(Default)]
pub(super) struct Events {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    /// By the container's name.
    watched: Mutex<HashMap<String, Told>>,
    /// The connection agreed on last.
    client: Mutex<Option<Docker>>,
    /// When a subscription broke last, or could not be made.
    broken: Mutex<Option<Instant>>,
}

/// Where what was heard of one container is told.
struct Told {
    kills: watch::Sender<u64>,
    died: watch::Sender<Option<i64>>,
}

/// What is heard of one container, until it is dropped.
pub(super) struct EventWatch {
    shared: Arc<Shared>,
    container: String,
    begun: Instant,
    kills: watch::Receiver<u64>,
    died: watch::Receiver<Option<i64>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Events {
    /// Listens for this container from now on. `label` is what all of the worker's containers bear.
    pub(super) fn watch(&self, client: Docker, label: &str, container: String) -> EventWatch {
        let (kills_told, kills) = watch::channel(0);
        let (died_told, died) = watch::channel(None);
        let told = Told {
            kills: kills_told,
            died: died_told,
        };
        locked(&self.shared.watched).insert(container.clone(), told);
        *locked(&self.shared.client) = Some(client);
        let mut task = locked(&self.task);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            let (shared, label) = (self.shared.clone(), label.to_owned());
            *task = Some(tokio::spawn(async move {
                tokio::join!(listen(&shared, &label), look(&shared, &label));
            }));
        }
        EventWatch {
            shared: self.shared.clone(),
            container,
            begun: Instant::now(),
            kills,
            died,
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some(task) = locked(&self.task).take() {
            task.abort();
        }
    }
}

impl EventWatch {
    /// Whether the engine ended a subscription, or gave none, within that time and since this began: as one does that stops.
    pub(super) fn broke_within(&self, time: Duration) -> bool {
        locked(&self.shared.broken).is_some_and(|at| at >= self.begun && at.elapsed() <= time)
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
            // What tells it goes only when this is dropped.
            None => std::future::pending().await,
        }
    }
}

impl Drop for EventWatch {
    fn drop(&mut self) {
        locked(&self.shared.watched).remove(&self.container);
    }
}

/// What was heard so far: a new subscription goes on from there, and what it repeats is not told twice.
struct Heard {
    latest: i128,
    last: VecDeque<(i128, Option<String>, Option<String>)>,
}

impl Heard {
    /// Whether this is new.
    fn is_news(&mut self, event: &EventMessage) -> bool {
        let at = i128::from(event.time_nano.unwrap_or_default());
        let whose = event.actor.as_ref().and_then(|actor| actor.id.clone());
        let one = (at, whose, event.action.clone());
        if self.last.contains(&one) {
            return false;
        }
        self.latest = self.latest.max(at);
        self.last.truncate(REMEMBERED - 1);
        self.last.push_front(one);
        true
    }
}

/// Subscribes again whenever the subscription breaks.
async fn listen(shared: &Shared, label: &str) {
    let mut heard = Heard {
        latest: jiff::Timestamp::now().as_nanosecond() - CLOCK_SLACK,
        last: VecDeque::new(),
    };
    loop {
        let client = locked(&shared.client).clone();
        if let Some(client) = client {
            hear(&client, label, &mut heard, shared).await;
        }
        *locked(&shared.broken) = Some(Instant::now());
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks which containers have ended, as long as any is watched. After a break of the subscription also which are gone: an engine that comes back
/// remembers no event.
async fn look(shared: &Shared, label: &str) {
    let mut looked_for_gone = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let watched: Vec<String> = locked(&shared.watched).keys().cloned().collect();
        let client = locked(&shared.client).clone();
        let (Some(client), false) = (client, watched.is_empty()) else {
            continue;
        };
        let broken = *locked(&shared.broken);
        let is_after_break = broken != looked_for_gone;
        let mut filters = HashMap::from([("label", vec![label])]);
        if !is_after_break {
            filters.insert("status", vec!["exited", "dead"]);
        }
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        // An engine that is away is no end; a call that hangs holds up nothing but this.
        let Ok(Ok(listed)) = tokio::time::timeout(LIMIT, client.list_containers(Some(options))).await else {
            continue;
        };
        let has_ended = |state: Option<ContainerSummaryStateEnum>| {
            matches!(
                state,
                Some(ContainerSummaryStateEnum::EXITED | ContainerSummaryStateEnum::DEAD)
            )
        };
        let (ended, living): (Vec<_>, Vec<_>) = listed.into_iter().partition(|one| has_ended(one.state));
        let names = |of: Vec<ContainerSummary>| -> HashSet<String> {
            let names = of.into_iter().flat_map(|one| one.names.unwrap_or_default());
            names.map(|name| name.trim_start_matches('/').to_owned()).collect()
        };
        let (ended, living) = (names(ended), names(living));
        for name in watched {
            if ended.contains(&name) || (is_after_break && !living.contains(&name)) {
                over(shared, &name, UNKNOWN_STATUS);
            }
        }
        looked_for_gone = broken;
    }
}

/// Tells the end of one, unless it was told.
fn over(shared: &Shared, name: &str, status: i64) {
    if let Some(told) = locked(&shared.watched).get(name) {
        told.died.send_if_modified(|died| {
            let is_news = died.is_none();
            died.get_or_insert(status);
            is_news
        });
    }
}

/// One subscription, until it breaks.
async fn hear(client: &Docker, label: &str, heard: &mut Heard, shared: &Shared) {
    let since = heard.latest - AGAIN;
    let filters = HashMap::from([("label", vec![label]), ("event", vec!["oom", "die", "destroy"])]);
    let options = EventsOptionsBuilder::default()
        .since(&format!("{}.{:09}", since / 1_000_000_000, since % 1_000_000_000))
        .filters(&filters)
        .build();
    // The limit is for the answer's beginning: an engine that takes a connection and says nothing must not make all sessions deaf.
    let mut events = Box::pin(client.clone().with_timeout(LIMIT).events(Some(options)));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if heard.is_news(&event) {
                    tell(&event, shared);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the engine's events broke off; listening again");
                return;
            }
        }
    }
}

fn tell(event: &EventMessage, shared: &Shared) {
    let Some(attributes) = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref()) else {
        return;
    };
    let Some(name) = attributes.get("name") else { return };
    match event.action.as_deref() {
        Some("oom") => {
            if let Some(told) = locked(&shared.watched).get(name) {
                told.kills.send_modify(|kills| *kills += 1);
            }
        }
        Some("die" | "destroy") => {
            let status = attributes.get("exitCode").and_then(|status| status.parse().ok());
            over(shared, name, status.unwrap_or(UNKNOWN_STATUS));
        }
        Some(_) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn event(at: i64, whose: &str) -> EventMessage {
        EventMessage {
            action: Some("oom".into()),
            time_nano: Some(at),
            actor: Some(EventActor {
                id: Some(whose.into()),
                ..EventActor::default()
            }),
            ..EventMessage::default()
        }
    }

    #[test]
    fn what_is_repeated_is_no_news_and_what_comes_late_is() {
        let mut heard = Heard {
            latest: 0,
            last: VecDeque::new(),
        };
        assert!(heard.is_news(&event(7, "one")));
        assert!(heard.is_news(&event(7, "two")) && heard.is_news(&event(5, "three")));
        assert!(!heard.is_news(&event(5, "three")) && !heard.is_news(&event(7, "one")));
        assert_eq!(heard.latest, 7);
        for at in 8..1000 {
            assert!(heard.is_news(&event(at, "one")));
        }
        assert_eq!(heard.last.len(), REMEMBERED);
    }
}
