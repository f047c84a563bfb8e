//! The state directory: one worker's alone, and no other user's.
//!
//! Never changes the mode of a directory that could be somebody else's: only of one that is empty or that a worker has used before.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// The file whose lock says that a worker runs here.
const LOCK: &str = "worker.lock";

/// In which every session has a directory.
const SPREAD: [&str; 2] = ["sessions", "sandboxes"];

/// Makes the directory where there is none, and closes it and its lock to other users.
///
/// # Errors
/// It cannot be made this worker's own.
pub(super) fn close(state: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("state_dir {} cannot be used: {error}", state.display());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .map_err(|error| failed(&error))?;
    close_to_others(state).map_err(|error| failed(&error))?;
    // One that an older version made: whoever may open it may hold it.
    match std::fs::set_permissions(state.join(LOCK), std::fs::Permissions::from_mode(0o600)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(&error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Has ext4 give what each session makes a place of its own, apart from what the last ones left: it looks through all that was freed lately for
/// each new file nearby, which made a quarter of what a session cost the worker. Other file systems have no such setting, and no need.
pub(super) fn spread(state: &Path) {
    for name in SPREAD {
        let directory = state.join(name);
        let set = std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::File::open(&directory))
            .and_then(|opened| {
                let flags = rustix::fs::ioctl_getflags(&opened)?;
                Ok(rustix::fs::ioctl_setflags(&opened, flags | rustix::fs::IFlags::TOPDIR)?)
            });
        if let Err(error) = set {
            tracing::debug!(?directory, %error, "its file system does not spread directories");
        }
    }
}

/// Other users get no way in: they could hold the lock, and read what sessions leave.
fn close_to_others(state: &Path) -> Result<(), String> {
    if is_open(state)?.is_none() {
        return Ok(());
    }
    std::fs::set_permissions(state, std::fs::Permissions::from_mode(0o700)).map_err(|error| error.to_string())
}

/// The mode of a directory that other users may enter and that may be closed to them.
///
/// # Errors
/// It is not this user's, or it is open and may be somebody else's.
fn is_open(state: &Path) -> Result<Option<u32>, String> {
    let about = std::fs::metadata(state).map_err(|error| error.to_string())?;
    if !about.is_dir() {
        return Err("it is no directory".to_owned());
    }
    let own = nix::unistd::geteuid().as_raw();
    if about.uid() != own {
        return Err(format!(
            "it belongs to user {} and not to the worker's ({own}): chown it, or name another",
            about.uid()
        ));
    }
    let mode = about.mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(None);
    }
    let empty = std::fs::read_dir(state).is_ok_and(|mut entries| entries.next().is_none());
    if !empty && !state.join(LOCK).exists() {
        return Err(format!(
            "other users may enter it (mode {mode:03o}), and it holds what is no worker's: name a directory of its own, or chmod 700 it"
        ));
    }
    Ok(Some(mode))
}

/// What a look at a state directory shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none, and it can be made.
    Absent,
    /// No worker runs here.
    Free,
    /// A worker runs here.
    Running,
    /// A worker may run here or not; other users may enter it, by this mode, until a worker starts here.
    Open(u32),
}

/// Looks without changing anything.
///
/// # Errors
/// It could not be used by a worker of this user.
pub(super) fn look(state: &Path) -> Result<State, String> {
    if !state.exists() {
        let above = state.ancestors().find(|path| path.exists()).unwrap_or(state);
        return nix::unistd::access(above, nix::unistd::AccessFlags::W_OK)
            .map(|()| State::Absent)
            .map_err(|error| format!("{} cannot be written: {error}", above.display()));
    }
    nix::unistd::access(state, nix::unistd::AccessFlags::W_OK)
        .map_err(|error| format!("{} cannot be written: {error}", state.display()))?;
    if let Some(mode) = is_open(state).map_err(|error| format!("{}: {error}", state.display()))? {
        return Ok(State::Open(mode));
    }
    let Ok(file) = std::fs::File::open(state.join(LOCK)) else {
        return Ok(State::Free);
    };
    // Shared, and let go at once.
    match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(State::Free),
        Err(_) => Ok(State::Running),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::owner::StateLock;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    fn open(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    async fn take(state: &Path) -> Result<StateLock, String> {
        close(state)?;
        StateLock::take(state).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_state_directory_is_closed_to_others_and_never_somebody_else_s() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("a/state");
        assert_eq!(look(&state), Ok(State::Absent));
        let lock = take(&state).await.unwrap();
        assert_eq!((mode(&state), mode(&state.join(LOCK))), (0o700, 0o600));
        assert_eq!(look(&state), Ok(State::Running));
        assert!(take(&state).await.is_err());
        drop(lock);
        assert_eq!(look(&state), Ok(State::Free));
        // As an older version left it.
        open(&state, 0o755);
        open(&state.join(LOCK), 0o644);
        assert_eq!(look(&state), Ok(State::Open(0o755)));
        drop(take(&state).await.unwrap());
        assert_eq!((mode(&state), mode(&state.join(LOCK))), (0o700, 0o600));
        // As systemd makes it.
        let empty = place.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        open(&empty, 0o755);
        drop(take(&empty).await.unwrap());
        assert_eq!(mode(&empty), 0o700);
        // Somebody's home.
        let other = place.path().join("other");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("letter"), "").unwrap();
        open(&other, 0o755);
        assert!(look(&other).unwrap_err().contains("chmod 700"));
        assert!(take(&other).await.err().unwrap().contains("chmod 700"));
        assert_eq!(mode(&other), 0o755);
    }
}
