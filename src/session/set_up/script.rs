//! Runs a set-up script in its sandbox: secrets in its environment, time and output bounded, its output masked
//! before anything of it is cut off. Judges nothing but its exit.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use crate::gateway::Inside;
use crate::gateway::inside::Command;
use crate::secret::{Mask, Secret};
use crate::session::failure::Failure;
use crate::session::workspace;

/// Where the script is in the sandbox.
const SCRIPT: &str = "/home/agent/.cofferdam/set-up";
/// How much of its output's end is kept, in bytes.
const KEPT: usize = 8 * 1024;
/// More is not held back: nothing is that long and still only the beginning of a secret. Bytes.
const MOST_HELD: usize = 256 * 1024;
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
    /// Whether that is its time limit.
    pub(super) is_late: bool,
    /// The end of its output, masked.
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
        let mut end = End::new(Mask::new(self.secrets.iter().map(|(_, secret)| secret)));
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
        let is_late = exit.is_err();
        let problem = match exit {
            Ok(exit) if exit.is_success() => None,
            Ok(exit) => Some(format!(
                "ended with status {}: mend it; the warning set_up_output has the end of what it wrote",
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
            is_late,
            output: end.finish(),
            dropped: end.dropped,
        })
    }
}

/// The end of an output. Masked first and cut then, so that no secret loses its beginning and stands there unknown.
struct End {
    mask: Mask,
    /// What may be the beginning of a secret.
    held: Vec<u8>,
    kept: VecDeque<u8>,
    dropped: u64,
}

impl End {
    fn new(mask: Mask) -> Self {
        Self {
            mask,
            held: Vec::new(),
            kept: VecDeque::new(),
            dropped: 0,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        let settled = match self.mask.settled_bytes(&self.held) {
            settled if self.held.len() - settled > MOST_HELD => self.held.len(),
            settled => settled,
        };
        let rest = self.held.split_off(settled);
        let settled = std::mem::replace(&mut self.held, rest);
        self.keep(&settled);
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend(self.mask.apply_bytes(bytes));
        let excess = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..excess);
        self.dropped = self.dropped.saturating_add(excess as u64);
    }

    /// The text that is kept.
    fn finish(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        self.keep(&held);
        String::from_utf8_lossy(self.kept.make_contiguous()).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_output_is_kept_and_the_rest_counted() {
        let mut end = End::new(Mask::default());
        for _ in 0..3 {
            end.push(&[b'x'; KEPT]);
        }
        end.push(b"last");
        assert!(end.finish().ends_with("last"));
        assert_eq!((end.kept.len(), end.dropped), (KEPT, 2 * KEPT as u64 + 4));
    }

    #[test]
    fn a_secret_through_which_the_output_is_cut_is_masked_as_a_whole() {
        let value: String = ('a'..='z')
            .chain('A'..='Z')
            .chain('0'..='9')
            .collect::<String>()
            .repeat(20);
        let secret = Secret::new(&value);
        for after in [KEPT - value.len() / 2, KEPT - 1, KEPT - value.len() + 1, 0] {
            for piece in [7, 1000, 100_000] {
                let mut end = End::new(Mask::new([&secret]));
                let text = format!("{}{value}{}", "-".repeat(3 * KEPT), "=".repeat(after));
                text.as_bytes().chunks(piece).for_each(|bytes| end.push(bytes));
                let said = end.finish();
                assert!(!said.contains(['a', 'Z', '9']), "{after} {piece}: {said}");
                assert!(
                    said.len() <= KEPT && said.ends_with(&"=".repeat(after)),
                    "{after} {piece}"
                );
            }
        }
    }
}
