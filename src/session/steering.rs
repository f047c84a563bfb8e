//! How a running session is told to stop, and why. The session's own cancellation scope; teardown is not in it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Why a session shall stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Stop the turn and publish what there is.
    Publish,
    /// Stop and leave nothing behind.
    Discard,
    /// The worker stops.
    WorkerStopped,
    /// Another worker owns the session now: stop, publish nothing, say nothing.
    OwnershipLost,
}

/// The handle; clones share it. The first cause counts.
#[derive(Debug, Clone, Default)]
pub struct Steering {
    token: CancellationToken,
    cause: Arc<Mutex<Option<Cause>>>,
}

impl Steering {
    /// Stops the session; says whether this was the first time.
    pub fn stop(&self, cause: Cause) -> bool {
        let mut slot = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        let first = slot.is_none();
        if first {
            *slot = Some(cause);
        }
        self.token.cancel();
        first
    }

    /// Why it was stopped.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancelled when the session shall stop.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_counts() {
        let steering = Steering::default();
        assert!(steering.stop(Cause::Publish));
        assert!(!steering.stop(Cause::Discard));
        assert_eq!(steering.cause(), Some(Cause::Publish));
        assert!(steering.token().is_cancelled());
    }
}
