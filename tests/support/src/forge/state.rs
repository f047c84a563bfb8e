//! What the test forge knows: people, tokens, projects, change requests, issues.
//!
//! Plain data behind one lock that is never held across an await. Branch heads are not here: git is asked each time.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::git::Repository;
use super::seed::{
    DiffLimits, FineGrained, Instance, IssueKind, Protection, PushAccess, PushRules, Role, Side, Verdict, Visibility,
};

/// One person, on both forges.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: u64,
    pub(crate) username: String,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) commit_email: String,
    pub(crate) public_email: String,
}

/// One access token.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) user: u64,
    pub(crate) side: Side,
    pub(crate) scopes: Vec<String>,
    pub(crate) fine_grained: Option<FineGrained>,
    /// GitHub: of an App's installation, not of a person.
    pub(crate) installation: bool,
    pub(crate) expires_at: Option<Date>,
    pub(crate) revoked: bool,
    pub(crate) created_at: Timestamp,
}

impl Token {
    /// Dead from 00:00 UTC of its last date on.
    pub(crate) fn expired(&self) -> bool {
        self.expires_at
            .is_some_and(|date| Timestamp::now().to_zoned_datetime(TimeZone::UTC).date() >= date)
    }

    pub(crate) fn has(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| own == scope)
    }

    pub(crate) fn has_any(&self, scopes: &[&str]) -> bool {
        scopes.iter().any(|scope| self.has(scope))
    }
}

/// Someone who showed a live token.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) user: User,
    pub(crate) token: Token,
}

/// State of a change request or an issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Open,
    Closed,
    Merged,
}

/// A comment.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) id: u64,
    pub(crate) author: u64,
    pub(crate) body: String,
    pub(crate) system: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    /// Id of the first note of its thread; its own, if it is the first or stands alone.
    pub(crate) thread: u64,
    /// Whether it stands alone: no thread, so nothing to resolve.
    pub(crate) individual: bool,
    /// The line it is about.
    pub(crate) position: Option<Position>,
    pub(crate) resolved: Option<(Timestamp, u64)>,
    /// GitHub: the review that it came with.
    pub(crate) review: Option<u64>,
}

impl Note {
    /// A comment that stands alone.
    pub(crate) fn alone(id: u64, author: u64, body: String) -> Self {
        let now = Timestamp::now();
        Self {
            id,
            author,
            body,
            system: false,
            created_at: now,
            updated_at: now,
            thread: id,
            individual: true,
            position: None,
            resolved: None,
            review: None,
        }
    }
}

/// A line of a difference.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    pub(crate) base: String,
    pub(crate) start: String,
    pub(crate) head: String,
    pub(crate) old_path: String,
    pub(crate) new_path: String,
    pub(crate) old_line: Option<u64>,
    pub(crate) new_line: Option<u64>,
}

/// A review of a pull request; GitLab has none.
#[derive(Debug, Clone)]
pub(crate) struct Review {
    pub(crate) id: u64,
    pub(crate) author: u64,
    pub(crate) verdict: Verdict,
    pub(crate) body: String,
    pub(crate) commit: Option<String>,
    pub(crate) submitted_at: Timestamp,
}

/// A GitLab pipeline.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline {
    pub(crate) id: u64,
    pub(crate) number: u64,
    pub(crate) sha: String,
    pub(crate) branch: String,
    pub(crate) status: String,
    pub(crate) source: String,
    pub(crate) user: u64,
    pub(crate) created_at: Timestamp,
}

/// A GitHub check run (with a conclusion once it is completed).
#[derive(Debug, Clone)]
pub(crate) struct Check {
    pub(crate) id: u64,
    pub(crate) sha: String,
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) conclusion: Option<String>,
    pub(crate) started_at: Timestamp,
}

/// A GitHub commit status.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) id: u64,
    pub(crate) sha: String,
    pub(crate) context: String,
    pub(crate) state: String,
    pub(crate) description: String,
    pub(crate) created_at: Timestamp,
}

