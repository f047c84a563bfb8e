//! Counts files that a sandbox's processes hold and that have no name any more: they take the disk, and no look at the tree shows them.
//!
//! Asks `/proc` of the worker's machine, never the sandbox. Sees what processes have open or mapped; not what is on its way between two processes
//! through a socket. A worker that may not look into them, or that has a process tree of its own, sees nothing.

use std::collections::HashSet;
use std::fs::{read_dir, read_link};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes of a block as `stat` counts them.
const BLOCK: u64 = 512;

/// What was counted; whether the time was over before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Open {
    pub(super) bytes: u64,
    pub(super) cut: bool,
}

/// Counts on the file system of `workspace`, over all processes that share a name space with `init`.
pub(super) fn count(init: u32, workspace: &Path, until: Instant) -> std::io::Result<Open> {
    let mut counting = Counting {
        device: std::fs::metadata(workspace)?.dev(),
        seen: HashSet::new(),
        until,
        open: Open::default(),
    };
    let space = |process: &Path| read_link(process.join("ns/pid")).ok();
    let first = PathBuf::from(format!("/proc/{init}"));
    let Some(wanted) = space(&first) else {
        return Ok(counting.open);
    };
    if space(Path::new("/proc/self")).as_ref() == Some(&wanted) {
        // A sandbox without a tree of its own: its processes are not to be told from all others.
        counting.process(&first);
        return Ok(counting.open);
    }
    for process in read_dir("/proc")?.filter_map(Result::ok) {
        let is_process = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if is_process && space(&process.path()).as_ref() == Some(&wanted) && !counting.process(&process.path()) {
            break;
        }
    }
    Ok(counting.open)
}

struct Counting {
    device: u64,
    seen: HashSet<u64>,
    until: Instant,
    open: Open,
}

impl Counting {
    /// False when the time is over. Each thread is asked: it may have descriptors of its own.
    fn process(&mut self, process: &Path) -> bool {
        let threads = read_dir(process.join("task"))
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        threads
            .into_iter()
            .all(|thread| self.held_in(&thread.path().join("fd")))
            && self.held_in(&process.join("map_files"))
    }

    /// What the links of a directory lead to. Looked at and never opened.
    fn held_in(&mut self, directory: &Path) -> bool {
        for link in read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
            if Instant::now() >= self.until {
                self.open.cut = true;
                return false;
            }
            let Ok(about) = std::fs::metadata(link.path()) else {
                continue;
            };
            if about.nlink() == 0 && about.dev() == self.device && self.seen.insert(about.ino()) {
                self.open.bytes = self.open.bytes.saturating_add(about.blocks().saturating_mul(BLOCK));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_without_a_name_is_counted_once_for_as_long_as_it_is_held() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = tempfile::tempfile_in(directory.path()).unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        let again = file.try_clone().unwrap();
        // A process of its own, for other tests of this one come to hold files and let them go. It closes one of the two for each line.
        let mut holder = Command::new("sh")
            .args(["-c", "read line; exec >&-; read line; exec 2>&-; read line"])
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(again)
            .spawn()
            .unwrap();
        let mut lines = holder.stdin.take().unwrap();
        let (holding, soon) = (holder.id(), || Instant::now() + Duration::from_secs(20));
        let mut let_go = |descriptor: u32| {
            lines.write_all(b"\n").unwrap();
            let (link, end) = (format!("/proc/{holding}/fd/{descriptor}"), soon());
            while std::fs::symlink_metadata(&link).is_ok() {
                assert!(Instant::now() < end, "{descriptor} is still held");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let held = count(holding, directory.path(), soon()).unwrap();
        assert!((1 << 20..2 << 20).contains(&held.bytes) && !held.cut, "{held:?}");
        let_go(1);
        assert_eq!(count(holding, directory.path(), soon()).unwrap(), held);
        let_go(2);
        assert_eq!(count(holding, directory.path(), soon()).unwrap(), Open::default());
        assert!(count(holding, directory.path(), Instant::now()).unwrap().cut);
        drop(lines);
        holder.wait().unwrap();
        assert_eq!(count(u32::MAX, directory.path(), soon()).unwrap(), Open::default());
    }
}
