//! What a merge request brings: changed files and commits. Read only.

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse as _;
use serde_json::json;

use super::{answer_one, entry, sub_url};
use crate::forge::Forge;
use crate::forge::change_request;
use crate::forge::git::diff::FileDiff;
use crate::forge::gitlab::access::Visitor;
use crate::forge::gitlab::merge_request_wire::{collapsed, file};
use crate::forge::gitlab::repository::commit_wire;
use crate::forge::gitlab::wire::{Answer, Refusal, found, page};
use crate::forge::parameters::Parameters;
use crate::forge::state::{ChangeRequest, Project};

/// The two ends of a merge request's difference.
async fn ends(forge: &Forge, project: &Project, one: &ChangeRequest) -> Result<(String, String), Refusal> {
    let refs = project.repository.refs().await?;
    let facts = change_request::facts(forge, project, one, &refs, change_request::Depth::Whole).await?;
    match (facts.base, facts.head) {
        (Some(base), Some(head)) => Ok((base, head)),
        _ => Err(Refusal::MissingEntry),
    }
}

/// `GET …/changes`
pub(crate) async fn changes(
    State(forge): State<Forge>,
    Path((key, number)): Path<(String, String)>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let (project, one, caller) = entry(&forge, &key, &number, visitor)?;
    let refs = project.repository.refs().await?;
    let mut body = answer_one(&forge, &project, &one, caller.as_ref(), &refs).await?;
    let (base, head) = ends(&forge, &project, &one).await?;
    let files = project.repository.diff(&base, &head).await?;
    let most = project.limits.files.unwrap_or(usize::MAX);
    let raw = parameters.flag("access_raw_diffs") == Some(true);
    let hidden = |one: &FileDiff| one.too_large || (!raw && collapsed(&project, one));
    body["overflow"] = json!(files.len() > most || files.iter().any(hidden));
    let shown = files.iter().take(most).map(|one| {
        let mut wire = file(&project, one);
        if raw {
            wire["diff"] = json!(one.patch);
            wire["collapsed"] = json!(false);
        }
        wire
    });
    body["changes"] = shown.collect();
    found(body)
}

/// `GET …/diffs`
pub(crate) async fn diffs(
    State(forge): State<Forge>,
    Path((key, number)): Path<(String, String)>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let (project, one, _) = entry(&forge, &key, &number, visitor)?;
    let (base, head) = ends(&forge, &project, &one).await?;
    let mut files = project.repository.diff(&base, &head).await?;
    files.truncate(project.limits.files.unwrap_or(usize::MAX));
    let url = sub_url(&forge, &project, &one, "diffs");
    let (id, iid) = (project.id.to_string(), one.number.to_string());
    page(
        &url,
        &parameters,
        &[("id", &id), ("merge_request_iid", &iid)],
        files,
        |diff| file(&project, &diff),
    )
}

/// `GET …/raw_diffs`
pub(crate) async fn raw_diffs(
    State(forge): State<Forge>,
    Path((key, number)): Path<(String, String)>,
    visitor: Visitor,
) -> Answer {
    let (project, one, _) = entry(&forge, &key, &number, visitor)?;
    let (base, head) = ends(&forge, &project, &one).await?;
    let text = project.repository.raw_diff(&base, &head).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain")], text).into_response())
}

/// `GET …/commits`
pub(crate) async fn commits(
    State(forge): State<Forge>,
    Path((key, number)): Path<(String, String)>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let (project, one, _) = entry(&forge, &key, &number, visitor)?;
    let (base, head) = ends(&forge, &project, &one).await?;
    let commits = project.repository.commits_between(&base, &head).await?;
    let url = sub_url(&forge, &project, &one, "commits");
    let (id, iid) = (project.id.to_string(), one.number.to_string());
    page(
        &url,
        &parameters,
        &[("id", &id), ("merge_request_iid", &iid)],
        commits,
        |commit| commit_wire(&forge, &project, &commit),
    )
}
