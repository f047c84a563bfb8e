//! Reading and answering on GitHub: repositories, pull requests, issues, conversations.
//!
//! Never takes an issue for a pull request or the other way round: GitHub numbers them in one row and lists them together.

mod checks;
mod diff;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod search;
mod talk;
mod wire;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::wire::LONGEST_BODY;
use super::{Github, READ, refused};
use crate::forge::http::{Answer, Asked};
use crate::forge::inspect::{
    ChangeRequestDetails, ChangeRequestQuery, ChangeRequestSummary, Diff, Discussion, Inspect, IssueDetails,
    IssueQuery, IssueSummary, LARGEST_PAGE, Note, Page, PageRequest, ProjectSummary, State,
};
use crate::forge::text::description;
use crate::forge::{ForgeError, ProjectFacts};
use checks::{CheckRuns, Combined};
use diff::FileRow;
use search::Filters;
use talk::{Comment, Review};
use wire::{Found, Installed, Issue, Pull, RepositoryRow, state_value};

const PROJECTS: Asked = Asked {
    endpoint: "projects",
    act: "list repositories",
};
const LIST: Asked = Asked {
    endpoint: "change_requests",
    act: "list pull requests",
};
const SEARCH: Asked = Asked {
    endpoint: "search",
    act: "search the repository",
};
const CHECKS: Asked = Asked {
    endpoint: "checks",
    act: "read the state of the checks",
};
const DIFF: Asked = Asked {
    endpoint: "change_request_diff",
    act: "read the pull request's files",
};
const DISCUSSIONS: Asked = Asked {
    endpoint: "discussions",
    act: "read the pull request's conversation",
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
    act: "comment on the pull request",
};
const COMMENT: Asked = Asked {
    endpoint: "issue_comment",
    act: "comment on the issue",
};

/// A search tells no branches: each pull request that it finds is read, so a page of them is small.
const LARGEST_SEARCH: u32 = 20;

/// How many of those are read at once.
const AT_ONCE: usize = 4;

#[derive(Serialize)]
struct NewComment {
    body: String,
}

fn pull_named(project: &ProjectFacts, number: u64) -> String {
    super::what_request(project, &number.to_string())
}

fn issue_named(project: &ProjectFacts, number: u64) -> String {
    format!("the issue #{number} of {}", project.path)
}

fn nothing<T>() -> Page<T> {
    Page {
        items: Vec::new(),
        next_page: None,
    }
}

impl Github {
    fn list(&self, project: &ProjectFacts, rest: &[&str]) -> Result<Url, ForgeError> {
        Ok(self.api.address.resource(&self.below(&project.path, rest)?))
    }

    fn refusal<'a>(&'a self, asked: Asked, what: &'a str) -> impl Fn(&Answer) -> ForgeError + Send + Sync + 'a {
        move |answer| refused::error(&self.api, asked, what, answer)
    }

    fn not_found(&self, what: String) -> ForgeError {
        ForgeError::NotFound {
            instance: self.api.address.instance.clone(),
            what,
        }
    }

    /// A number, whatever it belongs to. An issue that was moved to another repository redirects there, wherever the user may read: that
    /// one is not of this project.
    async fn numbered(&self, project: &ProjectFacts, number: u64) -> Result<Issue, ForgeError> {
        let iid = number.to_string();
        let segments = self.below(&project.path, &["issues", &iid])?;
        let what = issue_named(project, number);
        let found: Issue = self.read(ISSUE, &what, &segments).await?;
        if found.number != number || found.is_elsewhere(&project.path) {
            return Err(self.not_found(format!("{what} (it was moved to another repository)")));
        }
        Ok(found)
    }

    /// An issue; a pull request of this number is not one.
    async fn real_issue(&self, project: &ProjectFacts, number: u64) -> Result<Issue, ForgeError> {
        let found = self.numbered(project, number).await?;
        if found.is_pull() {
            let what = format!(
                "{} (number {number} is a pull request there)",
                issue_named(project, number)
            );
            return Err(self.not_found(what));
        }
        Ok(found)
    }

    async fn pull(&self, project: &ProjectFacts, number: u64) -> Result<Pull, ForgeError> {
        let iid = number.to_string();
        let segments = self.below(&project.path, &["pulls", &iid])?;
        self.read(READ, &pull_named(project, number), &segments).await
    }

