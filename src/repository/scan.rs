//! The search through what a session would publish, before it does: for credentials, and for what a reviewer should be told of.
//!
//! A child process without credentials reads the agent's objects and hands their new lines over; the search itself runs here, on plain
//! bytes, so the child never holds what is looked for. Bounded in bytes and time, and never silently: what could not be searched whole is an
//! error.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::BufReader;

use super::git::{Group, read_tail, start_reader};
use super::remote::shortened;
use super::{RepositoryError, Staging, internal};
use crate::message::CommitId;

pub(super) mod frame;
mod hidden;
mod random;
mod rules;
mod search;
#[cfg(test)]
mod tests;

pub use rules::{Allow, Match, Rules, RulesError};
pub use search::{Changed, Finding, Seen, Wanted};

/// What a finding leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The project's work is kept and not published.
    #[default]
    Block,
    /// It is published, with a warning event and a section in the change request. The session's own credentials are kept back all the same.
    Warn,
    /// Only the session's own credentials are looked for.
    Off,
}

/// The search for credentials.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What follows when something looks like a credential.
    pub mode: Mode,
    /// More rules, in a TOML file of the same form as the ones built in.
    pub rules: Option<PathBuf>,
    /// What is let through.
    pub allow: Allow,
    /// Most bytes of new lines of one project that are looked through; work that adds more is kept and not published.
    pub largest_bytes: u64,
    /// Time limit for one project, in seconds; after it the work is kept and not published.
    pub timeout_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Block,
            rules: None,
            allow: Allow::default(),
            largest_bytes: 512 * 1024 * 1024,
            timeout_s: 120,
        }
    }
}

impl Config {
    /// Compiles the rules, with those of the operator's file.
    ///
    /// # Errors
    /// A sentence that names the key, the file or the rule.
    pub fn compile(&self) -> Result<Rules, String> {
        let more = match &self.rules {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(|error| format!("session.secret_scan.rules {} cannot be read: {error}", path.display()))?,
            ),
            None => None,
        };
        Rules::new(more.as_deref(), &self.allow).map_err(|error| format!("session.secret_scan: {error}"))
    }
}

impl Staging {
    /// Looks through everything that publishing `head` would bring to the forge: the lines that each new commit adds, names of files,
    /// messages, authors. Ends early when there is more than enough.
    ///
    /// # Errors
    /// It could not be looked through whole: too much, too slow, unreadable. Then nothing is known.
    pub async fn search(&self, head: &CommitId, wanted: &Wanted, config: &Config) -> Result<Seen, RepositoryError> {
        let limit = Duration::from_secs(config.timeout_s);
        let searched = tokio::time::timeout(limit, self.search_to_end(head, wanted, config.largest_bytes));
        searched.await.unwrap_or_else(|_| {
            Err(RepositoryError::Scan {
                text: format!("it took longer than {} s", limit.as_secs()),
            })
        })
    }

    async fn search_to_end(&self, head: &CommitId, wanted: &Wanted, most: u64) -> Result<Seen, RepositoryError> {
        let failed = |text: String| RepositoryError::Scan { text };
        let most_bytes = most.to_string();
        let arguments = [
            internal::ADDED.as_ref(),
            self.directory.as_os_str(),
            head.as_str().as_ref(),
            most_bytes.as_ref(),
        ];
        let mut child = start_reader(&self.shared.internal, &arguments)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        // Declared after the child, so that on a drop the group is killed before anything could reap its leader.
        let mut group = Group::led_by(&child);
        let stdout = stdout.ok_or_else(|| failed("it has no output".to_owned()))?;
        let reading = read_pieces(BufReader::with_capacity(64 * 1024, stdout), wanted, most);
        let (read, complaint) = tokio::join!(
            async {
                let read = reading.await;
                if !matches!(&read, Ok(Read::Whole(_))) {
                    // It may write on without end.
                    group.kill();
                }
                read
            },
            read_tail(stderr)
        );
        let status = child.wait().await;
        group.disarm();
        match read.map_err(failed)? {
            Read::Enough(seen) => Ok(seen),
            Read::Whole(seen) if status.is_ok_and(|status| status.success()) => Ok(seen),
            Read::Whole(_) | Read::Cut => Err(failed(if complaint.trim().is_empty() {
                "the process that reads the commits ended too early".to_owned()
            } else {
                shortened(&complaint)
            })),
        }
    }
}

/// How the reading ended.
enum Read {
    /// Everything was looked at.
    Whole(Seen),
    /// There is more than enough already.
    Enough(Seen),
    /// Something is missing.
    Cut,
}

/// Looks at every piece.
async fn read_pieces(
    mut input: impl tokio::io::AsyncBufRead + Unpin,
    wanted: &Wanted,
    most: u64,
) -> Result<Read, String> {
    let mut search = search::Search::new(wanted.clone());
    let mut total = 0_u64;
    while let Some((header, bytes)) = frame::read(&mut input).await? {
        if header == frame::Header::End {
            return Ok(Read::Whole(search.finish()));
        }
        total = total.saturating_add(bytes.len() as u64);
        if total > most {
            return Err(format!("there is more of it than {most} bytes"));
        }
        // Patterns take processor time: off the threads that serve others.
        let looked = tokio::task::spawn_blocking(move || {
            let mut search = search;
            search.look(header, bytes).map(|()| search)
        });
        search = looked.await.map_err(|_| "the search failed".to_owned())??;
        if search.has_enough() {
            return Ok(Read::Enough(search.finish()));
        }
    }
    Ok(Read::Cut)
}
