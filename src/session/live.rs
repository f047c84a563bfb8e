//! What a running session holds, and how it is let go: sandbox, gateway, directories. Works after a failure at any point.
//!
//! Lives in the worker's scope: the session's deadline and cancellation do not reach it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::failure::Failure;
use super::guard::{Guard, Pushed, Watched};
use super::objects::Objects;
use super::pool::Kind;
use super::{HeldSandbox, Rooms, space};
use crate::gateway::{Gateway, Inside, Routes, egress};
use crate::message::{Reason, SandboxId, SessionId};
use crate::progress::Progress;
use crate::sandbox::home::SandboxHome;
use crate::sandbox::left;
use crate::sandbox::{Sandbox, SandboxError, SandboxSpec, Workspace};

/// How long `inside` may take to report after the container started.
const HELLO_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the engine may take to know why PID 1 ended: the next look at all containers tells where its events do not.
const KNOWN_AFTER: Duration = Duration::from_secs(10);
/// How long what runs in a sandbox may take to end when it is told to; then it is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// How long after a failure inside its cause may still show: the end of the whole sandbox, or a word of the engine about memory.
const AFTERMATH: Duration = Duration::from_millis(700);

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
    /// The workspace on disk; another sandbox's where that one came before.
    workspace: Option<PathBuf>,
    guard: Option<Guard>,
}

impl Live {
    /// Makes the workspace on disk before anything is started, so that another sandbox may work in it first.
    pub(super) fn make_workspace(&mut self, rooms: &Rooms) -> Result<PathBuf, Failure> {
        let path = self.make_home(rooms)?.create_workspace(rooms.sandbox.uid)?;
        Ok(self.workspace.insert(path).clone())
    }

    /// Held before there is anything of it, so that nobody takes it for a left one.
    fn make_home(&mut self, rooms: &Rooms) -> Result<&SandboxHome, Failure> {
        let id = SandboxId::random();
        self.held = Some(rooms.live_sandboxes.hold(id));
        Ok(self.home.insert(SandboxHome::create(&rooms.state_dir, id)?))
    }

    /// What will work in the workspace of another.
    pub(super) fn in_workspace(path: PathBuf) -> Self {
        Self {
            workspace: Some(path),
            ..Self::default()
        }
    }

    /// Takes one that was started before, if there is one.
    pub(super) fn claim(&mut self, rooms: &Rooms, kind: &Kind) {
        if let Some(warm) = rooms.pool.claim(rooms, kind) {
            *self = warm;
        }
    }

    /// Whether it is started and its first process is there.
    pub(super) fn is_well(&self) -> bool {
        self.inside.as_ref().is_some_and(|inside| !inside.is_gone())
    }

    /// Starts a sandbox, unless one was claimed, and watches over it from now on. Without a runtime it is the engine's default one.
    pub(super) async fn start(
        &mut self,
        rooms: &Rooms,
        image: &str,
        runtime: Option<&str>,
        progress: &Arc<Progress>,
    ) -> Result<(), Failure> {
        if !self.is_well() {
            self.make(rooms, image, runtime, Duration::ZERO).await?;
        }
        let (Some(home), Some(sandbox)) = (&self.home, &self.sandbox) else {
            return Err(not_started());
        };
        let workspace = self.workspace.clone().map(|path| (path, rooms.sandbox.workspace_bytes));
        self.guard = Some(Guard::start(
            Watched {
                id: home.id(),
                workspace,
                disk: rooms.disk.clone(),
                metrics: rooms.metrics.clone(),
                progress: progress.clone(),
            },
            sandbox.as_ref(),
        ));
        Ok(())
    }

