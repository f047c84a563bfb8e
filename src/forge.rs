//! The seam to GitLab and GitHub: one thin client each, behind one trait.
//!
//! Never retries what could double an effect, never follows a redirect or a paging link to another host, never puts a token in a URL.
//! Everything that a forge answers is hostile until parsed.

mod address;
pub mod check;
mod clients;
mod error;
#[cfg(test)]
mod fake;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod github;
mod gitlab;
mod http;
pub mod inspect;
mod lenient;
#[cfg(test)]
mod recordings;
pub mod refusal;
mod text;
mod trust;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use crate::message::{BranchName, Capabilities, CommitId, ForgeKind, ProjectPath};
use crate::secret::Secret;

pub use clients::{Clients, instance};
pub use error::ForgeError;
pub use inspect::Inspect;
pub use refusal::{PushRefusal, classify};

/// By which address git reaches a project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloneBy {
    /// By the connection's own: an instance that does not know how it is reached from outside is common.
    #[default]
    Instance,
    /// By the one that the forge names for the project, where that is usable: for instances whose git has another host than their API.
    /// The token goes there.
    Project,
}

/// How the worker talks to forges.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Time limit of one API request, in seconds.
    pub request_timeout_s: u64,
    /// Addresses of instances that tasks may use; any `https` address when empty.
    pub allowed_urls: Vec<String>,
    /// Whether instances may be reached without TLS. For test forges on loopback only.
    pub allow_http: bool,
    /// Largest answer that is read, in bytes.
    pub largest_answer: usize,
    /// A PEM file whose certificates are trusted for every instance, beside the machine's own ones.
    pub ca_file: Option<PathBuf>,
    /// By which address git reaches a project.
    pub clone_by: CloneBy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            request_timeout_s: 30,
            allowed_urls: Vec::new(),
            allow_http: false,
            largest_answer: 8 * 1024 * 1024,
            ca_file: None,
            clone_by: CloneBy::Instance,
        }
    }
}

/// Of what kind a token is, found from the forge's answers: its first letters and its length are an administrator's choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// GitLab: a personal, project or group access token with scopes.
    Personal,
    /// GitLab: one whose rights are not in its scopes.
    Granular,
    /// GitHub: one with scopes.
    Classic,
    /// GitHub: one with permissions.
    FineGrained,
    /// GitHub: that of an App's installation, which is no user.
    AppInstallation,
    /// The forge does not say.
    #[default]
    Unknown,
}

/// What a token is and may do, as the forge itself says.
#[derive(Debug, Clone)]
pub struct TokenFacts {
    /// The account's user name; empty where the token may not tell.
    pub account: String,
    /// The account's number on the forge, which some tokens tell that may not tell its name.
    pub user_id: Option<u64>,
    /// The account's name as people write it.
    pub name: String,
    /// The e-mail address that the forge accepts as author and committer.
    pub email: String,
    /// The scopes' own names, where the forge tells them.
    pub scopes: Vec<String>,
    /// The day (or moment) the token ends, where the forge says so.
    pub expires: Option<String>,
    /// The same in seconds since 1970 (UTC): from then on it is refused.
    pub expires_at: Option<i64>,
    /// Of what kind it is.
    pub kind: TokenKind,
    /// What it may do.
    pub capabilities: Capabilities,
}

/// Who may see a project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody.
    Public,
    /// Everybody with an account on the instance, or in the enterprise.
    Internal,
    /// Its members; also where the forge does not tell, or tells something new.
    #[default]
    Private,
}

impl Visibility {
    /// What forges call it; anything else is private.
    #[must_use]
    pub fn of(word: Option<&str>) -> Self {
        match word {
            Some("public") => Self::Public,
            Some("internal") => Self::Internal,
            Some(_) | None => Self::Private,
        }
    }

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Private => "private",
        }
    }
}

/// What the worker needs to know of a project.
#[derive(Debug, Clone)]
pub struct ProjectFacts {
    /// The forge's own id; survives renames.
    pub id: String,
    /// The path as the forge spells it now.
    pub path: ProjectPath,
    /// The default branch; `None` for an empty repository.
    pub default_branch: Option<BranchName>,
    /// Where git clones it from.
    pub clone_url: String,
    /// Where a person looks at it.
    pub web_url: String,
    /// Whether this token's user may push there.
    pub may_push: bool,
    /// Whether it is archived.
    pub archived: bool,
    /// Who may see it.
    pub visibility: Visibility,
}

