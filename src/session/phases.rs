//! Time that several steps of a session share. The other phases have limits of their own: the image its pull's, the set-up its script's, the agent
//! its start's and its turn's.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::failure::Failure;
use crate::message::Reason;

/// What steps may take together.
#[derive(Debug)]
pub(super) struct Budget {
    limit: Duration,
    used: Mutex<Duration>,
}

impl Budget {
    /// That of mirrors and clones.
    pub(super) fn cloning(seconds: u64) -> Self {
        Self {
            limit: Duration::from_secs(seconds),
            used: Mutex::default(),
        }
    }

    /// One more step, within what the others left. Give it boxed where it is large.
    pub(super) async fn spend<T>(&self, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let began = Instant::now();
        let left = self
            .limit
            .saturating_sub(*self.used.lock().unwrap_or_else(PoisonError::into_inner));
        let done = timeout(left, step).await;
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) += began.elapsed();
        done.unwrap_or_else(|_| {
            let message = format!(
                "mirroring and cloning took longer than {} s in all (session.clone_s): ask for fewer projects at a time, or let the operator raise \
                 the limit",
                self.limit.as_secs()
            );
            Err(Failure::new(Reason::CloneTimeout, message))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn steps_share_their_time() {
        let budget = Budget {
            limit: Duration::from_secs(10),
            used: Mutex::new(Duration::from_secs(8)),
        };
        let step = |milliseconds| async move {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            Ok(())
        };
        assert_eq!(budget.spend(step(1)).await, Ok(()));
        // Less than the whole and more than what is left.
        let failure = budget.spend(step(5000)).await.unwrap_err();
        assert_eq!(failure.reason, Reason::CloneTimeout);
        assert!(failure.message.contains("session.clone_s"), "{}", failure.message);
        assert_eq!(Budget::cloning(7).limit, Duration::from_secs(7));
    }
}
