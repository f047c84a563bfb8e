//! Sandboxes and the engine that runs them.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::make::{counter, counters, gauge, whole};

/// What may be left behind and removed.
const ORPHANS: [&str; 3] = ["container", "directory", "session"];

/// Metrics of sandboxes.
#[derive(Debug)]
pub struct Sandboxes {
    engine_up: IntGauge,
    created: IntCounter,
    create_failures: IntCounter,
    claims: IntCounterVec,
    warm: IntGauge,
    memory_events: IntCounter,
    orphans: IntCounterVec,
    links_refused: IntCounterVec,
}

impl Sandboxes {
    pub(super) fn registered(all: &Registry) -> prometheus::Result<Self> {
        let sandboxes = Self {
            engine_up: gauge(
                all,
                "cofferdam_engine_up",
                "1 while the container engine answers; while it is 0 no task is taken.",
            )?,
            created: counter(
                all,
                "cofferdam_sandboxes_created_total",
                "Sandboxes that were created, for a session or for the warm pool.",
            )?,
            create_failures: counter(
                all,
                "cofferdam_sandbox_create_failures_total",
                "Sandboxes that could not be created.",
            )?,
            claims: counters(
                all,
                "cofferdam_sandbox_claims_total",
                "Sandboxes that sessions began with, by whether one was ready (warm) or had to be started (cold).",
                &["from"],
            )?,
            warm: gauge(
                all,
                "cofferdam_sandboxes_warm",
                "Sandboxes that are started and wait for a session.",
            )?,
            memory_events: counter(
                all,
                "cofferdam_sandbox_memory_events_total",
                "Times that the engine told of a sandbox out of memory; one killed process may be told of more than once.",
            )?,
            orphans: counters(
                all,
                "cofferdam_orphans_removed_total",
                "What nobody owned and was removed: containers, directories of sandboxes, and what sessions left.",
                &["kind"],
            )?,
            links_refused: counters(
                all,
                "cofferdam_sandbox_links_refused_total",
                "Connections to the port of sandboxes in a cluster that were refused, by why: too many in a second from one address (rate), too \
                 many that did not show what they are (places), an unknown ticket or key (unknown).",
                &["why"],
            )?,
        };
        for from in ["warm", "cold"] {
            sandboxes.claims.with_label_values(&[from]).inc_by(0);
        }
        for kind in ORPHANS {
            sandboxes.orphans.with_label_values(&[kind]).inc_by(0);
        }
        Ok(sandboxes)
    }

    /// Whether the engine can be counted on.
    pub fn engine(&self, up: bool) {
        self.engine_up.set(up.into());
    }

    /// A sandbox was created, or could not be.
    pub fn created(&self, is_created: bool) {
        if is_created {
            self.created.inc();
        } else {
            self.create_failures.inc();
        }
    }

    /// A session began with a sandbox.
    pub fn claimed(&self, warm: bool) {
        self.claims
            .with_label_values(&[if warm { "warm" } else { "cold" }])
            .inc();
    }

    /// So many wait for a session.
    pub fn warm(&self, count: usize) {
        self.warm.set(whole(count));
    }

    /// The kernel killed something in a sandbox for memory.
    pub fn memory_kills(&self, count: u64) {
        self.memory_events.inc_by(count);
    }

    /// Makes every reason for a refusal at the sandboxes' port appear at zero.
    pub fn expect_link_refusals(&self, reasons: impl IntoIterator<Item = &'static str>) {
        for why in reasons {
            self.links_refused.with_label_values(&[why]).inc_by(0);
        }
    }

    /// A connection to the sandboxes' port was refused.
    pub fn link_refused(&self, why: &'static str) {
        self.links_refused.with_label_values(&[why]).inc();
    }

    /// Something that nobody owned was removed: one of a closed list.
    pub fn orphan(&self, kind: &'static str) {
        debug_assert!(ORPHANS.contains(&kind), "{kind}");
        self.orphans.with_label_values(&[kind]).inc();
    }
}
