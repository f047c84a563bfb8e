//! The step from admitted projects to what the sandbox will be given: mirrors, object stores, staging, and the final names of the branches.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use futures::future::try_join_all;
use tracing::Instrument as _;

use super::Rooms;
use super::admit::{self, Admitted};
use super::failure::Failure;
use super::publish::{FIRST_WAIT, TRIES, Work};
use crate::grant::{Grant, Trailers};
use crate::message::{Reason, Task};
use crate::repository::{Mirrored, RepositoryError};

/// Refreshes the mirrors side by side, makes each project's object store and staging, and fixes the names of the branches now that the
/// forges' branches are known. No project holds its mirror while it waits for another's, so sessions cannot wait for each other in a ring.
pub(super) async fn stage_all(
    rooms: &Rooms,
    task: &Task,
    mut grant: Grant,
    admitted: Vec<Admitted>,
) -> Result<(Arc<Grant>, Vec<Arc<Work>>), Failure> {
    let trailers = &grant.trailers;
    let staged = admitted
        .into_iter()
        .enumerate()
        .map(|(number, mut admitted)| async move {
            let trailers = trailers.get(&admitted.grant.key).ok_or_else(no_trailers)?;
            let mirrored = refreshed(rooms, &mut admitted).await?;
            rooms.repositories.refuse_lfs(&mirrored).await?;
            stage(rooms, task, number, admitted, &mirrored, trailers).await
        });
    let work = try_join_all(staged).await?;
    grant.projects = work.iter().map(|work| work.admitted.grant.clone()).collect();
    Ok((Arc::new(grant), work.into_iter().map(Arc::new).collect()))
}

/// One project's object store and staging, and the final name of its branch, from what its token was shown just now.
pub(super) async fn stage(
    rooms: &Rooms,
    task: &Task,
    number: usize,
    mut admitted: Admitted,
    mirrored: &Mirrored,
    trailers: &Trailers,
) -> Result<Work, Failure> {
    admitted.grant.branch = admit::final_branch(rooms, task, mirrored.refs())?;
    let name = format!("refs/heads/{}", admitted.grant.branch);
    let expected = mirrored
        .refs()
        .iter()
        .find(|shown| shown.name == name)
        .map(|shown| shown.target.clone());
    let staging = rooms
        .repositories
        .stage(mirrored, task.session, number, &admitted.grant, trailers)
        .await?;
    Ok(Work {
        admitted,
        staging: Arc::new(staging),
        began_at: expected.clone(),
        forge: Mutex::new(expected),
        last: Mutex::new(None),
        described: Mutex::new(None),
        ended: OnceLock::new(),
        told: AtomicBool::new(false),
        pushing: AtomicBool::new(false),
        busy: tokio::sync::Mutex::new(()),
    })
}

/// A fresh mirror. A forge that does not answer is asked again; a fetch that took all its time is not begun again.
pub(super) async fn refreshed(rooms: &Rooms, admitted: &mut Admitted) -> Result<Mirrored, Failure> {
    let mut wait = FIRST_WAIT;
    let mut attempt = 1;
    loop {
        let connected = admitted.connection.current()?;
        let shown = match admitted.shown.take() {
            // One that was lost is asked again.
            Some(asking) => asking.await.unwrap_or_default(),
            None => None,
        };
        let refreshing = rooms
            .repositories
            .refresh_knowing(&admitted.grant, &connected.access, shown);
        match refreshing.instrument(tracing::info_span!("mirror")).await {
            Err(error @ RepositoryError::Unavailable { .. }) if attempt < TRIES => {
                tracing::warn!(project = %admitted.grant.key, attempt, %error, "a project could not be fetched and is tried again");
                tokio::time::sleep(wait).await;
                wait *= 2;
                attempt += 1;
            }
            done => {
                let result = done.as_ref().map_or("failed", |mirrored| mirrored.freshness().as_str());
                rooms.metrics.forges.refreshed(result);
                return Ok(done?);
            }
        }
    }
}

pub(super) fn no_trailers() -> Failure {
    Failure::new(Reason::Internal, "a project without trailers")
}
