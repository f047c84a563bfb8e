//! The background task of a session's outbox: counts, publishes, repeats what must arrive.
//!
//! Never wakes up by itself when there is nothing to send. Ends when the outbox is closed and empty, or at the deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::outbox::{Next, Waiting};
use super::{Shared, locked, scrub};
use crate::message::{Event, EventBody, SessionId};
use crate::queue::Queue;

/// Between two sendings of progress.
const INTERVAL: Duration = Duration::from_millis(250);
/// Events of one sending before states get another look.
const BATCH: usize = 64;
/// First pause before a state event is tried again; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Pump {
    pub(super) queue: Arc<dyn Queue>,
    pub(super) shared: Arc<Shared>,
    pub(super) deadline: watch::Receiver<Option<Instant>>,
    pub(super) worker: String,
    pub(super) session: SessionId,
    pub(super) attempt: u32,
    pub(super) seq: u64,
}

impl Pump {
    pub(super) async fn run(mut self) {
        let mut deadline = self.deadline.clone();
        tokio::select! {
            () = self.pump() => {}
            () = reached(&mut deadline) => {
                tracing::warn!(session = %self.session, "events were left when the time for the last one was over");
            }
        }
    }

    async fn pump(&mut self) {
        let mut not_before = Instant::now();
        loop {
            let shared = Arc::clone(&self.shared);
            let (waiting, closed) = {
                let outbox = locked(&shared.outbox);
                (outbox.waiting(&locked(&shared.mask)), outbox.is_closed())
            };
            match waiting {
                Waiting::Nothing if closed => return,
                Waiting::Nothing => shared.wake.notified().await,
                Waiting::Notes if !closed && Instant::now() < not_before => {
                    tokio::select! {
                        () = sleep_until(not_before) => {}
                        () = shared.wake.notified() => {}
                    }
                }
                Waiting::Notes | Waiting::States => {
                    self.send_some().await;
                    not_before = Instant::now() + INTERVAL;
                }
            }
        }
    }

    async fn send_some(&mut self) {
        for _ in 0..BATCH {
            let next = {
                let mut outbox = locked(&self.shared.outbox);
                outbox.next(&locked(&self.shared.mask))
            };
            match next {
                Some(Next::Note(body)) => self.note(body).await,
                Some(Next::State { body, room, confirmed }) => {
                    self.state(body).await;
                    drop(room);
                    if let Some(confirmed) = confirmed {
                        // Nobody may be waiting any more.
                        let _ = confirmed.send(());
                    }
                }
                None => return,
            }
        }
    }

    fn event(&mut self, body: EventBody) -> Event {
        self.seq += 1;
        let mut event = Event::now(&self.worker, self.session, self.attempt, self.seq, body);
        event.trace = self.shared.trace.get().copied();
        event
    }

    async fn note(&mut self, body: EventBody) {
        let event = self.event(body);
        if let Err(error) = self.queue.publish(&event).await {
            tracing::debug!(session = %self.session, %error, "progress was dropped");
            locked(&self.shared.outbox).count_dropped(scrub::size(&event.data.body));
        }
    }

    /// The same event each time, so that consumers recognise a second one.
    async fn state(&mut self, body: EventBody) {
        let event = self.event(body);
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.queue.publish(&event).await {
            tracing::warn!(session = %self.session, event = event.id, %error, "an event is not confirmed, trying again");
            *locked(&self.shared.trouble) = error.to_string();
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

async fn reached(deadline: &mut watch::Receiver<Option<Instant>>) {
    let until = match deadline.wait_for(Option::is_some).await {
        Ok(until) => *until,
        // Set before the sender goes.
        Err(_) => None,
    };
    if let Some(until) = until {
        sleep_until(until).await;
    }
}
