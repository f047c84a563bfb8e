//! One user of a mirror at a time, and what a killed one left behind.
//!
//! The lock belongs to the open file, and git's processes inherit it: it is free when the last of them is gone, so whoever has it
//! may remove git's own stale lock files. Never waits without end.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::repository::RepositoryError;

/// How often a taken lock is asked for again: the system has no asynchronous wait for it.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Waits for the lock until `deadline`.
pub(super) async fn acquire(path: &Path, deadline: Instant) -> Result<File, RepositoryError> {
    let begun = Instant::now();
    loop {
        if let Some(file) = try_acquire(path)? {
            return Ok(file);
        }
        if Instant::now() >= deadline {
            return Err(RepositoryError::MirrorBusy {
                waited: begun.elapsed(),
            });
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// The lock, if nobody has it.
pub(super) fn try_acquire(path: &Path) -> Result<Option<File>, RepositoryError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(RepositoryError::state("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(RepositoryError::state("lock", path)(error)),
    }
}

/// Removes lock files and half-written packs. Only under the lock.
pub(super) fn clear_leftovers(repository: &Path) -> Result<(), RepositoryError> {
    let mut directories = vec![repository.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).map_err(RepositoryError::state("list", &directory))?;
        for entry in entries {
            let entry = entry.map_err(RepositoryError::state("list", &directory))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(RepositoryError::state("look at", &path))?;
            if kind.is_dir() {
                directories.push(path);
            } else if is_leftover(&entry.file_name().to_string_lossy()) {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(RepositoryError::state("remove", &path)(error));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        }
    }
    Ok(())
}

/// A branch may be called `tmp_x`, but none may end in `.lock`: the other names are git's only inside a name it makes up itself.
fn is_leftover(name: &str) -> bool {
    name.ends_with(".lock")
        || name == "packed-refs.new"
        || [
            "tmp_pack_",
            "tmp_idx_",
            "tmp_rev_",
            "tmp_obj_",
            "tmp_bitmap_",
            "tmp_graph_",
            "tmp_mtimes_",
            ".tmp-",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::git::{Git, Invocation};

    #[tokio::test]
    async fn a_git_process_keeps_the_lock_when_the_worker_lets_it_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = try_acquire(&path).unwrap().unwrap();
        let git = Git::new("git".into());
        // It reads its input to the end, so it lives until that is closed.
        let waiting = Invocation::new("wait", Duration::from_secs(10))
            .arguments(["hash-object", "--stdin"])
            .holding(lock);
        let mut child = git.spawn(waiting).unwrap();
        assert!(try_acquire(&path).unwrap().is_none());
        let short = acquire(&path, Instant::now() + Duration::from_millis(50)).await;
        assert!(matches!(short, Err(RepositoryError::MirrorBusy { .. })), "{short:?}");
        drop(child.stdin.take());
        assert!(child.wait().await.unwrap().success());
        assert!(acquire(&path, Instant::now() + Duration::from_secs(5)).await.is_ok());
    }
}
