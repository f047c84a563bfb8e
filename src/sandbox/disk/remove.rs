//! Removes a tree that a sandbox made, however deep: what lies deep is moved up first, so that neither the stack nor the open files run out.
//!
//! Follows no link, and touches nothing outside the tree. The sandbox must be gone.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{open, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::tree::DIRECTORY;

/// Levels that are entered; deeper ones are moved up.
const LEVELS: usize = 32;

/// Removes a directory and all in it; one that is not there is removed already.
///
/// # Errors
/// What cannot be removed.
pub fn remove(root: &Path) -> std::io::Result<()> {
    let fd = match open(root, DIRECTORY, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut removal = Removal { root: &fd, moved: 0 };
    // What was moved up lies in the root, and is met by the next pass.
    while removal.empty(&fd, 0)? {}
    match std::fs::remove_dir(root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

struct Removal<'a> {
    root: &'a OwnedFd,
    moved: u64,
}

impl Removal<'_> {
    /// Removes what is in a directory; says whether there was anything.
    fn empty(&mut self, fd: &OwnedFd, depth: usize) -> nix::Result<bool> {
        let mut any = false;
        let mut listed = Dir::from_fd(fd.try_clone().map_err(|_| Errno::EMFILE)?)?;
        for entry in listed.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            any = true;
            match unlinkat(fd, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                // Linux says EISDIR, POSIX allows EPERM.
                Err(Errno::EISDIR | Errno::EPERM) => self.directory(fd, name, depth)?,
                Err(error) => return Err(error),
            }
        }
        Ok(any)
    }

    fn directory(&mut self, parent: &OwnedFd, name: &CStr, depth: usize) -> nix::Result<()> {
        if depth >= LEVELS {
            return self.move_up(parent, name);
        }
        let fd = openat(parent, name, DIRECTORY, Mode::empty())?;
        while self.empty(&fd, depth + 1)? {}
        drop(fd);
        unlinkat(parent, name, UnlinkatFlags::RemoveDir)
    }

    fn move_up(&mut self, parent: &OwnedFd, name: &CStr) -> nix::Result<()> {
        loop {
            self.moved += 1;
            let free = CString::new(format!("moved-{}", self.moved)).map_err(|_| Errno::EINVAL)?;
            match renameat(parent, name, self.root, free.as_c_str()) {
                // The sandbox may have made such a name too.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_or_stack_is_removed_and_links_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        let root = home.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        std::fs::write(root.join("moved-1"), "in the way").unwrap();
        // Far beyond PATH_MAX and beyond the usual limit of open files.
        let mut fd = open(&root, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..20_000 {
            nix::sys::stat::mkdirat(&fd, c"deep", Mode::S_IRWXU).unwrap();
            fd = openat(&fd, c"deep", DIRECTORY, Mode::empty()).unwrap();
        }
        drop(fd);
        remove(&root).unwrap();
        assert!(!root.exists());
        assert!(outside.join("kept").exists());
        remove(&root).unwrap();
    }
}
