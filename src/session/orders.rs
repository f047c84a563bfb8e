//! What control messages ask of a running session besides ending it: another prompt, the end of a turn, a fresh credential, a connection
//! to drop, an answer that a project waits for. Each is answered by an event.
//!
//! Runs beside the path for as long as the session lives, so that publishing can wait for what arrives here.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::checks::{Answers, Known};
use super::connections::{Connected, Connections};
use super::credential::Asked;
use super::failure::Failure;
use super::prompts::{Prompts, Stopped};
use super::publish::Work;
use super::questions::Questions;
use super::steering::{Cause, Order, OrderKind, Steering};
use super::{Rooms, workspace};
use crate::forge::TokenKind;
use crate::gateway::Inside;
use crate::gateway::git::GitRoutes;
use crate::grant::Grant;
use crate::message::{ConnectionName, Credential, EventBody, ProjectKey, Reason, Task, Uncommitted};
use crate::progress::Progress;

/// How long the sandbox may take to hand over what is committed when a connection is dropped.
const HANDING_OVER: Duration = Duration::from_secs(30);

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
    /// The session's authority and its projects, once they are known. Both grow when a project is added: they are read anew at each use.
    grant: Arc<Mutex<Option<Arc<Grant>>>>,
    work: Arc<Mutex<Vec<Arc<Work>>>>,
    inside: Arc<OnceLock<Arc<Inside>>>,
    git: Arc<OnceLock<Arc<GitRoutes>>>,
    /// Held by whoever replaces a credential.
    renewing: Arc<tokio::sync::Mutex<()>>,
    /// The orders that are being done.
    unanswered: Arc<Mutex<Vec<String>>>,
}

impl Open {
    /// The projects are staged.
    pub(super) fn staged(&self, grant: Arc<Grant>, work: &[Arc<Work>]) {
        *self.grant.lock().unwrap_or_else(PoisonError::into_inner) = Some(grant);
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = work.to_vec();
    }

    /// The sandbox is reachable, and git is for it.
    pub(super) fn reachable(&self, inside: Arc<Inside>, git: Arc<GitRoutes>) {
        // Set once per session.
        let _ = self.inside.set(inside);
        let _ = self.git.set(git);
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
        let grant = self.grant.lock().unwrap_or_else(PoisonError::into_inner).clone();
        grant.ok_or_else(|| Failure::new(Reason::Internal, "the session has no grant yet"))
    }

    /// Its projects at this moment; none before they are staged.
    pub(super) fn work(&self) -> Vec<Arc<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Obeys orders until it is dropped. They run side by side: one that waits for a slow forge holds no other up.
pub(super) async fn obey(
    rooms: &Rooms,
    task: &Task,
    open: &Open,
    progress: &Progress,
    steering: &Steering,
    inbox: &mut mpsc::Receiver<Order>,
) -> Infallible {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(order) = inbox.recv(), if running.len() < MOST_AT_ONCE => {
                if let OrderKind::Disconnect { connection } = &order.kind
                    && let Some(connection) = open.connections.get(connection)
                {
                    // At once, whatever else takes its time.
                    connection.close();
                }
                open.unanswered().push(order.id.clone());
                running.push(obey_one(rooms, task, open, progress, steering, order));
            }
            Some(()) = running.next() => {}
            else => std::future::pending().await,
        }
    }
}

async fn obey_one(
    rooms: &Rooms,
    task: &Task,
    open: &Open,
    progress: &Progress,
    steering: &Steering,
    Order { id, kind }: Order,
) {
    let done = match kind {
        // Not applied yet.
        OrderKind::AddProject { .. } => Err(Failure::new(
            Reason::Internal,
            "this worker does not apply this kind of control message yet",
        )),
        OrderKind::Prompt { text, mode } if matches!(steering.cause(), None | Some(Cause::Drain)) => open
            .prompts
            .add(&text, mode)
            .map_err(|message| Failure::new(Reason::Cancelled, message)),
        OrderKind::Prompt { .. } => Err(Failure::new(
            Reason::Cancelled,
            "the session is ending: send it in a task that resumes the session",
        )),
        OrderKind::CancelTurn => cancel_turn(open, steering),
        OrderKind::Credential { connection, credential } => {
            // Two at once would race for the last word.
            let _turn = open.renewing.lock().await;
            replace(rooms, task, open, progress, &connection, &credential).await
        }
        OrderKind::Disconnect { connection } => disconnect(open, progress, steering, &connection).await,
        OrderKind::Answer { project, publish } => answer(open, &project, publish),
        OrderKind::Choose { question, option } => open
            .questions
            .answer(&question, &option)
            .map_err(|message| Failure::new(Reason::Cancelled, message)),
    };
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
}

