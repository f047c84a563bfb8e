//! Kubernetes behind the seam: a pod for each sandbox. The only folder that names it.
//!
//! Never executes anything in a pod and never attaches to one: `inside` comes to the worker's door with a ticket that is good once, and what is
//! said then is what is said over the socket elsewhere. No pod is made in a namespace whose network policies leave anything open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use tokio::sync::Mutex;

use self::anchor::Anchor;
use self::door::{CountRefusals, Door};
use self::follow::Follow;
use self::refusal::{Asked, unanswered};
use self::sandbox::{Cluster, Running};
use self::told::{Delay, Seen};
use super::left::{self, Listed};
use super::owner::Owner;
use super::{Config, Engine, EngineFacts, Sandbox, SandboxError, SandboxSpec, Survey, images};

pub mod access;
mod anchor;
pub mod bounds;
pub mod config;
pub mod door;
mod follow;
mod overdue;
mod policy;
mod refusal;
mod sandbox;
mod spec;
mod told;

/// How long the API may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the network policies that were looked at are taken as they were.
const POLICIES_FOR: Duration = Duration::from_secs(30);

/// The cluster.
pub struct KubernetesEngine {
    config: Config,
    /// Made at the first use and after a failure.
    cluster: Mutex<Option<Cluster>>,
    counts: Arc<dyn CountRefusals>,
    /// Opened with the first sandbox: who only looks takes no port.
    door: Mutex<Option<Arc<Door>>>,
    closed_since: Mutex<Option<Instant>>,
    /// The name of this process's own Lease, whether it is there or not.
    anchor_name: String,
    anchor: Mutex<Option<Arc<Anchor>>>,
    others: Mutex<overdue::Others>,
}

impl std::fmt::Debug for KubernetesEngine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KubernetesEngine")
            .field("namespace", &self.config.kubernetes.namespace)
            .finish_non_exhaustive()
    }
}

impl KubernetesEngine {
    /// A cluster that is not yet talked to.
    #[must_use]
    pub fn new(config: Config, counts: Arc<dyn CountRefusals>) -> Self {
        Self {
            config,
            counts,
            cluster: Mutex::default(),
            door: Mutex::default(),
            closed_since: Mutex::default(),
            anchor_name: format!("cofferdam-worker-{}", uuid::Uuid::new_v4()),
            anchor: Mutex::default(),
            others: Mutex::default(),
        }
    }

