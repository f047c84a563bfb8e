//! What control messages ask of a running session besides ending it: another prompt, the end of a turn, a fresh credential, a connection
//! to drop, an answer that a project waits for, another project (`add`). Each is answered by an event.
//!
//! Runs beside the path for as long as the session lives, so that publishing can wait for what arrives here.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::add::Add;
use super::adding::{Adding, Expected};
use super::checks::{Answers, Known};
use super::connections::{Connection, Connections};
use super::failure::Failure;
use super::objects::Objects;
use super::projects::Projects;
use super::prompts::{NotTaken, Prompts, Stopped};
use super::publish::Work;
use super::questions::Questions;
use super::steering::{Cause, Order, OrderKind, Steering};
use super::{Rooms, renew};
use crate::gateway::Inside;
use crate::gateway::git::GitRoutes;
use crate::grant::Grant;
use crate::message::{Amendment, EventBody, ProjectKey, Reason, Task};
use crate::progress::Progress;

/// Orders that are done side by side; more wait, and what waits is bounded too.
const MOST_AT_ONCE: usize = 32;

/// What the path opens and orders reach: filled as the session comes to it.
#[derive(Clone, Default)]
pub(super) struct Open {
    pub(super) connections: Connections,
    /// What tools say on the forges at this moment.
    pub(super) speaking: TaskTracker,
    /// The credentials that this session knows, to be looked for in what leaves.
    pub(super) known: Known,
    /// What projects wait to be told.
    pub(super) answers: Answers,
    /// What the agent asks people.
    pub(super) questions: Questions,
    /// What the agent is asked, and in which order.
    pub(super) prompts: Prompts,
    /// The session's authority and its projects, once they are known.
    pub(super) projects: Projects,
    /// When a project may be added.
    pub(super) adding: Adding,
    inside: Arc<OnceLock<Arc<Inside>>>,
    git: Arc<OnceLock<Arc<GitRoutes>>>,
    objects: Arc<OnceLock<Objects>>,
    /// Held by whoever replaces a credential.
    renewing: Arc<tokio::sync::Mutex<()>>,
    /// The orders that are being done.
    unanswered: Arc<Mutex<Vec<String>>>,
    /// Prompts that came too late for this worker.
    late: Arc<Mutex<Vec<String>>>,
    /// What control messages had made of the task before this attempt.
    before: Arc<OnceLock<Amendment>>,
}

impl Open {
    /// The sandbox is reachable, and git is for it.
    pub(super) fn reachable(&self, inside: Arc<Inside>, git: Arc<GitRoutes>) {
        // Set once per session.
        let _ = self.inside.set(inside);
        let _ = self.git.set(git);
    }

    /// Projects' objects can be shown to the sandbox.
    pub(super) fn shows(&self, objects: Objects) {
        // Set once per session.
        let _ = self.objects.set(objects);
    }

    /// Shows a project's objects to the sandbox; where, seen from inside. Nowhere if that cannot be: then they are fetched through the gateway.
    pub(super) async fn show(&self, work: &Work) -> Option<String> {
        self.objects.get()?.show(&work.staging).await
    }

    /// Shows them no more.
    pub(super) async fn hide(&self, number: usize) {
        if let Some(objects) = self.objects.get() {
            objects.hide(number).await;
        }
    }

    /// What control messages had made of the task when the last owner died.
    pub(super) fn amended(&self, before: Amendment) {
        // Set once per session.
        let _ = self.before.set(before);
    }

    /// What control messages made of the task, in all attempts that this one goes on from by what they noted. The task is as amended as it was
    /// when this attempt began.
    pub(super) fn amendment(&self, task: &Task) -> Amendment {
        let before = self.before.get().cloned().unwrap_or_default();
        let dropped = self.connections.dropped();
        let mut connections = before.connections;
        connections.retain(|name, _| !dropped.contains(name));
        connections.extend(self.connections.beyond(task));
        Amendment {
            added: self.projects.added(),
            connections,
            dropped: before.dropped.into_iter().chain(dropped).collect(),
        }
    }

    /// Goes on with something that comes before the agent, until a connection is dropped.
    pub(super) async fn undropped<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            failure = self.connections.any_dropped() => Err(failure),
            done = work => done,
        }
    }

    fn unanswered(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the session may do at this moment.
    pub(super) fn grant(&self) -> Result<Arc<Grant>, Failure> {
        self.projects.grant()
    }

    /// Its projects at this moment; none before they are staged.
    pub(super) fn work(&self) -> Vec<Arc<Work>> {
        self.projects.work()
    }

    /// The sandbox's first process, once it is reachable.
    pub(super) fn inside(&self) -> Option<Arc<Inside>> {
        self.inside.get().cloned()
    }

    /// git for the sandbox, once there is one.
    pub(super) fn git(&self) -> Option<Arc<GitRoutes>> {
        self.git.get().cloned()
    }
}

/// Obeys orders until it is dropped. They run side by side: one that waits for a slow forge holds no other up.
pub(super) async fn obey(
    rooms: &Rooms,
    task: &Task,
    open: &Open,
    progress: &Progress,
    steering: &Steering,
    inbox: &mut mpsc::Receiver<Box<Order>>,
) -> Infallible {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(order) = inbox.recv(), if running.len() < MOST_AT_ONCE => {
                open.unanswered().push(order.id.clone());
                let early = early(open, &order.kind);
                running.push(obey_one(rooms, task, open, progress, steering, (*order, early)));
            }
            Some(()) = running.next() => {}
            else => std::future::pending().await,
        }
    }
}

/// What is done at once, whatever else takes its time.
enum Early {
    Nothing,
    /// The turn of a prompt behind it waits for it; none when too many wait.
    Added(Option<Expected>),
    /// The connection was closed, where there is one.
    Dropped(Option<Arc<Connection>>),
}

