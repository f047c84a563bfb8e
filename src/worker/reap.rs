//! Removes what nobody owns: containers, directories of sandboxes, what sessions left. This worker's own, and those of dead workers on the
//! same engine or beside it, which may never come back. Work in a left staging is kept as a bundle first.
//!
//! Never touches what a live worker owns: its lock says that it lives, also while it is stopped. `kept/` is left alone until its time is over.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::message::{SandboxId, SessionId};
use crate::repository::Repositories;
use crate::sandbox::home;
use crate::sandbox::left::{Known, Listed, is_own, must_go};
use crate::sandbox::owner::{self, Abandoned, Owner, Standing};
use crate::session::Rooms;
use crate::session::saved::States;

/// How long something that could not be kept is left in peace before it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(10 * 60);
/// How often a dead worker's directory is looked through for what has had its time.
const EXPIRE_EVERY: Duration = Duration::from_secs(60 * 60);

/// Puts away what is on the disk of a session, if it does not run.
pub type PutAway<'a> = dyn Fn(SessionId) + Send + Sync + 'a;

/// Remembers what is not to be done at every look.
#[derive(Debug, Default)]
pub struct Reaper {
    not_before: HashMap<PathBuf, Instant>,
}

impl Reaper {
    /// At the start, before any session: what a killed worker left in this state directory.
    pub async fn at_start(&mut self, rooms: &Rooms) {
        self.own(rooms, &|session| put_away(&rooms.repositories, session)).await;
    }

    /// Removes what this worker holds no more.
    pub async fn own(&mut self, rooms: &Rooms, put_away: &PutAway<'_>) {
        // Listed before it is asked what is held: what is held is held before there is anything of it.
        let homes = home::all(&rooms.state_dir);
        match rooms.engine.list().await {
            Ok(listed) => {
                let held = rooms.live_sandboxes.all();
                let (here, name) = (rooms.lock.owner(), rooms.owner());
                let is_left = |one: &&Listed| {
                    is_own(one, here, &name) && !one.sandbox.is_some_and(|sandbox| held.contains(&sandbox))
                };
                let staying = remove_containers(rooms, listed.iter().filter(is_left)).await;
                remove_homes(rooms, homes, |id| !held.contains(&id) && !staying.contains(&id)).await;
            }
            // The engine being away is told by readiness; here it only means "next time".
            Err(error) => tracing::debug!(%error, "orphaned sandboxes could not be looked for"),
        }
        if let Err(error) = rooms.engine.tend(rooms.lock.owner()).await {
            tracing::debug!(%error, "what dead workers left with the engine could not be looked for");
        }
        self.sessions(rooms, &rooms.repositories, put_away).await;
        if let Some(states) = States::of(&rooms.config) {
            let removed = states.expire().await;
            if removed > 0 {
                tracing::info!(removed, "saved states of agents had their time (session.saved_state_s)");
            }
        }
        match rooms.repositories.clear_mirrors().await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "mirrors whose refresh was cut off were cleared"),
            Err(error) => tracing::warn!(%error, "mirrors could not be looked through"),
        }
    }

    /// Takes over what dead workers left, and removes what is overdue where nobody can tell.
    pub async fn others(&mut self, rooms: &Rooms) {
        let here = rooms.lock.owner();
        let foreign: Vec<Listed> = match rooms.engine.list().await {
            Ok(listed) => {
                let name = rooms.owner();
                listed.into_iter().filter(|one| !is_own(one, here, &name)).collect()
            }
            Err(error) => {
                tracing::debug!(%error, "sandboxes of dead workers could not be looked for");
                return;
            }
        };
        let mut owners: Vec<Option<&Owner>> = Vec::new();
        for owner in foreign.iter().map(|one| one.owner.as_ref()) {
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        for owner in &owners {
            let theirs = foreign.iter().filter(|one| one.owner.as_ref() == *owner);
            let standing = match owner {
                Some(owner) => look(&owner.state_dir, Some(owner), here).await,
                None => Standing::Unknown,
            };
            match standing {
                Standing::Dead(abandoned) => self.take_over(rooms, abandoned, theirs).await,
                Standing::Alive => {}
                Standing::Gone => overdue(rooms, theirs, Known::Gone).await,
                Standing::Unknown => overdue(rooms, theirs, Known::Unknown).await,
            }
        }
        for state_dir in owner::beside(&here.state_dir) {
            let known = owners.iter().flatten().any(|owner| owner.state_dir == state_dir);
            let due = self.is_due(&state_dir);
            if known || !(due || has_leftovers(&state_dir)) {
                continue;
            }
            if let Standing::Dead(abandoned) = look(&state_dir, None, here).await {
                self.take_over(rooms, abandoned, std::iter::empty()).await;
            }
        }
    }

    /// Cleans up after a dead worker; nobody can start in its directory meanwhile.
    async fn take_over<'a>(
        &mut self,
        rooms: &Rooms,
        abandoned: Abandoned,
        containers: impl Iterator<Item = &'a Listed>,
    ) {
        let state_dir = &abandoned.state_dir;
        if has_leftovers(state_dir) {
            tracing::warn!(state_dir = %state_dir.display(), "cleaning up after a dead worker");
        }
        let homes = home::all(state_dir);
        let staying = remove_containers(rooms, containers).await;
        remove_homes(rooms, homes, |id| !staying.contains(&id)).await;
        let repositories = rooms.repositories.of_another(state_dir.clone());
        self.sessions(rooms, &repositories, &|session| put_away(&repositories, session))
            .await;
        // A socket that nobody listens on.
        let _ = std::fs::remove_file(state_dir.join("admin.sock"));
        if self.is_due(state_dir) {
            self.not_before.insert(state_dir.clone(), Instant::now() + EXPIRE_EVERY);
            if let Err(error) = repositories.expire().await {
                tracing::debug!(%error, state_dir = %state_dir.display(), "a dead worker's directory could not be looked through");
            }
        }
    }

    /// Keeps the work of sessions that run no more, and removes what they left.
    async fn sessions(&mut self, rooms: &Rooms, repositories: &Repositories, put_away: &PutAway<'_>) {
        match repositories.sessions() {
            Ok(sessions) => sessions.into_iter().for_each(put_away),
            Err(error) => tracing::debug!(%error, "former sessions could not be listed"),
        }
        let left = repositories.left().unwrap_or_else(|error| {
            tracing::warn!(%error, "what former sessions left could not be listed");
            Vec::new()
        });
        for directory in left {
            if !self.is_due(&directory) {
                continue;
            }
            match repositories.clear_left(&directory).await {
                Ok(kept) => {
                    rooms.metrics.sandboxes.orphan("session");
                    self.not_before.remove(&directory);
                    for bundle in kept {
                        tracing::warn!(kept = %bundle.display(), "work of a session that was cut off was kept as a bundle");
                    }
                }
                Err(error) => {
                    self.not_before.insert(directory.clone(), Instant::now() + TRY_AGAIN);
                    tracing::error!(%error, left = %directory.display(), "what a session left could not be kept and removed");
                }
            }
        }
    }

    fn is_due(&self, path: &Path) -> bool {
        self.not_before.get(path).is_none_or(|moment| Instant::now() >= *moment)
    }
}

