//! Whether a sandbox's own file systems are full, asked from inside: a workspace on tmpfs shows nowhere else.
//!
//! The answer is the sandbox's word and is used for one thing only: to call its own failure by a better name.

use std::time::Duration;

use super::workspace;
use crate::gateway::Inside;
use crate::gateway::inside::Command;
use crate::sandbox::{HOME, WORKSPACE};

/// Less than this free is full: a write that failed may have left a rest.
const FULL_BYTES: u64 = 1024 * 1024;
/// The same of files.
const FULL_FILES: u64 = 16;
/// How long the question may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The first directory that has no room left; `None` also when it cannot be asked.
pub(super) async fn full(inside: &Inside) -> Option<String> {
    let places = [WORKSPACE, "/tmp", HOME];
    let mut argv = ["stat", "-f", "-c", "%a %S %c %d"].map(str::to_owned).to_vec();
    argv.extend(places.map(str::to_owned));
    let order = Command {
        argv,
        env: workspace::base_environment(),
        directory: "/".to_owned(),
    };
    let asking = async {
        let process = inside.spawn(order).await.ok()?;
        let (exit, output, _) = process.finish(4096).await;
        exit.is_success().then(|| String::from_utf8_lossy(&output).into_owned())
    };
    let said = tokio::time::timeout(LIMIT, asking).await.ok().flatten()?;
    let index = said.lines().take(places.len()).position(is_full)?;
    places.get(index).map(|place| (*place).to_owned())
}

/// One line: free blocks, bytes of a block, files in all, free files.
fn is_full(line: &str) -> bool {
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    match numbers.as_slice() {
        [blocks, size, files, free] => blocks.saturating_mul(*size) < FULL_BYTES || (*files > 0 && *free < FULL_FILES),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_is_little_room_or_few_files() {
        assert!(is_full("255 4096 1000 900"));
        assert!(!is_full("256 4096 1000 900"));
        assert!(is_full("9999 4096 1000 15"));
        assert!(!is_full("9999 4096 0 0"), "a file system that does not count files");
        for nonsense in ["", "1 2 3", "a b c d", "-1 4096 1000 900", "1 2 3 4 5"] {
            assert!(!is_full(nonsense), "{nonsense}");
        }
        assert!(!is_full("18446744073709551615 4096 1000 900"));
    }
}
