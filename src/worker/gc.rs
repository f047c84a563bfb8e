//! What nobody owns, listed for whoever asks, and removed on his word: the same that the reaper finds by itself, and what has had its time.
//!
//! Decides nothing of its own: what is listed is what [`super::reap`] and the repositories would remove.

use std::path::Path;

use super::{Worker, reap};
use crate::sandbox::home;
use crate::sandbox::left::{Known, is_own, must_go, now};
use crate::sandbox::owner::{self, Standing};

/// Something that nobody owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// What it is: `container`, `directory`, `session`, `bundle` or `mirror`.
    pub kind: &'static str,
    /// Which one: the engine's name of it, or a path.
    pub what: String,
    /// Why it goes.
    pub why: &'static str,
}

/// What was found, and what of it is still there.
#[derive(Debug, Default)]
pub struct Collected {
    /// All that was found.
    pub found: Vec<Garbage>,
    /// What was not removed, because nobody said so or because it could not be.
    pub left: Vec<Garbage>,
    /// What could not be looked at.
    pub problems: Vec<String>,
}

impl Worker {
    /// Lists what nobody owns and, unless it is only to be listed, removes it. Waits for a look of the reaper that is under way.
    pub async fn collect(&self, only_list: bool) -> Collected {
        let mut reaper = self.reaper.lock().await;
        let mut problems = Vec::new();
        let found = self.garbage(&mut problems).await;
        if only_list {
            return Collected {
                left: found.clone(),
                found,
                problems,
            };
        }
        *reaper = reap::Reaper::default();
        self.reap(&mut reaper).await;
        if let Err(error) = self.rooms.repositories.expire().await {
            problems.push(error.to_string());
        }
        problems.clear();
        let still = self.garbage(&mut problems).await;
        let left = found.iter().filter(|one| still.contains(one)).cloned().collect();
        tracing::info!(
            found = found.len(),
            "what nobody owned was removed on an operator's word"
        );
        Collected { found, left, problems }
    }

    async fn garbage(&self, problems: &mut Vec<String>) -> Vec<Garbage> {
        let rooms = &self.rooms;
        let here = rooms.lock.owner();
        let mut found = Vec::new();
        let mut add = |kind, what: String, why| found.push(Garbage { kind, what, why });
        // Listed before it is asked what is held: what is held is held before there is anything of it.
        let homes = home::all(&rooms.state_dir);
        let listed = rooms.engine.list().await.unwrap_or_else(|error| {
            problems.push(error.to_string());
            Vec::new()
        });
        let held = rooms.live_sandboxes.all();
        for one in &listed {
            let why = if is_own(one, here, &rooms.owner()) {
                (!one.sandbox.is_some_and(|sandbox| held.contains(&sandbox))).then_some("no session holds it")
            } else {
                let known = match &one.owner {
                    Some(owner) => known(&reap::look(&owner.state_dir, Some(owner), here).await),
                    None => Known::Unknown,
                };
                must_go(one, known, now()).then_some("its worker is gone, or its time is over")
            };
            if let Some(why) = why {
                add("container", one.key.clone(), why);
            }
        }
        for (_, path) in homes.into_iter().filter(|(id, _)| !held.contains(id)) {
            add("directory", path.display().to_string(), "no session holds it");
        }
        for state_dir in owner::beside(&here.state_dir) {
            if reap::has_leftovers(&state_dir)
                && let Standing::Dead(_) = reap::look(&state_dir, None, here).await
            {
                let what = state_dir.display().to_string();
                add("directory", what, "a dead worker's sandboxes and sessions");
            }
        }
        self.add_stored(&mut add, problems);
        found
    }

    fn add_stored(&self, add: &mut dyn FnMut(&'static str, String, &'static str), problems: &mut Vec<String>) {
        let repositories = &self.rooms.repositories;
        let text = |path: &Path| path.display().to_string();
        match repositories.sessions() {
            Ok(sessions) => {
                for session in sessions.into_iter().filter(|session| !self.runs(*session)) {
                    add("session", session.to_string(), "it does not run here");
                }
            }
            Err(error) => problems.push(error.to_string()),
        }
        match repositories.left() {
            Ok(left) => left
                .iter()
                .for_each(|path| add("session", text(path), "it does not run here")),
            Err(error) => problems.push(error.to_string()),
        }
        match repositories.expired() {
            Ok(expired) => {
                for path in &expired.bundles {
                    add("bundle", text(path), "older than repository.keep_bundles_days");
                }
                for path in &expired.mirrors {
                    add("mirror", text(path), "unused for repository.keep_mirrors_days");
                }
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
}

/// The directory of a dead one is let go at once: this only looks.
fn known(standing: &Standing) -> Known {
    match standing {
        Standing::Alive => Known::Alive,
        Standing::Dead(_) => Known::Dead,
        Standing::Gone => Known::Gone,
        Standing::Unknown => Known::Unknown,
    }
}
