//! Issues: list, read, open, change. Comments are in `notes`.
//!
//! Never deletes one.

use axum::extract::{Path, State};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::{self, Visitor};
use super::merge_request_wire::{standing_word, time_stats};
use super::merge_requests::assignees;
use super::users::basic;
use super::wire::{Answer, Refusal, created, found, page, time};
use crate::forge::Forge;
use crate::forge::parameters::Parameters;
use crate::forge::seed::IssueKind;
use crate::forge::state::{Caller, Issue, Project, Standing};

fn issue_wire(forge: &Forge, project: &Project, issue: &Issue) -> Value {
    let rest = format!("{}/api/v4/projects/{}", forge.gitlab(), project.id);
    let own = format!("{rest}/issues/{}", issue.number);
    let (kind, page) = match issue.kind {
        IssueKind::Issue => ("issue", "issues"),
        IssueKind::Incident => ("incident", "issues"),
        IssueKind::Task => ("task", "work_items"),
    };
    let assignees: Vec<Value> = issue.assignees.iter().take(1).map(|id| basic(forge, *id)).collect();
    json!({
        "id": issue.id,
        "iid": issue.number,
        "project_id": project.id,
        "title": issue.title,
        "description": issue.description,
        "state": standing_word(issue.standing),
        "created_at": time(issue.created_at),
        "updated_at": time(issue.updated_at),
        "closed_at": issue.closed.map(|(at, _)| time(at)),
        "closed_by": issue.closed.map(|(_, by)| basic(forge, by)),
        "labels": issue.labels,
        "milestone": null,
        "assignees": assignees,
        "author": basic(forge, issue.author),
        "type": kind.to_uppercase(),
        "assignee": assignees.first(),
        "user_notes_count": issue.notes.iter().filter(|note| !note.system).count(),
        "merge_requests_count": 0,
        "upvotes": 0,
        "downvotes": 0,
        "due_date": null,
        "confidential": false,
        "discussion_locked": null,
        "issue_type": kind,
        "web_url": format!("{}/{}/-/{page}/{}", forge.gitlab(), project.path, issue.number),
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

/// The value of a parameter that has few.
fn one_of(parameters: &Parameters, key: &str, allowed: &[&str], default: &str) -> Result<String, Refusal> {
    let value = parameters.text(key).unwrap_or_else(|| default.to_owned());
    if allowed.contains(&value.as_str()) {
        Ok(value)
    } else {
        Err(Refusal::Parameter(format!("{key} does not have a valid value")))
    }
}

const ORDERS: [&str; 11] = [
    "created_at",
    "updated_at",
    "due_date",
    "label_priority",
    "milestone_due",
    "popularity",
    "priority",
    "relative_position",
    "title",
    "closed_at",
    "weight",
];

/// `GET /projects/:id/issues`
pub(crate) async fn list(
    State(forge): State<Forge>,
    Path(key): Path<String>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.anyone()?;
    let project = access::project(&forge, &key, caller.as_ref().map(|caller| &caller.user))?;
    let state = one_of(&parameters, "state", &["opened", "closed", "all"], "all")?;
    let order = one_of(&parameters, "order_by", &ORDERS, "created_at")?;
    let sort = one_of(&parameters, "sort", &["asc", "desc"], "desc")?;
    let scope = [
        "created-by-me",
        "assigned-to-me",
        "created_by_me",
        "assigned_to_me",
        "all",
    ];
    let scope = one_of(&parameters, "scope", &scope, "all")?.replace('-', "_");
    let kind = match parameters.text("issue_type").as_deref() {
        None => None,
        Some("issue") => Some(IssueKind::Issue),
        Some("incident") => Some(IssueKind::Incident),
        Some("task") => Some(IssueKind::Task),
        Some(_) => return Err(Refusal::Parameter("issue_type does not have a valid value".to_owned())),
    };
    let search = parameters.text("search").unwrap_or_default().to_lowercase();
    let labels = parameters.list("labels").unwrap_or_default();
    let (author, assignee) = (
        person(&forge, &parameters, "author_username"),
        person(&forge, &parameters, "assignee_username"),
    );
    let author_id = parameters.number("author_id");
    let me = caller.as_ref().map(|caller| caller.user.id);
    let iids = parameters.list("iids");
    let mut all: Vec<Issue> = project
        .issues
        .iter()
        .filter(|issue| state == "all" || state == standing_word(issue.standing))
        .filter(|issue| kind.is_none_or(|kind| kind == issue.kind))
        .filter(|issue| author.is_none_or(|author| author == Some(issue.author)))
        .filter(|issue| author_id.is_none_or(|author| author == issue.author))
        .filter(|issue| assignee.is_none_or(|one| one.is_some_and(|one| issue.assignees.contains(&one))))
        .filter(|issue| match scope.as_str() {
            "created_by_me" => me == Some(issue.author),
            "assigned_to_me" => me.is_some_and(|me| issue.assignees.contains(&me)),
            _ => true,
        })
        .filter(|issue| {
            iids.as_ref()
                .is_none_or(|iids| iids.contains(&issue.number.to_string()))
        })
        .filter(|issue| labels.iter().all(|label| issue.labels.contains(label)))
        .filter(|issue| {
            issue.title.to_lowercase().contains(&search) || issue.description.to_lowercase().contains(&search)
        })
        .cloned()
        .collect();
    all.sort_by_key(|issue| {
        let at = if order == "updated_at" {
            issue.updated_at
        } else {
            issue.created_at
        };
        (at, issue.number)
    });
    if order == "title" {
        all.sort_by(|a, b| a.title.cmp(&b.title));
    }
    if sort == "desc" {
        all.reverse();
    }
    let url = format!("{}/api/v4/projects/{}/issues", forge.gitlab(), project.id);
    let id = project.id.to_string();
    let defaults = [
        ("id", id.as_str()),
        ("order_by", &order),
        ("sort", &sort),
        ("state", &state),
        ("with_labels_details", "false"),
    ];
    page(&url, &parameters, &defaults, all, |issue| {
        issue_wire(&forge, &project, &issue)
    })
}

/// Who a parameter names: `Some(None)` for a name that nobody has.
fn person(forge: &Forge, parameters: &Parameters, key: &str) -> Option<Option<u64>> {
    let name = parameters.text(key)?;
    Some(forge.world().person(&name).map(|user| user.id))
}

/// `GET /issues/:id`: for administrators, which nobody is here.
pub(crate) async fn by_id(visitor: Visitor) -> Answer {
    visitor.anyone()?.ok_or(Refusal::Unauthorized)?;
    Err(Refusal::Forbidden)
}

/// `POST /projects/:id/issues`
pub(crate) async fn create(
    State(forge): State<Forge>,
    Path(key): Path<String>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.writer()?;
    let project = access::project(&forge, &key, Some(&caller.user))?;
    if !project.issues_enabled {
        return Err(Refusal::Forbidden);
    }
    let title = parameters
        .text("title")
        .ok_or_else(|| Refusal::Parameter("title is missing".to_owned()))?;
    if title.trim().is_empty() {
        return Err(Refusal::Invalid(json!({"title": ["can't be blank"]})));
    }
    let mut world = forge.world();
    let id = world.next_id();
    let live = world.project_mut(project.id).ok_or(Refusal::Missing("Project"))?;
    let now = Timestamp::now();
    let issue = Issue {
        id,
        number: live.next_number(true),
        title,
        description: parameters.text("description").unwrap_or_default(),
        author: caller.user.id,
        standing: Standing::Open,
        kind: IssueKind::Issue,
        labels: parameters.list("labels").unwrap_or_default(),
        assignees: assignees(live, &parameters).unwrap_or_default(),
        closed: None,
        created_at: now,
        updated_at: now,
        notes: Vec::new(),
    };
    live.issues.push(issue.clone());
    drop(world);
    let mut body = issue_wire(&forge, &project, &issue);
    body["subscribed"] = json!(true);
    // Counted in the background.
    body["blocking_issues_count"] = Value::Null;
    created(body)
}

/// `PUT /projects/:id/issues/:iid`
pub(crate) async fn update(
    State(forge): State<Forge>,
    Path((key, text)): Path<(String, String)>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.writer()?;
    let number = number(&text)?;
    let project = access::project(&forge, &key, Some(&caller.user))?;
    let event = match parameters.text("state_event").as_deref() {
        None => None,
        Some("close") => Some(Standing::Closed),
        Some("reopen") => Some(Standing::Open),
        Some(_) => return Err(Refusal::Parameter("state_event does not have a valid value".to_owned())),
    };
    let known = [
        "add_labels",
        "assignee_ids",
        "description",
        "labels",
        "remove_labels",
        "state_event",
        "title",
    ];
    if !known.iter().any(|key| parameters.has(key)) {
        let text = format!(
            "{} are missing, at least one parameter must be provided",
            known.join(", ")
        );
        return Err(Refusal::Parameter(text));
    }
    let issue = {
        let mut world = forge.world();
        let live = world.project_mut(project.id).ok_or(Refusal::Missing("Project"))?;
        let writable = live.writable_by(Some(caller.user.id));
        let assigned = assignees(live, &parameters);
        let issue = live
            .issues
            .iter_mut()
            .find(|issue| issue.number == number)
            .ok_or(Refusal::MissingEntry)?;
        if issue.author != caller.user.id && !writable {
            return Err(Refusal::Forbidden);
        }
        change(issue, &parameters, event, assigned, &caller);
        issue.clone()
    };
    let mut body = issue_wire(&forge, &project, &issue);
    body["subscribed"] = json!(true);
    found(body)
}

fn change(
    issue: &mut Issue,
    parameters: &Parameters,
    event: Option<Standing>,
    assigned: Option<Vec<u64>>,
    caller: &Caller,
) {
    if let Some(title) = parameters.text("title") {
        issue.title = title;
    }
    if let Some(description) = parameters.text("description") {
        issue.description = description;
    }
    if let Some(labels) = parameters.list("labels") {
        issue.labels = labels;
    }
    let dropped = parameters.list("remove_labels").unwrap_or_default();
    issue.labels.retain(|label| !dropped.contains(label));
    for label in parameters.list("add_labels").unwrap_or_default() {
        if !issue.labels.contains(&label) {
            issue.labels.push(label);
        }
    }
    if let Some(assigned) = assigned {
        issue.assignees = assigned;
    }
    let now = Timestamp::now();
    if let Some(standing) = event {
        issue.standing = standing;
        issue.closed = (standing == Standing::Closed).then_some((now, caller.user.id));
    }
    issue.updated_at = now;
}

pub(crate) fn number(text: &str) -> Result<u64, Refusal> {
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
