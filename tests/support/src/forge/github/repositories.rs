//! Repositories, branches, refs and commits. Read only.

use axum::extract::{RawQuery, State};
use serde_json::{Value, json};

use super::access::{Account, Entry, sees};
use super::commit_wire::{commit as commit_wire, file};
use super::repository_wire::{repository, rest_url, web_url};
use super::wire::{Answer, Refusal, found, node, page};
use crate::forge::Forge;
use crate::forge::seed::Side;
use crate::forge::state::Project;

const CODE: &str = "contents=read";

/// `GET /user/repos`: what the token's owner is a member of.
pub(crate) async fn list(State(forge): State<Forge>, Account(caller): Account, RawQuery(query): RawQuery) -> Answer {
    let mut all: Vec<Project> = {
        let world = forge.world();
        let own = world
            .projects
            .iter()
            .filter(|one| one.side == Side::Github && one.role(Some(caller.user.id)).is_some());
        own.filter(|one| sees(&caller, one)).cloned().collect()
    };
    all.sort_by(|a, b| a.path.cmp(&b.path));
    let url = format!("{}/api/v3/user/repos", forge.url());
    page(&url, query.as_deref(), all, |one| {
        repository(&forge, &one, Some(&caller), false)
    })
}

/// `GET /repos/:owner/:repo`
pub(crate) async fn one(State(forge): State<Forge>, entry: Entry) -> Answer {
    found(repository(&forge, &entry.project, entry.caller.as_ref(), true))
}

fn protection(project: &Project, name: &str) -> Value {
    let enabled = project.protection(name).is_some();
    let checks = json!({"enforcement_level": "off", "contexts": [], "checks": []});
    json!({"enabled": enabled, "required_status_checks": checks})
}

/// Address of a list under a repository, by number as GitHub's own links have it.
pub(crate) fn numbered(forge: &Forge, project: &Project, rest: &str) -> String {
    format!("{}/api/v3/repositories/{}{rest}", forge.url(), project.id)
}

/// `GET …/branches`
pub(crate) async fn branches(State(forge): State<Forge>, entry: Entry, RawQuery(query): RawQuery) -> Answer {
    entry.needs("contents", false, CODE)?;
    let project = &entry.project;
    let rest = rest_url(&forge, project);
    let heads = project.repository.branches().await?;
    let heads: Vec<(String, String)> = heads.into_iter().filter(|(name, _)| project.seen(name)).collect();
    page(
        &numbered(&forge, project, "/branches"),
        query.as_deref(),
        heads,
        |(name, sha)| {
            json!({
                "name": name,
                "commit": {"sha": sha, "url": format!("{rest}/commits/{sha}")},
                "protected": project.protection(&name).is_some(),
                "protection": protection(project, &name),
                "protection_url": format!("{rest}/branches/{name}/protection"),
            })
        },
    )
}

/// `GET …/branches/:branch`
pub(crate) async fn branch(State(forge): State<Forge>, entry: Entry) -> Answer {
    entry.needs("contents", false, CODE)?;
    let (project, name) = (&entry.project, entry.part("branch"));
    let heads = project.repository.branches().await?;
    let head = heads
        .get(name)
        .filter(|_| project.seen(name))
        .ok_or(Refusal::BranchNotFound)?;
    let commit = project.repository.commit(head).await?;
    let rest = rest_url(&forge, project);
    found(json!({
        "name": name,
        "commit": commit_wire(&forge, project, &commit),
        "_links": {
            "self": format!("{rest}/branches/{name}"),
            "html": format!("{}/tree/{name}", web_url(&forge, project)),
        },
        "protected": project.protection(name).is_some(),
        "protection": protection(project, name),
        "protection_url": format!("{rest}/branches/{name}/protection"),
    }))
}

/// `GET …/git/ref/heads/:branch`
pub(crate) async fn reference(State(forge): State<Forge>, entry: Entry) -> Answer {
    entry.needs("contents", false, CODE)?;
    let (project, name) = (&entry.project, entry.part("name"));
    let refs = project.repository.refs().await?;
    let seen = name.strip_prefix("heads/").is_none_or(|branch| project.seen(branch));
    let missing = Refusal::NotFound("/git/refs#get-a-reference");
    let full = format!("refs/{name}");
    let sha = refs.get(&full).filter(|_| seen).ok_or(missing)?;
    let rest = rest_url(&forge, project);
    found(json!({
        "ref": full,
        "node_id": node(&full, project.id),
        "url": format!("{rest}/git/{full}"),
        "object": {"sha": sha, "type": "commit", "url": format!("{rest}/git/commits/{sha}")},
    }))
}

/// `GET …/commits/:ref`
pub(crate) async fn commit(State(forge): State<Forge>, entry: Entry) -> Answer {
    entry.needs("contents", false, CODE)?;
    let (project, name) = (&entry.project, entry.part("name"));
    let Some(sha) = project.repository.resolve(name).await? else {
        return Err(Refusal::Unprocessable(format!("No commit found for SHA: {name}")));
    };
    let one = project.repository.commit(&sha).await?;
    let files = project.repository.diff_of(&one.sha, &one.parents).await?;
    let additions: usize = files.iter().map(|diff| diff.additions).sum();
    let deletions: usize = files.iter().map(|diff| diff.deletions).sum();
    let mut body = commit_wire(&forge, project, &one);
    body["stats"] = json!({"additions": additions, "deletions": deletions, "total": additions + deletions});
    body["files"] = files.iter().map(|diff| file(&forge, project, &sha, diff)).collect();
    found(body)
}
