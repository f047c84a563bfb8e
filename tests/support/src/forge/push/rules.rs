//! The rules of each forge for one updated ref, in its own words.
//!
//! Never changes anything.

use super::{Refusal, Update};
use crate::forge::Forge;
use crate::forge::git::commits::Commit;
use crate::forge::git::{GitError, Repository};
use crate::forge::state::{Caller, Project};

type Judgement = Result<Option<Refusal>, GitError>;

fn refuse(text: impl std::fmt::Display) -> Judgement {
    Ok(Some(Refusal {
        text: format!("GitLab: {text}\n"),
        reason: None,
    }))
}

/// Whether an update leaves commits of the old head behind.
async fn forced(arriving: &Repository, update: &Update) -> Result<bool, GitError> {
    if update.creates() || update.deletes() {
        return Ok(false);
    }
    Ok(!arriving.is_ancestor(&update.old, &update.new).await?)
}

/// GitLab's rules.
pub(super) async fn gitlab(
    forge: &Forge,
    project: &Project,
    caller: &Caller,
    arriving: &Repository,
    update: &Update,
) -> Judgement {
    let Some(branch) = update.branch() else {
        return Ok(None);
    };
    if update.deletes() && branch == project.default_branch {
        return refuse("The default branch of a project cannot be deleted.");
    }
    if update.creates() && branch.len() == 40 && branch.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return refuse("You cannot create a branch with a 40-character hexadecimal branch name.");
    }
    if let Some(protection) = project.protection(branch) {
        if !protection.allow_force_push && forced(arriving, update).await? {
            return refuse("You are not allowed to force push code to a protected branch on this project.");
        }
        if update.deletes() {
            return refuse(
                "You are not allowed to delete protected branches from this project. Only a project maintainer or owner can delete a protected branch.",
            );
        }
        if !project.pushable_by(Some(caller.user.id), branch) {
            return refuse("You are not allowed to push code to protected branches on this project.");
        }
    }
    if update.deletes() {
        return Ok(None);
    }
    push_rules(forge, project, caller, arriving, update, branch).await
}

async fn push_rules(
    forge: &Forge,
    project: &Project,
    caller: &Caller,
    arriving: &Repository,
    update: &Update,
    branch: &str,
) -> Judgement {
    let rules = &project.push_rules;
    if let Some(prefix) = &rules.branch_name_prefix
        && update.creates()
        && !branch.starts_with(prefix)
    {
        return refuse(format!("Branch name does not follow the pattern '^{prefix}'"));
    }
    if !rules.commit_committer_check && !rules.member_check && rules.commit_message_contains.is_none() {
        return Ok(None);
    }
    let user = &caller.user;
    let members: Vec<String> = {
        let world = forge.world();
        let users = project.members.keys().filter_map(|id| world.user(*id));
        users
            .flat_map(|user| [user.email.clone(), user.commit_email.clone()])
            .collect()
    };
    for commit in arriving.commits_new_in(&update.new).await? {
        let committer = &commit.committer.email;
        if rules.commit_committer_check && *committer != user.email && *committer != user.commit_email {
            return refuse(format!(
                "You cannot push commits for '{committer}'. You can only push commits that were committed with one of your own verified emails."
            ));
        }
        if rules.member_check && !members.contains(&commit.author.email) {
            return refuse(format!("Author '{}' is not a member of team", commit.author.email));
        }
        if let Some(part) = &rules.commit_message_contains
            && !commit.message.contains(part)
        {
            return refuse(format!("Commit message does not follow the pattern '{part}'"));
        }
    }
    Ok(None)
}

/// GitHub's rules.
pub(super) async fn github(project: &Project, caller: &Caller, arriving: &Repository, update: &Update) -> Judgement {
    let Some(branch) = update.branch() else {
        return Ok(None);
    };
    if let Some(protection) = project.protection(branch) {
        let why = if update.deletes() {
            Some("Cannot delete this branch")
        } else if !protection.allow_force_push && forced(arriving, update).await? {
            Some("Cannot force-push to this branch")
        } else if !project.pushable_by(Some(caller.user.id), branch) {
            Some("Changes must be made through a pull request.")
        } else {
            None
        };
        if let Some(why) = why {
            let text = format!("error: GH006: Protected branch update failed for refs/heads/{branch}.\n\n- {why}\n");
            return Ok(Some(Refusal {
                text,
                reason: Some("protected branch hook declined".to_owned()),
            }));
        }
    }
    if update.deletes() || caller.token.fine_grained.is_some() || caller.token.has("workflow") {
        return Ok(None);
    }
    for commit in arriving.commits_new_in(&update.new).await? {
        if let Some(file) = workflow(arriving, &commit).await? {
            let reason = format!(
                "refusing to allow a Personal Access Token to create or update workflow `{file}` without `workflow` scope"
            );
            return Ok(Some(Refusal {
                text: String::new(),
                reason: Some(reason),
            }));
        }
    }
    Ok(None)
}

/// A workflow file that a commit touches.
async fn workflow(arriving: &Repository, commit: &Commit) -> Result<Option<String>, GitError> {
    let files = arriving.diff_of(&commit.sha, &commit.parents).await?;
    Ok(files
        .into_iter()
        .map(|file| file.new_path)
        .find(|path| path.starts_with(".github/workflows/")))
}
