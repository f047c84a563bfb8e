//! A repository as GitHub's REST shows it. Pure.

use serde_json::{Value, json};

use super::users::owner;
use super::wire::{node, time};
use crate::forge::Forge;
use crate::forge::json::extend;
use crate::forge::seed::{Role, Visibility};
use crate::forge::state::{Caller, Project, Standing};

/// `key` to the rest of the address under the repository's own.
const ADDRESSES: [(&str, &str); 37] = [
    ("forks_url", "/forks"),
    ("keys_url", "/keys{/key_id}"),
    ("collaborators_url", "/collaborators{/collaborator}"),
    ("teams_url", "/teams"),
    ("hooks_url", "/hooks"),
    ("issue_events_url", "/issues/events{/number}"),
    ("events_url", "/events"),
    ("assignees_url", "/assignees{/user}"),
    ("branches_url", "/branches{/branch}"),
    ("tags_url", "/tags"),
    ("blobs_url", "/git/blobs{/sha}"),
    ("git_tags_url", "/git/tags{/sha}"),
    ("git_refs_url", "/git/refs{/sha}"),
    ("trees_url", "/git/trees{/sha}"),
    ("statuses_url", "/statuses/{sha}"),
    ("languages_url", "/languages"),
    ("stargazers_url", "/stargazers"),
    ("contributors_url", "/contributors"),
    ("subscribers_url", "/subscribers"),
    ("subscription_url", "/subscription"),
    ("commits_url", "/commits{/sha}"),
    ("git_commits_url", "/git/commits{/sha}"),
    ("comments_url", "/comments{/number}"),
    ("issue_comment_url", "/issues/comments{/number}"),
    ("contents_url", "/contents/{+path}"),
    ("compare_url", "/compare/{base}...{head}"),
    ("merges_url", "/merges"),
    ("archive_url", "/{archive_format}{/ref}"),
    ("downloads_url", "/downloads"),
    ("issues_url", "/issues{/number}"),
    ("pulls_url", "/pulls{/number}"),
    ("milestones_url", "/milestones{/number}"),
    ("notifications_url", "/notifications{?since,all,participating}"),
    ("labels_url", "/labels{/name}"),
    ("releases_url", "/releases{/id}"),
    ("deployments_url", "/deployments"),
    ("url", ""),
];

/// Address of a repository in the REST API.
pub(crate) fn rest_url(forge: &Forge, project: &Project) -> String {
    format!("{}/api/v3/repos/{}", forge.github(), project.path)
}

/// Address of a repository for people.
pub(crate) fn web_url(forge: &Forge, project: &Project) -> String {
    format!("{}/{}", forge.github(), project.path)
}

fn visibility(project: &Project) -> &'static str {
    match project.visibility {
        Visibility::Private => "private",
        Visibility::Internal => "internal",
        Visibility::Public => "public",
    }
}

/// One repository; `full` adds what only the single answer has.
pub(crate) fn repository(forge: &Forge, project: &Project, caller: Option<&Caller>, full: bool) -> Value {
    let (rest, web) = (rest_url(forge, project), web_url(forge, project));
    let open = project
        .issues
        .iter()
        .filter(|one| one.standing == Standing::Open)
        .count()
        + project
            .change_requests
            .iter()
            .filter(|one| one.standing == Standing::Open)
            .count();
    let mut body = json!({
        "id": project.id,
        "node_id": node("Repository", project.id),
        "name": project.name(),
        "full_name": project.path,
        "private": project.visibility != Visibility::Public,
        "owner": owner(forge, project),
        "html_url": web,
        "description": project.description,
        "fork": false,
        "created_at": time(project.created_at),
        "updated_at": time(project.last_activity),
        "pushed_at": time(project.last_activity),
        "git_url": format!("git://127.0.0.1/{}.git", project.path),
        "ssh_url": format!("git@127.0.0.1:{}.git", project.path),
        "clone_url": format!("{web}.git"),
        "svn_url": web,
    });
    let more = json!({
        "homepage": null,
        "size": 0,
        "stargazers_count": 0,
        "watchers_count": 0,
        "language": null,
        "has_issues": project.issues_enabled,
        "has_projects": true,
        "has_downloads": true,
        "has_wiki": false,
        "has_pages": false,
        "has_discussions": false,
        "forks_count": 0,
        "mirror_url": null,
        "archived": project.archived,
        "disabled": false,
        "open_issues_count": open,
        "license": null,
        "allow_forking": true,
        "is_template": false,
        "web_commit_signoff_required": false,
        "topics": [],
        "visibility": visibility(project),
        "forks": 0,
        "open_issues": open,
        "watchers": 0,
        "default_branch": project.default_branch,
    });
    extend(&mut body, more);
    for (key, address) in ADDRESSES {
        body[key] = json!(format!("{rest}{address}"));
    }
    if let Some(caller) = caller {
        let role = project.role(Some(caller.user.id));
        let at_least = |least: Role| role.is_some_and(|role| role >= least);
        body["permissions"] = json!({
            "admin": at_least(Role::Owner),
            "maintain": at_least(Role::Maintainer),
            "push": at_least(Role::Developer),
            "triage": at_least(Role::Reporter),
            "pull": true,
        });
    }
    if full {
        let owner = owner(forge, project);
        if owner["type"] == "Organization" {
            body["organization"] = owner;
        }
        body["custom_properties"] = json!({});
        if body["permissions"]["admin"] == true {
            let off = json!({"status": "disabled"});
            body["security_and_analysis"] = json!({
                "secret_scanning": off,
                "secret_scanning_push_protection": off,
                "dependabot_security_updates": off,
                "secret_scanning_non_provider_patterns": off,
                "secret_scanning_validity_checks": off,
            });
        }
        if body["permissions"]["push"] == true {
            extend(
                &mut body,
                json!({
                    "allow_squash_merge": true,
                    "allow_merge_commit": true,
                    "allow_rebase_merge": true,
                    "allow_auto_merge": false,
                    "delete_branch_on_merge": false,
                    "allow_update_branch": false,
                    "use_squash_pr_title_as_default": false,
                    "squash_merge_commit_message": "COMMIT_MESSAGES",
                    "squash_merge_commit_title": "COMMIT_OR_PR_TITLE",
                    "merge_commit_message": "PR_TITLE",
                    "merge_commit_title": "MERGE_MESSAGE",
                }),
            );
        }
        extend(
            &mut body,
            json!({"network_count": 0, "subscribers_count": 0, "temp_clone_token": ""}),
        );
    }
    body
}
