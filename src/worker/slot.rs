//! The slots of a worker: so many sessions work at a time, and some more may wait for people beside them. Counts only.
//!
//! A session that was waited for goes on at once, without a slot that is free: nobody's answer lies behind another session's hours. Until one
//! ends, no task is taken. So there are never more sessions, and never more sandboxes in memory, than may work and may wait together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::Worker;
use crate::metrics::{Awaits, Metrics};
use crate::queue::Delivery;
use crate::session::lending::Lend;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    working: usize,
    waiting: usize,
}

/// All slots of a worker.
#[derive(Debug)]
pub(super) struct Slots {
    counts: watch::Sender<Counts>,
    most_working: usize,
    most_waiting: usize,
    metrics: Arc<Metrics>,
}

/// One slot, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    all: Arc<Slots>,
    is_lent: AtomicBool,
    /// What its session waits for, whether it is lent or not.
    awaits: Mutex<Option<Awaits>>,
}

impl Slots {
    pub(super) fn of(most_working: usize, most_waiting: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            counts: watch::Sender::new(Counts::default()),
            most_working,
            most_waiting,
            metrics,
        })
    }

    /// Waits for a slot.
    pub(super) async fn take(self: &Arc<Self>) -> Arc<Slot> {
        // Before the look, so that none that gets free after it goes unseen.
        let mut changes = self.counts.subscribe();
        loop {
            changes.mark_unchanged();
            let taken = self.counts.send_if_modified(|counts| {
                let is_free = counts.working < self.most_working;
                counts.working += usize::from(is_free);
                is_free
            });
            if taken {
                return Arc::new(Slot {
                    all: self.clone(),
                    is_lent: AtomicBool::new(false),
                    awaits: Mutex::default(),
                });
            }
            // The sender lives in `self`.
            let _ = changes.changed().await;
        }
    }
}

impl Slot {
    fn now_awaits(&self, awaits: Option<Awaits>) {
        let mut known = self.awaits.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = &self.all.metrics.sessions;
        if let Some(before) = known.take() {
            sessions.wait(before, false);
        }
        if let Some(now) = awaits {
            sessions.wait(now, true);
        }
        *known = awaits;
    }
}

impl Lend for Slot {
    fn lend(&self, awaits: Awaits) {
        self.now_awaits(Some(awaits));
        let lent = self.all.counts.send_if_modified(|counts| {
            let has_room = counts.waiting < self.all.most_waiting && !self.is_lent.load(Ordering::Acquire);
            if has_room {
                counts.waiting += 1;
                counts.working = counts.working.saturating_sub(1);
                self.is_lent.store(true, Ordering::Release);
            }
            has_room
        });
        tracing::debug!(lent, "a session waits for people");
    }

    fn take_back(&self) {
        self.now_awaits(None);
        self.all.counts.send_if_modified(|counts| {
            let was_lent = self.is_lent.swap(false, Ordering::AcqRel);
            if was_lent {
                counts.waiting = counts.waiting.saturating_sub(1);
                counts.working += 1;
            }
            was_lent
        });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.take_back();
        self.all
            .counts
            .send_modify(|counts| counts.working = counts.working.saturating_sub(1));
    }
}

impl Worker {
    /// One delivery in the next slot, from its body to the end of its session.
    pub async fn take(&self, delivery: Delivery) {
        let slot = self.slots.take().await;
        self.take_in(delivery, &slot).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::metrics::Build;

    fn slots(most_working: usize, most_waiting: usize) -> Arc<Slots> {
        Slots::of(
            most_working,
            most_waiting,
            Arc::new(Metrics::new(&Build::default()).unwrap()),
        )
    }

    #[test]
    fn a_lent_slot_is_another_sessions_and_its_own_goes_on_at_once() {
        let slots = slots(1, 1);
        let take = || slots.take().now_or_never();
        let first = take().unwrap();
        assert!(take().is_none());
        first.lend(Awaits::Answer);
        let second = take().unwrap();
        // No more than may wait: this one keeps its slot.
        second.lend(Awaits::Answer);
        assert!(take().is_none());
        // Both work now, so none is free before both but one have ended.
        first.take_back();
        assert_eq!(*slots.counts.borrow(), Counts { working: 2, waiting: 0 });
        drop(second);
        assert!(take().is_none());
        drop(first);
        assert!(take().is_some());
        assert_eq!(*slots.counts.borrow(), Counts::default());
    }

    #[test]
    fn a_session_that_ends_while_it_waits_gives_back_what_it_had() {
        let slots = slots(1, 1);
        let first = slots.take().now_or_never().unwrap();
        first.lend(Awaits::Answer);
        first.lend(Awaits::Answer);
        drop(first);
        assert_eq!(*slots.counts.borrow(), Counts::default());
        let never = self::slots(1, 0);
        let only = never.take().now_or_never().unwrap();
        only.lend(Awaits::Answer);
        assert!(never.take().now_or_never().is_none());
        only.take_back();
    }

    #[tokio::test]
    async fn who_waits_for_a_slot_gets_the_first_that_is_lent() {
        let slots = slots(1, 1);
        let first = slots.take().await;
        let waiting = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take().await }
        });
        tokio::task::yield_now().await;
        first.lend(Awaits::Answer);
        drop(waiting.await.unwrap());
    }
}
