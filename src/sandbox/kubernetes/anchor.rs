//! The worker's own object in the namespace of its sandboxes: a Lease that owns their pods, and is renewed for as long as the worker lives.
//!
//! The cluster takes an owner in another namespace for one that is gone, so the worker's own pod can own nothing there. Who deletes a worker's
//! Lease has the cluster's garbage collector take its pods and what those own, whatever became of the worker. That is done by the worker itself
//! at its end and at its next start, and by any other worker where the Lease was not renewed in its time (see `overdue`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use tokio::task::JoinHandle;

use super::overdue::{Others, Renewed};
use super::refusal::Asked;
use super::sandbox::Cluster;
use crate::sandbox::SandboxError;
use crate::sandbox::owner::Owner;

mod api {
    pub(super) const VERSION: &str = "coordination.k8s.io/v1";
    pub(super) const KIND: &str = "Lease";
}

/// Whose Lease it is: the id of the worker's state directory, which only one process has at a time.
const ANCHOR_LABEL: &str = "dev.cofferdam/anchor";
/// In a Lease's time it is tried so often to renew it, and within these limits.
const RENEWALS: u32 = 20;
const RENEW_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What a Lease says of its worker.
pub(super) struct Worker<'a> {
    /// The Lease's name, one for each process.
    pub(super) name: &'a str,
    /// For people.
    pub(super) holder: &'a str,
    pub(super) owner: &'a Owner,
    /// The worker's own pod, where it is in this namespace.
    pub(super) pod: Option<OwnerReference>,
    /// How long it may go without a renewal.
    pub(super) lease: Duration,
}

/// A Lease that is renewed until this is dropped.
pub(super) struct Anchor {
    own: Arc<Own>,
    task: JoinHandle<()>,
}

/// What is needed to renew it.
struct Own {
    leases: Api<Lease>,
    name: String,
    uid: String,
    timeout: Duration,
    is_gone: AtomicBool,
    /// Whether it was told that the cluster refuses renewals.
    is_told: AtomicBool,
}

impl Drop for Anchor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Anchor {
    /// Makes it, and begins to renew it.
    ///
    /// # Errors
    /// The cluster does not answer, or refuses.
    pub(super) async fn make(cluster: &Cluster, namespace: &str, worker: &Worker<'_>) -> Result<Self, SandboxError> {
        let leases = leases(cluster, namespace);
        let asked = Asked {
            act: "create leases",
            runtime: None,
        };
        let (options, lease) = (PostParams::default(), lease(namespace, worker));
        let made = match cluster.call(&asked, leases.create(&options, &lease)).await {
            // An earlier call was cut, and carried out all the same: nothing is owned by what it made.
            Err(SandboxError::Create { detail }) if detail.contains("already exists") => {
                delete(cluster, &leases, worker.name).await?;
                cluster.call(&asked, leases.create(&options, &lease)).await
            }
            made => made,
        }?;
        let uid = made.metadata.uid.ok_or_else(|| SandboxError::Create {
            detail: "the cluster made a lease and did not say its uid".to_owned(),
        })?;
        let every = (worker.lease / RENEWALS).clamp(RENEW_EVERY.0, RENEW_EVERY.1);
        let own = Arc::new(Own {
            leases,
            name: worker.name.to_owned(),
            uid,
            timeout: cluster.timeout,
            is_gone: AtomicBool::default(),
            is_told: AtomicBool::default(),
        });
        Ok(Self {
            task: tokio::spawn(renew_regularly(own.clone(), every)),
            own,
        })
    }

    /// Whether it is there now, which is asked before each pod: the cluster deletes at once what is owned by something that is gone. An API that
    /// does not answer tells nothing.
    pub(super) async fn is_there(&self) -> bool {
        if !self.own.is_gone.load(Ordering::Relaxed) {
            self.own.renew().await;
        }
        !self.own.is_gone.load(Ordering::Relaxed)
    }

    /// It, as the owner of a pod.
    pub(super) fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: api::VERSION.to_owned(),
            kind: api::KIND.to_owned(),
            name: self.own.name.clone(),
            uid: self.own.uid.clone(),
            controller: None,
            block_owner_deletion: None,
        }
    }

    /// Ends it, and with it whatever it still owns.
    pub(super) async fn end(self: Arc<Self>, cluster: &Cluster, namespace: &str) {
        self.task.abort();
        if let Err(error) = delete(cluster, &leases(cluster, namespace), &self.own.name).await {
            tracing::warn!(%error, lease = self.own.name, "this worker's lease was not removed; another worker removes it when its time is over");
        }
    }
}

