//! Comments of merge requests and issues.
//!
//! Threads are in `discussions`. Never deletes one.

use axum::extract::{Path, State};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::{self, Visitor};
use super::merge_requests::iid;
use super::users::basic;
use super::wire::{Answer, Refusal, created, found, page, time};
use crate::forge::Forge;
use crate::forge::parameters::Parameters;
use crate::forge::state::{Caller, Note, Position, Project};

/// What notes hang on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    MergeRequest,
    Issue,
}

impl Kind {
    /// The part of the address.
    pub(crate) fn route(self) -> &'static str {
        match self {
            Self::MergeRequest => "merge_requests",
            Self::Issue => "issues",
        }
    }
}

/// One thing that notes hang on.
#[derive(Clone, Copy)]
pub(crate) struct On {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    pub(crate) number: u64,
    pub(crate) project: u64,
}

/// Project, thing and its notes, of a request that reads or writes them.
pub(crate) struct Noted {
    pub(crate) project: Project,
    pub(crate) on: On,
    pub(crate) notes: Vec<Note>,
}

/// Finds what a request's notes hang on, for somebody who may know of it.
pub(crate) fn noted(
    forge: &Forge,
    kind: Kind,
    (key, number): (&str, &str),
    caller: Option<&Caller>,
) -> Result<Noted, Refusal> {
    let user = caller.map(|caller| &caller.user);
    let (project, id, number, notes) = match kind {
        Kind::MergeRequest => {
            let number = iid(number)?;
            let project = access::project_with_code(forge, key, user)?;
            let one = project.change_requests.iter().find(|one| one.number == number);
            let one = one.ok_or(Refusal::MissingEntry)?.clone();
            (project, one.id, number, one.notes)
        }
        Kind::Issue => {
            let number = super::issues::number(number)?;
            let project = access::project(forge, key, user)?;
            let one = project.issues.iter().find(|one| one.number == number);
            let one = one.ok_or(Refusal::MissingEntry)?.clone();
            (project, one.id, number, one.notes)
        }
    };
    let on = On {
        kind,
        id,
        number,
        project: project.id,
    };
    Ok(Noted { project, on, notes })
}

impl Noted {
    pub(crate) fn url(&self, forge: &Forge, rest: &str) -> String {
        let (kind, number) = (self.on.kind.route(), self.on.number);
        format!(
            "{}/api/v4/projects/{}/{kind}/{number}/{rest}",
            forge.gitlab(),
            self.project.id
        )
    }
}

/// Changes the live notes of a thing.
pub(crate) fn alter<T>(forge: &Forge, on: On, change: impl FnOnce(&mut Vec<Note>) -> Option<T>) -> Result<T, Refusal> {
    let mut world = forge.world();
    let project = world.project_mut(on.project).ok_or(Refusal::Missing("Project"))?;
    let now = Timestamp::now();
    let notes = match on.kind {
        Kind::MergeRequest => {
            let one = project.change_requests.iter_mut().find(|one| one.number == on.number);
            one.map(|one| (&mut one.notes, &mut one.updated_at))
        }
        Kind::Issue => {
            let one = project.issues.iter_mut().find(|one| one.number == on.number);
            one.map(|one| (&mut one.notes, &mut one.updated_at))
        }
    };
    let (notes, updated_at) = notes.ok_or(Refusal::MissingEntry)?;
    let done = change(notes).ok_or(Refusal::MissingEntry)?;
    *updated_at = now;
    Ok(done)
}

fn position_wire(position: &Position) -> Value {
    json!({
        "base_sha": position.base,
        "start_sha": position.start,
        "head_sha": position.head,
        "old_path": position.old_path,
        "new_path": position.new_path,
        "position_type": "text",
        "old_line": position.old_line,
        "new_line": position.new_line,
        "line_range": null,
    })
}

/// Only threads of merge requests can be resolved.
pub(crate) fn resolvable(on: On, note: &Note) -> bool {
    on.kind == Kind::MergeRequest && !note.system && !note.individual
}

