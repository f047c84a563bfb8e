//! `add_project`: one more project for a session that runs. Token and project are checked as at the start, the grant is widened, mirror and
//! staging are made, git is served, the project is cloned beside the others; then, in one step, it is one of the session's projects.
//!
//! A refusal at any point changes nothing: what was made until then is taken back, in the opposite order.

use std::sync::Arc;
use std::time::Duration;

use super::adding::{Expected, ending};
use super::admit::{self, Admitted};
use super::connections::{Connected, Connection};
use super::credential::Asked;
use super::failure::Failure;
use super::orders::Open;
use super::publish::Work;
use super::steering::Steering;
use super::{Rooms, directories, minted, space, stage, workspace};
use crate::forge::Visibility;
use crate::gateway::Inside;
use crate::grant::{Grant, WidenError};
use crate::message::task::{ConnectionRequest, ProjectRequest};
use crate::message::{EventBody, ProjectKey, Reason, Task};
use crate::progress::Progress;

/// How long one project may take: fetch and clone.
const LONGEST: Duration = Duration::from_secs(20 * 60);
/// How long the sandbox may take to remove what was cloned into it.
const UNMAKING: Duration = Duration::from_secs(10);

/// What adding needs.
pub(super) struct Add<'a> {
    pub(super) rooms: &'a Rooms,
    pub(super) task: &'a Task,
    pub(super) open: &'a Open,
    pub(super) progress: &'a Progress,
    pub(super) steering: &'a Steering,
}

/// What was made until now, and is to be taken back where the project is refused.
#[derive(Default)]
struct Made {
    /// A connection that this message opened.
    connection: Option<Arc<Connection>>,
    /// Object store and staging of this number, whole or not.
    staging: Option<usize>,
    /// Git is served under this key.
    served: Option<ProjectKey>,
    /// git's settings in the sandbox name the project; these are the former.
    configured: Option<Arc<Grant>>,
    /// The directory in the sandbox, and the process that clones into it.
    cloning: Option<(Arc<Work>, Option<u32>)>,
}

