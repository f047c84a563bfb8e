//! git's `pre-receive` hook: looks at what a push brought, while it is still in quarantine, and says yes or why not.
//!
//! The rules are in [`push_check`](crate::repository::push_check); this file only reads objects for them. Anything unexpected is a refusal.

use std::io::{BufRead, Read as _, Write};
use std::path::{Path, PathBuf};

use git2::{ObjectType, Odb, Oid, Repository};

use super::trees::Trees;
use crate::grant::Trailers;
use crate::message::CommitId;
use crate::repository::policy::{self, Policy};
use crate::repository::push_check::{self, LONGEST_LIST, NewCommit, Refusal, Rules};

/// Longest tree object, in bytes: a directory of some 200,000 files. Trees are held in memory whole.
const LARGEST_TREE: u64 = 8 * 1024 * 1024;
/// Longest commit object: no message needs more, and all of it is held in memory.
const LARGEST_COMMIT: u64 = 1024 * 1024;

pub(super) fn run(input: impl BufRead, complaints: &mut impl Write) -> u8 {
    let verdict = read(input).and_then(|(policy, directory, list)| {
        let reference = policy.reference();
        decide(&policy, &directory, &list).map_err(|refused| match refused {
            // Whoever reads it finds rule, reference and remedy in it.
            Failure::Refused(refusal) => {
                let text = refusal.to_string();
                let named = text.contains(&reference);
                if named { text } else { format!("{reference}: {text}") }
            }
            Failure::Reading(error) if error.code() == git2::ErrorCode::NotFound => {
                Refusal::Incomplete { name: reference }.to_string()
            }
            Failure::Reading(error) => format!(
                "{reference}: what was pushed could not be read: {}. Look at the clone with `git fsck`, then `git push` again.",
                error.message()
            ),
        })
    });
    match verdict {
        Ok(()) => 0,
        Err(text) => {
            // A client that has gone is refused all the same.
            let _ = writeln!(complaints, "cofferdam: refused: {text}");
            1
        }
    }
}

/// git starts the hook inside the bare repository; the policy lies beside it, where no push can write.
fn read(input: impl BufRead) -> Result<(Policy, PathBuf, Vec<u8>), String> {
    let here = std::env::current_dir().map_err(|error| format!("the check has no directory: {error}"))?;
    let directory = here.parent().ok_or("the check runs in the wrong directory")?.to_owned();
    let policy = super::enter(&directory)?;
    let mut list = Vec::new();
    input
        .take(LONGEST_LIST as u64 + 1)
        .read_to_end(&mut list)
        .map_err(|error| format!("the list of references could not be read: {error}"))?;
    Ok((policy, directory, list))
}

pub(super) enum Failure {
    Refused(Refusal),
    Reading(git2::Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<git2::Error> for Failure {
    fn from(error: git2::Error) -> Self {
        Self::Reading(error)
    }
}

fn decide(policy: &Policy, directory: &Path, list: &[u8]) -> Result<(), Failure> {
    let (old, new) = push_check::check_updates(&push_check::parse_updates(list)?, &policy.reference())?;
    let repository = super::open(directory)?;
    if let Some(quarantine) = std::env::var_os("GIT_QUARANTINE_PATH") {
        let quarantine = quarantine
            .to_str()
            .ok_or_else(|| git2::Error::from_str("the quarantine's path is not text"))?;
        check_total(policy, directory)?;
        check_sizes(policy, directory, quarantine)?;
        repository.odb()?.add_disk_alternate(quarantine)?;
    }
    let (old_id, new_id) = (old.as_ref().map(oid).transpose()?, oid(&new)?);
    // A branch points at a commit, not at a tag of one.
    if repository.odb()?.read_header(new_id)?.1 != ObjectType::Commit {
        let name = policy.reference();
        return Err(Refusal::NotCommit { name }.into());
    }
    if let (Some(old), Some(old_id)) = (old, old_id)
        && old_id != new_id
        && !repository.graph_descendant_of(new_id, old_id)?
    {
        return Err(Refusal::Rewinds {
            name: policy.reference(),
            old,
        }
        .into());
    }
    let known = super::shown(&repository, directory)?;
    check_commits(policy, &repository, new_id, known.into_iter().chain(old_id))
}

fn oid(id: &CommitId) -> Result<Oid, git2::Error> {
    Oid::from_str(id.as_str())
}

/// All packs of the staging, the new one in its quarantine included.
fn check_total(policy: &Policy, directory: &Path) -> Result<(), Failure> {
    let mut size = 0_u64;
    let mut directories = vec![directory.join(policy::STAGING).join("objects")];
    while let Some(directory) = directories.pop() {
        let failed = |error: std::io::Error| git2::Error::from_str(&error.to_string());
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => directories.push(entry.path()),
                Ok(metadata) => size = size.saturating_add(metadata.len()),
                // Another push's quarantine may go while this one looks.
                Err(_) => {}
            }
        }
    }
    if size > policy.largest_staging {
        return Err(Refusal::TooMuch {
            size,
            largest: policy.largest_staging,
        }
        .into());
    }
    Ok(())
}

