//! A forge made by hand: it answers what a test put in, and notes what it was asked.

use std::sync::Mutex;

use async_trait::async_trait;

use crate::forge::inspect::{
    ChangeRequestDetails, ChangeRequestQuery, ChangeRequestSummary, Diff, Discussion, FileDiff, IssueDetails,
    IssueQuery, IssueSummary, Note, Page, PageRequest, ProjectSummary, SourceRepository,
};
use crate::forge::{ForgeError, Inspect, ProjectFacts};
use crate::message::ProjectKey;
use crate::tools::{DiffRequest, Diffs, GitDiff};

#[derive(Default)]
pub(super) struct Double {
    /// What was asked, in order.
    pub(super) asked: Mutex<Vec<String>>,
    pub(super) change_requests: Vec<ChangeRequestSummary>,
    pub(super) description: String,
    pub(super) changed_files: Option<u64>,
    pub(super) discussions: Vec<Discussion>,
    pub(super) issues: Vec<IssueSummary>,
    pub(super) comments: Vec<Note>,
    pub(super) diff: Vec<FileDiff>,
    pub(super) next_page: Option<u32>,
    pub(super) incomplete: bool,
    pub(super) fails: Option<ForgeError>,
    pub(super) writes_fail: Option<ForgeError>,
    /// While it is closed, nothing that is written is answered.
    pub(super) write_gate: Option<tokio::sync::Semaphore>,
    pub(super) rate_left: Option<u8>,
    /// While it is closed, nothing is answered.
    pub(super) gate: Option<tokio::sync::Semaphore>,
}

pub(super) fn facts() -> ProjectFacts {
    ProjectFacts {
        id: "1".into(),
        path: "a/b".parse().unwrap(),
        default_branch: Some("main".parse().unwrap()),
        clone_url: "https://forge.example/a/b.git".into(),
        web_url: "https://forge.example/a/b".into(),
        may_push: true,
        archived: false,
        visibility: crate::forge::Visibility::Private,
    }
}

pub(super) fn change_request(number: u64, title: &str) -> ChangeRequestSummary {
    ChangeRequestSummary {
        number,
        title: title.into(),
        state: "open".into(),
        draft: false,
        author: "ada".into(),
        source_branch: "fix".into(),
        target_branch: "main".into(),
        created_at: "2026-11-01T00:00:00Z".into(),
        updated_at: "2026-11-02T00:00:00Z".into(),
        url: format!("https://forge.example/a/b/-/merge_requests/{number}"),
    }
}

pub(super) fn issue(number: u64, title: &str) -> IssueSummary {
    IssueSummary {
        number,
        title: title.into(),
        state: "open".into(),
        author: "ada".into(),
        labels: vec!["bug".into()],
        created_at: "2026-11-01T00:00:00Z".into(),
        updated_at: "2026-11-02T00:00:00Z".into(),
        url: format!("https://forge.example/a/b/-/issues/{number}"),
    }
}

pub(super) fn note(id: &str, body: &str) -> Note {
    Note {
        id: id.into(),
        author: "eve".into(),
        body: body.into(),
        system: false,
        created_at: "2026-11-01T00:00:00Z".into(),
        path: None,
        line: None,
        verdict: None,
    }
}

pub(super) fn file(path: &str, diff: Option<&str>, why: Option<&str>) -> FileDiff {
    FileDiff {
        path: path.into(),
        old_path: None,
        change: "modified".into(),
        diff: diff.map(str::to_owned),
        why: why.map(str::to_owned),
    }
}

impl Double {
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    async fn answer<T>(&self, asked: String, value: T) -> Result<T, ForgeError> {
        self.asked.lock().unwrap().push(asked);
        if let Some(gate) = &self.gate {
            drop(gate.acquire().await.unwrap());
        }
        self.fails.clone().map_or(Ok(value), Err)
    }

    async fn written(&self, done: Note) -> Result<Note, ForgeError> {
        if let Some(gate) = &self.write_gate {
            drop(gate.acquire().await.unwrap());
        }
        self.writes_fail.clone().map_or(Ok(done), Err)
    }

