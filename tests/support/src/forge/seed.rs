//! What a test forge holds when it starts: people, tokens, projects, issues, read from TOML.
//!
//! Never read again after the start: what changes later lives in `state`.

mod activity;

pub use activity::{
    ActivityOn, ActivitySeed, ChangeRequestSeed, CheckSeed, CommentSeed, DiscussionSeed, LineCommentSeed, PipelineSeed,
    ReviewSeed, StandingSeed, StatusSeed, Verdict,
};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::Error;

/// Which of the two forges something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The GitLab instance under `/gitlab`.
    Gitlab,
    /// The GitHub Enterprise instance at the root.
    Github,
}

/// Everything that a test forge starts with.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// People; they exist on both forges.
    #[serde(default)]
    pub users: Vec<UserSeed>,
    /// Tokens, each of one user on one forge.
    #[serde(default)]
    pub tokens: Vec<TokenSeed>,
    /// Projects and repositories.
    #[serde(default)]
    pub projects: Vec<ProjectSeed>,
    /// Many projects at once, which nothing but lists is asked of.
    #[serde(default)]
    pub crowds: Vec<CrowdSeed>,
    /// Issues of those projects.
    #[serde(default)]
    pub issues: Vec<IssueSeed>,
    /// Merge requests and pull requests of those projects.
    #[serde(default)]
    pub change_requests: Vec<ChangeRequestSeed>,
    /// What happens at change requests that are there already.
    #[serde(default)]
    pub activities: Vec<ActivityOn>,
    /// Settings of the GitLab instance.
    pub gitlab: Option<Instance>,
    /// Settings of the GitHub instance.
    pub github: Option<Instance>,
}

/// Settings of one instance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Requests of one token in one minute (GitLab) or hour (GitHub). With it every answer says how many are left, as on gitlab.com and
    /// github.com; without it nothing is limited or said, as on self-managed ones by default.
    pub rate_limit: Option<u32>,
    /// What the instance believes its own address to be, where that is not how it is reached: in links, clone and web addresses.
    pub external_url: Option<String>,
}

/// Many projects of one group that share one repository with one commit: cheap to make, and made to be listed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrowdSeed {
    /// Their forge.
    pub forge: Side,
    /// Their group or owner.
    pub group: String,
    /// How their names begin; a number follows.
    #[serde(default = "crowd_prefix")]
    pub prefix: String,
    /// How many.
    pub count: u32,
    /// Who sees them.
    #[serde(default)]
    pub visibility: Visibility,
    /// Members of each.
    #[serde(default)]
    pub members: Vec<MemberSeed>,
}

/// When a difference is not shown whole. GitLab: the administrator's limits. GitHub: fixed ones, made small here for tests.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffLimits {
    /// Most files; what is over is not shown and the count ends in `+`.
    pub files: Option<usize>,
    /// Most bytes of one file's patch that are shown unasked; a longer one is collapsed.
    pub collapse_bytes: Option<usize>,
}

/// Kinds of GitLab issues. GitHub has one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssueKind {
    /// An issue.
    #[default]
    Issue,
    /// An incident.
    Incident,
    /// A task, whose page lies elsewhere.
    Task,
}

/// One person.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSeed {
    /// Numeric id on both forges.
    pub id: u64,
    /// Login name.
    pub username: String,
    /// Full name.
    pub name: String,
    /// Account e-mail.
    pub email: String,
    /// E-mail for commits; the account e-mail if absent.
    pub commit_email: Option<String>,
    /// E-mail shown to others; empty if absent.
    #[serde(default)]
    pub public_email: String,
}

/// One access token.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSeed {
    /// Name by which tests and the request log speak of it. Must be unique.
    pub name: String,
    /// The secret itself.
    pub value: String,
    /// Owner's user name.
    pub user: String,
    /// The forge that knows it.
    pub forge: Side,
    /// Scopes: `api`, `read_api`, `write_repository`... on GitLab, `repo`, `public_repo`, `workflow`... on GitHub.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// GitHub's fine-grained token: what it may do where. A classic token has none.
    pub fine_grained: Option<FineGrained>,
    /// GitHub: the token of an App's installation; `fine_grained` says what it may do.
    #[serde(default)]
    pub installation: bool,
    /// First day on which the token is dead.
    pub expires_at: Option<Date>,
    /// Revoked from the start.
    #[serde(default)]
    pub revoked: bool,
}

/// The limits of a fine-grained GitHub token.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineGrained {
    /// Paths of the repositories that it sees; all others are 404.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// `contents`, `pull_requests`, `issues`: `read` or `write`.
    #[serde(default)]
    pub permissions: BTreeMap<String, String>,
}

/// Who sees a project without being a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Members only.
    #[default]
    Private,
    /// Every signed-in user.
    Internal,
    /// Everyone.
    Public,
}

/// What a member may do. GitLab's names; GitHub's are aliases of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees the project, not its code.
    Guest = 10,
    /// Reads code.
    #[serde(alias = "read", alias = "triage")]
    Reporter = 20,
    /// Pushes to unprotected branches.
    #[serde(alias = "write")]
    Developer = 30,
    /// Pushes to protected branches too.
    #[serde(alias = "maintain")]
    Maintainer = 40,
    /// Everything.
    #[serde(alias = "admin")]
    Owner = 50,
}

