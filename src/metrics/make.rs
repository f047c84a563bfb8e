//! Makes metrics and registers them, so that each topic says only names, helps and labels.

use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Upper bounds of a session's and a stage's duration, in seconds, to four hours.
const DURATIONS: [f64; 14] = [
    0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0,
];

fn add<T: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<T>,
) -> prometheus::Result<T> {
    let made = made?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    add(registry, IntGauge::new(name, help))
}

/// Says always 1, and the labels what it is about.
pub(super) fn info(registry: &Registry, name: &str, help: &str, labels: &[(&str, &str)]) -> prometheus::Result<()> {
    let mut options = Opts::new(name, help);
    for (label, value) in labels {
        options = options.const_label(*label, *value);
    }
    add(registry, Gauge::with_opts(options))?.set(1.0);
    Ok(())
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    add(registry, IntCounter::new(name, help))
}

pub(super) fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<IntGaugeVec> {
    add(registry, IntGaugeVec::new(Opts::new(name, help), &[label]))
}

/// Gauges between 0 and 1.
pub(super) fn ratios(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<GaugeVec> {
    add(registry, GaugeVec::new(Opts::new(name, help), &[label]))
}

pub(super) fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    add(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

pub(super) fn seconds(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<HistogramVec> {
    let options = HistogramOpts::new(name, help).buckets(DURATIONS.to_vec());
    add(registry, HistogramVec::new(options, &[label]))
}

/// A count of things that are there now.
pub(super) fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Bytes that are there now.
pub(super) fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// `2xx` to `5xx`, or `none` without an answer.
pub(super) fn status_class(status: Option<u16>) -> &'static str {
    match status {
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(500..=599) => "5xx",
        Some(_) => "other",
        None => "none",
    }
}
