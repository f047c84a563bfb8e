//! GitLab, gitlab.com and self-managed, over its REST API.
//!
//! Never infers a right that only the push can prove, and never opens a second merge request where an open one joins the same branches.

#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod inspect;
mod refused;
mod scopes;
mod token;
mod wire;

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;

use super::address::Shape;
use super::http::pace::SETTLING_TRIES;
use super::http::{Answer, Api, Asked};
use super::{ChangeRequest, ChangeRequestText, Forge, ForgeError, Opened, ProjectFacts, TokenFacts};
use crate::message::{BranchName, Capabilities, CommitId, ForgeKind, ProjectPath};
use refused::NotCreated;
pub(super) use refused::{PUSH_MARKERS, limits_rate};
use wire::{Access, Branch, MergeRequest, NewMergeRequest, Project, Rewrite};

/// Where GitLab instances have what.
pub(super) const SHAPE: Shape = Shape {
    public_instance: "https://gitlab.com",
    public_api: None,
    api_suffix: "api/v4",
};

/// GitLab asks for no time between two writes.
pub(super) const BETWEEN_WRITES: Duration = Duration::ZERO;

const TOKEN: Asked = Asked {
    endpoint: "token",
    act: "say what the token may do",
};
const USER: Asked = Asked {
    endpoint: "user",
    act: "read the token's user",
};
const PROJECT: Asked = Asked {
    endpoint: "project",
    act: "read the project",
};
const MEMBER: Asked = Asked {
    endpoint: "member",
    act: "read the user's membership",
};
const BRANCH: Asked = Asked {
    endpoint: "branch",
    act: "read the branch",
};
const FIND: Asked = Asked {
    endpoint: "change_request_find",
    act: "list merge requests",
};
const CREATE: Asked = Asked {
    endpoint: "change_request_create",
    act: "open the merge request",
};
const READ: Asked = Asked {
    endpoint: "change_request_read",
    act: "read the merge request",
};
const REWRITE: Asked = Asked {
    endpoint: "change_request_update",
    act: "change the merge request",
};

/// Headers of every request.
pub(super) fn headers() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))])
}

/// The header that carries the token, and what stands before it.
pub(super) fn token_header() -> (HeaderName, &'static str) {
    (HeaderName::from_static("private-token"), "")
}

/// The token's user, once known.
struct Account {
    id: u64,
    administrator: bool,
}

/// One GitLab instance with one token.
pub(super) struct Gitlab {
    api: Api,
    account: OnceLock<Account>,
    /// What the scopes allow, once they are known.
    rights: Mutex<Capabilities>,
}

