//! How much room there is: what is free where the state lives, and what each workspace on disk takes of it.
//!
//! Decides only whether new work may start and whose workspace has to go first; stopping a session is the session's work. Never follows a
//! link that a sandbox made, and never opens a file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::{Semaphore, watch};

use crate::message::SandboxId;

mod clock;
mod open;
pub mod remove;
pub mod tree;
mod usage;

pub use clock::{Clock, TICK};
pub use usage::Usage;

/// Free space that is wanted again before new work starts, in parts of a hundred above the mark: the mark itself would be met to and fro.
const RESUME_ABOVE: u64 = 5;
/// Files and directories that the file system must still take; one that does not count them is not asked.
pub const LEAST_FREE_FILES: u64 = 10_000;
/// Looks at workspaces at a time: each costs processor time and open directories, and a slow one must not keep the others waiting.
const LOOKS_AT_A_TIME: usize = 4;
/// In danger nobody is chosen before all were looked at this shortly before.
const FRESH: Duration = Duration::from_secs(4);
/// Pushes of a session that count, in bytes.
const LEAST_PUSHED: u64 = 64 * 1024 * 1024;
/// How long one look at a workspace may take.
const LONGEST_LOOK: Duration = Duration::from_secs(20);

/// How the host's disk is spared.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Free bytes of the file system of `state_dir` below which no task is taken. Below half of it the session that takes most of it
    /// (workspace on disk and pushes) is stopped.
    pub least_free_bytes: u64,
    /// Files and directories that one workspace on disk may hold.
    pub workspace_files: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            least_free_bytes: 2 * 1024 * 1024 * 1024,
            workspace_files: 1_000_000,
        }
    }
}

/// What a file system has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// Bytes that may be written without being root.
    pub bytes: u64,
    /// Bytes that it has in all.
    pub size: u64,
    /// Files that may be made; `None` where the file system does not count them.
    pub files: Option<u64>,
}

/// Asks a file system. The nearest existing parent tells for a directory that is not there yet.
///
/// # Errors
/// The system's.
pub fn free(directory: &Path) -> std::io::Result<Free> {
    let existing = directory.ancestors().find(|path| path.exists());
    let about = nix::sys::statvfs::statvfs(existing.unwrap_or(Path::new("/")))?;
    Ok(Free {
        bytes: about.blocks_available().saturating_mul(about.fragment_size()),
        size: about.blocks().saturating_mul(about.fragment_size()),
        files: (about.files() > 0).then(|| about.files_available()),
    })
}

/// The disk of one worker, shared by its sessions.
#[derive(Debug)]
pub struct Disk {
    config: Config,
    directory: PathBuf,
    /// What workspaces on disk were last seen to hold.
    held: Mutex<HashMap<SandboxId, Held>>,
    /// What their sessions pushed, where that is much.
    pushed: Mutex<HashMap<SandboxId, u64>>,
    low: watch::Sender<bool>,
    looking: Semaphore,
    clock: Mutex<Weak<Clock>>,
}

/// What a workspace was last seen to hold, in bytes, and when.
#[derive(Debug, Clone, Copy)]
struct Held {
    bytes: u64,
    at: Instant,
}

impl Disk {
    /// The disk on which this directory is.
    #[must_use]
    pub fn new(config: Config, directory: PathBuf) -> Self {
        Self {
            config,
            directory,
            held: Mutex::default(),
            pushed: Mutex::default(),
            low: watch::Sender::new(false),
            looking: Semaphore::new(LOOKS_AT_A_TIME),
            clock: Mutex::default(),
        }
    }

    /// Files and directories that one workspace may hold.
    #[must_use]
    pub fn most_files(&self) -> u64 {
        self.config.workspace_files
    }

