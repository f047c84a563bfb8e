//! Staging: the session's own bare repository on the worker, from which its sandbox clones and into which it may push.
//!
//! It builds on the session's object store and on nothing else, so nothing can be asked of it that the session was not given. What is
//! pushed is checked by git itself and by our hook while it is in quarantine. Never talks to a forge and never has a file tree.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::mirror::{Taken, prepare_tree, take_in};
use super::policy::{self, Policy};
use super::{Mirrored, ObjectStore, RepositoryError, Shared, bare, blocking, internal};
use crate::grant::{ProjectGrant, Trailers};
use crate::message::{CommitId, ProjectKey, SessionId};

mod quarantine;
mod serve;

pub use serve::{Protocol, Service, Serving, info_refs_prefix};

/// The staging of one session for one project.
#[derive(Debug, Clone)]
pub struct Staging {
    pub(super) shared: Arc<Shared>,
    pub(super) directory: PathBuf,
    pub(super) policy: Policy,
    store: Option<ObjectStore>,
    /// The directory of the mirror that this was made from; `None` when this was reopened.
    mirror: Option<PathBuf>,
    /// The last head that the forge took.
    pub(super) published: Arc<Mutex<Option<CommitId>>>,
    /// Held by the push that runs: two would remove each other's quarantine, and race for the same branch anyway.
    pushing: Arc<tokio::sync::Semaphore>,
}

impl Staging {
    pub(super) async fn create(
        shared: Arc<Shared>,
        mirrored: &Mirrored,
        session: SessionId,
        number: usize,
        project: &ProjectGrant,
        trailers: &Trailers,
    ) -> Result<Self, RepositoryError> {
        let directory = place(&shared, session, number);
        remove_directory(directory.clone()).await?;
        let policy = Policy {
            session,
            number,
            project: project.key.clone(),
            branch: project.branch.clone(),
            base: project.base.clone(),
            base_commit: mirrored.base().clone(),
            trailers: trailers.lines().to_vec(),
            email: project.identity.email.clone(),
            most_commits: shared.config.most_commits,
            most_objects: shared.config.most_objects,
            most_files: shared.config.most_files,
            largest_object: shared.config.largest_object,
            largest_staging: shared.config.largest_staging,
            memory: shared.config.git_memory,
            processor_s: shared.config.inspect_timeout_s,
        };
        let settings = settings(&shared)?;
        let (made, policy_of, source) = (directory.clone(), policy.clone(), mirrored.path.clone());
        let prepared = mirrored.prepared().to_owned();
        let store = blocking(move || {
            fs::create_dir_all(&made).map_err(RepositoryError::state("make the directory", &made))?;
            // The clone in the sandbox checks out what HEAD names: the branch that the session starts from.
            let store = ObjectStore::create(&source, made.join(policy::STORE), &policy_of.base)?;
            store.take_prepared(&prepared)?;
            write_staging(&made, &settings, &policy_of)?;
            policy_of.write(&made)?;
            Ok(store)
        })
        .await?;
        Ok(Self {
            shared,
            directory,
            policy,
            store: Some(store),
            mirror: mirrored.path.parent().map(Path::to_owned),
            published: Arc::default(),
            pushing: one(),
        })
    }

    /// The session's object store, for example to be mounted; `None` when this was reopened.
    #[must_use]
    pub fn store(&self) -> Option<&ObjectStore> {
        self.store.as_ref()
    }

    /// Shows the session's objects to its sandbox: links them, as a bare repository, into this directory, which is made.
    ///
    /// # Errors
    /// They cannot be linked, for example because the directory is on another file system. Nothing of it is left then.
    pub async fn show(&self, to: PathBuf) -> Result<(), RepositoryError> {
        let gone = || RepositoryError::state("find", &self.directory)(std::io::ErrorKind::NotFound.into());
        let store = self.store.clone().ok_or_else(gone)?;
        let (head, made) = (self.policy.base.clone(), to.clone());
        let shown = blocking(move || store.share(&made, &head)).await;
        if shown.is_err() {
            remove_directory(to).await?;
        }
        shown
    }

    /// Which of the session's projects this is.
    #[must_use]
    pub fn number(&self) -> usize {
        self.policy.number
    }

    /// Which project this is.
    #[must_use]
    pub fn project(&self) -> &ProjectKey {
        &self.policy.project
    }

    /// The commit that the session started from.
    #[must_use]
    pub fn base(&self) -> &CommitId {
        &self.policy.base_commit
    }

    /// The head of the session's branch; `None` as long as nothing was pushed and the forge has no such branch.
    ///
    /// # Errors
    /// The disk.
    pub fn head(&self) -> Result<Option<CommitId>, RepositoryError> {
        bare::read_branch(&self.repository(), &self.policy.branch)
    }

    /// Gives what was published back to the mirror, so that the next session need not fetch it; says whether there was something to give. Meant
    /// for the session's end. Waits for nobody: a mirror that is in use is left alone. `prepares`: whether sandboxes are shown what is prepared of the
    /// project's tree, and the disk has room for it.
    ///
    /// # Errors
    /// git refused, time, or the disk. The next refresh puts right what is left of it.
    pub async fn give_back(&self, prepares: bool) -> Result<bool, RepositoryError> {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some(mirror), Some(head)) = (&self.mirror, published) else {
            return Ok(false);
        };
        let taken = Taken {
            mirror,
            source: &self.repository(),
            store: &self.directory.join(policy::STORE),
            branch: &self.policy.branch,
            head: &head,
            limits: self.limits(),
        };
        let given = take_in(&self.shared, taken).await?;
        // The next session has a quicker clone by it, and nothing else.
        if prepares && let Err(error) = prepare_tree(&self.shared, mirror, self.limits()).await {
            tracing::debug!(?mirror, %error, "the project's tree was not prepared");
        }
        Ok(given)
    }

    /// Removes this project's object store and staging.
    ///
    /// # Errors
    /// The disk.
    pub async fn remove(&self) -> Result<(), RepositoryError> {
        remove_directory(self.directory.clone()).await
    }

    pub(super) fn repository(&self) -> PathBuf {
        self.directory.join(policy::STAGING)
    }
}

