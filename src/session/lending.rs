//! A session that waits for people does no work, so its worker may give its slot to another one meanwhile. Counts only; how many may wait is
//! the worker's.

use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::Awaits;

/// A slot that can be lent.
pub trait Lend: Send + Sync + std::fmt::Debug {
    /// Its session waits for this: another may have it, where the worker has room for one more.
    fn lend(&self, awaits: Awaits);
    /// Its session goes on, now.
    fn take_back(&self);
}

/// Whether a session waits; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// How many of its parts wait.
    parts: Mutex<usize>,
    slot: Option<Arc<dyn Lend>>,
}

/// One part of a session that waits, until it is dropped.
#[derive(Debug)]
pub(super) struct Waits(Waiting);

impl Waiting {
    pub(super) fn of(slot: Arc<dyn Lend>) -> Self {
        Self(Arc::new(Inner {
            parts: Mutex::default(),
            slot: Some(slot),
        }))
    }

    /// What the first part waits for is what the session waits for.
    pub(super) fn begin(&self, awaits: Awaits) -> Waits {
        let mut parts = self.0.parts.lock().unwrap_or_else(PoisonError::into_inner);
        *parts += 1;
        // Under the lock, so that a loan and its return stay in order.
        if *parts == 1
            && let Some(slot) = &self.0.slot
        {
            slot.lend(awaits);
        }
        Waits(self.clone())
    }

    pub(super) fn is_waiting(&self) -> bool {
        *self.0.parts.lock().unwrap_or_else(PoisonError::into_inner) > 0
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut parts = self.0.0.parts.lock().unwrap_or_else(PoisonError::into_inner);
        *parts -= 1;
        if *parts == 0
            && let Some(slot) = &self.0.0.slot
        {
            slot.take_back();
        }
    }
}
