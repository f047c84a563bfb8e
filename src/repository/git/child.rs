//! Sees a child process to its end: feeds it, hears it out within bounds, and ends it with all its helpers when its time is over.
//!
//! Dropping the future kills the whole group. Never waits without end.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Child;

use super::{Group, output};

/// How a child ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How it exited.
    pub(crate) status: std::io::Result<ExitStatus>,
    /// What it printed; `None` when that was more than is read.
    pub(crate) stdout: Option<Vec<u8>>,
    /// The end of what it complained about.
    pub(crate) stderr: String,
}

/// Runs a child to its end; `None` when its time was over and it was killed. The child must lead a process group.
pub(crate) async fn until_end(mut child: Child, input: Vec<u8>, limit: Duration, largest: usize) -> Option<Ended> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // Declared after the child, so that on a drop the group is killed before anything could reap its leader.
    let mut group = Group::led_by(&child);
    let talk = async {
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A child that does not want its input is judged by its exit status.
                let _ = stdin.write_all(&input).await;
            }
        };
        let (_, stdout, stderr) = tokio::join!(feed, output::read_head(stdout, largest), output::read_tail(stderr));
        Ended {
            status: child.wait().await,
            stdout,
            stderr,
        }
    };
    let Ok(ended) = tokio::time::timeout(limit, talk).await else {
        group.kill();
        // Killed processes go at once, unless the disk hangs: then the runtime reaps them later.
        let _ = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
        return None;
    };
    group.disarm();
    Some(ended)
}