    /// The same error, which says so where the number that is no pull request is an issue.
    async fn explained(&self, error: ForgeError, project: &ProjectFacts, number: u64) -> ForgeError {
        if matches!(error, ForgeError::NotFound { .. })
            && let Ok(issue) = self.numbered(project, number).await
            && !issue.is_pull()
        {
            let what = format!("{} (number {number} is an issue there)", pull_named(project, number));
            return self.not_found(what);
        }
        error
    }

    /// One more answer about a commit; `None` where the token may not read it.
    async fn about_commit<T: DeserializeOwned>(
        &self,
        project: &ProjectFacts,
        sha: &str,
        about: &str,
    ) -> Result<Option<T>, ForgeError> {
        let mut url = self.list(project, &["commits", sha, about])?;
        url.query_pairs_mut().append_pair("per_page", "100");
        let answer = self.api.get(CHECKS, url).await?;
        match self.parsed(CHECKS, "the head commit", &answer) {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(None),
        }
    }

    async fn pipeline(&self, project: &ProjectFacts, pull: &Pull) -> Result<String, ForgeError> {
        let Some(sha) = pull.head() else {
            return Ok("unknown".to_owned());
        };
        let (runs, statuses) = tokio::try_join!(
            self.about_commit::<CheckRuns>(project, sha, "check-runs"),
            self.about_commit::<Combined>(project, sha, "status"),
        )?;
        Ok(checks::pipeline(runs.as_ref(), statuses.as_ref(), &self.api.mask))
    }

    /// A page of what a search finds in this repository.
    async fn found(&self, project: &ProjectFacts, query: &str, page: PageRequest) -> Result<Page<Issue>, ForgeError> {
        let mut url = self.api.address.resource(&["search", "issues"]);
        url.query_pairs_mut()
            .append_pair("q", query)
            .append_pair("sort", "created")
            .append_pair("order", "desc");
        let (answer, next_page) = self.api.page_answer(SEARCH, &url, page).await?;
        let found: Found = self.parsed(SEARCH, &super::what(&project.path), &answer)?;
        let items = found.items.into_iter().filter(|row| row.is_of(&project.path)).collect();
        Ok(Page { items, next_page })
    }

    async fn searched_pulls(
        &self,
        project: &ProjectFacts,
        query: &ChangeRequestQuery,
    ) -> Result<Page<ChangeRequestSummary>, ForgeError> {
        let filters = Filters {
            author: query.author.as_deref(),
            head: query.source_branch.as_deref(),
            base: query.target_branch.as_deref(),
            labels: &[],
        };
        let path = project.path.as_str();
        let Some(words) = search::query(path, "pr", query.state, query.text.as_deref(), &filters) else {
            return Ok(nothing());
        };
        let page = PageRequest {
            page: query.page.page,
            per_page: query.page.per_page.min(LARGEST_SEARCH),
        };
        let found = self.found(project, &words, page).await?;
        let numbers = found.items.iter().filter(|row| row.is_pull()).map(|row| row.number);
        let reads: Vec<_> = numbers.map(|number| self.pull(project, number)).collect();
        let pulls: Vec<Pull> = futures::stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        let (instance, mask) = (&self.api.address.instance, &self.api.mask);
        let items = pulls
            .iter()
            .filter(|pull| pull.passes(query))
            .map(|pull| pull.summary(instance, &project.path, mask))
            .collect();
        Ok(Page {
            items,
            next_page: found.next_page,
        })
    }

    /// The repositories of an App's installation, which is no user.
    async fn installed(&self, search: Option<&str>, page: PageRequest) -> Result<Page<ProjectSummary>, ForgeError> {
        let url = self.api.address.resource(&["installation", "repositories"]);
        let (answer, next_page) = self.api.page_answer(PROJECTS, &url, page).await?;
        let rows: Installed = self.parsed(PROJECTS, "the list of repositories", &answer)?;
        let (instance, mask) = (&self.api.address.instance, &self.api.mask);
        let items = rows.repositories;
        Ok(Page { items, next_page }.keep(|row| row.summary(search, instance, mask)))
    }