    async fn cluster(&self) -> Result<Cluster, SandboxError> {
        let mut slot = self.cluster.lock().await;
        if let Some(cluster) = slot.as_ref() {
            return Ok(cluster.clone());
        }
        let unusable = |detail: String| SandboxError::Prepare { detail };
        let mut how = match &self.config.kubernetes.kubeconfig {
            Some(path) => {
                let wrong = |error: kube::config::KubeconfigError| {
                    unusable(format!("sandbox.kubernetes.kubeconfig {}: {error}", path.display()))
                };
                let read = Kubeconfig::read_from(path).map_err(wrong)?;
                kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                    .await
                    .map_err(wrong)?
            }
            None => kube::Config::incluster().map_err(|error| {
                unusable(format!(
                    "this is no pod with an account of the cluster ({error}): give it one, or set sandbox.kubernetes.kubeconfig"
                ))
            })?,
        };
        how.connect_timeout = Some(self.timeout());
        let home = how.default_namespace.clone();
        let client = Client::try_from(how).map_err(|error| unusable(format!("the cluster's API: {error}")))?;
        let namespace = &self.config.kubernetes.namespace;
        Ok(slot
            .insert(Cluster {
                pods: Api::namespaced(client.clone(), namespace),
                secrets: Api::namespaced(client.clone(), namespace),
                client,
                home,
                timeout: self.timeout(),
            })
            .clone())
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.config.call_timeout_s)
    }

    async fn door(&self) -> Result<Arc<Door>, SandboxError> {
        let mut slot = self.door.lock().await;
        if let Some(door) = slot.as_ref() {
            return Ok(door.clone());
        }
        let opened = Door::open(self.config.kubernetes.listen, self.counts.clone()).await?;
        Ok(slot.insert(Arc::new(opened)).clone())
    }

    /// What owns this worker's pods. Made with the first of them, and anew where somebody removed it.
    async fn anchor(&self, cluster: &Cluster, spec: &SandboxSpec) -> Result<Arc<Anchor>, SandboxError> {
        let mut slot = self.anchor.lock().await;
        if let Some(anchor) = slot.as_ref()
            && anchor.is_there().await
        {
            return Ok(anchor.clone());
        }
        let settings = &self.config.kubernetes;
        let worker = anchor::Worker {
            name: &self.anchor_name,
            holder: &spec.worker,
            owner: &spec.owner,
            pod: settings.owner(&cluster.home),
            lease: Duration::from_secs(settings.lease_s),
        };
        let made = Anchor::make(cluster, &settings.namespace, &worker).await?;
        Ok(slot.insert(Arc::new(made)).clone())
    }

    /// Makes sure that the namespace's network is closed, as far as its policies say.
    async fn require_closed(&self, cluster: &Cluster) -> Result<(), SandboxError> {
        let mut since = self.closed_since.lock().await;
        if since.is_some_and(|since| since.elapsed() < POLICIES_FOR) {
            return Ok(());
        }
        *since = None;
        let namespace = &self.config.kubernetes.namespace;
        let policies: Api<NetworkPolicy> = Api::namespaced(cluster.client.clone(), namespace);
        let asked = Asked {
            act: "list networkpolicies",
            runtime: None,
        };
        let found = cluster.call(&asked, policies.list(&ListParams::default())).await?;
        let port = self.config.kubernetes.advertised().map_or(0, |address| address.port());
        let labels = spec::labels(crate::message::SandboxId::random());
        policy::closed(&found.items, &labels, port).map_err(|detail| SandboxError::NetworkOpen {
            namespace: namespace.clone(),
            detail,
        })?;
        *since = Some(Instant::now());
        Ok(())
    }

    /// Waits until the pod runs.
    async fn started(&self, follow: &Follow) -> Result<(), SandboxError> {
        let mut seen = follow.seen();
        let place_s = self.config.kubernetes.start_timeout_s;
        let pull_s = if self.config.pull {
            self.config.pull_timeout_s
        } else {
            0
        };
        let begun = tokio::time::Instant::now();
        let until_placed = begun + Duration::from_secs(place_s);
        let until_pulled = begun + Duration::from_secs(place_s.saturating_add(pull_s));
        // What the registry said is worth more than that it is asked again later.
        let mut said: Option<String> = None;
        loop {
            let now = seen.borrow_and_update().clone();
            let mut until = until_pulled;
            let late = match now {
                Seen::Running => return Ok(()),
                Seen::Ended(ended) => {
                    return Err(SandboxError::Start {
                        detail: format!("it ended at once with status {}", ended.status),
                    });
                }
                Seen::Taken(detail) => return Err(SandboxError::Taken { detail }),
                Seen::Waiting(Some(Delay::NoImage { image, detail })) => {
                    let detail = said.unwrap_or(detail);
                    return Err(SandboxError::PullImage { image, detail });
                }
                Seen::Waiting(Some(Delay::Pulling { image, detail })) => {
                    said = Some(detail.clone());
                    SandboxError::PullImage { image, detail }
                }
                Seen::Waiting(Some(Delay::Unplaced(detail))) => {
                    until = until_placed;
                    SandboxError::Unplaced {
                        detail,
                        limit_s: place_s,
                    }
                }
                Seen::Waiting(Some(Delay::Other(detail))) => {
                    until = until_placed;
                    SandboxError::Start { detail }
                }
                Seen::Waiting(None) => SandboxError::Start {
                    detail: format!("its pod did not run within {} s", place_s.saturating_add(pull_s)),
                },
            };
            match tokio::time::timeout_at(until, seen.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(late),
            }
        }
    }

    async fn create(&self, cluster: &Cluster, spec: &SandboxSpec, name: &str) -> Result<Running, SandboxError> {
        let door = self.door().await?;
        let pass = Arc::new(door.expect(&spec.socket_directory.join(super::SOCKET_NAME)));
        let asked = |act| Asked {
            act,
            runtime: spec.runtime.as_deref(),
        };
        let options = PostParams::default();
        let owner = Some(self.anchor(cluster, spec).await?.reference());
        let address = self
            .config
            .kubernetes
            .advertised()
            .ok_or_else(|| SandboxError::Prepare {
                detail: "sandbox.kubernetes.advertise is no address".to_owned(),
            })?;
        let limit = spec.deadline.saturating_sub(left::now());
        let pod = spec::pod(&self.config, spec, owner, address, limit);
        let made = cluster
            .call(&asked("create pods"), cluster.pods.create(&options, &pod))
            .await?;
        // The pod waits for its papers, so that nobody can be killed between the two and leave a Secret that goes with nothing: who may only
        // make and delete Secrets could not find it again.
        let owner = spec::owned_by(&made).ok_or_else(|| SandboxError::Create {
            detail: "the cluster made a pod and did not say its name and its uid".to_owned(),
        })?;
        let secret = spec::secret(&self.config, spec, owner, &pass.ticket, door.certificate());
        cluster
            .call(&asked("create secrets"), cluster.secrets.create(&options, &secret))
            .await?;
        Ok(Running {
            follow: Follow::start(cluster.pods.clone(), name),
            cluster: cluster.clone(),
            name: name.to_owned(),
            pass,
        })
    }
}

