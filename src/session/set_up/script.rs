//! Runs a set-up script in its sandbox: secrets in its environment, time and output bounded. Judges nothing but its exit.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use crate::gateway::Inside;
use crate::gateway::inside::Command;
use crate::secret::Secret;
use crate::session::failure::Failure;
use crate::session::workspace;

/// Where the script is in the sandbox.
const SCRIPT: &str = "/home/agent/.cofferdam/set-up";
/// How much of its output's end is kept, in bytes.
const KEPT: usize = 8 * 1024;
/// How long output may come after the script's own end: something that it left running may hold it open for ever.
const REST: Duration = Duration::from_millis(500);
/// The script's output and complaints in one stream, in the order in which they came.
const TOGETHER: &str = "exec 2>&1; exec \"$@\"";

/// One script in one directory.
pub(super) struct Run<'a> {
    pub(super) script: &'a str,
    pub(super) secrets: &'a [(String, Secret)],
    pub(super) directory: &'a str,
    pub(super) limit: Duration,
}

/// What came of it.
pub(super) struct Ran {
    /// What went wrong, to follow the script's name.
    pub(super) problem: Option<String>,
    /// The end of its output. May hold secrets: to be masked.
    pub(super) output: String,
    /// Bytes of output before that.
    pub(super) dropped: u64,
}

impl Run<'_> {
    pub(super) async fn run(&self, inside: &Inside) -> Result<Ran, Failure> {
        inside.write_file(SCRIPT, 0o700, self.script).await?;
        let mut argv = ["sh", "-c", TOGETHER, "set-up"].map(str::to_owned).to_vec();
        // What names its interpreter is started by it.
        if !self.script.starts_with("#!") {
            argv.push("sh".to_owned());
        }
        argv.push(SCRIPT.to_owned());
        let mut env: BTreeMap<_, _> = self
            .secrets
            .iter()
            .map(|(name, secret)| (name.clone(), secret.expose().to_owned()))
            .collect();
        // Ours win: a secret does not change where git or the shell look.
        env.extend(workspace::base_environment());
        let mut process = inside
            .spawn(Command {
                argv,
                env: env.into_iter().collect(),
                directory: self.directory.to_owned(),
            })
            .await?;
        drop(process.take_stdin());
        let mut end = End::default();
        let stdout = process.take_stdout();
        let id = process.id();
        let running = async {
            let reading = async {
                let Some(mut stdout) = stdout else { return };
                let mut buffer = vec![0_u8; 16 * 1024];
                while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
                    end.push(&buffer[..count]);
                }
            };
            let mut ended = None;
            tokio::select! {
                () = reading => {}
                () = async {
                    ended = Some(process.wait().await);
                    tokio::time::sleep(REST).await;
                } => {}
            }
            match ended {
                Some(exit) => exit,
                None => process.wait().await,
            }
        };
        let exit = tokio::time::timeout(self.limit, running).await;
        let problem = match exit {
            Ok(exit) if exit.is_success() => None,
            Ok(exit) => Some(format!(
                "ended with status {}: mend it; the event set_up_output has the end of what it wrote",
                exit.status
            )),
            Err(_) => {
                let _ = inside.signal(id, 9).await;
                Some(format!(
                    "took longer than {} s: make it faster, or let the operator raise set_up.timeout_s",
                    self.limit.as_secs()
                ))
            }
        };
        Ok(Ran {
            problem,
            output: String::from_utf8_lossy(end.kept.make_contiguous()).trim().to_owned(),
            dropped: end.dropped,
        })
    }
}

/// The end of an output.
#[derive(Default)]
struct End {
    kept: VecDeque<u8>,
    dropped: u64,
}

impl End {
    fn push(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        let excess = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..excess);
        self.dropped = self.dropped.saturating_add(excess as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_output_is_kept_and_the_rest_counted() {
        let mut end = End::default();
        for _ in 0..3 {
            end.push(&[b'x'; KEPT]);
        }
        end.push(b"last");
        assert_eq!((end.kept.len(), end.dropped), (KEPT, 2 * KEPT as u64 + 4));
        assert!(end.kept.make_contiguous().ends_with(b"last"));
    }
}