/// When the process is told to end at once: all containers and directories of this worker, held or not. What is staged stays for the next start.
pub async fn everything(rooms: &Rooms) {
    let homes = home::all(&rooms.state_dir);
    if let Ok(listed) = rooms.engine.list().await {
        let (here, name) = (rooms.lock.owner(), rooms.owner());
        let staying = remove_containers(rooms, listed.iter().filter(|one| is_own(one, here, &name))).await;
        remove_homes(rooms, homes, |id| !staying.contains(&id)).await;
    }
    rooms.engine.leave().await;
}

/// Puts away what is on the disk of a session; whoever calls this knows that it does not run.
pub fn put_away(repositories: &Repositories, session: SessionId) {
    if let Err(error) = repositories.put_away(session) {
        tracing::warn!(%session, %error, "what a session left could not be put away");
    }
}

pub(super) async fn look(state_dir: &Path, labelled: Option<&Owner>, here: &Owner) -> Standing {
    let (state_dir, labelled, here) = (state_dir.to_owned(), labelled.cloned(), here.clone());
    tokio::task::spawn_blocking(move || owner::standing(&state_dir, labelled.as_ref(), &here))
        .await
        .unwrap_or(Standing::Unknown)
}

async fn overdue(rooms: &Rooms, theirs: impl Iterator<Item = &Listed>, known: Known) {
    let now = crate::sandbox::left::now();
    remove_containers(rooms, theirs.filter(|one| must_go(one, known, now))).await;
}

/// Removes containers; says whose could not be. One that cannot be removed does not keep the others.
async fn remove_containers<'a>(rooms: &Rooms, listed: impl Iterator<Item = &'a Listed>) -> Vec<SandboxId> {
    let mut staying = Vec::new();
    for one in listed {
        match rooms.engine.remove(one).await {
            Ok(()) => {
                rooms.metrics.sandboxes.orphan("container");
                tracing::warn!(
                    container = one.key,
                    worker = one.worker,
                    "a sandbox that nobody owned was removed"
                );
            }
            Err(error) => {
                tracing::warn!(%error, container = one.key, "a sandbox that nobody owns could not be removed");
                staying.extend(one.sandbox);
            }
        }
    }
    staying
}

async fn remove_homes(rooms: &Rooms, homes: Vec<(SandboxId, PathBuf)>, is_left: impl Fn(SandboxId) -> bool) {
    for (_, path) in homes.into_iter().filter(|(id, _)| is_left(*id)) {
        match home::remove_tree(&path).await {
            Ok(()) => {
                rooms.metrics.sandboxes.orphan("directory");
                tracing::debug!(directory = %path.display(), "the directory of a former sandbox was removed");
            }
            Err(error) => tracing::warn!(%error, "the directory of a former sandbox could not be removed"),
        }
    }
}

/// Whether there is anything in a state directory that goes with its worker.
pub(super) fn has_leftovers(state_dir: &Path) -> bool {
    ["sandboxes", "sessions"]
        .iter()
        .any(|name| std::fs::read_dir(state_dir.join(name)).is_ok_and(|mut entries| entries.next().is_some()))
}
