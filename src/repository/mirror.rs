//! The mirror: the worker's bare copy of a project, brought up to date with the token of the session that is about to use it.
//!
//! Never mounted, never served, never used for a session whose token was not just shown the project. One at a time: a lock file
//! is held from the first look until the session's objects are linked, also by the git processes in between.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use url::Url;

use super::bare;
use super::git::{Credential, Finished, Invocation, Limits};
use super::remote::{self, Access};
use super::{Config, RepositoryError, Shared, blocking};
use crate::grant::{ProjectGrant, ShownRef};
use crate::message::CommitId;
use crate::secret::Secret;

mod ask;
mod lfs;
mod lock;
mod ls_refs;
mod maintenance;
mod prepared;
mod take_in;

pub(super) use ask::Asker;
pub(super) use lfs::{Known, lfs_attributes};
#[cfg(feature = "fuzzing")]
pub(crate) use ls_refs::parse as shown_refs;
pub(super) use maintenance::{clear_interrupted, expire_all, maintain_all};
pub(super) use prepared::prepare_tree;
pub(super) use take_in::{Taken, take_in};

/// All objects are checked and stay in packs, so that linking a few files hands over everything. Three old flaws that harm nobody are let
/// through: real projects have them in their history.
pub(super) const SETTINGS: &str = "[fetch]\n\tfsckObjects = true\n\tunpackLimit = 1\n\twriteCommitGraph = false\n[transfer]\n\tunpackLimit = 1\n\
[fetch \"fsck\"]\n\tzeroPaddedFilemode = ignore\n\tbadTimezone = ignore\n\tmissingSpaceBeforeDate = ignore\n\
[fsck]\n\tzeroPaddedFilemode = ignore\n\tbadTimezone = ignore\n\tmissingSpaceBeforeDate = ignore\n";

/// A mirror that is up to date and stays so until this is dropped.
#[derive(Debug)]
pub struct Mirrored {
    /// The bare repository.
    pub(super) path: PathBuf,
    /// The references that the token was shown.
    refs: Vec<ShownRef>,
    /// The commit of the base branch.
    base: CommitId,
    /// The directory of what is quick to check out at that commit, which may not be there.
    prepared: PathBuf,
    /// What the refresh had to do.
    freshness: Freshness,
    /// Keeps other refreshes and housekeeping out.
    lock: fs::File,
}

impl Mirrored {
    /// The branches and tags that the token was shown.
    #[must_use]
    pub fn refs(&self) -> &[ShownRef] {
        &self.refs
    }

    /// The commit of the base branch.
    #[must_use]
    pub fn base(&self) -> &CommitId {
        &self.base
    }

    /// Where the base commit's tree is that is quick to check out, if it was made.
    pub(super) fn prepared(&self) -> &Path {
        &self.prepared
    }

    /// What the refresh had to do.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }
}

/// What a refresh had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing: the mirror had all that the forge shows.
    Hit,
    /// Fetch what was new.
    Updated,
    /// Make the mirror.
    Made,
}

impl Freshness {
    /// The word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Updated => "updated",
            Self::Made => "made",
        }
    }
}

/// Where one mirror lives.
#[derive(Debug, Clone)]
struct Place {
    directory: PathBuf,
}

impl Place {
    fn of(config: &Config, project: &ProjectGrant, access: &Access) -> Self {
        let mut key = Sha256::new();
        // Lengths keep two neighbouring fields from being read as other two.
        let mut add = |field: &str| {
            key.update(field.len().to_le_bytes());
            key.update(field.as_bytes());
        };
        add(&project.instance);
        add(&project.id);
        if config.mirror_per_user {
            add(&access.account);
        }
        Self {
            directory: config.mirrors().join(hex::encode(key.finalize())),
        }
    }

    fn repository(&self) -> PathBuf {
        self.directory.join("mirror.git")
    }

    fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    /// Its age tells when the mirror was last used.
    fn refreshed(&self) -> PathBuf {
        self.directory.join("refreshed")
    }