    /// What is free now. A file system that does not answer says nothing, which stops nothing.
    pub async fn free(&self) -> Option<Free> {
        let directory = self.directory.clone();
        match tokio::task::spawn_blocking(move || free(&directory)).await {
            Ok(Ok(free)) => Some(free),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the file system of the state was not asked");
                None
            }
            Err(_) => None,
        }
    }

    /// Looks whether new work may start, and tells all that wait for the answer. Called by one clock of the worker.
    pub async fn sample(&self) -> Option<Free> {
        let free = self.free().await?;
        let was = *self.low.borrow();
        let low = is_low(free, self.config.least_free_bytes, was);
        if low != was {
            let (free_bytes, mark) = (free.bytes, self.config.least_free_bytes);
            if low {
                tracing::warn!(free_bytes, mark, "no task is taken: the disk is nearly full");
            } else {
                tracing::info!(free_bytes, mark, "tasks are taken again: the disk has room");
            }
            self.low.send_replace(low);
        }
        Some(free)
    }

    /// Whether no new work may start.
    #[must_use]
    pub fn is_low(&self) -> bool {
        *self.low.borrow()
    }

    /// Waits until new work may start, or may not. Cancel-safe.
    pub async fn until(&self, low: bool) {
        // The sender lives as long as this.
        let _ = self.low.subscribe().wait_for(|now| *now == low).await;
    }

    /// Counts a workspace, and what the processes of its sandbox hold without a name, where the engine told the first of them; `None` when it
    /// could not be looked at.
    pub async fn look(&self, id: SandboxId, workspace: &Path, init: Option<u32>) -> Option<Usage> {
        let _one = self.looking.acquire().await.ok()?;
        let (workspace, most_files) = (workspace.to_owned(), self.config.workspace_files);
        let counting = tokio::task::spawn_blocking(move || {
            let mut usage = usage::count(&workspace, most_files, LONGEST_LOOK)?;
            if let Some(init) = init {
                let open = open::count(init, &workspace, Instant::now() + LONGEST_LOOK)?;
                usage.bytes = usage.bytes.saturating_add(open.bytes);
                usage.cut |= open.cut;
            }
            std::io::Result::Ok(usage)
        });
        let usage = counting.await.ok()?.ok()?;
        // What could not be counted in time may be any amount.
        let bytes = if usage.cut { u64::MAX } else { usage.bytes };
        self.held().insert(
            id,
            Held {
                bytes,
                at: Instant::now(),
            },
        );
        Some(usage)
    }

    /// Forgets a workspace that is gone.
    pub fn forget(&self, id: SandboxId) {
        self.held().remove(&id);
        self.count_pushed(id, 0);
    }

    /// Whether less than this part of the mark is free.
    #[must_use]
    pub fn in_danger(&self, free: Free, part: u64) -> bool {
        free.bytes < self.config.least_free_bytes / part.max(1)
    }

    /// Counts what the session of this sandbox pushed. Little is not counted: where nobody holds much, ending a session makes no room.
    pub fn count_pushed(&self, id: SandboxId, bytes: u64) {
        let mut pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes < LEAST_PUSHED {
            pushed.remove(&id);
        } else {
            pushed.insert(id, bytes);
        }
    }

    /// What each takes, workspace and pushes together.
    fn all(&self) -> HashMap<SandboxId, u64> {
        let mut all: HashMap<_, _> = self.held().iter().map(|(id, held)| (*id, held.bytes)).collect();
        for (id, bytes) in self.pushed.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let sum: &mut u64 = all.entry(*id).or_default();
            *sum = sum.saturating_add(*bytes);
        }
        all
    }

    /// Whether less than this part of the mark is free and this is the largest workspace: somebody has to make room, and one at a time is
    /// enough. With `fresh` nobody is chosen by what another held some time ago.
    #[must_use]
    pub fn must_go(&self, id: SandboxId, free: Free, part: u64, fresh: bool) -> bool {
        if !self.in_danger(free, part) {
            return false;
        }
        let all_fresh = || self.held().values().all(|one| one.at.elapsed() < FRESH);
        (!fresh || all_fresh()) && largest(&self.all()) == Some(id)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<SandboxId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether no task is taken with so much free space, where so many bytes are wanted; `was`: whether that is so already.
#[must_use]
pub fn is_low(free: Free, mark: u64, was: bool) -> bool {
    let wanted = if was {
        mark.saturating_add(mark / 100 * RESUME_ABOVE)
    } else {
        mark
    };
    free.bytes < wanted || free.files.is_some_and(|files| files < LEAST_FREE_FILES)
}

fn largest(held: &HashMap<SandboxId, u64>) -> Option<SandboxId> {
    held.iter().max_by_key(|(_, bytes)| **bytes).map(|(id, _)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn bytes(bytes: u64) -> Free {
        Free {
            bytes,
            size: u64::MAX,
            files: None,
        }
    }

    #[test]
    fn the_mark_is_not_met_to_and_fro() {
        assert!(is_low(bytes(999), 1000, false));
        assert!(!is_low(bytes(1000), 1000, false));
        assert!(is_low(bytes(1000), 1000, true));
        assert!(!is_low(bytes(1050), 1000, true));
        assert!(!is_low(bytes(0), 0, false), "a mark of nothing switches it off");
        let crowded = Free {
            size: u64::MAX,
            bytes: u64::MAX,
            files: Some(9),
        };
        assert!(is_low(crowded, 1000, false), "files run out as well");
    }

    #[test]
    fn only_the_largest_has_to_go_and_only_in_danger() {
        let disk = Disk::new(
            Config {
                least_free_bytes: 1000,
                ..Config::default()
            },
            "/".into(),
        );
        let (small, large) = (SandboxId::random(), SandboxId::random());
        let now = |bytes| Held {
            bytes,
            at: Instant::now(),
        };
        disk.held().extend([(small, now(5)), (large, now(7))]);
        assert!(!disk.must_go(large, bytes(500), 2, true));
        assert!(disk.must_go(large, bytes(499), 2, true));
        assert!(!disk.must_go(small, bytes(499), 2, true));
        disk.count_pushed(small, LEAST_PUSHED - 1);
        assert!(disk.must_go(large, bytes(499), 2, true));
        disk.count_pushed(small, LEAST_PUSHED);
        assert!(disk.must_go(small, bytes(499), 2, true));
        disk.forget(small);
        disk.held().insert(small, now(5));
        assert!(disk.must_go(large, bytes(499), 2, true));
        disk.forget(large);
        assert!(disk.must_go(small, bytes(499), 2, true));
        // What another held long ago chooses nobody, until it cannot wait.
        if let Some(long_ago) = Instant::now().checked_sub(FRESH * 2) {
            disk.held().insert(large, Held { bytes: 1, at: long_ago });
            assert!(!disk.must_go(small, bytes(499), 2, true));
            assert!(disk.must_go(small, bytes(249), 4, false));
        }
    }
}
