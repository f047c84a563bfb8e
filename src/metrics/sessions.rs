//! Sessions: where they are, how long it takes, how they end, what they leave on forges, and who has the sandboxes' slots.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::make::{counters, gauge, gauges, seconds, whole};

/// What stands for an agent that is not configured here.
const OTHER: &str = "other";

/// What a session waits for when it does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaits {
    /// Somebody's word: on held work, to an agent's question, for a fresh credential.
    Answer,
    /// Its next prompt.
    Prompt,
}

impl Awaits {
    fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Prompt => "prompt",
        }
    }
}

/// Metrics of sessions.
#[derive(Debug)]
pub struct Sessions {
    /// The configured agents: the closed list of the label.
    agents: OnceLock<BTreeSet<String>>,
    in_progress: IntGaugeVec,
    waiting: IntGaugeVec,
    limit: IntGauge,
    finished: IntCounterVec,
    duration: HistogramVec,
    stage_duration: HistogramVec,
    change_requests: IntCounterVec,
}

impl Sessions {
    pub(super) fn registered(all: &Registry) -> prometheus::Result<Self> {
        let sessions = Self {
            agents: OnceLock::new(),
            in_progress: gauges(
                all,
                "cofferdam_sessions_in_progress",
                "Sessions by the stage they are in.",
                "stage",
            )?,
            waiting: gauges(
                all,
                "cofferdam_sessions_waiting",
                "Sessions that do not work, with or without a slot, by what they wait for: somebody's answer, or their next prompt.",
                "awaits",
            )?,
            limit: gauge(all, "cofferdam_concurrency_limit", "Sessions that may run at once.")?,
            finished: counters(
                all,
                "cofferdam_sessions_finished_total",
                "Sessions that ended or were suspended here, by agent, coarse outcome and reason.",
                &["agent", "outcome", "reason"],
            )?,
            duration: seconds(
                all,
                "cofferdam_session_duration_seconds",
                "Time from claim to end of a session.",
                "outcome",
            )?,
            stage_duration: seconds(
                all,
                "cofferdam_session_stage_duration_seconds",
                "Time that a session spent in a stage.",
                "stage",
            )?,
            change_requests: counters(
                all,
                "cofferdam_change_requests_total",
                "Merge and pull requests by kind of forge, by what was to be done (open, update) and whether it was (done, failed).",
                &["forge", "action", "result"],
            )?,
        };
        for awaits in [Awaits::Answer, Awaits::Prompt] {
            sessions.waiting.with_label_values(&[awaits.as_str()]).set(0);
        }
        Ok(sessions)
    }

    /// Makes the labels of closed lists appear at zero, so that rates and alerts see the first event. Once; later calls change nothing.
    pub fn expect(
        &self,
        agents: impl IntoIterator<Item = String>,
        stages: impl IntoIterator<Item = &'static str>,
        reasons: &[(&'static str, &'static str)],
    ) {
        let agents = self.agents.get_or_init(|| agents.into_iter().collect());
        for stage in stages {
            self.in_progress.with_label_values(&[stage]).set(0);
        }
        for agent in agents.iter().map(String::as_str).chain([OTHER]) {
            for (outcome, reason) in reasons {
                self.finished.with_label_values(&[agent, outcome, reason]).inc_by(0);
            }
        }
    }

    /// Makes the labels of change requests appear at zero.
    pub fn expect_change_requests(&self, forges: impl IntoIterator<Item = &'static str>) {
        for forge in forges {
            for action in ["open", "update"] {
                for result in ["done", "failed"] {
                    self.change_requests
                        .with_label_values(&[forge, action, result])
                        .inc_by(0);
                }
            }
        }
    }

    /// A session entered a stage, and left another after this time, where it was in one.
    pub fn moved(&self, left: Option<(&'static str, Duration)>, entered: Option<&'static str>) {
        if let Some((stage, spent)) = left {
            self.in_progress.with_label_values(&[stage]).dec();
            self.stage_duration
                .with_label_values(&[stage])
                .observe(spent.as_secs_f64());
        }
        if let Some(stage) = entered {
            self.in_progress.with_label_values(&[stage]).inc();
        }
    }

    /// A session ended. An agent that is not configured is `other`: a task may name anything.
    pub fn finished(&self, agent: Option<&str>, outcome: &'static str, reason: &'static str, took: Duration) {
        let known = self.agents.get();
        let agent = agent
            .filter(|agent| known.is_some_and(|known| known.contains(*agent)))
            .unwrap_or(OTHER);
        self.finished.with_label_values(&[agent, outcome, reason]).inc();
        self.duration.with_label_values(&[outcome]).observe(took.as_secs_f64());
    }

    /// A change request was to be opened, or brought up to date, and was or was not.
    pub fn change_request(&self, forge: &'static str, is_new: bool, is_done: bool) {
        let action = if is_new { "open" } else { "update" };
        let result = if is_done { "done" } else { "failed" };
        self.change_requests.with_label_values(&[forge, action, result]).inc();
    }

    /// How many sessions may run at once.
    pub fn limit(&self, limit: usize) {
        self.limit.set(whole(limit));
    }

    /// A session begins to wait, or waits no more.
    pub fn wait(&self, awaits: Awaits, waits: bool) {
        self.waiting
            .with_label_values(&[awaits.as_str()])
            .add(if waits { 1 } else { -1 });
    }
}
