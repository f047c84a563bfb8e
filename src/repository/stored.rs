//! How much is stored here: mirrors, their bytes, bundles that wait. Counts only; opens no file.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{RepositoryError, Shared, blocking};

/// What is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Mirrors of projects.
    pub mirrors: usize,
    /// Bytes on the disk of all of them.
    pub mirror_bytes: u64,
    /// Bundles of work that was not published.
    pub bundles: usize,
}

pub(super) async fn measure(shared: &Shared) -> Result<Stored, RepositoryError> {
    let (mirrors, kept) = (shared.config.mirrors(), shared.config.kept());
    blocking(move || {
        let mut stored = Stored::default();
        for entry in entries(&mirrors)? {
            // The lock of a mirror stays when the mirror is removed.
            if entry.path().join("mirror.git").exists() {
                stored.mirrors += 1;
                stored.mirror_bytes = stored.mirror_bytes.saturating_add(size(&entry.path()));
            }
        }
        let is_bundle = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|name| name == "bundle");
        stored.bundles = entries(&kept)?.iter().filter(|entry| is_bundle(entry)).count();
        Ok(stored)
    })
    .await
}

/// What has had its time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expired {
    /// Bundles and their notes.
    pub bundles: Vec<PathBuf>,
    /// Mirrors that nobody used for long.
    pub mirrors: Vec<PathBuf>,
}

pub(super) fn expired(shared: &Shared) -> Result<Expired, RepositoryError> {
    let days = |days: u64| Duration::from_secs(days.saturating_mul(24 * 60 * 60));
    let (bundles, mirrors) = (
        days(shared.config.keep_bundles_days),
        days(shared.config.keep_mirrors_days),
    );
    let is_older = |path: &Path, limit: Duration| {
        let modified = fs::metadata(path).and_then(|about| about.modified()).ok();
        modified.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > limit)
    };
    let paths = |directory: &Path| Ok(entries(directory)?.into_iter().map(|entry| entry.path()));
    Ok(Expired {
        bundles: paths(&shared.config.kept())?
            .filter(|path| is_older(path, bundles))
            .collect(),
        mirrors: paths(&shared.config.mirrors())?
            .filter(|place| place.join("mirror.git").exists() && is_older(&place.join("refreshed"), mirrors))
            .collect(),
    })
}

fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>, RepositoryError> {
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RepositoryError::state("list", directory)(error)),
    };
    let all: std::io::Result<Vec<_>> = listed.collect();
    all.map_err(RepositoryError::state("list", directory))
}

/// Bytes of a tree. What goes while it is looked at counts nothing; links are not followed.
fn size(path: &Path) -> u64 {
    let Ok(about) = fs::symlink_metadata(path) else {
        return 0;
    };
    let own = about.blocks().saturating_mul(512);
    if !about.is_dir() {
        return own;
    }
    let inner = fs::read_dir(path).into_iter().flatten().flatten();
    inner.fold(own, |sum, entry| sum.saturating_add(size(&entry.path())))
}
