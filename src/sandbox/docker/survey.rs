//! What `doctor` tells of the engine: versions of its parts, its runtimes, the kernel's control groups, its containers.
//!
//! Only asks; what an engine does not say stays empty.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{Runtime, SystemVersionComponents};
use bollard::query_parameters::ListContainersOptionsBuilder;

use super::{sentence, within};
use crate::sandbox::{SandboxError, Survey};

/// The names of the runtimes, in order.
pub(super) fn names(runtimes: Option<HashMap<String, Runtime>>) -> Vec<String> {
    let mut names: Vec<String> = runtimes.unwrap_or_default().into_keys().collect();
    names.sort();
    names
}

/// A part's name and version; some distributions put their own whole version where the commit stands.
fn component(part: SystemVersionComponents) -> (String, String) {
    let mut details = part.details.unwrap_or_default();
    let commit = details.remove("GitCommit");
    let whole = commit.filter(|commit| commit.starts_with(&part.version));
    (part.name, whole.unwrap_or(part.version))
}

/// Asks for all of it.
pub(super) async fn survey(client: &Docker, timeout: Duration) -> Result<Survey, SandboxError> {
    let failed = |error: Error| SandboxError::Connect {
        detail: sentence(&error),
    };
    let version = within(timeout, client.version()).await.map_err(failed)?;
    let info = within(timeout, client.info()).await.map_err(failed)?;
    let options = ListContainersOptionsBuilder::default().all(true).build();
    let containers = within(timeout, client.list_containers(Some(options)))
        .await
        .map_err(failed)?;
    let components = version.components.unwrap_or_default();
    let mut runtimes: Vec<(String, String)> = info
        .runtimes
        .unwrap_or_default()
        .into_iter()
        .map(|(name, runtime)| (name, runtime.path.unwrap_or_default()))
        .collect();
    runtimes.sort();
    Ok(Survey {
        components: components.into_iter().map(component).collect(),
        cgroups: info
            .cgroup_version
            .map(|version| version.to_string())
            .unwrap_or_default(),
        runtimes,
        containers: containers.into_iter().filter_map(|container| container.id).collect(),
    })
}
