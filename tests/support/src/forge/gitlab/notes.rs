//! Comments of merge requests: notes and discussions.
//!
//! Never resolves or edits one.

use axum::extract::{Path, State};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::access::{self, Visitor};
use super::merge_requests::{entry, iid, sub_url};
use super::users::basic;
use super::wire::{Answer, Refusal, created, page, time};
use crate::forge::Forge;
use crate::forge::change_request;
use crate::forge::parameters::Parameters;
use crate::forge::state::{ChangeRequest, Note, Project};

/// What a note hangs on.
#[derive(Clone, Copy)]
pub(crate) struct On {
    pub(crate) kind: &'static str,
    pub(crate) id: u64,
    pub(crate) number: u64,
    pub(crate) project: u64,
}

pub(crate) fn note_wire(forge: &Forge, on: On, note: &Note) -> Value {
    json!({
        "id": note.id,
        "type": null,
        "body": note.body,
        "attachment": null,
        "author": basic(forge, note.author),
        "created_at": time(note.created_at),
        "updated_at": time(note.created_at),
        "system": note.system,
        "noteable_id": on.id,
        "noteable_type": on.kind,
        "project_id": on.project,
        "resolvable": false,
        "confidential": false,
        "internal": false,
        "imported": false,
        "imported_from": "none",
        "noteable_iid": on.number,
        "commands_changes": {},
    })
}

fn on(project: &Project, one: &ChangeRequest) -> On {
    On {
        kind: "MergeRequest",
        id: one.id,
        number: one.number,
        project: project.id,
    }
}

/// The text of a new comment, or the refusal of an empty one.
pub(crate) fn body_of(parameters: &Parameters) -> Result<String, Refusal> {
    let body = parameters
        .text("body")
        .ok_or_else(|| Refusal::Parameter("body is missing".to_owned()))?;
    if body.trim().is_empty() {
        return Err(Refusal::BadRequest("Note {:note=>[\"can't be blank\"]}".to_owned()));
    }
    Ok(body)
}

/// Notes in the asked order, with or without system notes.
pub(crate) fn selected(notes: &[Note], parameters: &Parameters) -> Result<Vec<Note>, Refusal> {
    let bad = |key: &str| Err(Refusal::Parameter(format!("{key} does not have a valid value")));
    let mut all: Vec<Note> = match parameters.text("activity_filter").as_deref() {
        None | Some("all_notes") => notes.to_vec(),
        Some("only_comments") => notes.iter().filter(|note| !note.system).cloned().collect(),
        Some("only_activity") => notes.iter().filter(|note| note.system).cloned().collect(),
        Some(_) => return bad("activity_filter"),
    };
    match parameters.text("sort").as_deref() {
        None | Some("desc") => all.reverse(),
        Some("asc") => {}
        Some(_) => return bad("sort"),
    }
    Ok(all)
}

pub(crate) const DEFAULTS: [(&str, &str); 3] = [
    ("activity_filter", "all_notes"),
    ("order_by", "created_at"),
    ("sort", "desc"),
];

/// `GET …/notes`
pub(crate) async fn of_merge_request(
    State(forge): State<Forge>,
    Path((key, number)): Path<(String, String)>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let (project, one, _) = entry(&forge, &key, &number, visitor)?;
    let url = sub_url(&forge, &project, &one, "notes");
    let on = on(&project, &one);
    page(
        &url,
        &parameters,
        &DEFAULTS,
        selected(&one.notes, &parameters)?,
        |note| note_wire(&forge, on, &note),
    )
}

fn add(
    forge: &Forge,
    key: &str,
    number: &str,
    visitor: Visitor,
    parameters: &Parameters,
) -> Result<(On, Note), Refusal> {
    let caller = visitor.writer()?;
    let number = iid(number)?;
    let project = access::project_with_code(forge, key, Some(&caller.user))?;
    let one = project
        .change_requests
        .iter()
        .find(|one| one.number == number)
        .ok_or(Refusal::MissingEntry)?;
    let body = body_of(parameters)?;
    let note = change_request::add_note(forge, project.id, number, caller.user.id, body, false);
    Ok((on(&project, one), note.ok_or(Refusal::MissingEntry)?))
}

/// `POST …/notes`
pub(crate) async fn on_merge_request(
    State(forge): State<Forge>,
    Path((key, number)): Path<(String, String)>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let (on, note) = add(&forge, &key, &number, visitor, &parameters)?;
    created(note_wire(&forge, on, &note))
}

/// Every note is a discussion of its own here: replies are not played.
fn discussion(forge: &Forge, on: On, note: &Note) -> Value {
    let digest = hex::encode(Sha256::digest(format!("discussion {}", note.id)));
    json!({"id": digest.get(..40), "individual_note": true, "notes": [note_wire(forge, on, note)]})
}

/// `GET …/discussions`
pub(crate) async fn discussions(
    State(forge): State<Forge>,
    Path((key, number)): Path<(String, String)>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let (project, one, _) = entry(&forge, &key, &number, visitor)?;
    let url = sub_url(&forge, &project, &one, "discussions");
    let on = on(&project, &one);
    page(&url, &parameters, &[], one.notes, |note| discussion(&forge, on, &note))
}

/// `POST …/discussions`
pub(crate) async fn discuss(
    State(forge): State<Forge>,
    Path((key, number)): Path<(String, String)>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let (on, note) = add(&forge, &key, &number, visitor, &parameters)?;
    created(discussion(&forge, on, &note))
}
