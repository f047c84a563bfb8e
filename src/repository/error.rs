//! What can go wrong between a project on its forge and a session's own repository. Each text says what to do about it.
//!
//! Never holds a credential: everything that git or a forge said was masked and bounded before it got here.

use std::path::PathBuf;
use std::time::Duration;

use crate::message::{BranchName, CommitId};

/// A failure of the repository room.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The git program could not be started.
    #[error("cannot run {program:?}: {source}; install git 2.39 or later, or set `git` to its path")]
    StartGit {
        /// The program as configured.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The git program is older than what this room was written for, or not git.
    #[error("git says {found:?}; git 2.39 or later is needed")]
    GitVersion {
        /// What `git version` printed.
        found: String,
    },
    /// Something below the state directory could not be read or written.
    #[error("cannot {act} {path:?}: {source}; look at the disk and at the owner of the state directory")]
    State {
        /// What was tried.
        act: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The clone address is not a plain HTTP address.
    #[error(
        "the clone address {address:?} cannot be used: it must be http or https, without user, password, query or fragment"
    )]
    Address {
        /// The address, without anything that could be a password.
        address: String,
    },
    /// The credential cannot be handed to git.
    #[error(
        "the credential cannot be handed to git: it is empty or contains a control character; check how it was sealed"
    )]
    Credential,
    /// Another refresh of the same mirror did not end in time.
    #[error("the mirror was in use for {} s; try again", waited.as_secs())]
    MirrorBusy {
        /// How long this one waited.
        waited: Duration,
    },
    /// A git process was ended because its time was over.
    #[error("git took longer than {} s to {act} and was ended; try again, or raise the limit", limit.as_secs())]
    Timeout {
        /// What it was doing.
        act: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// A git process said more than is read.
    #[error(
        "git answered with more than {limit} bytes while it was to {act}; there is more of it than this worker reads"
    )]
    Answer {
        /// What it was doing.
        act: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The forge refused the credential.
    #[error("the forge refused the credential: {text}; give a fresh token")]
    Authentication {
        /// What git and the forge said.
        text: String,
    },
    /// The forge knows the credential, but does not allow this.
    #[error(
        "the forge does not allow this with that token: {text}; give a token with the right scope, or ask for the role"
    )]
    Forbidden {
        /// What git and the forge said.
        text: String,
    },
    /// The forge shows no such project to this credential.
    #[error("the forge shows no such project to this token: {text}; check the path and the token's access")]
    NotFound {
        /// What git and the forge said.
        text: String,
    },
    /// The forge redirects elsewhere; a credential does not follow.
    #[error("the clone address redirects, and a token does not follow redirects: {text}; look the project up again")]
    Moved {
        /// What git and the forge said.
        text: String,
    },
    /// The forge's certificate is not trusted.
    #[error("the forge's certificate is not trusted: {text}; give the connection its CA")]
    Certificate {
        /// What git said.
        text: String,
    },
    /// The forge could not be reached, or was not able to answer.
    #[error("the forge did not answer as it should: {text}; try again later")]
    Unavailable {
        /// What git and the forge said.
        text: String,
    },
    /// The project is larger than may be fetched.
    #[error(
        "taking the project in was ended at a limit: it is larger than the {largest} bytes of `largest_fetch`, or took too much processor time"
    )]
    TooLarge {
        /// The limit in bytes.
        largest: u64,
    },
    /// The project could not be fetched for another reason.
    #[error("the project could not be fetched: {text}")]
    Fetch {
        /// What git and the forge said.
        text: String,
    },
    /// The project keeps files in git LFS.
    #[error(
        "the project keeps files in git LFS ({attributes} says so), which is not supported: their contents would be missing from the clone"
    )]
    Lfs {
        /// The attributes file.
        attributes: String,
    },
    /// The project has no commit.
    #[error("the project is empty; push a first commit to it")]
    Empty,
    /// The base branch is not among the branches that the token was shown.
    #[error("the project has no branch {branch}; name an existing one as `base`")]
    BaseNotFound {
        /// The branch asked for.
        branch: BranchName,
    },
    /// The mirror's housekeeping failed.
    #[error("the mirror could not be repacked: {text}")]
    Maintain {
        /// What git said.
        text: String,
    },
    /// All git processes that serve sandboxes are busy.
    #[error("the worker serves as many sandboxes as it may, and no turn came within {} s: try again", waited.as_secs())]
    ServeBusy {
        /// How long this one waited.
        waited: Duration,
    },
    /// All that may be pushed into a project was pushed.
    #[error("{refusal}")]
    StagingFull {
        /// The refusal, as the check of a push words it.
        refusal: super::push_check::Refusal,
    },
    /// A git service for the sandbox ended badly.
    #[error("git's service for the sandbox failed: {text}")]
    Serve {
        /// What git said.
        text: String,
    },
    /// What was staged could not be read.
    #[error("what was staged could not be inspected: {text}")]
    Inspect {
        /// What the child said.
        text: String,
    },
    /// git cannot give the diff of a change request.
    #[error("git cannot give the diff of the change request: {text}")]
    Diff {
        /// Why.
        text: String,
    },
    /// The forge refused the push.
    #[error("the forge refused the push: {text}")]
    PushRejected {
        /// git's own line about the branch, or all that it said.
        text: String,
        /// The forge's own words, line by line.
        remote: Vec<String>,
    },
    /// The branch on the forge is not where it was expected.
    #[error("the branch {branch} on the forge was moved by somebody else; read it again, it is never overwritten")]
    PushStale {
        /// The branch.
        branch: BranchName,
    },
    /// The commit to publish does not build on what the forge has.
    #[error("{} does not build on {}, which the forge has; history is never rewritten", head.short(), remote.short())]
    PushRewinds {
        /// What the forge has.
        remote: CommitId,
        /// What was to be published.
        head: CommitId,
    },
    /// A push option holds what git cannot carry.
    #[error("a push option holds a line break or a control character: {option:?}")]
    PushOption {
        /// The option, cut.
        option: String,
    },
    /// What would be published could not be looked through whole.
    #[error("the commits could not be searched for secrets: {text}")]
    Scan {
        /// What happened.
        text: String,
    },
    /// Nothing was staged, so there is nothing to keep.
    #[error("there is nothing to keep: no commit was staged")]
    NothingToKeep,
    /// The bundle could not be written or does not verify.
    #[error("the staged work could not be kept as a bundle: {text}")]
    Keep {
        /// What git said.
        text: String,
    },
}

impl RepositoryError {
    /// Whether the same call may succeed later without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::MirrorBusy { .. } | Self::ServeBusy { .. } | Self::Timeout { .. } | Self::Unavailable { .. } => true,
            Self::StartGit { .. }
            | Self::GitVersion { .. }
            | Self::State { .. }
            | Self::Address { .. }
            | Self::Credential
            | Self::Answer { .. }
            | Self::Authentication { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Moved { .. }
            | Self::Certificate { .. }
            | Self::TooLarge { .. }
            | Self::Fetch { .. }
            | Self::Empty
            | Self::Lfs { .. }
            | Self::BaseNotFound { .. }
            | Self::Maintain { .. }
            | Self::Serve { .. }
            | Self::StagingFull { .. }
            | Self::Inspect { .. }
            | Self::Diff { .. }
            | Self::Scan { .. }
            | Self::PushRejected { .. }
            | Self::PushStale { .. }
            | Self::PushRewinds { .. }
            | Self::PushOption { .. }
            | Self::NothingToKeep
            | Self::Keep { .. } => false,
        }
    }

    /// For `map_err` on file operations.
    pub(crate) fn state(act: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::State { act, path, source }
    }
}
