//! GitHub, github.com and Enterprise Server, over its REST API.
//!
//! Never infers a right that only the push can prove, and never opens a second pull request where an open one joins the same branches.

#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod inspect;
mod refused;
mod scopes;
mod token;
mod wire;

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;

use super::address::Shape;
use super::http::pace::SETTLING_TRIES;
use super::http::{Answer, Api, Asked};
use super::text::{description, one_line};
use super::{ChangeRequest, ChangeRequestText, Forge, ForgeError, Opened, ProjectFacts, TokenFacts};
use crate::message::{BranchName, Capabilities, CommitId, ForgeKind, ProjectPath};
use refused::NotCreated;
pub(super) use refused::{PUSH_MARKERS, limits_rate};
use wire::{Branch, LONGEST_BODY, LONGEST_TITLE, NewPullRequest, PullRequest, Repository, Rewrite};

/// Where GitHub instances have what.
pub(super) const SHAPE: Shape = Shape {
    public_instance: "https://github.com",
    public_api: Some("https://api.github.com"),
    api_suffix: "api/v3",
};

/// GitHub asks for a second between two requests that make content.
pub(super) const BETWEEN_WRITES: Duration = Duration::from_secs(1);

const USER: Asked = Asked {
    endpoint: "user",
    act: "read the token's user",
};
const PROJECT: Asked = Asked {
    endpoint: "project",
    act: "read the repository",
};
const BRANCH: Asked = Asked {
    endpoint: "branch",
    act: "read the branch",
};
const FIND: Asked = Asked {
    endpoint: "change_request_find",
    act: "list pull requests",
};
const CREATE: Asked = Asked {
    endpoint: "change_request_create",
    act: "open the pull request",
};
const READ: Asked = Asked {
    endpoint: "change_request_read",
    act: "read the pull request",
};
const REWRITE: Asked = Asked {
    endpoint: "change_request_update",
    act: "change the pull request",
};

/// Headers of every request. The version is pinned: a newer one is known to break.
pub(super) fn headers() -> HeaderMap {
    HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("application/vnd.github+json")),
        (
            HeaderName::from_static("x-github-api-version"),
            HeaderValue::from_static("2022-11-28"),
        ),
    ])
}

/// The header that carries the token, and what stands before it.
pub(super) fn token_header() -> (HeaderName, &'static str) {
    (AUTHORIZATION, "Bearer ")
}

/// One GitHub instance with one token.
pub(super) struct Github {
    api: Api,
    /// What the scopes allow, once they are known.
    rights: Mutex<Capabilities>,
}

impl Github {
    pub(super) fn new(api: Api) -> Self {
        Self {
            api,
            rights: Mutex::new(Capabilities::UNPROVEN),
        }
    }

    fn parsed<T: DeserializeOwned>(&self, asked: Asked, what: &str, answer: &Answer) -> Result<T, ForgeError> {
        if answer.status.is_success() {
            self.api.parse(asked, answer)
        } else {
            Err(refused::error(&self.api, asked, what, answer))
        }
    }

    /// The segments below a repository. Its path has exactly two parts; another one cannot exist here.
    fn below<'a>(&self, path: &'a ProjectPath, rest: &[&'a str]) -> Result<Vec<&'a str>, ForgeError> {
        match path.as_str().split_once('/') {
            Some((owner, name)) if !name.contains('/') => Ok([&["repos", owner, name], rest].concat()),
            _ => Err(ForgeError::NotFound {
                instance: self.api.address.instance.clone(),
                what: what(path),
            }),
        }
    }

    async fn read<T: DeserializeOwned>(&self, asked: Asked, what: &str, segments: &[&str]) -> Result<T, ForgeError> {
        let answer = self.api.get(asked, self.api.address.resource(segments)).await?;
        self.parsed(asked, what, &answer)
    }

    /// The head of a branch. A renamed branch redirects to its successor, which is not the one that was asked for.
    async fn head(&self, path: &ProjectPath, branch: &str) -> Result<Option<CommitId>, ForgeError> {
        let url = self.api.address.resource(&self.below(path, &["branches", branch])?);
        let answer = self.api.get(BRANCH, url).await?;
        match answer.status.as_u16() {
            // 409 is an empty repository.
            404 | 409 => Ok(None),
            _ => {
                let found: Branch = self.parsed(BRANCH, &format!("the branch {branch} of {path}"), &answer)?;
                Ok((found.name == branch).then_some(found.commit.sha))
            }
        }
    }

    fn convert(&self, asked: Asked, project: &ProjectFacts, request: PullRequest) -> Result<ChangeRequest, ForgeError> {
        request
            .change_request(&self.api.address.instance, project)
            .map_err(|said| self.api.misunderstood(asked, &said))
    }

    async fn find_open(
        &self,
        project: &ProjectFacts,
        source: &BranchName,
        target: &BranchName,
    ) -> Result<Option<PullRequest>, ForgeError> {
        let segments = self.below(&project.path, &["pulls"])?;
        let owner = segments.get(1).copied().unwrap_or_default();
        let mut url = self.api.address.resource(&segments);
        // Without the owner the filter would be ignored.
        url.query_pairs_mut()
            .append_pair("state", "open")
            .append_pair("head", &format!("{owner}:{source}"))
            .append_pair("base", target.as_str())
            .append_pair("per_page", "100");
        let what = what(&project.path);
        let refuse = |answer: &Answer| refused::error(&self.api, FIND, &what, answer);
        let wanted = |request: &PullRequest| request.joins(project, source, target);
        self.api.find(FIND, url, refuse, wanted).await
    }

    async fn rewrite(
        &self,
        project: &ProjectFacts,
        number: u64,
        rewrite: &Rewrite<'_>,
    ) -> Result<PullRequest, ForgeError> {
        let number = number.to_string();
        let url = self
            .api
            .address
            .resource(&self.below(&project.path, &["pulls", &number])?);
        let answer = self.api.write(REWRITE, &Method::PATCH, &url, rewrite).await?;
        self.parsed(REWRITE, &what_request(project, &number), &answer)
    }

    /// Gives an open pull request the new text. Whether it is a draft cannot be changed here, and stays as people left it.
    async fn adopt(
        &self,
        project: &ProjectFacts,
        found: &PullRequest,
        title: &str,
        body: &str,
    ) -> Result<Opened, ForgeError> {
        let rewrite = Rewrite {
            title: Some(title),
            body,
        };
        let stored = self.rewrite(project, found.number, &rewrite).await?;
        Ok(Opened::Adopted(self.convert(REWRITE, project, stored)?))
    }
}

fn what(path: &ProjectPath) -> String {
    format!("the repository {path}")
}

fn what_request(project: &ProjectFacts, number: &str) -> String {
    format!("the pull request #{number} of {}", project.path)
}

#[async_trait]
impl Forge for Github {
    fn kind(&self) -> ForgeKind {
        ForgeKind::Github
    }