/// One project with its repository.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectSeed {
    /// Numeric id; counted up from 101 if absent.
    pub id: Option<u64>,
    /// Its forge.
    pub forge: Side,
    /// `group/subgroup/name`, or `owner/name` on GitHub.
    pub path: String,
    /// Paths that it had before: REST redirects, git still works.
    #[serde(default)]
    pub moved_from: Vec<String>,
    /// One line about it.
    pub description: Option<String>,
    /// Who sees it.
    #[serde(default)]
    pub visibility: Visibility,
    /// Name of the default branch.
    #[serde(default = "main_branch")]
    pub default_branch: String,
    /// Content of the first commit, by path.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// No commit at all.
    #[serde(default)]
    pub empty: bool,
    /// Copy this bare repository instead.
    pub from_bare: Option<PathBuf>,
    /// Make up a history of this size instead.
    pub generate: Option<Generate>,
    /// Members.
    #[serde(default)]
    pub members: Vec<MemberSeed>,
    /// Protected branches.
    #[serde(default)]
    pub protected: Vec<Protection>,
    /// GitLab's push rules.
    #[serde(default)]
    pub push_rules: PushRules,
    /// GitHub: whether draft pull requests are allowed.
    #[serde(default = "yes")]
    pub drafts_supported: bool,
    /// Whether change requests are enabled.
    #[serde(default = "yes")]
    pub change_requests_enabled: bool,
    /// Whether issues are enabled.
    #[serde(default = "yes")]
    pub issues_enabled: bool,
    /// For so long after a push the REST side does not know a new branch.
    #[serde(default)]
    pub branch_delay_ms: u64,
    /// Whether it is archived: read only.
    #[serde(default)]
    pub archived: bool,
    /// How much of a difference the API shows.
    #[serde(default)]
    pub diff_limits: DiffLimits,
}

impl ProjectSeed {
    /// A private project with one commit and nothing special.
    #[must_use]
    pub fn plain(forge: Side, path: &str) -> Self {
        Self {
            id: None,
            forge,
            path: path.to_owned(),
            moved_from: Vec::new(),
            description: None,
            visibility: Visibility::default(),
            default_branch: main_branch(),
            files: BTreeMap::new(),
            empty: false,
            from_bare: None,
            generate: None,
            members: Vec::new(),
            protected: Vec::new(),
            push_rules: PushRules::default(),
            drafts_supported: true,
            change_requests_enabled: true,
            issues_enabled: true,
            branch_delay_ms: 0,
            archived: false,
            diff_limits: DiffLimits::default(),
        }
    }
}

/// A made-up history.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// Number of files in the first commit.
    pub files: u32,
    /// Size of each.
    pub bytes: u32,
    /// Number of commits; each after the first changes one file.
    #[serde(default = "one")]
    pub commits: u32,
}

/// One member of a project.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberSeed {
    /// User name.
    pub user: String,
    /// What they may do.
    pub role: Role,
}

/// One protected branch.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protection {
    /// Branch name, or a prefix that ends in `*`.
    pub branch: String,
    /// Who may still push.
    #[serde(default)]
    pub push: PushAccess,
    /// Whether those may force-push.
    #[serde(default)]
    pub allow_force_push: bool,
}

/// Who may push to a protected branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushAccess {
    /// Developers and above.
    Developer,
    /// Maintainers and above (GitLab's default).
    #[default]
    Maintainer,
    /// Nobody.
    NoOne,
}

/// The push rules that the double enforces.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushRules {
    /// Committers must be the pusher.
    #[serde(default)]
    pub commit_committer_check: bool,
    /// Authors must be members.
    #[serde(default)]
    pub member_check: bool,
    /// Text that every commit message must contain (the real rule is a pattern).
    pub commit_message_contains: Option<String>,
    /// Prefix that every new branch must have (the real rule is a pattern).
    pub branch_name_prefix: Option<String>,
}

/// One issue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssueSeed {
    /// Its forge.
    pub forge: Side,
    /// Path of its project.
    pub project: String,
    /// Title.
    pub title: String,
    /// Text.
    #[serde(default)]
    pub description: String,
    /// Author's user name.
    pub author: String,
    /// GitLab: what kind of issue.
    #[serde(default)]
    pub kind: IssueKind,
    /// Labels.
    #[serde(default)]
    pub labels: Vec<String>,
    /// User names of who it is assigned to.
    #[serde(default)]
    pub assignees: Vec<String>,
    /// Whether it is closed.
    #[serde(default)]
    pub closed: bool,
    /// Comments: text by the issue's author, or by somebody else.
    #[serde(default)]
    pub comments: Vec<CommentSeed>,
    /// GitLab: what the forge itself noted.
    #[serde(default)]
    pub system_notes: Vec<String>,
}

fn crowd_prefix() -> String {
    "project-".to_owned()
}

fn main_branch() -> String {
    "main".to_owned()
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

impl Seed {
    /// Reads a seed from TOML text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|source| Error::ParseSeed(Box::new(source)))
    }

    /// Reads a seed file. A relative `from_bare` is taken from the file's directory.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::ReadSeed {
            path: path.to_owned(),
            source,
        })?;
        let mut seed = Self::parse(&text)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        for bare in seed
            .projects
            .iter_mut()
            .filter_map(|project| project.from_bare.as_mut())
        {
            *bare = directory.join(&*bare);
        }
        Ok(seed)
    }
}
