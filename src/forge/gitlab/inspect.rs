//! Reading and answering on GitLab: projects, merge requests, issues, discussions.
//!
//! Never trusts that a filter was applied: each row is looked at again. Never sends a line that GitLab would take for a command.

mod diff;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod wire;

use async_trait::async_trait;
use http::Method;
use serde::Serialize;
use url::Url;

use super::{Gitlab, READ, refused};
use crate::forge::http::{Answer, Asked};
use crate::forge::inspect::{
    ChangeRequestDetails, ChangeRequestQuery, ChangeRequestSummary, Diff, Discussion, Inspect, IssueDetails,
    IssueQuery, IssueSummary, LONGEST_TEXT, Note, Page, PageRequest, ProjectSummary, SourceRepository, State,
};
use crate::forge::text::description;
use crate::forge::{ForgeError, ProjectFacts};
use diff::{Changes, FileRow};
use wire::{DiscussionRow, Issue, NoteRow, ProjectRow, Request, state_value};

const PROJECTS: Asked = Asked {
    endpoint: "projects",
    act: "list projects",
};
const LIST: Asked = Asked {
    endpoint: "change_requests",
    act: "list merge requests",
};
const SOURCE: Asked = Asked {
    endpoint: "source_project",
    act: "read the merge request's source project",
};
const DIFF: Asked = Asked {
    endpoint: "change_request_diff",
    act: "read the merge request's diff",
};
const DISCUSSIONS: Asked = Asked {
    endpoint: "discussions",
    act: "read the merge request's discussions",
};
const ISSUES: Asked = Asked {
    endpoint: "issues",
    act: "list issues",
};
const ISSUE: Asked = Asked {
    endpoint: "issue",
    act: "read the issue",
};
const COMMENTS: Asked = Asked {
    endpoint: "issue_comments",
    act: "read the issue's comments",
};
const REPLY: Asked = Asked {
    endpoint: "reply",
    act: "comment on the merge request",
};
const COMMENT: Asked = Asked {
    endpoint: "issue_comment",
    act: "comment on the issue",
};

#[derive(Serialize)]
struct NewNote {
    body: String,
}

/// A note that GitLab takes for a note: a line that begins with '/' would be a command of the token's user (merge, close, assign...).
fn harmless(body: &str) -> NewNote {
    let lines: Vec<String> = body
        .lines()
        .map(|line| {
            let bare = line.trim_start();
            match bare.strip_prefix('/') {
                Some(rest) => format!("{}\\/{rest}", &line[..line.len() - bare.len()]),
                None => line.to_owned(),
            }
        })
        .collect();
    NewNote {
        body: description(&lines.join("\n"), LONGEST_TEXT),
    }
}

fn request_named(project: &ProjectFacts, number: u64) -> String {
    super::what_request(project, &number.to_string())
}

fn issue_named(project: &ProjectFacts, number: u64) -> String {
    format!("the issue #{number} of {}", project.path)
}

impl Gitlab {
    /// The address of something below a project.
    fn list(&self, project: &ProjectFacts, rest: &[&str]) -> Url {
        let segments = [&["projects", project.id.as_str()], rest].concat();
        self.api.address.resource(&segments)
    }

    fn refusal<'a>(&'a self, asked: Asked, what: &'a str) -> impl Fn(&Answer) -> ForgeError + Send + Sync + 'a {
        move |answer| refused::error(&self.api, asked, what, answer)
    }

    async fn request(&self, project: &ProjectFacts, number: u64) -> Result<Request, ForgeError> {
        let segments = ["projects", &project.id, "merge_requests", &number.to_string()];
        self.read(READ, &request_named(project, number), &segments).await
    }

    /// Where a merge request's branch lives. A project that the token cannot see is its own state: nobody may push there.
    async fn source(&self, project: &ProjectFacts, request: &Request) -> Result<SourceRepository, ForgeError> {
        let Some(id) = request.source_project_id else {
            return Ok(SourceRepository::Unknown);
        };
        let id = id.to_string();
        if id == project.id {
            return Ok(SourceRepository::Same);
        }
        let seen = self
            .read::<ProjectRow>(SOURCE, "the source project", &["projects", &id])
            .await;
        match seen {
            Ok(_) => Ok(SourceRepository::Fork),
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(SourceRepository::Unknown),
        }
    }