    async fn comment(&self, asked: Asked, what: &str, url: &Url, body: &str) -> Result<Note, ForgeError> {
        let new = NewComment {
            body: description(body, LONGEST_BODY),
        };
        let answer = self.api.write(asked, &Method::POST, url, &new).await?;
        let stored: Comment = self.parsed(asked, what, &answer)?;
        Ok(stored.note(&self.api.mask))
    }
}

#[async_trait]
impl Inspect for Github {
    fn rate_left(&self) -> Option<u8> {
        self.api.rate.left(std::time::Instant::now())
    }

    async fn projects(&self, search: Option<&str>, page: PageRequest) -> Result<Page<ProjectSummary>, ForgeError> {
        let search = search.map(str::trim).filter(|words| !words.is_empty());
        let mut url = self.api.address.resource(&["user", "repos"]);
        url.query_pairs_mut().append_pair("sort", "pushed");
        // GitHub has no search in one's own repositories: its pages are looked through, large ones.
        let page = PageRequest {
            per_page: search.map_or(page.per_page, |_| LARGEST_PAGE),
            ..page
        };
        let (instance, mask) = (&self.api.address.instance, &self.api.mask);
        let keep = |row: RepositoryRow| row.summary(search, instance, mask);
        let refuse = self.refusal(PROJECTS, "the list of repositories");
        match self.api.kept_page(PROJECTS, &url, page, refuse, keep).await {
            Err(ForgeError::ScopeMissing { .. }) => self.installed(search, page).await,
            listed => listed,
        }
    }

    async fn change_requests(
        &self,
        project: &ProjectFacts,
        query: &ChangeRequestQuery,
    ) -> Result<Page<ChangeRequestSummary>, ForgeError> {
        if query.author.is_some() || query.text.as_deref().is_some_and(|text| !text.trim().is_empty()) {
            return self.searched_pulls(project, query).await;
        }
        let segments = self.below(&project.path, &["pulls"])?;
        let owner = segments.get(1).copied().unwrap_or_default();
        let mut url = self.api.address.resource(&segments);
        url.query_pairs_mut().append_pair("state", state_value(query.state));
        if let Some(source) = &query.source_branch {
            url.query_pairs_mut().append_pair("head", &format!("{owner}:{source}"));
        }
        if let Some(target) = &query.target_branch {
            url.query_pairs_mut().append_pair("base", target);
        }
        let what = super::what(&project.path);
        let (instance, mask) = (&self.api.address.instance, &self.api.mask);
        let keep = |row: Pull| row.passes(query).then(|| row.summary(instance, &project.path, mask));
        self.api
            .kept_page(LIST, &url, query.page, self.refusal(LIST, &what), keep)
            .await
    }

    async fn change_request_details(
        &self,
        project: &ProjectFacts,
        number: u64,
    ) -> Result<ChangeRequestDetails, ForgeError> {
        let pull = match self.pull(project, number).await {
            Ok(pull) => pull,
            Err(error) => return Err(self.explained(error, project, number).await),
        };
        let pipeline = self.pipeline(project, &pull).await?;
        let place = (&project.path, project.id.as_str());
        Ok(pull.details(&self.api.address.instance, place, pipeline, &self.api.mask))
    }

    async fn change_request_diff(
        &self,
        project: &ProjectFacts,
        number: u64,
        page: PageRequest,
    ) -> Result<Diff, ForgeError> {
        let url = self.list(project, &["pulls", &number.to_string(), "files"])?;
        let what = pull_named(project, number);
        let read = self
            .api
            .page::<FileRow>(DIFF, &url, page, self.refusal(DIFF, &what))
            .await;
        let rows = match read {
            Ok(rows) => rows,
            Err(error) => return Err(self.explained(error, project, number).await),
        };
        let mut complete = true;
        if rows.next_page.is_none() {
            // The last page: GitHub lists 3,000 files at most, and only the count of the whole tells that there are more.
            let before = u64::from(page.bounded().page - 1) * u64::from(page.bounded().per_page);
            let listed = before + u64::try_from(rows.items.len()).unwrap_or(u64::MAX);
            let counted = self.pull(project, number).await?.changed_files;
            complete = counted.is_some_and(|files| files <= listed);
        }
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
        let iid = number.to_string();
        let what = pull_named(project, number);
        let reviews = self.list(project, &["pulls", &iid, "reviews"])?;
        let on_diff = self.list(project, &["pulls", &iid, "comments"])?;
        let comments = self.list(project, &["issues", &iid, "comments"])?;
        let read = tokio::try_join!(
            self.api
                .page::<Review>(DISCUSSIONS, &reviews, page, self.refusal(DISCUSSIONS, &what)),
            self.api
                .page::<Comment>(DISCUSSIONS, &on_diff, page, self.refusal(DISCUSSIONS, &what)),
            self.api
                .page::<Comment>(DISCUSSIONS, &comments, page, self.refusal(DISCUSSIONS, &what)),
        );
        match read {
            Ok((reviews, on_diff, comments)) => Ok(Page {
                items: talk::conversation(&comments.items, &reviews.items, &on_diff.items, &self.api.mask),
                next_page: [reviews.next_page, on_diff.next_page, comments.next_page]
                    .into_iter()
                    .flatten()
                    .min(),
            }),
            Err(error) => Err(self.explained(error, project, number).await),
        }
    }

