//! Sums up what was staged, in a child process: commits and changed files since the base, as JSON on the output.
//!
//! Bounded in what it says; what it may use is bounded by the limits it takes on first. Never checks anything out and follows no attributes.

use std::io::Write;
use std::path::Path;

use git2::{Delta, DiffOptions, Oid, Patch, Repository};

use crate::repository::inspect::{
    ChangedFile, FileStatus, Inspection, LONGEST_BODY, LONGEST_PATH, LONGEST_SUBJECT, MOST_COMMITS, MOST_COUNTED,
    MOST_FILES, StagedCommit,
};

/// Files above this are not compared line by line.
const LARGEST_COMPARED: i64 = 2 * 1024 * 1024;

pub(super) fn run(directory: &Path, head: &str, detail: &str, output: &mut impl Write) -> Result<(), String> {
    let policy = super::enter(directory)?;
    let inspection = survey(directory, policy.base_commit.as_str(), head, detail == "full")
        .map_err(|error| error.message().to_owned())?;
    serde_json::to_writer(&mut *output, &inspection).map_err(|error| error.to_string())?;
    output.flush().map_err(|error| error.to_string())
}

fn survey(directory: &Path, base: &str, head: &str, full: bool) -> Result<Inspection, git2::Error> {
    let repository = super::open(directory)?;
    let (base, head) = (Oid::from_str(base)?, Oid::from_str(head)?);
    let mut inspection = Inspection::default();
    let mut walk = repository.revwalk()?;
    walk.push(head)?;
    walk.hide(base)?;
    for id in walk {
        let id = id?;
        if inspection.ahead >= MOST_COUNTED {
            inspection.truncated = true;
            break;
        }
        inspection.ahead += 1;
        if full && inspection.commits.len() < MOST_COMMITS {
            inspection.commits.push(commit(&repository, id)?);
        } else if full {
            inspection.truncated = true;
        }
    }
    if full {
        files(&repository, base, head, &mut inspection)?;
    }
    Ok(inspection)
}

fn commit(repository: &Repository, id: Oid) -> Result<StagedCommit, git2::Error> {
    let commit = repository.find_commit(id)?;
    let message = commit.message_bytes();
    let (subject, body) = match message.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&message[..end], &message[end..]),
        None => (message, &[][..]),
    };
    Ok(StagedCommit {
        id: id
            .to_string()
            .parse()
            .map_err(|_| git2::Error::from_str("a commit has an id of another kind"))?,
        subject: text(subject, LONGEST_SUBJECT),
        body: text(body.trim_ascii(), LONGEST_BODY),
        author: text(commit.author().name_bytes(), LONGEST_SUBJECT),
    })
}

/// What a change request will show: from where the branch left the base.
fn files(repository: &Repository, base: Oid, head: Oid, inspection: &mut Inspection) -> Result<(), git2::Error> {
    let fork = repository.merge_base(base, head)?;
    let (old, new) = (
        repository.find_commit(fork)?.tree()?,
        repository.find_commit(head)?.tree()?,
    );
    let mut options = DiffOptions::new();
    options
        .max_size(LARGEST_COMPARED)
        .ignore_submodules(true)
        .context_lines(0);
    let diff = repository.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options))?;
    for index in 0..diff.deltas().len() {
        if index >= MOST_FILES {
            inspection.truncated = true;
            break;
        }
        let Some(delta) = diff.get_delta(index) else {
            break;
        };
        let path = delta
            .new_file()
            .path_bytes()
            .or_else(|| delta.old_file().path_bytes())
            .unwrap_or_default();
        let (added, deleted) = match Patch::from_diff(&diff, index)? {
            Some(patch) => {
                let (_, added, deleted) = patch.line_stats()?;
                (added, deleted)
            }
            None => (0, 0),
        };
        inspection.files.push(ChangedFile {
            path: text(path, LONGEST_PATH),
            status: match delta.status() {
                Delta::Added => FileStatus::Added,
                Delta::Deleted => FileStatus::Deleted,
                Delta::Modified
                | Delta::Unmodified
                | Delta::Renamed
                | Delta::Copied
                | Delta::Ignored
                | Delta::Untracked
                | Delta::Typechange
                | Delta::Unreadable
                | Delta::Conflicted => FileStatus::Modified,
            },
            added: u32::try_from(added).unwrap_or(u32::MAX),
            deleted: u32::try_from(deleted).unwrap_or(u32::MAX),
        });
    }
    Ok(())
}

fn text(bytes: &[u8], longest: usize) -> String {
    String::from_utf8_lossy(bytes).chars().take(longest).collect()
}
