//! The worker's own side of a sandbox: the directory with its socket, and the directory with `inside` and the git hooks.
//!
//! Touches only paths below the state directory. Never reads what a sandbox wrote.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::{Config, SandboxError};
use crate::message::SandboxId;

/// Longest path of a unix socket, in bytes, without the ending NUL.
const LONGEST_SOCKET_PATH: usize = 107;

/// The directory of one sandbox: `<state>/sandboxes/<id>` (0700), with `mount/` (0711) for the socket in it, and `objects/` (0711).
///
/// The parent shuts out other users of the machine; the leaves let the sandbox's user pass, because they alone are mounted.
#[derive(Debug)]
pub struct SandboxHome {
    id: SandboxId,
    root: PathBuf,
}

impl SandboxHome {
    /// Makes the directory.
    ///
    /// # Errors
    /// The state directory's path is too long for a socket, or the directories cannot be made.
    pub fn create(state: &Path, id: SandboxId) -> Result<Self, SandboxError> {
        let root = state.join("sandboxes").join(id.to_string());
        let home = Self { id, root };
        let socket = home.socket();
        if socket.as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(SandboxError::Prepare {
                detail: format!(
                    "{} is longer than a socket's path may be: choose a shorter state_dir",
                    socket.display()
                ),
            });
        }
        make_directory(&home.root, 0o700)?;
        make_directory(&home.socket_directory(), 0o711)?;
        make_directory(&home.objects_directory(), 0o711)?;
        Ok(home)
    }

    /// The sandbox's identity.
    #[must_use]
    pub fn id(&self) -> SandboxId {
        self.id
    }

    /// The directory that is mounted.
    #[must_use]
    pub fn socket_directory(&self) -> PathBuf {
        self.root.join("mount")
    }

    /// The directory in which the session's objects are shown to the sandbox; mounted when nobody knows yet whose they will be.
    #[must_use]
    pub fn objects_directory(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.socket_directory().join(super::SOCKET_NAME)
    }

    /// Makes a directory for a workspace on disk, owned by the sandbox's user.
    ///
    /// # Errors
    /// It cannot be made or given away.
    pub fn create_workspace(&self, uid: u32) -> Result<PathBuf, SandboxError> {
        let path = self.root.join("workspace");
        make_directory(&path, 0o755)?;
        let owner = nix::unistd::Uid::from_raw(uid);
        nix::unistd::chown(&path, Some(owner), Some(nix::unistd::Gid::from_raw(uid)))
            .map_err(|error| prepare(&path, &error))?;
        Ok(path)
    }

    /// Removes the directory and all in it. A sandbox's user may have left unreadable directories; root does not mind.
    ///
    /// # Errors
    /// It cannot be removed.
    pub async fn remove(&self) -> Result<(), SandboxError> {
        remove_tree(&self.root).await
    }
}

/// The directories of sandboxes in a state directory; what is called otherwise is not ours.
#[must_use]
pub fn all(state: &Path) -> Vec<(SandboxId, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(state.join("sandboxes")) else {
        return Vec::new();
    };
    let known = entries.filter_map(Result::ok).filter_map(|entry| {
        let id = SandboxId::parse(entry.file_name().to_str()?)?;
        Some((id, entry.path()))
    });
    known.collect()
}

/// Removes directories of sandboxes with all that sandboxes left in them.
///
/// # Errors
/// They cannot be removed.
pub async fn remove_tree(root: &Path) -> Result<(), SandboxError> {
    let path = root.to_owned();
    match tokio::task::spawn_blocking(move || super::disk::remove::remove(&path)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(prepare(root, &error)),
        Err(error) => Err(prepare(root, &error)),
    }
}