    async fn issues(&self, project: &ProjectFacts, query: &IssueQuery) -> Result<Page<IssueSummary>, ForgeError> {
        if query.state == State::Merged {
            return Ok(nothing());
        }
        let (instance, mask) = (&self.api.address.instance, &self.api.mask);
        let keep = |row: Issue| row.passes(query).then(|| row.summary(instance, &project.path, mask));
        if query.text.as_deref().is_some_and(|text| !text.trim().is_empty()) {
            let filters = Filters {
                author: query.author.as_deref(),
                labels: &query.labels,
                ..Filters::default()
            };
            let path = project.path.as_str();
            let words = search::query(path, "issue", query.state, query.text.as_deref(), &filters);
            return match words {
                Some(words) => Ok(self.found(project, &words, query.page).await?.keep(keep)),
                None => Ok(nothing()),
            };
        }
        let mut url = self.list(project, &["issues"])?;
        url.query_pairs_mut().append_pair("state", state_value(query.state));
        if let Some(author) = &query.author {
            url.query_pairs_mut().append_pair("creator", author);
        }
        if !query.labels.is_empty() {
            url.query_pairs_mut().append_pair("labels", &query.labels.join(","));
        }
        let what = super::what(&project.path);
        self.api
            .kept_page(ISSUES, &url, query.page, self.refusal(ISSUES, &what), keep)
            .await
    }

    async fn issue(&self, project: &ProjectFacts, number: u64) -> Result<IssueDetails, ForgeError> {
        let issue = self.real_issue(project, number).await?;
        Ok(issue.details(&self.api.address.instance, &project.path, &self.api.mask))
    }

    async fn issue_comments(
        &self,
        project: &ProjectFacts,
        number: u64,
        page: PageRequest,
    ) -> Result<Page<Note>, ForgeError> {
        self.real_issue(project, number).await?;
        let url = self.list(project, &["issues", &number.to_string(), "comments"])?;
        let what = issue_named(project, number);
        self.api
            .page(COMMENTS, &url, page, self.refusal(COMMENTS, &what))
            .await
            .map(|rows| rows.keep(|row: Comment| Some(row.note(&self.api.mask))))
    }

    async fn reply(
        &self,
        project: &ProjectFacts,
        number: u64,
        discussion: Option<&str>,
        body: &str,
    ) -> Result<Note, ForgeError> {
        let iid = number.to_string();
        let what = pull_named(project, number);
        let url = match discussion {
            Some(id) => {
                let what = format!("the discussion of {what}");
                let id: u64 = id.parse().map_err(|_| self.not_found(what))?;
                self.list(project, &["pulls", &iid, "comments", &id.to_string(), "replies"])?
            }
            None => {
                // The route takes issues too.
                if let Err(error) = self.pull(project, number).await {
                    return Err(self.explained(error, project, number).await);
                }
                self.list(project, &["issues", &iid, "comments"])?
            }
        };
        self.comment(REPLY, &what, &url, body).await
    }

    async fn comment_on_issue(&self, project: &ProjectFacts, number: u64, body: &str) -> Result<Note, ForgeError> {
        self.real_issue(project, number).await?;
        let url = self.list(project, &["issues", &number.to_string(), "comments"])?;
        self.comment(COMMENT, &issue_named(project, number), &url, body).await
    }
}

#[cfg(test)]
mod tests;
