//! Projects on the worker: the mirror of a forge's project, a session's own objects, its staging, the checks on what was staged, publishing.
//!
//! Never runs git on a tree that an agent wrote, never puts a credential where another process or a disk could show it, never rewrites a
//! commit, and never publishes anything but the session's own branch. git runs in `git.rs` only; objects that an agent made are read in
//! [`internal`], a child process without credentials.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::grant::{ProjectGrant, Trailers};
use crate::message::SessionId;

mod bare;
mod diffs;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod git;
mod inspect;
mod instructions;
pub mod internal;
mod keep;
mod left;
mod look;
mod mirror;
mod policy;
mod publish;
pub mod push_check;
mod remote;
pub mod scan;
mod script;
mod staging;
mod store;
mod stored;
#[cfg(test)]
mod tests;

pub use diffs::{ChangeDiff, DiffReader, DiffRequest, FileChange, FileDiff, NoDiff};
pub use error::RepositoryError;
pub use inspect::{ChangedFile, FileStatus, Inspection, StagedCommit};
pub use instructions::Instruction;
pub use keep::Kept;
pub use mirror::{Freshness, Mirrored, Shown};
pub use publish::{PublishRequest, Published};
pub use remote::Access;
pub use staging::{Protocol, Service, Serving, Staging, info_refs_prefix};
pub use store::ObjectStore;
pub use stored::{Expired, Stored};

/// Memory of a git process that takes a push in, in bytes. Measured with git 2.47, resident at most: a push of a random file of 100 MiB takes
/// 4 MiB (104 MiB if `core.bigFileThreshold` did not have it streamed); of such a file and a delta against it 204 MiB; of a text of 100 MiB with
/// a delta 209 MiB (304 MiB with two threads); of a repository of 401,002 objects 58 MiB.
const GIT_HEAP: u64 = 512 * 1024 * 1024;

/// Where repositories live on the worker, and how much of everything.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The directory of mirrors, sessions and kept bundles. One file system, so that objects can be linked. The worker's own `state_dir`.
    #[serde(skip)]
    pub state_dir: PathBuf,
    /// Certificates (PEM) of the operator, trusted beside the machine's. The contents of the forge room's `ca_file`.
    #[serde(skip)]
    pub ca: Option<String>,
    /// The git program, 2.39 or later.
    pub git: PathBuf,
    /// Time limit of a fetch from a forge, in seconds; also how long one waits for another session's fetch.
    pub fetch_timeout_s: u64,
    /// Time limit of a push to a forge, in seconds.
    pub push_timeout_s: u64,
    /// Time limit of one fetch or push of a sandbox, in seconds.
    pub serve_timeout_s: u64,
    /// Time limit for reading what was staged, in seconds.
    pub inspect_timeout_s: u64,
    /// Largest pack that is fetched from a forge, in bytes: a project of about that size does not fit.
    pub largest_fetch: u64,
    /// Largest pack that a sandbox may push at once, in bytes.
    pub largest_push: u64,
    /// All packs that a sandbox may push to one project together, in bytes.
    pub largest_staging: u64,
    /// Largest file that a sandbox may push, in bytes.
    pub largest_object: u64,
    /// How many commits one push may bring.
    pub most_commits: u32,
    /// How many objects (files, directories, commits) one push may bring.
    pub most_objects: u64,
    /// How many files and directories a pushed commit may come to when it is checked out.
    pub most_files: u64,
    /// Address space of a git process that reads what an agent made, in bytes. Most of it is packs that it maps and does not hold.
    pub git_memory: u64,
    /// Memory that a git process which takes a push in may hold for itself, in bytes; at least three times `largest_object`.
    pub git_heap: u64,
    /// How many git processes serve sandboxes at a time, those of all sessions together. One session gets a quarter of them at most.
    pub git_processes: usize,
    /// How long a sandbox's git waits for its turn, in seconds; then it is told to try again.
    pub git_wait_s: u64,
    /// One mirror for each user, instead of one for all users of a project. For forges that do not grant reading by project.
    pub mirror_per_user: bool,
    /// How long a session may still be given objects that the forge shows no more (of a deleted or rewritten branch), to whoever knows their
    /// ids, in seconds. 0: never; then the first session after such a change waits for the mirror to be repacked.
    pub unreachable_s: u64,
    /// Days after which a mirror that nobody used is removed.
    pub keep_mirrors_days: u64,
    /// Days for which bundles of work that could not be published are kept.
    pub keep_bundles_days: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/cofferdam"),
            ca: None,
            git: PathBuf::from("git"),
            fetch_timeout_s: 15 * 60,
            push_timeout_s: 5 * 60,
            serve_timeout_s: 15 * 60,
            inspect_timeout_s: 60,
            largest_fetch: 20 * 1024 * 1024 * 1024,
            largest_push: 512 * 1024 * 1024,
            largest_staging: 2 * 1024 * 1024 * 1024,
            largest_object: 100 * 1024 * 1024,
            most_commits: 500,
            most_objects: 200_000,
            most_files: 2_000_000,
            git_memory: 4 * 1024 * 1024 * 1024,
            git_heap: GIT_HEAP,
            git_processes: 8,
            git_wait_s: 60,
            mirror_per_user: false,
            unreachable_s: 0,
            keep_mirrors_days: 30,
            keep_bundles_days: 14,
        }
    }
}