    /// Starts a sandbox and waits for `inside`. It may wait that long for a session.
    pub(super) async fn make(
        &mut self,
        rooms: &Rooms,
        image: &str,
        runtime: Option<&str>,
        waits: Duration,
    ) -> Result<(), Failure> {
        let is_on_disk = rooms.sandbox.workspace == Workspace::Directory && rooms.engine.shares_directories();
        if self.workspace.is_none() && is_on_disk {
            self.make_workspace(rooms)?;
        }
        if self.home.is_none() {
            self.make_home(rooms)?;
        }
        let home = self.home.as_ref().ok_or_else(not_started)?;
        let id = home.id();
        let gateway = Gateway::open(&home.socket())?;
        let spec = SandboxSpec {
            id,
            image: image.to_owned(),
            runtime: runtime.map(str::to_owned),
            worker: rooms.owner(),
            owner: rooms.lock.owner().clone(),
            deadline: left::deadline(rooms.config.longest_sandbox() + waits),
            socket_directory: home.socket_directory(),
            objects_directory: home.objects_directory(),
            tools_directory: rooms.tools_directory.clone(),
            workspace_directory: self.workspace.clone(),
        };
        let gateway = self.gateway.insert(gateway);
        let engine = rooms.engine.clone();
        let starting = self.starting.insert(tokio::spawn(
            async move { engine.start(&spec).await }.instrument(tracing::info_span!("sandbox")),
        ));
        let started = starting.await;
        self.starting = None;
        let sandbox = match started {
            Ok(Ok(sandbox)) => {
                rooms.metrics.sandboxes.created(true);
                sandbox
            }
            Ok(Err(error)) => {
                rooms.metrics.sandboxes.created(false);
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
            inside = gateway.inside(HELLO_TIMEOUT) => inside.map_err(Failure::from),
            ended = sandbox.wait() => Err(sandbox_ended(ended)),
        };
        let inside = match inside {
            Ok(inside) => inside,
            Err(failure) => return Err(or_engine_lost(failure, sandbox.as_ref()).await),
        };
        self.inside = Some(Arc::new(inside));
        Ok(())
    }

    /// Counts what is pushed to these against the host's disk.
    pub(super) fn watch_pushes(&mut self, projects: Pushed) {
        if let Some(guard) = &mut self.guard {
            guard.watch_pushes(projects);
        }
    }

    /// Sets the gateway's routes and opens the way out.
    pub(super) fn serve(&self, routes: Routes, egress: Arc<egress::Proxy>) -> Result<(), Failure> {
        let gateway = self.gateway.as_ref().ok_or_else(not_started)?;
        gateway.serve(routes);
        gateway.serve_egress(egress);
        Ok(())
    }

    /// The connection to PID 1.
    pub(super) fn inside(&self) -> Result<Arc<Inside>, Failure> {
        self.inside.clone().ok_or_else(not_started)
    }

    /// Goes on with something for as long as the sandbox lives and keeps its limits.
    pub(super) async fn while_alive<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.guarded(false, work).await
    }

