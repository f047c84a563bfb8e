//! The diff of a change request, taken with git: for an agent that is to read it, whole or saying what is missing.
//!
//! Fetched with the user's token into a bare repository of this session that builds on the session's own objects. It is never mounted,
//! never served and never pushed from. What is fetched may be a stranger's (a fork): git reads it with limits, without a file tree, and
//! without anything of theirs being run. Never shows a part as the whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::git::{Credential, Finished, Invocation, Limits};
use super::remote::{self, Access};
use super::{Repositories, RepositoryError, Shared, Staging, bare, blocking, mirror, policy, staging};
use crate::grant::ProjectGrant;
use crate::message::{BranchName, CommitId, ForgeKind};

mod raw;

use raw::{Entry, Hunks, Side};

/// The directory beside the session's object store.
const DIRECTORY: &str = "changes";
/// How long an agent is kept waiting for a fetch. The forge's API answers in its place after that.
const FETCHING: Duration = Duration::from_secs(120);
/// Longest list of changed files, in bytes: some 100,000 files.
const LARGEST_LIST: usize = 16 * 1024 * 1024;
/// Longest diff of one file, in bytes. More than that nobody reads in a tool's answer.
const LARGEST_FILE: usize = 256 * 1024;
/// Most files of one answer: one small git process each.
const MOST_FILES: usize = 100;

/// Which part of which diff.
#[derive(Debug, Clone)]
pub struct DiffRequest {
    /// The change request's number.
    pub number: u64,
    /// Its head as the forge's API tells it; what the forge's git has when absent.
    pub head: Option<CommitId>,
    /// Where its diff starts, as the API tells it; where it left the target branch when absent.
    pub base: Option<CommitId>,
    /// The branch that it merges into.
    pub target: Option<BranchName>,
    /// Only this file, or the files below this directory.
    pub path: Option<String>,
    /// How many files to pass over.
    pub skip: usize,
    /// How many files to show.
    pub most: usize,
}

/// Files of a diff, in git's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeDiff {
    /// The commit that the diff starts from: where both sides last agreed.
    pub base: CommitId,
    /// The commit that it leads to.
    pub head: CommitId,
    /// How many files differ, of those asked for.
    pub total: usize,
    /// The files asked for.
    pub files: Vec<FileDiff>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDiff {
    /// Its path after the change.
    pub path: String,
    /// Its path before, where that was another.
    pub old_path: Option<String>,
    /// What happened to it.
    pub change: FileChange,
    /// What differs; never empty.
    pub diff: Result<String, NoDiff>,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has another name.
    Renamed,
    /// It has other content, or another mode.
    Modified,
}

/// Why a file's diff is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoDiff {
    /// It is no text.
    Binary,
    /// It is longer than is read.
    TooLarge,
}

/// Reads diffs for one project of one session.
#[derive(Debug)]
pub struct DiffReader {
    shared: Arc<Shared>,
    directory: PathBuf,
    project: ProjectGrant,
    /// One at a time: two fetches of one reference would stand in each other's way.
    turn: tokio::sync::Mutex<()>,
}

impl Repositories {
    /// A reader of the diffs of a project's change requests, which builds on what the session has of it. Costs nothing until it is used.
    #[must_use]
    pub fn diffs(&self, staging: &Staging, project: &ProjectGrant) -> DiffReader {
        DiffReader {
            shared: Arc::clone(&self.shared),
            directory: staging.directory.join(DIRECTORY),
            project: project.clone(),
            turn: tokio::sync::Mutex::new(()),
        }
    }
}

impl DiffReader {
    /// The diff of one change request. Fetches what is not here yet.
    ///
    /// # Errors
    /// The forge's refusals, a head or base that git cannot be given, time. Then the forge's API may still know.
    pub async fn read(&self, request: &DiffRequest, access: &Access) -> Result<ChangeDiff, RepositoryError> {
        let _turn = self.turn.lock().await;
        self.prepare().await?;
        let head = self.head(request, access).await?;
        let base = self.base(request, &head, access).await?;
        let listing = self.git("list what a change request changes").arguments([
            "diff",
            "--raw",
            "-z",
            "--no-abbrev",
            "--no-ext-diff",
            "--no-textconv",
            "--no-color",
            "-M",
            base.as_str(),
            head.as_str(),
            "--",
        ]);
        let listed = self.run(listing.largest_output(LARGEST_LIST)).await?;
        let entries = raw::entries(&listed.stdout).ok_or_else(|| failed("git's list of files does not read"))?;
        let wanted: Vec<Entry> = entries
            .into_iter()
            .filter(|entry| request.path.as_deref().is_none_or(|path| entry.is_below(path)))
            .collect();
        let total = wanted.len();
        let mut files = Vec::new();
        for entry in wanted.into_iter().skip(request.skip).take(request.most.min(MOST_FILES)) {
            let diff = self.file(&entry).await?;
            files.push(FileDiff {
                change: match entry.status {
                    b'A' | b'C' => FileChange::Added,
                    b'D' => FileChange::Removed,
                    b'R' => FileChange::Renamed,
                    _ => FileChange::Modified,
                },
                path: entry.path,
                old_path: entry.old_path,
                diff,
            });
        }
        Ok(ChangeDiff {
            base,
            head,
            total,
            files,
        })
    }

