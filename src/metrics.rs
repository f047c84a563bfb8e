//! What operators see of a worker: every metric's name, help and labels, a file for each topic, behind methods.
//!
//! No id and no text from outside ever becomes a label: values come from closed lists or are `other`.

use std::sync::Arc;

use prometheus::{Encoder as _, Registry, TextEncoder};

mod broker;
mod forges;
mod gateway;
mod machine;
mod make;
mod recent;
mod sandboxes;
mod sessions;

pub use broker::Broker;
pub use forges::Forges;
pub use gateway::Gateway;
pub use machine::Machine;
pub use recent::{Recent, Told};
pub use sandboxes::Sandboxes;
pub use sessions::{Awaits, Sessions};

/// Why the metrics could not be set up or shown.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Two metrics of the same name, or a name that Prometheus refuses: a bug.
    #[error("the metrics could not be registered: {0}")]
    Register(#[source] prometheus::Error),
}

/// What runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Build {
    /// The program's version.
    pub version: &'static str,
    /// The commit that it was built from; empty where that is not known.
    pub commit: &'static str,
}

/// All metrics of one worker.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Sessions and their change requests.
    pub sessions: Sessions,
    /// The broker.
    pub broker: Broker,
    /// Forges and mirrors.
    pub forges: Forges,
    /// Sandboxes and their engine.
    pub sandboxes: Sandboxes,
    /// Models, and the way out.
    pub gateway: Gateway,
    /// The worker and its machine.
    pub machine: Machine,
    /// The last lines of each session; not among the metrics.
    pub recent: Arc<Recent>,
}

impl Metrics {
    /// All metrics, at zero, with the process's own.
    ///
    /// # Errors
    /// A bug: see [`MetricsError`].
    pub fn new(build: &Build) -> Result<Self, MetricsError> {
        Self::registered(build).map_err(MetricsError::Register)
    }

    fn registered(build: &Build) -> prometheus::Result<Self> {
        let registry = Registry::new();
        Ok(Self {
            sessions: Sessions::registered(&registry)?,
            broker: Broker::registered(&registry)?,
            forges: Forges::registered(&registry)?,
            sandboxes: Sandboxes::registered(&registry)?,
            gateway: Gateway::registered(&registry)?,
            machine: Machine::registered(&registry, build)?,
            recent: Arc::default(),
            registry,
        })
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics could not be encoded");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn used() -> Metrics {
        let metrics = Metrics::new(&Build {
            version: "1.2.3",
            commit: "abc",
        })
        .unwrap();
        let sessions = &metrics.sessions;
        sessions.expect(
            ["scripted".to_owned()],
            ["grant", "turn"],
            &[("success", "published"), ("error", "internal")],
        );
        sessions.moved(None, Some("grant"));
        sessions.moved(Some(("grant", Duration::from_secs(2))), Some("turn"));
        sessions.finished(Some("scripted"), "success", "published", Duration::from_secs(70));
        sessions.finished(Some("nobody's"), "error", "internal", Duration::ZERO);
        sessions.finished(None, "error", "internal", Duration::ZERO);
        sessions.expect_change_requests(["gitlab", "github"]);
        sessions.change_request("github", true, true);
        sessions.change_request("gitlab", false, false);
        sessions.limit(4);
        sessions.wait(Awaits::Answer, true);
        sessions.wait(Awaits::Prompt, true);
        sessions.wait(Awaits::Prompt, false);
        metrics.forges.request("gitlab", "project", Some(404));
        metrics.forges.request("gitlab", "project", None);
        metrics.forges.rate_left("github", 25);
        metrics.forges.stored(2, 4096, 1);
        metrics.forges.refreshed("hit");
        metrics.broker.connected(true);
        metrics.broker.delivery("claimed");
        metrics.broker.redelivered();
        metrics.broker.took_over();
        metrics.broker.claim_lost();
        metrics.broker.publish(false);
        metrics.broker.output_dropped(7);
        metrics.sandboxes.created(true);
        metrics.sandboxes.created(false);
        metrics.sandboxes.claimed(true);
        metrics.sandboxes.warm(2);
        metrics.sandboxes.memory_kills(2);
        metrics.sandboxes.orphan("container");
        metrics.gateway.refused();
        metrics.gateway.expect_models(["openai"]);
        metrics.gateway.model_request("openai", Some(200));
        metrics.gateway.model_tokens("openai", 12, 3);
        metrics.gateway.model_bytes("openai", 0, 99);
        metrics.gateway.model_retry("openai");
        metrics.gateway.expect_egress(["registries", "open"], ["host", "level"]);
        metrics.gateway.egress_request("registries");
        metrics.gateway.egress_refused("host");
        metrics.gateway.egress_bytes("up", 12);
        metrics.machine.draining(true);
        metrics.machine.disk(9, 5, true);
        metrics
    }