/// Answers what the end of the session left unanswered.
pub(super) async fn decline(open: &Open, progress: &Progress, inbox: &mut mpsc::Receiver<Order>) {
    inbox.close();
    let mut left: Vec<String> = std::mem::take(&mut *open.unanswered());
    while let Ok(order) = inbox.try_recv() {
        left.push(order.id);
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

/// Takes a fresh credential for a connection, if it is the same user's.
async fn replace(
    rooms: &Rooms,
    task: &Task,
    open: &Open,
    progress: &Progress,
    name: &ConnectionName,
    credential: &Credential,
) -> Result<String, Failure> {
    let refused = |message: String| Err(Failure::new(Reason::CredentialRefused, message));
    let (Some(connection), Some(request)) = (open.connections.get(name), task.connections.get(name)) else {
        return refused(format!("this session has no connection {name} yet"));
    };
    let before = connection.current()?;
    let secret = (rooms.credentials)(credential, &Asked::of(Some(task.session), request))?;
    progress.mask_also(&secret);
    open.known.add(&secret);
    let fresh = Connected::ask(rooms, task, request, &secret).await?;
    // Commits bear the first token's user, and the rights were looked up for that one.
    match before.is_same_user(&fresh) {
        Some(true) => {}
        Some(false) => {
            return refused(format!(
                "the credential is of the user {:?}, the connection {name} of {:?}: send one of the same user",
                fresh.facts.account, before.facts.account
            ));
        }
        None => same_installation(open, name, &before, &fresh).await?,
    }
    let told = fresh.told(name);
    if !connection.renew(fresh) {
        return Err(connection.dropped());
    }
    progress.state(told).await;
    Ok(format!("the connection {name} has a fresh credential"))
}

/// Installations of an App are no users: the fresh token must be of one that sees the very same projects.
async fn same_installation(
    open: &Open,
    name: &ConnectionName,
    before: &Connected,
    fresh: &Connected,
) -> Result<(), Failure> {
    let kinds = (before.facts.kind, fresh.facts.kind);
    let mut same = kinds == (TokenKind::AppInstallation, TokenKind::AppInstallation);
    for work in open
        .work()
        .iter()
        .filter(|work| work.admitted.grant.connection == *name)
    {
        let seen = fresh.forge.project(&work.admitted.facts.path).await?;
        same &= seen.id == work.admitted.facts.id && seen.may_push == work.admitted.facts.may_push;
    }
    if same {
        return Ok(());
    }
    let message =
        format!("nobody can tell whether the credential is of the same user as that of {name}: it is not taken");
    Err(Failure::new(Reason::CredentialRefused, message))
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

/// Drops a connection: first the credential, then what was worked on with it.
async fn disconnect(
    open: &Open,
    progress: &Progress,
    steering: &Steering,
    name: &ConnectionName,
) -> Result<String, Failure> {
    let Some(connection) = open.connections.get(name) else {
        let message = format!("this session has no connection {name} yet");
        return Err(Failure::new(Reason::CredentialRefused, message));
    };
    connection.close();
    let all = open.work();
    let dropped = all.iter().filter(|work| work.admitted.grant.connection == *name);
    for work in dropped.clone() {
        let grant = &work.admitted.grant;
        // Whoever publishes it stops at once, because the connection is closed.
        let _busy = work.busy.lock().await;
        if work.ended.get().is_none() {
            if let Some(inside) = open.inside.get() {
                // Committed is committed; what lies around is not touched under a working agent.
                let taking = workspace::collect(inside, grant, Uncommitted::Discard, "", workspace::Agent::Stays);
                let _ = tokio::time::timeout(HANDING_OVER, taking).await;
            }
            let failure = connection.dropped();
            let outcome = work.closed(&failure).await;
            // Under `busy`, so nobody else has set it.
            let _ = work.ended.set(outcome.clone());
            if work.is_untold() {
                progress.state(EventBody::ProjectFinished { outcome }).await;
            }
        }
        if let Some(git) = open.git.get() {
            git.close(&grant.key);
        }
        if let Err(error) = work.staging.remove().await {
            tracing::error!(project = %grant.key, %error, "the objects of a dropped connection were not removed; they go with the session");
        }
        if let Some(inside) = open.inside.get() {
            let _ = tokio::time::timeout(HANDING_OVER, workspace::erase(inside, grant)).await;
        }
    }
    if !all.is_empty() && all.iter().all(|work| work.ended.get().is_some()) {
        steering.stop(Cause::Publish);
    }
    Ok(format!(
        "the connection {name} is dropped; {} projects ended",
        dropped.count()
    ))
}
