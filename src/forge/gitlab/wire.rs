//! What GitLab's API sends and takes, and the way from there to our words. Pure.
//!
//! Only the fields that are used are named; unknown fields and unknown values of known ones are tolerated.

use serde::{Deserialize, Serialize};

use crate::forge::lenient::nullable;
use crate::forge::text::{email, one_line, person, web_address};
use crate::forge::{ChangeRequest, ProjectFacts, Visibility};
use crate::message::{BranchName, CommitId, ProjectPath};

/// Longest title that GitLab stores.
const LONGEST_TITLE: usize = 255;

/// Access level of a developer: the least that pushes to a branch that is not protected.
const DEVELOPER: u64 = 30;

/// `GET /personal_access_tokens/self`
#[derive(Debug, Deserialize)]
pub(super) struct Token {
    /// Required, so that another product's answer is not taken for a token without scopes.
    pub(super) scopes: Vec<String>,
    #[serde(default)]
    pub(super) user_id: Option<u64>,
    #[serde(default)]
    pub(super) expires_at: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) revoked: bool,
    #[serde(default)]
    pub(super) active: Option<bool>,
    /// Newer servers say it here too.
    #[serde(default, deserialize_with = "nullable")]
    pub(super) granular: bool,
}

/// `GET /user`
#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) id: u64,
    pub(super) username: String,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    commit_email: Option<String>,
    #[serde(default)]
    public_email: Option<String>,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    pub(super) is_admin: Option<bool>,
}

impl User {
    /// The user name, bounded.
    pub(super) fn account(&self) -> String {
        person(&self.username)
    }

    /// The name people write; the user name where there is none.
    pub(super) fn display_name(&self) -> String {
        let name = person(self.name.as_deref().unwrap_or_default());
        if name.is_empty() { self.account() } else { name }
    }

    /// The first usable address; empty when GitLab tells none.
    pub(super) fn address(&self) -> String {
        [&self.commit_email, &self.public_email, &self.email]
            .into_iter()
            .flatten()
            .find_map(|text| email(text))
            .unwrap_or_default()
    }
}

/// `GET /projects/:id`
#[derive(Debug, Deserialize)]
pub(super) struct Project {
    pub(super) id: u64,
    path_with_namespace: String,
    #[serde(default)]
    default_branch: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    empty_repo: bool,
    #[serde(default)]
    web_url: Option<String>,
    #[serde(default)]
    pub(super) http_url_to_repo: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    archived: bool,
    #[serde(default)]
    visibility: Option<String>,
    #[serde(default)]
    permissions: Option<Permissions>,
}

#[derive(Debug, Deserialize)]
struct Permissions {
    #[serde(default)]
    project_access: Option<Access>,
    #[serde(default)]
    group_access: Option<Access>,
}

/// A membership, also `GET /projects/:id/members/all/:user_id`
#[derive(Debug, Deserialize)]
pub(super) struct Access {
    access_level: u64,
}

impl Access {
    /// Whether a member of this level may push.
    pub(super) fn may_push(&self) -> bool {
        self.access_level >= DEVELOPER
    }
}

impl Project {
    /// Whether the token's user may push, by the memberships that GitLab tells; `None` when it tells none.
    pub(super) fn may_push(&self) -> Option<bool> {
        let permissions = self.permissions.as_ref()?;
        [&permissions.project_access, &permissions.group_access]
            .into_iter()
            .flatten()
            .map(Access::may_push)
            .reduce(|one, other| one || other)
    }

    /// Our words for it; the sentence names the field that is not well formed.
    pub(super) fn facts(self, instance: &str, may_push: bool) -> Result<ProjectFacts, String> {
        let path: ProjectPath = self.path_with_namespace.parse().map_err(said)?;
        let default_branch = match self.default_branch.filter(|name| !self.empty_repo && !name.is_empty()) {
            Some(name) => Some(name.parse::<BranchName>().map_err(said)?),
            None => None,
        };
        Ok(ProjectFacts {
            id: self.id.to_string(),
            default_branch,
            // Not `http_url_to_repo`: an instance that does not know its own outside address is common.
            clone_url: format!("{instance}/{path}.git"),
            web_url: self
                .web_url
                .as_deref()
                .and_then(web_address)
                .unwrap_or_else(|| format!("{instance}/{path}")),
            may_push,
            archived: self.archived,
            visibility: Visibility::of(self.visibility.as_deref()),
            path,
        })
    }
}