    #[test]
    fn shows_what_happened() {
        let text = used().encode();
        for line in [
            "cofferdam_build_info{commit=\"abc\",version=\"1.2.3\"} 1",
            "cofferdam_sessions_in_progress{stage=\"grant\"} 0",
            "cofferdam_sessions_in_progress{stage=\"turn\"} 1",
            "cofferdam_sessions_waiting{awaits=\"answer\"} 1",
            "cofferdam_sessions_waiting{awaits=\"prompt\"} 0",
            "cofferdam_sessions_finished_total{agent=\"scripted\",outcome=\"success\",reason=\"published\"} 1",
            "cofferdam_sessions_finished_total{agent=\"scripted\",outcome=\"error\",reason=\"internal\"} 0",
            "cofferdam_sessions_finished_total{agent=\"other\",outcome=\"error\",reason=\"internal\"} 2",
            "cofferdam_session_duration_seconds_bucket{outcome=\"success\",le=\"180\"} 1",
            "cofferdam_session_stage_duration_seconds_bucket{stage=\"grant\",le=\"14400\"} 1",
            "cofferdam_change_requests_total{action=\"open\",forge=\"github\",result=\"done\"} 1",
            "cofferdam_change_requests_total{action=\"update\",forge=\"gitlab\",result=\"failed\"} 1",
            "cofferdam_change_requests_total{action=\"open\",forge=\"gitlab\",result=\"failed\"} 0",
            "cofferdam_concurrency_limit 4",
            "cofferdam_forge_requests_total{endpoint=\"project\",forge=\"gitlab\",status=\"4xx\"} 1",
            "cofferdam_forge_requests_total{endpoint=\"project\",forge=\"gitlab\",status=\"none\"} 1",
            "cofferdam_forge_rate_remaining_ratio{forge=\"github\"} 0.25",
            "cofferdam_mirrors 2",
            "cofferdam_mirrors_size_bytes 4096",
            "cofferdam_mirror_refreshes_total{result=\"hit\"} 1",
            "cofferdam_mirror_refreshes_total{result=\"made\"} 0",
            "cofferdam_kept_bundles 1",
            "cofferdam_amqp_connected 1",
            "cofferdam_amqp_deliveries_total{result=\"claimed\"} 1",
            "cofferdam_amqp_redeliveries_total 1",
            "cofferdam_takeovers_total 1",
            "cofferdam_claims_lost_total 1",
            "cofferdam_amqp_publishes_total{result=\"failed\"} 1",
            "cofferdam_output_dropped_bytes_total 7",
            "cofferdam_sandboxes_created_total 1",
            "cofferdam_sandbox_create_failures_total 1",
            "cofferdam_sandbox_claims_total{from=\"warm\"} 1",
            "cofferdam_sandboxes_warm 2",
            "cofferdam_sandbox_memory_events_total 2",
            "cofferdam_orphans_removed_total{kind=\"container\"} 1",
            "cofferdam_orphans_removed_total{kind=\"session\"} 0",
            "cofferdam_gateway_refusals_total 1",
            "cofferdam_model_requests_total{model=\"openai\",status=\"2xx\"} 1",
            "cofferdam_model_tokens_total{direction=\"input\",model=\"openai\"} 12",
            "cofferdam_model_bytes_total{direction=\"output\",model=\"openai\"} 99",
            "cofferdam_model_retries_total{model=\"openai\"} 1",
            "cofferdam_egress_requests_total{level=\"registries\"} 1",
            "cofferdam_egress_refused_total{rule=\"host\"} 1",
            "cofferdam_egress_refused_total{rule=\"level\"} 0",
            "cofferdam_egress_bytes_total{direction=\"up\"} 12",
            "cofferdam_draining 1",
            "cofferdam_disk_free_bytes 5",
            "cofferdam_disk_size_bytes 9",
            "cofferdam_admission_paused 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
        #[cfg(target_os = "linux")]
        assert!(text.contains("process_resident_memory_bytes"));
    }

    #[test]
    fn all_names_are_ours_or_the_process_and_all_have_help() {
        let text = used().encode();
        let mut names = 0;
        for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = name.split(' ').next().unwrap();
            assert!(name.starts_with("cofferdam_") || name.starts_with("process_"), "{name}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            names += 1;
        }
        assert!(names >= 30, "{names}");
    }
}
