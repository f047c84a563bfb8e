//! A pull request as GitHub's REST shows it. Pure, but for the look into who is who.

use serde_json::{Value, json};

use super::labels::labels;
use super::repository_wire::{repository, rest_url, web_url};
use super::reviews::{on_lines, waiting};
use super::users::{basic, owner};
use super::wire::{node, time};
use crate::forge::Forge;
use crate::forge::change_request::Facts;
use crate::forge::json::extend;
use crate::forge::seed::Role;
use crate::forge::state::{Caller, ChangeRequest, Project, Standing};

/// What an author is to the repository.
pub(crate) fn association(project: &Project, user: u64) -> &'static str {
    match project.role(Some(user)) {
        Some(Role::Owner) => "OWNER",
        Some(Role::Guest | Role::Reporter | Role::Developer | Role::Maintainer) => "COLLABORATOR",
        None => "NONE",
    }
}

pub(crate) fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Open => "open",
        Standing::Closed | Standing::Merged => "closed",
    }
}

/// What lists and single answers share.
pub(crate) fn listed(
    forge: &Forge,
    project: &Project,
    one: &ChangeRequest,
    facts: &Facts,
    caller: Option<&Caller>,
) -> Value {
    let (rest, web) = (rest_url(forge, project), web_url(forge, project));
    let number = one.number;
    let pull = format!("{rest}/pulls/{number}");
    let issue = format!("{rest}/issues/{number}");
    let html = format!("{web}/pull/{number}");
    let statuses = format!("{rest}/statuses/{}", facts.head.as_deref().unwrap_or_default());
    let end = |branch: &str, sha: &Option<String>| {
        json!({
            "label": format!("{}:{branch}", project.namespace()),
            "ref": branch,
            "sha": sha,
            "user": owner(forge, project),
            "repo": repository(forge, project, caller, false),
        })
    };
    let assignees: Vec<Value> = one.assignees.iter().map(|id| basic(forge, *id)).collect();
    let closed = one.closed.map(|(at, _)| time(at));
    let href = |url: &str| json!({"href": url});
    json!({
        "url": pull,
        "id": one.id,
        "node_id": node("PullRequest", one.id),
        "html_url": html,
        "diff_url": format!("{html}.diff"),
        "patch_url": format!("{html}.patch"),
        "issue_url": issue,
        "number": number,
        "state": standing_word(one.standing),
        "locked": false,
        "title": one.title,
        "user": basic(forge, one.author),
        "body": (!one.description.is_empty()).then_some(&one.description),
        "created_at": time(one.created_at),
        "updated_at": time(one.updated_at),
        "closed_at": one.merged.as_ref().map(|merged| time(merged.at)).or(closed),
        "merged_at": one.merged.as_ref().map(|merged| time(merged.at)),
        "merge_commit_sha": one.merged.as_ref().map(|merged| &merged.commit),
        "assignee": assignees.first(),
        "assignees": assignees,
        "requested_reviewers": waiting(forge, one),
        "requested_teams": [],
        "labels": labels(forge, project, &one.labels),
        "milestone": null,
        "draft": one.draft,
        "commits_url": format!("{pull}/commits"),
        "review_comments_url": format!("{pull}/comments"),
        "review_comment_url": format!("{rest}/pulls/comments{{/number}}"),
        "comments_url": format!("{issue}/comments"),
        "statuses_url": statuses,
        "head": end(&one.source, &facts.head),
        "base": end(&one.target, &facts.target_head),
        "_links": {
            "self": href(&pull),
            "html": href(&html),
            "issue": href(&issue),
            "comments": href(&format!("{issue}/comments")),
            "review_comments": href(&format!("{pull}/comments")),
            "review_comment": href(&format!("{rest}/pulls/comments{{/number}}")),
            "commits": href(&format!("{pull}/commits")),
            "statuses": href(&statuses),
        },
        "author_association": association(project, one.author),
        "auto_merge": null,
        "active_lock_reason": null,
    })
}

/// Sizes of a pull request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Size {
    pub(crate) commits: usize,
    pub(crate) additions: usize,
    pub(crate) deletions: usize,
    pub(crate) files: usize,
}

/// One pull request in full. `settled`: the background work on mergeability is done.
pub(crate) fn full(
    forge: &Forge,
    project: &Project,
    one: &ChangeRequest,
    facts: &Facts,
    caller: Option<&Caller>,
    size: Size,
    settled: bool,
) -> Value {
    let mut body = listed(forge, project, one, facts, caller);
    let mergeable = facts.mergeable.filter(|_| settled && one.standing == Standing::Open);
    let state = match mergeable {
        None => "unknown",
        Some(false) => "dirty",
        Some(true) if one.draft => "draft",
        Some(true) => "clean",
    };
    let more = json!({
        "merged": one.standing == Standing::Merged,
        "mergeable": mergeable,
        "rebaseable": mergeable,
        "mergeable_state": state,
        "merged_by": one.merged.as_ref().map(|merged| basic(forge, merged.by)),
        "comments": one.notes.iter().filter(|note| !note.system && note.position.is_none()).count(),
        "review_comments": on_lines(one).count(),
        "maintainer_can_modify": false,
        "commits": size.commits,
        "additions": size.additions,
        "deletions": size.deletions,
        "changed_files": size.files,
    });
    extend(&mut body, more);
    body
}
