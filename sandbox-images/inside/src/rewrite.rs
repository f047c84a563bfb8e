//! `inside trailers`: adds the session's trailers, and its identity, to the commits of the current branch that the
//! forge does not have yet. Trees and merges stay exactly as they are, the index and the work tree are not touched, and
//! the branch moves only if nobody else moved it meanwhile. It never touches a commit that a remote-tracking ref reaches.

mod commit;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::git::{Comments, Git, GitError, add_arguments, session_trailers};
use commit::Commit;

/// More new commits than this are no work of one session.
const MAX_COMMITS: usize = 50_000;

/// What the arguments ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Another directory than the current one.
    pub(crate) repository: Option<PathBuf>,
    /// Whether a commit keeps an author other than the configured one.
    pub(crate) keep_authors: bool,
}

/// Why nothing was rewritten.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RewriteError {
    /// Not within a session.
    #[error("there are no trailers for this session, so there is nothing to add")]
    FindTrailers,
    /// No branch to rewrite.
    #[error(
        "HEAD is detached: switch to the branch whose commits should get the trailers, or finish the rebase, then try again"
    )]
    FindBranch,
    /// Its other parent could be a commit that is replaced.
    #[error("a merge, cherry-pick or revert is under way: finish or abort it, then try again")]
    CheckPending,
    /// A missing base, most likely.
    #[error("more than {MAX_COMMITS} commits are not on the forge; is origin fetched?")]
    CountCommits,
    /// No name or e-mail for the session.
    #[error("there is no identity to commit as (user.name and user.email)")]
    FindIdentity(#[source] GitError),
    /// An object that is not as git writes it.
    #[error("the commit {0} could not be understood")]
    ParseCommit(String),
    /// Somebody else was faster.
    #[error("the branch moved meanwhile; nothing was changed, try again")]
    MoveBranch(#[source] GitError),
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// What was done, as a sentence.
#[derive(Debug)]
pub(crate) struct Done {
    branch: String,
    seen: usize,
    trailers: usize,
    identities: usize,
    rewritten: usize,
    moved: Option<(String, String)>,
}

impl fmt::Display for Done {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            branch,
            seen,
            trailers,
            identities,
            rewritten,
            moved,
        } = self;
        match moved {
            None => write!(
                formatter,
                "{branch}: {seen} new commits, all of them as they should be; nothing changed"
            ),
            Some((old, new)) => write!(
                formatter,
                "{branch}: rewrote {rewritten} of {seen} new commits (trailers added to {trailers}, identity set on \
                 {identities}); moved from {old} to {new}"
            ),
        }
    }
}

/// Rewrites what has to be rewritten.
pub(crate) fn run(options: &Options) -> Result<Done, RewriteError> {
    let git = Git::within(options.repository.clone());
    let trailers = session_trailers(&git)?
        .filter(|trailers| !trailers.is_empty())
        .ok_or(RewriteError::FindTrailers)?;
    git.run(&["rev-parse", "--git-dir"], b"")?;
    let branch = git.ask(&["symbolic-ref", "--quiet", "HEAD"], b"")?;
    if !branch.success {
        return Err(RewriteError::FindBranch);
    }
    let branch = line(&branch.stdout);
    for pending in ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD"] {
        if git.ask(&["rev-parse", "--quiet", "--verify", pending], b"")?.success {
            return Err(RewriteError::CheckPending);
        }
    }
    let mut done = Done {
        branch: branch.clone(),
        seen: 0,
        trailers: 0,
        identities: 0,
        rewritten: 0,
        moved: None,
    };
    let head = git.ask(&["rev-parse", "--quiet", "--verify", "HEAD^{commit}"], b"")?;
    if !head.success {
        // No commit yet.
        return Ok(done);
    }
    let head = line(&head.stdout);
    let commits = new_commits(&git, &head)?;
    let rewriter = Rewriter {
        identity: Identity::configured(&git)?,
        git,
        trailers,
        keep_authors: options.keep_authors,
    };
    let mut replaced: HashMap<String, String> = HashMap::new();
    for id in &commits {
        done.seen += 1;
        if let Some((new, what)) = rewriter.rewrite(id, &replaced)? {
            done.rewritten += 1;
            done.trailers += usize::from(what.trailers);
            done.identities += usize::from(what.identity);
            replaced.insert(id.clone(), new);
        }
    }
    if let Some(new) = replaced.remove(&head) {
        let moving = [
            "update-ref",
            "-m",
            "inside trailers: add the session's trailers",
            &branch,
            &new,
            &head,
        ];
        rewriter.git.run(&moving, b"").map_err(RewriteError::MoveBranch)?;
        done.moved = Some((head, new));
    }
    Ok(done)
}

