//! Issues and their comments; pull requests are issues too.
//!
//! Never opens or closes one.

use axum::extract::{RawQuery, State};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::Entry;
use super::pull_wire::{association, standing_word};
use super::repositories::numbered;
use super::repository_wire::{rest_url, web_url};
use super::users::basic;
use super::wire::{Answer, Refusal, created, found, node, page, time};
use crate::forge::Forge;
use crate::forge::change_request;
use crate::forge::parameters::Parameters;
use crate::forge::state::{ChangeRequest, Issue, Note, Project, Standing};

/// What issues and pull requests look like in the list of issues.
struct Row {
    id: u64,
    number: u64,
    title: String,
    body: String,
    author: u64,
    standing: Standing,
    labels: Vec<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
    closed_at: Option<Timestamp>,
    notes: Vec<Note>,
    /// For a pull request: whether it is a draft.
    pull: Option<bool>,
}

impl From<&Issue> for Row {
    fn from(one: &Issue) -> Self {
        Self {
            id: one.id,
            number: one.number,
            title: one.title.clone(),
            body: one.description.clone(),
            author: one.author,
            standing: one.standing,
            labels: one.labels.clone(),
            created_at: one.created_at,
            updated_at: one.updated_at,
            closed_at: None,
            notes: one.notes.clone(),
            pull: None,
        }
    }
}

impl From<&ChangeRequest> for Row {
    fn from(one: &ChangeRequest) -> Self {
        Self {
            id: one.id,
            number: one.number,
            title: one.title.clone(),
            body: one.description.clone(),
            author: one.author,
            standing: one.standing,
            labels: one.labels.clone(),
            created_at: one.created_at,
            updated_at: one.updated_at,
            closed_at: one.closed.map(|(at, _)| at),
            notes: one.notes.clone(),
            pull: Some(one.draft),
        }
    }
}

fn rows(project: &Project) -> Vec<Row> {
    let issues = project.issues.iter().map(Row::from);
    issues.chain(project.change_requests.iter().map(Row::from)).collect()
}

fn row_of(entry: &Entry) -> Result<Row, Refusal> {
    let number = entry.number()?;
    let found = rows(&entry.project).into_iter().find(|row| row.number == number);
    found.ok_or(Refusal::NotFound("/issues/issues#get-an-issue"))
}

fn wire(forge: &Forge, project: &Project, row: &Row) -> Value {
    let rest = rest_url(forge, project);
    let own = format!("{rest}/issues/{}", row.number);
    let kind = if row.pull.is_some() { "pull" } else { "issues" };
    let html = format!("{}/{kind}/{}", web_url(forge, project), row.number);
    let labels: Vec<Value> = row
        .labels
        .iter()
        .enumerate()
        .map(|(index, name)| {
            json!({
                "id": row.id * 100 + index as u64,
                "node_id": node("Label", index as u64),
                "url": format!("{rest}/labels/{name}"),
                "name": name,
                "color": "ededed",
                "default": false,
                "description": null,
            })
        })
        .collect();
    let mut body = json!({
        "url": own,
        "repository_url": rest,
        "labels_url": format!("{own}/labels{{/name}}"),
        "comments_url": format!("{own}/comments"),
        "events_url": format!("{own}/events"),
        "html_url": html,
        "id": row.id,
        "node_id": node("Issue", row.id),
        "number": row.number,
        "title": row.title,
        "user": basic(forge, row.author),
        "labels": labels,
        "state": standing_word(row.standing),
        "state_reason": null,
        "locked": false,
        "assignee": null,
        "assignees": [],
        "milestone": null,
        "comments": row.notes.len(),
        "created_at": time(row.created_at),
        "updated_at": time(row.updated_at),
        "closed_at": row.closed_at.map(time),
        "author_association": association(project, row.author),
        "active_lock_reason": null,
        "body": row.body,
        "closed_by": null,
        "performed_via_github_app": null,
        "timeline_url": format!("{own}/timeline"),
        "reactions": {
            "url": format!("{own}/reactions"),
            "total_count": 0, "+1": 0, "-1": 0, "laugh": 0, "hooray": 0, "confused": 0, "heart": 0, "rocket": 0, "eyes": 0,
        },
    });
    if let Some(draft) = row.pull {
        body["draft"] = json!(draft);
        body["pull_request"] = json!({
            "url": format!("{rest}/pulls/{}", row.number),
            "html_url": html,
            "diff_url": format!("{html}.diff"),
            "patch_url": format!("{html}.patch"),
            "merged_at": null,
        });
    }
    body
}

