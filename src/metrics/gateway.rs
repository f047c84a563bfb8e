//! What sandboxes ask for through the gateway: models, and the way out.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::make::{counter, counters, status_class};

/// Metrics of the gateway.
#[derive(Debug)]
pub struct Gateway {
    refusals: IntCounter,
    model_requests: IntCounterVec,
    model_tokens: IntCounterVec,
    model_bytes: IntCounterVec,
    model_retries: IntCounterVec,
    egress_requests: IntCounterVec,
    egress_refused: IntCounterVec,
    egress_bytes: IntCounterVec,
}

impl Gateway {
    pub(super) fn registered(all: &Registry) -> prometheus::Result<Self> {
        let gateway = Self {
            refusals: counter(
                all,
                "cofferdam_gateway_refusals_total",
                "Requests from sandboxes that the gateway refused.",
            )?,
            model_requests: counters(
                all,
                "cofferdam_model_requests_total",
                "Requests from sandboxes to models, by the endpoint's name in the configuration and by status.",
                &["model", "status"],
            )?,
            model_tokens: counters(
                all,
                "cofferdam_model_tokens_total",
                "Tokens that models read and wrote, as their answers say; by the endpoint's name in the configuration.",
                &["model", "direction"],
            )?,
            model_bytes: counters(
                all,
                "cofferdam_model_bytes_total",
                "Bytes of requests to models and of their answers, by the endpoint's name in the configuration.",
                &["model", "direction"],
            )?,
            model_retries: counters(
                all,
                "cofferdam_model_retries_total",
                "Requests to models that the gateway sent once more, before anything was answered.",
                &["model"],
            )?,
            egress_requests: counters(
                all,
                "cofferdam_egress_requests_total",
                "Requests of sandboxes for a way out, by the level of their session.",
                &["level"],
            )?,
            egress_refused: counters(
                all,
                "cofferdam_egress_refused_total",
                "Ways out of sandboxes that were refused, by rule.",
                &["rule"],
            )?,
            egress_bytes: counters(
                all,
                "cofferdam_egress_bytes_total",
                "Bytes that sandboxes sent out (up) and received (down), without the model's and the forges'.",
                &["direction"],
            )?,
        };
        for direction in ["up", "down"] {
            gateway.egress_bytes.with_label_values(&[direction]).inc_by(0);
        }
        Ok(gateway)
    }

    /// Makes the labels of the configured models appear at zero.
    pub fn expect_models<'a>(&self, models: impl IntoIterator<Item = &'a str>) {
        for model in models {
            for status in ["2xx", "4xx", "5xx", "none"] {
                self.model_requests.with_label_values(&[model, status]).inc_by(0);
            }
            for direction in ["input", "output"] {
                self.model_tokens.with_label_values(&[model, direction]).inc_by(0);
                self.model_bytes.with_label_values(&[model, direction]).inc_by(0);
            }
            self.model_retries.with_label_values(&[model]).inc_by(0);
        }
    }

    /// Makes the labels of the way out appear at zero.
    pub fn expect_egress(
        &self,
        levels: impl IntoIterator<Item = &'static str>,
        rules: impl IntoIterator<Item = &'static str>,
    ) {
        for level in levels {
            self.egress_requests.with_label_values(&[level]).inc_by(0);
        }
        for rule in rules {
            self.egress_refused.with_label_values(&[rule]).inc_by(0);
        }
    }

    /// A request from a sandbox was refused.
    pub fn refused(&self) {
        self.refusals.inc();
    }

    /// A model answered; `None` when it did not. `model` is an endpoint's name in the configuration, never what a request says.
    pub fn model_request(&self, model: &str, status: Option<u16>) {
        self.model_requests
            .with_label_values(&[model, status_class(status)])
            .inc();
    }

    /// Tokens that a model read and wrote.
    pub fn model_tokens(&self, model: &str, read: u64, written: u64) {
        add_to(&self.model_tokens, model, read, written);
    }

    /// Bytes that went to a model and came from it.
    pub fn model_bytes(&self, model: &str, sent: u64, received: u64) {
        add_to(&self.model_bytes, model, sent, received);
    }

    /// A request to a model was sent once more.
    pub fn model_retry(&self, model: &str) {
        self.model_retries.with_label_values(&[model]).inc();
    }

    /// A sandbox asked for a way out.
    pub fn egress_request(&self, level: &'static str) {
        self.egress_requests.with_label_values(&[level]).inc();
    }

    /// A way out was refused by this rule.
    pub fn egress_refused(&self, rule: &'static str) {
        self.egress_refused.with_label_values(&[rule]).inc();
    }

    /// Bytes went `up` or `down`.
    pub fn egress_bytes(&self, direction: &'static str, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.egress_bytes.with_label_values(&[direction]).inc_by(bytes);
    }
}

/// Into a model, and out of it.
fn add_to(counters: &IntCounterVec, model: &str, input: u64, output: u64) {
    for (direction, more) in [("input", input), ("output", output)] {
        if more > 0 {
            counters.with_label_values(&[model, direction]).inc_by(more);
        }
    }
}
