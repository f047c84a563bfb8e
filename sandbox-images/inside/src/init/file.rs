//! Writing a file that the worker ordered. The file appears whole or not at all, and a symbolic link in its place is
//! neither followed nor replaced. Links in its parent directories are followed: everything here runs as the agent's
//! user, which could write through them anyway.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// As the kernel has it.
const MAX_PATH_BYTES: usize = 4096;

/// Why a file was not written; the sentence goes to the worker.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteFileError {
    /// Relative, too long, or with a component that is not a name.
    #[error("the path of a file is absolute, without `..`, of at most {MAX_PATH_BYTES} bytes")]
    CheckPath,
    /// More than permission bits.
    #[error("a mode has only permission bits")]
    CheckMode,
    /// The last component is a symbolic link or a directory.
    #[error("{} is there already and not a regular file", .0.display())]
    CheckExisting(PathBuf),
    /// A parent is missing and cannot be made.
    #[error("the directory {} could not be made: {source}", path.display())]
    MakeParent { path: PathBuf, source: io::Error },
    /// Not enough room, no permission.
    #[error("{} could not be written: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Writes `content` to `path` with exactly the permission bits of `mode`.
pub(super) fn write(path: &str, mode: u32, content: &str) -> Result<(), WriteFileError> {
    let parent = check_path(path)?;
    let path = Path::new(path);
    if mode & !0o777 != 0 {
        return Err(WriteFileError::CheckMode);
    }
    fs::create_dir_all(parent).map_err(|source| WriteFileError::MakeParent {
        path: parent.to_path_buf(),
        source,
    })?;
    match fs::symlink_metadata(path) {
        Ok(there) if !there.is_file() => return Err(WriteFileError::CheckExisting(path.to_path_buf())),
        // Where it cannot be looked at, writing tells why.
        Ok(_) | Err(_) => {}
    }
    let failed = |source| WriteFileError::Write {
        path: path.to_path_buf(),
        source,
    };
    let (temporary, mut file) = create_beside(parent).map_err(failed)?;
    // Should a link appear in the meantime, renaming replaces it; it does not follow it either.
    let written = file
        .write_all(content.as_bytes())
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        failed(source)
    })
}

fn check_path(path: &str) -> Result<&Path, WriteFileError> {
    let names = path.strip_prefix('/').ok_or(WriteFileError::CheckPath)?;
    let named = names
        .split('/')
        .all(|name| !name.is_empty() && name != "." && name != ".." && name.len() <= 255);
    if !named || path.len() >= MAX_PATH_BYTES || path.contains('\0') {
        return Err(WriteFileError::CheckPath);
    }
    Path::new(path).parent().ok_or(WriteFileError::CheckPath)
}

/// A new file in the same directory, so that renaming is atomic. Nobody else can read it before it has its mode.
fn create_beside(parent: &Path) -> io::Result<(PathBuf, fs::File)> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    const ATTEMPTS: u32 = 16;
    let mut attempt = 0;
    loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = parent.join(format!(".cofferdam-{}-{number}", std::process::id()));
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
        {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS => attempt += 1,
            done @ (Ok(_) | Err(_)) => return done.map(|file| (temporary, file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_plain_absolute_paths() {
        for wrong in [
            "",
            "/",
            "a",
            "a/b",
            "/a/../b",
            "/a/./b",
            "//a",
            "/a/",
            "/a\0b",
            &format!("/{}", "x".repeat(256)),
        ] {
            assert!(matches!(check_path(wrong), Err(WriteFileError::CheckPath)), "{wrong:?}");
        }
        assert_eq!(check_path("/a").unwrap(), Path::new("/"));
    }

    #[test]
    fn leaves_no_temporary_file_behind_when_it_fails() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("there");
        fs::create_dir(&path).unwrap();
        assert!(matches!(
            write(path.to_str().unwrap(), 0o600, "x"),
            Err(WriteFileError::CheckExisting(_))
        ));
        assert!(matches!(
            write(path.to_str().unwrap(), 0o4755, "x"),
            Err(WriteFileError::CheckMode)
        ));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
