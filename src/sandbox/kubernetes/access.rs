//! What `doctor` asks a cluster: whether it answers, whether the worker may do what it does there, and whether sandboxes could get out.
//!
//! Changes nothing: the pod that it shows to the cluster is only tried.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use super::refusal::Asked;
use super::{KubernetesEngine, spec};
use crate::message::SandboxId;
use crate::sandbox::owner::Owner;
use crate::sandbox::{SandboxError, SandboxSpec, left};

/// All that the worker does in the namespace: group, resource, verb.
pub const NEEDED: [(&str, &str, &str); 11] = [
    ("", "pods", "create"),
    ("", "pods", "list"),
    ("", "pods", "watch"),
    ("", "pods", "delete"),
    ("", "secrets", "create"),
    ("", "secrets", "delete"),
    ("coordination.k8s.io", "leases", "create"),
    ("coordination.k8s.io", "leases", "patch"),
    ("coordination.k8s.io", "leases", "list"),
    ("coordination.k8s.io", "leases", "delete"),
    ("networking.k8s.io", "networkpolicies", "list"),
];

impl KubernetesEngine {
    /// What the worker may not do there, as `verb resource`.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn denied(&self) -> Result<Vec<String>, SandboxError> {
        let cluster = self.cluster().await?;
        let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
        let mut denied = Vec::new();
        for (group, resource, verb) in NEEDED {
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes: Some(ResourceAttributes {
                        namespace: Some(self.config.kubernetes.namespace.clone()),
                        group: Some(group.to_owned()),
                        resource: Some(resource.to_owned()),
                        verb: Some(verb.to_owned()),
                        ..ResourceAttributes::default()
                    }),
                    ..SelfSubjectAccessReviewSpec::default()
                },
                ..SelfSubjectAccessReview::default()
            };
            let asked = Asked {
                act: "ask what it may do",
                runtime: None,
            };
            let options = PostParams::default();
            let answer = cluster.call(&asked, reviews.create(&options, &review)).await?;
            if !answer.status.is_some_and(|status| status.allowed) {
                denied.push(format!("{verb} {resource}"));
            }
        }
        Ok(denied)
    }

    /// Whether the network is closed for sandboxes, as far as the namespace's policies say.
    ///
    /// # Errors
    /// It is not, or the cluster does not answer.
    pub async fn is_closed(&self) -> Result<(), SandboxError> {
        let cluster = self.cluster().await?;
        self.require_closed(&cluster).await
    }

    /// Shows the cluster a pod without having it made: quotas, admission and the runtime class have their say.
    ///
    /// # Errors
    /// The cluster would refuse it.
    pub async fn would_take(&self, image: &str, runtime: Option<&str>) -> Result<(), SandboxError> {
        let cluster = self.cluster().await?;
        let tried = SandboxSpec {
            id: SandboxId::random(),
            image: image.to_owned(),
            runtime: runtime.map(str::to_owned),
            worker: "doctor".to_owned(),
            owner: Owner {
                state_dir: "/".into(),
                id: uuid::Uuid::nil(),
                place: String::new(),
            },
            deadline: left::now(),
            socket_directory: "/".into(),
            objects_directory: "/".into(),
            tools_directory: "/".into(),
            workspace_directory: None,
        };
        let worker = self
            .config
            .kubernetes
            .advertised()
            .ok_or_else(|| SandboxError::Prepare {
                detail: "sandbox.kubernetes.advertise is no address".to_owned(),
            })?;
        let pod = spec::pod(&self.config, &tried, None, worker, 60);
        let options = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let asked = Asked {
            act: "create pods",
            runtime,
        };
        cluster
            .call(&asked, cluster.pods.create(&options, &pod))
            .await
            .map(drop)
    }
}