/// How a change request was merged.
#[derive(Debug, Clone)]
pub(crate) struct Merged {
    pub(crate) at: Timestamp,
    pub(crate) by: u64,
    /// Where the branches had parted before.
    pub(crate) base: String,
    /// The merge commit.
    pub(crate) commit: String,
}

/// A merge request or a pull request.
#[derive(Debug, Clone)]
pub(crate) struct ChangeRequest {
    pub(crate) id: u64,
    pub(crate) number: u64,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) author: u64,
    pub(crate) standing: Standing,
    /// GitHub's own flag; on GitLab the title's prefix decides.
    pub(crate) draft: bool,
    pub(crate) labels: Vec<String>,
    pub(crate) assignees: Vec<u64>,
    pub(crate) remove_source_branch: Option<bool>,
    pub(crate) squash: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) closed: Option<(Timestamp, u64)>,
    pub(crate) merged: Option<Merged>,
    pub(crate) notes: Vec<Note>,
    /// Asked to review.
    pub(crate) reviewers: Vec<u64>,
    /// GitLab: who approved, and when.
    pub(crate) approvals: Vec<(u64, Timestamp)>,
    /// GitHub.
    pub(crate) reviews: Vec<Review>,
    /// How often it was read since its head last moved: the forge "computes" mergeability in the background, so the
    /// first reader is told that it is not known yet.
    pub(crate) reads: u32,
    /// Where these two heads, its own and the target's, parted.
    pub(crate) parted: Option<(String, String, Option<String>)>,
    /// Mergeability found for (head, target head).
    pub(crate) checked: Option<(String, String, bool)>,
}

/// One issue.
#[derive(Debug, Clone)]
pub(crate) struct Issue {
    pub(crate) id: u64,
    pub(crate) number: u64,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) author: u64,
    pub(crate) standing: Standing,
    pub(crate) kind: IssueKind,
    pub(crate) labels: Vec<String>,
    pub(crate) assignees: Vec<u64>,
    pub(crate) closed: Option<(Timestamp, u64)>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) notes: Vec<Note>,
}

/// One project or repository.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    pub(crate) id: u64,
    pub(crate) side: Side,
    pub(crate) path: String,
    pub(crate) moved_from: Vec<String>,
    pub(crate) description: Option<String>,
    pub(crate) visibility: Visibility,
    pub(crate) default_branch: String,
    pub(crate) members: BTreeMap<u64, Role>,
    pub(crate) protected: Vec<Protection>,
    pub(crate) push_rules: PushRules,
    pub(crate) drafts_supported: bool,
    pub(crate) change_requests_enabled: bool,
    pub(crate) issues_enabled: bool,
    pub(crate) branch_delay_ms: u64,
    pub(crate) archived: bool,
    /// Its repository is one of many projects' that nothing is done with.
    pub(crate) of_a_crowd: bool,
    pub(crate) limits: DiffLimits,
    pub(crate) repository: Repository,
    pub(crate) created_at: Timestamp,
    pub(crate) last_activity: Timestamp,
    pub(crate) change_requests: Vec<ChangeRequest>,
    pub(crate) issues: Vec<Issue>,
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) checks: Vec<Check>,
    pub(crate) statuses: Vec<Status>,
    /// New branches that the REST side does not know yet.
    pub(crate) unseen: HashMap<String, Instant>,
}

