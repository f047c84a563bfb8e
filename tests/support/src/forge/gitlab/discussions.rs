//! Threads: of merge requests and of issues. Begins, answers and resolves them.
//!
//! Never deletes one.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::access::Visitor;
use super::notes::{Kind, Noted, On, alter, body_of, note_wire, noted, resolvable};
use super::wire::{Answer, Refusal, created, found, page};
use crate::forge::Forge;
use crate::forge::parameters::Parameters;
use crate::forge::state::{Note, Position};

/// GitLab's id of a thread: 40 hexadecimal digits.
fn thread_id(thread: u64) -> String {
    let mut digest = hex::encode(Sha256::digest(format!("discussion {thread}")));
    digest.truncate(40);
    digest
}

/// Threads in the order in which they began.
fn threads(notes: Vec<Note>) -> Vec<Vec<Note>> {
    let mut all: Vec<Vec<Note>> = Vec::new();
    for note in notes {
        match all
            .iter_mut()
            .find(|thread| thread.first().is_some_and(|first| first.thread == note.thread))
        {
            Some(thread) => thread.push(note),
            None => all.push(vec![note]),
        }
    }
    all
}

fn wire(forge: &Forge, on: On, thread: &[Note]) -> Value {
    let first = thread.first();
    json!({
        "id": first.map(|note| thread_id(note.thread)),
        "individual_note": first.is_some_and(|note| note.individual),
        "notes": thread.iter().map(|note| note_wire(forge, on, note)).collect::<Vec<_>>(),
    })
}

fn thread_of(noted: &Noted, id: &str) -> Result<Vec<Note>, Refusal> {
    let thread: Vec<Note> = noted
        .notes
        .iter()
        .filter(|note| thread_id(note.thread) == id)
        .cloned()
        .collect();
    if thread.is_empty() {
        return Err(Refusal::Missing("Discussion"));
    }
    Ok(thread)
}

/// `GET …/discussions`
async fn list(forge: Forge, kind: Kind, path: (String, String), visitor: Visitor, parameters: Parameters) -> Answer {
    let caller = visitor.anyone()?;
    let noted = noted(&forge, kind, (&path.0, &path.1), caller.as_ref())?;
    let url = noted.url(&forge, "discussions");
    let (id, iid) = (noted.project.id.to_string(), noted.on.number.to_string());
    let on = noted.on;
    page(
        &url,
        &parameters,
        &[("id", &id), ("noteable_id", &iid)],
        threads(noted.notes),
        |thread| wire(&forge, on, &thread),
    )
}

/// `GET …/discussions/:id`
async fn one(forge: Forge, kind: Kind, path: (String, String, String), visitor: Visitor) -> Answer {
    let caller = visitor.anyone()?;
    let noted = noted(&forge, kind, (&path.0, &path.1), caller.as_ref())?;
    found(wire(&forge, noted.on, &thread_of(&noted, &path.2)?))
}

/// The line that a new thread is about.
fn position(parameters: &Parameters) -> Result<Option<Position>, Refusal> {
    // In JSON an object; in a form `position[key]`.
    let field = |key: &str| {
        let nested = parameters
            .value("position")
            .and_then(|position| position.get(key))
            .cloned();
        nested.or_else(|| parameters.value(&format!("position[{key}]")).cloned())
    };
    let text = |key: &str| field(key).and_then(|value| value.as_str().map(ToOwned::to_owned));
    let line = |key: &str| field(key).and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    let given = parameters.has("position") || field("position_type").is_some();
    if !given {
        return Ok(None);
    }
    let missing: Vec<String> = ["base_sha", "start_sha", "head_sha", "position_type"]
        .iter()
        .filter(|key| text(key).is_none())
        .map(|key| format!("position[{key}] is missing"))
        .collect();
    if !missing.is_empty() {
        return Err(Refusal::Parameter(missing.join(", ")));
    }
    let (old_path, new_path) = (text("old_path"), text("new_path"));
    Ok(Some(Position {
        base: text("base_sha").unwrap_or_default(),
        start: text("start_sha").unwrap_or_default(),
        head: text("head_sha").unwrap_or_default(),
        old_path: old_path.clone().or_else(|| new_path.clone()).unwrap_or_default(),
        new_path: new_path.or(old_path).unwrap_or_default(),
        old_line: line("old_line"),
        new_line: line("new_line"),
    }))
}