    /// Stands there while references change.
    fn fetching(&self) -> PathBuf {
        self.directory.join("fetching")
    }

    /// Trees that are quick to check out, each named by its commit.
    fn prepared(&self) -> PathBuf {
        self.directory.join("prepared")
    }

    /// Its age tells how long ago one was too large.
    fn unprepared(&self) -> PathBuf {
        self.directory.join("unprepared")
    }

    /// Held by whoever makes one.
    fn prepared_lock(&self) -> PathBuf {
        self.directory.join("prepared.lock")
    }

    /// Its age tells since when there may be objects that no reference reaches.
    fn unreachable(&self) -> PathBuf {
        self.directory.join("unreachable")
    }
}

/// What a forge showed a token a moment ago.
#[derive(Debug)]
pub struct Shown {
    address: Url,
    token: Secret,
    at: Instant,
    refs: Vec<ShownRef>,
}

/// For how long what was shown counts as what is shown.
const JUST_NOW: Duration = Duration::from_secs(10);

impl Shown {
    fn is_of(&self, address: &Url, access: &Access) -> bool {
        self.address == *address && self.token.expose() == access.token.expose() && self.at.elapsed() < JUST_NOW
    }
}

/// Asks before it is known which mirror this will be.
pub(super) async fn shown(shared: &Shared, clone_url: &str, access: &Access) -> Option<Shown> {
    let address = remote::address(clone_url).ok()?;
    let limit = Duration::from_secs(shared.config.fetch_timeout_s);
    let at = Instant::now();
    let refs = shared.asker.shown(&address, access, limit).await?;
    Some(Shown {
        address,
        token: access.token.clone(),
        at,
        refs,
    })
}

/// Brings the mirror of a project up to date with what this token is shown now. The forge is asked first what that is: most often it is what
/// the mirror has, and git is not needed.
pub(super) async fn refresh(
    shared: &Shared,
    project: &ProjectGrant,
    access: &Access,
    shown: Option<Shown>,
) -> Result<Mirrored, RepositoryError> {
    let address = remote::address(&project.clone_url)?;
    let place = Place::of(&shared.config, project, access);
    fs::create_dir_all(&place.directory).map_err(RepositoryError::state("make the directory", &place.directory))?;
    let limit = Duration::from_secs(shared.config.fetch_timeout_s);
    let lock = lock::acquire(&place.lock(), Instant::now() + limit).await?;

    let repository = place.repository();
    let existed = repository.join("HEAD").exists();
    prepare(&repository, project).await?;
    let before = bare::read_refs(&repository)?;
    // A refresh that was cut off left nobody knows what.
    let is_whole = existed && !place.fetching().exists() && is_packed(&repository).await?;
    let shown = match shown.filter(|shown| shown.is_of(&address, access)) {
        _ if !is_whole => None,
        Some(shown) => Some(shown.refs),
        None => shared.asker.shown(&address, access, limit).await,
    };
    // An empty project has words of its own, which git finds.
    let (refs, freshness) = if !before.is_empty() && shown.is_some_and(|shown| is_same(&shown, &before)) {
        (before, Freshness::Hit)
    } else {
        let made = if existed { Freshness::Updated } else { Freshness::Made };
        let fetched = fetch_whole(shared, (project, access), &place, (existed, before), &lock).await?;
        (fetched, made)
    };
    maintenance::when_urgent(shared, &place, &lock).await?;
    let base = base_of(&refs, project)?;
    bare::write_whole(&place.refreshed(), b"")?;
    let prepared = place.prepared().join(base.as_str());
    Ok(Mirrored {
        path: repository,
        prepared,
        refs,
        base,
        freshness,
        lock,
    })
}