    /// Makes the repository, and makes it anew when it has grown too large: change requests of forks may bring anything.
    async fn prepare(&self) -> Result<(), RepositoryError> {
        let (directory, head) = (self.directory.clone(), self.project.default_branch.clone());
        let largest = self.shared.config.largest_staging;
        let grown = {
            let directory = directory.clone();
            blocking(move || Ok(size_of_packs(&directory) > largest)).await?
        };
        if grown {
            staging::remove_directory(directory.clone()).await?;
        }
        let made = directory.clone();
        blocking(move || {
            bare::write_bare(&made, mirror::SETTINGS, &head)?;
            let alternates = format!("../../{}/objects\n", policy::STORE);
            bare::write_if_different(&made.join("objects/info/alternates"), alternates.as_bytes())
        })
        .await?;
        // What an added or removed file is compared with.
        let empty = self
            .git("write an empty file's object")
            .arguments(["hash-object", "-w", "--stdin"]);
        self.run(empty).await.map(|_| ())
    }

    /// The head commit: as the API tells it, if git has it; else what the forge's reference names.
    async fn head(&self, request: &DiffRequest, access: &Access) -> Result<CommitId, RepositoryError> {
        let name = format!("refs/changes/{}", request.number);
        if let Some(head) = &request.head
            && self.commit(&name).await?.as_ref() == Some(head)
        {
            return Ok(head.clone());
        }
        let from = change_request_ref(self.project.forge, request.number);
        self.fetch(&format!("+{from}:{name}"), access).await?;
        let found = self
            .commit(&name)
            .await?
            .ok_or_else(|| failed("the forge gave no head commit"))?;
        match &request.head {
            // The forge's two halves may be a moment apart; a diff of another head than the one told would mislead.
            Some(head) if *head != found => match self.commit(head.as_str()).await? {
                Some(head) => Ok(head),
                None => Err(failed("the forge's git does not have the head commit yet")),
            },
            Some(_) | None => Ok(found),
        }
    }

    /// The commit that the diff starts from: the last one that head and base share.
    async fn base(&self, request: &DiffRequest, head: &CommitId, access: &Access) -> Result<CommitId, RepositoryError> {
        if let Some(base) = &request.base
            && let Some(shared) = self.merge_base(base.as_str(), head).await?
        {
            return Ok(shared);
        }
        let target = request
            .target
            .as_ref()
            .ok_or_else(|| failed("the forge tells neither base nor target branch"))?;
        let name = format!("refs/targets/{}", request.number);
        self.fetch(&format!("+refs/heads/{target}:{name}"), access).await?;
        let from = request.base.as_ref().map_or(name.as_str(), CommitId::as_str);
        self.merge_base(from, head)
            .await?
            .ok_or_else(|| failed("head and base share no commit that git was given"))
    }

    async fn merge_base(&self, base: &str, head: &CommitId) -> Result<Option<CommitId>, RepositoryError> {
        let asked = self
            .git("find where a change request begins")
            .arguments(["merge-base", base, head.as_str()]);
        Ok(id(&self.shared.git.run(asked).await?))
    }

    async fn commit(&self, name: &str) -> Result<Option<CommitId>, RepositoryError> {
        let name = format!("{name}^{{commit}}");
        let asked =
            self.git("look up a commit")
                .arguments(["rev-parse", "--verify", "--quiet", "--end-of-options", &name]);
        Ok(id(&self.shared.git.run(asked).await?))
    }

