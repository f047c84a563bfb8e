//! Agents' own memories of suspended sessions, as files in a directory that several workers may share: written, found, used once, removed.
//!
//! What is in a file is the sandbox's and is never looked into here: bytes with a bound. A file is bound to its session by its name, and whoever
//! wants it must know 256 bits of it. Nothing depends on one: a session without it tells its agent the conversation.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::Digest as _;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::rooms::Config;
use crate::gateway::GatewayError;
use crate::message::{SavedName, SessionId};

mod carry;
mod rest;

pub(super) use carry::erase;
pub(super) use rest::{Loadable, Restore, not_loaded};

/// What a whole file's name ends with.
const WHOLE: &str = "state";
/// What the name of one that is being written ends with.
const PART: &str = "new";
/// Size of one read, in bytes.
const PIECE: usize = 64 * 1024;

/// Why a state was not saved or not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum SavedError {
    /// There is more than the operator allows.
    #[error("it is larger than {most} bytes (session.most_saved_state)")]
    TooLarge {
        /// The bound.
        most: u64,
    },
    /// No such file.
    #[error(
        "it is not in this worker's session.saved_states: it was used, its time is over, or it was saved elsewhere"
    )]
    Missing,
    /// The directory or a file in it cannot be used.
    #[error("session.saved_states cannot be used ({act}): {source}")]
    Disk {
        /// What was tried.
        act: &'static str,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The sandbox did not do its part.
    #[error(transparent)]
    Sandbox(#[from] GatewayError),
    /// A program in the sandbox said no.
    #[error("tar in the sandbox ended with status {status}: {said}")]
    Program {
        /// Its exit status.
        status: i32,
        /// The end of what it said.
        said: String,
    },
    /// The agent has nothing where its state should be.
    #[error("there is nothing at the paths of saved_state")]
    Nothing,
    /// It took too long.
    #[error("it took longer than {} s", after.as_secs())]
    Slow {
        /// The limit.
        after: Duration,
    },
    /// It belongs to another agent, or to none any more.
    #[error("{0}")]
    NotMeant(String),
}

impl SavedError {
    fn disk(act: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Disk { act, source }
    }
}

/// The directory, where the operator named one.
#[derive(Debug, Clone)]
pub struct States {
    directory: PathBuf,
    most: u64,
    kept: Duration,
}

impl States {
    /// The directory that is configured.
    #[must_use]
    pub fn of(config: &Config) -> Option<Self> {
        Some(Self {
            directory: config.saved_states.clone()?,
            most: config.most_saved_state,
            kept: Duration::from_secs(config.saved_state_s),
        })
    }

    fn file(&self, session: SessionId, name: &SavedName, end: &str) -> PathBuf {
        self.directory.join(format!("{session}.{name}.{end}"))
    }

    /// Begins a file under a name that nobody can guess.
    async fn begin(&self, session: SessionId) -> Result<(SavedName, Writing), SavedError> {
        let name = random().ok_or_else(|| SavedError::disk("make a name")(io::ErrorKind::Other.into()))?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .await
            .map_err(SavedError::disk("make it"))?;
        let part = self.file(session, &name, PART);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .await
            .map_err(SavedError::disk("begin a file"))?;
        let writing = Writing {
            file,
            part: Some(part),
            whole: self.file(session, &name, WHOLE),
            most: self.most,
        };
        Ok((name, writing))
    }

    /// Opens the file of that name and session.
    async fn open(&self, session: SessionId, name: &SavedName) -> Result<File, SavedError> {
        // The directory is the operator's own; a link or a pipe in it is not ours all the same.
        let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(self.file(session, name, WHOLE))
            .await;
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SavedError::Missing),
            Err(error) => return Err(SavedError::disk("open a file")(error)),
        };
        let about = file.metadata().await.map_err(SavedError::disk("look at a file"))?;
        match about.len() {
            _ if !about.is_file() => Err(SavedError::Missing),
            length if length > self.most => Err(SavedError::TooLarge { most: self.most }),
            _ => Ok(file),
        }
    }

    /// Removes everything of a session that is over.
    pub async fn forget(&self, session: SessionId) {
        let removed = self.remove_where(move |owner, _| owner == session).await;
        if removed > 0 {
            tracing::debug!(%session, "the saved state of an agent was removed with its session");
        }
    }

    /// Removes what has had its time; says how many files.
    pub async fn expire(&self) -> usize {
        let kept = self.kept;
        self.remove_where(move |_, age| age.is_some_and(|age| age > kept)).await
    }

    /// Removes the files that it says of, by session and age. Never one whose name is not ours.
    async fn remove_where(&self, is_it: impl Fn(SessionId, Option<Duration>) -> bool + Send + 'static) -> usize {
        let directory = self.directory.clone();
        let removing = tokio::task::spawn_blocking(move || remove(&directory, is_it));
        match removing.await {
            Ok(Ok(removed)) => removed,
            // Nothing was saved yet.
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => 0,
            Ok(Err(error)) => {
                tracing::warn!(%error, "session.saved_states could not be looked through");
                0
            }
            Err(_) => 0,
        }
    }
}

/// A file on its way. What is not finished is removed.
struct Writing {
    file: File,
    part: Option<PathBuf>,
    whole: PathBuf,
    most: u64,
}

impl Writing {
    /// Takes all that comes, up to the bound.
    async fn take(&mut self, mut from: impl AsyncRead + Unpin) -> Result<u64, SavedError> {
        let mut piece = vec![0_u8; PIECE];
        let mut taken = 0_u64;
        loop {
            let count = from.read(&mut piece).await.map_err(SavedError::disk("take it in"))?;
            if count == 0 {
                return Ok(taken);
            }
            taken = taken.saturating_add(count as u64);
            if taken > self.most {
                return Err(SavedError::TooLarge { most: self.most });
            }
            self.file
                .write_all(&piece[..count])
                .await
                .map_err(SavedError::disk("write"))?;
        }
    }

