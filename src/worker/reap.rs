//! Removes what nobody owns: containers of this worker without a session, directories of killed workers. Work in a left staging is kept
//! as a bundle first. Only ever touches what carries this worker's label or lies in its state directory.

use crate::session::Rooms;

/// Removes this worker's sandboxes that no session holds.
pub async fn sandboxes(rooms: &Rooms) {
    match rooms.engine.reap(&rooms.owner(), &|| rooms.live_sandboxes.all()).await {
        Ok(0) => {}
        Ok(count) => {
            tracing::warn!(count, "sandboxes that nobody owned were removed");
        }
        // The engine being away is told by readiness; here it only means "next time".
        Err(error) => tracing::debug!(%error, "orphaned sandboxes could not be looked for"),
    }
}

/// At the start, before any session: what a killed worker left in the state directory.
pub async fn left_by_a_killed_worker(rooms: &Rooms) {
    sandboxes(rooms).await;
    if let Err(error) = rooms.remove_left_homes().await {
        tracing::warn!(%error, "directories of former sandboxes could not be removed");
    }
    let sessions = match rooms.repositories.sessions() {
        Ok(sessions) => sessions,
        Err(error) => {
            tracing::warn!(%error, "sessions of a former worker could not be listed");
            return;
        }
    };
    for session in sessions {
        match rooms.repositories.reopen(session) {
            Ok(stagings) => {
                for staging in stagings {
                    let staged = staging.head().ok().flatten();
                    if staged.is_none_or(|head| head == *staging.base()) {
                        continue;
                    }
                    match staging.keep().await {
                        Ok((path, _)) => {
                            tracing::warn!(%session, kept = %path.display(), "work of a killed worker was kept as a bundle");
                        }
                        Err(error) => tracing::error!(%session, %error, "work of a killed worker could not be kept"),
                    }
                }
            }
            Err(error) => tracing::warn!(%session, %error, "a former session could not be read"),
        }
        if let Err(error) = rooms.repositories.remove_session(session).await {
            tracing::warn!(%session, %error, "a former session could not be removed");
        }
    }
}
