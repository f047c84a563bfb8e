//! When a project may be added: one at a time, once the session stands, and not any more when it ends. No I/O.
//!
//! A turn waits for what is being added, so that a prompt which was sent after a project finds it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use crate::message::Reason;

/// Projects that wait to be added at most.
const MOST_WAITING: usize = 16;
/// How long the end of a session waits until a half-made project is removed; what is left then goes with the session.
const UNMAKING: Duration = Duration::from_secs(15);

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Adding(Arc<State>);

#[derive(Debug, Default)]
struct State {
    waiting: watch::Sender<usize>,
    stands: watch::Sender<bool>,
    turn: Arc<Mutex<()>>,
    ended: CancellationToken,
}

/// A project that is to be added, from the moment at which the session hears of it.
#[derive(Debug)]
pub(super) struct Expected(Adding);

impl Drop for Expected {
    fn drop(&mut self) {
        self.0
            .0
            .waiting
            .send_modify(|waiting| *waiting = waiting.saturating_sub(1));
    }
}

impl Adding {
    /// One more; none when too many wait.
    pub(super) fn expect(&self) -> Option<Expected> {
        let waits = self.0.waiting.send_if_modified(|waiting| {
            let room = *waiting < MOST_WAITING;
            *waiting += usize::from(room);
            room
        });
        waits.then(|| Expected(self.clone()))
    }

    /// The session stands: sandbox, routes, clones.
    pub(super) fn stands(&self) {
        self.0.stands.send_replace(true);
    }

    /// Waits until nothing is being added. Cancel-safe.
    pub(super) async fn settled(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.0.waiting.subscribe().wait_for(|waiting| *waiting == 0).await;
    }

    /// From now on nothing is added, and what is being added is removed when this returns.
    pub(super) async fn end(&self) {
        self.0.ended.cancel();
        if tokio::time::timeout(UNMAKING, self.0.turn.lock()).await.is_err() {
            tracing::warn!("a project that was being added is slow to go; what is left of it goes with the session");
        }
    }

    /// Cancelled when nothing is added any more.
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.0.ended
    }

    /// Waits for the session to stand, and for those that came before. Held until the project is there, or is as if it had never been.
    pub(super) async fn turn(&self, _: &Expected) -> Result<OwnedMutexGuard<()>, Failure> {
        let turn = async {
            let _ = self.0.stands.subscribe().wait_for(|stands| *stands).await;
            Arc::clone(&self.0.turn).lock_owned().await
        };
        tokio::select! {
            biased;
            () = self.0.ended.cancelled() => Err(ending()),
            turn = turn => Ok(turn),
        }
    }
}

/// The refusal of whoever comes too late.
pub(super) fn ending() -> Failure {
    Failure::new(
        Reason::Cancelled,
        "the session is ending, or goes on elsewhere: add the project when it goes on, or list it in a new task",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_none_before_the_session_stands_or_after_its_end() {
        let adding = Adding::default();
        let (first, second) = (adding.expect().unwrap(), adding.expect().unwrap());
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, adding.turn(&first)).await.is_err());
        adding.stands();
        let turn = adding.turn(&first).await.unwrap();
        assert!(tokio::time::timeout(soon, adding.turn(&second)).await.is_err());
        assert!(tokio::time::timeout(soon, adding.settled()).await.is_err());
        drop((turn, first));
        let turn = adding.turn(&second).await.unwrap();
        // The end waits for what is being added.
        assert!(tokio::time::timeout(soon, adding.end()).await.is_err());
        assert!(adding.ended().is_cancelled());
        drop((turn, second));
        adding.end().await;
        adding.settled().await;
        let late = adding.expect().unwrap();
        assert_eq!(adding.turn(&late).await.unwrap_err(), ending());
    }

    #[test]
    fn those_that_wait_are_bounded() {
        let adding = Adding::default();
        let all: Vec<_> = (0..MOST_WAITING).map(|_| adding.expect().unwrap()).collect();
        assert!(adding.expect().is_none());
        drop(all);
        assert!(adding.expect().is_some());
    }
}
