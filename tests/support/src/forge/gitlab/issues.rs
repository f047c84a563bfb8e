//! Issues: list, read, comments.
//!
//! Never opens or closes one.

use axum::extract::{Path, State};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::{self, Visitor};
use super::merge_request_wire::{standing_word, time_stats};
use super::notes::{DEFAULTS, On, body_of, note_wire, selected};
use super::users::basic;
use super::wire::{Answer, Refusal, created, found, page, time};
use crate::forge::Forge;
use crate::forge::parameters::Parameters;
use crate::forge::state::{Issue, Note, Project};

fn issue_wire(forge: &Forge, project: &Project, issue: &Issue) -> Value {
    let rest = format!("{}/gitlab/api/v4/projects/{}", forge.url(), project.id);
    let own = format!("{rest}/issues/{}", issue.number);
    json!({
        "id": issue.id,
        "iid": issue.number,
        "project_id": project.id,
        "title": issue.title,
        "description": issue.description,
        "state": standing_word(issue.standing),
        "created_at": time(issue.created_at),
        "updated_at": time(issue.updated_at),
        "closed_at": null,
        "closed_by": null,
        "labels": issue.labels,
        "milestone": null,
        "assignees": [],
        "author": basic(forge, issue.author),
        "type": "ISSUE",
        "assignee": null,
        "user_notes_count": issue.notes.iter().filter(|note| !note.system).count(),
        "merge_requests_count": 0,
        "upvotes": 0,
        "downvotes": 0,
        "due_date": null,
        "confidential": false,
        "discussion_locked": null,
        "issue_type": "issue",
        "web_url": format!("{}/gitlab/{}/-/issues/{}", forge.url(), project.path, issue.number),
        "time_stats": time_stats(),
        "task_completion_status": {"count": 0, "completed_count": 0},
        "weight": null,
        "blocking_issues_count": 0,
        "has_tasks": true,
        "task_status": "0 of 0 checklist items completed",
        "health_status": null,
        "_links": {
            "self": own,
            "notes": format!("{own}/notes"),
            "award_emoji": format!("{own}/award_emoji"),
            "project": rest,
            "closed_as_duplicate_of": null,
        },
        "references": {
            "short": format!("#{}", issue.number),
            "relative": format!("#{}", issue.number),
            "full": format!("{}#{}", project.path, issue.number),
        },
        "severity": "UNKNOWN",
        "moved_to_id": null,
        "imported": false,
        "imported_from": "none",
        "service_desk_reply_to": null,
    })
}

/// `GET /projects/:id/issues`
pub(crate) async fn list(
    State(forge): State<Forge>,
    Path(key): Path<String>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.anyone()?;
    let project = access::project(&forge, &key, caller.as_ref().map(|caller| &caller.user))?;
    let state = parameters.text("state").unwrap_or_else(|| "all".to_owned());
    if !["opened", "closed", "all"].contains(&state.as_str()) {
        return Err(Refusal::Parameter("state does not have a valid value".to_owned()));
    }
    let search = parameters.text("search").unwrap_or_default().to_lowercase();
    let labels = parameters.list("labels").unwrap_or_default();
    let mut all: Vec<Issue> = project
        .issues
        .iter()
        .filter(|issue| state == "all" || state == standing_word(issue.standing))
        .filter(|issue| labels.iter().all(|label| issue.labels.contains(label)))
        .filter(|issue| {
            issue.title.to_lowercase().contains(&search) || issue.description.to_lowercase().contains(&search)
        })
        .cloned()
        .collect();
    if parameters.text("sort").as_deref() != Some("asc") {
        all.reverse();
    }
    let url = format!("{}/gitlab/api/v4/projects/{}/issues", forge.url(), project.id);
    let id = project.id.to_string();
    let defaults = [
        ("id", id.as_str()),
        ("order_by", "created_at"),
        ("sort", "desc"),
        ("state", &state),
        ("with_labels_details", "false"),
    ];
    page(&url, &parameters, &defaults, all, |issue| {
        issue_wire(&forge, &project, &issue)
    })
}

fn number(text: &str) -> Result<u64, Refusal> {
    text.parse()
        .map_err(|_| Refusal::Parameter("issue_iid is invalid".to_owned()))
}

fn entry(forge: &Forge, key: &str, text: &str, visitor: Visitor) -> Result<(Project, Issue), Refusal> {
    let caller = visitor.anyone()?;
    let number = number(text)?;
    let project = access::project(forge, key, caller.as_ref().map(|caller| &caller.user))?;
    let issue = project.issues.iter().find(|issue| issue.number == number).cloned();
    Ok((project, issue.ok_or(Refusal::MissingEntry)?))
}

/// `GET /projects/:id/issues/:iid`
pub(crate) async fn one(
    State(forge): State<Forge>,
    Path((key, text)): Path<(String, String)>,
    visitor: Visitor,
) -> Answer {
    let (project, issue) = entry(&forge, &key, &text, visitor)?;
    let mut body = issue_wire(&forge, &project, &issue);
    body["subscribed"] = json!(true);
    found(body)
}

/// `GET /projects/:id/issues/:iid/notes`
pub(crate) async fn notes(
    State(forge): State<Forge>,
    Path((key, text)): Path<(String, String)>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let (project, issue) = entry(&forge, &key, &text, visitor)?;
    let on = On {
        kind: "Issue",
        id: issue.id,
        number: issue.number,
        project: project.id,
    };
    let url = format!(
        "{}/gitlab/api/v4/projects/{}/issues/{}/notes",
        forge.url(),
        project.id,
        issue.number
    );
    page(
        &url,
        &parameters,
        &DEFAULTS,
        selected(&issue.notes, &parameters)?,
        |note| note_wire(&forge, on, &note),
    )
}

/// `POST /projects/:id/issues/:iid/notes`
pub(crate) async fn note(
    State(forge): State<Forge>,
    Path((key, text)): Path<(String, String)>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.writer()?;
    let number = number(&text)?;
    let project = access::project(&forge, &key, Some(&caller.user))?;
    let body = body_of(&parameters)?;
    let mut world = forge.world();
    let id = world.next_id();
    let live = world.project_mut(project.id).ok_or(Refusal::Missing("Project"))?;
    let issue = live
        .issues
        .iter_mut()
        .find(|issue| issue.number == number)
        .ok_or(Refusal::MissingEntry)?;
    let note = Note {
        id,
        author: caller.user.id,
        body,
        system: false,
        created_at: Timestamp::now(),
    };
    issue.notes.push(note.clone());
    let on = On {
        kind: "Issue",
        id: issue.id,
        number,
        project: project.id,
    };
    drop(world);
    created(note_wire(&forge, on, &note))
}