    /// The same after a failure, for what takes the committed work: a workspace that is a little over its limit does not end it.
    pub(super) async fn while_keeping<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.guarded(true, work).await
    }

    async fn guarded<T>(
        &self,
        while_keeping: bool,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let (Some(sandbox), Some(inside), Some(guard)) = (&self.sandbox, &self.inside, &self.guard) else {
            return Err(not_started());
        };
        let ended = tokio::select! {
            biased;
            done = work => match done {
                Err(failure) => Err(first_cause(failure, sandbox.as_ref(), inside, guard).await),
                Ok(done) => return Ok(done),
            },
            failure = guard.full(while_keeping) => Err(failure),
            ended = sandbox.wait() => Err(sandbox_ended(ended)),
            () = inside.gone() => Err(connection_ended(sandbox.as_ref()).await),
        };
        match ended {
            Ok(done) => Ok(done),
            Err(failure) => {
                let mut failure = or_engine_lost(failure, sandbox.as_ref()).await;
                guard.add_kills(&mut failure);
                Err(failure)
            }
        }
    }

    /// Where projects' objects are shown to the sandbox.
    pub(super) fn objects(&self) -> Result<Objects, Failure> {
        let home = self.home.as_ref().ok_or_else(not_started)?;
        Ok(Objects::of(home.objects_directory()))
    }

    /// Where the workspace is on disk, if it is there.
    pub(super) fn workspace(&self) -> Option<PathBuf> {
        self.workspace.clone()
    }

    /// What the sandbox itself says is full, where it can still be asked.
    pub(super) async fn full(&self) -> Option<String> {
        space::full(self.inside.as_ref()?).await
    }

    /// Removes everything. Called once, at the end of every session; says what could not be removed. Beside the sandbox's end goes on what
    /// still needs the session's repositories.
    pub(super) async fn close(self, rooms: &Rooms, session: SessionId, beside: impl Future<Output = ()> + Send) {
        tokio::join!(self.close_sandbox(&session), beside);
        if let Err(error) = rooms.repositories.remove_session(session).await {
            tracing::error!(%session, %error, "a session's repositories were not removed");
        }
    }

    /// Removes the sandbox and its directories; says what could not be removed and for whom it was, and whether nothing of it runs any more.
    pub(super) async fn close_sandbox(mut self, whose: &impl std::fmt::Display) -> bool {
        let mut gone = true;
        if let Some(starting) = self.starting.take()
            && let Ok(Ok(sandbox)) = starting.await
        {
            self.sandbox = Some(sandbox);
        }
        // The connections go first: what still runs in the sandbox can then do no more.
        if let Some(gateway) = &self.gateway {
            gateway.close_ways();
        }
        let ends = match &self.inside {
            Some(inside) if !inside.is_gone() => inside.end(ENDS_WITHIN).await,
            Some(_) | None => false,
        };
        drop(self.inside.take());
        drop(self.gateway.take());
        if let Some(sandbox) = self.sandbox.take()
            && let Err(error) = sandbox.remove(ends).await
        {
            tracing::error!(session = %whose, %error, "a sandbox was not removed; the reaper will try again");
            gone = false;
        }
        if let Some(home) = self.home.take()
            && let Err(error) = home.remove().await
        {
            tracing::error!(session = %whose, %error, "a sandbox's directory was not removed; the reaper will try again");
        }
        // What it took of the disk counts until it is given back: nobody else goes for it meanwhile.
        drop(self.guard.take());
        drop(self.held.take());
        gone
    }
}

fn not_started() -> Failure {
    Failure::new(Reason::Internal, "the sandbox is not started")
}

/// The end of a sandbox ends what runs in it, and is often seen there first: an agent that was killed with its sandbox, or for memory, did
/// not fail by itself. Neither did one that had no room to write.
async fn first_cause(failure: Failure, sandbox: &dyn Sandbox, inside: &Inside, guard: &Guard) -> Failure {
    let may_follow = matches!(
        failure.reason,
        Reason::AgentFailed | Reason::CloneFailed | Reason::SandboxFailed | Reason::SetUpFailed
    );
    if !may_follow {
        return failure;
    }
    tokio::select! {
        biased;
        () = inside.gone() => return connection_ended(sandbox).await,
        () = guard.starved() => {
            let message = format!(
                "the sandbox ran out of memory, a process in it was killed, and then {}: ask for less at a time, or let the operator raise \
                 sandbox.memory_bytes",
                failure.message
            );
            return Failure::new(Reason::OutOfMemory, message);
        }
        () = tokio::time::sleep(AFTERMATH) => {}
    }
    match space::full(inside).await {
        Some(place) => Failure::new(
            Reason::DiskFull,
            format!(
                "{place} in the sandbox is full: ask for less at a time, or let the operator raise sandbox.workspace_bytes ({})",
                failure.message
            ),
        ),
        None => failure,
    }
}

/// The end of PID 1 closes its connection a moment before the engine knows why.
async fn connection_ended(sandbox: &dyn Sandbox) -> Failure {
    let ended = tokio::time::timeout(KNOWN_AFTER, sandbox.wait()).await;
    ended.map_or_else(
        |_| Failure::new(Reason::SandboxFailed, "the connection to the sandbox broke"),
        sandbox_ended,
    )
}

/// A sandbox that ended with its engine did not end by itself.
async fn or_engine_lost(failure: Failure, sandbox: &dyn Sandbox) -> Failure {
    if failure.reason != Reason::SandboxFailed || !sandbox.is_engine_lost().await {
        return failure;
    }
    let message = format!(
        "the container engine went away and the sandbox with it ({}): send the task again when the engine is back",
        failure.message
    );
    Failure::engine_away(message)
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