/// `GET /projects/:id/repository/branches/:branch`
#[derive(Debug, Deserialize)]
pub(super) struct Branch {
    pub(super) name: String,
    pub(super) commit: Commit,
}

#[derive(Debug, Deserialize)]
pub(super) struct Commit {
    pub(super) id: CommitId,
}

/// A merge request, as every route that gives one does.
#[derive(Debug, Deserialize)]
pub(super) struct MergeRequest {
    pub(super) iid: u64,
    #[serde(default)]
    web_url: Option<String>,
    pub(super) source_branch: String,
    pub(super) target_branch: String,
    #[serde(default)]
    pub(super) source_project_id: Option<u64>,
    #[serde(default)]
    sha: Option<String>,
    title: String,
    #[serde(default)]
    description: Option<String>,
    state: String,
    #[serde(default)]
    draft: Option<bool>,
    #[serde(default)]
    work_in_progress: Option<bool>,
}

impl MergeRequest {
    /// Whether it is open and joins these branches of the project itself. A fork's branch may have the same name.
    pub(super) fn joins(&self, project: &ProjectFacts, source: &BranchName, target: &BranchName) -> bool {
        self.state == "opened"
            && self.source_branch == source.as_str()
            && self.target_branch == target.as_str()
            && self.source_project_id.is_some_and(|id| id.to_string() == project.id)
    }

    /// Whether it is a draft; servers before 13.2 have the older word only.
    pub(super) fn is_draft(&self) -> bool {
        self.draft.or(self.work_in_progress).unwrap_or(false)
    }

    /// Our words for it; the sentence names the field that is not well formed.
    pub(super) fn change_request(self, instance: &str, project: &ProjectFacts) -> Result<ChangeRequest, String> {
        let draft = self.is_draft();
        let head = match self.sha.filter(|sha| !sha.is_empty()) {
            Some(sha) => Some(sha.parse::<CommitId>().map_err(said)?),
            None => None,
        };
        let url = self
            .web_url
            .as_deref()
            .and_then(web_address)
            .unwrap_or_else(|| format!("{instance}/{}/-/merge_requests/{}", project.path, self.iid));
        Ok(ChangeRequest {
            number: self.iid,
            url,
            source_branch: self.source_branch.parse::<BranchName>().map_err(said)?.into(),
            target_branch: self.target_branch.parse::<BranchName>().map_err(said)?.into(),
            head,
            title: self.title,
            description: self.description.unwrap_or_default(),
            open: self.state == "opened",
            draft,
        })
    }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// `POST /projects/:id/merge_requests`
#[derive(Debug, Serialize)]
pub(super) struct NewMergeRequest<'a> {
    pub(super) source_branch: &'a str,
    pub(super) target_branch: &'a str,
    pub(super) title: String,
    pub(super) description: &'a str,
}

/// `PUT /projects/:id/merge_requests/:iid`
#[derive(Debug, Serialize)]
pub(super) struct Rewrite<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) title: Option<String>,
    pub(super) description: &'a str,
}

