//! What becomes of a connection while its session runs: a fresh credential of the same user, or its end with all that was worked on with it.

use std::time::Duration;

use super::connections::{Connected, Connection};
use super::credential::Asked;
use super::failure::Failure;
use super::orders::Open;
use super::steering::{Cause, Steering};
use super::{Rooms, workspace};
use crate::forge::TokenKind;
use crate::message::{ConnectionName, Credential, EventBody, Reason, Task, Uncommitted};
use crate::progress::Progress;

/// How long the sandbox may take to hand over what is committed when a connection is dropped.
const HANDING_OVER: Duration = Duration::from_secs(30);

/// Takes a fresh credential for a connection, if it is the same user's.
pub(super) async fn replace(
    rooms: &Rooms,
    task: &Task,
    open: &Open,
    progress: &Progress,
    name: &ConnectionName,
    credential: &Credential,
) -> Result<String, Failure> {
    let refused = |message: String| Err(Failure::new(Reason::CredentialRefused, message));
    let connection = open.connections.get(name).ok_or_else(|| no_connection(name))?;
    let (before, request) = (connection.current()?, connection.request());
    let secret = (rooms.credentials)(credential, &Asked::of(Some(task.session), &request))?;
    progress.mask_also(&secret);
    open.known.add(&secret);
    let fresh = Connected::ask(rooms, task, &request, &secret).await?;
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
    if !connection.renew(fresh, credential) {
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

/// The refusal of whoever names one that is not there.
pub(super) fn no_connection(name: &ConnectionName) -> Failure {
    Failure::new(
        Reason::CredentialRefused,
        format!("this session has no connection {name} yet"),
    )
}

/// Ends what was worked on with a connection that was closed: first the credential, then what was worked on with it.
pub(super) async fn disconnect(
    open: &Open,
    progress: &Progress,
    steering: &Steering,
    (name, connection): (&ConnectionName, &Connection),
) -> Result<String, Failure> {
    let all = open.work();
    let dropped = all.iter().filter(|work| work.admitted.grant.connection == *name);
    let count = dropped.clone().count();
    for work in dropped {
        let grant = &work.admitted.grant;
        // Whoever publishes it stops at once, because the connection is closed.
        let _busy = work.busy.lock().await;
        if work.ended.get().is_none() {
            if let Some(inside) = &open.inside() {
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
        if let Some(git) = open.git() {
            git.close(&grant.key);
        }
        if let Err(error) = work.staging.remove().await {
            tracing::error!(project = %grant.key, %error, "the objects of a dropped connection were not removed; they go with the session");
        }
        if let Some(inside) = &open.inside() {
            let _ = tokio::time::timeout(HANDING_OVER, workspace::erase(inside, grant)).await;
        }
        open.hide(work.staging.number()).await;
    }
    // One may have been added meanwhile.
    let all = open.work();
    if !all.is_empty() && all.iter().all(|work| work.ended.get().is_some()) {
        steering.stop(Cause::Publish);
    }
    Ok(format!("the connection {name} is dropped; {count} projects ended"))
}