impl Gitlab {
    pub(super) fn new(api: Api) -> Self {
        Self {
            api,
            account: OnceLock::new(),
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

    async fn read<T: DeserializeOwned>(&self, asked: Asked, what: &str, segments: &[&str]) -> Result<T, ForgeError> {
        let answer = self.api.get(asked, self.api.address.resource(segments)).await?;
        self.parsed(asked, what, &answer)
    }

    /// The same for what is read again and again.
    async fn read_kept<T: DeserializeOwned>(
        &self,
        asked: Asked,
        what: &str,
        segments: &[&str],
    ) -> Result<T, ForgeError> {
        let answer = self.api.get_kept(asked, self.api.address.resource(segments)).await?;
        self.parsed(asked, what, &answer)
    }

    /// Whether the token's user may push to a project whose own answer names no membership. Invited groups give rights that only the
    /// list of members shows; where that cannot be asked, the push decides.
    async fn may_push_by_members(&self, project: u64) -> bool {
        let Some(account) = self.account.get() else {
            return true;
        };
        let segments = [
            "projects",
            &project.to_string(),
            "members",
            "all",
            &account.id.to_string(),
        ];
        match self.read::<Access>(MEMBER, "the membership", &segments).await {
            Ok(access) => access.may_push(),
            Err(ForgeError::NotFound { .. }) => account.administrator,
            Err(error) => {
                tracing::debug!(%error, "the membership is unknown; the push will tell");
                true
            }
        }
    }

    fn convert(
        &self,
        asked: Asked,
        project: &ProjectFacts,
        request: MergeRequest,
    ) -> Result<ChangeRequest, ForgeError> {
        request
            .change_request(&self.api.address.instance, project)
            .map_err(|said| self.api.misunderstood(asked, &said))
    }

    async fn find_open(
        &self,
        project: &ProjectFacts,
        source: &BranchName,
        target: &BranchName,
    ) -> Result<Option<MergeRequest>, ForgeError> {
        let mut url = self.api.address.resource(&["projects", &project.id, "merge_requests"]);
        url.query_pairs_mut()
            .append_pair("state", "opened")
            .append_pair("source_branch", source.as_str())
            .append_pair("target_branch", target.as_str())
            .append_pair("per_page", "100");
        let what = what(project);
        let refuse = |answer: &Answer| refused::error(&self.api, FIND, &what, answer);
        // The filters are checked again: GitLab ignores a query key that it does not know.
        let wanted = |request: &MergeRequest| request.joins(project, source, target);
        self.api.find(FIND, url, refuse, wanted).await
    }

    async fn read_request(&self, project: &ProjectFacts, number: u64) -> Result<MergeRequest, ForgeError> {
        let number = number.to_string();
        let segments = ["projects", &project.id, "merge_requests", &number];
        self.read(READ, &what_request(project, &number), &segments).await
    }

    async fn rewrite(
        &self,
        project: &ProjectFacts,
        number: u64,
        rewrite: &Rewrite<'_>,
    ) -> Result<MergeRequest, ForgeError> {
        let number = number.to_string();
        let url = self
            .api
            .address
            .resource(&["projects", &project.id, "merge_requests", &number]);
        let answer = self.api.write(REWRITE, &Method::PUT, &url, rewrite).await?;
        self.parsed(REWRITE, &what_request(project, &number), &answer)
    }

    /// Gives an open merge request the new text. Whether it is a draft stays as people left it.
    async fn adopt(
        &self,
        project: &ProjectFacts,
        found: &MergeRequest,
        text: &ChangeRequestText,
    ) -> Result<Opened, ForgeError> {
        let rewrite = Rewrite {
            title: Some(wire::marked(&text.title, found.is_draft())),
            description: &text.description,
        };
        let stored = self.rewrite(project, found.iid, &rewrite).await?;
        Ok(Opened::Adopted(self.convert(REWRITE, project, stored)?))
    }

    /// The merge request that stood in the way of a new one.
    async fn existing(
        &self,
        project: &ProjectFacts,
        source: &BranchName,
        target: &BranchName,
        number: Option<u64>,
    ) -> Result<Option<MergeRequest>, ForgeError> {
        if let Some(number) = number {
            let named = self.read_request(project, number).await?;
            if named.joins(project, source, target) {
                return Ok(Some(named));
            }
        }
        self.find_open(project, source, target).await
    }
}

fn what(project: &ProjectFacts) -> String {
    format!("the project {}", project.path)
}

fn what_request(project: &ProjectFacts, number: &str) -> String {
    format!("the merge request !{number} of {}", project.path)
}

#[async_trait]
impl Forge for Gitlab {
    fn kind(&self) -> ForgeKind {
        ForgeKind::Gitlab
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
        let what = format!("the project {path}");
        let project: Project = self.read_kept(PROJECT, &what, &["projects", path.as_str()]).await?;
        let may_push = match project.may_push() {
            Some(known) => known,
            None => self.may_push_by_members(project.id).await,
        };
        let named = project.http_url_to_repo.clone();
        let mut facts = project
            .facts(&self.api.address.instance, may_push)
            .map_err(|said| self.api.misunderstood(PROJECT, &said))?;
        facts.clone_url = self.api.address.clone_url(named.as_deref(), &facts.path);
        Ok(facts)
    }

    async fn branch_head(&self, project: &ProjectFacts, branch: &BranchName) -> Result<Option<CommitId>, ForgeError> {
        let segments = ["projects", &project.id, "repository", "branches", branch.as_str()];
        let what_branch = format!("the branch {branch} of {}", project.path);
        match self.read::<Branch>(BRANCH, &what_branch, &segments).await {
            Ok(found) if found.name == branch.as_str() => Ok(Some(found.commit.id)),
            Ok(_) => Ok(None),
            Err(ForgeError::NotFound { .. }) => {
                // The same status says that the project is gone: ask for it, rather than trust the words.
                self.read::<Project>(PROJECT, &what(project), &["projects", &project.id])
                    .await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn open_change_request(
        &self,
        project: &ProjectFacts,
        (source, target): (&BranchName, &BranchName),
        text: &ChangeRequestText,
        is_new: bool,
    ) -> Result<Opened, ForgeError> {
        if !is_new && let Some(found) = self.find_open(project, source, target).await? {
            return self.adopt(project, &found, text).await;
        }
        let url = self.api.address.resource(&["projects", &project.id, "merge_requests"]);
        let new = NewMergeRequest {
            source_branch: source.as_str(),
            target_branch: target.as_str(),
            title: wire::marked(&text.title, text.draft),
            description: &text.description,
        };
        let mut tries = 0;
        loop {
            let answer = self.api.write(CREATE, &Method::POST, &url, &new).await?;
            if answer.status.is_success() {
                let stored: MergeRequest = self.api.parse(CREATE, &answer)?;
                return Ok(Opened::New(self.convert(CREATE, project, stored)?));
            }
            match refused::not_created(&answer) {
                NotCreated::Exists(number) => {
                    if let Some(found) = self.existing(project, source, target, number).await? {
                        return self.adopt(project, &found, text).await;
                    }
                }
                NotCreated::BranchUnseen if tries < SETTLING_TRIES => {
                    tries += 1;
                    tokio::time::sleep(self.api.pace.settling).await;
                    continue;
                }
                NotCreated::BranchUnseen | NotCreated::Other => {}
            }
            return Err(refused::error(&self.api, CREATE, &what(project), &answer));
        }
    }

    async fn change_request(
        &self,
        project: &ProjectFacts,
        number: u64,
        description: Option<&str>,
    ) -> Result<ChangeRequest, ForgeError> {
        if let Some(description) = description {
            let rewrite = Rewrite {
                title: None,
                description,
            };
            self.rewrite(project, number, &rewrite).await?;
        }
        let stored = self.read_request(project, number).await?;
        self.convert(READ, project, stored)
    }
}

#[cfg(test)]
mod tests;
