//! Issues and their comments; pull requests are issues too.
//!
//! Never deletes one.

use axum::extract::{RawQuery, State};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::Entry;
use super::labels::labels;
use super::pull_wire::{association, standing_word};
use super::repositories::numbered;
use super::repository_wire::{rest_url, web_url};
use super::users::basic;
use super::wire::{Answer, Refusal, created, found, node, page, time};
use crate::forge::Forge;
use crate::forge::change_request;
use crate::forge::parameters::Parameters;
use crate::forge::seed::IssueKind;
use crate::forge::state::{ChangeRequest, Issue, Note, Project, Standing};

/// What issues and pull requests look like in the list of issues.
pub(crate) struct Row {
    pub(crate) id: u64,
    pub(crate) number: u64,
    pub(crate) title: String,
    pub(crate) body: String,
    pub(crate) author: u64,
    pub(crate) standing: Standing,
    pub(crate) labels: Vec<String>,
    pub(crate) assignees: Vec<u64>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) closed: Option<(Timestamp, u64)>,
    pub(crate) merged_at: Option<Timestamp>,
    pub(crate) notes: Vec<Note>,
    /// For a pull request: whether it is a draft.
    pub(crate) pull: Option<bool>,
    /// For a pull request: its branches.
    pub(crate) branches: Option<(String, String)>,
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
            assignees: one.assignees.clone(),
            closed: one.closed,
            merged_at: None,
            notes: one.notes.iter().filter(|note| !note.system).cloned().collect(),
            pull: None,
            branches: None,
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
            assignees: one.assignees.clone(),
            closed: one.merged.as_ref().map(|merged| (merged.at, merged.by)).or(one.closed),
            merged_at: one.merged.as_ref().map(|merged| merged.at),
            // What is said about a line is not a comment of the issue.
            notes: one
                .notes
                .iter()
                .filter(|note| !note.system && note.position.is_none())
                .cloned()
                .collect(),
            pull: Some(one.draft),
            branches: Some((one.source.clone(), one.target.clone())),
        }
    }
}

pub(crate) fn rows(project: &Project) -> Vec<Row> {
    let issues = project.issues.iter().map(Row::from);
    issues.chain(project.change_requests.iter().map(Row::from)).collect()
}

fn row_of(entry: &Entry) -> Result<Row, Refusal> {
    let number = entry.number()?;
    let found = rows(&entry.project).into_iter().find(|row| row.number == number);
    found.ok_or(Refusal::NotFound("/issues/issues#get-an-issue"))
}

pub(crate) fn wire(forge: &Forge, project: &Project, row: &Row) -> Value {
    let rest = rest_url(forge, project);
    let own = format!("{rest}/issues/{}", row.number);
    let kind = if row.pull.is_some() { "pull" } else { "issues" };
    let html = format!("{}/{kind}/{}", web_url(forge, project), row.number);
    let assignees: Vec<Value> = row.assignees.iter().map(|id| basic(forge, *id)).collect();
    let reason = match row.standing {
        Standing::Closed if row.pull.is_none() => json!("completed"),
        Standing::Open | Standing::Closed | Standing::Merged => Value::Null,
    };
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
        "labels": labels(forge, project, &row.labels),
        "state": standing_word(row.standing),
        "state_reason": reason,
        "locked": false,
        "assignee": assignees.first(),
        "assignees": assignees,
        "milestone": null,
        "comments": row.notes.len(),
        "created_at": time(row.created_at),
        "updated_at": time(row.updated_at),
        "closed_at": row.closed.map(|(at, _)| time(at)),
        "author_association": association(project, row.author),
        "active_lock_reason": null,
        "body": row.body,
        "closed_by": row.closed.map(|(_, by)| basic(forge, by)),
        "performed_via_github_app": null,
        "timeline_url": format!("{own}/timeline"),
        "reactions": reactions(&own),
        "sub_issues_summary": {"total": 0, "completed": 0, "percent_completed": 0},
        "issue_dependencies_summary": {"blocked_by": 0, "total_blocked_by": 0, "blocking": 0, "total_blocking": 0},
    });
    if let Some(draft) = row.pull {
        body["draft"] = json!(draft);
        body["pull_request"] = json!({
            "url": format!("{rest}/pulls/{}", row.number),
            "html_url": html,
            "diff_url": format!("{html}.diff"),
            "patch_url": format!("{html}.patch"),
            "merged_at": row.merged_at.map(time),
        });
    }
    body
}

