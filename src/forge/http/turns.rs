//! One writer at a time for each token: forges answer bursts of writes with limits that hit everything the token does.
//!
//! Never lets a write go before the wait that the forge asked for has passed, and never repeats one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::pace::UNSAID_WAIT;

/// How many tokens are remembered.
const MOST_TOKENS: usize = 1024;

/// Longest wait of our own making.
const LONGEST_UNSAID: Duration = Duration::from_secs(60 * 60);

/// What stands for one token on one instance.
pub(in crate::forge) type Digest = [u8; 32];

/// The turns of all tokens.
#[derive(Default)]
pub(in crate::forge) struct Turns(Mutex<HashMap<Digest, Arc<Turn>>>);

/// Who holds it may write.
#[derive(Default)]
pub(in crate::forge) struct Turn(pub(super) tokio::sync::Mutex<Writes>);

/// What is known of a token's writes.
#[derive(Debug, Default)]
pub(super) struct Writes {
    last: Option<Instant>,
    quiet_until: Option<Instant>,
    /// How often in a row the forge limited writes without saying for how long.
    unsaid: u32,
}

impl Turns {
    /// The turn of one token; the same for every client that has it.
    pub(in crate::forge) fn of(&self, token: Digest) -> Arc<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= MOST_TOKENS {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(turns.entry(token).or_default())
    }
}

impl Writes {
    /// How long the next write must wait: for the forge, and for itself.
    pub(super) fn wait(&self, now: Instant, gap: Duration) -> Duration {
        let until =
            |moment: Option<Instant>| moment.map_or(Duration::ZERO, |moment| moment.saturating_duration_since(now));
        until(self.quiet_until).max(until(self.last.and_then(|last| last.checked_add(gap))))
    }

    /// A write was sent.
    pub(super) fn sent(&mut self, now: Instant) {
        self.last = Some(now);
    }

    /// It was not limited.
    pub(super) fn passed(&mut self) {
        self.unsaid = 0;
        self.quiet_until = None;
    }

    /// It was limited; the wait is what the forge asked for, or the usual one, which grows each time. Gives the one that counts.
    pub(super) fn limited(&mut self, now: Instant, wait: Duration) -> Duration {
        let wait = if wait == UNSAID_WAIT {
            let grown = UNSAID_WAIT.saturating_mul(1_u32 << self.unsaid.min(10));
            self.unsaid = self.unsaid.saturating_add(1);
            grown.min(LONGEST_UNSAID)
        } else {
            wait
        };
        self.quiet_until = now.checked_add(wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_until_a_write_passes() {
        let now = Instant::now();
        let gap = Duration::from_secs(1);
        let mut writes = Writes::default();
        assert_eq!(writes.wait(now, gap), Duration::ZERO);
        writes.sent(now);
        assert_eq!(writes.wait(now, gap), gap);
        let waits: Vec<u64> = (0..8).map(|_| writes.limited(now, UNSAID_WAIT).as_secs()).collect();
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(writes.limited(now, Duration::from_secs(7)).as_secs(), 7);
        assert_eq!(writes.wait(now, gap).as_secs(), 7);
        writes.passed();
        assert_eq!(writes.wait(now, gap), gap);
        assert_eq!(writes.limited(now, UNSAID_WAIT), UNSAID_WAIT);
    }

    #[test]
    fn a_token_has_one_turn_and_old_ones_go() {
        let turns = Turns::default();
        let held = turns.of([1; 32]);
        assert!(Arc::ptr_eq(&held, &turns.of([1; 32])));
        for n in 0..3 * MOST_TOKENS {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_le_bytes());
            turns.of(digest);
        }
        assert!(turns.0.lock().unwrap().len() <= MOST_TOKENS + 1);
        assert!(
            Arc::ptr_eq(&held, &turns.of([1; 32])),
            "a turn that is in use is never lost"
        );
    }
}
