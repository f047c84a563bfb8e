//! The broker: whether it is there, what becomes of tasks and events, and how often the ownership of a session changes hands.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::make::{counter, counters, gauge};

/// What may become of a task.
const RESULTS: [&str; 7] = [
    "claimed",
    "elsewhere",
    "superseded",
    "over",
    "returned",
    "dead_lettered",
    "abandoned",
];

/// Metrics of the broker.
#[derive(Debug)]
pub struct Broker {
    connected: IntGauge,
    deliveries: IntCounterVec,
    redeliveries: IntCounter,
    takeovers: IntCounter,
    claims_lost: IntCounter,
    publishes: IntCounterVec,
    output_dropped: IntCounter,
}

impl Broker {
    pub(super) fn registered(all: &Registry) -> prometheus::Result<Self> {
        let broker = Self {
            connected: gauge(all, "cofferdam_amqp_connected", "1 while the broker is reachable.")?,
            deliveries: counters(
                all,
                "cofferdam_amqp_deliveries_total",
                "Tasks taken from the broker, by what became of them.",
                &["result"],
            )?,
            redeliveries: counter(
                all,
                "cofferdam_amqp_redeliveries_total",
                "Tasks that the broker handed out before, to this worker or another.",
            )?,
            takeovers: counter(
                all,
                "cofferdam_takeovers_total",
                "Sessions that this worker took over because their owner died.",
            )?,
            claims_lost: counter(
                all,
                "cofferdam_claims_lost_total",
                "Sessions that ran here until another worker owned them.",
            )?,
            publishes: counters(
                all,
                "cofferdam_amqp_publishes_total",
                "Events published, by whether the broker confirmed them.",
                &["result"],
            )?,
            output_dropped: counter(
                all,
                "cofferdam_output_dropped_bytes_total",
                "Bytes of output of agents and sandboxes that were dropped because there was too much of it.",
            )?,
        };
        for result in RESULTS {
            broker.deliveries.with_label_values(&[result]).inc_by(0);
        }
        for result in ["confirmed", "failed"] {
            broker.publishes.with_label_values(&[result]).inc_by(0);
        }
        Ok(broker)
    }

    /// The broker came or went.
    pub fn connected(&self, connected: bool) {
        self.connected.set(connected.into());
    }

    /// What became of a task: one of a closed list.
    pub fn delivery(&self, result: &'static str) {
        debug_assert!(RESULTS.contains(&result), "{result}");
        self.deliveries.with_label_values(&[result]).inc();
    }

    /// The broker handed a task out once more.
    pub fn redelivered(&self) {
        self.redeliveries.inc();
    }

    /// A session of a dead owner is this worker's now.
    pub fn took_over(&self) {
        self.takeovers.inc();
    }

    /// A session that ran here is another worker's now.
    pub fn claim_lost(&self) {
        self.claims_lost.inc();
    }

    /// An event was published, confirmed or not.
    pub fn publish(&self, confirmed: bool) {
        let result = if confirmed { "confirmed" } else { "failed" };
        self.publishes.with_label_values(&[result]).inc();
    }

    /// Output was dropped.
    pub fn output_dropped(&self, bytes: u64) {
        self.output_dropped.inc_by(bytes);
    }
}