impl Project {
    /// The last part of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The path without its last part.
    pub(crate) fn namespace(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(namespace, _)| namespace)
    }

    pub(crate) fn role(&self, user: Option<u64>) -> Option<Role> {
        user.and_then(|id| self.members.get(&id).copied())
    }

    /// Whether someone may know that the project exists.
    pub(crate) fn visible_to(&self, user: Option<u64>) -> bool {
        match self.visibility {
            Visibility::Public => true,
            Visibility::Internal => user.is_some(),
            Visibility::Private => self.role(user).is_some(),
        }
    }

    /// Whether someone may read its code.
    pub(crate) fn readable_by(&self, user: Option<u64>) -> bool {
        match self.visibility {
            Visibility::Public => true,
            Visibility::Internal => user.is_some(),
            Visibility::Private => self.role(user).is_some_and(|role| role >= Role::Reporter),
        }
    }

    pub(crate) fn writable_by(&self, user: Option<u64>) -> bool {
        !self.archived && self.role(user).is_some_and(|role| role >= Role::Developer)
    }

    pub(crate) fn protection(&self, branch: &str) -> Option<&Protection> {
        self.protected.iter().find(|rule| match rule.branch.strip_suffix('*') {
            Some(prefix) => branch.starts_with(prefix),
            None => rule.branch == branch,
        })
    }

    /// Whether someone may push to this branch, protection considered.
    pub(crate) fn pushable_by(&self, user: Option<u64>, branch: &str) -> bool {
        let role = self.role(user);
        let least = match self.protection(branch).map(|rule| rule.push) {
            None | Some(PushAccess::Developer) => Role::Developer,
            Some(PushAccess::Maintainer) => Role::Maintainer,
            Some(PushAccess::NoOne) => return false,
        };
        role.is_some_and(|role| role >= least)
    }

    /// Whether the REST side knows this branch already.
    pub(crate) fn seen(&self, branch: &str) -> bool {
        self.unseen.get(branch).is_none_or(|until| Instant::now() >= *until)
    }

    pub(crate) fn open_from(&self, source: &str) -> impl Iterator<Item = &ChangeRequest> {
        self.change_requests
            .iter()
            .filter(move |one| one.standing == Standing::Open && one.source == source)
    }

    /// Number for the next change request or issue: GitHub counts both together, GitLab apart.
    pub(crate) fn next_number(&self, for_issue: bool) -> u64 {
        let requests = self.change_requests.iter().map(|one| one.number).max().unwrap_or(0);
        let issues = self.issues.iter().map(|one| one.number).max().unwrap_or(0);
        1 + match self.side {
            Side::Github => requests.max(issues),
            Side::Gitlab if for_issue => issues,
            Side::Gitlab => requests,
        }
    }
}

/// Everything the forge knows.
pub(crate) struct World {
    pub(crate) users: Vec<User>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) projects: Vec<Project>,
    pub(crate) gitlab: Instance,
    pub(crate) github: Instance,
    pub(crate) last_id: u64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            tokens: Vec::new(),
            projects: Vec::new(),
            gitlab: Instance::default(),
            github: Instance::default(),
            // Higher than any id that a seed gives by hand, so that no two kinds of things share one by accident.
            last_id: 5000,
        }
    }
}

impl World {
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn token(&self, side: Side, value: &str) -> Option<&Token> {
        self.tokens
            .iter()
            .find(|token| token.side == side && token.value == value)
    }

    pub(crate) fn user(&self, id: u64) -> Option<&User> {
        self.users.iter().find(|user| user.id == id)
    }

    pub(crate) fn project(&self, side: Side, path: &str) -> Option<&Project> {
        self.projects
            .iter()
            .find(|project| project.side == side && project.path.eq_ignore_ascii_case(path))
    }

    /// The project that had this path once.
    pub(crate) fn moved(&self, side: Side, path: &str) -> Option<&Project> {
        let had = |project: &&Project| project.moved_from.iter().any(|old| old.eq_ignore_ascii_case(path));
        self.projects.iter().filter(|project| project.side == side).find(had)
    }

    pub(crate) fn project_mut(&mut self, id: u64) -> Option<&mut Project> {
        self.projects.iter_mut().find(|project| project.id == id)
    }

    /// A person by user name.
    pub(crate) fn person(&self, username: &str) -> Option<&User> {
        self.users
            .iter()
            .find(|user| user.username.eq_ignore_ascii_case(username))
    }

    pub(crate) fn instance(&self, side: Side) -> &Instance {
        match side {
            Side::Gitlab => &self.gitlab,
            Side::Github => &self.github,
        }
    }

    pub(crate) fn change_request_mut(&mut self, project: u64, number: u64) -> Option<&mut ChangeRequest> {
        self.project_mut(project)?
            .change_requests
            .iter_mut()
            .find(|one| one.number == number)
    }
}
