//! What GitHub's API sends and takes, and the way from there to our words. Pure.
//!
//! Only the fields that are used are named; unknown fields and unknown values of known ones are tolerated.

use serde::{Deserialize, Serialize};

use crate::forge::lenient::nullable;
use crate::forge::text::{email, person, web_address};
use crate::forge::{ChangeRequest, ProjectFacts, Visibility};
use crate::message::{BranchName, CommitId, ProjectPath};

/// Longest title that GitHub stores.
pub(super) const LONGEST_TITLE: usize = 256;

/// Longest description that GitHub stores.
pub(super) const LONGEST_BODY: usize = 65_536;

/// `GET /user`
#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) id: u64,
    login: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    email: Option<String>,
}

impl User {
    /// The login, bounded.
    pub(super) fn account(&self) -> String {
        person(&self.login)
    }

    /// The name people write; the login where there is none.
    pub(super) fn display_name(&self) -> String {
        let name = person(self.name.as_deref().unwrap_or_default());
        if name.is_empty() { self.account() } else { name }
    }

    /// The public address, else the one that GitHub links to the account without telling an address. `host` is the instance's.
    pub(super) fn address(&self, host: &str) -> String {
        let private = format!("{}+{}@users.noreply.{host}", self.id, self.login);
        self.email
            .as_deref()
            .and_then(email)
            .or_else(|| email(&private))
            .unwrap_or_default()
    }
}

/// `GET /repos/:owner/:name`
#[derive(Debug, Deserialize)]
pub(super) struct Repository {
    id: u64,
    full_name: String,
    #[serde(default)]
    pub(super) default_branch: Option<String>,
    #[serde(default)]
    html_url: Option<String>,
    #[serde(default)]
    pub(super) clone_url: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    archived: bool,
    /// In kilobytes; 0 is an empty one, or a very small one.
    #[serde(default)]
    pub(super) size: Option<u64>,
    /// Not every route and server tells it; `private` is older.
    #[serde(default)]
    visibility: Option<String>,
    #[serde(default)]
    private: Option<bool>,
    #[serde(default)]
    permissions: Option<Permissions>,
}

#[derive(Debug, Deserialize)]
struct Permissions {
    #[serde(default, deserialize_with = "nullable")]
    push: bool,
}

impl Repository {
    /// Our words for it, without the default branch, which exists only when it can be read; the sentence names what is not well formed.
    pub(super) fn facts(self, instance: &str) -> Result<ProjectFacts, String> {
        let path: ProjectPath = self.full_name.parse().map_err(said)?;
        Ok(ProjectFacts {
            id: self.id.to_string(),
            default_branch: None,
            clone_url: format!("{instance}/{path}.git"),
            web_url: self
                .html_url
                .as_deref()
                .and_then(web_address)
                .unwrap_or_else(|| format!("{instance}/{path}")),
            // Where the answer says nothing, the push decides.
            may_push: self.permissions.is_none_or(|permissions| permissions.push),
            archived: self.archived,
            visibility: match (self.visibility.as_deref(), self.private) {
                // What is private by either word is private.
                (_, Some(true)) | (None, None) => match Visibility::of(self.visibility.as_deref()) {
                    Visibility::Internal => Visibility::Internal,
                    Visibility::Public | Visibility::Private => Visibility::Private,
                },
                (None, Some(false)) => Visibility::Public,
                (word, _) => Visibility::of(word),
            },
            path,
        })
    }
}

/// `GET /repos/:owner/:name/branches/:branch`
#[derive(Debug, Deserialize)]
pub(super) struct Branch {
    pub(super) name: String,
    pub(super) commit: Commit,
}

#[derive(Debug, Deserialize)]
pub(super) struct Commit {
    pub(super) sha: CommitId,
}

/// A pull request, as every route that gives one does.
#[derive(Debug, Deserialize)]
pub(super) struct PullRequest {
    pub(super) number: u64,
    #[serde(default)]
    html_url: Option<String>,
    title: String,
    #[serde(default)]
    body: Option<String>,
    state: String,
    #[serde(default, deserialize_with = "nullable")]
    draft: bool,
    head: Tip,
    base: Tip,
}

/// One end of a pull request.
#[derive(Debug, Deserialize)]
struct Tip {
    #[serde(rename = "ref")]
    branch: String,
    sha: String,
    /// Nothing when the fork is gone: then it is nobody's own branch.
    #[serde(default)]
    repo: Option<TipRepository>,
}

#[derive(Debug, Deserialize)]
struct TipRepository {
    id: u64,
}

impl PullRequest {
    /// Whether it is open and joins these branches of the project itself. A fork's branch may have the same name.
    pub(super) fn joins(&self, project: &ProjectFacts, source: &BranchName, target: &BranchName) -> bool {
        self.state == "open"
            && self.head.branch == source.as_str()
            && self.base.branch == target.as_str()
            && self
                .head
                .repo
                .as_ref()
                .is_some_and(|repo| repo.id.to_string() == project.id)
    }