impl Config {
    fn mirrors(&self) -> PathBuf {
        self.state_dir.join("mirrors")
    }

    fn sessions(&self) -> PathBuf {
        self.state_dir.join("sessions")
    }

    fn kept(&self) -> PathBuf {
        self.state_dir.join("kept")
    }

    fn hooks(&self) -> PathBuf {
        self.state_dir.join("hooks")
    }
}

/// What all parts of this room need.
#[derive(Debug)]
pub(crate) struct Shared {
    config: Config,
    git: git::Git,
    /// Places for git processes that serve sandboxes.
    served: Arc<tokio::sync::Semaphore>,
    /// The worker's own program with the arguments that lead to [`internal::run`].
    internal: Vec<String>,
    /// Asks forges what they show.
    asker: Arc<mirror::Asker>,
    /// What is known of git LFS.
    lfs: mirror::Known,
}

/// The room's door.
#[derive(Debug, Clone)]
pub struct Repositories {
    shared: Arc<Shared>,
}

impl Repositories {
    /// Makes the directories, looks at git, and writes the hook that leads from git back to this program. `internal` is the command
    /// line that leads to [`internal::run`], for example this program's path and `internal`.
    ///
    /// # Errors
    /// git is missing or too old, or the state directory cannot be written.
    pub async fn open(config: Config, internal: Vec<String>) -> Result<Self, RepositoryError> {
        let config = Config {
            state_dir: std::path::absolute(&config.state_dir)
                .map_err(RepositoryError::state("find", &config.state_dir))?,
            ..config
        };
        let shared = Shared {
            git: git::Git::new(config.git.clone()),
            served: Arc::new(tokio::sync::Semaphore::new(config.git_processes.max(1))),
            config,
            internal,
            asker: Arc::default(),
            lfs: mirror::Known::default(),
        };
        shared.check_git().await?;
        staging::write_directories(&shared)?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Brings the project's mirror up to date with what this token is shown. The mirror is held until the result is dropped: stage from it,
    /// then let it go; holding two at once may wait for itself.
    ///
    /// # Errors
    /// The forge's refusals, an empty project, a missing base branch, time.
    pub async fn refresh(&self, project: &ProjectGrant, access: &Access) -> Result<Mirrored, RepositoryError> {
        mirror::refresh(&self.shared, project, access, None).await
    }

    /// The same, where the forge was asked before (see [`Self::shown`]).
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub async fn refresh_knowing(
        &self,
        project: &ProjectGrant,
        access: &Access,
        shown: Option<Shown>,
    ) -> Result<Mirrored, RepositoryError> {
        mirror::refresh(&self.shared, project, access, shown).await
    }

    /// Asks a forge what it shows of a project, before it is certain that this is the project's address. `None` where the answer is no use.
    pub async fn shown(&self, clone_url: &str, access: &Access) -> Option<Shown> {
        mirror::shown(&self.shared, clone_url, access).await
    }

    /// Refuses a project whose base branch keeps files in git LFS: their contents are in no git object, so a clone would lack them and a push
    /// would name what is not there.
    ///
    /// # Errors
    /// It does, or it could not be read.
    pub async fn refuse_lfs(&self, mirrored: &Mirrored) -> Result<(), RepositoryError> {
        match mirror::lfs_attributes(&self.shared, mirrored).await? {
            Some(attributes) => Err(RepositoryError::Lfs { attributes }),
            None => Ok(()),
        }
    }

    /// Looks through the whole mirror, and removes it when it is damaged; says whether it was. Slow: meant for a session whose clone failed,
    /// before it stages once more. A refresh finds only the damage that stands in its way.
    ///
    /// # Errors
    /// The mirror was in use for too long, or the disk.
    pub async fn discard_if_damaged(&self, project: &ProjectGrant, access: &Access) -> Result<bool, RepositoryError> {
        mirror::discard_if_damaged(&self.shared, project, access).await
    }

    /// Makes the session's object store and staging for its project number `number`. What stood there before is removed.
    ///
    /// # Errors
    /// The disk.
    pub async fn stage(
        &self,
        mirrored: &Mirrored,
        session: SessionId,
        number: usize,
        project: &ProjectGrant,
        trailers: &Trailers,
    ) -> Result<Staging, RepositoryError> {
        Staging::create(Arc::clone(&self.shared), mirrored, session, number, project, trailers).await
    }

    /// Removes what [`Self::stage`] made of a session's project of that number, whole or not.
    ///
    /// # Errors
    /// The disk.
    pub async fn unstage(&self, session: SessionId, number: usize) -> Result<(), RepositoryError> {
        staging::remove_directory(staging::place(&self.shared, session, number)).await
    }

    /// Removes all that a session has on this disk, kept bundles excepted.
    ///
    /// # Errors
    /// The disk.
    pub async fn remove_session(&self, session: SessionId) -> Result<(), RepositoryError> {
        staging::remove_directory(self.shared.config.sessions().join(session.to_string())).await
    }

    /// The sessions that have something on this disk: those of this worker, and what killed workers left.
    ///
    /// # Errors
    /// The disk.
    pub fn sessions(&self) -> Result<Vec<SessionId>, RepositoryError> {
        staging::list_sessions(&self.shared)
    }

    /// Opens again what a killed worker left of a session, for example to keep its work before it is removed.
    ///
    /// # Errors
    /// The disk, or a record that cannot be read.
    pub fn reopen(&self, session: SessionId) -> Result<Vec<Staging>, RepositoryError> {
        staging::reopen(&self.shared, &self.shared.config.sessions().join(session.to_string()))
    }

    /// The same room over the state directory of another worker, which is dead: whoever asks holds its lock. Writes nothing by itself.
    #[must_use]
    pub fn of_another(&self, state_dir: PathBuf) -> Self {
        let shared = Shared {
            config: Config {
                state_dir,
                ..self.shared.config.clone()
            },
            git: self.shared.git.clone(),
            internal: self.shared.internal.clone(),
            served: self.shared.served.clone(),
            asker: self.shared.asker.clone(),
            lfs: mirror::Known::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Puts away, in one step, what is here of a session that does not run: one of the same id may start right after. It is among
    /// [`Self::left`] then. Blocks for a moment.
    ///
    /// # Errors
    /// The disk.
    pub fn put_away(&self, session: SessionId) -> Result<(), RepositoryError> {
        left::put_away(&self.shared, session)
    }

    /// The directories of what was put away, by this worker or by one before it.
    ///
    /// # Errors
    /// The disk.
    pub fn left(&self) -> Result<Vec<PathBuf>, RepositoryError> {
        left::list(&self.shared)
    }

    /// Keeps the work in something that was put away as bundles, and removes it. What could not be kept stays for the next time. Says which
    /// bundles there are now.
    ///
    /// # Errors
    /// Work could not be kept, or the disk.
    pub async fn clear_left(&self, directory: &std::path::Path) -> Result<Vec<PathBuf>, RepositoryError> {
        left::clear(&self.shared, directory).await
    }

    /// Removes half-written packs and locks that a killed git left in mirrors which nobody uses now; says in how many.
    ///
    /// # Errors
    /// The disk.
    pub async fn clear_mirrors(&self) -> Result<usize, RepositoryError> {
        mirror::clear_interrupted(&self.shared).await
    }

    /// Counts what is stored: mirrors and kept bundles.
    ///
    /// # Errors
    /// The disk.
    pub async fn measure(&self) -> Result<Stored, RepositoryError> {
        stored::measure(&self.shared).await
    }

    /// What [`Self::expire`] would remove now, as far as nobody uses it.
    ///
    /// # Errors
    /// The disk.
    pub fn expired(&self) -> Result<Expired, RepositoryError> {
        stored::expired(&self.shared)
    }

    /// Removes only what has had its time: bundles, and mirrors that nobody used. For the directory of a dead worker.
    ///
    /// # Errors
    /// The disk.
    pub async fn expire(&self) -> Result<usize, RepositoryError> {
        Ok(keep::remove_expired(&self.shared)? + mirror::expire_all(&self.shared).await?)
    }

    /// Repacks and removes mirrors, and removes bundles whose time is over. Meant to be called every hour; says how much was done.
    ///
    /// # Errors
    /// The disk. A single mirror's failure is logged, not returned.
    pub async fn maintain(&self) -> Result<usize, RepositoryError> {
        let mirrors = mirror::maintain_all(&self.shared).await?;
        let unused = Duration::from_secs(self.shared.config.keep_mirrors_days * 24 * 60 * 60);
        Ok(mirrors + keep::remove_expired(&self.shared)? + look::remove_unused(&self.shared, unused)?)
    }
}

impl Shared {
    async fn check_git(&self) -> Result<(), RepositoryError> {
        let asked = git::Invocation::new("tell its version", Duration::from_secs(10)).arguments(["version"]);
        let finished = self.git.run(asked).await?;
        let found = String::from_utf8_lossy(&finished.stdout)
            .trim()
            .chars()
            .take(100)
            .collect::<String>();
        if git_version(&found).is_some_and(|version| version >= (2, 39)) {
            Ok(())
        } else {
            Err(RepositoryError::GitVersion { found })
        }
    }
}

/// The first two numbers of `git version 2.47.3`, whatever a vendor appends.
fn git_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("git version ")?.split(['.', ' ', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Runs file work off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RepositoryError> + Send + 'static,
) -> Result<T, RepositoryError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(RepositoryError::State {
            act: "finish the file work below",
            path: PathBuf::from("the state directory"),
            source: std::io::Error::other(error),
        }),
    }
}

#[cfg(test)]
mod tests_of_version {
    use super::git_version;

    #[test]
    fn vendors_append_to_versions() {
        assert_eq!(git_version("git version 2.39.5 (Apple Git-154)"), Some((2, 39)));
        assert_eq!(git_version("git version 2.50-rc1"), Some((2, 50)));
        assert_eq!(git_version("git version"), None);
        assert_eq!(git_version("hg 7"), None);
    }
}