/// Nobody reacts here.
pub(crate) fn reactions(of: &str) -> Value {
    json!({
        "url": format!("{of}/reactions"),
        "total_count": 0, "+1": 0, "-1": 0, "laugh": 0, "hooray": 0, "confused": 0, "heart": 0, "rocket": 0, "eyes": 0,
    })
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
    let user = |key: &str| {
        let name = parameters.text(key)?;
        Some(forge.world().person(&name).map(|user| user.id))
    };
    let (creator, assignee) = (user("creator"), user("assignee"));
    let mut all = rows(project);
    all.retain(|row| creator.is_none_or(|creator| creator == Some(row.author)));
    all.retain(|row| assignee.is_none_or(|one| one.is_some_and(|one| row.assignees.contains(&one))));
    all.retain(|row| state == "all" || state == standing_word(row.standing));
    all.retain(|row| labels.iter().all(|label| row.labels.contains(label)));
    let since = parameters
        .text("since")
        .and_then(|since| since.parse::<Timestamp>().ok());
    all.retain(|row| since.is_none_or(|since| row.updated_at >= since));
    match parameters.text("sort").as_deref() {
        Some("updated") => all.sort_by_key(|row| (row.updated_at, row.number)),
        Some("comments") => all.sort_by_key(|row| (row.notes.len(), row.number)),
        Some(_) | None => all.sort_by_key(|row| row.number),
    }
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
    let url = format!("{rest}/issues/comments/{}", note.id);
    json!({
        "url": url,
        "html_url": html,
        "issue_url": format!("{rest}/issues/{}", row.number),
        "id": note.id,
        "node_id": node("IssueComment", note.id),
        "user": basic(forge, note.author),
        "created_at": time(note.created_at),
        "updated_at": time(note.updated_at),
        "author_association": association(project, note.author),
        "body": note.body,
        "performed_via_github_app": null,
        "reactions": reactions(&url),
    })
}

/// `POST …/issues`
pub(crate) async fn create(State(forge): State<Forge>, entry: Entry, parameters: Parameters) -> Answer {
    entry.needs("issues", true, "issues=write")?;
    let author = entry.caller()?.user.id;
    if !entry.project.issues_enabled {
        return Err(Refusal::Gone("Issues are disabled for this repo"));
    }
    let title = parameters
        .text("title")
        .filter(|title| !title.trim().is_empty())
        .ok_or_else(|| Refusal::Invalid(json!([{"resource": "Issue", "code": "missing_field", "field": "title"}])))?;
    let mut world = forge.world();
    let id = world.next_id();
    let names = parameters.list("assignees").unwrap_or_default();
    let assignees: Vec<u64> = names
        .iter()
        .filter_map(|name| world.person(name).map(|user| user.id))
        .collect();
    let live = world.project_mut(entry.project.id).ok_or(Refusal::NotFound(""))?;
    let now = Timestamp::now();
    // Who may not push may not label or assign: what they wish is dropped without a word.
    let triages = live.writable_by(Some(author));
    let issue = Issue {
        id,
        number: live.next_number(true),
        title,
        description: parameters.text("body").unwrap_or_default(),
        author,
        standing: Standing::Open,
        kind: IssueKind::Issue,
        labels: parameters.list("labels").filter(|_| triages).unwrap_or_default(),
        assignees: assignees
            .into_iter()
            .filter(|id| triages && live.members.contains_key(id))
            .collect(),
        closed: None,
        created_at: now,
        updated_at: now,
        notes: Vec::new(),
    };
    live.issues.push(issue.clone());
    drop(world);
    created(wire(&forge, &entry.project, &Row::from(&issue)))
}