    /// A page of the diff's files, and whether GitLab left files out of the whole. Servers before 15.7 know only the unpaged route.
    async fn files(
        &self,
        project: &ProjectFacts,
        number: u64,
        page: PageRequest,
    ) -> Result<(Page<FileRow>, bool), ForgeError> {
        let what = request_named(project, number);
        let iid = number.to_string();
        let url = self.list(project, &["merge_requests", &iid, "diffs"]);
        let paged = self.api.page(DIFF, &url, page, self.refusal(DIFF, &what)).await;
        match paged {
            Err(ForgeError::NotFound { .. }) => {
                let segments = ["projects", &project.id, "merge_requests", &iid, "changes"];
                let changes: Changes = self.read(DIFF, &what, &segments).await?;
                let overflow = changes.overflow;
                Ok((changes.page(page), overflow))
            }
            Err(error) => Err(error),
            Ok(read) if read.next_page.is_some() => Ok((read, false)),
            Ok(read) => {
                // The last page: the paged route does not say that files are missing after it, the count of the whole does.
                let before = u64::from(page.bounded().page - 1) * u64::from(page.bounded().per_page);
                let listed = before + u64::try_from(read.items.len()).unwrap_or(u64::MAX);
                let counted = self.request(project, number).await?.files();
                let whole = counted.is_some_and(|files| files <= listed);
                Ok((read, !whole))
            }
        }
    }

    async fn note(&self, asked: Asked, what: &str, url: &Url, body: &str) -> Result<Note, ForgeError> {
        let answer = self.api.write(asked, &Method::POST, url, &harmless(body)).await?;
        let row: NoteRow = self.parsed(asked, what, &answer)?;
        Ok(row.note(&self.api.mask))
    }
}

#[async_trait]
impl Inspect for Gitlab {
    fn rate_left(&self) -> Option<u8> {
        self.api.rate.left(std::time::Instant::now())
    }

    async fn projects(&self, search: Option<&str>, page: PageRequest) -> Result<Page<ProjectSummary>, ForgeError> {
        let mut url = self.api.address.resource(&["projects"]);
        url.query_pairs_mut()
            .append_pair("membership", "true")
            .append_pair("simple", "true")
            // The short form does not say which projects are archived, and nobody can work on those.
            .append_pair("archived", "false")
            .append_pair("order_by", "last_activity_at")
            .append_pair("sort", "desc");
        if let Some(words) = search.map(str::trim).filter(|words| !words.is_empty()) {
            url.query_pairs_mut()
                .append_pair("search", words)
                .append_pair("search_namespaces", "true");
        }
        let (instance, mask) = (&self.api.address.instance, &self.api.mask);
        self.api
            .page(PROJECTS, &url, page, self.refusal(PROJECTS, "the list of projects"))
            .await
            .map(|rows| rows.keep(|row: ProjectRow| row.summary(instance, mask)))
    }