/// `GET …/issues`
pub(crate) async fn list(State(forge): State<Forge>, entry: Entry, RawQuery(query): RawQuery) -> Answer {
    entry.needs("issues", false, "issues=read")?;
    let project = &entry.project;
    if !project.issues_enabled {
        return Err(Refusal::Gone("Issues are disabled for this repo"));
    }
    let parameters = Parameters::from_query(query.as_deref());
    let state = parameters.text("state").unwrap_or_else(|| "open".to_owned());
    let labels = parameters.list("labels").unwrap_or_default();
    let mut all = rows(project);
    all.retain(|row| state == "all" || state == standing_word(row.standing));
    all.retain(|row| labels.iter().all(|label| row.labels.contains(label)));
    all.sort_by_key(|row| row.number);
    if parameters.text("direction").as_deref() != Some("asc") {
        all.reverse();
    }
    page(&numbered(&forge, project, "/issues"), query.as_deref(), all, |row| {
        wire(&forge, project, &row)
    })
}

/// `GET …/issues/:number`
pub(crate) async fn one(State(forge): State<Forge>, entry: Entry) -> Answer {
    entry.needs("issues", false, "issues=read")?;
    found(wire(&forge, &entry.project, &row_of(&entry)?))
}

fn comment_wire(forge: &Forge, project: &Project, row: &Row, note: &Note) -> Value {
    let rest = rest_url(forge, project);
    let kind = if row.pull.is_some() { "pull" } else { "issues" };
    let html = format!(
        "{}/{kind}/{}#issuecomment-{}",
        web_url(forge, project),
        row.number,
        note.id
    );
    json!({
        "url": format!("{rest}/issues/comments/{}", note.id),
        "html_url": html,
        "issue_url": format!("{rest}/issues/{}", row.number),
        "id": note.id,
        "node_id": node("IssueComment", note.id),
        "user": basic(forge, note.author),
        "created_at": time(note.created_at),
        "updated_at": time(note.created_at),
        "author_association": association(project, note.author),
        "body": note.body,
        "performed_via_github_app": null,
    })
}

/// `GET …/issues/:number/comments`
pub(crate) async fn comments(State(forge): State<Forge>, entry: Entry, RawQuery(query): RawQuery) -> Answer {
    entry.needs("issues", false, "issues=read")?;
    let row = row_of(&entry)?;
    let url = numbered(&forge, &entry.project, &format!("/issues/{}/comments", row.number));
    let notes = row.notes.clone();
    page(&url, query.as_deref(), notes, |note| {
        comment_wire(&forge, &entry.project, &row, &note)
    })
}

/// `POST …/issues/:number/comments`
pub(crate) async fn comment(State(forge): State<Forge>, entry: Entry, parameters: Parameters) -> Answer {
    entry.needs("issues", true, "issues=write; pull_requests=write")?;
    let author = entry.caller()?.user.id;
    let row = row_of(&entry)?;
    let body = parameters.text("body").filter(|body| !body.trim().is_empty()).ok_or_else(|| {
        Refusal::Invalid(json!([{"resource": "IssueComment", "code": "unprocessable", "field": "data", "message": "Body cannot be blank"}]))
    })?;
    let project = &entry.project;
    let note = if row.pull.is_some() {
        change_request::add_note(&forge, project.id, row.number, author, body, false)
    } else {
        let mut world = forge.world();
        let id = world.next_id();
        let live = world.project_mut(project.id);
        live.and_then(|live| live.issues.iter_mut().find(|issue| issue.number == row.number))
            .map(|issue| {
                let note = Note {
                    id,
                    author,
                    body,
                    system: false,
                    created_at: Timestamp::now(),
                };
                issue.notes.push(note.clone());
                note
            })
    };
    let note = note.ok_or(Refusal::NotFound(""))?;
    created(comment_wire(&forge, project, &row, &note))
}
