//! What operators see of a worker: every metric's name, help and labels in one place, behind methods.
//!
//! No id and no text from outside ever becomes a label: values come from closed lists or are `other`.

use std::time::Duration;

use prometheus::{
    Encoder as _, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// Upper bounds of a session's and a stage's duration, in seconds, to four hours.
const DURATIONS: [f64; 14] = [
    0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0,
];

/// Why the metrics could not be set up or shown.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Two metrics of the same name, or a name that Prometheus refuses: a bug.
    #[error("the metrics could not be registered: {0}")]
    Register(#[source] prometheus::Error),
}

/// All metrics of one worker.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sessions_in_progress: IntGaugeVec,
    sessions_finished: IntCounterVec,
    session_duration: HistogramVec,
    stage_duration: HistogramVec,
    forge_requests: IntCounterVec,
    amqp_connected: IntGauge,
    amqp_deliveries: IntCounterVec,
    amqp_publishes: IntCounterVec,
    change_requests: IntCounterVec,
    sandbox_create_failures: IntCounter,
    gateway_refusals: IntCounter,
    model_requests: IntCounterVec,
    egress_requests: IntCounterVec,
    egress_refused: IntCounterVec,
    egress_bytes: IntCounterVec,
    model_tokens: IntCounterVec,
    model_bytes: IntCounterVec,
    model_retries: IntCounterVec,
    concurrency_limit: IntGauge,
    sessions_waiting: IntGauge,
    draining: IntGauge,
    disk_free: IntGauge,
    admission_paused: IntGauge,
    engine_up: IntGauge,
    output_dropped: IntCounter,
    memory_kills: IntCounter,
}

impl Metrics {
    /// All metrics, at zero, with the process's own.
    pub fn new(version: &str) -> Result<Self, MetricsError> {
        Self::registered(version).map_err(MetricsError::Register)
    }

