//! Keeps with the broker what a session notes for its next owner. The newest notes count; older ones are passed over.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::message::Notes;
use crate::queue::Claim;
use crate::session::steering::Steering;

/// Pause after a broker did not take them.
const PAUSE: Duration = Duration::from_secs(1);

/// The notes of one session.
pub(super) struct Noted {
    steering: Steering,
    notes: watch::Receiver<(u64, Notes)>,
    /// The number of those that the broker has, and what they say.
    kept: (u64, Notes),
    /// When they are tried again.
    again: Option<Instant>,
}

impl Noted {
    /// Those of a session, with what the broker has of it from before.
    pub(super) fn new(steering: &Steering, before: Option<Notes>) -> Self {
        Self {
            steering: steering.clone(),
            notes: steering.notes(),
            kept: (0, before.unwrap_or_default()),
            again: None,
        }
    }

    /// Waits until there is something to keep, or an order was done. Safe to drop.
    pub(super) async fn changed(&mut self) {
        let again = self.again;
        let later = async {
            match again {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.notes.changed() => {
                // The steering is held here, so there is always somebody to note.
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            () = later => {}
        }
    }

    /// Keeps what is noted, if the broker lacks it.
    pub(super) async fn keep(&mut self, claim: &dyn Claim) {
        let (number, notes) = self.notes.borrow_and_update().clone();
        self.again = None;
        if number == self.kept.0 {
            return;
        }
        let Some(body) = notes.body() else {
            tracing::warn!("how far the session came is too long to be kept for a next owner");
            return;
        };
        match claim.keep(body).await {
            Ok(()) => {
                self.kept = (number, notes);
                self.steering.kept(number);
            }
            Err(error) => {
                tracing::warn!(%error, "how far the session came is not kept yet");
                self.again = Some(Instant::now() + PAUSE);
            }
        }
    }

    /// Whether the broker has this control message with them.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.kept.1.knows(id)
    }
}
