//! Recorded traffic of real forges, for tests. It is not part of the package: `FORGE_DATA` names its folder.
//!
//! Never hides that it is absent: a test that wants it says so on standard error.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// One recorded request with its answer.
#[derive(Debug, Deserialize)]
pub(super) struct Exchange {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) route: String,
    pub(super) status: u16,
    pub(super) body: Value,
}

/// The folder of the recordings, if it is at hand.
pub(super) fn folder() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/forge-data");
    let folder = std::env::var_os("FORGE_DATA").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        Some(folder)
    } else {
        eprintln!(
            "SKIPPED: no recordings in {}; set FORGE_DATA to check against real traffic",
            folder.display()
        );
        None
    }
}

/// The exchanges of one file below the folder.
pub(super) fn exchanges(file: &str) -> Option<Vec<Exchange>> {
    let text = std::fs::read_to_string(folder()?.join(file)).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}
