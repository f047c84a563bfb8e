//! What pushes hold on the disk: the packs that were accepted, and the quarantines of pushes that ended badly, which are removed.
//!
//! git removes the quarantine of a push that it refuses itself; of one that was killed it stays. Only called while no push of the project runs.

use std::path::Path;
use std::time::Duration;

use super::Staging;
use crate::repository::push_check::Refusal;
use crate::repository::{RepositoryError, blocking};

/// How git names the directory of a push that is not accepted yet.
const QUARANTINE: &str = "tmp_objdir-";
/// How often the removal is tried: a process that was just killed may still finish a write.
const ATTEMPTS: u32 = 20;

/// Removes what killed pushes left in a repository.
///
/// # Errors
/// The disk.
pub(super) async fn remove(repository: &Path) -> Result<(), RepositoryError> {
    let objects = repository.join("objects");
    for attempt in 1.. {
        let directory = objects.clone();
        match blocking(move || sweep(&directory)).await {
            Ok(()) => break,
            Err(error) if attempt >= ATTEMPTS => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    Ok(())
}

fn sweep(objects: &Path) -> Result<(), RepositoryError> {
    for entry in std::fs::read_dir(objects).map_err(RepositoryError::state("list", objects))? {
        let entry = entry.map_err(RepositoryError::state("list", objects))?;
        if entry.file_name().to_string_lossy().starts_with(QUARANTINE) {
            match std::fs::remove_dir_all(entry.path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(RepositoryError::state("remove", &entry.path())(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
}

/// All bytes below a directory; what goes meanwhile is not counted.
pub(super) fn size(directory: &Path) -> u64 {
    let mut sum = 0_u64;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => directories.push(entry.path()),
                Ok(about) => sum = sum.saturating_add(about.len()),
                Err(_) => {}
            }
        }
    }
    sum
}

impl Staging {
    /// What was pushed so far, in bytes on the worker's disk, what is just arriving included.
    ///
    /// # Errors
    /// The look was broken off.
    pub async fn staged_bytes(&self) -> Result<u64, RepositoryError> {
        let objects = self.repository().join("objects");
        blocking(move || Ok(size(&objects))).await
    }

    /// Before a push: nothing of an earlier one is left, and there is room for one more.
    pub(super) async fn make_room(&self) -> Result<(), RepositoryError> {
        remove(&self.repository()).await?;
        self.check_room().await
    }

    /// Whether anything more may be pushed.
    ///
    /// # Errors
    /// No: as much as may be was pushed.
    pub async fn check_room(&self) -> Result<(), RepositoryError> {
        let (size, largest) = (self.staged_bytes().await?, self.policy.largest_staging);
        if size >= largest {
            let refusal = Refusal::TooMuch { size, largest };
            return Err(RepositoryError::StagingFull { refusal });
        }
        Ok(())
    }
}