    fn instance(&self) -> &str {
        &self.api.address.instance
    }

    async fn token(&self) -> Result<TokenFacts, ForgeError> {
        self.ask_token().await
    }

    async fn probe(&self, project: &ProjectFacts) -> Capabilities {
        self.try_out(project).await
    }

    async fn project(&self, path: &ProjectPath) -> Result<ProjectFacts, ForgeError> {
        let url = self.api.address.resource(&self.below(path, &[])?);
        let answer = self.api.get_kept(PROJECT, url).await?;
        let repository: Repository = self.parsed(PROJECT, &what(path), &answer)?;
        let named = repository.clone_url.clone();
        let holds_something = repository.size.is_some_and(|size| size > 0);
        let default_branch = repository.default_branch.clone().filter(|name| !name.is_empty());
        let mut facts = repository
            .facts(&self.api.address.instance)
            .map_err(|said| self.api.misunderstood(PROJECT, &said))?;
        facts.clone_url = self.api.address.clone_url(named.as_deref(), &facts.path);
        // GitHub names a default branch for an empty repository too: where the size does not show it, only a branch that can be read exists.
        if let Some(name) = default_branch {
            let name: BranchName = name.parse().map_err(|error: crate::message::id::InvalidName| {
                self.api.misunderstood(PROJECT, &error.to_string())
            })?;
            let exists = holds_something || self.head(&facts.path, name.as_str()).await?.is_some();
            facts.default_branch = exists.then_some(name);
        }
        Ok(facts)
    }

    async fn branch_head(&self, project: &ProjectFacts, branch: &BranchName) -> Result<Option<CommitId>, ForgeError> {
        if let Some(head) = self.head(&project.path, branch.as_str()).await? {
            return Ok(Some(head));
        }
        // The same status says that the repository is gone: ask for it, rather than trust the words.
        let segments = self.below(&project.path, &[])?;
        self.read::<Repository>(PROJECT, &what(&project.path), &segments)
            .await?;
        Ok(None)
    }

    async fn open_change_request(
        &self,
        project: &ProjectFacts,
        (source, target): (&BranchName, &BranchName),
        text: &ChangeRequestText,
        is_new: bool,
    ) -> Result<Opened, ForgeError> {
        let title = one_line(&text.title, LONGEST_TITLE);
        let body = description(&text.description, LONGEST_BODY);
        if !is_new && let Some(found) = self.find_open(project, source, target).await? {
            return self.adopt(project, &found, &title, &body).await;
        }
        let url = self.api.address.resource(&self.below(&project.path, &["pulls"])?);
        let mut new = NewPullRequest {
            title: &title,
            head: source.as_str(),
            base: target.as_str(),
            body: &body,
            draft: text.draft,
        };
        let mut tries = 0;
        loop {
            let answer = self.api.write(CREATE, &Method::POST, &url, &new).await?;
            if answer.status.is_success() {
                let stored: PullRequest = self.api.parse(CREATE, &answer)?;
                return Ok(Opened::New(self.convert(CREATE, project, stored)?));
            }
            match refused::not_created(&answer) {
                NotCreated::NoDrafts if new.draft => {
                    new.draft = false;
                    continue;
                }
                NotCreated::BranchUnseen if tries < SETTLING_TRIES => {
                    tries += 1;
                    tokio::time::sleep(self.api.pace.settling).await;
                    continue;
                }
                NotCreated::Exists => {
                    if let Some(found) = self.find_open(project, source, target).await? {
                        return self.adopt(project, &found, &title, &body).await;
                    }
                }
                NotCreated::NoDrafts | NotCreated::BranchUnseen | NotCreated::Other => {}
            }
            return Err(refused::error(&self.api, CREATE, &what(&project.path), &answer));
        }
    }

    async fn change_request(
        &self,
        project: &ProjectFacts,
        number: u64,
        description: Option<&str>,
    ) -> Result<ChangeRequest, ForgeError> {
        if let Some(text) = description {
            let body = super::text::description(text, LONGEST_BODY);
            let rewrite = Rewrite {
                title: None,
                body: &body,
            };
            self.rewrite(project, number, &rewrite).await?;
        }
        let number = number.to_string();
        let segments = self.below(&project.path, &["pulls", &number])?;
        let stored: PullRequest = self.read(READ, &what_request(project, &number), &segments).await?;
        self.convert(READ, project, stored)
    }
}

#[cfg(test)]
mod tests;
