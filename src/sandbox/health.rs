//! Whether the engine can be counted on: a breaker that opens when it stalls, and closes by itself.
//!
//! Decides only whether new work may start. Running sessions are not its business: they end by their own signs and limits.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// Failures in a row after which no work is begun.
const MOST_FAILURES: u32 = 3;

/// The engine's state, shared by the loop that asks and those who wait for the answer.
#[derive(Debug)]
pub struct Health {
    failures: Mutex<u32>,
    fit: watch::Sender<bool>,
}

impl Default for Health {
    /// Not fit until it first answers.
    fn default() -> Self {
        Self {
            failures: Mutex::new(0),
            fit: watch::Sender::new(false),
        }
    }
}

impl Health {
    /// Notes whether the engine answered; says what it is now when that has changed.
    pub fn note(&self, answered: bool) -> Option<bool> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures = if answered { 0 } else { failures.saturating_add(1) };
        let was = *self.fit.borrow();
        let fit = answered || (was && *failures < MOST_FAILURES);
        self.fit.send_replace(fit);
        (fit != was).then_some(fit)
    }

    /// A session lost its sandbox with the engine: no work is begun before it answers.
    pub fn lost(&self) {
        *self.failures.lock().unwrap_or_else(PoisonError::into_inner) = MOST_FAILURES;
        self.fit.send_replace(false);
    }

    /// Whether new work may start.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        *self.fit.borrow()
    }

    /// Waits until new work may start, or may not. Cancel-safe.
    pub async fn until(&self, fit: bool) {
        // The sender lives as long as this.
        let _ = self.fit.subscribe().wait_for(|now| *now == fit).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_open_it_and_one_answer_closes_it() {
        let health = Health::default();
        assert!(!health.is_fit(), "nobody has asked yet");
        assert_eq!(health.note(false), None);
        assert_eq!(health.note(true), Some(true));
        assert_eq!(health.note(false), None);
        assert_eq!(health.note(false), None);
        assert_eq!(health.note(true), None);
        assert_eq!([health.note(false), health.note(false)], [None, None]);
        assert_eq!(health.note(false), Some(false));
        assert_eq!(health.note(false), None);
        assert_eq!(health.note(true), Some(true));
        health.lost();
        assert!(!health.is_fit());
        assert_eq!(health.note(false), None);
        assert_eq!(health.note(true), Some(true));
    }
}
