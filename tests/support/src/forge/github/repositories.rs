//! Repositories, branches, refs and commits. Read only.

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::{Account, Entry, sees};
use super::checks;
use super::commit_wire::{commit as commit_wire, file};
use super::repository_wire::{repository, rest_url, web_url};
use super::wire::{Answer, Refusal, found, node, page};
use crate::forge::Forge;
use crate::forge::paging::Window;
use crate::forge::parameters::{Parameters, pairs};
use crate::forge::seed::{Side, Visibility};
use crate::forge::state::{Caller, Project};

const CODE: &str = "contents=read";

/// `GET /user/repos`: what the token's owner is a member of.
pub(crate) async fn list(State(forge): State<Forge>, Account(caller): Account, RawQuery(query): RawQuery) -> Answer {
    if caller.token.installation {
        return Err(Refusal::NotByIntegration);
    }
    let parameters = Parameters::from_query(query.as_deref());
    let affiliation = parameters.list("affiliation");
    let kind = |name: &str| affiliation.as_ref().is_none_or(|all| all.iter().any(|one| one == name));
    let visibility = parameters.text("visibility");
    let mut all: Vec<(String, Timestamp, u64)> = {
        let world = forge.world();
        let own = world
            .projects
            .iter()
            .filter(|one| one.side == Side::Github && one.role(Some(caller.user.id)).is_some())
            .filter(|one| sees(&caller, one));
        own.filter(|one| match one.namespace() == caller.user.username {
            true => kind("owner"),
            false => kind("collaborator") || kind("organization_member"),
        })
        .filter(|one| match visibility.as_deref() {
            Some("public") => one.visibility == Visibility::Public,
            Some("private") => one.visibility != Visibility::Public,
            Some(_) | None => true,
        })
        .map(|one| (one.path.to_lowercase(), one.last_activity, one.id))
        .collect()
    };
    // By name upwards; by time downwards.
    let by_time = matches!(
        parameters.text("sort").as_deref(),
        Some("created" | "updated" | "pushed")
    );
    if by_time {
        all.sort_by_key(|(_, at, id)| (*at, *id));
    } else {
        all.sort();
    }
    let down = parameters
        .text("direction")
        .map_or(by_time, |direction| direction == "desc");
    if down {
        all.reverse();
    }
    let ids = all.into_iter().map(|(_, _, id)| id).collect();
    let url = format!("{}/api/v3/user/repos", forge.github());
    let (headers, rows, _) = rows(&forge, &caller, &url, query.as_deref(), ids);
    let mut answer = found(Value::Array(rows))?;
    answer.headers_mut().extend(headers);
    Ok(answer)
}

/// `GET /installation/repositories`: what an App's installation was given.
pub(crate) async fn of_installation(
    State(forge): State<Forge>,
    Account(caller): Account,
    RawQuery(query): RawQuery,
) -> Answer {
    if !caller.token.installation {
        return Err(Refusal::Forbidden(
            "You must authenticate with an installation access token in order to list repositories for an installation.",
        ));
    }
    let ids = {
        let world = forge.world();
        let given = world.projects.iter().filter(|one| {
            one.side == Side::Github
                && caller
                    .token
                    .fine_grained
                    .as_ref()
                    .is_some_and(|limits| limits.repositories.contains(&one.path))
        });
        given.map(|one| one.id).collect()
    };
    let url = format!("{}/api/v3/installation/repositories", forge.github());
    let (headers, rows, total) = rows(&forge, &caller, &url, query.as_deref(), ids);
    let mut answer = found(json!({"total_count": total, "repository_selection": "selected", "repositories": rows}))?;
    answer.headers_mut().extend(headers);
    Ok(answer)
}

/// One page of repositories: cut first, since each is long.
fn rows(
    forge: &Forge,
    caller: &Caller,
    url: &str,
    query: Option<&str>,
    ids: Vec<u64>,
) -> (HeaderMap, Vec<Value>, usize) {
    let window = Window::of(&Parameters::from_query(query), 30);
    let given: Vec<(String, String)> = pairs(query.unwrap_or_default()).collect();
    let total = ids.len();
    let headers = window.github(url, &given, total);
    let find = |id: u64| forge.world().projects.iter().find(|one| one.id == id).cloned();
    let cut: Vec<Project> = window.cut(ids).into_iter().filter_map(find).collect();
    let rows = cut
        .iter()
        .map(|one| repository(forge, one, Some(caller), false))
        .collect();
    (headers, rows, total)
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
    format!("{}/api/v3/repositories/{}{rest}", forge.github(), project.id)
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
pub(crate) async fn commit(State(forge): State<Forge>, entry: Entry, RawQuery(query): RawQuery) -> Answer {
    let (project, name) = (&entry.project, entry.part("name"));
    // A ref may have slashes, so what follows it is known by its end only.
    if let Some(name) = name.strip_suffix("/check-runs") {
        return checks::check_runs(&forge, &entry, name, query.as_deref()).await;
    }
    if let Some(name) = name.strip_suffix("/status") {
        return checks::combined(&forge, &entry, name).await;
    }
    entry.needs("contents", false, CODE)?;
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