/// Where a session's project of that number is.
pub(super) fn place(shared: &Shared, session: SessionId, number: usize) -> PathBuf {
    let session = shared.config.sessions().join(session.to_string());
    session.join(number.to_string())
}

fn one() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(1))
}

/// What git's own check of objects shall refuse, whatever its version takes for a mere warning: names by which a clone's `.git` is reached on
/// some file system, and submodules that make a clone run something. A message that goes on behind a NUL could hide its trailers.
const FLAWS: &[&str] = &[
    "nulInCommit",
    "hasDot",
    "hasDotdot",
    "hasDotgit",
    "fullPathname",
    "emptyName",
    "duplicateEntries",
    "treeNotSorted",
    "gitmodulesSymlink",
    "gitmodulesUrl",
    "gitmodulesPath",
    "gitmodulesName",
    "gitmodulesUpdate",
    "gitmodulesLarge",
    "gitmodulesBlob",
    "gitmodulesMissing",
];

/// Files above this are streamed, not held, in bytes.
const BIG_FILE: u64 = 1024 * 1024;
/// Memory for the search of deltas when packs are made for a sandbox, in bytes.
const WINDOW: u64 = 64 * 1024 * 1024;

/// What git itself shall refuse, before and after our hook.
fn settings(shared: &Shared) -> Result<String, RepositoryError> {
    let hooks = shared.config.hooks();
    let hooks = hooks
        .to_str()
        .filter(|path| !path.contains(['"', '\\']) && !path.chars().any(char::is_control))
        .ok_or_else(|| {
            RepositoryError::state("use the unusual name of", &hooks)(std::io::ErrorKind::InvalidInput.into())
        })?;
    let flaws: String = FLAWS.iter().map(|flaw| format!("\t{flaw} = error\n")).collect();
    Ok(format!(
        "[core]\n\thooksPath = \"{hooks}\"\n\talternateRefsCommand = true\n\tbigFileThreshold = {BIG_FILE}\n[pack]\n\tthreads = 1\n\twindowMemory = {WINDOW}\n[transfer]\n\tfsckObjects = true\n\tunpackLimit = 1\n\
         [receive]\n\tfsckObjects = true\n\tunpackLimit = 1\n\tmaxInputSize = {}\n\tdenyDeletes = true\n\tdenyNonFastForwards = true\n\
         \tadvertisePushOptions = false\n\tshallowUpdate = false\n\tautogc = false\n[receive \"fsck\"]\n{flaws}\
         [uploadpack]\n\tallowFilter = true\n\tadvertiseBundleURIs = false\n",
        shared.config.largest_push
    ))
}

fn write_staging(directory: &Path, settings: &str, policy: &Policy) -> Result<(), RepositoryError> {
    let (staging, store) = (directory.join(policy::STAGING), directory.join(policy::STORE));
    bare::write_bare(&staging, settings, &policy.base)?;
    // Relative to the objects directory, so that the pair can be moved or mounted together.
    let alternates = format!("../../{}/objects\n", policy::STORE);
    bare::write_whole(&staging.join("objects/info/alternates"), alternates.as_bytes())?;
    let refs = store.join("packed-refs");
    fs::copy(&refs, staging.join("packed-refs"))
        .map_err(RepositoryError::state("copy", &refs))
        .map(|_| ())
}

/// The room's directories, and the hook that leads from git to this program.
pub(super) fn write_directories(shared: &Shared) -> Result<(), RepositoryError> {
    let config = &shared.config;
    for directory in [config.mirrors(), config.sessions(), config.kept(), config.hooks()] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(RepositoryError::state("make the directory", &directory))?;
    }
    let hook = config.hooks().join("pre-receive");
    let command: Vec<String> = shared
        .internal
        .iter()
        .map(String::as_str)
        .chain([internal::PRE_RECEIVE])
        .map(quoted)
        .collect();
    bare::write_if_different(&hook, format!("#!/bin/sh\nexec {}\n", command.join(" ")).as_bytes())?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o700))
        .map_err(RepositoryError::state("make executable", &hook))
}

/// One word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

pub(super) async fn remove_directory(directory: PathBuf) -> Result<(), RepositoryError> {
    blocking(move || match fs::remove_dir_all(&directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(RepositoryError::state("remove the directory", &directory)(error)),
    })
    .await
}

pub(super) fn list_sessions(shared: &Shared) -> Result<Vec<SessionId>, RepositoryError> {
    let sessions = shared.config.sessions();
    let mut found = Vec::new();
    for entry in fs::read_dir(&sessions).map_err(RepositoryError::state("list", &sessions))? {
        let entry = entry.map_err(RepositoryError::state("list", &sessions))?;
        found.extend(
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<SessionId>().ok()),
        );
    }
    Ok(found)
}

pub(super) fn reopen(shared: &Arc<Shared>, directory: &Path) -> Result<Vec<Staging>, RepositoryError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RepositoryError::state("list", directory)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let directory = entry.map_err(RepositoryError::state("list", directory))?.path();
        // The policy is written last: without it the staging was never whole, and nothing was pushed into it.
        if let Ok(policy) = Policy::read(&directory) {
            found.push(Staging {
                shared: Arc::clone(shared),
                directory,
                policy,
                store: None,
                mirror: None,
                published: Arc::default(),
                pushing: one(),
            });
        }
    }
    Ok(found)
}
