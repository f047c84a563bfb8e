//! What control messages ask of a running session besides stopping it: a fresh credential, a connection to drop. Each is answered by an event.
//!
//! Runs beside the path for as long as the session lives, so that publishing can wait for what arrives here.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::connections::{Connected, Connections};
use super::failure::Failure;
use super::publish::Work;
use super::steering::{Cause, Order, OrderKind, Steering};
use super::{Rooms, workspace};
use crate::gateway::Inside;
use crate::gateway::git::GitRoutes;
use crate::message::{ConnectionName, Credential, EventBody, Reason, Task, Uncommitted};
use crate::progress::Progress;

/// How long the sandbox may take to hand over what is committed when a connection is dropped.
const HANDING_OVER: Duration = Duration::from_secs(30);

/// What the path opens and orders reach: filled as the session comes to it.
#[derive(Clone, Default)]
pub(super) struct Open {
    pub(super) connections: Connections,
    work: Arc<Mutex<Vec<Arc<Work>>>>,
    inside: Arc<OnceLock<Arc<Inside>>>,
    git: Arc<OnceLock<Arc<GitRoutes>>>,
}

impl Open {
    /// The projects are staged.
    pub(super) fn staged(&self, work: &[Arc<Work>]) {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = work.to_vec();
    }

    /// The sandbox is reachable, and git is for it.
    pub(super) fn reachable(&self, inside: Arc<Inside>, git: Arc<GitRoutes>) {
        // Set once per session.
        let _ = self.inside.set(inside);
        let _ = self.git.set(git);
    }

    fn work(&self) -> Vec<Arc<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Obeys orders until it is dropped.
pub(super) async fn obey(
    rooms: &Rooms,
    task: &Task,
    open: &Open,
    progress: &Progress,
    steering: &Steering,
    mut inbox: mpsc::Receiver<Order>,
) -> Infallible {
    while let Some(Order { id, kind }) = inbox.recv().await {
        let done = match kind {
            OrderKind::Credential { connection, credential } => {
                replace(rooms, task, open, progress, &connection, &credential).await
            }
            OrderKind::Disconnect { connection } => disconnect(open, progress, steering, &connection).await,
        };
        let (applied, message) = match done {
            Ok(said) => (true, said),
            Err(failure) => (false, failure.message),
        };
        progress
            .state(EventBody::ControlAnswered {
                in_reply_to: id,
                applied,
                message,
            })
            .await;
    }
    std::future::pending().await
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
    let secret = (rooms.credentials)(credential)?;
    progress.mask_also(&secret);
    let fresh = Connected::ask(rooms, task, request, &secret).await?;
    // Commits bear the first token's user, and the rights were looked up for that one.
    if fresh.facts.account != before.facts.account {
        return refused(format!(
            "the credential is of the user {:?}, the connection {name} of {:?}: send one of the same user",
            fresh.facts.account, before.facts.account
        ));
    }
    let told = fresh.told(name);
    if !connection.renew(fresh) {
        return Err(connection.dropped());
    }
    progress.state(told).await;
    Ok(format!("the connection {name} has a fresh credential"))
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
                let taking = workspace::collect(inside, grant, Uncommitted::Discard, "");
                let _ = tokio::time::timeout(HANDING_OVER, taking).await;
            }
            let failure = connection.dropped();
            let outcome = work.kept(failure.reason, &failure.message).await;
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