    fn registered(version: &str) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let all = &registry;
        let info = add(
            all,
            GaugeVec::new(
                Opts::new("cofferdam_build_info", "Always 1; says what runs."),
                &["version"],
            ),
        )?;
        info.with_label_values(&[version]).set(1.0);
        let metrics = Self {
            sessions_in_progress: gauge_vec(
                all,
                "cofferdam_sessions_in_progress",
                "Sessions by the stage they are in.",
                "stage",
            )?,
            sessions_finished: counters(
                all,
                "cofferdam_sessions_finished_total",
                "Sessions that ended, by coarse outcome and reason.",
                &["outcome", "reason"],
            )?,
            session_duration: seconds(
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
            forge_requests: counters(
                all,
                "cofferdam_forge_requests_total",
                "Requests to forges, by kind of forge, endpoint and status.",
                &["forge", "endpoint", "status"],
            )?,
            amqp_connected: gauge(all, "cofferdam_amqp_connected", "1 while the broker is reachable.")?,
            amqp_deliveries: counters(
                all,
                "cofferdam_amqp_deliveries_total",
                "Tasks taken from the broker, by what became of them.",
                &["result"],
            )?,
            amqp_publishes: counters(
                all,
                "cofferdam_amqp_publishes_total",
                "Events published, by whether the broker confirmed them.",
                &["result"],
            )?,
            change_requests: counters(
                all,
                "cofferdam_change_requests_total",
                "Merge and pull requests opened or updated.",
                &["forge", "action"],
            )?,
            sandbox_create_failures: counter(
                all,
                "cofferdam_sandbox_create_failures_total",
                "Sandboxes that could not be created.",
            )?,
            gateway_refusals: counter(
                all,
                "cofferdam_gateway_refusals_total",
                "Requests from sandboxes that the gateway refused.",
            )?,
            model_requests: counters(
                all,
                "cofferdam_model_requests_total",
                "Requests from sandboxes to models, by status.",
                &["status"],
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
            concurrency_limit: gauge(all, "cofferdam_concurrency_limit", "Sessions that may run at once.")?,
            sessions_waiting: gauge(
                all,
                "cofferdam_sessions_waiting",
                "Sessions that wait for people or for a prompt and do not work, with or without a slot.",
            )?,
            draining: gauge(all, "cofferdam_draining", "1 while no new sessions are taken.")?,
            disk_free: gauge(
                all,
                "cofferdam_disk_free_bytes",
                "Free bytes of the file system that holds the worker's state.",
            )?,
            admission_paused: gauge(
                all,
                "cofferdam_admission_paused",
                "1 while no task is taken because the disk is nearly full.",
            )?,
            engine_up: gauge(
                all,
                "cofferdam_engine_up",
                "1 while the container engine answers; while it is 0 no task is taken.",
            )?,
            output_dropped: counter(
                all,
                "cofferdam_output_dropped_bytes_total",
                "Bytes of output of agents and sandboxes that were dropped because there was too much of it.",
            )?,
            memory_kills: counter(
                all,
                "cofferdam_sandbox_memory_events_total",
                "Times that the engine told of a sandbox out of memory; one killed process may be told of more than once.",
            )?,
            registry: registry.clone(),
        };
        process(all)?;
        Ok(metrics)
    }

    /// Makes the labels of a closed list appear at zero, so that rates and alerts see the first event.
    pub fn expect_sessions(
        &self,
        stages: impl IntoIterator<Item = &'static str>,
        reasons: impl IntoIterator<Item = (&'static str, &'static str)>,
    ) {
        for stage in stages {
            self.sessions_in_progress.with_label_values(&[stage]).set(0);
        }
        for (outcome, reason) in reasons {
            self.sessions_finished.with_label_values(&[outcome, reason]).inc_by(0);
        }
    }

    /// A session entered a stage, and left another after this time, where it was in one.
    pub fn session_moved(&self, left: Option<(&'static str, Duration)>, entered: Option<&'static str>) {
        if let Some((stage, spent)) = left {
            self.sessions_in_progress.with_label_values(&[stage]).dec();
            self.stage_duration
                .with_label_values(&[stage])
                .observe(spent.as_secs_f64());
        }
        if let Some(stage) = entered {
            self.sessions_in_progress.with_label_values(&[stage]).inc();
        }
    }

    /// A session ended.
    pub fn session_finished(&self, outcome: &'static str, reason: &'static str, took: Duration) {
        self.sessions_finished.with_label_values(&[outcome, reason]).inc();
        self.session_duration
            .with_label_values(&[outcome])
            .observe(took.as_secs_f64());
    }

    /// A forge answered; `None` when it did not. `endpoint` is the operation's name, never a path.
    pub fn forge_request(&self, forge: &'static str, endpoint: &'static str, status: Option<u16>) {
        self.forge_requests
            .with_label_values(&[forge, endpoint, status_class(status)])
            .inc();
    }

    /// The broker came or went.
    pub fn amqp_connected(&self, connected: bool) {
        self.amqp_connected.set(connected.into());
    }

    /// A task was taken: `claimed`, `elsewhere`, `over`, `returned` or `dead_lettered`.
    pub fn amqp_delivery(&self, result: &'static str) {
        self.amqp_deliveries.with_label_values(&[result]).inc();
    }

    /// An event was published, confirmed or not.
    pub fn amqp_publish(&self, confirmed: bool) {
        let result = if confirmed { "confirmed" } else { "failed" };
        self.amqp_publishes.with_label_values(&[result]).inc();
    }

    /// A change request was `opened` or `updated`.
    pub fn change_request(&self, forge: &'static str, action: &'static str) {
        self.change_requests.with_label_values(&[forge, action]).inc();
    }

    /// A sandbox could not be created.
    pub fn sandbox_create_failure(&self) {
        self.sandbox_create_failures.inc();
    }

    /// The gateway refused a request from a sandbox.
    pub fn gateway_refusal(&self) {
        self.gateway_refusals.inc();
    }

    /// A model answered; `None` when it did not.
    pub fn model_request(&self, status: Option<u16>) {
        self.model_requests.with_label_values(&[status_class(status)]).inc();
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

    /// Makes the labels of refusals appear at zero.
    pub fn expect_egress(&self, rules: impl IntoIterator<Item = &'static str>) {
        for rule in rules {
            self.egress_refused.with_label_values(&[rule]).inc_by(0);
        }
    }

    /// Tokens that a model read and wrote. `model` is an endpoint's name in the configuration, never what a request says.
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

    /// How many sessions may run at once.
    pub fn concurrency_limit(&self, limit: usize) {
        self.concurrency_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// A session begins to wait for people or for a prompt, or waits no more.
    pub fn session_waits(&self, waits: bool) {
        self.sessions_waiting.add(if waits { 1 } else { -1 });
    }

    /// Whether new sessions are taken.
    pub fn draining(&self, draining: bool) {
        self.draining.set(draining.into());
    }

    /// What the disk has left, and whether tasks wait for it.
    pub fn disk(&self, free_bytes: u64, paused: bool) {
        self.disk_free.set(i64::try_from(free_bytes).unwrap_or(i64::MAX));
        self.admission_paused.set(paused.into());
    }

    /// Whether the engine can be counted on.
    pub fn engine(&self, up: bool) {
        self.engine_up.set(up.into());
    }

    /// Output was dropped.
    pub fn output_dropped(&self, bytes: u64) {
        self.output_dropped.inc_by(bytes);
    }

    /// The kernel killed something in a sandbox for memory.
    pub fn memory_kills(&self, count: u64) {
        self.memory_kills.inc_by(count);
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

/// Into a model, and out of it.
fn add_to(counters: &IntCounterVec, model: &str, input: u64, output: u64) {
    for (direction, more) in [("input", input), ("output", output)] {
        if more > 0 {
            counters.with_label_values(&[model, direction]).inc_by(more);
        }
    }
}

/// `2xx` to `5xx`, or `none` without an answer.
fn status_class(status: Option<u16>) -> &'static str {
    match status {
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(500..=599) => "5xx",
        Some(_) => "other",
        None => "none",
    }
}

fn add<T: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<T>,
) -> prometheus::Result<T> {
    let made = made?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    add(registry, IntGauge::new(name, help))
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    add(registry, IntCounter::new(name, help))
}

fn gauge_vec(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<IntGaugeVec> {
    add(registry, IntGaugeVec::new(Opts::new(name, help), &[label]))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    add(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn seconds(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<HistogramVec> {
    let options = HistogramOpts::new(name, help).buckets(DURATIONS.to_vec());
    add(registry, HistogramVec::new(options, &[label]))
}

/// The process's own metrics, where the system tells them.
#[cfg(target_os = "linux")]
fn process(registry: &Registry) -> prometheus::Result<()> {
    let own = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(own))
}

/// The process's own metrics, where the system tells them.
#[cfg(not(target_os = "linux"))]
fn process(_registry: &Registry) -> prometheus::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used() -> Metrics {
        let metrics = Metrics::new("1.2.3").unwrap();
        metrics.expect_sessions(["grant", "turn"], [("success", "published"), ("error", "internal")]);
        metrics.session_moved(None, Some("grant"));
        metrics.session_moved(Some(("grant", Duration::from_secs(2))), Some("turn"));
        metrics.session_finished("success", "published", Duration::from_secs(70));
        metrics.forge_request("gitlab", "project", Some(404));
        metrics.forge_request("gitlab", "project", None);
        metrics.amqp_connected(true);
        metrics.amqp_delivery("claimed");
        metrics.amqp_publish(false);
        metrics.change_request("github", "opened");
        metrics.sandbox_create_failure();
        metrics.gateway_refusal();
        metrics.model_request(Some(200));
        metrics.egress_request("registries");
        metrics.expect_egress(["host", "level"]);
        metrics.egress_refused("host");
        metrics.egress_bytes("up", 12);
        metrics.model_tokens("openai", 12, 3);
        metrics.model_bytes("openai", 0, 99);
        metrics.model_retry("openai");
        metrics.concurrency_limit(4);
        metrics.draining(true);
        metrics.disk(5, true);
        metrics.output_dropped(7);
        metrics.memory_kills(2);
        metrics
    }

    #[test]
    fn shows_what_happened() {
        let text = used().encode();
        for line in [
            "cofferdam_build_info{version=\"1.2.3\"} 1",
            "cofferdam_sessions_in_progress{stage=\"grant\"} 0",
            "cofferdam_sessions_in_progress{stage=\"turn\"} 1",
            "cofferdam_sessions_finished_total{outcome=\"success\",reason=\"published\"} 1",
            "cofferdam_sessions_finished_total{outcome=\"error\",reason=\"internal\"} 0",
            "cofferdam_session_duration_seconds_bucket{outcome=\"success\",le=\"180\"} 1",
            "cofferdam_session_stage_duration_seconds_bucket{stage=\"grant\",le=\"14400\"} 1",
            "cofferdam_forge_requests_total{endpoint=\"project\",forge=\"gitlab\",status=\"4xx\"} 1",
            "cofferdam_forge_requests_total{endpoint=\"project\",forge=\"gitlab\",status=\"none\"} 1",
            "cofferdam_amqp_connected 1",
            "cofferdam_amqp_deliveries_total{result=\"claimed\"} 1",
            "cofferdam_amqp_publishes_total{result=\"failed\"} 1",
            "cofferdam_change_requests_total{action=\"opened\",forge=\"github\"} 1",
            "cofferdam_sandbox_create_failures_total 1",
            "cofferdam_gateway_refusals_total 1",
            "cofferdam_model_requests_total{status=\"2xx\"} 1",
            "cofferdam_egress_requests_total{level=\"registries\"} 1",
            "cofferdam_egress_refused_total{rule=\"host\"} 1",
            "cofferdam_egress_refused_total{rule=\"level\"} 0",
            "cofferdam_egress_bytes_total{direction=\"up\"} 12",
            "cofferdam_model_tokens_total{direction=\"input\",model=\"openai\"} 12",
            "cofferdam_model_bytes_total{direction=\"output\",model=\"openai\"} 99",
            "cofferdam_model_retries_total{model=\"openai\"} 1",
            "cofferdam_concurrency_limit 4",
            "cofferdam_draining 1",
            "cofferdam_disk_free_bytes 5",
            "cofferdam_admission_paused 1",
            "cofferdam_output_dropped_bytes_total 7",
            "cofferdam_sandbox_memory_events_total 2",
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
        assert!(names >= 15, "{names}");
    }

    /// Prometheus' own linter, where it is installed or named by COFFERDAM_TEST_PROMTOOL.
    #[test]
    fn promtool_has_nothing_to_say() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let promtool = std::env::var("COFFERDAM_TEST_PROMTOOL").unwrap_or_else(|_| "promtool".into());
        let started = Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut check) = started else {
            // Not `eprintln!`, which the test harness swallows.
            let _ = std::io::stderr().write_all(b"SKIPPED: promtool is not installed\n");
            return;
        };
        let mut input = check.stdin.take().unwrap();
        input.write_all(used().encode().as_bytes()).unwrap();
        drop(input);
        let output = check.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
