//! What is left of sessions that run no more: put away under another name in one step, then its work is kept, then it is removed.
//!
//! The step comes first because a session of the same id may start at any moment. Nothing with work in it is removed before that is a bundle.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{RepositoryError, Shared, blocking, staging};
use crate::message::SessionId;

/// What the names of things put away begin with; no session's does.
const MARK: &str = "left-";

pub(super) fn put_away(shared: &Shared, session: SessionId) -> Result<(), RepositoryError> {
    let sessions = shared.config.sessions();
    let from = sessions.join(session.to_string());
    let to = sessions.join(format!("{MARK}{session}-{}", uuid::Uuid::new_v4().simple()));
    match fs::rename(&from, &to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(RepositoryError::state("put away", &from)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn list(shared: &Shared) -> Result<Vec<PathBuf>, RepositoryError> {
    let sessions = shared.config.sessions();
    let mut found = Vec::new();
    let entries = match fs::read_dir(&sessions) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(RepositoryError::state("list", &sessions)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(RepositoryError::state("list", &sessions))?;
        if entry.file_name().to_string_lossy().starts_with(MARK) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

pub(super) async fn clear(shared: &Arc<Shared>, directory: &Path) -> Result<Vec<PathBuf>, RepositoryError> {
    let (opening, path) = (Arc::clone(shared), directory.to_owned());
    let stagings = blocking(move || staging::reopen(&opening, &path)).await?;
    let mut kept = Vec::new();
    for staging in stagings {
        let staged = staging.head()?;
        if staged.is_none_or(|head| head == *staging.base()) {
            continue;
        }
        match staging.keep().await {
            Ok((bundle, _)) => kept.push(bundle),
            Err(RepositoryError::NothingToKeep) => {}
            Err(error) => return Err(error),
        }
    }
    staging::remove_directory(directory.to_owned()).await?;
    Ok(kept)
}
