//! What `doctor` asks a cluster about the namespace itself: what bounds the pods in it. Only looks.
//!
//! No part of making sandboxes: a worker that may not look here works all the same, and what it cannot see is said to be unseen.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota};
use kube::Api;
use kube::api::ListParams;

use super::KubernetesEngine;
use super::refusal::Asked;
use crate::sandbox::SandboxError;

/// The label with which a namespace says what its pods may be.
pub const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
/// What a quota bounds the number of pods by.
const OF_PODS: [&str; 2] = ["pods", "count/pods"];

fn asked(act: &str) -> Asked<'_> {
    Asked { act, runtime: None }
}

impl KubernetesEngine {
    /// The level of pod security that the namespace enforces, where it says one.
    ///
    /// # Errors
    /// The worker may not look, or the cluster does not answer.
    pub async fn pod_security(&self) -> Result<Option<String>, SandboxError> {
        let cluster = self.cluster().await?;
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        let asked = asked("get namespaces");
        let found = cluster
            .call(&asked, namespaces.get(&self.config.kubernetes.namespace))
            .await?;
        Ok(found.metadata.labels.and_then(|mut labels| labels.remove(ENFORCE)))
    }

    /// The quotas that bound how many pods there may be, as `name: number`.
    ///
    /// # Errors
    /// The worker may not look, or the cluster does not answer.
    pub async fn quotas(&self) -> Result<Vec<String>, SandboxError> {
        let cluster = self.cluster().await?;
        let quotas: Api<ResourceQuota> = Api::namespaced(cluster.client.clone(), &self.config.kubernetes.namespace);
        let asked = asked("list resourcequotas");
        let found = cluster.call(&asked, quotas.list(&ListParams::default())).await?;
        let bound = |quota: ResourceQuota| {
            let hard = quota.spec?.hard?;
            let most = OF_PODS.iter().find_map(|name| hard.get(*name))?;
            Some(format!("{}: {}", quota.metadata.name.unwrap_or_default(), most.0))
        };
        Ok(found.items.into_iter().filter_map(bound).collect())
    }

    /// The names of what limits or completes the resources of single pods there.
    ///
    /// # Errors
    /// The worker may not look, or the cluster does not answer.
    pub async fn limit_ranges(&self) -> Result<BTreeSet<String>, SandboxError> {
        let cluster = self.cluster().await?;
        let ranges: Api<LimitRange> = Api::namespaced(cluster.client.clone(), &self.config.kubernetes.namespace);
        let asked = asked("list limitranges");
        let found = cluster.call(&asked, ranges.list(&ListParams::default())).await?;
        Ok(found
            .items
            .into_iter()
            .filter_map(|range| range.metadata.name)
            .collect())
    }
}
