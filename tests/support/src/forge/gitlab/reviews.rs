//! Who approves, who reviews, and what the pipelines of a merge request say. Read only.
//!
//! Plays the free tier: no approval rules, so nobody is required.

use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::access::Visitor;
use super::merge_requests::{entry, sub_url};
use super::users::basic;
use super::wire::{Answer, found, page, time};
use crate::forge::Forge;
use crate::forge::change_request;
use crate::forge::json::extend;
use crate::forge::parameters::Parameters;
use crate::forge::state::{ChangeRequest, Pipeline, Project};

type Two = Path<(String, String)>;

/// `GET …/approvals`
pub(crate) async fn approvals(State(forge): State<Forge>, Path((key, number)): Two, visitor: Visitor) -> Answer {
    let (project, one, caller) = entry(&forge, &key, &number, visitor)?;
    let user = caller.map(|caller| caller.user.id);
    let approved = |id: Option<u64>| one.approvals.iter().any(|(by, _)| Some(*by) == id);
    let may = project.writable_by(user) && user != Some(one.author) && !approved(user);
    let by: Vec<Value> = one
        .approvals
        .iter()
        .map(|(id, at)| json!({"user": basic(&forge, *id), "approved_at": time(*at)}))
        .collect();
    found(json!({
        "user_has_approved": approved(user),
        "user_can_approve": may,
        "approved": !one.approvals.is_empty(),
        "approved_by": by,
    }))
}

/// `GET …/reviewers`
pub(crate) async fn reviewers(State(forge): State<Forge>, Path((key, number)): Two, visitor: Visitor) -> Answer {
    let (_, one, _) = entry(&forge, &key, &number, visitor)?;
    let state = |id: u64| {
        let commented = one.notes.iter().any(|note| note.author == id && !note.system);
        if one.approvals.iter().any(|(by, _)| *by == id) {
            "approved"
        } else if commented {
            "reviewed"
        } else {
            "unreviewed"
        }
    };
    let all: Vec<Value> = one
        .reviewers
        .iter()
        .map(|id| json!({"user": basic(&forge, *id), "state": state(*id), "created_at": time(one.created_at)}))
        .collect();
    found(Value::Array(all))
}

fn web(forge: &Forge, project: &Project, pipeline: &Pipeline) -> String {
    format!("{}/{}/-/pipelines/{}", forge.gitlab(), project.path, pipeline.id)
}

/// The short form.
pub(crate) fn pipeline_wire(forge: &Forge, project: &Project, one: &Pipeline) -> Value {
    json!({
        "id": one.id,
        "iid": one.number,
        "project_id": project.id,
        "sha": one.sha,
        "ref": one.branch,
        "status": one.status,
        "source": one.source,
        "created_at": time(one.created_at),
        "updated_at": time(one.created_at),
        "web_url": web(forge, project, one),
    })
}

/// The long form, as a merge request shows that of its head.
pub(crate) fn pipeline_full(forge: &Forge, project: &Project, one: &Pipeline) -> Value {
    let mut body = pipeline_wire(forge, project, one);
    let label = match one.status.as_str() {
        "success" => "passed",
        other => other,
    };
    let finished = matches!(one.status.as_str(), "success" | "failed" | "canceled" | "skipped");
    let at = finished.then(|| time(one.created_at));
    let more = json!({
        "before_sha": "0".repeat(40),
        "tag": false,
        "yaml_errors": null,
        "user": basic(forge, one.user),
        "started_at": null,
        "finished_at": at,
        "committed_at": null,
        "duration": null,
        "queued_duration": null,
        "coverage": null,
        "detailed_status": {
            "icon": format!("status_{}", one.status),
            "text": label,
            "label": label,
            "group": one.status,
            "tooltip": label,
            "has_details": true,
            "details_path": format!("/{}/-/pipelines/{}", project.path, one.id),
            "illustration": null,
            "favicon": format!("/assets/ci_favicons/favicon_status_{}.png", one.status),
        },
    });
    extend(&mut body, more);
    body
}

/// The newest pipeline of a commit.
pub(crate) fn newest<'a>(project: &'a Project, head: Option<&str>) -> Option<&'a Pipeline> {
    project
        .pipelines
        .iter()
        .rev()
        .find(|one| Some(one.sha.as_str()) == head)
}

/// Pipelines of the commits that the merge request brings.
async fn of(forge: &Forge, project: &Project, one: &ChangeRequest) -> Result<Vec<Pipeline>, super::wire::Refusal> {
    let refs = project.repository.refs().await?;
    let facts = change_request::facts(forge, project, one, &refs, change_request::Depth::Whole).await?;
    let commits = match (&facts.base, &facts.head) {
        (Some(base), Some(head)) => project.repository.commits_between(base, head).await?,
        _ => Vec::new(),
    };
    let own = |pipeline: &&Pipeline| commits.iter().any(|commit| commit.sha == pipeline.sha);
    Ok(project.pipelines.iter().rev().filter(own).cloned().collect())
}

/// `GET …/pipelines`: the newest first.
pub(crate) async fn pipelines(
    State(forge): State<Forge>,
    Path((key, number)): Two,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let (project, one, _) = entry(&forge, &key, &number, visitor)?;
    let all = of(&forge, &project, &one).await?;
    let url = sub_url(&forge, &project, &one, "pipelines");
    let (id, iid) = (project.id.to_string(), one.number.to_string());
    page(
        &url,
        &parameters,
        &[("id", &id), ("merge_request_iid", &iid)],
        all,
        |one| pipeline_wire(&forge, &project, &one),
    )
}