/// Parents before children.
fn new_commits(git: &Git, head: &str) -> Result<Vec<String>, RewriteError> {
    let limit = format!("--max-count={}", MAX_COMMITS + 1);
    let listed = git.run(
        &["rev-list", "--topo-order", &limit, head, "--not", "--remotes=origin"],
        b"",
    )?;
    let mut commits: Vec<String> = String::from_utf8_lossy(&listed).lines().map(str::to_owned).collect();
    if commits.len() > MAX_COMMITS {
        return Err(RewriteError::CountCommits);
    }
    commits.reverse();
    Ok(commits)
}

/// `Name <e-mail>` of each role.
#[derive(Debug)]
struct Identity {
    author: Vec<u8>,
    committer: Vec<u8>,
}

impl Identity {
    fn configured(git: &Git) -> Result<Self, RewriteError> {
        let ask = |variable: &str| {
            let ident = git
                .run(&["-c", "user.useConfigOnly=true", "var", variable], b"")
                .map_err(RewriteError::FindIdentity)?;
            let (identity, _) =
                commit::split_ident(&ident).ok_or_else(|| RewriteError::ParseCommit(variable.to_owned()))?;
            Ok::<_, RewriteError>(identity.to_vec())
        };
        Ok(Self {
            author: ask("GIT_AUTHOR_IDENT")?,
            committer: ask("GIT_COMMITTER_IDENT")?,
        })
    }
}

/// What was changed of one commit, beside its parents.
#[derive(Debug, Default)]
struct Changed {
    trailers: bool,
    identity: bool,
}

#[derive(Debug)]
struct Rewriter {
    git: Git,
    trailers: Vec<OsString>,
    identity: Identity,
    keep_authors: bool,
}

impl Rewriter {
    /// Writes a commit's replacement where it needs one.
    fn rewrite(&self, id: &str, replaced: &HashMap<String, String>) -> Result<Option<(String, Changed)>, RewriteError> {
        let raw = self.git.run(&["cat-file", "commit", id], b"")?;
        let mut commit = Commit::parse(&raw).ok_or_else(|| RewriteError::ParseCommit(id.to_owned()))?;
        let parents = commit.replace_parents(replaced);
        let mut changed = Changed::default();
        if self.missing(&commit.message) {
            commit.message = self.with_trailers(&commit.message)?;
            changed.trailers = true;
        }
        if commit.committer() != Some(&self.identity.committer) {
            commit.set_committer(&self.identity.committer);
            if !self.keep_authors {
                commit.set_author(&self.identity.author);
            }
            changed.identity = true;
        }
        if !(parents || changed.trailers || changed.identity) {
            return Ok(None);
        }
        commit.drop_signatures();
        let written = self
            .git
            .run(&["hash-object", "-t", "commit", "-w", "--stdin"], &commit.format())?;
        Ok(Some((line(&written), changed)))
    }

    fn missing(&self, message: &[u8]) -> bool {
        let trailers = self.trailers.iter().map(|trailer| trailer.as_bytes());
        cofferdam_inside::missing_trailer(message, trailers).is_some()
    }

    fn with_trailers(&self, message: &[u8]) -> Result<Vec<u8>, RewriteError> {
        // A commit's message has no comments any more, and no scissors: above a line that looks like them the trailers would not be last.
        // Exactly one newline at the end: without it git takes the last line and the trailers for one paragraph, and
        // empty lines would come after them.
        let mut message = message.to_vec();
        while message.ends_with(b"\n") {
            message.pop();
        }
        message.push(b'\n');
        let mut added = self
            .git
            .run(&add_arguments(&self.trailers, Comments::AreText), &message)?;
        // Git reads some odd messages otherwise than the rule (a space before the colon, an empty line that has a carriage return), and
        // then sees no need or another block. A paragraph of their own is right by both.
        if self.missing(&added) {
            added = message;
            for trailer in &self.trailers {
                added.push(b'\n');
                added.extend_from_slice(trailer.as_bytes());
            }
            added.push(b'\n');
        }
        Ok(added)
    }
}

fn line(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim().to_owned()
}