/// `POST …/discussions`
async fn begin(forge: Forge, kind: Kind, path: (String, String), visitor: Visitor, parameters: Parameters) -> Answer {
    let caller = visitor.writer()?;
    let noted = noted(&forge, kind, (&path.0, &path.1), Some(&caller))?;
    let mut note = Note::alone(forge.world().next_id(), caller.user.id, body_of(&parameters)?);
    note.individual = false;
    if kind == Kind::MergeRequest {
        note.position = position(&parameters)?;
    }
    let note = alter(&forge, noted.on, |notes| {
        notes.push(note.clone());
        Some(note)
    })?;
    created(wire(&forge, noted.on, &[note]))
}

/// `POST …/discussions/:id/notes`: an answer. A comment that stood alone becomes a thread by it.
async fn reply(
    forge: Forge,
    kind: Kind,
    path: (String, String, String),
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.writer()?;
    let noted = noted(&forge, kind, (&path.0, &path.1), Some(&caller))?;
    let first = thread_of(&noted, &path.2)?.remove(0);
    if first.system {
        return Err(Refusal::BadRequest("Discussion can not be replied to.".to_owned()));
    }
    let mut note = Note::alone(forge.world().next_id(), caller.user.id, body_of(&parameters)?);
    note.individual = false;
    note.thread = first.thread;
    note.position = first.position;
    note.resolved = first.resolved;
    let note = alter(&forge, noted.on, |notes| {
        for old in notes.iter_mut().filter(|old| old.thread == note.thread) {
            old.individual = false;
        }
        notes.push(note.clone());
        Some(note)
    })?;
    created(note_wire(&forge, noted.on, &note))
}

/// `PUT …/discussions/:id`: resolves a thread or takes that back.
async fn resolve(
    forge: Forge,
    kind: Kind,
    path: (String, String, String),
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.writer()?;
    let noted = noted(&forge, kind, (&path.0, &path.1), Some(&caller))?;
    let thread = thread_of(&noted, &path.2)?;
    let resolved = parameters.flag("resolved").ok_or_else(|| {
        let why = if parameters.has("resolved") {
            "invalid"
        } else {
            "missing"
        };
        Refusal::Parameter(format!("resolved is {why}"))
    })?;
    let author = forge
        .reread(&noted.project)
        .change_requests
        .iter()
        .find(|one| one.id == noted.on.id)
        .map(|one| one.author);
    if author != Some(caller.user.id) && !noted.project.writable_by(Some(caller.user.id)) {
        return Err(Refusal::Forbidden);
    }
    if !thread.iter().any(|note| resolvable(noted.on, note)) {
        return Err(Refusal::Forbidden);
    }
    let id = thread.first().map(|note| note.thread);
    let thread = alter(&forge, noted.on, |notes| {
        for note in notes.iter_mut().filter(|note| Some(note.thread) == id) {
            note.resolved = resolved.then(|| (Timestamp::now(), caller.user.id));
        }
        Some(
            notes
                .iter()
                .filter(|note| Some(note.thread) == id)
                .cloned()
                .collect::<Vec<_>>(),
        )
    })?;
    found(wire(&forge, noted.on, &thread))
}

/// The routes of one kind of thing.
pub(crate) fn router(under: &str, kind: Kind) -> axum::Router<Forge> {
    type Two = Path<(String, String)>;
    type Three = Path<(String, String, String)>;
    let lists = get(
        move |State(forge): State<Forge>, Path(path): Two, visitor: Visitor, parameters: Parameters| {
            list(forge, kind, path, visitor, parameters)
        },
    )
    .post(
        move |State(forge): State<Forge>, Path(path): Two, visitor: Visitor, parameters: Parameters| {
            begin(forge, kind, path, visitor, parameters)
        },
    );
    let mut single =
        get(move |State(forge): State<Forge>, Path(path): Three, visitor: Visitor| one(forge, kind, path, visitor));
    if kind == Kind::MergeRequest {
        single = single.put(
            move |State(forge): State<Forge>, Path(path): Three, visitor: Visitor, parameters: Parameters| {
                resolve(forge, kind, path, visitor, parameters)
            },
        );
    }
    let answers = post(
        move |State(forge): State<Forge>, Path(path): Three, visitor: Visitor, parameters: Parameters| {
            reply(forge, kind, path, visitor, parameters)
        },
    );
    axum::Router::new()
        .route(&format!("{under}/discussions"), lists)
        .route(&format!("{under}/discussions/{{discussion}}"), single)
        .route(&format!("{under}/discussions/{{discussion}}/notes"), answers)
}
