//! Check runs and statuses of a commit, and the commits themselves. Read only.

use axum::extract::{RawQuery, State};
use serde_json::{Value, json};

use super::access::Entry;
use super::commit_wire::commit as commit_wire;
use super::repositories::numbered;
use super::repository_wire::{repository, rest_url, web_url};
use super::wire::{Answer, Refusal, found, node, page, time};
use crate::forge::Forge;
use crate::forge::paging::Window;
use crate::forge::parameters::{Parameters, pairs};
use crate::forge::state::{Check, Project, Status};

async fn sha(entry: &Entry, name: &str) -> Result<String, Refusal> {
    let sha = entry.project.repository.resolve(name).await?;
    sha.ok_or_else(|| Refusal::Unprocessable(format!("No commit found for SHA: {name}")))
}

fn check_wire(forge: &Forge, project: &Project, one: &Check) -> Value {
    let rest = rest_url(forge, project);
    let url = format!("{rest}/check-runs/{}", one.id);
    let html = format!("{}/runs/{}", web_url(forge, project), one.id);
    let at = time(one.started_at);
    let owner = super::users::owner(forge, project);
    let app = json!({
        "id": 15368,
        "slug": "test-forge-actions",
        "node_id": node("App", 15368),
        "client_id": "Iv1.0000000000000000",
        "owner": owner,
        "name": "Test Forge Actions",
        "description": "",
        "external_url": web_url(forge, project),
        "html_url": format!("{}/apps/test-forge-actions", forge.github()),
        "created_at": at,
        "updated_at": at,
        "permissions": {"checks": "write", "contents": "read", "metadata": "read"},
        "events": ["push"],
    });
    json!({
        "id": one.id,
        "node_id": node("CheckRun", one.id),
        "head_sha": one.sha,
        "external_id": "",
        "url": url,
        "html_url": html,
        "details_url": html,
        "status": one.status,
        "conclusion": one.conclusion,
        "started_at": at,
        "completed_at": one.conclusion.as_ref().map(|_| &at),
        "output": {
            "title": null,
            "summary": null,
            "text": null,
            "annotations_count": 0,
            "annotations_url": format!("{url}/annotations"),
        },
        "name": one.name,
        "check_suite": {"id": one.id + 1_000_000},
        "app": app,
        "pull_requests": [],
    })
}

/// `GET …/commits/:ref/check-runs`
pub(crate) async fn check_runs(forge: &Forge, entry: &Entry, name: &str, query: Option<&str>) -> Answer {
    entry.needs("checks", false, "checks=read")?;
    let (project, sha) = (&entry.project, sha(entry, name).await?);
    let parameters = Parameters::from_query(query);
    let status = parameters.text("status");
    let wanted = parameters.text("check_name");
    let all: Vec<&Check> = project
        .checks
        .iter()
        .filter(|one| one.sha == sha)
        .filter(|one| status.as_ref().is_none_or(|status| *status == one.status))
        .filter(|one| wanted.as_ref().is_none_or(|name| *name == one.name))
        .collect();
    let window = Window::of(&parameters, 30);
    let given: Vec<(String, String)> = pairs(query.unwrap_or_default()).collect();
    let url = numbered(forge, project, &format!("/commits/{name}/check-runs"));
    let headers = window.github(&url, &given, all.len());
    let total = all.len();
    let runs: Vec<Value> = window
        .cut(all)
        .into_iter()
        .map(|one| check_wire(forge, project, one))
        .collect();
    let mut answer = found(json!({"total_count": total, "check_runs": runs}))?;
    answer.headers_mut().extend(headers);
    Ok(answer)
}

/// `GET …/commits/:ref/status`: the newest of each context, and all of them in one word.
pub(crate) async fn combined(forge: &Forge, entry: &Entry, name: &str) -> Answer {
    entry.needs("statuses", false, "statuses=read")?;
    let (project, sha) = (&entry.project, sha(entry, name).await?);
    let mut newest: Vec<&Status> = Vec::new();
    for one in project.statuses.iter().rev().filter(|one| one.sha == sha) {
        if !newest.iter().any(|other| other.context == one.context) {
            newest.push(one);
        }
    }
    let any = |states: &[&str]| newest.iter().any(|one| states.contains(&one.state.as_str()));
    let state = if any(&["error", "failure"]) {
        "failure"
    } else if newest.is_empty() || any(&["pending"]) {
        "pending"
    } else {
        "success"
    };
    let rest = rest_url(forge, project);
    let statuses: Vec<Value> = newest
        .iter()
        .map(|one| {
            json!({
                "url": format!("{rest}/statuses/{sha}"),
                "avatar_url": format!("{}/avatars/in/{}", forge.github(), one.id),
                "id": one.id,
                "node_id": node("StatusContext", one.id),
                "state": one.state,
                "description": one.description,
                "target_url": null,
                "context": one.context,
                "created_at": time(one.created_at),
                "updated_at": time(one.created_at),
            })
        })
        .collect();
    found(json!({
        "state": state,
        "statuses": statuses,
        "sha": sha,
        "total_count": statuses.len(),
        "repository": repository(forge, project, None, false),
        "commit_url": format!("{rest}/commits/{sha}"),
        "url": format!("{rest}/commits/{sha}/status"),
    }))
}

/// `GET …/commits`: the newest first.
pub(crate) async fn commits(State(forge): State<Forge>, entry: Entry, RawQuery(query): RawQuery) -> Answer {
    entry.needs("contents", false, "contents=read")?;
    let project = &entry.project;
    let name = Parameters::from_query(query.as_deref()).text("sha");
    let name = name.unwrap_or_else(|| project.default_branch.clone());
    let Some(head) = project.repository.resolve(&name).await? else {
        return Err(Refusal::NotFound("/commits/commits#list-commits"));
    };
    let history = project.repository.history(&head).await?;
    page(
        &numbered(&forge, project, "/commits"),
        query.as_deref(),
        history,
        |one| commit_wire(&forge, project, &one),
    )
}