    async fn change_requests(
        &self,
        project: &ProjectFacts,
        query: &ChangeRequestQuery,
    ) -> Result<Page<ChangeRequestSummary>, ForgeError> {
        let mut url = self.list(project, &["merge_requests"]);
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) {
                url.query_pairs_mut().append_pair(name, value);
            }
        };
        add("scope", Some("all"));
        add("state", Some(state_value(query.state)));
        add("author_username", query.author.as_deref());
        add("source_branch", query.source_branch.as_deref());
        add("target_branch", query.target_branch.as_deref());
        add("search", query.text.as_deref());
        let what = super::what(project);
        let (instance, mask) = (&self.api.address.instance, &self.api.mask);
        let keep = |row: Request| row.passes(query).then(|| row.summary(instance, &project.path, mask));
        self.api
            .kept_page(LIST, &url, query.page, self.refusal(LIST, &what), keep)
            .await
    }

    async fn change_request_details(
        &self,
        project: &ProjectFacts,
        number: u64,
    ) -> Result<ChangeRequestDetails, ForgeError> {
        let request = self.request(project, number).await?;
        let source = self.source(project, &request).await?;
        Ok(request.details(&self.api.address.instance, &project.path, source, &self.api.mask))
    }

    async fn change_request_diff(
        &self,
        project: &ProjectFacts,
        number: u64,
        page: PageRequest,
    ) -> Result<Diff, ForgeError> {
        let (rows, overflow) = self.files(project, number, page).await?;
        let mut complete = !overflow;
        let mut items = Vec::with_capacity(rows.items.len());
        for row in rows.items {
            let (file, whole) = row.file(&self.api.mask);
            complete &= whole;
            items.push(file);
        }
        let files = Page {
            items,
            next_page: rows.next_page,
        };
        Ok(Diff { files, complete })
    }

    async fn discussions(
        &self,
        project: &ProjectFacts,
        number: u64,
        page: PageRequest,
    ) -> Result<Page<Discussion>, ForgeError> {
        let url = self.list(project, &["merge_requests", &number.to_string(), "discussions"]);
        let what = request_named(project, number);
        self.api
            .page(DISCUSSIONS, &url, page, self.refusal(DISCUSSIONS, &what))
            .await
            .map(|rows| rows.keep(|row: DiscussionRow| Some(row.discussion(&self.api.mask))))
    }

    async fn issues(&self, project: &ProjectFacts, query: &IssueQuery) -> Result<Page<IssueSummary>, ForgeError> {
        if query.state == State::Merged {
            return Ok(Page {
                items: Vec::new(),
                next_page: None,
            });
        }
        let mut url = self.list(project, &["issues"]);
        let labels = query.labels.join(",");
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) {
                url.query_pairs_mut().append_pair(name, value);
            }
        };
        add("scope", Some("all"));
        add("issue_type", Some("issue"));
        add("state", Some(state_value(query.state)));
        add("author_username", query.author.as_deref());
        add("labels", Some(&labels));
        add("search", query.text.as_deref());
        let what = super::what(project);
        let (instance, mask) = (&self.api.address.instance, &self.api.mask);
        let keep = |row: Issue| row.passes(query).then(|| row.summary(instance, &project.path, mask));
        self.api
            .kept_page(ISSUES, &url, query.page, self.refusal(ISSUES, &what), keep)
            .await
    }

    async fn issue(&self, project: &ProjectFacts, number: u64) -> Result<IssueDetails, ForgeError> {
        let what = issue_named(project, number);
        let segments = ["projects", &project.id, "issues", &number.to_string()];
        let issue: Issue = self.read(ISSUE, &what, &segments).await?;
        if let Some(kind) = issue.other_type() {
            let kind = crate::forge::text::word(kind, &self.api.mask);
            return Err(ForgeError::NotFound {
                instance: self.api.address.instance.clone(),
                what: format!("{what} (number {number} is of the type {kind} there)"),
            });
        }
        Ok(issue.details(&self.api.address.instance, &project.path, &self.api.mask))
    }

    async fn issue_comments(
        &self,
        project: &ProjectFacts,
        number: u64,
        page: PageRequest,
    ) -> Result<Page<Note>, ForgeError> {
        let mut url = self.list(project, &["issues", &number.to_string(), "notes"]);
        // The newest come first by default.
        url.query_pairs_mut()
            .append_pair("sort", "asc")
            .append_pair("order_by", "created_at");
        let what = issue_named(project, number);
        self.api
            .page(COMMENTS, &url, page, self.refusal(COMMENTS, &what))
            .await
            .map(|rows| rows.keep(|row: NoteRow| Some(row.note(&self.api.mask))))
    }

    async fn reply(
        &self,
        project: &ProjectFacts,
        number: u64,
        discussion: Option<&str>,
        body: &str,
    ) -> Result<Note, ForgeError> {
        let iid = number.to_string();
        let mut segments = vec!["merge_requests", iid.as_str()];
        if let Some(id) = discussion {
            segments.extend(["discussions", id]);
        }
        segments.push("notes");
        let what = match discussion {
            Some(_) => format!("the discussion of {}", request_named(project, number)),
            None => request_named(project, number),
        };
        // Without these characters the id is one path segment, and names nothing else.
        let plain = |id: &str| !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if discussion.is_some_and(|id| !plain(id)) {
            return Err(ForgeError::NotFound {
                instance: self.api.address.instance.clone(),
                what,
            });
        }
        self.note(REPLY, &what, &self.list(project, &segments), body).await
    }

    async fn comment_on_issue(&self, project: &ProjectFacts, number: u64, body: &str) -> Result<Note, ForgeError> {
        let url = self.list(project, &["issues", &number.to_string(), "notes"]);
        self.note(COMMENT, &issue_named(project, number), &url, body).await
    }
}

#[cfg(test)]
mod tests;
