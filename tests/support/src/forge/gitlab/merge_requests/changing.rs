//! Changing a merge request: title, description, target, labels, closing and reopening.
//!
//! Never merges.

use axum::extract::{Path, State};
use jiff::Timestamp;
use serde_json::json;

use super::{answer_one, assignees, iid};
use crate::forge::Forge;
use crate::forge::change_request;
use crate::forge::gitlab::access::{self, Visitor};
use crate::forge::gitlab::wire::{Answer, Refusal, found};
use crate::forge::parameters::Parameters;
use crate::forge::state::{Project, Standing};

/// What a `PUT` may change.
const CHANGEABLE: [&str; 14] = [
    "add_labels",
    "allow_collaboration",
    "assignee_id",
    "assignee_ids",
    "description",
    "discussion_locked",
    "labels",
    "milestone_id",
    "remove_labels",
    "remove_source_branch",
    "squash",
    "state_event",
    "target_branch",
    "title",
];

/// `PUT /projects/:id/merge_requests/:iid`
pub(crate) async fn update(
    State(forge): State<Forge>,
    Path((key, number)): Path<(String, String)>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.writer()?;
    let number = iid(&number)?;
    let project = access::project_with_code(&forge, &key, Some(&caller.user))?;
    let one = project
        .change_requests
        .iter()
        .find(|one| one.number == number)
        .ok_or(Refusal::MissingEntry)?;
    let author = one.author == caller.user.id;
    if !author && !project.writable_by(Some(caller.user.id)) {
        return Err(Refusal::Forbidden);
    }
    if !CHANGEABLE.iter().any(|name| parameters.has(name)) {
        let text = format!(
            "{} are missing, at least one parameter must be provided",
            CHANGEABLE.join(", ")
        );
        return Err(Refusal::Parameter(text));
    }
    let event = match parameters.text("state_event").as_deref() {
        None => None,
        Some("close") => Some(Standing::Closed),
        Some("reopen") => Some(Standing::Open),
        Some(_) => return Err(Refusal::Parameter("state_event does not have a valid value".to_owned())),
    };
    if parameters.text("title").is_some_and(|title| title.trim().is_empty()) {
        return Err(Refusal::Invalid(json!({"title": ["can't be blank"]})));
    }
    let refs = project.repository.refs().await?;
    if let Some(target) = parameters.text("target_branch")
        && !refs.contains_key(&format!("refs/heads/{target}"))
    {
        return Err(Refusal::Invalid(json!({"target_branch": ["does not exist"]})));
    }
    change(&forge, &project, number, &parameters, event, caller.user.id)?;
    let project = forge.reread(&project);
    let one = project
        .change_requests
        .iter()
        .find(|one| one.number == number)
        .ok_or(Refusal::MissingEntry)?;
    found(answer_one(&forge, &project, one, Some(&caller), &refs).await?)
}

fn change(
    forge: &Forge,
    project: &Project,
    number: u64,
    parameters: &Parameters,
    event: Option<Standing>,
    by: u64,
) -> Result<(), Refusal> {
    let mut world = forge.world();
    let live = world.project_mut(project.id).ok_or(Refusal::Missing("Project"))?;
    let now = Timestamp::now();
    let position = live
        .change_requests
        .iter()
        .position(|one| one.number == number)
        .ok_or(Refusal::MissingEntry)?;
    let source = live.change_requests[position].source.clone();
    let target = parameters
        .text("target_branch")
        .unwrap_or_else(|| live.change_requests[position].target.clone());
    let opens = event == Some(Standing::Open) && live.change_requests[position].standing == Standing::Closed;
    if opens && let Some(other) = live.open_from(&source).find(|other| other.target == target) {
        let text = format!(
            "Another open merge request already exists for this source branch: !{}",
            other.number
        );
        return Err(Refusal::Conflict(text));
    }
    let assigned = assignees(live, parameters);
    let one = &mut live.change_requests[position];
    if let Some(title) = parameters.text("title") {
        one.title = title;
    }
    if let Some(description) = parameters.text("description") {
        one.description = description;
    }
    if one.target != target {
        one.target = target;
        one.checked = None;
    }
    if let Some(labels) = parameters.list("labels") {
        one.labels = labels;
    }
    let dropped = parameters.list("remove_labels").unwrap_or_default();
    one.labels.retain(|label| !dropped.contains(label));
    for label in parameters.list("add_labels").unwrap_or_default() {
        if !one.labels.contains(&label) {
            one.labels.push(label);
        }
    }
    if let Some(assigned) = assigned {
        one.assignees = assigned;
    }
    if let Some(remove) = parameters.flag("remove_source_branch") {
        one.remove_source_branch = Some(remove);
    }
    if let Some(squash) = parameters.flag("squash") {
        one.squash = squash;
    }
    match (event, one.standing) {
        (Some(Standing::Closed), Standing::Open) => {
            one.standing = Standing::Closed;
            one.closed = Some((now, by));
        }
        (Some(Standing::Open), Standing::Closed) => {
            one.standing = Standing::Open;
            one.closed = None;
        }
        (Some(Standing::Open | Standing::Closed | Standing::Merged) | None, _) => {}
    }
    one.updated_at = now;
    change_request::touch(live);
    Ok(())
}
