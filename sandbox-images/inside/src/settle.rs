//! `inside settle`: makes the session's of a fresh clone, without a git for each step, and its files a little older than its index.
//!
//! Git trusts a file's time only where the index was written in a later second: until then it reads every file again with each `status`,
//! `add` and `commit`, which are a sandbox's whole life where an agent is quick. The index is changed in what it says of times alone. It is
//! for a clone that nobody works in yet: what it does not understand, or finds changed, stays as it is. It never reads a file's content.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use sha1::{Digest, Sha1};

/// By how much the files become older than the index, in seconds: more than any clock's grain.
const OLDER_S: i64 = 2;
/// A larger index is left alone, in bytes: half a million files.
const LARGEST_INDEX: u64 = 64 * 1024 * 1024;
/// A larger file of a fresh repository is none, in bytes.
const LARGEST_FILE: u64 = 64 * 1024;
const HEADER: usize = 12;
const CHECKSUM: usize = 20;
/// Of an entry: what stands before its name, without the flags that only version 3 has.
const FIXED: usize = 62;
const EXTENDED: u16 = 0x4000;
const STAGE: u16 = 0x3000;

/// What to do with a fresh clone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The clone.
    pub(crate) work_tree: PathBuf,
    /// What becomes the address of `origin`.
    pub(crate) origin: String,
    /// The branch that is begun at the commit that is checked out.
    pub(crate) branch: String,
}

/// Why a clone stayed as git made it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettleError {
    /// A file of the repository.
    #[error("{} could not be read or written", path.display())]
    Access {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that says something else than those of a fresh clone.
    #[error("{} is of a kind that is left alone", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
    },
}

/// Settles a clone. Where it fails git has to do it, whatever of it is done by then. That files keep their times is no failure.
pub(crate) fn run(options: &Options) -> Result<(), SettleError> {
    let directory = options.work_tree.join(".git");
    let config = directory.join("config");
    let text =
        readdressed(&read(&config)?, &options.origin).ok_or_else(|| SettleError::Parse { path: config.clone() })?;
    let checked_out = directory.join("HEAD");
    let head = read(&checked_out)?;
    let current = head.trim_end().strip_prefix("ref: refs/heads/");
    let current = current.filter(|name| is_plain(name) && is_plain(&options.branch));
    let current = current.ok_or_else(|| SettleError::Parse {
        path: checked_out.clone(),
    })?;
    if current != options.branch {
        let from = directory.join("refs/heads").join(current);
        let commit = read(&from)?;
        if !matches!(commit.trim_end().len(), 40 | 64)
            || !commit.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return Err(SettleError::Parse { path: from });
        }
        let to = directory.join("refs/heads").join(&options.branch);
        let above = to.parent().unwrap_or(&directory);
        fs::create_dir_all(above).map_err(failed(above))?;
        write(&to, commit.as_bytes())?;
        write(&checked_out, format!("ref: refs/heads/{}\n", options.branch).as_bytes())?;
    }
    write(&config, text.as_bytes())?;
    // What is left is git's to find out: it reads the files again.
    let _ = age(&options.work_tree);
    Ok(())
}

/// The configuration of a clone with another address; nothing where it is not as git writes it, or the address would need quotes.
fn readdressed(config: &str, origin: &str) -> Option<String> {
    let is_plain = origin
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"\"\\#;".contains(&byte));
    let (before, section) = config.split_once("[remote \"origin\"]\n\turl = ")?;
    let (_, after) = section.split_once('\n')?;
    is_plain.then(|| format!("{before}[remote \"origin\"]\n\turl = {origin}\n{after}"))
}

/// Whether it is a branch's name that stays below its directory.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> SettleError {
    let path = path.to_owned();
    move |source| SettleError::Access { path, source }
}

fn read(path: &Path) -> Result<String, SettleError> {
    let about = fs::symlink_metadata(path).map_err(failed(path))?;
    if !about.is_file() || about.len() > LARGEST_FILE {
        return Err(SettleError::Parse { path: path.to_owned() });
    }
    fs::read_to_string(path).map_err(failed(path))
}

/// As git does it: whoever finds the lock waits, and nobody sees half of a file.
fn write(path: &Path, content: &[u8]) -> Result<(), SettleError> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let lock = Path::new(&lock);
    let written = fs::File::options()
        .write(true)
        .create_new(true)
        .open(lock)
        .and_then(|mut file| file.write_all(content));
    written.and_then(|()| fs::rename(lock, path)).map_err(failed(path))
}