/// GitLab has no draft parameter: the beginning of the title decides. So any mark in it goes, and ours comes when it shall be one.
pub(super) fn marked(title: &str, draft: bool) -> String {
    let mut bare = title.trim();
    loop {
        let next = ["draft:", "[draft]", "(draft)", "wip:", "[wip]"]
            .iter()
            .find(|mark| {
                bare.get(..mark.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(mark))
            })
            .map(|mark| bare[mark.len()..].trim_start());
        match next {
            Some(rest) if !rest.is_empty() => bare = rest,
            _ => break,
        }
    }
    let mark = if draft { "Draft: " } else { "" };
    one_line(&format!("{mark}{bare}"), LONGEST_TITLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_carry_the_mark_that_is_asked_for() {
        for (title, draft, expected) in [
            ("Fix it", false, "Fix it"),
            ("Fix it", true, "Draft: Fix it"),
            ("Draft: Fix it", true, "Draft: Fix it"),
            ("draft: [WIP] Fix\nit", false, "Fix it"),
            ("Drafting tools", false, "Drafting tools"),
            ("Draft:", false, "Draft:"),
            ("ÄÖ", true, "Draft: ÄÖ"),
        ] {
            assert_eq!(marked(title, draft), expected);
        }
        assert_eq!(marked(&"x".repeat(400), true).chars().count(), LONGEST_TITLE);
    }

    fn project(text: &str) -> Project {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn pitfall_15_the_clone_address_is_built_from_the_instance() {
        let facts = project(
            r#"{"id":1,"path_with_namespace":"a/b/c","default_branch":"main","http_url_to_repo":"http://inner/a/b/c.git","web_url":"javascript:x"}"#,
        )
        .facts("https://h/gitlab", true)
        .unwrap();
        assert_eq!(facts.clone_url, "https://h/gitlab/a/b/c.git");
        assert_eq!(facts.web_url, "https://h/gitlab/a/b/c");
        assert_eq!(facts.default_branch.unwrap().as_str(), "main");
    }

    #[test]
    fn empty_repositories_have_no_default_branch() {
        for text in [
            r#"{"id":1,"path_with_namespace":"a/b","default_branch":null}"#,
            r#"{"id":1,"path_with_namespace":"a/b","default_branch":"main","empty_repo":true}"#,
            r#"{"id":1,"path_with_namespace":"a/b"}"#,
        ] {
            assert_eq!(project(text).facts("https://h", true).unwrap().default_branch, None);
        }
    }

    #[test]
    fn the_higher_of_both_memberships_counts() {
        for (permissions, expected) in [
            (
                r#"{"project_access":{"access_level":20},"group_access":{"access_level":30}}"#,
                Some(true),
            ),
            (
                r#"{"project_access":{"access_level":20},"group_access":null}"#,
                Some(false),
            ),
            (
                r#"{"project_access":null,"group_access":{"access_level":50}}"#,
                Some(true),
            ),
            (r#"{"project_access":null,"group_access":null}"#, None),
            ("null", None),
        ] {
            let text = format!(r#"{{"id":1,"path_with_namespace":"a/b","permissions":{permissions}}}"#);
            assert_eq!(project(&text).may_push(), expected, "{permissions}");
        }
    }

    #[test]
    fn ill_formed_names_are_errors() {
        for text in [
            r#"{"id":1,"path_with_namespace":"../../etc","default_branch":"main"}"#,
            r#"{"id":1,"path_with_namespace":"a/b","default_branch":"--upload-pack=x"}"#,
        ] {
            assert!(project(text).facts("https://h", true).is_err());
        }
        assert!(serde_json::from_str::<Branch>(r#"{"name":"x","commit":{"id":"HEAD"}}"#).is_err());
        assert!(serde_json::from_str::<Project>(r#"{"id":-1,"path_with_namespace":"a/b"}"#).is_err());
    }

    #[test]
    fn who_may_see_it_is_private_unless_gitlab_says_otherwise() {
        for (field, seen) in [
            (r#","visibility":"public""#, Visibility::Public),
            (r#","visibility":"internal""#, Visibility::Internal),
            (r#","visibility":"private""#, Visibility::Private),
            (r#","visibility":"new word""#, Visibility::Private),
            (r#","visibility":null"#, Visibility::Private),
            ("", Visibility::Private),
        ] {
            let text = format!(r#"{{"id":1,"path_with_namespace":"a/b"{field}}}"#);
            assert_eq!(
                project(&text).facts("https://h", true).unwrap().visibility,
                seen,
                "{field}"
            );
        }
    }

    #[test]
    fn the_first_usable_address_is_taken() {
        let user = |text: &str| serde_json::from_str::<User>(text).unwrap();
        let three = user(r#"{"id":1,"username":"u","commit_email":"","public_email":"p@x","email":"e@x"}"#);
        assert_eq!((three.address().as_str(), three.display_name().as_str()), ("p@x", "u"));
        assert_eq!(user(r#"{"id":1,"username":"u","name":"N"}"#).address(), "");
    }
}