    /// Our words for it; the sentence names the field that is not well formed.
    pub(super) fn change_request(self, instance: &str, project: &ProjectFacts) -> Result<ChangeRequest, String> {
        let url = self
            .html_url
            .as_deref()
            .and_then(web_address)
            .unwrap_or_else(|| format!("{instance}/{}/pull/{}", project.path, self.number));
        Ok(ChangeRequest {
            number: self.number,
            url,
            source_branch: self.head.branch.parse::<BranchName>().map_err(said)?.into(),
            target_branch: self.base.branch.parse::<BranchName>().map_err(said)?.into(),
            head: Some(self.head.sha.parse::<CommitId>().map_err(said)?),
            title: self.title,
            description: self.body.unwrap_or_default(),
            open: self.state == "open",
            draft: self.draft,
        })
    }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// `POST /repos/:owner/:name/pulls`
#[derive(Debug, Serialize)]
pub(super) struct NewPullRequest<'a> {
    pub(super) title: &'a str,
    pub(super) head: &'a str,
    pub(super) base: &'a str,
    pub(super) body: &'a str,
    pub(super) draft: bool,
}

/// `PATCH /repos/:owner/:name/pulls/:number`
#[derive(Debug, Serialize)]
pub(super) struct Rewrite<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) title: Option<&'a str>,
    pub(super) body: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(text: &str) -> Result<ProjectFacts, String> {
        serde_json::from_str::<Repository>(text).unwrap().facts("https://h")
    }

    #[test]
    fn pitfall_15_the_clone_address_is_built_from_the_instance() {
        let facts =
            repository(r#"{"id":7,"full_name":"o/r","clone_url":"https://evil/o/r.git","permissions":{"push":false}}"#)
                .unwrap();
        assert_eq!(facts.clone_url, "https://h/o/r.git");
        assert_eq!(facts.id, "7");
        assert!(!facts.may_push && !facts.archived);
        assert!(repository(r#"{"id":7,"full_name":"o/r"}"#).unwrap().may_push);
        assert!(repository(r#"{"id":7,"full_name":"o/../r"}"#).is_err());
    }

    #[test]
    fn users_without_a_public_address_get_the_linked_one() {
        let user = |text: &str| serde_json::from_str::<User>(text).unwrap();
        let private = user(r#"{"id":42,"login":"ann","name":null,"email":null}"#);
        assert_eq!(private.address("github.com"), "42+ann@users.noreply.github.com");
        assert_eq!(private.display_name(), "ann");
        assert_eq!(
            user(r#"{"id":42,"login":"ann","email":"a@x.org"}"#).address("h"),
            "a@x.org"
        );
        assert_eq!(
            user(r#"{"id":42,"login":"app[bot]"}"#).address("h"),
            "42+app[bot]@users.noreply.h"
        );
    }

    #[test]
    fn who_may_see_it_is_private_unless_github_says_otherwise() {
        for (fields, seen) in [
            (r#","private":false"#, Visibility::Public),
            (r#","private":true"#, Visibility::Private),
            (r#","private":false,"visibility":"public""#, Visibility::Public),
            (r#","private":true,"visibility":"internal""#, Visibility::Internal),
            (r#","private":false,"visibility":"internal""#, Visibility::Internal),
            (r#","private":true,"visibility":"public""#, Visibility::Private),
            (r#","private":false,"visibility":"new word""#, Visibility::Private),
            ("", Visibility::Private),
        ] {
            let text = format!(r#"{{"id":7,"full_name":"o/r"{fields}}}"#);
            assert_eq!(repository(&text).unwrap().visibility, seen, "{fields}");
        }
    }

    #[test]
    fn pull_requests_of_forks_are_not_ours() {
        let project = repository(r#"{"id":7,"full_name":"o/r"}"#).unwrap();
        let (source, target) = ("f".parse().unwrap(), "main".parse().unwrap());
        let pull = |repo: &str, state: &str| -> PullRequest {
            serde_json::from_str(&format!(
                r#"{{"number":1,"title":"t","state":"{state}","head":{{"ref":"f","sha":"x","repo":{repo}}},"base":{{"ref":"main","sha":"y"}}}}"#
            ))
            .unwrap()
        };
        assert!(pull(r#"{"id":7}"#, "open").joins(&project, &source, &target));
        assert!(!pull(r#"{"id":8}"#, "open").joins(&project, &source, &target));
        assert!(!pull("null", "open").joins(&project, &source, &target));
        assert!(!pull(r#"{"id":7}"#, "closed").joins(&project, &source, &target));
        assert!(
            pull(r#"{"id":7}"#, "open")
                .change_request("https://h", &project)
                .is_err()
        );
    }
}
