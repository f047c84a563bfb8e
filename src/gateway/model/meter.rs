//! What one session uses of its model: counted as it passes, held against a budget.
//!
//! Counts and says no; never sees what is asked or answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::usage::{Tap, Tokens};

/// Counts for the operators' metrics. `model` is an endpoint's name in the configuration.
pub trait CountModel: Send + Sync {
    /// One request ended with this status; 0 when there was no answer.
    fn count(&self, status: u16);
    /// Bytes that went to a model and came from it.
    fn bytes(&self, model: &str, sent: u64, received: u64);
    /// Tokens as an answer tells them.
    fn tokens(&self, model: &str, read: u64, written: u64);
    /// A request was sent once more.
    fn retried(&self, model: &str);
    /// A request was refused here.
    fn refused(&self);
}

/// What was used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Answered requests.
    pub requests: u64,
    /// Bytes sent to the model.
    pub request_bytes: u64,
    /// Bytes received from it.
    pub answer_bytes: u64,
    /// Tokens as the answers tell them.
    pub tokens: Tokens,
}

#[derive(Debug, Default)]
struct State {
    used: Used,
    /// What the budget was charged, in tokens.
    charged: u64,
}

/// The meter of one session.
pub struct Meter {
    model: String,
    budget: Option<u64>,
    state: Mutex<State>,
    spent: CancellationToken,
    count: Arc<dyn CountModel>,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Meter")
            .field("model", &self.model)
            .field("budget", &self.budget)
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

impl Meter {
    pub(super) fn new(model: &str, budget: Option<u64>, count: Arc<dyn CountModel>) -> Self {
        Self {
            model: model.to_owned(),
            budget,
            state: Mutex::default(),
            spent: CancellationToken::new(),
            count,
        }
    }

    /// The endpoint's name.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The budget in tokens, if there is one.
    #[must_use]
    pub fn budget(&self) -> Option<u64> {
        self.budget
    }

    /// What was used so far.
    #[must_use]
    pub fn used(&self) -> Used {
        self.state().used
    }

    /// Whether a request was refused because the budget is spent.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.spent.is_cancelled()
    }

    /// Waits for the first request that is refused because the budget is spent. The answer that spends it is still given whole: it may have
    /// been the last one that the agent wanted. Cancel-safe.
    pub async fn spent(&self) {
        self.spent.cancelled().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more request may be sent.
    pub(super) fn admits(&self) -> bool {
        let admitted = self.budget.is_none_or(|budget| self.state().charged < budget);
        if !admitted {
            self.spent.cancel();
        }
        admitted
    }

    pub(super) fn retried(&self) {
        self.count.retried(&self.model);
    }

    pub(super) fn refused(&self) {
        self.count.refused();
    }

    /// A request ended without an answer.
    pub(super) fn unanswered(&self) {
        self.count.count(0);
    }

    /// A request was answered; what comes next of the answer goes through the result.
    pub(super) fn answered(self: &Arc<Self>, status: u16, request_bytes: u64, costs: bool, tap: Tap) -> Reading {
        self.count.count(status);
        self.count.bytes(&self.model, request_bytes, 0);
        {
            let mut state = self.state();
            state.used.requests = state.used.requests.saturating_add(1);
            state.used.request_bytes = state.used.request_bytes.saturating_add(request_bytes);
        }
        Reading {
            meter: Arc::clone(self),
            tap,
            request_bytes,
            costs: costs && (200..300).contains(&status),
            told: Tokens::default(),
            charged: Tokens::default(),
        }
    }

    fn add(&self, bytes: u64, tokens: Tokens, charge: u64) {
        self.count.bytes(&self.model, 0, bytes);
        self.count.tokens(&self.model, tokens.input, tokens.output);
        let mut state = self.state();
        state.used.answer_bytes = state.used.answer_bytes.saturating_add(bytes);
        state.used.tokens = state.used.tokens.plus(tokens);
        state.charged = state.charged.saturating_add(charge);
    }
}

/// One answer on its way. What it says is counted before the piece that says it is passed on, so whoever has seen the end of an answer finds it
/// counted; what it should have said is charged when it is dropped.
#[derive(Debug)]
pub(super) struct Reading {
    meter: Arc<Meter>,
    tap: Tap,
    request_bytes: u64,
    costs: bool,
    told: Tokens,
    charged: Tokens,
}

impl Reading {
    pub(super) fn piece(&mut self, piece: &[u8]) {
        self.tap.see(piece);
        self.tell(piece.len() as u64);
    }

    pub(super) fn end(&mut self) {
        self.tap.end();
        self.tell(0);
        self.settle();
    }

    fn tell(&mut self, bytes: u64) {
        let tokens = if self.costs {
            self.tap.tokens()
        } else {
            Tokens::default()
        };
        let new = tokens.minus(self.told);
        self.told = tokens;
        self.charged = self.charged.plus(new);
        self.meter.add(bytes, new, new.total());
    }

    /// Charges what is still missing.
    fn settle(&mut self) {
        if self.costs {
            let missing = self.tap.charge(self.request_bytes).minus(self.charged);
            self.charged = self.charged.plus(missing);
            self.meter.add(0, Tokens::default(), missing.total());
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.settle();
    }
}
