//! Who owns a sandbox: the worker that holds the lock of a state directory. The kernel lets the lock go when the process ends in any way, and
//! keeps it for one that is only stopped, so nobody has to guess who lives.
//!
//! Never believes a path alone: the same path may be another directory in another container. What the labels name must be this user's, and
//! carry the same id inside.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, OFlag};
use sha2::Digest as _;
use uuid::Uuid;

/// Held by a worker for as long as it lives. Its content is the id of the directory.
const LOCK: &str = "worker.lock";
/// Held beside it by another worker that cleans up after a dead one.
const CLEANING: &str = "cleaning.lock";
/// Longest path of a state directory that is believed, in bytes.
const LONGEST_PATH: usize = 512;
/// How long a start waits for somebody who cleans up, and for one who only looked.
const LONGEST_CLEANING: Duration = Duration::from_secs(5 * 60);
const LONGEST_LOOK: Duration = Duration::from_secs(1);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Why a state directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// Another worker lives in it.
    #[error("state_dir {} cannot be used: another worker uses it; give each its own", .0.display())]
    Taken(PathBuf),
    /// The disk.
    #[error("state_dir {} cannot be used: {source}", .path.display())]
    Disk {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A state directory, and how to know it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its path.
    pub state_dir: PathBuf,
    /// What stands in its lock file.
    pub id: Uuid,
    /// Where the path means that directory: this boot of the machine, and this view of its file systems.
    pub place: String,
}

impl Owner {
    /// From three labels. They come from the engine, whose administrators could write anything.
    #[must_use]
    pub fn read(state_dir: &str, id: &str, place: &str) -> Option<Self> {
        let path = Path::new(state_dir);
        let plain = path.is_absolute()
            && state_dir.len() <= LONGEST_PATH
            && !state_dir.chars().any(char::is_control)
            && path
                .components()
                .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        plain.then_some(())?;
        Some(Self {
            state_dir: path.to_owned(),
            id: id.parse().ok()?,
            place: place.chars().take(64).collect(),
        })
    }
}

/// This boot and this process's view of the file systems; empty where the system does not tell, which equals nothing.
fn place() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let view = std::fs::read_link("/proc/self/ns/mnt");
    match (boot, view) {
        (Ok(boot), Ok(view)) => {
            let digest = sha2::Sha256::digest(format!("{}/{}", boot.trim(), view.display()));
            hex::encode(digest)[..16].to_owned()
        }
        _ => String::new(),
    }
}

/// Keeps other workers out of a state directory for as long as it lives.
#[derive(Debug)]
pub struct StateLock {
    owner: Owner,
    _lock: Flock<File>,
}

impl StateLock {
    /// Makes the directory and takes it. Waits for another worker that is just cleaning up in it.
    ///
    /// # Errors
    /// Another worker lives in it, or the disk.
    pub async fn take(state_dir: &Path) -> Result<Self, OwnerError> {
        let disk = |source| OwnerError::Disk {
            path: state_dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(state_dir).map_err(disk)?;
        let began = Instant::now();
        let mut file = open(&state_dir.join(LOCK), true).map_err(disk)?;
        let mut lock = loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => break lock,
                Err((file, _)) => file,
            };
            let limit = if is_locked(&state_dir.join(CLEANING)) {
                LONGEST_CLEANING
            } else {
                LONGEST_LOOK
            };
            if began.elapsed() >= limit {
                return Err(OwnerError::Taken(state_dir.to_owned()));
            }
            tokio::time::sleep(ASK_EVERY).await;
        };
        // One that an older version made: whoever may open it may hold it.
        lock.set_permissions(std::fs::Permissions::from_mode(0o600))
            .map_err(disk)?;
        let id = match read_id(&mut lock) {
            Some(id) => id,
            None => {
                let id = Uuid::new_v4();
                lock.set_len(0).map_err(disk)?;
                lock.rewind().map_err(disk)?;
                lock.write_all(format!("{id}\n").as_bytes()).map_err(disk)?;
                lock.sync_all().map_err(disk)?;
                id
            }
        };
        Ok(Self {
            owner: Owner {
                state_dir: state_dir.to_owned(),
                id,
                place: place(),
            },
            _lock: lock,
        })
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }
}

fn open(path: &Path, create: bool) -> std::io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(create)
        // Whoever may open it may hold it.
        .mode(0o600)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
}

fn read_id(file: &mut File) -> Option<Uuid> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(64).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn is_locked(path: &Path) -> bool {
    open(path, false).is_ok_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err())
}

/// What is known of the worker of a state directory.
#[derive(Debug)]
pub enum Standing {
    /// It lives, or somebody cleans up after it already.
    Alive,
    /// It is dead. Its directory is ours to clean for as long as this is held.
    Dead(Abandoned),
    /// The directory was removed.
    Gone,
    /// It cannot be told from here.
    Unknown,
}

/// The state directory of a dead worker; nobody can start in it, and nobody else cleans it, while this lives.
#[derive(Debug)]
pub struct Abandoned {
    /// Its path.
    pub state_dir: PathBuf,
    /// Its id.
    pub id: Uuid,
    // The order of the fields is that of their release: a start that finds the first still held must see why.
    _lock: Flock<File>,
    _cleaning: Flock<File>,
}

