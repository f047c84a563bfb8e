//! How many sessions a worker takes before it ends by itself, and how long it waits for one. Counts only; ends nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::message::outcome::Outcome;

/// When a worker ends by itself; by default never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modes {
    /// After so many sessions.
    pub max_sessions: Option<u64>,
    /// When no task came for that long and none runs.
    pub idle_timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Deliveries in hand, whatever becomes of them.
    in_hand: u64,
    /// Deliveries that came so far.
    came: u64,
    /// Sessions that ended here.
    ended: u64,
    /// How the last of them ended.
    last: Option<Outcome>,
}

/// The counts of one worker.
#[derive(Debug, Default)]
pub(super) struct Quota {
    modes: Modes,
    counts: watch::Sender<Counts>,
}

/// A delivery in hand, until this is dropped.
pub(super) struct InHand(Arc<Quota>);

impl Quota {
    pub(super) fn of(modes: Modes) -> Arc<Self> {
        Arc::new(Self {
            modes,
            counts: watch::Sender::default(),
        })
    }

    /// Waits until another delivery may be asked for: one that is in hand may yet be a session. Cancel-safe.
    pub(super) async fn room(&self) {
        let Some(most) = self.modes.max_sessions else { return };
        let mut counts = self.counts.subscribe();
        let _ = counts.wait_for(|counts| counts.in_hand + counts.ended < most).await;
    }

    /// A delivery came.
    pub(super) fn took(self: &Arc<Self>) -> InHand {
        self.counts.send_modify(|counts| {
            counts.in_hand += 1;
            counts.came += 1;
        });
        InHand(Arc::clone(self))
    }

    /// A session ended here; `None` when it is another's now, or nobody can know.
    pub(super) fn ended(&self, outcome: Option<Outcome>) {
        self.counts.send_modify(|counts| {
            counts.ended += 1;
            counts.last = outcome;
        });
    }

    /// How the last session ended here.
    pub(super) fn last(&self) -> Option<Option<Outcome>> {
        let counts = *self.counts.borrow();
        (counts.ended > 0).then_some(counts.last)
    }

    /// Waits until the worker has done its part; says why.
    pub(super) async fn done(&self) -> &'static str {
        tokio::select! {
            () = self.spent() => "the sessions that were asked for are done",
            () = self.idle() => "no task came for the time that was given",
        }
    }

    async fn spent(&self) {
        let mut counts = self.counts.subscribe();
        match self.modes.max_sessions {
            Some(most) => {
                let _ = counts
                    .wait_for(|counts| counts.ended >= most && counts.in_hand == 0)
                    .await;
            }
            None => std::future::pending().await,
        }
    }

    async fn idle(&self) {
        let Some(limit) = self.modes.idle_timeout else {
            return std::future::pending().await;
        };
        let mut counts = self.counts.subscribe();
        loop {
            let free = counts.wait_for(|counts| counts.in_hand == 0).await;
            // The sender lives as long as this.
            let came = free.map_or(0, |counts| counts.came);
            let busy = async {
                let _ = counts.wait_for(|counts| counts.came != came).await;
            };
            if tokio::time::timeout(limit, busy).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.counts.send_modify(|counts| counts.in_hand -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_delivery_counts_as_a_session_until_it_is_known_to_be_none() {
        let quota = Quota::of(Modes {
            max_sessions: Some(1),
            idle_timeout: None,
        });
        assert!(quota.room().now_or_never().is_some());
        let duplicate = quota.took();
        assert!(quota.room().now_or_never().is_none());
        drop(duplicate);
        assert!(quota.room().now_or_never().is_some());
        let session = quota.took();
        quota.ended(Some(Outcome::Failure));
        assert!(quota.done().now_or_never().is_none(), "its end is not over yet");
        drop(session);
        assert!(quota.done().now_or_never().is_some());
        assert!(quota.room().now_or_never().is_none());
        assert_eq!(quota.last(), Some(Some(Outcome::Failure)));
    }

    #[tokio::test]
    async fn idle_is_the_time_since_the_last_of_all_ended() {
        let limit = Duration::from_millis(300);
        let quota = Quota::of(Modes {
            max_sessions: None,
            idle_timeout: Some(limit),
        });
        let (working, busy) = (quota.clone(), limit * 3);
        let one = quota.took();
        // When the last one went: a busy machine may let the second come too late to be waited for.
        let last = Arc::new(std::sync::Mutex::new(None));
        let noted = last.clone();
        tokio::spawn(async move {
            let going = || *noted.lock().unwrap() = Some(std::time::Instant::now());
            tokio::time::sleep(busy).await;
            going();
            drop(one);
            // One that comes and goes between two looks counts as well.
            tokio::time::sleep(limit / 2).await;
            let two = working.took();
            going();
            drop(two);
        });
        quota.done().await;
        let last = last.lock().unwrap().expect("one was in hand");
        assert!(last.elapsed() >= limit);
        assert_eq!(quota.last(), None);
    }
}