/// A change request to open, or the text to give an existing one.
#[derive(Debug, Clone)]
pub struct ChangeRequestText {
    /// The title, without any draft mark.
    pub title: String,
    /// The description.
    pub description: String,
    /// Whether it shall be a draft.
    pub draft: bool,
}

/// A change request as the forge knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRequest {
    /// Its number on the project.
    pub number: u64,
    /// Where a person looks at it.
    pub url: String,
    /// The branch it merges.
    pub source_branch: String,
    /// The branch it merges into.
    pub target_branch: String,
    /// The head commit, where the forge tells it already.
    pub head: Option<CommitId>,
    /// Its title as the forge stores it.
    pub title: String,
    /// Its description as the forge stores it.
    pub description: String,
    /// Whether it is open.
    pub open: bool,
    /// Whether it is a draft.
    pub draft: bool,
}

/// One forge instance with one user's token.
///
/// Call order: `token` first, `project` for each project, then the rest. Calls may run concurrently. `open_change_request` looks for an
/// open change request of the same branches and adopts it (title and description become those given; whether it is a draft stays
/// as people left it), so calling it twice leaves one. Every call is safe to drop: dropping
/// cancels the request, and whether its effect happened must then be read back.
#[async_trait]
pub trait Forge: Inspect {
    /// Which kind it is.
    fn kind(&self) -> ForgeKind;

    /// The instance's canonical address, without a trailing slash.
    fn instance(&self) -> &str;

    /// Asks what the token is and may do.
    async fn token(&self) -> Result<TokenFacts, ForgeError>;

    /// What the token may do on one project: what `token` left unproven is tried out where reading proves it, and stays unproven where
    /// only writing would. Nothing is changed, and nothing is asked when nothing is unproven.
    async fn probe(&self, project: &ProjectFacts) -> Capabilities;

    /// Looks up a project.
    async fn project(&self, path: &ProjectPath) -> Result<ProjectFacts, ForgeError>;

    /// The head of a branch; `None` when the branch does not exist.
    async fn branch_head(&self, project: &ProjectFacts, branch: &BranchName) -> Result<Option<CommitId>, ForgeError>;

    /// Opens a change request, or adopts and rewrites the open one of the same branches. Says which it did. `is_new`: the source branch was not
    /// there before, so none is expected, and it is looked for only if the forge says that there is one.
    async fn open_change_request(
        &self,
        project: &ProjectFacts,
        (source, target): (&BranchName, &BranchName),
        text: &ChangeRequestText,
        is_new: bool,
    ) -> Result<Opened, ForgeError>;

    /// Reads a change request back, or rewrites its description when `description` is given and then reads it back.
    async fn change_request(
        &self,
        project: &ProjectFacts,
        number: u64,
        description: Option<&str>,
    ) -> Result<ChangeRequest, ForgeError>;
}

/// What `open_change_request` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// A new one.
    New(ChangeRequest),
    /// One existed and was brought up to date.
    Adopted(ChangeRequest),
}

impl Opened {
    /// The change request either way.
    #[must_use]
    pub fn change_request(&self) -> &ChangeRequest {
        match self {
            Self::New(request) | Self::Adopted(request) => request,
        }
    }
}

/// Counts requests for the operators' metrics; the room itself imports no metrics.
pub trait CountRequests: Send + Sync {
    /// One request ended: which kind of forge, a short endpoint word, and the status (0 when there was no answer).
    fn count(&self, forge: ForgeKind, endpoint: &'static str, status: u16);

    /// So much of its rate limit a token has left, in hundredths.
    fn left(&self, forge: ForgeKind, hundredths: u8);
}

/// Makes clients for connections; holds the one HTTP client that all of them share.
#[async_trait]
pub trait Connect: Send + Sync {
    /// A client for one connection. `url` is `None` for the public instance; `ca` is PEM text whose certificates are trusted
    /// beside the machine's own ones, for this connection only.
    ///
    /// # Errors
    /// The address cannot be used (malformed, plain http where not allowed, not among the allowed ones), or `ca` holds no certificate.
    fn connect(
        &self,
        kind: ForgeKind,
        url: Option<&str>,
        token: &Secret,
        ca: Option<&str>,
    ) -> Result<Arc<dyn Forge>, ForgeError>;
}