/// Looks at the worker of a directory that a label names, or that was found (`None`). Blocks for a moment.
#[must_use]
pub fn standing(state_dir: &Path, labelled: Option<&Owner>, here: &Owner) -> Standing {
    let same_view = labelled.is_some_and(|labelled| !here.place.is_empty() && labelled.place == here.place);
    let about = match std::fs::metadata(state_dir) {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return if same_view { Standing::Gone } else { Standing::Unknown };
        }
        Err(_) => return Standing::Unknown,
    };
    let own = nix::unistd::geteuid().as_raw();
    let Ok(mut file) = open(&state_dir.join(LOCK), false) else {
        return Standing::Unknown;
    };
    // Another user of the machine could make a directory that looks like one of ours.
    let is_ours = about.is_dir() && about.uid() == own && file.metadata().is_ok_and(|about| about.uid() == own);
    let Some(id) = read_id(&mut file).filter(|_| is_ours) else {
        return Standing::Unknown;
    };
    if labelled.is_some_and(|labelled| labelled.id != id) {
        // Another directory stands where that one stood, or it is another's path only.
        return if same_view { Standing::Gone } else { Standing::Unknown };
    }
    let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
        return Standing::Alive;
    };
    let Ok(cleaning) = open(&state_dir.join(CLEANING), true) else {
        return Standing::Unknown;
    };
    match Flock::lock(cleaning, FlockArg::LockExclusiveNonblock) {
        Ok(cleaning) => Standing::Dead(Abandoned {
            state_dir: state_dir.to_owned(),
            id,
            _lock: lock,
            _cleaning: cleaning,
        }),
        Err(_) => Standing::Alive,
    }
}

/// State directories beside this one: a worker that died before it had a container is known to no engine.
#[must_use]
pub fn beside(own: &Path) -> Vec<PathBuf> {
    let Some(entries) = own.parent().and_then(|parent| std::fs::read_dir(parent).ok()) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path != own && path.join(LOCK).is_file())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_has_one_worker_and_keeps_its_id() {
        let parent = tempfile::tempdir().unwrap();
        let (one, two) = (parent.path().join("one"), parent.path().join("two"));
        let first = StateLock::take(&one).await.unwrap();
        let id = first.owner().id;
        assert!(matches!(StateLock::take(&one).await, Err(OwnerError::Taken(_))));
        let other = StateLock::take(&two).await.unwrap();
        assert_eq!(beside(&two), std::slice::from_ref(&one));
        let look = || standing(&one, Some(first.owner()), other.owner());
        assert!(matches!(look(), Standing::Alive));
        let owner = first.owner().clone();
        drop(first);
        let Standing::Dead(abandoned) = standing(&one, Some(&owner), other.owner()) else {
            panic!("its lock is free");
        };
        assert_eq!(abandoned.id, id);
        assert!(
            matches!(standing(&one, None, other.owner()), Standing::Alive),
            "one cleans at a time"
        );
        // A start waits for who cleans.
        let starting = tokio::spawn({
            let one = one.clone();
            async move { StateLock::take(&one).await }
        });
        tokio::time::sleep(LONGEST_LOOK * 2).await;
        assert!(!starting.is_finished());
        drop(abandoned);
        assert_eq!(starting.await.unwrap().unwrap().owner().id, id);
    }

    #[tokio::test]
    async fn only_what_is_surely_that_directory_is_judged() {
        let parent = tempfile::tempdir().unwrap();
        let (one, two) = (parent.path().join("one"), parent.path().join("two"));
        let owner = StateLock::take(&one).await.unwrap().owner().clone();
        let here = StateLock::take(&two).await.unwrap();
        let stranger = |place: &str| Owner {
            id: Uuid::new_v4(),
            place: place.into(),
            ..owner.clone()
        };
        assert!(matches!(
            standing(&one, Some(&stranger("elsewhere")), here.owner()),
            Standing::Unknown
        ));
        let replaced = stranger(&here.owner().place);
        assert!(matches!(standing(&one, Some(&replaced), here.owner()), Standing::Gone));
        std::fs::write(one.join(LOCK), "").unwrap();
        assert!(matches!(standing(&one, None, here.owner()), Standing::Unknown), "no id");
        std::fs::remove_dir_all(&one).unwrap();
        assert!(matches!(standing(&one, Some(&owner), here.owner()), Standing::Gone));
        let elsewhere = Owner {
            place: "elsewhere".into(),
            ..owner
        };
        assert!(
            matches!(standing(&one, Some(&elsewhere), here.owner()), Standing::Unknown),
            "a path that is not there may be there for others"
        );
    }

    #[test]
    fn labels_are_believed_only_in_their_form() {
        let id = Uuid::new_v4().to_string();
        assert!(Owner::read("/var/lib/cofferdam", &id, "x").is_some());
        let long = format!("/{}", "x".repeat(LONGEST_PATH));
        for path in ["", "state", "/a/../etc", "/a\nb", &long] {
            assert!(Owner::read(path, &id, "x").is_none(), "{path:?}");
        }
        assert!(Owner::read("/a", "not-an-id", "x").is_none());
    }
}