    async fn fetch(&self, refspec: &str, access: &Access) -> Result<(), RepositoryError> {
        let config = &self.shared.config;
        let address = remote::address(&self.project.clone_url)?;
        let credential = Credential::new(access, &address)?;
        let limit = FETCHING.min(Duration::from_secs(config.fetch_timeout_s));
        let limits = Limits {
            memory: config.git_memory,
            heap: config.git_memory,
            file: config.largest_push,
            processor_s: limit.as_secs().saturating_mul(2).max(1),
        };
        let invocation = Invocation::new("fetch a change request", limit)
            .on(&self.directory)
            .arguments([
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-auto-maintenance",
                "--no-recurse-submodules",
                "--",
                address.as_str(),
                refspec,
            ])
            .limits(limits)
            .network(credential, access.ca_file.clone(), access.mask());
        let finished = self.shared.git.run(invocation).await?;
        if finished.success() {
            Ok(())
        } else {
            Err(remote::failure(&finished.stderr).unwrap_or_else(|| failed(&remote::shortened(&finished.stderr))))
        }
    }

    /// What differs in one file: lines about its mode, then its hunks.
    async fn file(&self, entry: &Entry) -> Result<Result<String, NoDiff>, RepositoryError> {
        let mut text = entry.about();
        let (before, after) = (entry.before.as_ref(), entry.after.as_ref());
        if before.map(|side| &side.id) == after.map(|side| &side.id) {
            return Ok(Ok(text));
        }
        let submodule = |side: Option<&Side>| side.is_some_and(Side::is_submodule);
        if let Some(side) = before.filter(|side| side.is_submodule()) {
            text.push_str(&format!("-Subproject commit {}\n", side.id));
        }
        if let Some(side) = after.filter(|side| side.is_submodule()) {
            text.push_str(&format!("+Subproject commit {}\n", side.id));
        }
        let blob = |side: Option<&Side>| match side {
            Some(side) if !side.is_submodule() => side.id.clone(),
            Some(_) | None => EMPTY.to_owned(),
        };
        let (old, new) = (blob(before), blob(after));
        if old == new {
            return Ok(Ok(text));
        }
        let comparing = self
            .git("compare two versions of a file")
            .arguments([
                "diff",
                "--no-ext-diff",
                "--no-textconv",
                "--no-color",
                "--end-of-options",
                &old,
                &new,
            ])
            .largest_output(LARGEST_FILE);
        let compared = match self.run(comparing).await {
            Ok(compared) => compared,
            Err(RepositoryError::Answer { .. }) => return Ok(Err(NoDiff::TooLarge)),
            Err(error) => return Err(error),
        };
        match raw::hunks(&compared.stdout) {
            Some(Hunks::Text(hunks)) => {
                text.push_str(&hunks);
                Ok(Ok(text))
            }
            Some(Hunks::Binary) if submodule(before) || submodule(after) => Ok(Ok(text)),
            Some(Hunks::Binary) => Ok(Err(NoDiff::Binary)),
            None => Err(failed("git compared two versions of a file and said nothing")),
        }
    }

    fn git(&self, act: &'static str) -> Invocation {
        let config = &self.shared.config;
        Invocation::new(act, Duration::from_secs(config.inspect_timeout_s))
            .on(&self.directory)
            .limits(Limits {
                memory: config.git_memory,
                heap: config.git_memory,
                file: config.largest_push,
                processor_s: config.inspect_timeout_s.max(1),
            })
    }

    async fn run(&self, invocation: Invocation) -> Result<Finished, RepositoryError> {
        let finished = self.shared.git.run(invocation).await?;
        if finished.success() {
            Ok(finished)
        } else {
            Err(failed(&remote::shortened(&finished.stderr)))
        }
    }
}

/// The object of an empty file, where objects are named by SHA-1, as in every repository of this room.
const EMPTY: &str = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";

/// What forges call the head of a change request, whosever repository its branch is in.
fn change_request_ref(forge: ForgeKind, number: u64) -> String {
    match forge {
        ForgeKind::Gitlab => format!("refs/merge-requests/{number}/head"),
        ForgeKind::Github => format!("refs/pull/{number}/head"),
    }
}

fn id(finished: &Finished) -> Option<CommitId> {
    let text = std::str::from_utf8(&finished.stdout).ok()?;
    finished.success().then(|| text.trim().parse().ok()).flatten()
}

fn failed(text: &str) -> RepositoryError {
    RepositoryError::Diff { text: text.to_owned() }
}

fn size_of_packs(repository: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(repository.join("objects/pack")) else {
        return 0;
    };
    entries
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}
