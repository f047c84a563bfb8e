//! Pull requests: list, read, open, change, commits and files.
//!
//! Never merges. Reviews are in `reviews`.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::Entry;
use super::commit_wire::{commit as commit_wire, file};
use super::pull_wire::{Size, full, listed, standing_word};
use super::repositories::numbered;
use super::wire::{Answer, Refusal, created, found, page};
use crate::forge::Forge;
use crate::forge::change_request::{self, Facts, Opened, Proposal};
use crate::forge::parameters::Parameters;
use crate::forge::state::{ChangeRequest, Project, Standing};

const READ: &str = "pull_requests=read";
const WRITE: &str = "pull_requests=write";
/// GitHub's limit for the text of issues and pull requests.
const BODY_LIMIT: usize = 65_536;

fn invalid(error: Value) -> Refusal {
    Refusal::Invalid(json!([error]))
}

fn custom(message: String) -> Refusal {
    invalid(json!({"resource": "PullRequest", "code": "custom", "message": message}))
}

pub(super) fn pull(entry: &Entry) -> Result<&ChangeRequest, Refusal> {
    let number = entry.number()?;
    let one = entry.project.change_requests.iter().find(|one| one.number == number);
    one.ok_or(Refusal::NotFound("/pulls/pulls#get-a-pull-request"))
}

/// `GET …/pulls`
pub(crate) async fn list(State(forge): State<Forge>, entry: Entry, RawQuery(query): RawQuery) -> Answer {
    entry.needs("pull_requests", false, READ)?;
    let parameters = Parameters::from_query(query.as_deref());
    let project = &entry.project;
    let state = parameters.text("state").unwrap_or_else(|| "open".to_owned());
    // Without an owner GitHub ignores the filter.
    let head = parameters.text("head").filter(|head| head.contains(':'));
    let base = parameters.text("base");
    let mut all: Vec<ChangeRequest> = project
        .change_requests
        .iter()
        .filter(|one| state == "all" || state == standing_word(one.standing))
        .filter(|one| {
            head.as_ref()
                .is_none_or(|head| *head == format!("{}:{}", project.namespace(), one.source))
        })
        .filter(|one| base.as_ref().is_none_or(|base| *base == one.target))
        .cloned()
        .collect();
    all.sort_by_key(|one| {
        (
            if parameters.text("sort").as_deref() == Some("updated") {
                one.updated_at
            } else {
                one.created_at
            },
            one.number,
        )
    });
    if parameters.text("direction").as_deref() != Some("asc") {
        all.reverse();
    }
    let refs = project.repository.refs().await?;
    let mut with_facts = Vec::new();
    for one in all {
        let facts = change_request::facts(&forge, project, &one, &refs, change_request::Depth::Known).await?;
        with_facts.push((one, facts));
    }
    page(
        &numbered(&forge, project, "/pulls"),
        query.as_deref(),
        with_facts,
        |(one, facts)| listed(&forge, project, &one, &facts, entry.caller.as_ref()),
    )
}

async fn facts_of(forge: &Forge, project: &Project, one: &ChangeRequest) -> Result<Facts, Refusal> {
    let refs = project.repository.refs().await?;
    Ok(change_request::facts(forge, project, one, &refs, change_request::Depth::Whole).await?)
}

async fn size(project: &Project, facts: &Facts) -> Result<Size, Refusal> {
    let (Some(base), Some(head)) = (&facts.base, &facts.head) else {
        return Ok(Size::default());
    };
    let files = project.repository.diff(base, head).await?;
    let commits = project.repository.commits_between(base, head).await?;
    Ok(Size {
        commits: commits.len(),
        additions: files.iter().map(|diff| diff.additions).sum(),
        deletions: files.iter().map(|diff| diff.deletions).sum(),
        files: files.len(),
    })
}

/// `GET …/pulls/:number`, as JSON or, if asked by media type, as a diff.
pub(crate) async fn one(State(forge): State<Forge>, entry: Entry, headers: HeaderMap) -> Answer {
    entry.needs("pull_requests", false, READ)?;
    let (project, one) = (&entry.project, pull(&entry)?);
    let facts = facts_of(&forge, project, one).await?;
    let wants_diff = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/vnd.github") && value.ends_with("diff"));
    if wants_diff && let (Some(base), Some(head)) = (&facts.base, &facts.head) {
        let text = project.repository.raw_diff(base, head).await?;
        return Ok((
            [(header::CONTENT_TYPE, "application/vnd.github.diff; charset=utf-8")],
            text,
        )
            .into_response());
    }
    let settled = change_request::count_reading(&forge, project.id, one.number) > 0;
    let size = size(project, &facts).await?;
    found(full(&forge, project, one, &facts, entry.caller.as_ref(), size, settled))
}

