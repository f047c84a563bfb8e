//! The test forge: one GitLab instance (under `/gitlab`) and one GitHub Enterprise instance (at the root), played on
//! one loopback port over real git repositories.
//!
//! A test double. It answers as the recorded and measured real ones do, for the routes that the product uses, and
//! refuses what they would refuse. It imports nothing of the product and never leaves the loopback interface.
//!
//! What it holds is a [`Seed`], at the start and, by `POST /_test/seed` with the same words in JSON, under way. Tests also have
//! `/_test/faults`, `/_test/requests`, `/_test/tokens/NAME`, `/_test/state`, `/_test/commit` and `/_test/merge`: no forge has those.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use cofferdam_test_support::forge;
//! let seed = forge::Seed::load("seeds/demo.toml".as_ref())?;
//! let running = forge::start(&seed, "/tmp/a-directory".as_ref()).await?;
//! println!("{} {}", running.gitlab, running.github);
//! running.stop().await;
//! # Ok(()) }
//! ```

mod change_request;
mod control;
mod credentials;
mod faults;
mod git;
mod github;
mod gitlab;
mod json;
mod pages;
mod paging;
mod parameters;
mod plant;
mod push;
mod rates;
pub mod seed;
mod smart_http;
mod state;
mod watch;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use git::GitError;
pub use seed::Seed;

use state::{Project, World};

/// What the `Server` header says, so that nobody takes this for the real thing.
pub const SERVER: &str = "cofferdam-test-forge";

/// Why a test forge did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The seed file could not be read.
    #[error("read seed {path}: {source}")]
    ReadSeed {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The seed is not valid TOML of the right shape.
    #[error("parse seed: {0}")]
    ParseSeed(Box<toml::de::Error>),
    /// The seed contradicts itself.
    #[error("seed: {0}")]
    JudgeSeed(String),
    /// A repository could not be made.
    #[error("plant project {project}: {source}")]
    PlantProject {
        /// Path of the project.
        project: String,
        /// What git said.
        source: GitError,
    },
    /// The data directory or a file in it could not be written.
    #[error("write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The port could not be opened.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A test forge serves loopback only.
    #[error("{0} is not a loopback address")]
    NotLoopback(SocketAddr),
}

/// How to run a test forge.
#[derive(Debug, Clone)]
pub struct Options {
    /// Loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Every answer waits for so long, as one from far away would.
    pub delay: Duration,
    /// Append each request as one JSON line to this file.
    pub request_log: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            delay: Duration::ZERO,
            request_log: None,
        }
    }
}

/// A test forge that runs until stopped or dropped.
#[derive(Debug)]
pub struct Running {
    /// Root of the server: `http://127.0.0.1:PORT`.
    pub url: String,
    /// The GitLab instance: its REST is under `/api/v4` of this.
    pub gitlab: String,
    /// The GitHub instance: its REST is under `/api/v3` of this.
    pub github: String,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Running {
    /// Stops serving and waits until the port is closed.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(task) = self.task.take() {
            // Long transfers may hold the server: they are of no use to anybody now.
            let abort = task.abort_handle();
            if tokio::time::timeout(Duration::from_secs(2), task).await.is_err() {
                abort.abort();
            }
        }
    }
}

/// The whole forge, shared by all handlers.
#[derive(Clone)]
pub(crate) struct Forge(Arc<Inner>);

struct Inner {
    url: String,
    address: SocketAddr,
    delay: Duration,
    /// Where the repositories lie.
    data: PathBuf,
    believed: Mutex<Believed>,
    world: Mutex<World>,
    watch: watch::Watch,
    faults: faults::Faults,
    pushes: push::Pushes,
    rates: rates::Rates,
}

/// The addresses that the two instances believe to have.
pub(crate) struct Believed {
    pub(crate) gitlab: String,
    pub(crate) github: String,
}

impl Forge {
    /// Root of the server, without a slash at the end.
    pub(crate) fn url(&self) -> &str {
        &self.0.url
    }

    /// The GitLab instance's address as it believes it to be.
    pub(crate) fn gitlab(&self) -> String {
        self.believed().gitlab.clone()
    }

    /// The GitHub instance's address as it believes it to be.
    pub(crate) fn github(&self) -> String {
        self.believed().github.clone()
    }

    /// Has its own lock: addresses are asked for while the world is held.
    pub(crate) fn believed(&self) -> MutexGuard<'_, Believed> {
        self.0.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        // A panic in another test's request leaves plain data behind, nothing half-locked.
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the project as it is now.
    pub(crate) fn reread(&self, project: &Project) -> Project {
        let found = self.world().projects.iter().find(|one| one.id == project.id).cloned();
        found.unwrap_or_else(|| project.clone())
    }
}

/// Starts a test forge on a free loopback port; its repositories live in `data`.
pub async fn start(seed: &Seed, data: &Path) -> Result<Running, Error> {
    start_with(seed, data, Options::default()).await
}

/// Starts a test forge with options.
pub async fn start_with(seed: &Seed, data: &Path, options: Options) -> Result<Running, Error> {
    if !options.listen.ip().is_loopback() {
        return Err(Error::NotLoopback(options.listen));
    }
    let failed = |source| Error::Listen {
        address: options.listen,
        source,
    };
    let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let url = format!("http://{address}");

    let forge = Forge(Arc::new(Inner {
        url: url.clone(),
        address,
        delay: options.delay,
        data: plant::prepare(data)?,
        believed: Mutex::new(Believed {
            gitlab: format!("{url}/gitlab"),
            github: url.clone(),
        }),
        world: Mutex::default(),
        watch: watch::Watch::open(options.request_log.as_deref())?,
        faults: faults::Faults::default(),
        pushes: push::Pushes::default(),
        rates: rates::Rates::default(),
    }));
    plant::grow(&forge, seed).await?;

    let (stop, stopped) = oneshot::channel::<()>();
    let router = router(forge);
    let task = tokio::spawn(async move {
        let serve = axum::serve(listener, router).with_graceful_shutdown(async {
            // Both a message and a dropped sender mean: stop.
            drop(stopped.await);
        });
        // Accept errors are retried inside; there is nobody to report to at the end.
        drop(serve.await);
    });
    Ok(Running {
        gitlab: format!("{url}/gitlab"),
        github: url.clone(),
        url,
        stop: Some(stop),
        task: Some(task),
    })
}

fn router(forge: Forge) -> Router {
    let outside = Router::new()
        .merge(gitlab::router(&forge))
        .merge(github::router(&forge))
        .merge(pages::router())
        .fallback(smart_http::any)
        .layer(axum::middleware::from_fn_with_state(forge.clone(), rates::limit))
        .layer(axum::middleware::from_fn_with_state(forge.clone(), faults::play))
        .layer(axum::middleware::from_fn_with_state(forge.clone(), watch::log));
    Router::new()
        .merge(control::router())
        .merge(push::router())
        .fallback_service(outside.with_state(forge.clone()))
        .layer(axum::middleware::from_fn(watch::sign))
        .with_state(forge)
}
