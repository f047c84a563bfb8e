//! One pod of ours that runs: waited for, and removed.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::DeleteParams;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

use super::door::Pass;
use super::follow::Follow;
use super::refusal::{Asked, told, unanswered};
use super::told::{Seen, is_full};
use crate::sandbox::{Ended, Sandbox, SandboxError};

/// How long a pod may take to end by itself when it is removed, in seconds: its link is gone by then, and it can do no more.
const GRACE_S: u32 = 1;

/// The status with which `inside` ends when its link did.
const WORKER_GONE: i64 = 3;

/// How long the cluster may take to say what became of a sandbox whose link broke.
const LAST_WORD: Duration = Duration::from_secs(4);

/// A started pod.
pub(super) struct Running {
    pub(super) cluster: Cluster,
    pub(super) name: String,
    pub(super) follow: Follow,
    pub(super) pass: Arc<Pass>,
}

/// What is asked of the API for one namespace.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) client: kube::Client,
    pub(super) pods: Api<Pod>,
    pub(super) secrets: Api<Secret>,
    /// The namespace of who asks: an owner in another one would own nothing.
    pub(super) home: String,
    pub(super) timeout: Duration,
}

impl Cluster {
    /// One call with its time limit.
    pub(super) async fn call<T>(
        &self,
        asked: &Asked<'_>,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, SandboxError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer.map_err(|error| told(&error, asked)),
            Err(_) => Err(unanswered(format!("no answer within {} s", self.timeout.as_secs()))),
        }
    }

    /// Whether it answers at all.
    pub(super) async fn version(&self) -> Result<String, SandboxError> {
        let asked = Asked {
            act: "ask for its version",
            runtime: None,
        };
        let version = self.call(&asked, self.client.apiserver_version()).await?;
        Ok(version.git_version)
    }

    /// Removes a pod and its secret. What is gone already is success.
    pub(super) async fn remove(&self, name: &str) -> Result<(), SandboxError> {
        let now = DeleteParams::default().grace_period(GRACE_S);
        let (pod, secret) = tokio::join!(
            self.gone("delete pods", self.pods.delete(name, &now)),
            self.remove_secret(name)
        );
        pod.and(secret)
    }

    /// Removes a ticket that was used, or never will be.
    pub(super) async fn remove_secret(&self, name: &str) -> Result<(), SandboxError> {
        self.gone("delete secrets", self.secrets.delete(name, &DeleteParams::default()))
            .await
    }

    /// Deletes something; what is gone already, or is being removed or changed by another at this moment, is success.
    pub(super) async fn gone<T>(
        &self,
        act: &str,
        deleting: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<(), SandboxError> {
        let asked = Asked { act, runtime: None };
        let deleting = async {
            match deleting.await {
                // 409: it is being removed at this moment.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                Err(error) => Err(error),
                Ok(_) => Ok(()),
            }
        };
        self.call(&asked, deleting).await.map_err(|error| SandboxError::Remove {
            detail: error.to_string(),
        })
    }
}

#[async_trait]
impl Sandbox for Running {
    async fn wait(&self) -> Result<Ended, SandboxError> {
        let mut seen = self.follow.seen();
        let over = async {
            let over = seen.wait_for(|seen| matches!(seen, Seen::Ended(_) | Seen::Taken(_)));
            over.await.ok().map(|seen| seen.clone())
        };
        tokio::pin!(over);
        let said = tokio::select! {
            said = &mut over => said,
            () = self.pass.broken() => match tokio::time::timeout(LAST_WORD, over).await {
                Ok(said) => said,
                // Where a node is lost, the cluster believes for minutes that its pods run.
                Err(_) => Some(Seen::Taken(
                    "its connection to the worker broke, and its node does not say why".to_owned(),
                )),
            },
        };
        match said {
            Some(Seen::Ended(ended)) if ended.status == WORKER_GONE => Err(SandboxError::Taken {
                detail: "its connection to the worker broke".to_owned(),
            }),
            Some(Seen::Ended(ended)) => Ok(ended),
            Some(Seen::Taken(detail)) if is_full(&detail) => Err(SandboxError::Full { detail }),
            Some(Seen::Taken(detail)) => Err(SandboxError::Taken { detail }),
            // The task ends only when this is dropped.
            Some(Seen::Waiting(_) | Seen::Running) | None => std::future::pending().await,
        }
    }

    /// Nothing tells it in a pod: where the kernel kills in one, it kills all of it, and that is its end.
    fn memory_kills(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }

    async fn is_engine_lost(&self) -> bool {
        // A sandbox does not end with the API: that is only asked to tell what ended.
        false
    }

    async fn remove(&self, _: bool) -> Result<(), SandboxError> {
        self.pass.end();
        self.cluster.remove(&self.name).await
    }
}