/// What a new pull request asks for, checked as far as words go.
fn proposal(entry: &Entry, parameters: &Parameters, author: u64) -> Result<Proposal, Refusal> {
    let absent: Vec<String> = ["base", "head"]
        .iter()
        .filter(|key| parameters.text(key).is_none())
        .map(|key| format!("\"{key}\""))
        .collect();
    if !absent.is_empty() {
        let verb = if absent.len() == 1 { "wasn't" } else { "weren't" };
        return Err(Refusal::Unprocessable(format!(
            "Invalid request.\n\n{} {verb} supplied.",
            absent.join(", ")
        )));
    }
    let text = |key: &str| parameters.text(key).unwrap_or_default();
    let head = text("head");
    let source = match head.split_once(':') {
        None => head.as_str(),
        Some((owner, branch)) if owner.eq_ignore_ascii_case(entry.project.namespace()) => branch,
        Some(_) => {
            return Err(invalid(
                json!({"resource": "PullRequest", "field": "head", "code": "invalid"}),
            ));
        }
    };
    let title = text("title");
    if title.trim().is_empty() {
        return Err(invalid(
            json!({"resource": "PullRequest", "field": "title", "code": "missing_field"}),
        ));
    }
    let description = text("body");
    if description.chars().count() > BODY_LIMIT {
        return Err(too_long());
    }
    let draft = parameters.flag("draft").unwrap_or(false);
    if draft && !entry.project.drafts_supported {
        return Err(Refusal::Unprocessable(
            "Draft pull requests are not supported in this repository.".to_owned(),
        ));
    }
    Ok(Proposal {
        title,
        description,
        source: source.to_owned(),
        target: text("base"),
        author,
        draft,
        ..Proposal::default()
    })
}

fn too_long() -> Refusal {
    let message = format!("body is too long (maximum is {BODY_LIMIT} characters)");
    invalid(json!({"resource": "Issue", "code": "custom", "field": "body", "message": message}))
}

/// `POST …/pulls`
pub(crate) async fn create(State(forge): State<Forge>, entry: Entry, parameters: Parameters) -> Answer {
    entry.needs("pull_requests", true, WRITE)?;
    let author = entry.caller()?.user.id;
    let project = &entry.project;
    if project.archived {
        return Err(Refusal::Forbidden("Repository was archived so is read-only."));
    }
    if !project.change_requests_enabled || !project.writable_by(Some(author)) {
        return Err(Refusal::Forbidden("Must have write access to Repository."));
    }
    let proposal = proposal(&entry, &parameters, author)?;
    let branches = project.repository.branches().await?;
    let missing = |field: &str| invalid(json!({"resource": "PullRequest", "field": field, "code": "invalid"}));
    let head = branches
        .get(&proposal.source)
        .filter(|_| project.seen(&proposal.source))
        .ok_or_else(|| missing("head"))?;
    let base = branches.get(&proposal.target).ok_or_else(|| missing("base"))?;
    if project.repository.is_ancestor(head, base).await? {
        return Err(custom(format!(
            "No commits between {} and {}",
            proposal.target, proposal.source
        )));
    }
    let label = format!("{}:{}", project.namespace(), proposal.source);
    let one = match change_request::open(&forge, project, proposal, head).await? {
        Opened::New(one) => one,
        Opened::Exists(_) => return Err(custom(format!("A pull request already exists for {label}."))),
    };
    let facts = facts_of(&forge, project, &one).await?;
    let size = size(project, &facts).await?;
    created(full(
        &forge,
        &forge.reread(project),
        &one,
        &facts,
        entry.caller.as_ref(),
        size,
        false,
    ))
}

