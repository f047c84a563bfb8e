//! What GitHub sends about pull requests and issues, and the way from there to our words. Pure.
//!
//! Only numbers are required; all else may be absent or null, and a value that nobody has heard of is kept as GitHub's own word, bounded.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::forge::inspect::{
    ChangeRequestDetails, ChangeRequestQuery, ChangeRequestSummary, IssueDetails, IssueQuery, IssueSummary,
    ProjectSummary, SourceRepository, State,
};
use crate::forge::lenient::{Label, nullable};
use crate::forge::text::{labels, line, paragraphs, web_address, word};
use crate::message::ProjectPath;
use crate::secret::Mask;

/// A time as GitHub writes it.
pub(super) fn short(text: &Option<String>, mask: &Mask) -> String {
    word(text.as_deref().unwrap_or_default(), mask)
}

/// An account; none when it was deleted.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Person {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) login: String,
}

fn names(people: &[Person], mask: &Mask) -> Vec<String> {
    labels(people.iter().map(|person| person.login.as_str()), mask)
}

/// The value of `state` in a query.
pub(super) fn state_value(state: State) -> &'static str {
    match state {
        State::Open => "open",
        State::Merged | State::Closed => "closed",
        State::All => "all",
    }
}

/// A row of `GET /user/repos`
#[derive(Debug, Deserialize)]
pub(super) struct RepositoryRow {
    full_name: String,
    #[serde(default)]
    default_branch: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    archived: bool,
    #[serde(default)]
    html_url: Option<String>,
}

/// `GET /installation/repositories`
#[derive(Debug, Deserialize)]
pub(super) struct Installed {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) repositories: Vec<RepositoryRow>,
}

impl RepositoryRow {
    /// Our words for it; nothing where it is not searched for, or its path could not be named in a task.
    pub(super) fn summary(self, search: Option<&str>, instance: &str, mask: &Mask) -> Option<ProjectSummary> {
        let path: ProjectPath = self.full_name.parse().ok()?;
        let wanted = |words: &str| path.as_str().to_lowercase().contains(&words.to_lowercase());
        if !search.is_none_or(wanted) {
            return None;
        }
        let url = self.html_url.as_deref().and_then(web_address);
        Some(ProjectSummary {
            url: mask.apply(&url.unwrap_or_else(|| format!("{instance}/{path}"))),
            path: mask.apply(path.as_str()),
            default_branch: self
                .default_branch
                .map(|name| line(&name, mask))
                .filter(|name| !name.is_empty()),
            archived: self.archived,
        })
    }
}

/// A pull request, in a list or alone. Where it says more than a list does, those fields are absent from lists.
#[derive(Debug, Deserialize)]
pub(super) struct Pull {
    number: u64,
    #[serde(default, deserialize_with = "nullable")]
    title: String,
    #[serde(default)]
    body: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    state: String,
    #[serde(default, deserialize_with = "nullable")]
    draft: bool,
    #[serde(default, deserialize_with = "nullable")]
    merged: bool,
    #[serde(default)]
    merged_at: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    user: Person,
    #[serde(default, deserialize_with = "nullable")]
    head: Tip,
    #[serde(default, deserialize_with = "nullable")]
    base: Tip,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
    #[serde(default)]
    html_url: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    labels: Vec<Label>,
    #[serde(default, deserialize_with = "nullable")]
    requested_reviewers: Vec<Person>,
    #[serde(default, deserialize_with = "nullable")]
    assignees: Vec<Person>,
    #[serde(default)]
    mergeable: Option<bool>,
    #[serde(default)]
    mergeable_state: Option<String>,
    #[serde(default)]
    pub(super) changed_files: Option<u64>,
}

/// One end of a pull request.
#[derive(Debug, Default, Deserialize)]
struct Tip {
    #[serde(default, rename = "ref", deserialize_with = "nullable")]
    branch: String,
    #[serde(default)]
    sha: Option<String>,
    /// Null when the fork is gone or cannot be seen.
    #[serde(default)]
    repo: Option<TipRepository>,
}

#[derive(Debug, Deserialize)]
struct TipRepository {
    #[serde(default)]
    id: Option<u64>,
}

impl Pull {
    fn is_merged(&self) -> bool {
        self.merged || self.merged_at.is_some()
    }

