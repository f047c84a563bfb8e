//! Branches and commits. Read only.

use axum::extract::{Path, State};
use serde_json::{Map, Value, json};

use super::access::{self, Visitor};
use super::reviews::{newest, pipeline_wire};
use super::wire::{Answer, Refusal, effective, found, page};
use crate::forge::Forge;
use crate::forge::git::commits::Commit;
use crate::forge::paging::Window;
use crate::forge::parameters::Parameters;
use crate::forge::state::{Caller, Project};

/// git's ISO date with GitLab's milliseconds.
fn date(text: &str) -> String {
    match (text.get(..19), text.get(19..)) {
        (Some(seconds), Some(zone)) => format!("{seconds}.000{}", if zone == "Z" { "+00:00" } else { zone }),
        _ => text.to_owned(),
    }
}

pub(crate) fn commit_wire(forge: &Forge, project: &Project, commit: &Commit) -> Value {
    let mut trailers = Map::new();
    let mut extended = Map::new();
    for (key, value) in commit.trailers() {
        if let Value::Array(list) = extended.entry(key.clone()).or_insert_with(|| json!([])) {
            list.push(json!(value));
        }
        trailers.insert(key, json!(value));
    }
    json!({
        "id": commit.sha,
        "short_id": commit.sha.get(..8),
        "created_at": date(&commit.committer.date),
        "parent_ids": commit.parents,
        "title": commit.title(),
        "message": commit.message,
        "author_name": commit.author.name,
        "author_email": commit.author.email,
        "authored_date": date(&commit.author.date),
        "committer_name": commit.committer.name,
        "committer_email": commit.committer.email,
        "committed_date": date(&commit.committer.date),
        "trailers": trailers,
        "extended_trailers": extended,
        "web_url": format!("{}/{}/-/commit/{}", forge.gitlab(), project.path, commit.sha),
    })
}

async fn branch_wire(
    forge: &Forge,
    project: &Project,
    caller: Option<&Caller>,
    name: &str,
    head: &str,
    default_head: Option<&str>,
) -> Result<Value, Refusal> {
    let commit = project.repository.commit(head).await?;
    let is_default = name == project.default_branch;
    let merged = match default_head {
        Some(main) if !is_default => project.repository.is_ancestor(head, main).await?,
        Some(_) | None => false,
    };
    let user = caller.map(|caller| caller.user.id);
    Ok(json!({
        "name": name,
        "commit": commit_wire(forge, project, &commit),
        "merged": merged,
        "protected": project.protection(name).is_some(),
        "developers_can_push": false,
        "developers_can_merge": false,
        "can_push": project.pushable_by(user, name),
        "default": is_default,
        "web_url": format!("{}/{}/-/tree/{name}", forge.gitlab(), project.path),
    }))
}

/// `GET /projects/:id/repository/branches`
pub(crate) async fn branches(
    State(forge): State<Forge>,
    Path(key): Path<String>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.anyone()?;
    let project = access::project_with_code(&forge, &key, caller.as_ref().map(|caller| &caller.user))?;
    let search = parameters.text("search").unwrap_or_default().to_lowercase();
    let heads = project.repository.branches().await?;
    let default_head = heads.get(&project.default_branch).cloned();
    let heads = heads
        .into_iter()
        .filter(|(name, _)| project.seen(name) && name.to_lowercase().contains(&search));
    let mut all = Vec::new();
    for (name, head) in heads {
        all.push(branch_wire(&forge, &project, caller.as_ref(), &name, &head, default_head.as_deref()).await?);
    }
    let url = format!("{}/api/v4/projects/{}/repository/branches", forge.gitlab(), project.id);
    let id = project.id.to_string();
    page(&url, &parameters, &[("id", &id)], all, |one| one)
}

/// `GET /projects/:id/repository/branches/:branch`
pub(crate) async fn branch(
    State(forge): State<Forge>,
    Path((key, name)): Path<(String, String)>,
    visitor: Visitor,
) -> Answer {
    let caller = visitor.anyone()?;
    let project = access::project_with_code(&forge, &key, caller.as_ref().map(|caller| &caller.user))?;
    let heads = project.repository.branches().await?;
    let head = heads
        .get(&name)
        .filter(|_| project.seen(&name))
        .ok_or(Refusal::Missing("Branch"))?;
    let default_head = heads.get(&project.default_branch).map(String::as_str);
    found(branch_wire(&forge, &project, caller.as_ref(), &name, head, default_head).await?)
}

/// `GET /projects/:id/repository/commits`
pub(crate) async fn commits(
    State(forge): State<Forge>,
    Path(key): Path<String>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.anyone()?;
    let project = access::project_with_code(&forge, &key, caller.as_ref().map(|caller| &caller.user))?;
    let name = parameters
        .text("ref_name")
        .unwrap_or_else(|| project.default_branch.clone());
    let head = project
        .repository
        .resolve(&name)
        .await?
        .ok_or(Refusal::Missing("Tree"))?;
    let history = project.repository.history(&head).await?;
    let url = format!("{}/api/v4/projects/{}/repository/commits", forge.gitlab(), project.id);
    let id = project.id.to_string();
    let window = Window::of(&parameters, 20);
    let defaults = [
        ("id", id.as_str()),
        ("order", "default"),
        ("ref_name", &name),
        ("trailers", "false"),
    ];
    let headers = window.gitlab_uncounted(&url, &effective(&parameters, &defaults), history.len());
    let cut: Vec<Value> = window
        .cut(history)
        .iter()
        .map(|one| commit_wire(&forge, &project, one))
        .collect();
    let mut answer = found(Value::Array(cut))?;
    answer.headers_mut().extend(headers);
    Ok(answer)
}

/// `GET /projects/:id/repository/commits/:sha`
pub(crate) async fn commit(
    State(forge): State<Forge>,
    Path((key, name)): Path<(String, String)>,
    visitor: Visitor,
) -> Answer {
    let caller = visitor.anyone()?;
    let project = access::project_with_code(&forge, &key, caller.as_ref().map(|caller| &caller.user))?;
    let sha = project
        .repository
        .resolve(&name)
        .await?
        .ok_or(Refusal::Missing("Commit"))?;
    let commit = project.repository.commit(&sha).await?;
    let files = project.repository.diff_of(&commit.sha, &commit.parents).await?;
    let additions: usize = files.iter().map(|file| file.additions).sum();
    let deletions: usize = files.iter().map(|file| file.deletions).sum();
    let mut body = commit_wire(&forge, &project, &commit);
    body["stats"] = json!({"additions": additions, "deletions": deletions, "total": additions + deletions});
    let pipeline = newest(&project, Some(&commit.sha));
    body["status"] = json!(pipeline.map(|one| &one.status));
    body["project_id"] = json!(project.id);
    body["last_pipeline"] = pipeline.map_or(Value::Null, |one| pipeline_wire(&forge, &project, one));
    found(body)
}