/// `PATCH …/pulls/:number`
pub(crate) async fn update(State(forge): State<Forge>, entry: Entry, parameters: Parameters) -> Answer {
    entry.needs("pull_requests", true, WRITE)?;
    let by = entry.caller()?.user.id;
    let (project, one) = (&entry.project, pull(&entry)?);
    if one.author != by && !project.writable_by(Some(by)) {
        return Err(Refusal::Forbidden("Must have admin rights to Repository."));
    }
    let state = match parameters.text("state").as_deref() {
        None => None,
        Some("open") => Some(Standing::Open),
        Some("closed") => Some(Standing::Closed),
        Some(_) => {
            return Err(invalid(
                json!({"resource": "PullRequest", "field": "state", "code": "invalid"}),
            ));
        }
    };
    if parameters
        .text("body")
        .is_some_and(|body| body.chars().count() > BODY_LIMIT)
    {
        return Err(too_long());
    }
    let branches = project.repository.branches().await?;
    if parameters
        .text("base")
        .is_some_and(|base| !branches.contains_key(&base))
    {
        return Err(invalid(
            json!({"resource": "PullRequest", "field": "base", "code": "invalid"}),
        ));
    }
    change(&forge, project, one, &parameters, state, by)?;
    let number = one.number;
    let project = forge.reread(project);
    let one = project
        .change_requests
        .iter()
        .find(|one| one.number == number)
        .ok_or(Refusal::NotFound(""))?;
    let facts = facts_of(&forge, &project, one).await?;
    let settled = change_request::count_reading(&forge, project.id, number) > 0;
    let size = size(&project, &facts).await?;
    found(full(
        &forge,
        &project,
        one,
        &facts,
        entry.caller.as_ref(),
        size,
        settled,
    ))
}

fn change(
    forge: &Forge,
    project: &Project,
    seen: &ChangeRequest,
    parameters: &Parameters,
    state: Option<Standing>,
    by: u64,
) -> Result<(), Refusal> {
    let mut world = forge.world();
    let live = world.project_mut(project.id).ok_or(Refusal::NotFound(""))?;
    let target = parameters.text("base").unwrap_or_else(|| seen.target.clone());
    let reopens = state == Some(Standing::Open) && seen.standing == Standing::Closed;
    if reopens && live.open_from(&seen.source).any(|other| other.target == target) {
        let label = format!("{}:{}", live.namespace(), seen.source);
        return Err(custom(format!("A pull request already exists for {label}.")));
    }
    let now = Timestamp::now();
    let one = live
        .change_requests
        .iter_mut()
        .find(|one| one.number == seen.number)
        .ok_or(Refusal::NotFound(""))?;
    if let Some(title) = parameters.text("title") {
        one.title = title;
    }
    if let Some(body) = parameters.text("body") {
        one.description = body;
    }
    one.target = target;
    match (state, one.standing) {
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

async fn ends(forge: &Forge, entry: &Entry) -> Result<(String, String), Refusal> {
    entry.needs("pull_requests", false, READ)?;
    let facts = facts_of(forge, &entry.project, pull(entry)?).await?;
    match (facts.base, facts.head) {
        (Some(base), Some(head)) => Ok((base, head)),
        _ => Err(Refusal::NotFound("")),
    }
}

/// `GET …/pulls/:number/files`
pub(crate) async fn files(State(forge): State<Forge>, entry: Entry, RawQuery(query): RawQuery) -> Answer {
    let (base, head) = ends(&forge, &entry).await?;
    let all = entry.project.repository.diff(&base, &head).await?;
    let url = numbered(&forge, &entry.project, &format!("/pulls/{}/files", entry.number()?));
    page(&url, query.as_deref(), all, |diff| {
        file(&forge, &entry.project, &head, &diff)
    })
}

/// `GET …/pulls/:number/commits`: oldest first.
pub(crate) async fn commits(State(forge): State<Forge>, entry: Entry, RawQuery(query): RawQuery) -> Answer {
    let (base, head) = ends(&forge, &entry).await?;
    let mut all = entry.project.repository.commits_between(&base, &head).await?;
    all.reverse();
    let url = numbered(&forge, &entry.project, &format!("/pulls/{}/commits", entry.number()?));
    page(&url, query.as_deref(), all, |commit| {
        commit_wire(&forge, &entry.project, &commit)
    })
}

/// `GET …/pulls/:number/merge`: 204 if merged.
pub(crate) async fn merged(entry: Entry) -> Answer {
    entry.needs("pull_requests", false, READ)?;
    match pull(&entry)?.standing {
        Standing::Merged => Ok(StatusCode::NO_CONTENT.into_response()),
        Standing::Open | Standing::Closed => Err(Refusal::NotFound("")),
    }
}
