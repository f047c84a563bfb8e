//! What one session uses of its model: counted as it passes, held against a budget.
//!
//! Counts and says no; never sees what is asked or answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::usage::{Tap, Tokens};

/// Counts for the operators' metrics. `model` is an endpoint's name in the configuration.
pub trait CountModel: Send + Sync {
    /// One request ended with this status; 0 when there was no answer.
    fn count(&self, model: &str, status: u16);
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
    /// What requests on their way may still cost, in tokens.
    held: u64,
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

    /// Holds so many tokens of the budget for a request that is about to be sent; nothing when what is charged and what others hold is all of it.
    /// The last one admitted may go over the budget: its answer is still given.
    pub(super) fn hold(self: &Arc<Self>, tokens: u64) -> Option<Hold> {
        let mut state = self.state();
        let taken = state.charged.saturating_add(state.held);
        if tokens > 0 && self.budget.is_some_and(|budget| taken >= budget) {
            return None;
        }
        state.held = state.held.saturating_add(tokens);
        drop(state);
        Some(Hold {
            meter: Arc::clone(self),
            left: tokens,
            out: false,
        })
    }

    pub(super) fn retried(&self) {
        self.count.retried(&self.model);
    }

    pub(super) fn refused(&self) {
        self.count.refused();
    }

    /// A request ended without an answer.
    pub(super) fn unanswered(&self) {
        self.count.count(&self.model, 0);
    }

    fn add(&self, bytes: u64, tokens: Tokens) {
        self.count.bytes(&self.model, 0, bytes);
        self.count.tokens(&self.model, tokens.input, tokens.output);
        let mut state = self.state();
        state.used.answer_bytes = state.used.answer_bytes.saturating_add(bytes);
        state.used.tokens = state.used.tokens.plus(tokens);
    }
}

/// What one request may cost, held of the budget until it is known. Dropped while the request is out, all of it is charged: whoever hangs up
/// before an answer begins has still made the model work.
#[derive(Debug)]
pub(super) struct Hold {
    meter: Arc<Meter>,
    left: u64,
    out: bool,
}

impl Hold {
    /// Whether the request may have reached the model.
    pub(super) fn is_out(&self) -> bool {
        self.out
    }

    /// Says so.
    pub(super) fn set_out(&mut self, out: bool) {
        self.out = out;
    }

    /// A request was answered; what comes next of the answer goes through the result.
    pub(super) fn answered(mut self, status: u16, request_bytes: u64, costs: bool, tap: Tap) -> Reading {
        let meter = &self.meter;
        meter.count.count(&meter.model, status);
        meter.count.bytes(&meter.model, request_bytes, 0);
        {
            let mut state = meter.state();
            state.used.requests = state.used.requests.saturating_add(1);
            state.used.request_bytes = state.used.request_bytes.saturating_add(request_bytes);
        }
        let costs = costs && (200..300).contains(&status);
        self.out = false;
        if !costs {
            self.release();
        }
        Reading {
            hold: self,
            tap,
            request_bytes,
            costs,
            ended: false,
            told: Tokens::default(),
            charged: Tokens::default(),
        }
    }

    /// Turns so many of the tokens, or more than were held, into a charge.
    fn charge(&mut self, tokens: u64) {
        let held = self.left.min(tokens);
        self.left -= held;
        let mut state = self.meter.state();
        state.held = state.held.saturating_sub(held);
        state.charged = state.charged.saturating_add(tokens);
    }

    /// Gives back what is left.
    fn release(&mut self) {
        let left = std::mem::take(&mut self.left);
        let mut state = self.meter.state();
        state.held = state.held.saturating_sub(left);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.out {
            self.meter.unanswered();
            self.charge(self.left);
        }
        self.release();
    }
}

/// One answer on its way. What it says is counted before the piece that says it is passed on, so whoever has seen the end of an answer finds it
/// counted; what it should have said is charged when it is dropped.
#[derive(Debug)]
pub(super) struct Reading {
    hold: Hold,
    tap: Tap,
    request_bytes: u64,
    costs: bool,
    ended: bool,
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
        self.ended = true;
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
        self.hold.meter.add(bytes, new);
        self.hold.charge(new.total());
    }

    /// Charges what is still missing and gives back what was held beyond it.
    fn settle(&mut self) {
        if self.costs {
            let missing = self.tap.charge(self.request_bytes).minus(self.charged);
            self.charged = self.charged.plus(missing);
            self.hold.charge(missing.total());
            if !self.ended && !self.tap.has_begun() {
                // The model was at work and nothing tells how far it came.
                self.hold.charge(self.hold.left);
            }
        }
        self.hold.release();
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.settle();
    }
}
