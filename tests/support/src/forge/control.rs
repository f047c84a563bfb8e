//! The tests' own way in, under `/_test/`: faults, the request log, tokens, the state, and commits of somebody else.
//!
//! No forge has this. Needs no token; never shows one's value.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Forge;
use super::change_request;
use super::faults::Fault;
use super::git::GitError;
use super::git::import::NewCommit;
use super::plant;
use super::seed::{Seed, Side};
use super::state::{ChangeRequest, Project, Standing};

/// The control routes.
pub(super) fn router() -> Router<Forge> {
    Router::new()
        .route("/_test/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/_test/requests", get(requests).delete(forget))
        .route("/_test/tokens/{name}", post(token))
        .route("/_test/state", get(state))
        .route("/_test/commit", post(commit))
        .route("/_test/merge", post(merge))
        .route("/_test/seed", post(more))
}

fn no(status: StatusCode, why: impl std::fmt::Display) -> Response {
    (status, Json(json!({"test_forge": why.to_string()}))).into_response()
}

async fn faults(State(forge): State<Forge>) -> Json<Vec<Fault>> {
    Json(forge.0.faults.waiting())
}

async fn add_fault(State(forge): State<Forge>, Json(fault): Json<Fault>) -> Response {
    match fault.judged() {
        Ok(fault) => {
            forge.0.faults.add(fault);
            StatusCode::CREATED.into_response()
        }
        Err(why) => no(StatusCode::UNPROCESSABLE_ENTITY, why),
    }
}

async fn clear_faults(State(forge): State<Forge>) -> StatusCode {
    forge.0.faults.clear();
    StatusCode::NO_CONTENT
}

async fn requests(State(forge): State<Forge>) -> Response {
    Json(forge.0.watch.seen()).into_response()
}

async fn forget(State(forge): State<Forge>) -> StatusCode {
    forge.0.watch.forget();
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenChange {
    revoked: Option<bool>,
    expires_at: Option<Date>,
    scopes: Option<Vec<String>>,
}

async fn token(State(forge): State<Forge>, Path(name): Path<String>, Json(change): Json<TokenChange>) -> Response {
    let mut world = forge.world();
    let Some(token) = world.tokens.iter_mut().find(|token| token.name == name) else {
        return no(StatusCode::NOT_FOUND, format!("no token {name}"));
    };
    if let Some(revoked) = change.revoked {
        token.revoked = revoked;
    }
    if change.expires_at.is_some() {
        token.expires_at = change.expires_at;
    }
    if let Some(scopes) = change.scopes {
        token.scopes = scopes;
    }
    StatusCode::NO_CONTENT.into_response()
}

fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Open => "open",
        Standing::Closed => "closed",
        Standing::Merged => "merged",
    }
}

async fn project_state(forge: &Forge, project: &Project) -> Result<Value, GitError> {
    let refs = project.repository.refs().await?;
    let branches: BTreeMap<&str, &String> = refs
        .iter()
        .filter_map(|(name, sha)| Some((name.strip_prefix("refs/heads/")?, sha)))
        .collect();
    let username = |id: u64| forge.world().user(id).map(|user| user.username.clone());
    let requests: Vec<Value> = project
        .change_requests
        .iter()
        .map(|one| {
            json!({
                "number": one.number,
                "title": one.title,
                "description": one.description,
                "source": one.source,
                "target": one.target,
                "state": standing_word(one.standing),
                "draft": one.draft || super::gitlab::is_draft(&one.title),
                "author": username(one.author),
                "head": change_request::head_of(project, one, &refs),
                "labels": one.labels,
                "notes": one.notes.iter().filter(|note| !note.system).map(|note| &note.body).collect::<Vec<_>>(),
            })
        })
        .collect();
    Ok(json!({"id": project.id, "branches": branches, "refs": refs, "change_requests": requests}))
}

