//! Forges and what is kept of them: requests, what is left of rate limits, and the mirrors.

use prometheus::{GaugeVec, IntCounterVec, IntGauge, Registry};

use super::make::{bytes, counters, gauge, ratios, status_class, whole};

/// What may come of a refresh.
const REFRESHES: [&str; 4] = ["hit", "updated", "made", "failed"];

/// Metrics of forges and mirrors.
#[derive(Debug)]
pub struct Forges {
    requests: IntCounterVec,
    rate_left: GaugeVec,
    mirrors: IntGauge,
    mirror_bytes: IntGauge,
    refreshes: IntCounterVec,
    kept: IntGauge,
}

impl Forges {
    pub(super) fn registered(all: &Registry) -> prometheus::Result<Self> {
        let forges = Self {
            requests: counters(
                all,
                "cofferdam_forge_requests_total",
                "Requests to forges, by kind of forge, endpoint and status.",
                &["forge", "endpoint", "status"],
            )?,
            rate_left: ratios(
                all,
                "cofferdam_forge_rate_remaining_ratio",
                "Part of its rate limit that the token which asked last has left (0 to 1), as the forge said.",
                "forge",
            )?,
            mirrors: gauge(all, "cofferdam_mirrors", "Mirrors of projects on this worker.")?,
            mirror_bytes: gauge(
                all,
                "cofferdam_mirrors_size_bytes",
                "Bytes of all mirrors. Objects that a session has linked count here too, and take their room once.",
            )?,
            refreshes: counters(
                all,
                "cofferdam_mirror_refreshes_total",
                "Refreshes of mirrors before sessions: nothing was to be fetched (hit), something was (updated), there was no mirror (made), or it failed.",
                &["result"],
            )?,
            kept: gauge(
                all,
                "cofferdam_kept_bundles",
                "Bundles of work that could not be published and waits in kept/.",
            )?,
        };
        for result in REFRESHES {
            forges.refreshes.with_label_values(&[result]).inc_by(0);
        }
        Ok(forges)
    }

    /// A forge answered; `None` when it did not. `endpoint` is the operation's name, never a path.
    pub fn request(&self, forge: &'static str, endpoint: &'static str, status: Option<u16>) {
        self.requests
            .with_label_values(&[forge, endpoint, status_class(status)])
            .inc();
    }

    /// What a token has left of its rate limit, in hundredths.
    pub fn rate_left(&self, forge: &'static str, hundredths: u8) {
        self.rate_left
            .with_label_values(&[forge])
            .set(f64::from(hundredths) / 100.0);
    }

    /// What is on the disk: mirrors, their bytes, bundles.
    pub fn stored(&self, mirrors: usize, mirror_bytes: u64, kept: usize) {
        self.mirrors.set(whole(mirrors));
        self.mirror_bytes.set(bytes(mirror_bytes));
        self.kept.set(whole(kept));
    }

    /// What came of a refresh: one of a closed list.
    pub fn refreshed(&self, result: &'static str) {
        debug_assert!(REFRESHES.contains(&result), "{result}");
        self.refreshes.with_label_values(&[result]).inc();
    }
}
