//! Counts what a workspace takes of the disk: blocks, not lengths, so that a sparse file costs what it costs; a hard-linked file once.
//!
//! A file that is open and has no name any more is not seen here: `open` counts those.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::stat::SFlag;

use super::tree::{self, Walked};

/// Bytes of a block as `stat` counts them, whatever the file system's own are.
const BLOCK: u64 = 512;

/// What was counted; when it was cut short, at least that much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes on disk, with those of open files that have no name any more.
    pub bytes: u64,
    /// Files, directories and everything else with a name.
    pub files: u64,
    /// Directories lie deeper than anybody counts.
    pub too_deep: bool,
    /// The time was over before all was counted: it may be any amount.
    pub cut: bool,
}

/// Counts until there are more files than allowed, or the time is over.
pub(super) fn count(root: &Path, most_files: u64, limit: Duration) -> std::io::Result<Usage> {
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    let mut visit = |entry: &tree::Entry<'_>| {
        let about = &entry.about;
        usage.files += 1;
        if entry.is(SFlag::S_IFDIR) || about.st_nlink <= 1 || linked.insert((about.st_dev, about.st_ino)) {
            let blocks = u64::try_from(about.st_blocks).unwrap_or(0);
            usage.bytes = usage.bytes.saturating_add(blocks.saturating_mul(BLOCK));
        }
        if usage.files > most_files {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let Walked { too_deep, cut, .. } = tree::walk(root, Instant::now() + limit, &mut visit)?;
    usage.too_deep = too_deep;
    usage.cut = cut && usage.files <= most_files;
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const SECOND: Duration = Duration::from_secs(5);

    #[test]
    fn links_lead_nowhere_and_hard_links_count_once() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("large"), vec![1; 8 << 20]).unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(root.path().join("file"), root.path().join("again")).unwrap();
        symlink(outside.path(), root.path().join("away")).unwrap();
        symlink("/", root.path().join("top")).unwrap();
        symlink(".", root.path().join("loop")).unwrap();
        let sparse = std::fs::File::create(root.path().join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let usage = count(root.path(), u64::MAX, SECOND).unwrap();
        assert_eq!((usage.files, usage.too_deep), (6, false));
        assert!((1 << 20..3 << 19).contains(&usage.bytes), "{usage:?}");
    }

    #[test]
    fn it_stops_where_it_is_too_much() {
        let root = tempfile::tempdir().unwrap();
        for n in 0..100 {
            std::fs::write(root.path().join(n.to_string()), "").unwrap();
        }
        assert_eq!(count(root.path(), 9, SECOND).unwrap().files, 10);
        assert_eq!(count(root.path(), 100, SECOND).unwrap().files, 100);
        let late = count(root.path(), 100, Duration::ZERO).unwrap();
        assert!(late.files == 0 && late.cut, "the time is over: {late:?}");
        assert!(!count(root.path(), 9, SECOND).unwrap().cut);
    }

    #[test]
    fn what_lies_too_deep_is_told() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d/".repeat(tree::DEEPEST + 1));
        std::fs::create_dir_all(deep).unwrap();
        assert!(count(root.path(), u64::MAX, SECOND).unwrap().too_deep);
    }
}
