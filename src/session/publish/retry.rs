//! How what failed in passing on a forge is tried again. Knows no forge and no ownership: what leaves a trace goes through
//! `Publishing::retry_owned`.

use std::time::Duration;

use super::{FIRST_WAIT, TRIES};
use crate::forge::ForgeError;

/// The longest wait that a forge may ask for; a longer one is a failure that names it.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// Tries again what failed in passing. Only for calls that may be repeated, and leave no trace.
pub(super) async fn retry<T, Call: Future<Output = Result<T, ForgeError>>>(
    mut call: impl FnMut() -> Call,
) -> Result<T, ForgeError> {
    let mut pace = Pace::default();
    loop {
        match call().await {
            Err(error) => match pace.next(&error) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(error),
            },
            done => return done,
        }
    }
}

/// How what failed in passing is tried again.
pub(super) struct Pace {
    tries: u32,
    wait: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            tries: 1,
            wait: FIRST_WAIT,
        }
    }
}

impl Pace {
    /// The wait before the next try, if there is one.
    pub(super) fn next(&mut self, error: &ForgeError) -> Option<Duration> {
        if self.tries >= TRIES {
            return None;
        }
        self.tries += 1;
        if let ForgeError::RateLimited { wait, .. } = error {
            // Asking sooner than it says makes it longer.
            return (*wait <= LONGEST_WAIT).then_some(*wait);
        }
        error.is_transient().then(|| {
            let wait = self.wait;
            self.wait *= 2;
            wait
        })
    }
}