async fn state(State(forge): State<Forge>) -> Response {
    // Those of a crowd are left out: asking git for each of thousands would take minutes.
    let projects: Vec<Project> = forge
        .world()
        .projects
        .iter()
        .filter(|one| !one.of_a_crowd)
        .cloned()
        .collect();
    let (mut gitlab, mut github) = (Map::new(), Map::new());
    for project in projects {
        let shown = match project_state(&forge, &project).await {
            Ok(shown) => shown,
            Err(source) => return no(StatusCode::INTERNAL_SERVER_ERROR, source),
        };
        let side = match project.side {
            Side::Gitlab => &mut gitlab,
            Side::Github => &mut github,
        };
        side.insert(project.path.clone(), shown);
    }
    Json(json!({"gitlab": gitlab, "github": github})).into_response()
}

/// More of what a seed holds, in the same words as JSON. Answers with the numbers of the new issues and change requests.
async fn more(State(forge): State<Forge>, Json(seed): Json<Seed>) -> Response {
    match plant::grow(&forge, &seed).await {
        Ok(grown) => (StatusCode::CREATED, Json(grown)).into_response(),
        Err(why) => no(StatusCode::UNPROCESSABLE_ENTITY, why),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MergeWish {
    forge: Side,
    project: String,
    number: u64,
}

/// Somebody merges a change request.
async fn merge(State(forge): State<Forge>, Json(wish): Json<MergeWish>) -> Response {
    let found = forge.world().project(wish.forge, &wish.project).cloned();
    let found = found.and_then(|project| {
        let open = |one: &&ChangeRequest| one.number == wish.number && one.standing == Standing::Open;
        let one = project.change_requests.iter().find(open)?.clone();
        Some((project, one))
    });
    let Some((project, one)) = found else {
        return no(StatusCode::NOT_FOUND, "no such open change request");
    };
    match change_request::merge(&forge, &project, &one).await {
        Ok(Some(sha)) => (StatusCode::CREATED, Json(json!({"sha": sha}))).into_response(),
        Ok(None) => no(StatusCode::CONFLICT, "it does not merge"),
        Err(source) => no(StatusCode::UNPROCESSABLE_ENTITY, source),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCommitWish {
    forge: Side,
    project: String,
    branch: String,
    #[serde(default = "default_message")]
    message: String,
    /// A user name; the first user if absent.
    author: Option<String>,
    /// Content by path; null deletes.
    files: BTreeMap<String, Option<String>>,
}

fn default_message() -> String {
    "Change by somebody else\n".to_owned()
}

/// Somebody else pushes a commit; a new branch starts at the default branch.
async fn commit(State(forge): State<Forge>, Json(wish): Json<NewCommitWish>) -> Response {
    let (project, author) = {
        let world = forge.world();
        let author = match &wish.author {
            Some(name) => world.users.iter().find(|user| user.username == *name),
            None => world.users.first(),
        };
        match (world.project(wish.forge, &wish.project), author) {
            (Some(project), Some(author)) => (project.clone(), author.clone()),
            _ => return no(StatusCode::NOT_FOUND, "no such project or author"),
        }
    };
    match push_commit(&forge, &project, &wish, (&author.name, &author.commit_email), author.id).await {
        Ok(sha) => (StatusCode::CREATED, Json(json!({"sha": sha}))).into_response(),
        Err(source) => no(StatusCode::UNPROCESSABLE_ENTITY, source),
    }
}

async fn push_commit(
    forge: &Forge,
    project: &Project,
    wish: &NewCommitWish,
    author: (&str, &str),
    user: u64,
) -> Result<String, GitError> {
    let heads = project.repository.branches().await?;
    let old = heads.get(&wish.branch);
    let parent = old.or_else(|| heads.get(&project.default_branch));
    let commit = NewCommit {
        branch: &wish.branch,
        parent: parent.map(String::as_str),
        author,
        when: Timestamp::now().as_second(),
        message: &wish.message,
        files: &wish.files,
    };
    project.repository.import(&commit).await?;
    let new = project
        .repository
        .branches()
        .await?
        .remove(&wish.branch)
        .ok_or(GitError::Parse { act: "fast-import" })?;
    if let Some(old) = old {
        change_request::head_moved(forge, project, &wish.branch, (old, &new), user).await?;
    }
    Ok(new)
}
