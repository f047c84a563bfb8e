//! How often the tools of one session ask the forges and speak there: an agent that loops must not use up its user's rate limit.
//!
//! Counts only; never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ToolError;

/// Calls that ask a forge at the same time. Agents send a few side by side; GitHub asks for few, and each may be several requests.
pub(super) const AT_ONCE: usize = 10;
/// Calls that ask a forge in all. GitHub gives a user 5,000 requests an hour, for everything the user does.
pub(super) const IN_ALL: u32 = 2_000;
/// Comments in all: what is said in a user's name is read by people.
pub(super) const COMMENTS: u32 = 20;

/// What is left of a session's calls.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    running: Arc<Semaphore>,
    calls: Arc<AtomicU32>,
    comments: Arc<AtomicU32>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            running: Arc::new(Semaphore::new(AT_ONCE)),
            calls: Arc::default(),
            comments: Arc::default(),
        }
    }
}

impl Budget {
    /// A place for one call, held until it is dropped.
    pub(super) fn call(&self) -> Result<OwnedSemaphorePermit, ToolError> {
        let place = Arc::clone(&self.running)
            .try_acquire_owned()
            .map_err(|_| ToolError::TooManyAtOnce { most: AT_ONCE })?;
        take(&self.calls, IN_ALL)
            .then_some(place)
            .ok_or(ToolError::TooManyCalls { most: IN_ALL })
    }

    /// One comment. Not given back when it fails: the forge may have taken it all the same.
    pub(super) fn comment(&self) -> Result<u32, ToolError> {
        take(&self.comments, COMMENTS)
            .then(|| COMMENTS - self.comments.load(Ordering::Relaxed).min(COMMENTS))
            .ok_or(ToolError::TooManyComments { most: COMMENTS })
    }
}

fn take(counter: &AtomicU32, most: u32) -> bool {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            (used < most).then_some(used + 1)
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_bounded_at_once_and_in_all() {
        let budget = Budget::default();
        let held: Vec<_> = (0..AT_ONCE).map(|_| budget.call().unwrap()).collect();
        assert!(matches!(budget.call(), Err(ToolError::TooManyAtOnce { .. })));
        drop(held);
        for _ in AT_ONCE..IN_ALL as usize {
            drop(budget.call().unwrap());
        }
        assert!(matches!(budget.call(), Err(ToolError::TooManyCalls { .. })));
    }

    #[test]
    fn comments_are_bounded() {
        let budget = Budget::default();
        let left: Vec<u32> = (0..COMMENTS).map(|_| budget.comment().unwrap()).collect();
        assert_eq!((left[0], left[left.len() - 1]), (COMMENTS - 1, 0));
        assert!(matches!(budget.comment(), Err(ToolError::TooManyComments { .. })));
    }
}
