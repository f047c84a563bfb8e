//! What a running session holds, and how it is let go: sandbox, gateway, directories. Works after a failure at any point.
//!
//! Lives in the worker's scope: the session's deadline and cancellation do not reach it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::failure::Failure;
use super::{HeldSandbox, Rooms};
use crate::gateway::{Gateway, Inside, egress};
use crate::message::{Reason, SandboxId, SessionId};
use crate::sandbox::home::SandboxHome;
use crate::sandbox::{Sandbox, SandboxError, SandboxSpec, Workspace};

/// How long `inside` may take to report after the container started.
const HELLO_TIMEOUT: Duration = Duration::from_secs(20);
/// How long after a failure inside the end of the whole sandbox may still show.
const AFTERMATH: Duration = Duration::from_millis(300);

/// The sandbox of a session and what belongs to it.
#[derive(Default)]
pub(super) struct Live {
    held: Option<HeldSandbox>,
    home: Option<SandboxHome>,
    gateway: Option<Gateway>,
    inside: Option<Arc<Inside>>,
    /// The start goes on when the session is cut in the middle of it, so that there is something to remove.
    starting: Option<JoinHandle<Result<Arc<dyn Sandbox>, SandboxError>>>,
    sandbox: Option<Arc<dyn Sandbox>>,
}

impl Live {
    /// Starts a sandbox and waits for `inside`. Without a runtime it is the engine's default one.
    pub(super) async fn start(&mut self, rooms: &Rooms, image: &str, runtime: Option<&str>) -> Result<(), Failure> {
        let id = SandboxId::random();
        let home = SandboxHome::create(&rooms.state_dir, id)?;
        let workspace_directory = match rooms.sandbox.workspace {
            Workspace::Tmpfs => None,
            Workspace::Directory => Some(home.create_workspace(rooms.sandbox.uid)?),
        };
        let gateway = Gateway::open(&home.socket())?;
        let spec = SandboxSpec {
            id,
            image: image.to_owned(),
            runtime: runtime.map(str::to_owned),
            worker: rooms.owner(),
            socket_directory: home.socket_directory(),
            tools_directory: rooms.tools_directory.clone(),
            workspace_directory,
        };
        self.home = Some(home);
        let gateway = self.gateway.insert(gateway);
        let engine = rooms.engine.clone();
        self.held = Some(rooms.live_sandboxes.hold(id));
        let starting = self
            .starting
            .insert(tokio::spawn(async move { engine.start(&spec).await }));
        let started = starting.await;
        self.starting = None;
        let sandbox = match started {
            Ok(Ok(sandbox)) => sandbox,
            Ok(Err(error)) => {
                rooms.metrics.sandbox_create_failure();
                return Err(error.into());
            }
            Err(error) => {
                return Err(Failure::new(
                    Reason::Internal,
                    format!("the start of the sandbox was lost: {error}"),
                ));
            }
        };
        self.sandbox = Some(sandbox.clone());
        let inside = tokio::select! {
            inside = gateway.inside(HELLO_TIMEOUT) => inside?,
            ended = sandbox.wait() => return Err(sandbox_ended(ended)),
        };
        self.inside = Some(Arc::new(inside));
        Ok(())
    }

    /// Sets the gateway's routes and opens the way out.
    pub(super) fn serve(&self, router: axum::Router, egress: Arc<egress::Proxy>) -> Result<(), Failure> {
        let gateway = self.gateway.as_ref().ok_or_else(not_started)?;
        gateway.serve(router);
        gateway.serve_egress(egress);
        Ok(())
    }

    /// The connection to PID 1.
    pub(super) fn inside(&self) -> Result<Arc<Inside>, Failure> {
        self.inside.clone().ok_or_else(not_started)
    }

    /// Goes on with something for as long as the sandbox lives.
    pub(super) async fn while_alive<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let (Some(sandbox), Some(inside)) = (&self.sandbox, &self.inside) else {
            return Err(not_started());
        };
        tokio::select! {
            biased;
            done = work => match done {
                Err(failure) => Err(first_cause(failure, sandbox.as_ref(), inside).await),
                done => done,
            },
            ended = sandbox.wait() => Err(sandbox_ended(ended)),
            () = inside.gone() => Err(connection_ended(sandbox.as_ref()).await),
        }
    }

    /// Removes everything. Called once, at the end of every session; says what could not be removed.
    pub(super) async fn close(mut self, rooms: &Rooms, session: SessionId) {
        if let Some(starting) = self.starting.take()
            && let Ok(Ok(sandbox)) = starting.await
        {
            self.sandbox = Some(sandbox);
        }
        // The connections go first: what still runs in the sandbox can then do no more.
        drop(self.inside.take());
        drop(self.gateway.take());
        if let Some(sandbox) = self.sandbox.take()
            && let Err(error) = sandbox.remove().await
        {
            tracing::error!(%session, %error, "a sandbox was not removed; the reaper will try again");
        }
        drop(self.held.take());
        if let Some(home) = self.home.take()
            && let Err(error) = home.remove().await
        {
            tracing::error!(%session, %error, "a sandbox's directory was not removed");
        }
        if let Err(error) = rooms.repositories.remove_session(session).await {
            tracing::error!(%session, %error, "a session's repositories were not removed");
        }
    }
}

fn not_started() -> Failure {
    Failure::new(Reason::Internal, "the sandbox is not started")
}

/// The end of a sandbox ends what runs in it, and is often seen there first: an agent that was killed with its sandbox did not fail by itself.
async fn first_cause(failure: Failure, sandbox: &dyn Sandbox, inside: &Inside) -> Failure {
    let may_follow = matches!(
        failure.reason,
        Reason::AgentFailed | Reason::CloneFailed | Reason::SandboxFailed
    );
    if may_follow && tokio::time::timeout(AFTERMATH, inside.gone()).await.is_ok() {
        connection_ended(sandbox).await
    } else {
        failure
    }
}

/// The end of PID 1 closes its connection a moment before the engine knows why.
async fn connection_ended(sandbox: &dyn Sandbox) -> Failure {
    let ended = tokio::time::timeout(Duration::from_secs(5), sandbox.wait()).await;
    ended.map_or_else(
        |_| Failure::new(Reason::SandboxFailed, "the connection to the sandbox broke"),
        sandbox_ended,
    )
}

fn sandbox_ended(ended: Result<crate::sandbox::Ended, SandboxError>) -> Failure {
    match ended {
        Ok(ended) if ended.out_of_memory => Failure::new(
            Reason::OutOfMemory,
            "the sandbox ran out of memory: ask for less at a time, or let the operator raise sandbox.memory_bytes",
        ),
        Ok(ended) => Failure::new(
            Reason::SandboxFailed,
            format!(
                "the sandbox ended by itself with status {}: send the task again",
                ended.status
            ),
        ),
        Err(error) => error.into(),
    }
}
