//! Requests for leave on their way to people and back, beside the conversation: the turn's clock stands while one waits, and the end of a turn
//! cancels those that are left.
//!
//! Bounded: few wait at a time, others are refused at once and hold the agent's further requests up until that is told.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::ask::{Ask, Decided, Request};
use crate::message::DecidedBy;

/// Requests that wait for people at a time. An agent that works on several things at once has a few.
const MOST_OPEN: usize = 8;

/// How long a turn has waited for people.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waits {
    open: u32,
    since: Option<Instant>,
    total: Duration,
    ended: Option<Instant>,
}

impl Waits {
    /// Whether people are being waited for.
    pub(super) fn is_open(&self) -> bool {
        self.open > 0
    }

    /// For how long they were, up to the last answer.
    pub(super) fn total(&self) -> Duration {
        self.total
    }

    /// When the last wait ended: until then the agent had nothing to say.
    pub(super) fn ended(&self) -> Option<Instant> {
        self.ended
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.open += 1;
        self.since.get_or_insert(now);
    }

    pub(super) fn end(&mut self, now: Instant) {
        self.open = self.open.saturating_sub(1);
        if self.open == 0
            && let Some(since) = self.since.take()
        {
            self.total += now.saturating_duration_since(since);
            self.ended = Some(now);
        }
    }
}

/// Shared by the conversation and its turns; clones share it.
#[derive(Clone)]
pub(super) struct Asking {
    ask: Option<Arc<dyn Ask>>,
    open: Arc<Semaphore>,
    /// Cancelled when the running turn ends; none while none runs.
    turn: Arc<Mutex<Option<CancellationToken>>>,
    waits: Arc<watch::Sender<Waits>>,
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Asking").finish_non_exhaustive()
    }
}

/// A request that may wait for people.
pub(super) struct Waiting {
    ask: Arc<dyn Ask>,
    turn: CancellationToken,
    request: Request,
    waits: Arc<watch::Sender<Waits>>,
    _place: OwnedSemaphorePermit,
}

/// What is to be done about a request.
pub(super) enum Asked {
    /// The policy decides.
    ByPolicy,
    /// It is decided already.
    Decided(Decided),
    /// People decide.
    Waits(Box<Waiting>),
}

impl Asking {
    /// Without anybody to ask, the policy decides.
    pub(super) fn of(ask: Option<Arc<dyn Ask>>) -> Self {
        Self {
            ask,
            open: Arc::new(Semaphore::new(MOST_OPEN)),
            turn: Arc::default(),
            waits: Arc::new(watch::Sender::new(Waits::default())),
        }
    }

    /// A prompt is given.
    pub(super) fn begin(&self) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(CancellationToken::new());
    }

    /// The prompt is answered, or shall be: whoever still waits for people is told that the turn is cancelled, and so is who asks now.
    pub(super) fn end(&self) {
        if let Some(turn) = self.turn.lock().unwrap_or_else(PoisonError::into_inner).take() {
            turn.cancel();
        }
    }

    /// The waits of a turn that begins now.
    pub(super) fn watch(&self) -> watch::Receiver<Waits> {
        self.waits.send_modify(|waits| {
            waits.total = Duration::ZERO;
            waits.since = waits.since.map(|_| Instant::now());
        });
        self.waits.subscribe()
    }

    /// What is to be done about a request.
    pub(super) fn take(&self, request: impl FnOnce() -> Option<Request>) -> Asked {
        let Some(ask) = &self.ask else {
            return Asked::ByPolicy;
        };
        let decided = |by| {
            Asked::Decided(Decided {
                option: None,
                by,
                question: None,
            })
        };
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(turn) = turn else {
            return decided(DecidedBy::End);
        };
        let (Ok(place), Some(request)) = (self.open.clone().try_acquire_owned(), request()) else {
            return decided(DecidedBy::Bound);
        };
        self.waits.send_modify(|waits| waits.begin(Instant::now()));
        Asked::Waits(Box::new(Waiting {
            ask: ask.clone(),
            turn,
            request,
            waits: self.waits.clone(),
            _place: place,
        }))
    }
}

impl Waiting {
    /// Waits for people.
    pub(super) async fn decided(mut self: Box<Self>) -> Decided {
        let request = Request {
            options: std::mem::take(&mut self.request.options),
            title: std::mem::take(&mut self.request.title),
            detail: std::mem::take(&mut self.request.detail),
        };
        self.ask.ask(request, &self.turn).await
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waits.send_modify(|waits| waits.end(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_that_overlap_count_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut waits = Waits::default();
        waits.begin(at(1));
        waits.begin(at(2));
        waits.end(at(5));
        assert!(waits.is_open() && waits.total().is_zero());
        waits.end(at(8));
        assert!(!waits.is_open());
        assert_eq!((waits.total(), waits.ended()), (Duration::from_secs(7), Some(at(8))));
        waits.begin(at(10));
        waits.end(at(11));
        assert_eq!(waits.total(), Duration::from_secs(8));
    }
}