/// Every object of the push but those that git itself added to complete a thin pack: they are upstream's.
fn check_sizes(policy: &Policy, directory: &Path, quarantine: &str) -> Result<(), Failure> {
    let pushed = Odb::new()?;
    pushed.add_disk_alternate(quarantine)?;
    let known = Odb::new()?;
    let store = directory.join(policy::STORE).join("objects");
    known.add_disk_alternate(
        store
            .to_str()
            .ok_or_else(|| git2::Error::from_str("the store's path is not text"))?,
    )?;
    let mut found: Result<(), Failure> = Ok(());
    let mut count = 0_u64;
    pushed
        .foreach(|id| {
            count += 1;
            found = if count > policy.most_objects {
                let most = policy.most_objects;
                Err(Refusal::TooManyObjects { most }.into())
            } else {
                check_size(policy, &pushed, &known, *id)
            };
            found.is_ok()
        })
        // Stopping early is reported as an error, too: the one found comes first.
        .or_else(|error| if found.is_err() { Ok(()) } else { Err(error) })?;
    found
}

fn check_size(policy: &Policy, pushed: &Odb<'_>, known: &Odb<'_>, id: Oid) -> Result<(), Failure> {
    let (size, kind) = pushed.read_header(id)?;
    let largest = match kind {
        ObjectType::Commit | ObjectType::Tag => LARGEST_COMMIT.min(policy.largest_object),
        ObjectType::Tree => LARGEST_TREE.min(policy.largest_object),
        ObjectType::Blob | ObjectType::Any => policy.largest_object,
    };
    if size as u64 > largest && !known.exists(id) {
        if kind == ObjectType::Tree {
            return Err(Refusal::LargeDirectory {
                id: id.to_string(),
                size: size as u64,
                largest,
            }
            .into());
        }
        return Err(Refusal::LargeObject {
            id: id.to_string(),
            size: size as u64,
            largest,
        }
        .into());
    }
    Ok(())
}

fn check_commits(
    policy: &Policy,
    repository: &Repository,
    new: Oid,
    known: impl Iterator<Item = Oid>,
) -> Result<(), Failure> {
    let rules = Rules {
        trailers: Trailers::from_lines(policy.trailers.clone()),
        email: policy.email.clone(),
    };
    let mut trees = Trees::new(repository, policy.most_files);
    let mut walk = repository.revwalk()?;
    walk.push(new)?;
    for id in known {
        walk.hide(id)?;
    }
    for (count, id) in (0_u32..).zip(walk) {
        if count >= policy.most_commits {
            return Err(Refusal::TooManyCommits {
                most: policy.most_commits,
            }
            .into());
        }
        let commit = repository.find_commit(id?)?;
        let id = commit
            .id()
            .to_string()
            .parse()
            .map_err(|_| git2::Error::from_str("a commit has an id of another kind"))?;
        push_check::check_commit(
            &NewCommit {
                id: &id,
                message: commit.message_raw_bytes(),
                author: commit.author().email_bytes(),
                committer: commit.committer().email_bytes(),
                parents: commit.parent_count(),
            },
            &rules,
        )?;
        trees.check(&commit, &id)?;
    }
    Ok(())
}