pub(crate) fn note_wire(forge: &Forge, on: On, note: &Note) -> Value {
    let kind = match (&note.position, note.individual) {
        (Some(_), _) => json!("DiffNote"),
        (None, false) => json!("DiscussionNote"),
        (None, true) => Value::Null,
    };
    let noteable = match on.kind {
        Kind::MergeRequest => "MergeRequest",
        Kind::Issue => "Issue",
    };
    let mut body = json!({
        "id": note.id,
        "type": kind,
        "body": note.body,
        "attachment": null,
        "author": basic(forge, note.author),
        "created_at": time(note.created_at),
        "updated_at": time(note.updated_at),
        "system": note.system,
        "noteable_id": on.id,
        "noteable_type": noteable,
        "project_id": on.project,
        "resolvable": resolvable(on, note),
        "confidential": false,
        "internal": false,
        "imported": false,
        "imported_from": "none",
        "noteable_iid": on.number,
        "commands_changes": {},
    });
    if let Some(position) = &note.position {
        body["commit_id"] = Value::Null;
        body["position"] = position_wire(position);
    }
    if resolvable(on, note) {
        body["resolved"] = json!(note.resolved.is_some());
        body["resolved_by"] = note.resolved.map_or(Value::Null, |(_, by)| basic(forge, by));
        body["resolved_at"] = json!(note.resolved.map(|(at, _)| time(at)));
    }
    body
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
fn selected(notes: Vec<Note>, parameters: &Parameters) -> Result<Vec<Note>, Refusal> {
    let bad = |key: &str| Err(Refusal::Parameter(format!("{key} does not have a valid value")));
    let mut all = notes;
    match parameters.text("activity_filter").as_deref() {
        None | Some("all_notes") => {}
        Some("only_comments") => all.retain(|note| !note.system),
        Some("only_activity") => all.retain(|note| note.system),
        Some(_) => return bad("activity_filter"),
    }
    match parameters.text("order_by").as_deref() {
        None | Some("created_at") => {}
        Some("updated_at") => all.sort_by_key(|note| (note.updated_at, note.id)),
        Some(_) => return bad("order_by"),
    }
    match parameters.text("sort").as_deref() {
        None | Some("desc") => all.reverse(),
        Some("asc") => {}
        Some(_) => return bad("sort"),
    }
    Ok(all)
}

/// `GET …/notes`
async fn list(forge: Forge, kind: Kind, path: (String, String), visitor: Visitor, parameters: Parameters) -> Answer {
    let caller = visitor.anyone()?;
    let noted = noted(&forge, kind, (&path.0, &path.1), caller.as_ref())?;
    let url = noted.url(&forge, "notes");
    let (id, iid) = (noted.project.id.to_string(), noted.on.number.to_string());
    let defaults = [
        ("activity_filter", "all_notes"),
        ("id", &id),
        ("noteable_id", &iid),
        ("order_by", "created_at"),
        ("sort", "desc"),
    ];
    let on = noted.on;
    page(
        &url,
        &parameters,
        &defaults,
        selected(noted.notes, &parameters)?,
        |note| note_wire(&forge, on, &note),
    )
}

/// `POST …/notes`
async fn add(forge: Forge, kind: Kind, path: (String, String), visitor: Visitor, parameters: Parameters) -> Answer {
    let caller = visitor.writer()?;
    let noted = noted(&forge, kind, (&path.0, &path.1), Some(&caller))?;
    let body = body_of(&parameters)?;
    let note = Note::alone(forge.world().next_id(), caller.user.id, body);
    let note = alter(&forge, noted.on, |notes| {
        notes.push(note.clone());
        Some(note)
    })?;
    created(note_wire(&forge, noted.on, &note))
}

fn note_of(notes: &[Note], id: &str) -> Result<Note, Refusal> {
    let id: u64 = id
        .parse()
        .map_err(|_| Refusal::Parameter("note_id is invalid".to_owned()))?;
    notes
        .iter()
        .find(|note| note.id == id)
        .cloned()
        .ok_or(Refusal::Missing("Note"))
}

/// `GET …/notes/:id`
async fn one(forge: Forge, kind: Kind, path: (String, String, String), visitor: Visitor) -> Answer {
    let caller = visitor.anyone()?;
    let noted = noted(&forge, kind, (&path.0, &path.1), caller.as_ref())?;
    found(note_wire(&forge, noted.on, &note_of(&noted.notes, &path.2)?))
}

/// `PUT …/notes/:id`: its author changes its text.
async fn edit(
    forge: Forge,
    kind: Kind,
    path: (String, String, String),
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.writer()?;
    let noted = noted(&forge, kind, (&path.0, &path.1), Some(&caller))?;
    let note = note_of(&noted.notes, &path.2)?;
    if note.author != caller.user.id {
        return Err(Refusal::Forbidden);
    }
    let body = body_of(&parameters)?;
    let note = alter(&forge, noted.on, |notes| {
        let live = notes.iter_mut().find(|live| live.id == note.id)?;
        live.body = body;
        live.updated_at = Timestamp::now();
        Some(live.clone())
    })?;
    found(note_wire(&forge, noted.on, &note))
}

/// The routes of one kind of thing.
pub(crate) fn router(under: &str, kind: Kind) -> axum::Router<Forge> {
    type Two = Path<(String, String)>;
    type Three = Path<(String, String, String)>;
    let lists = axum::routing::get(
        move |State(forge): State<Forge>, Path(path): Two, visitor: Visitor, parameters: Parameters| {
            list(forge, kind, path, visitor, parameters)
        },
    )
    .post(
        move |State(forge): State<Forge>, Path(path): Two, visitor: Visitor, parameters: Parameters| {
            add(forge, kind, path, visitor, parameters)
        },
    );
    let single = axum::routing::get(move |State(forge): State<Forge>, Path(path): Three, visitor: Visitor| {
        one(forge, kind, path, visitor)
    })
    .put(
        move |State(forge): State<Forge>, Path(path): Three, visitor: Visitor, parameters: Parameters| {
            edit(forge, kind, path, visitor, parameters)
        },
    );
    axum::Router::new()
        .route(&format!("{under}/notes"), lists)
        .route(&format!("{under}/notes/{{note}}"), single)
}