/// Where `inside` is, and what it is.
///
/// # Errors
/// It is not there, or cannot be read.
pub fn read_inside(config: &Config) -> Result<(PathBuf, Vec<u8>), SandboxError> {
    let source = match &config.inside {
        Some(path) => path.clone(),
        None => {
            let own = std::env::current_exe().map_err(|error| SandboxError::Prepare {
                detail: format!("the worker's own path: {error}"),
            })?;
            own.with_file_name("inside")
        }
    };
    match std::fs::read(&source) {
        Ok(binary) => Ok((source, binary)),
        Err(error) => Err(SandboxError::Prepare {
            detail: format!(
                "{} cannot be read ({error}): build it, or set sandbox.inside",
                source.display()
            ),
        }),
    }
}

/// Installs `inside` and its hooks under the state directory, where the engine can mount them, and says where.
///
/// The directory is named by content, so a newer worker never changes the files of a running sandbox.
///
/// # Errors
/// The binary is missing or the files cannot be written.
pub fn install_tools(config: &Config, state: &Path) -> Result<PathBuf, SandboxError> {
    let (_, binary) = read_inside(config)?;
    let digest = hex::encode(sha2::Sha256::digest(&binary));
    let directory = state.join("inside").join(&digest[..16]);
    if directory.join("hooks").join("commit-msg").symlink_metadata().is_ok() {
        return Ok(directory);
    }
    make_directory(&directory.join("hooks"), 0o755)?;
    let place = |name: &str, link: &str| {
        let path = directory.join("hooks").join(name);
        match std::os::unix::fs::symlink(link, &path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(prepare(&path, &error)),
            _ => Ok(()),
        }
    };
    let target = directory.join("inside");
    let half_written = directory.join(format!("inside.{}", SandboxId::random()));
    std::fs::write(&half_written, &binary).map_err(|error| prepare(&half_written, &error))?;
    std::fs::set_permissions(&half_written, std::fs::Permissions::from_mode(0o755))
        .map_err(|error| prepare(&half_written, &error))?;
    std::fs::rename(&half_written, &target).map_err(|error| prepare(&target, &error))?;
    // `commit-msg` is the last: its presence says above that all is there.
    for hook in ["applypatch-msg", "prepare-commit-msg", "commit-msg"] {
        place(hook, "../inside")?;
    }
    Ok(directory)
}

fn make_directory(path: &Path, mode: u32) -> Result<(), SandboxError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|error| prepare(path, &error))?;
    // The umask may have taken bits away.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|error| prepare(path, &error))
}

fn prepare(path: &Path, error: &impl std::fmt::Display) -> SandboxError {
    SandboxError::Prepare {
        detail: format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mounted_leaf_is_passable_and_its_parent_is_not() {
        let state = tempfile::tempdir().unwrap();
        let home = SandboxHome::create(state.path(), SandboxId::random()).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&home.socket_directory()), 0o711);
        assert_eq!(mode(home.socket_directory().parent().unwrap()), 0o700);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_with_the_remedy() {
        let state = tempfile::tempdir().unwrap();
        let long = state.path().join("x".repeat(90));
        let error = SandboxHome::create(&long, SandboxId::random()).unwrap_err();
        assert!(error.to_string().contains("shorter state_dir"), "{error}");
    }

    #[test]
    fn tools_are_installed_once_by_content_and_a_missing_binary_names_the_remedy() {
        let state = tempfile::tempdir().unwrap();
        let source = state.path().join("source");
        std::fs::write(&source, b"binary").unwrap();
        let config = Config {
            inside: Some(source.clone()),
            ..Config::default()
        };
        let first = install_tools(&config, state.path()).unwrap();
        assert_eq!(install_tools(&config, state.path()).unwrap(), first);
        assert!(first.join("hooks/prepare-commit-msg").exists());
        std::fs::write(&source, b"newer").unwrap();
        assert_ne!(install_tools(&config, state.path()).unwrap(), first);
        let missing = Config {
            inside: Some(state.path().join("none")),
            ..Config::default()
        };
        assert!(
            install_tools(&missing, state.path())
                .unwrap_err()
                .to_string()
                .contains("sandbox.inside")
        );
    }
}
