//! What a session holds to tell what happens: ordered events, counted, masked, cleaned, through a bounded outbox.
//!
//! State events are never dropped: whoever emits waits. Token-level progress is joined, sent at most about four times a second, and dropped
//! first; how much is told. One background task per session, asleep while there is nothing to send.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::message::{EventBody, SessionId, TraceParent};
use crate::queue::Queue;
use crate::secret::{Mask, Secret};

mod outbox;
mod pump;
mod scrub;

#[cfg(test)]
mod tests;

use outbox::Outbox;

/// How patient a session is with a broker that is away.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long the last event of a session is tried while the broker is away, in seconds.
    pub final_event_limit_s: u64,
    /// State events that wait for the broker before the session waits too.
    pub waiting_events: u16,
    /// Bytes of progress (what an agent says, thinks and does) that one session may send in all; more is dropped and counted.
    pub most_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            final_event_limit_s: 120,
            waiting_events: 256,
            most_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Why the end of a session could not be told.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProgressError {
    /// The broker did not confirm the last event in time.
    #[error("the final event was not confirmed within {limit_s} s: {detail}")]
    Finish {
        /// The limit.
        limit_s: u64,
        /// What the last attempt met.
        detail: String,
    },
    /// The session's last event was given before.
    #[error("the session has ended already")]
    Ended,
}

/// A session's way to tell what happens. Cheap to call; share it by reference or `Arc`.
#[derive(Debug)]
pub struct Progress {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    /// Until when the pump tries; `None` while the session runs.
    deadline: watch::Sender<Option<Instant>>,
    limit: Duration,
}

#[derive(Debug)]
struct Shared {
    outbox: Mutex<Outbox>,
    mask: Mutex<Mask>,
    wake: Notify,
    /// What the last failed attempt met.
    trouble: Mutex<String>,
    /// The control messages that were answered, the last ones, and whether they were applied.
    answers: Mutex<VecDeque<(String, bool)>>,
    /// The trace of all events from now on.
    trace: OnceLock<TraceParent>,
}

/// Answers that are remembered.
const ANSWERS: usize = 1000;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    /// Starts the session's outbox. Needs a running tokio.
    #[must_use]
    pub fn new(
        queue: Arc<dyn Queue>,
        worker: &str,
        session: SessionId,
        attempt: u32,
        mask: Mask,
        config: &Config,
    ) -> Self {
        let shared = Arc::new(Shared {
            outbox: Mutex::new(Outbox::bounded(config.most_bytes)),
            mask: Mutex::new(mask),
            wake: Notify::new(),
            trouble: Mutex::new("the broker did not answer".into()),
            answers: Mutex::default(),
            trace: OnceLock::new(),
        });
        let deadline = watch::Sender::new(None);
        let pump = pump::Pump {
            queue,
            shared: Arc::clone(&shared),
            deadline: deadline.subscribe(),
            worker: worker.to_owned(),
            session,
            attempt,
            seq: 0,
        };
        tokio::spawn(pump.run());
        Self {
            shared,
            room: Arc::new(Semaphore::new(usize::from(config.waiting_events.max(1)))),
            deadline,
            limit: Duration::from_secs(config.final_event_limit_s),
        }
    }

    /// Events belong to this trace. Once, before the first of them.
    #[must_use]
    pub fn traced(self, trace: Option<TraceParent>) -> Self {
        if let Some(trace) = trace {
            // It is set once.
            let _ = self.shared.trace.set(trace);
        }
        self
    }

    /// Masks one more secret from now on.
    pub fn mask_also(&self, secret: &Secret) {
        locked(&self.shared.mask).add(secret);
    }

    /// A text without the secrets that are known now, for what travels outside an event.
    #[must_use]
    pub fn masked(&self, text: &str) -> String {
        locked(&self.shared.mask).apply(text)
    }

    /// Emits a state event: in order, never dropped. Waits while too many wait for the broker already; does not wait for the confirm.
    pub async fn state(&self, body: EventBody) {
        if let EventBody::ControlAnswered {
            in_reply_to, applied, ..
        } = &body
        {
            self.shared.note_answer(in_reply_to, *applied);
        }
        // The semaphore is never closed.
        let room = Arc::clone(&self.room).acquire_owned().await.ok();
        self.shared
            .push(|outbox, mask| outbox.push_state(body, room, None, mask));
    }

    /// Whether a control message was applied, where it was answered already.
    #[must_use]
    pub fn answered(&self, id: &str) -> Option<bool> {
        let answers = locked(&self.shared.answers);
        answers
            .iter()
            .find_map(|(known, applied)| (known == id).then_some(*applied))
    }

    /// Notes progress: joined with its like, sent soon, dropped when there is too much.
    pub fn note(&self, body: EventBody) {
        self.shared.push(|outbox, mask| outbox.push_note(body, mask));
    }

    /// Emits the session's last event and waits until the broker confirmed it and all before it. Nothing is emitted after it. When the broker
    /// stays away longer than the configured limit, this gives up with what it met.
    pub async fn finish(&self, body: EventBody) -> Result<(), ProgressError> {
        let (confirmed, confirmation) = oneshot::channel();
        let deadline = Instant::now() + self.limit;
        let taken = self.shared.push(|outbox, mask| {
            let open = !outbox.is_closed();
            outbox.push_state(body, None, Some(confirmed), mask);
            outbox.close();
            open
        });
        if !taken {
            return Err(ProgressError::Ended);
        }
        self.deadline.send_replace(Some(deadline));
        match timeout_at(deadline, confirmation).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ProgressError::Finish {
                limit_s: self.limit.as_secs(),
                detail: locked(&self.shared.trouble).clone(),
            }),
        }
    }
}

impl Shared {
    fn note_answer(&self, id: &str, applied: bool) {
        let mut answers = locked(&self.answers);
        answers.retain(|(known, _)| known != id);
        answers.push_back((id.to_owned(), applied));
        if answers.len() > ANSWERS {
            answers.pop_front();
        }
    }

    fn push<T>(&self, push: impl FnOnce(&mut Outbox, &Mask) -> T) -> T {
        // Always in this order: outbox, then mask.
        let mut outbox = locked(&self.outbox);
        let pushed = push(&mut outbox, &locked(&self.mask));
        drop(outbox);
        self.wake.notify_one();
        pushed
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // A session that ends without a last event still gets its queue emptied, for a while.
        locked(&self.shared.outbox).close();
        let limit = self.limit;
        self.deadline.send_if_modified(|deadline| {
            let unset = deadline.is_none();
            if unset {
                *deadline = Some(Instant::now() + limit);
            }
            unset
        });
        self.shared.wake.notify_one();
    }
}
