//! The worker itself: its build, its disk, whether it drains, and the process's own figures where the system tells them.

use prometheus::{IntGauge, Registry};

use super::Build;
use super::make::{bytes, gauge, info};

/// Metrics of the worker and its machine.
#[derive(Debug)]
pub struct Machine {
    draining: IntGauge,
    disk_free: IntGauge,
    disk_size: IntGauge,
    admission_paused: IntGauge,
}

impl Machine {
    pub(super) fn registered(all: &Registry, build: &Build) -> prometheus::Result<Self> {
        info(
            all,
            "cofferdam_build_info",
            "Always 1; says what runs. The commit is empty where the build did not know it.",
            &[("version", build.version), ("commit", build.commit)],
        )?;
        process(all)?;
        Ok(Self {
            draining: gauge(all, "cofferdam_draining", "1 while no new sessions are taken.")?,
            disk_free: gauge(
                all,
                "cofferdam_disk_free_bytes",
                "Free bytes of the file system that holds the worker's state.",
            )?,
            disk_size: gauge(
                all,
                "cofferdam_disk_size_bytes",
                "Bytes of that file system, used or free.",
            )?,
            admission_paused: gauge(
                all,
                "cofferdam_admission_paused",
                "1 while no task is taken because the disk is nearly full.",
            )?,
        })
    }

    /// Whether new sessions are taken.
    pub fn draining(&self, draining: bool) {
        self.draining.set(draining.into());
    }

    /// What the disk has, and whether tasks wait for it.
    pub fn disk(&self, size: u64, free: u64, paused: bool) {
        self.disk_size.set(bytes(size));
        self.disk_free.set(bytes(free));
        self.admission_paused.set(paused.into());
    }
}

#[cfg(target_os = "linux")]
fn process(registry: &Registry) -> prometheus::Result<()> {
    let own = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(own))
}

#[cfg(not(target_os = "linux"))]
fn process(_registry: &Registry) -> prometheus::Result<()> {
    Ok(())
}