impl Add<'_> {
    /// Adds a project; the sentence says where it is.
    pub(super) async fn add(
        &self,
        expected: &Expected,
        project: ProjectRequest,
        new_connection: Option<ConnectionRequest>,
    ) -> Result<String, Failure> {
        // Whoever stops the worker wants an answer now, not when the session stands.
        let turn = self.unless_ending(self.open.adding.turn(expected)).await?;
        let mut made = Made::default();
        let adding = tokio::time::timeout(LONGEST, self.step_by_step(&project, new_connection, &mut made));
        let added = adding.await.unwrap_or_else(|_| Err(too_long()));
        let said = match added {
            Ok(said) => Ok(said),
            Err(failure) => {
                self.take_back(made).await;
                Err(failure)
            }
        };
        drop(turn);
        said
    }

    async fn step_by_step(
        &self,
        request: &ProjectRequest,
        new_connection: Option<ConnectionRequest>,
        made: &mut Made,
    ) -> Result<String, Failure> {
        let (rooms, task, open) = (self.rooms, self.task, self.open);
        let key = request.key();
        let (Some(inside), Some(git)) = (open.inside(), open.git()) else {
            return Err(Failure::new(Reason::Internal, "the session has no sandbox"));
        };
        // Nobody is asked for what is refused anyway.
        let before = open.grant()?;
        before.has_room(&key).map_err(refused)?;
        if rooms.disk.is_low() {
            let message = "the worker's disk is nearly full: add the project later";
            return Err(Failure::new(Reason::DiskFull, message));
        }

        let asking = self.connection(&key, new_connection, made);
        let (connection, opened) = self.unless_ending(asking).await?;
        let admitting = async {
            let taken: Vec<String> = before.projects.iter().map(|one| one.directory.clone()).collect();
            let directory = directories::beside(&taken, &key);
            admit::project(rooms, task, request, directory, connection.clone()).await
        };
        let mut admitted = self.unless_dropped(&connection, admitting).await?;
        let mixed = self.mixed(&admitted)?;
        let (_, agent) = minted::agent(rooms, task)?;
        let trailers = admit::trailers_of(task, &admitted.grant, &minted::credited(agent)?);
        let widened = before
            .widened(admitted.grant.clone(), trailers.clone())
            .map_err(refused)?;

        let mirroring = async {
            let mirrored = stage::refreshed(rooms, &mut admitted).await?;
            rooms.repositories.refuse_lfs(&mirrored).await?;
            Ok(mirrored)
        };
        let mirrored = self.unless_dropped(&connection, mirroring).await?;
        let number = open.work().len();
        made.staging = Some(number);
        // Quick, and not to be cut: what is being written could not be taken back.
        let work = stage::stage(rooms, task, number, admitted, &mirrored, &trailers).await?;
        drop(mirrored);
        let work = Arc::new(work);
        let grant = with_final_branch(widened, &work);

        git.open(key.clone(), work.staging.clone());
        made.served = Some(key.clone());
        made.configured = Some(before);
        let cloning = async {
            workspace::configure(&inside, &grant).await?;
            self.clone(&inside, &work, &grant, made).await
        };
        self.unless_dropped(&connection, cloning).await?;

        // From here on it is the session's, or was never there.
        if open.adding.ended().is_cancelled() {
            return Err(ending());
        }
        let project = work.admitted.grant.clone();
        open.projects.widen(grant, work.clone(), request.clone())?;
        git.take_pushes(&key);
        let base = work.began_at.clone().unwrap_or_else(|| work.staging.base().clone());
        let told = [
            EventBody::Granted {
                project: key.clone(),
                base: project.base.clone(),
                branch: project.branch.clone(),
            },
            EventBody::Cloned {
                project: key.clone(),
                directory: project.directory.clone(),
                base,
            },
        ];
        let missing = work.admitted.missing();
        for event in opened.into_iter().chain(mixed).chain(missing).chain(told) {
            self.progress.state(event).await;
        }
        Ok(format!(
            "{key} is cloned at {}, on the branch {}; the agent is told with its next prompt",
            project.directory, project.branch
        ))
    }

    /// The connection that is named: one of the session's, one that its task defines and nobody needed yet, or a new one. With it what is told
    /// of one that was opened for this.
    async fn connection(
        &self,
        key: &ProjectKey,
        new: Option<ConnectionRequest>,
        made: &mut Made,
    ) -> Result<(Arc<Connection>, Vec<EventBody>), Failure> {
        let (rooms, task, open) = (self.rooms, self.task, self.open);
        let name = &key.connection;
        let known = open.connections.get(name);
        let defined = task.connections.get(name);
        let refused = |message: String| Err(Failure::new(Reason::CredentialRefused, message));
        if new.is_some() && (known.is_some() || defined.is_some()) {
            return refused(format!(
                "this session has a connection {name} already: leave new_connection out to use it, or name the new one differently"
            ));
        }
        if let Some(known) = known {
            known.current()?;
            return Ok((known, Vec::new()));
        }
        let Some(request) = new.as_ref().or(defined) else {
            return refused(format!(
                "this session has no connection {name}: say in new_connection what it is"
            ));
        };
        let secret = (rooms.credentials)(&request.credential, &Asked::of(Some(task.session), request))?;
        // These stay when the project is refused: what was shown here once is not to be seen.
        self.progress.mask_also(&secret);
        open.known.add(&secret);
        let connected = Connected::ask(rooms, task, request, &secret).await?;
        let told = admit::told(rooms, task, name, &connected);
        let connection = open.connections.open(name, request.clone(), connected);
        made.connection = Some(connection.clone());
        Ok((connection, told))
    }

    fn mixed(&self, admitted: &Admitted) -> Result<Option<EventBody>, Failure> {
        let work = self.open.work();
        let mut seen: Vec<(&ProjectKey, Visibility)> = work.iter().map(|work| work.admitted.seen()).collect();
        seen.push(admitted.seen());
        admit::mixed(self.rooms, self.task, &seen)
    }

    /// Clones it. What ends a turn's leftovers may end this as well, so it is tried twice.
    async fn clone(&self, inside: &Inside, work: &Arc<Work>, grant: &Grant, made: &mut Made) -> Result<(), Failure> {
        let project = &work.admitted.grant;
        let trailers = grant.trailers.get(&project.key).ok_or_else(stage::no_trailers)?;
        let mut is_last = false;
        let shown = self.open.show(work).await;
        loop {
            workspace::make_directory(inside, project).await?;
            let made = made.cloning.insert((work.clone(), None));
            let mut cloning =
                workspace::Cloning::begin(inside, project, trailers, work.began_at.is_some(), shown.as_deref()).await?;
            made.1 = Some(cloning.process());
            match cloning.finish(self.progress).await {
                Ok(()) => return Ok(()),
                Err(failure) if is_last => return Err(failure),
                Err(failure) => {
                    if let Some(place) = space::full(inside).await {
                        let message = format!("{place} in the sandbox is full: {}", failure.message);
                        return Err(Failure::new(Reason::DiskFull, message));
                    }
                    is_last = true;
                    workspace::unmake_directory(inside, project).await?;
                }
            }
        }
    }

    /// Goes on until the session is told to stop, or is ending.
    async fn unless_ending<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.steering.token().cancelled() => Err(ending()),
            () = self.open.adding.ended().cancelled() => Err(ending()),
            done = work => done,
        }
    }

    /// The same until the connection is dropped.
    async fn unless_dropped<T>(
        &self,
        connection: &Connection,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.unless_ending(async {
            tokio::select! {
                biased;
                () = connection.closed() => Err(connection.dropped()),
                done = work => done,
            }
        })
        .await
    }

    /// As if nothing had been made.
    async fn take_back(&self, made: Made) {
        let (inside, git) = (self.open.inside(), self.open.git());
        if let (Some(git), Some(key)) = (&git, &made.served) {
            git.close(key);
        }
        if let Some(inside) = &inside {
            let unmaking = async {
                if let Some((work, process)) = &made.cloning {
                    if let Some(process) = process {
                        let _ = inside.signal(*process, 9).await;
                    }
                    workspace::unmake_directory(inside, &work.admitted.grant).await?;
                }
                if let Some(before) = &made.configured {
                    workspace::configure(inside, before).await?;
                }
                Ok::<_, Failure>(())
            };
            match tokio::time::timeout(UNMAKING, unmaking).await {
                Ok(Ok(())) => {}
                // The sandbox does not answer, or is gone: what is left in it leads nowhere.
                Ok(Err(failure)) => {
                    tracing::info!(failure.message, "a refused project was not removed from its sandbox")
                }
                Err(_) => tracing::info!("a refused project is slow to go from its sandbox"),
            }
        }
        if let Some(number) = made.staging {
            self.open.hide(number).await;
        }
        if let Some(number) = made.staging
            && let Err(error) = self.rooms.repositories.unstage(self.task.session, number).await
        {
            tracing::error!(session = %self.task.session, %error, "the objects of a refused project were not removed; they go with the session");
        }
        if let Some(connection) = &made.connection {
            self.open.connections.take_back(connection);
        }
    }
}

/// The branch's name is known when the forge's branches are.
fn with_final_branch(mut grant: Grant, work: &Work) -> Grant {
    let staged = &work.admitted.grant;
    if let Some(project) = grant.projects.iter_mut().find(|project| project.key == staged.key) {
        *project = staged.clone();
    }
    grant
}

fn refused(error: WidenError) -> Failure {
    Failure::new(Reason::TaskRejected, error.to_string())
}

fn too_long() -> Failure {
    let message = format!(
        "adding the project took longer than {} minutes: add it again, or list it in a task of its own",
        LONGEST.as_secs() / 60
    );
    Failure::new(Reason::ForgeUnavailable, message)
}