/// Has git fetch what is new, and makes a mirror anew that is damaged. Takes whether there was a mirror, and what it had; says what it has now.
async fn fetch_whole(
    shared: &Shared,
    (project, access): (&ProjectGrant, &Access),
    place: &Place,
    (existed, before): (bool, Vec<ShownRef>),
    lock: &fs::File,
) -> Result<Vec<ShownRef>, RepositoryError> {
    let repository = place.repository();
    if maintenance::begin(place)? && existed && !place.unreachable().exists() {
        bare::write_whole(&place.unreachable(), b"")?;
    }
    let fetched = fetch(shared, &repository, project, access, lock).await;
    // What the forge does not explain may be damage of the mirror itself; git heals some of it, with complaints. Looked into once, and not
    // for a mirror that was just made.
    let suspect = match &fetched {
        Ok(complaints) => complaints.clone(),
        Err(RepositoryError::Fetch { text }) => Some(text.clone()),
        Err(_) => None,
    };
    match suspect {
        Some(text) if existed && !is_sound(shared, &repository, lock).await => {
            tracing::warn!(project = %project.key, %text, "the mirror is damaged and is made anew");
            discard(place).await?;
            prepare(&repository, project).await?;
            fetch(shared, &repository, project, access, lock).await?;
        }
        Some(_) | None => {
            if fetched.is_err() {
                // A git that was ended leaves its half pack, and nobody knows when the next refresh comes.
                let left = repository.clone();
                blocking(move || lock::clear_leftovers(&left)).await?;
            }
            fetched?;
        }
    }
    pack_refs(shared, &repository, lock).await?;
    let refs = bare::read_refs(&repository)?;
    maintenance::note_unreachable(shared, place, &before, &refs, lock).await?;
    maintenance::noted(place)?;
    Ok(refs)
}

/// Whether two lists name the same commits by the same names.
fn is_same(shown: &[ShownRef], before: &[ShownRef]) -> bool {
    let sorted = |refs: &[ShownRef]| -> BTreeMap<String, CommitId> {
        let pair = |shown: &ShownRef| (shown.name.clone(), shown.target.clone());
        refs.iter().map(pair).collect()
    };
    shown.len() == before.len() && sorted(shown) == sorted(before)
}

/// Whether all references are in the one file, and every pack has its index; a mirror that lost its packs has none.
async fn is_packed(repository: &Path) -> Result<bool, RepositoryError> {
    let repository = repository.to_owned();
    blocking(move || Ok(!bare::has_loose_refs(&repository)? && maintenance::has_packs(&repository)?)).await
}

/// Looks through all objects of a mirror, and removes it when it is damaged. Says whether it was.
pub(super) async fn discard_if_damaged(
    shared: &Shared,
    project: &ProjectGrant,
    access: &Access,
) -> Result<bool, RepositoryError> {
    let place = Place::of(&shared.config, project, access);
    let repository = place.repository();
    if !repository.exists() {
        return Ok(false);
    }
    let limit = Duration::from_secs(shared.config.fetch_timeout_s);
    let lock = lock::acquire(&place.lock(), Instant::now() + limit).await?;
    if is_sound(shared, &repository, &lock).await {
        return Ok(false);
    }
    discard(&place).await.map(|()| true)
}

fn base_of(refs: &[ShownRef], project: &ProjectGrant) -> Result<CommitId, RepositoryError> {
    if refs.is_empty() {
        return Err(RepositoryError::Empty);
    }
    let name = format!("refs/heads/{}", project.base);
    refs.iter()
        .find(|shown| shown.name == name)
        .map(|shown| shown.target.clone())
        .ok_or_else(|| RepositoryError::BaseNotFound {
            branch: project.base.clone(),
        })
}

/// Makes the repository, or clears what a killed git left in it. Only under the lock.
async fn prepare(repository: &Path, project: &ProjectGrant) -> Result<(), RepositoryError> {
    let (repository, head) = (repository.to_owned(), project.default_branch.clone());
    blocking(move || {
        if repository.exists() {
            lock::clear_leftovers(&repository)?;
        }
        bare::write_bare(&repository, SETTINGS, &head)
    })
    .await
}

async fn discard(place: &Place) -> Result<(), RepositoryError> {
    let place = place.clone();
    blocking(move || {
        let repository = place.repository();
        let removed =
            fs::remove_dir_all(&repository).map_err(RepositoryError::state("remove the directory", &repository));
        prepared::discard(&place);
        removed
    })
    .await
}

