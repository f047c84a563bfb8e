//! What GitLab sends about merge requests, issues and what is said there, and the way from there to our words. Pure.
//!
//! Only numbers are required; all else may be absent or null, and a value that nobody has heard of is kept as GitLab's own word, bounded.

use serde::Deserialize;

use crate::forge::inspect::{
    ChangeRequestDetails, ChangeRequestQuery, ChangeRequestSummary, Discussion, IssueDetails, IssueQuery, IssueSummary,
    Note, ProjectSummary, SourceRepository, State,
};
use crate::forge::lenient::{Label, nullable};
use crate::forge::text::{labels, line, paragraphs, web_address, word};
use crate::message::ProjectPath;
use crate::secret::Mask;

/// Longest time, id or address word that is kept.
fn short(text: &Option<String>, mask: &Mask) -> String {
    word(text.as_deref().unwrap_or_default(), mask)
}

/// An account; none when it was deleted.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Person {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) username: String,
}

fn names(people: &[Person], mask: &Mask) -> Vec<String> {
    labels(people.iter().map(|person| person.username.as_str()), mask)
}

/// GitLab's word for a state in ours.
fn state(text: &str, mask: &Mask) -> String {
    match text {
        "opened" => "open".to_owned(),
        other => word(other, mask),
    }
}

/// The value of `state` in a query; always sent, because the default is all.
pub(super) fn state_value(state: State) -> &'static str {
    match state {
        State::Open => "opened",
        State::Merged => "merged",
        State::Closed => "closed",
        State::All => "all",
    }
}

fn same_name(wanted: Option<&str>, name: &str) -> bool {
    wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(name))
}

/// A row of `GET /projects`
#[derive(Debug, Deserialize)]
pub(super) struct ProjectRow {
    path_with_namespace: String,
    #[serde(default)]
    default_branch: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    archived: bool,
    #[serde(default)]
    web_url: Option<String>,
}