fn early(open: &Open, kind: &OrderKind) -> Early {
    if matches!(kind, OrderKind::AddProject { .. }) {
        return Early::Added(open.adding.expect());
    }
    if let OrderKind::Disconnect { connection } = kind {
        let connection = open.connections.get(connection);
        if let Some(connection) = &connection {
            connection.close();
        }
        return Early::Dropped(connection);
    }
    Early::Nothing
}

async fn obey_one(
    rooms: &Rooms,
    task: &Task,
    open: &Open,
    progress: &Progress,
    steering: &Steering,
    (Order { id, kind }, early): (Order, Early),
) {
    let amends = matches!(
        kind,
        OrderKind::AddProject { .. } | OrderKind::Credential { .. } | OrderKind::Disconnect { .. }
    );
    let done = match kind {
        OrderKind::Prompt { text, mode } if matches!(steering.cause(), None | Some(Cause::Drain)) => {
            match open.prompts.add(&id, &text, mode) {
                Ok(said) => Ok(said),
                Err(NotTaken::Refused(message)) => Err(Failure::new(Reason::Cancelled, message)),
                // Whether another worker goes on, which then gets it, shows when the session ends.
                Err(NotTaken::Late) => {
                    open.unanswered().retain(|one| *one != id);
                    open.late.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                    return;
                }
            }
        }
        OrderKind::AddProject {
            project,
            new_connection,
        } => {
            if let Early::Added(Some(expected)) = &early {
                let add = Add {
                    rooms,
                    task,
                    open,
                    progress,
                    steering,
                };
                // Much larger than the others.
                Box::pin(add.add(expected, project, new_connection)).await
            } else {
                Err(Failure::new(
                    Reason::Cancelled,
                    "too many projects wait to be added: send it again when one of them is done",
                ))
            }
        }
        OrderKind::Prompt { .. } => Err(Failure::new(
            Reason::Cancelled,
            "the session is ending: send it in a task that resumes the session",
        )),
        OrderKind::CancelTurn => cancel_turn(open, steering),
        OrderKind::Credential { connection, credential } => {
            // Two at once would race for the last word.
            let _turn = open.renewing.lock().await;
            renew::replace(rooms, task, open, progress, &connection, &credential).await
        }
        OrderKind::Disconnect { connection: name } => {
            if let Early::Dropped(Some(connection)) = &early {
                renew::disconnect(open, progress, steering, (&name, connection)).await
            } else {
                Err(renew::no_connection(&name))
            }
        }
        OrderKind::Answer { project, publish } => answer(open, &project, publish),
        OrderKind::Choose { question, option } => open
            .questions
            .answer(&question, &option)
            .map_err(|message| Failure::new(Reason::Cancelled, message)),
    };
    if amends && done.is_ok() {
        // Before it is answered: what is said to be done is done for whoever goes on as well.
        open.prompts.amended(&id, open.amendment(task));
        steering.noted().await;
    }
    let (applied, message) = match done {
        Ok(said) => (true, said),
        Err(failure) => (false, failure.message),
    };
    tracing::info!(order = id, applied, message, "a control message was handled");
    open.unanswered().retain(|one| *one != id);
    progress
        .state(EventBody::ControlAnswered {
            in_reply_to: id,
            applied,
            message,
        })
        .await;
    drop(early);
    steering.done();
}

/// Answers what the end of the session left unanswered, but for prompts that another worker gets.
pub(super) async fn decline(open: &Open, progress: &Progress, inbox: &mut mpsc::Receiver<Box<Order>>, goes_on: bool) {
    inbox.close();
    let mut left: Vec<String> = std::mem::take(&mut *open.unanswered());
    let mut late = std::mem::take(&mut *open.late.lock().unwrap_or_else(PoisonError::into_inner));
    while let Ok(order) = inbox.try_recv() {
        let kind = if matches!(order.kind, OrderKind::Prompt { .. }) {
            &mut late
        } else {
            &mut left
        };
        kind.push(order.id);
    }
    if !goes_on {
        left.append(&mut late);
    }
    for in_reply_to in left {
        progress
            .state(EventBody::ControlAnswered {
                in_reply_to,
                applied: false,
                message: "the session ended, or was suspended, before it was done".to_owned(),
            })
            .await;
    }
}

/// Stops the running turn; a session that has nothing else to do ends.
fn cancel_turn(open: &Open, steering: &Steering) -> Result<String, Failure> {
    let refused = |message: &str| Err(Failure::new(Reason::Cancelled, message));
    if steering.cause().is_some() {
        return refused("the session is ending already");
    }
    match open.prompts.stop_turn() {
        Stopped::Turn(number) => Ok(format!("turn {number} is stopped; what was committed is published")),
        Stopped::First => Ok("the first prompt had not begun and is not given".to_owned()),
        Stopped::Session => {
            steering.stop(Cause::Publish);
            Ok("no turn had begun; the session ends".to_owned())
        }
        Stopped::Nothing => refused("no turn runs"),
    }
}

/// Hands an answer to the project that waits for it.
fn answer(open: &Open, project: &ProjectKey, publish: bool) -> Result<String, Failure> {
    let work = open.work();
    let refused = |message: String| Err(Failure::new(Reason::ReviewNeeded, message));
    if !work.iter().any(|work| work.admitted.grant.key == *project) {
        return refused(format!("this session has no project {project}"));
    }
    match open.answers.give(project, publish) {
        Ok(()) if publish => Ok(format!("the work in {project} is published")),
        Ok(()) => Ok(format!("the work in {project} is kept")),
        Err(message) => refused(message),
    }
}