/// `PATCH …/issues/:number`: title, text, state and labels of an issue; pull requests are changed by their own route.
pub(crate) async fn update(State(forge): State<Forge>, entry: Entry, parameters: Parameters) -> Answer {
    entry.needs("issues", true, "issues=write")?;
    let by = entry.caller()?.user.id;
    let row = row_of(&entry)?;
    if row.author != by && !entry.project.writable_by(Some(by)) {
        return Err(Refusal::Forbidden("Must have admin rights to Repository."));
    }
    if row.pull.is_some() {
        return super::pulls::update(State(forge), entry, parameters).await;
    }
    let standing = match parameters.text("state").as_deref() {
        None => row.standing,
        Some("open") => Standing::Open,
        Some("closed") => Standing::Closed,
        Some(_) => {
            return Err(Refusal::Invalid(
                json!([{"resource": "Issue", "field": "state", "code": "invalid"}]),
            ));
        }
    };
    let issue = {
        let mut world = forge.world();
        let live = world.project_mut(entry.project.id).ok_or(Refusal::NotFound(""))?;
        let issue = live.issues.iter_mut().find(|one| one.number == row.number);
        let issue = issue.ok_or(Refusal::NotFound(""))?;
        let now = Timestamp::now();
        if let Some(title) = parameters.text("title") {
            issue.title = title;
        }
        if let Some(body) = parameters.text("body") {
            issue.description = body;
        }
        if let Some(labels) = parameters.list("labels") {
            issue.labels = labels;
        }
        if issue.standing != standing {
            issue.standing = standing;
            issue.closed = (standing == Standing::Closed).then_some((now, by));
        }
        issue.updated_at = now;
        issue.clone()
    };
    found(wire(&forge, &entry.project, &Row::from(&issue)))
}

/// `GET …/issues/comments/:id`
pub(crate) async fn comment_one(State(forge): State<Forge>, entry: Entry) -> Answer {
    entry.needs("issues", false, "issues=read")?;
    let (row, note) = comment_of(&entry)?;
    found(comment_wire(&forge, &entry.project, &row, &note))
}

fn comment_of(entry: &Entry) -> Result<(Row, Note), Refusal> {
    let id = entry.part("comment").parse::<u64>().ok();
    let mut all = rows(&entry.project).into_iter();
    let found = all.find_map(|row| {
        let note = row.notes.iter().find(|note| Some(note.id) == id)?.clone();
        Some((row, note))
    });
    found.ok_or(Refusal::NotFound("/issues/comments#get-an-issue-comment"))
}

/// `PATCH …/issues/comments/:id`: its author changes its text.
pub(crate) async fn comment_edit(State(forge): State<Forge>, entry: Entry, parameters: Parameters) -> Answer {
    entry.needs("issues", true, "issues=write; pull_requests=write")?;
    let by = entry.caller()?.user.id;
    let (row, mut note) = comment_of(&entry)?;
    if note.author != by && !entry.project.writable_by(Some(by)) {
        return Err(Refusal::Forbidden("Must have admin rights to Repository."));
    }
    note.body = parameters.text("body").unwrap_or(note.body);
    note.updated_at = Timestamp::now();
    let mut world = forge.world();
    if let Some(live) = world.project_mut(entry.project.id) {
        let all = live.issues.iter_mut().flat_map(|one| &mut one.notes);
        let all = all.chain(live.change_requests.iter_mut().flat_map(|one| &mut one.notes));
        for live in all.filter(|live| live.id == note.id) {
            *live = note.clone();
        }
    }
    drop(world);
    found(comment_wire(&forge, &entry.project, &row, &note))
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
                let note = Note::alone(id, author, body);
                issue.notes.push(note.clone());
                note
            })
    };
    let note = note.ok_or(Refusal::NotFound(""))?;
    created(comment_wire(&forge, project, &row, &note))
}
