//! Goes through a tree that a sandbox made, and may change meanwhile, without following anything in it.
//!
//! Every step is relative to an open directory and refuses links, so no entry can lead outside. Bounded in depth and in time; never opens
//! anything but directories.

use std::ffi::CStr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

/// Deepest directory that is entered. Real projects stay below half of it; two open files a level.
pub const DEEPEST: usize = 128;

/// How a directory is opened.
pub(super) const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// One thing in a tree.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The open directory that it is in.
    pub parent: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a CStr,
    /// Its path below the root, for people. Chosen by the sandbox.
    pub path: &'a Path,
    /// What it is; of a link, the link itself.
    pub about: FileStat,
}

impl Entry<'_> {
    /// Whether it is of this kind.
    #[must_use]
    pub fn is(&self, kind: SFlag) -> bool {
        kind_of(&self.about) == kind
    }
}

/// The kind of what was looked at.
pub(super) fn kind_of(about: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT
}

/// How far a walk came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Walked {
    /// The visitor or the clock ended it.
    pub cut: bool,
    /// There were directories below [`DEEPEST`].
    pub too_deep: bool,
    /// Directories that could not be read.
    pub unread: u64,
}

impl Walked {
    /// Whether everything was seen.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        *self == Self::default()
    }
}

/// Visits everything below a directory. What vanishes meanwhile is left out.
///
/// # Errors
/// The directory itself cannot be opened.
pub fn walk(
    root: &Path,
    until: Instant,
    visit: &mut dyn FnMut(&Entry<'_>) -> ControlFlow<()>,
) -> std::io::Result<Walked> {
    let fd = open(root, DIRECTORY, Mode::empty())?;
    let mut walk = Walk {
        until,
        visit,
        path: PathBuf::new(),
        walked: Walked::default(),
    };
    if walk.directory(&fd, 0).is_break() {
        walk.walked.cut = true;
    }
    Ok(walk.walked)
}

struct Walk<'a> {
    until: Instant,
    visit: &'a mut dyn FnMut(&Entry<'_>) -> ControlFlow<()>,
    path: PathBuf,
    walked: Walked,
}

impl Walk<'_> {
    fn directory(&mut self, fd: &OwnedFd, depth: usize) -> ControlFlow<()> {
        let Ok(mut listed) = fd
            .try_clone()
            .map_err(drop)
            .and_then(|fd| Dir::from_fd(fd).map_err(drop))
        else {
            self.walked.unread += 1;
            return ControlFlow::Continue(());
        };
        for entry in listed.iter() {
            if Instant::now() >= self.until {
                return ControlFlow::Break(());
            }
            let Ok(entry) = entry else {
                self.walked.unread += 1;
                break;
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(about) = fstatat(fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) else {
                continue;
            };
            self.path.push(osstr(name));
            let went = self.entry(fd, name, about, depth);
            self.path.pop();
            went?;
        }
        ControlFlow::Continue(())
    }

    fn entry(&mut self, fd: &OwnedFd, name: &CStr, about: FileStat, depth: usize) -> ControlFlow<()> {
        (self.visit)(&Entry {
            parent: fd.as_fd(),
            name,
            path: &self.path,
            about,
        })?;
        if kind_of(&about) != SFlag::S_IFDIR {
            return ControlFlow::Continue(());
        }
        if depth + 1 >= DEEPEST {
            self.walked.too_deep = true;
            return ControlFlow::Continue(());
        }
        match openat(fd, name, DIRECTORY, Mode::empty()) {
            Ok(below) => self.directory(&below, depth + 1),
            // Gone, or something else by now.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => ControlFlow::Continue(()),
            Err(_) => {
                self.walked.unread += 1;
                ControlFlow::Continue(())
            }
        }
    }
}

fn osstr(name: &CStr) -> &std::ffi::OsStr {
    use std::os::unix::ffi::OsStrExt as _;
    std::ffi::OsStr::from_bytes(name.to_bytes())
}