#[async_trait]
impl Engine for KubernetesEngine {
    fn shares_directories(&self) -> bool {
        false
    }

    async fn ping(&self) -> Result<(), SandboxError> {
        let limit = self.timeout().min(PING_TIMEOUT);
        let answered = async { self.cluster().await?.version().await.map(drop) };
        tokio::time::timeout(limit, answered)
            .await
            .unwrap_or_else(|_| Err(unanswered(format!("no answer within {} s", limit.as_secs()))))
    }

    async fn check(&self) -> Result<EngineFacts, SandboxError> {
        let version = self.cluster().await?.version().await?;
        Ok(EngineFacts {
            version,
            api: "v1".to_owned(),
            runtime: self
                .config
                .runtime
                .clone()
                .unwrap_or_else(|| "the nodes' own".to_owned()),
            runtimes: Vec::new(),
        })
    }

    async fn survey(&self) -> Result<Survey, SandboxError> {
        let version = self.cluster().await?.version().await?;
        Ok(Survey {
            components: vec![("kubernetes".to_owned(), version)],
            ..Survey::default()
        })
    }

    /// Only the node that gets the pod looks for it, so it is known by its name.
    async fn require_image(&self, image: &str) -> Result<String, SandboxError> {
        let refused = |detail: &str| SandboxError::ImageRefused {
            image: image.to_owned(),
            detail: detail.to_owned(),
        };
        images::check_form(image).map_err(refused)?;
        if !images::allowed(&self.config.images, image, None) {
            return Err(refused(
                "it is not in sandbox.images; in a cluster a digest there allows that very reference only",
            ));
        }
        Ok(image.to_owned())
    }

    /// Which there are only the whole cluster's readers may ask: it refuses the pod where one is missing.
    async fn require_runtime(&self, _runtime: &str) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn start(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError> {
        self.require_image(&spec.image).await?;
        let cluster = self.cluster().await?;
        self.require_closed(&cluster).await?;
        let name = spec::name(spec.id);
        let started = async {
            let running = self.create(&cluster, spec, &name).await?;
            self.started(&running.follow).await?;
            Ok(running)
        };
        let running = match started.await {
            Ok(running) => running,
            Err(error) => {
                // A call may have been cut while the cluster went on, so what it may have made is removed.
                if let Err(error) = cluster.remove(&name).await {
                    tracing::warn!(%error, pod = name, "a pod that did not start was not removed; the reaper will try again");
                }
                return Err(error);
            }
        };
        let joined = running.pass.joined();
        tokio::spawn(async move {
            // A used ticket is worth nothing, and need not lie about.
            if joined.await
                && let Err(error) = cluster.remove_secret(&name).await
            {
                tracing::debug!(%error, "a used ticket was not removed; it goes with its sandbox");
            }
        });
        Ok(Arc::new(running))
    }

    async fn list(&self) -> Result<Vec<Listed>, SandboxError> {
        let cluster = self.cluster().await?;
        let asked = Asked {
            act: "list pods",
            runtime: None,
        };
        let ours = ListParams::default().labels(spec::SANDBOX_LABEL);
        let found = cluster.call(&asked, cluster.pods.list(&ours)).await?;
        Ok(found.items.into_iter().filter_map(spec::listed).collect())
    }

    async fn remove(&self, listed: &Listed) -> Result<(), SandboxError> {
        self.cluster().await?.remove(&listed.key).await
    }

    async fn tend(&self, here: &Owner) -> Result<(), SandboxError> {
        let cluster = self.cluster().await?;
        let namespace = &self.config.kubernetes.namespace;
        anchor::sweep(&cluster, namespace, &self.anchor_name, here, &self.others).await
    }

    async fn leave(&self) {
        let Some(anchor) = self.anchor.lock().await.take() else {
            return;
        };
        if let Ok(cluster) = self.cluster().await {
            anchor.end(&cluster, &self.config.kubernetes.namespace).await;
        }
    }
}