    /// Whether the filters let it through. GitHub knows no merged ones, and ignores a `head` that it does not understand.
    pub(super) fn passes(&self, query: &ChangeRequestQuery) -> bool {
        let branch = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        let state = match query.state {
            State::Open => self.state == "open",
            State::Merged => self.is_merged(),
            State::Closed => self.state == "closed" && !self.is_merged(),
            State::All => true,
        };
        state
            && query
                .author
                .as_deref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(&self.user.login))
            && branch(&query.source_branch, &self.head.branch)
            && branch(&query.target_branch, &self.base.branch)
    }

    /// The head commit, where it is one.
    pub(super) fn head(&self) -> Option<&str> {
        let hex = |sha: &&str| sha.len() <= 64 && !sha.is_empty() && sha.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.head.sha.as_deref().filter(hex)
    }

    /// Our words for it in a list.
    pub(super) fn summary(&self, instance: &str, path: &ProjectPath, mask: &Mask) -> ChangeRequestSummary {
        let url = self.html_url.as_deref().and_then(web_address);
        ChangeRequestSummary {
            number: self.number,
            title: line(&self.title, mask),
            state: if self.is_merged() {
                "merged".to_owned()
            } else {
                word(&self.state, mask)
            },
            draft: self.draft,
            author: line(&self.user.login, mask),
            source_branch: line(&self.head.branch, mask),
            target_branch: line(&self.base.branch, mask),
            created_at: short(&self.created_at, mask),
            updated_at: short(&self.updated_at, mask),
            url: mask.apply(&url.unwrap_or_else(|| format!("{instance}/{path}/pull/{}", self.number))),
        }
    }

    /// Our words for all of it. `project` is the id of the one that was asked.
    pub(super) fn details(
        &self,
        instance: &str,
        (path, project): (&ProjectPath, &str),
        pipeline: String,
        mask: &Mask,
    ) -> ChangeRequestDetails {
        let source_repository = match self.head.repo.as_ref().and_then(|repository| repository.id) {
            None => SourceRepository::Unknown,
            Some(id) if id.to_string() == project => SourceRepository::Same,
            Some(_) => SourceRepository::Fork,
        };
        let base = self.base.sha.as_deref().map(|sha| word(sha, mask));
        ChangeRequestDetails {
            summary: self.summary(instance, path, mask),
            description: paragraphs(self.body.as_deref().unwrap_or_default(), mask),
            source_repository,
            head: self.head().map(str::to_owned),
            base: base.filter(|sha| !sha.is_empty()),
            labels: labels(self.labels.iter().map(Label::name), mask),
            reviewers: names(&self.requested_reviewers, mask),
            assignees: names(&self.assignees, mask),
            merge_status: self.merge_word(mask),
            pipeline,
            changed_files: self.changed_files,
        }
    }

    fn merge_word(&self, mask: &Mask) -> String {
        if self.is_merged() {
            return "merged".to_owned();
        }
        match (self.mergeable_state.as_deref().unwrap_or_default(), self.mergeable) {
            ("clean", _) | ("", Some(true)) => "mergeable".to_owned(),
            ("dirty", _) | ("", Some(false)) => "conflict".to_owned(),
            ("" | "unknown", _) => "checking".to_owned(),
            (other, _) => word(other, mask),
        }
    }
}

/// A row of the issue routes, which list pull requests too.
#[derive(Debug, Deserialize)]
pub(super) struct Issue {
    pub(super) number: u64,
    #[serde(default, deserialize_with = "nullable")]
    title: String,
    #[serde(default)]
    body: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    state: String,
    #[serde(default, deserialize_with = "nullable")]
    user: Person,
    #[serde(default, deserialize_with = "nullable")]
    labels: Vec<Label>,
    #[serde(default, deserialize_with = "nullable")]
    assignees: Vec<Person>,
    #[serde(default)]
    comments: Option<u64>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
    #[serde(default)]
    html_url: Option<String>,
    /// Present on pull requests only.
    #[serde(default)]
    pull_request: Option<IgnoredAny>,
    /// Told by the search.
    #[serde(default)]
    repository_url: Option<String>,
}

impl Issue {
    /// Whether it is a pull request.
    pub(super) fn is_pull(&self) -> bool {
        self.pull_request.is_some()
    }

    /// Whether a search found it in the repository that was searched.
    pub(super) fn is_of(&self, path: &ProjectPath) -> bool {
        let end = format!("/repos/{path}").to_lowercase();
        self.repository_url
            .as_deref()
            .is_some_and(|url| url.to_lowercase().ends_with(&end))
    }

    /// Whether it says of itself that it is in another repository.
    pub(super) fn is_elsewhere(&self, path: &ProjectPath) -> bool {
        self.repository_url.is_some() && !self.is_of(path)
    }

    /// Whether it is an issue that the filters let through.
    pub(super) fn passes(&self, query: &IssueQuery) -> bool {
        !self.is_pull()
            && (query.state == State::All || self.state == state_value(query.state))
            && query
                .author
                .as_deref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(&self.user.login))
            && query.labels.iter().all(|wanted| {
                let has = |label: &Label| label.name().to_lowercase() == wanted.to_lowercase();
                self.labels.iter().any(has)
            })
    }

    /// Our words for it in a list.
    pub(super) fn summary(&self, instance: &str, path: &ProjectPath, mask: &Mask) -> IssueSummary {
        let url = self.html_url.as_deref().and_then(web_address);
        IssueSummary {
            number: self.number,
            title: line(&self.title, mask),
            state: word(&self.state, mask),
            author: line(&self.user.login, mask),
            labels: labels(self.labels.iter().map(Label::name), mask),
            created_at: short(&self.created_at, mask),
            updated_at: short(&self.updated_at, mask),
            url: mask.apply(&url.unwrap_or_else(|| format!("{instance}/{path}/issues/{}", self.number))),
        }
    }

    /// Our words for all of it.
    pub(super) fn details(&self, instance: &str, path: &ProjectPath, mask: &Mask) -> IssueDetails {
        IssueDetails {
            summary: self.summary(instance, path, mask),
            description: paragraphs(self.body.as_deref().unwrap_or_default(), mask),
            assignees: names(&self.assignees, mask),
            comments: self.comments,
        }
    }
}

/// `GET /search/issues`
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) items: Vec<Issue>,
}