    fn page<T: Clone>(&self, items: &[T]) -> Page<T> {
        Page {
            items: items.to_vec(),
            next_page: self.next_page,
        }
    }
}

#[async_trait]
impl Inspect for Double {
    fn rate_left(&self) -> Option<u8> {
        self.rate_left
    }

    async fn projects(&self, _: Option<&str>, _: PageRequest) -> Result<Page<ProjectSummary>, ForgeError> {
        unreachable!("no tool lists projects")
    }

    async fn change_requests(
        &self,
        _: &ProjectFacts,
        query: &ChangeRequestQuery,
    ) -> Result<Page<ChangeRequestSummary>, ForgeError> {
        self.answer(format!("{query:?}"), self.page(&self.change_requests))
            .await
    }

    async fn change_request_details(&self, _: &ProjectFacts, number: u64) -> Result<ChangeRequestDetails, ForgeError> {
        let details = ChangeRequestDetails {
            summary: change_request(number, "One"),
            description: self.description.clone(),
            source_repository: SourceRepository::Fork,
            head: Some("b".repeat(40)),
            base: Some("a".repeat(40)),
            labels: Vec::new(),
            reviewers: Vec::new(),
            assignees: Vec::new(),
            merge_status: "mergeable".into(),
            pipeline: "success".into(),
            changed_files: self.changed_files,
        };
        self.answer(format!("details {number}"), details).await
    }

    async fn change_request_diff(&self, _: &ProjectFacts, number: u64, _: PageRequest) -> Result<Diff, ForgeError> {
        let diff = Diff {
            files: self.page(&self.diff),
            complete: !self.incomplete,
        };
        self.answer(format!("diff {number}"), diff).await
    }

    async fn discussions(&self, _: &ProjectFacts, number: u64, _: PageRequest) -> Result<Page<Discussion>, ForgeError> {
        self.answer(format!("discussions {number}"), self.page(&self.discussions))
            .await
    }

    async fn issues(&self, _: &ProjectFacts, query: &IssueQuery) -> Result<Page<IssueSummary>, ForgeError> {
        self.answer(format!("{query:?}"), self.page(&self.issues)).await
    }

    async fn issue(&self, _: &ProjectFacts, number: u64) -> Result<IssueDetails, ForgeError> {
        let details = IssueDetails {
            summary: issue(number, "One"),
            description: self.description.clone(),
            assignees: vec!["ada".into()],
            comments: Some(2),
        };
        self.answer(format!("issue {number}"), details).await
    }

    async fn issue_comments(&self, _: &ProjectFacts, number: u64, _: PageRequest) -> Result<Page<Note>, ForgeError> {
        self.answer(format!("comments {number}"), self.page(&self.comments))
            .await
    }

    async fn reply(
        &self,
        _: &ProjectFacts,
        number: u64,
        discussion: Option<&str>,
        body: &str,
    ) -> Result<Note, ForgeError> {
        let done = self
            .answer(format!("reply {number} {discussion:?} {body}"), note("n1", body))
            .await?;
        self.written(done).await
    }

    async fn comment_on_issue(&self, _: &ProjectFacts, number: u64, body: &str) -> Result<Note, ForgeError> {
        let done = self
            .answer(format!("comment {number} {body}"), note("n2", body))
            .await?;
        self.written(done).await
    }
}

/// A worker whose git has nothing.
pub(super) struct NoGit;

#[async_trait]
impl Diffs for NoGit {
    async fn diff(&self, _: &ProjectKey, _: &DiffRequest) -> Result<GitDiff, String> {
        Err("nothing here".into())
    }
}

/// A worker whose git has these files.
pub(super) struct InGit(pub(super) Vec<FileDiff>);

#[async_trait]
impl Diffs for InGit {
    async fn diff(&self, _: &ProjectKey, request: &DiffRequest) -> Result<GitDiff, String> {
        assert_eq!(request.head, Some("b".repeat(40)));
        Ok(GitDiff {
            base: "a".repeat(40),
            head: "b".repeat(40),
            total: self.0.len(),
            files: self.0.iter().skip(request.skip).take(request.most).cloned().collect(),
        })
    }
}