/// Deletes the Leases of this state directory's former workers, and those that were not renewed in their time.
///
/// # Errors
/// They could not be listed. What was seen before counts for nothing then.
pub(super) async fn sweep(
    cluster: &Cluster,
    namespace: &str,
    own: &str,
    here: &Owner,
    others: &tokio::sync::Mutex<Others>,
) -> Result<(), SandboxError> {
    let leases = leases(cluster, namespace);
    let asked = Asked {
        act: "list leases",
        runtime: None,
    };
    let ours = ListParams::default().labels(ANCHOR_LABEL);
    let found = cluster.call(&asked, leases.list(&ours)).await?;
    let here = here.id.to_string();
    let mut foreign = Vec::new();
    for one in found.items {
        let Some(name) = one.metadata.name.clone().filter(|name| name != own) else {
            continue;
        };
        let whose = one.metadata.labels.as_ref().and_then(|labels| labels.get(ANCHOR_LABEL));
        if whose == Some(&here) {
            remove(
                cluster,
                &leases,
                &name,
                &one,
                "its worker's directory has another one now",
            )
            .await;
        } else if let Some(renewed) = Renewed::of(&one) {
            foreign.push((name, one, renewed));
        }
    }
    let (now, wall) = (std::time::Instant::now(), jiff::Timestamp::now());
    let overdue = {
        let seen: Vec<&Renewed> = foreign.iter().map(|(_, _, renewed)| renewed).collect();
        others.lock().await.look(&seen, now, wall)
    };
    for ((name, lease, _), _) in foreign.iter().zip(overdue).filter(|(_, overdue)| *overdue) {
        remove(cluster, &leases, name, lease, "its worker did not renew it in its time").await;
    }
    Ok(())
}

async fn remove(cluster: &Cluster, leases: &Api<Lease>, name: &str, lease: &Lease, why: &str) {
    // Not if it is renewed at this moment.
    let mut options = DeleteParams::background();
    options.preconditions = Some(Preconditions {
        resource_version: lease.metadata.resource_version.clone(),
        uid: lease.metadata.uid.clone(),
    });
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
    match tokio::time::timeout(cluster.timeout, leases.delete(name, &options)).await {
        Ok(Ok(_)) => tracing::warn!(
            lease = name,
            worker = holder.unwrap_or_default(),
            why,
            "a worker's lease is removed, and the sandboxes that it owned"
        ),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
            tracing::debug!(lease = name, "a worker's lease was renewed or removed meanwhile");
        }
        Ok(Err(error)) => tracing::warn!(%error, lease = name, "a dead worker's lease was not removed"),
        Err(_) => tracing::warn!(lease = name, "a dead worker's lease was not removed in time"),
    }
}

async fn delete(cluster: &Cluster, leases: &Api<Lease>, name: &str) -> Result<(), SandboxError> {
    let options = DeleteParams::background();
    cluster.gone("delete leases", leases.delete(name, &options)).await
}

/// Renews until it is gone. An API that is away is tried again: what it owns lives on meanwhile.
async fn renew_regularly(own: Arc<Own>, every: Duration) {
    while !own.is_gone.load(Ordering::Relaxed) {
        tokio::time::sleep(every).await;
        own.renew().await;
    }
}

impl Own {
    async fn renew(&self) {
        let lease = &self.name;
        let now = MicroTime(k8s_openapi::jiff::Timestamp::now());
        // With its uid: another one of this name is not this one.
        let patch = Patch::Merge(serde_json::json!({"metadata": {"uid": self.uid}, "spec": {"renewTime": now}}));
        let options = PatchParams::default();
        let renewing = tokio::time::timeout(self.timeout, self.leases.patch(lease, &options, &patch));
        match renewing.await {
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                if !self.is_gone.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        lease,
                        "this worker's lease was removed, and its sandboxes with it: the next sandbox makes another"
                    );
                }
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
                if !self.is_told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        lease,
                        "the cluster does not let this worker renew its lease, so other workers will remove its sandboxes: allow it to patch leases ({})",
                        status.message
                    );
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, lease, "this worker's lease was not renewed; tried again"),
            Err(_) => tracing::debug!(lease, "this worker's lease was not renewed in time; tried again"),
            Ok(Ok(_)) => {}
        }
    }
}

fn leases(cluster: &Cluster, namespace: &str) -> Api<Lease> {
    Api::namespaced(cluster.client.clone(), namespace)
}

fn lease(namespace: &str, worker: &Worker<'_>) -> Lease {
    let now = MicroTime(k8s_openapi::jiff::Timestamp::now());
    let label = |name: &str, value: String| (name.to_owned(), value);
    Lease {
        metadata: ObjectMeta {
            name: Some(worker.name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(
                [
                    label("app.kubernetes.io/managed-by", "cofferdam".to_owned()),
                    label(ANCHOR_LABEL, worker.owner.id.to_string()),
                ]
                .into(),
            ),
            owner_references: worker.pod.clone().map(|pod| vec![pod]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(worker.holder.to_owned()),
            lease_duration_seconds: i32::try_from(worker.lease.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}