/// Makes the files older than the index.
fn age(work_tree: &Path) -> Result<(), SettleError> {
    let path = work_tree.join(".git/index");
    let about = fs::symlink_metadata(&path).map_err(failed(&path))?;
    let parse = || SettleError::Parse { path: path.clone() };
    if !about.is_file() || about.len() > LARGEST_INDEX {
        return Err(parse());
    }
    let mut index = fs::read(&path).map_err(failed(&path))?;
    let older = about.mtime().saturating_sub(OLDER_S);
    for entry in entries(&index).ok_or_else(parse)? {
        settle_one(work_tree, &mut index, &entry, older);
    }
    let body = index.len() - CHECKSUM;
    let checksum = Sha1::digest(&index[..body]);
    index[body..].copy_from_slice(&checksum);
    write(&path, &index)
}

/// Where an entry begins, and the name of its file.
struct Entry {
    at: usize,
    name: std::ops::Range<usize>,
}

/// The plain entries of an index whose checksum is right.
fn entries(index: &[u8]) -> Option<Vec<Entry>> {
    let body = index.len().checked_sub(CHECKSUM)?;
    let (content, checksum) = index.split_at(body);
    let version = number(content, 4)?;
    let is_known = content.starts_with(b"DIRC") && matches!(version, 2 | 3);
    if !is_known || Sha1::digest(content)[..] != *checksum {
        return None;
    }
    let count = number(content, 8)?;
    let mut found = Vec::new();
    let mut at = HEADER;
    for _ in 0..count {
        let flags = content.get(at + FIXED - 2..at + FIXED)?;
        let flags = u16::from_be_bytes([flags[0], flags[1]]);
        let is_extended = flags & EXTENDED != 0;
        let begin = at + FIXED + if is_extended { 2 } else { 0 };
        let rest = content.get(begin..)?;
        let length = rest.iter().position(|byte| *byte == 0)?;
        let kind = number(content, at + 24)? & 0o170_000;
        // No submodule, no conflict, nothing that is deliberately absent.
        if matches!(kind, 0o100_000 | 0o120_000) && flags & STAGE == 0 && !is_extended {
            let name = begin..begin + length;
            found.push(Entry { at, name });
        }
        // Padded by one to eight NULs to a multiple of eight.
        let entry = begin - at + length;
        at += entry + 8 - entry % 8;
    }
    Some(found)
}

/// Gives one file its older time, and the index its new times. A file that is not as it was checked out keeps what it has.
fn settle_one(work_tree: &Path, index: &mut [u8], entry: &Entry, older: i64) {
    let name = OsStr::from_bytes(&index[entry.name.clone()]);
    if Path::new(name).is_absolute() {
        return;
    }
    let path = work_tree.join(name);
    let is_as_checked_out = |about: &fs::Metadata| {
        let [ctime, ctime_ns, mtime, mtime_ns] = times(about);
        let (inode, size) = (about.ino().cast_signed(), about.size().cast_signed());
        [
            (0, ctime),
            (4, ctime_ns),
            (8, mtime),
            (12, mtime_ns),
            (20, inode),
            (36, size),
        ]
        .iter()
        .all(|(offset, value)| number(index, entry.at + offset) == Some(low(*value)))
    };
    let Ok(before) = fs::symlink_metadata(&path) else {
        return;
    };
    if !is_as_checked_out(&before) {
        return;
    }
    let time = TimeSpec::new(older, 0);
    let set = utimensat(AT_FDCWD, &path, &time, &time, UtimensatFlags::NoFollowSymlink);
    let (Ok(()), Ok(after)) = (set, fs::symlink_metadata(&path)) else {
        return;
    };
    for (place, value) in times(&after).into_iter().enumerate() {
        let at = entry.at + 4 * place;
        index[at..at + 4].copy_from_slice(&low(value).to_be_bytes());
    }
}

/// In the order of an index's entry.
fn times(about: &fs::Metadata) -> [i64; 4] {
    [about.ctime(), about.ctime_nsec(), about.mtime(), about.mtime_nsec()]
}

/// The lower half, which is what an index has room for.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "git keeps the lower 32 bits"
)]
fn low(value: i64) -> u32 {
    value as u32
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_origin_s_address_is_another() {
        let config =
            "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = /run/0\n\tfetch = +x\n[user]\n\tname = url = y\n";
        let expected = config.replace("/run/0", "http://127.0.0.1:1/git/a.git");
        assert_eq!(readdressed(config, "http://127.0.0.1:1/git/a.git"), Some(expected));
        for odd in ["a b", "a\nb", "a#b", "a\"b", "ä"] {
            assert_eq!(readdressed(config, odd), None, "{odd}");
        }
        assert_eq!(readdressed("[remote \"origin\"]\n\tfetch = +x\n\turl = y\n", "a"), None);
    }

    #[test]
    fn a_branch_stays_below_its_directory() {
        for good in ["main", "cofferdam/a-b", "a.b/c"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "../a", "a/..", "."] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