/// All branches and tags, and nothing else: no merge-request heads, no notes, no forge-internal references. A fetch that succeeds may
/// still have complaints about what is here.
async fn fetch(
    shared: &Shared,
    repository: &Path,
    project: &ProjectGrant,
    access: &Access,
    lock: &fs::File,
) -> Result<Option<String>, RepositoryError> {
    let address = remote::address(&project.clone_url)?;
    let credential = Credential::new(access, &address)?;
    let arguments = [
        "fetch",
        "--quiet",
        "--prune",
        "--no-tags",
        "--no-write-fetch-head",
        "--no-auto-maintenance",
        "--no-recurse-submodules",
        "--",
        address.as_str(),
        "+refs/heads/*:refs/heads/*",
        "+refs/tags/*:refs/tags/*",
    ];
    // A forge is not trusted with this machine's disk and memory.
    let limits = Limits {
        memory: shared.config.git_memory,
        heap: shared.config.git_memory,
        file: shared.config.largest_fetch,
        processor_s: shared.config.fetch_timeout_s.saturating_mul(2).max(1),
    };
    let invocation = Invocation::new("fetch the project", Duration::from_secs(shared.config.fetch_timeout_s))
        .on(repository)
        .arguments(arguments)
        .limits(limits)
        .network(credential, access.ca_file.clone(), access.mask());
    let finished = run_locked(shared, invocation, lock).await?;
    if finished.success() {
        let complains = finished.stderr.lines().any(|line| line.starts_with("error:"));
        return Ok(complains.then(|| remote::shortened(&finished.stderr)));
    }
    if was_cut_off(&finished.stderr) {
        return Err(RepositoryError::TooLarge {
            largest: shared.config.largest_fetch,
        });
    }
    Err(
        remote::failure(&finished.stderr).unwrap_or_else(|| RepositoryError::Fetch {
            text: remote::shortened(&finished.stderr),
        }),
    )
}

/// Whether the process that takes the pack in went without a word of its own: a limit ended it.
fn was_cut_off(stderr: &str) -> bool {
    let mut own = stderr.lines().filter(|line| !line.starts_with("remote:"));
    own.next()
        .is_some_and(|line| line.contains("invalid index-pack output"))
        && own.next().is_none()
}

/// One sorted file of references: quick to read, and copied whole for a session.
async fn pack_refs(shared: &Shared, repository: &Path, lock: &fs::File) -> Result<(), RepositoryError> {
    let invocation = Invocation::new("pack the references", Duration::from_secs(60))
        .on(repository)
        .arguments(["pack-refs", "--all"]);
    let finished = run_locked(shared, invocation, lock).await?;
    if finished.success() {
        Ok(())
    } else {
        Err(RepositoryError::Maintain {
            text: remote::shortened(&finished.stderr),
        })
    }
}

/// Whether all objects are there and can be read. Slow; asked only after a failure that the forge does not explain. A mirror of which
/// nothing could be found out is not thrown away.
async fn is_sound(shared: &Shared, repository: &Path, lock: &fs::File) -> bool {
    let limit = Duration::from_secs(shared.config.fetch_timeout_s);
    let invocation = Invocation::new("check the mirror", limit).on(repository).arguments([
        "fsck",
        "--no-dangling",
        "--no-progress",
        "--no-reflogs",
    ]);
    match run_locked(shared, invocation, lock).await {
        Ok(finished) => finished.success(),
        Err(error) => {
            tracing::warn!(%error, "the mirror could not be checked");
            true
        }
    }
}

/// Runs git with a share in the lock.
async fn run_locked(shared: &Shared, invocation: Invocation, lock: &fs::File) -> Result<Finished, RepositoryError> {
    let share = lock
        .try_clone()
        .map_err(RepositoryError::state("share the lock of", Path::new("the mirror")))?;
    shared.git.run(invocation.holding(share)).await
}