    /// From here on it is there, also after a crash.
    async fn finish(mut self) -> Result<(), SavedError> {
        let act = SavedError::disk("write");
        self.file.flush().await.map_err(&act)?;
        self.file.sync_all().await.map_err(&act)?;
        let Some(part) = &self.part else { return Ok(()) };
        fs::rename(part, &self.whole).await.map_err(&act)?;
        self.part = None;
        if let Some(directory) = self.whole.parent() {
            let directory = File::open(directory).await.map_err(&act)?;
            directory.sync_all().await.map_err(&act)?;
        }
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(part) = self.part.take() {
            // What stays, the reaper finds.
            let _ = std::fs::remove_file(part);
        }
    }
}

/// 256 bits, of three times 122 random ones.
fn random() -> Option<SavedName> {
    let mut digest = sha2::Sha256::new();
    for _ in 0..3 {
        digest.update(uuid::Uuid::new_v4().as_bytes());
    }
    hex::encode(digest.finalize()).parse().ok()
}

fn remove(directory: &Path, is_it: impl Fn(SessionId, Option<Duration>) -> bool) -> io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let Some(owner) = entry.file_name().to_str().and_then(owner) else {
            continue;
        };
        let age = entry
            .metadata()
            .and_then(|about| about.modified())
            .ok()
            .and_then(|modified| modified.elapsed().ok());
        // Another worker may have been quicker.
        if is_it(owner, age) && std::fs::remove_file(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whose a file is; `None` where it is none of ours.
fn owner(file: &str) -> Option<SessionId> {
    let mut parts = file.split('.');
    let (session, name, end) = (parts.next()?, parts.next()?, parts.next()?);
    let is_ours = parts.next().is_none() && matches!(end, WHOLE | PART) && name.parse::<SavedName>().is_ok();
    let owner = is_ours.then(|| session.parse::<SessionId>().ok()).flatten()?;
    // A UUID has several forms, and ours has one.
    (owner.to_string() == session).then_some(owner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn states(directory: &Path, most: u64) -> States {
        States {
            directory: directory.join("states"),
            most,
            kept: Duration::from_secs(3600),
        }
    }

    fn session() -> SessionId {
        SessionId(uuid::Uuid::new_v4())
    }

    fn listed(states: &States) -> Vec<String> {
        let entries = std::fs::read_dir(&states.directory).into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    async fn saved(states: &States, session: SessionId, bytes: &[u8]) -> Result<SavedName, SavedError> {
        let (name, mut writing) = states.begin(session).await?;
        writing.take(bytes).await?;
        writing.finish().await?;
        Ok(name)
    }

    #[tokio::test]
    async fn what_is_saved_is_found_by_its_session_and_name_and_by_nobody_else() {
        let place = tempfile::tempdir().unwrap();
        let states = states(place.path(), 100);
        let (one, two) = (session(), session());
        let name = saved(&states, one, b"memory").await.unwrap();
        let other = saved(&states, one, b"memory").await.unwrap();
        assert_ne!(name, other);
        let mut text = String::new();
        let mut file = states.open(one, &name).await.unwrap();
        file.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "memory");
        assert!(matches!(states.open(two, &name).await, Err(SavedError::Missing)));
        let path = states.file(one, &name, WHOLE);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&states.directory)), (0o600, 0o700));
        states.forget(two).await;
        assert_eq!(listed(&states).len(), 2);
        states.forget(one).await;
        assert_eq!(listed(&states), Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_is_too_large_or_not_finished_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let states = states(place.path(), 100);
        assert!(matches!(
            saved(&states, session(), &[0; 101]).await,
            Err(SavedError::TooLarge { most: 100 })
        ));
        assert_eq!(listed(&states), Vec::<String>::new());
        assert!(saved(&states, session(), &[0; 100]).await.is_ok());
        let (_, writing) = states.begin(session()).await.unwrap();
        assert_eq!(listed(&states).len(), 2);
        drop(writing);
        assert_eq!(listed(&states).len(), 1);
    }

    #[tokio::test]
    async fn links_and_files_that_grew_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let states = states(place.path(), 10);
        let one = session();
        let name = saved(&states, one, b"memory").await.unwrap();
        let path = states.file(one, &name, WHOLE);
        std::fs::write(&path, [0; 11]).unwrap();
        assert!(matches!(
            states.open(one, &name).await,
            Err(SavedError::TooLarge { .. })
        ));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(matches!(states.open(one, &name).await, Err(SavedError::Disk { .. })));
    }

    #[tokio::test]
    async fn only_our_own_old_files_are_removed() {
        let place = tempfile::tempdir().unwrap();
        let states = states(place.path(), 10);
        assert_eq!(states.expire().await, 0, "there is no directory yet");
        let one = session();
        let fresh = saved(&states, one, b"fresh").await.unwrap();
        let old = saved(&states, one, b"old").await.unwrap();
        let (_, abandoned) = states.begin(one).await.unwrap();
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(3700);
        let age = |path: &Path| std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
        age(&states.file(one, &old, WHOLE));
        age(abandoned.part.as_deref().unwrap());
        for name in [
            "notes.txt",
            "a.b.state",
            &format!("{one}.{old}.tar"),
            &format!("{one}.short.state"),
        ] {
            std::fs::write(states.directory.join(name), "").unwrap();
            age(&states.directory.join(name));
        }
        assert_eq!(states.expire().await, 2);
        assert_eq!(listed(&states).len(), 5);
        assert!(states.open(one, &fresh).await.is_ok());
    }
}