impl ProjectRow {
    /// Our words for it; nothing where its path could not be named in a task.
    pub(super) fn summary(self, instance: &str, mask: &Mask) -> Option<ProjectSummary> {
        let path: ProjectPath = self.path_with_namespace.parse().ok()?;
        let url = self.web_url.as_deref().and_then(web_address);
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

/// A merge request, in a list or alone. Where it says more than a list does, those fields are absent from lists.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    pub(super) iid: u64,
    #[serde(default, deserialize_with = "nullable")]
    title: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    state: String,
    #[serde(default)]
    draft: Option<bool>,
    #[serde(default)]
    work_in_progress: Option<bool>,
    #[serde(default, deserialize_with = "nullable")]
    author: Person,
    #[serde(default, deserialize_with = "nullable")]
    source_branch: String,
    #[serde(default, deserialize_with = "nullable")]
    target_branch: String,
    #[serde(default)]
    pub(super) source_project_id: Option<u64>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
    #[serde(default)]
    web_url: Option<String>,
    #[serde(default)]
    sha: Option<String>,
    #[serde(default)]
    diff_refs: Option<DiffRefs>,
    #[serde(default, deserialize_with = "nullable")]
    labels: Vec<Label>,
    #[serde(default, deserialize_with = "nullable")]
    reviewers: Vec<Person>,
    #[serde(default, deserialize_with = "nullable")]
    assignees: Vec<Person>,
    #[serde(default)]
    detailed_merge_status: Option<String>,
    #[serde(default)]
    merge_status: Option<String>,
    // GitLab leaves the key out for who may not read pipelines, and nulls it where there is none.
    #[serde(default, deserialize_with = "present")]
    head_pipeline: Option<Option<Pipeline>>,
    #[serde(default, deserialize_with = "present")]
    pipeline: Option<Option<Pipeline>>,
    #[serde(default)]
    pub(super) changes_count: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DiffRefs {
    #[serde(default)]
    base_sha: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Pipeline {
    #[serde(default)]
    status: Option<String>,
}

/// Tells a key that is there, with or without a value, from one that is not.
fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

impl Request {
    /// Whether the filters let it through. GitLab ignores a query key that it does not know, which would let everything through.
    pub(super) fn passes(&self, query: &ChangeRequestQuery) -> bool {
        let branch = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        (query.state == State::All || self.state == state_value(query.state))
            && same_name(query.author.as_deref(), &self.author.username)
            && branch(&query.source_branch, &self.source_branch)
            && branch(&query.target_branch, &self.target_branch)
    }

    /// How many files it changes, where that is exact: "5+" is not.
    pub(super) fn files(&self) -> Option<u64> {
        self.changes_count.as_deref()?.trim().parse().ok()
    }

    /// Our words for it in a list.
    pub(super) fn summary(&self, instance: &str, path: &ProjectPath, mask: &Mask) -> ChangeRequestSummary {
        let url = self.web_url.as_deref().and_then(web_address);
        ChangeRequestSummary {
            number: self.iid,
            title: line(&self.title, mask),
            state: state(&self.state, mask),
            draft: self.draft.or(self.work_in_progress).unwrap_or(false),
            author: line(&self.author.username, mask),
            source_branch: line(&self.source_branch, mask),
            target_branch: line(&self.target_branch, mask),
            created_at: short(&self.created_at, mask),
            updated_at: short(&self.updated_at, mask),
            url: mask.apply(&url.unwrap_or_else(|| format!("{instance}/{path}/-/merge_requests/{}", self.iid))),
        }
    }

    /// Our words for all of it.
    pub(super) fn details(
        &self,
        instance: &str,
        path: &ProjectPath,
        source_repository: SourceRepository,
        mask: &Mask,
    ) -> ChangeRequestDetails {
        let commit = |text: Option<&String>| text.map(|sha| word(sha, mask)).filter(|sha| !sha.is_empty());
        ChangeRequestDetails {
            summary: self.summary(instance, path, mask),
            description: paragraphs(self.description.as_deref().unwrap_or_default(), mask),
            source_repository,
            head: commit(self.sha.as_ref()),
            base: commit(self.diff_refs.as_ref().and_then(|refs| refs.base_sha.as_ref())),
            labels: labels(self.labels.iter().map(Label::name), mask),
            reviewers: names(&self.reviewers, mask),
            assignees: names(&self.assignees, mask),
            merge_status: self.merge_word(mask),
            pipeline: self.pipeline_word(mask),
            changed_files: self.files(),
        }
    }

    /// Servers before 15.6 have only the older, coarser word.
    fn merge_word(&self, mask: &Mask) -> String {
        let detailed = short(&self.detailed_merge_status, mask);
        if !detailed.is_empty() {
            return detailed;
        }
        match self.merge_status.as_deref().unwrap_or_default() {
            "can_be_merged" => "mergeable".to_owned(),
            "cannot_be_merged" | "cannot_be_merged_recheck" => "conflict".to_owned(),
            "" | "unchecked" | "checking" | "cannot_be_merged_rechecking" => "checking".to_owned(),
            other => word(other, mask),
        }
    }

    fn pipeline_word(&self, mask: &Mask) -> String {
        let newest = match (&self.head_pipeline, &self.pipeline) {
            (Some(Some(pipeline)), _) | (_, Some(Some(pipeline))) => pipeline,
            (None, None) => return "unknown".to_owned(),
            _ => return "none".to_owned(),
        };
        let status = short(&newest.status, mask);
        if status.is_empty() {
            "unknown".to_owned()
        } else {
            status
        }
    }
}

/// An issue, in a list or alone.
#[derive(Debug, Deserialize)]
pub(super) struct Issue {
    iid: u64,
    #[serde(default, deserialize_with = "nullable")]
    title: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    state: String,
    /// Absent from old servers, which have issues only.
    #[serde(default)]
    pub(super) issue_type: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    author: Person,
    #[serde(default, deserialize_with = "nullable")]
    labels: Vec<Label>,
    #[serde(default, deserialize_with = "nullable")]
    assignees: Vec<Person>,
    #[serde(default)]
    user_notes_count: Option<u64>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
    #[serde(default)]
    web_url: Option<String>,
}

impl Issue {
    /// What it is, where it is no issue: a task, an incident...
    pub(super) fn other_type(&self) -> Option<&str> {
        self.issue_type
            .as_deref()
            .filter(|kind| !kind.eq_ignore_ascii_case("issue"))
    }

    /// Whether the filters let it through.
    pub(super) fn passes(&self, query: &IssueQuery) -> bool {
        self.other_type().is_none()
            && (query.state == State::All || self.state == state_value(query.state))
            && same_name(query.author.as_deref(), &self.author.username)
            && query
                .labels
                .iter()
                .all(|wanted| self.labels.iter().any(|label| label.name() == wanted))
    }

    /// Our words for it in a list.
    pub(super) fn summary(&self, instance: &str, path: &ProjectPath, mask: &Mask) -> IssueSummary {
        let url = self.web_url.as_deref().and_then(web_address);
        IssueSummary {
            number: self.iid,
            title: line(&self.title, mask),
            state: state(&self.state, mask),
            author: line(&self.author.username, mask),
            labels: labels(self.labels.iter().map(Label::name), mask),
            created_at: short(&self.created_at, mask),
            updated_at: short(&self.updated_at, mask),
            url: mask.apply(&url.unwrap_or_else(|| format!("{instance}/{path}/-/issues/{}", self.iid))),
        }
    }

    /// Our words for all of it.
    pub(super) fn details(&self, instance: &str, path: &ProjectPath, mask: &Mask) -> IssueDetails {
        IssueDetails {
            summary: self.summary(instance, path, mask),
            description: paragraphs(self.description.as_deref().unwrap_or_default(), mask),
            assignees: names(&self.assignees, mask),
            comments: self.user_notes_count,
        }
    }
}

/// One note.
#[derive(Debug, Deserialize)]
pub(super) struct NoteRow {
    id: u64,
    #[serde(default, deserialize_with = "nullable")]
    author: Person,
    #[serde(default)]
    body: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    system: bool,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    resolvable: bool,
    #[serde(default, deserialize_with = "nullable")]
    resolved: bool,
    #[serde(default)]
    position: Option<Position>,
}

/// Where a note on a diff stands. A note on a whole file or an image has no line.
#[derive(Debug, Deserialize)]
struct Position {
    #[serde(default)]
    new_path: Option<String>,
    #[serde(default)]
    old_path: Option<String>,
    #[serde(default)]
    new_line: Option<u64>,
    #[serde(default)]
    old_line: Option<u64>,
}

impl NoteRow {
    /// Our words for it.
    pub(super) fn note(&self, mask: &Mask) -> Note {
        let position = self.position.as_ref();
        let path = position.and_then(|at| at.new_path.as_ref().or(at.old_path.as_ref()));
        Note {
            id: self.id.to_string(),
            author: line(&self.author.username, mask),
            body: paragraphs(self.body.as_deref().unwrap_or_default(), mask),
            system: self.system,
            created_at: short(&self.created_at, mask),
            path: path.map(|path| line(path, mask)),
            line: position.and_then(|at| at.new_line.or(at.old_line)),
            verdict: None,
        }
    }
}

/// A row of `GET .../discussions`
#[derive(Debug, Deserialize)]
pub(super) struct DiscussionRow {
    #[serde(default, deserialize_with = "nullable")]
    id: String,
    #[serde(default, deserialize_with = "nullable")]
    individual_note: bool,
    #[serde(default, deserialize_with = "nullable")]
    notes: Vec<NoteRow>,
}

impl DiscussionRow {
    /// Our words for it. What GitLab wrote itself cannot be answered.
    pub(super) fn discussion(&self, mask: &Mask) -> Discussion {
        let mut can_settle = self.notes.iter().filter(|note| note.resolvable).peekable();
        let resolved = can_settle
            .peek()
            .is_some()
            .then(|| can_settle.all(|note| note.resolved));
        let own = !self.notes.is_empty() && self.notes.iter().all(|note| note.system);
        Discussion {
            id: Some(word(&self.id, mask)).filter(|id| !own && !id.is_empty()),
            kind: if self.individual_note { "comment" } else { "discussion" }.to_owned(),
            resolved,
            notes: self.notes.iter().map(|note| note.note(mask)).collect(),
        }
    }
}
