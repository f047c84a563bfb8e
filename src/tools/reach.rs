//! What the tools reach: the forge of each of the session's projects, its diffs in git, and who is told what was said.
//!
//! Filled by the session. Which project an argument may name, and what the token allows there, is decided here, before anything is asked.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio_util::task::TaskTracker;

use super::Tools;
use super::error::ToolError;
use crate::forge::inspect::FileDiff;
use crate::forge::{Inspect, ProjectFacts};
use crate::grant::{Grant, ProjectGrant};
use crate::message::{EventBody, ForgeKind, ProjectKey, Right};

/// Tells the session what happened; the future ends when it is told.
pub type Tell = Arc<dyn Fn(EventBody) -> BoxFuture<'static, ()> + Send + Sync>;

/// Says what a text holds that must not leave.
pub type Refuse = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Finds the forge of a project with the credential of this moment.
pub type Find = Arc<dyn Fn(&ProjectKey) -> Option<ForgeProject> + Send + Sync>;

/// What the session may do at this moment: it is asked anew for each call, because a project may be added.
#[derive(Clone)]
pub struct Granted(Arc<dyn Fn() -> Arc<Grant> + Send + Sync>);

impl Granted {
    /// A grant that may grow.
    pub fn new(now: impl Fn() -> Arc<Grant> + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// As it is now.
    pub(super) fn now(&self) -> Arc<Grant> {
        (self.0)()
    }
}

impl From<Arc<Grant>> for Granted {
    fn from(grant: Arc<Grant>) -> Self {
        Self::new(move || grant.clone())
    }
}

impl std::fmt::Debug for Granted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Granted").field(&self.now().session).finish()
    }
}

/// The part of a token's rate limit that tools leave alone, in hundredths.
const RESERVE: u8 = 10;

/// What the tools of one session reach.
#[derive(Clone)]
pub struct Reach {
    /// The forge of a project with the credential of this moment; `None` when its connection is gone. Asked anew for each call.
    pub project: Find,
    /// Diffs from git.
    pub diffs: Arc<dyn Diffs>,
    /// Who is told what was said in the user's name.
    pub tell: Tell,
    /// Whether the session may leave a trace on a forge at this moment: not while another worker may be taking it over.
    pub may_act: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Why a text may not leave: the credential that it holds, in words.
    pub refuse: Refuse,
    /// What is being said right now, even if the agent hung up: the session waits for it.
    pub speaking: TaskTracker,
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reach").finish_non_exhaustive()
    }
}

/// A project on its forge.
#[derive(Clone)]
pub struct ForgeProject {
    /// The forge, with the user's token.
    pub forge: Arc<dyn Inspect>,
    /// The project as the forge knows it.
    pub facts: ProjectFacts,
}

impl std::fmt::Debug for ForgeProject {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ForgeProject")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// Which part of a diff is wanted from git.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffRequest {
    /// The change request's number.
    pub number: u64,
    /// Its head, as the forge tells it.
    pub head: Option<String>,
    /// The commit that its diff starts from, as the forge tells it.
    pub base: Option<String>,
    /// The branch that it merges into.
    pub target: String,
    /// Only this file, or the files below this directory.
    pub path: Option<String>,
    /// How many files to pass over.
    pub skip: usize,
    /// How many files to show.
    pub most: usize,
}

/// Files of a diff, from git.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitDiff {
    /// The commit that it starts from.
    pub base: String,
    /// The commit that it leads to.
    pub head: String,
    /// How many files differ, of those asked for.
    pub total: usize,
    /// The files.
    pub files: Vec<FileDiff>,
}

/// Gives the diffs of change requests from git, where the worker has the project.
#[async_trait]
pub trait Diffs: Send + Sync {
    /// The diff, or why git cannot give it: then the forge's API is asked.
    async fn diff(&self, project: &ProjectKey, request: &DiffRequest) -> Result<GitDiff, String>;
}

/// What a tool needs a token to allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    InspectChangeRequests,
    ReadIssues,
    Comment,
}

impl Act {
    fn right(self, project: &ProjectGrant) -> Right {
        match self {
            Self::InspectChangeRequests => project.capabilities.inspect_change_requests,
            Self::ReadIssues => project.capabilities.read_issues,
            Self::Comment => project.capabilities.comment,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::InspectChangeRequests => "read merge and pull requests",
            Self::ReadIssues => "read issues",
            Self::Comment => "comment",
        }
    }

    /// The scope that would allow it, as the forge's users know it.
    fn needs(self, forge: ForgeKind) -> &'static str {
        match (forge, self) {
            (ForgeKind::Gitlab, Self::Comment) => "the scope `api`",
            (ForgeKind::Gitlab, Self::InspectChangeRequests | Self::ReadIssues) => "the scope `read_api` or `api`",
            (ForgeKind::Github, Self::InspectChangeRequests) => {
                "the scope `repo`, or for a fine-grained token the permission \"Pull requests: read\""
            }
            (ForgeKind::Github, Self::ReadIssues) => {
                "the scope `repo`, or for a fine-grained token the permission \"Issues: read\""
            }
            (ForgeKind::Github, Self::Comment) => {
                "the scope `repo`, or for a fine-grained token the permissions \"Issues: write\" and \"Pull requests: write\""
            }
        }
    }

    /// Whether there is a use in asking the API.
    pub(super) fn is_open(self, project: &ProjectGrant) -> bool {
        match self.right(project) {
            Right::Yes | Right::Unproven => true,
            // These tools ask the API.
            Right::No | Right::GitOnly | Right::PushOptions => false,
        }
    }
}

impl Tools {
    /// Refuses words that hold a credential: what a tool is given here is shown to others, or to strangers.
    pub(super) fn without_secrets(&self, argument: &'static str, text: &str) -> Result<(), ToolError> {
        match (self.reach.refuse)(text) {
            Some(holds) => Err(ToolError::HoldsSecret { argument, holds }),
            None => Ok(()),
        }
    }

    /// The project that an argument names, or the only one.
    pub(super) fn choose(&self, named: Option<&str>) -> Result<ProjectGrant, ToolError> {
        let grant = self.granted.now();
        let projects = &grant.projects;
        let found = match named.map(str::trim).filter(|name| !name.is_empty()) {
            Some(name) => projects
                .iter()
                .find(|project| project.key.to_string() == name)
                .or_else(|| {
                    // The path alone will do where it names one.
                    let mut of_path = projects.iter().filter(|project| project.key.path.as_str() == name);
                    of_path.next().filter(|_| of_path.next().is_none())
                }),
            None if projects.len() == 1 => projects.first(),
            None => None,
        };
        found.cloned().ok_or_else(|| ToolError::UnknownProject {
            projects: projects
                .iter()
                .map(|project| project.key.to_string())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// The project and its forge, if the token allows the act there.
    pub(super) fn reach(&self, named: Option<&str>, act: Act) -> Result<(ProjectGrant, ForgeProject), ToolError> {
        let project = self.choose(named)?;
        if !act.is_open(&project) {
            return Err(ToolError::ScopeMissing {
                project: project.key.to_string(),
                act: act.words(),
                needs: act.needs(project.forge),
            });
        }
        let forge = (self.reach.project)(&project.key).ok_or_else(|| ToolError::NotConnected {
            project: project.key.to_string(),
        })?;
        // The session's own requests, which publish the work, come from the same limit.
        if forge.forge.rate_left().is_some_and(|left| left < RESERVE) {
            return Err(ToolError::RateReserved);
        }
        Ok((project, forge))
    }
}
