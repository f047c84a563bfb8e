//! Merge requests: list, read, open. Changing one and its content are in the files beside.
//!
//! Never merges.

pub(super) mod changing;
pub(super) mod content;

use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::access::{self, Visitor};
use super::merge_request_wire::{Progress, Refs, full, is_draft, listed, standing_word};
use super::wire::{Answer, Refusal, created, found, page};
use crate::forge::Forge;
use crate::forge::change_request::{self, Facts, Opened, Proposal};
use crate::forge::parameters::Parameters;
use crate::forge::seed::Role;
use crate::forge::state::{Caller, ChangeRequest, Project, Standing};

/// The number in the path; a wrong one is an error of its own kind.
pub(crate) fn iid(text: &str) -> Result<u64, Refusal> {
    text.parse()
        .map_err(|_| Refusal::Parameter("merge_request_iid is invalid".to_owned()))
}

/// Project and merge request of a reading route.
pub(crate) fn entry(
    forge: &Forge,
    key: &str,
    number: &str,
    visitor: Visitor,
) -> Result<(Project, ChangeRequest, Option<Caller>), Refusal> {
    let caller = visitor.anyone()?;
    let number = iid(number)?;
    let project = access::project_with_code(forge, key, caller.as_ref().map(|caller| &caller.user))?;
    let one = project.change_requests.iter().find(|one| one.number == number).cloned();
    Ok((project, one.ok_or(Refusal::MissingEntry)?, caller))
}

fn may_merge(project: &Project, one: &ChangeRequest, caller: Option<&Caller>) -> bool {
    project.pushable_by(caller.map(|caller| caller.user.id), &one.target)
}

/// Number of changed files, as GitLab writes it: a `+` says that there are more.
async fn count(project: &Project, facts: &Facts) -> Result<Option<String>, Refusal> {
    Ok(match (&facts.base, &facts.head) {
        (Some(base), Some(head)) => {
            let all = project.repository.changed_files(base, head).await?;
            let limit = project.limits.files.filter(|limit| *limit < all);
            Some(limit.map_or_else(|| all.to_string(), |limit| format!("{limit}+")))
        }
        _ => None,
    })
}

fn one_of(parameters: &Parameters, key: &str, allowed: &[&str], default: &str) -> Result<String, Refusal> {
    let value = parameters.text(key).unwrap_or_else(|| default.to_owned());
    if allowed.contains(&value.as_str()) {
        Ok(value)
    } else {
        Err(Refusal::Parameter(format!("{key} does not have a valid value")))
    }
}

/// `GET /projects/:id/merge_requests`
pub(crate) async fn list(
    State(forge): State<Forge>,
    Path(key): Path<String>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.anyone()?;
    let project = access::project_with_code(&forge, &key, caller.as_ref().map(|caller| &caller.user))?;
    let state = one_of(
        &parameters,
        "state",
        &["opened", "closed", "locked", "merged", "all"],
        "all",
    )?;
    let order = one_of(
        &parameters,
        "order_by",
        &[
            "created_at",
            "updated_at",
            "title",
            "label_priority",
            "priority",
            "popularity",
            "merged_at",
        ],
        "created_at",
    )?;
    let sort = one_of(&parameters, "sort", &["asc", "desc"], "desc")?;
    let scope = one_of(
        &parameters,
        "scope",
        &[
            "created-by-me",
            "assigned-to-me",
            "created_by_me",
            "assigned_to_me",
            "reviews_for_me",
            "all",
        ],
        "all",
    )?
    .replace('-', "_");
    let me = caller.as_ref().map(|caller| caller.user.id);
    let among = |ids: &[u64]| me.is_some_and(|me| ids.contains(&me));
    let author_id = parameters.number("author_id");
    let author = parameters.text("author_username").map(|name| {
        let world = forge.world();
        world
            .users
            .iter()
            .find(|user| user.username == name)
            .map(|user| user.id)
    });
    let search = parameters.text("search").map(|text| text.to_lowercase());
    let same = |key: &str, value: &str| parameters.text(key).is_none_or(|wanted| wanted == value);
    let iids = parameters.list("iids");
    let mut all: Vec<ChangeRequest> = project
        .change_requests
        .iter()
        .filter(|one| state == "all" || state == standing_word(one.standing))
        .filter(|one| same("source_branch", &one.source) && same("target_branch", &one.target))
        .filter(|one| author.is_none_or(|author| author == Some(one.author)))
        .filter(|one| author_id.is_none_or(|author| author == one.author))
        .filter(|one| match scope.as_str() {
            "created_by_me" => among(&[one.author]),
            "assigned_to_me" => among(&one.assignees),
            "reviews_for_me" => among(&one.reviewers),
            _ => true,
        })
        .filter(|one| iids.as_ref().is_none_or(|iids| iids.contains(&one.number.to_string())))
        .filter(|one| {
            parameters
                .list("labels")
                .is_none_or(|wanted| wanted.iter().all(|label| one.labels.contains(label)))
        })
        .filter(|one| match parameters.text("wip").as_deref() {
            Some("yes") => is_draft(&one.title),
            Some("no") => !is_draft(&one.title),
            Some(_) | None => true,
        })
        .filter(|one| {
            let within = |text: &str, part: &String| text.to_lowercase().contains(part);
            search
                .as_ref()
                .is_none_or(|part| within(&one.title, part) || within(&one.description, part))
        })
        .cloned()
        .collect();
    all.sort_by_key(|one| {
        (
            if order == "updated_at" {
                one.updated_at
            } else {
                one.created_at
            },
            one.number,
        )
    });
    if order == "title" {
        all.sort_by(|a, b| a.title.cmp(&b.title));
    }
    if sort == "desc" {
        all.reverse();
    }
    let refs = project.repository.refs().await?;
    let mut with_facts = Vec::new();
    for one in all {
        let facts = change_request::facts(&forge, &project, &one, &refs, change_request::Depth::Known).await?;
        with_facts.push((one, facts));
    }
    let url = format!("{}/api/v4/projects/{}/merge_requests", forge.gitlab(), project.id);
    let id = project.id.to_string();
    let defaults = [
        ("id", id.as_str()),
        ("order_by", &order),
        ("sort", &sort),
        ("state", &state),
        ("with_labels_details", "false"),
        ("with_merge_status_recheck", "false"),
    ];
    page(&url, &parameters, &defaults, with_facts, |(one, facts)| {
        listed(&forge, &project, &one, &facts, Progress::Listed)
    })
}

async fn answer_one(
    forge: &Forge,
    project: &Project,
    one: &ChangeRequest,
    caller: Option<&Caller>,
    refs: &Refs,
) -> Result<Value, Refusal> {
    let facts = change_request::facts(forge, project, one, refs, change_request::Depth::Whole).await?;
    let first = change_request::count_reading(forge, project.id, one.number) == 0;
    let progress = if first && one.standing == Standing::Open {
        Progress::Checking
    } else {
        Progress::Done
    };
    let changes = count(project, &facts).await?;
    Ok(full(
        forge,
        project,
        one,
        &facts,
        progress,
        changes,
        may_merge(project, one, caller),
    ))
}

/// `GET /projects/:id/merge_requests/:iid`
pub(crate) async fn one(
    State(forge): State<Forge>,
    Path((key, number)): Path<(String, String)>,
    visitor: Visitor,
) -> Answer {
    let (project, one, caller) = entry(&forge, &key, &number, visitor)?;
    let refs = project.repository.refs().await?;
    found(answer_one(&forge, &project, &one, caller.as_ref(), &refs).await?)
}

/// `POST /projects/:id/merge_requests`
pub(crate) async fn create(
    State(forge): State<Forge>,
    Path(key): Path<String>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.writer()?;
    let project = access::project(&forge, &key, Some(&caller.user))?;
    let missing: Vec<String> = ["title", "source_branch", "target_branch"]
        .iter()
        .filter(|name| parameters.text(name).is_none())
        .map(|name| format!("{name} is missing"))
        .collect();
    if !missing.is_empty() {
        return Err(Refusal::Parameter(missing.join(", ")));
    }
    let text = |name: &str| parameters.text(name).unwrap_or_default();
    let (title, source, target) = (text("title"), text("source_branch"), text("target_branch"));
    let role = project.role(Some(caller.user.id));
    if !project.change_requests_enabled || role.is_none_or(|role| role < Role::Developer) {
        return Err(Refusal::Forbidden);
    }
    if parameters
        .number("target_project_id")
        .is_some_and(|id| id != project.id)
    {
        return Err(Refusal::Unprocessable(
            "Target project is not a fork of source project".to_owned(),
        ));
    }
    let odd = |id: &Value| id.as_u64().is_none() && id.as_str().is_none_or(|id| id.parse::<u64>().is_err());
    if parameters
        .value("assignee_ids")
        .and_then(Value::as_array)
        .is_some_and(|ids| ids.iter().any(odd))
    {
        return Err(Refusal::Parameter("assignee_ids is invalid".to_owned()));
    }
    if title.trim().is_empty() {
        return Err(Refusal::Invalid(json!({"title": ["can't be blank"]})));
    }
    if source == target {
        return Err(Refusal::Unprocessable(
            "You can't use same project/branch for source and target".to_owned(),
        ));
    }
    let branches = project.repository.branches().await?;
    let Some(head) = branches.get(&source).filter(|_| project.seen(&source)) else {
        return Err(Refusal::Invalid(json!({"source_branch": ["does not exist"]})));
    };
    if !branches.contains_key(&target) {
        return Err(Refusal::Invalid(json!({"target_branch": ["does not exist"]})));
    }
    let proposal = Proposal {
        title,
        description: text("description"),
        source,
        target,
        author: caller.user.id,
        draft: false,
        labels: parameters.list("labels").unwrap_or_default(),
        assignees: assignees(&project, &parameters).unwrap_or_default(),
        reviewers: people(&project, &parameters, "reviewer_ids").unwrap_or_default(),
        remove_source_branch: parameters.flag("remove_source_branch"),
        squash: parameters.flag("squash").unwrap_or(false),
    };
    let one = match change_request::open(&forge, &project, proposal, head).await? {
        Opened::New(one) => one,
        Opened::Exists(number) => {
            let text = format!("Another open merge request already exists for this source branch: !{number}");
            return Err(Refusal::Conflict(text));
        }
    };
    let project = forge.reread(&project);
    let refs = project.repository.refs().await?;
    let facts = change_request::facts(&forge, &project, &one, &refs, change_request::Depth::Base).await?;
    let may_merge = may_merge(&project, &one, Some(&caller));
    created(full(
        &forge,
        &project,
        &one,
        &facts,
        Progress::Preparing,
        None,
        may_merge,
    ))
}

/// The assignees given, those without access dropped, as GitLab does.
pub(crate) fn assignees(project: &Project, parameters: &Parameters) -> Option<Vec<u64>> {
    let single = parameters.number("assignee_id").map(|id| vec![id]);
    people(project, parameters, "assignee_ids")
        .or(single)
        .map(|ids| ids.into_iter().filter(|id| project.members.contains_key(id)).collect())
}

/// The ids of a list, those without access dropped.
fn people(project: &Project, parameters: &Parameters, key: &str) -> Option<Vec<u64>> {
    let many = parameters.value(key).and_then(Value::as_array).map(|ids| {
        ids.iter()
            .filter_map(|id| id.as_u64().or_else(|| id.as_str()?.parse().ok()))
            .collect::<Vec<u64>>()
    });
    many.map(|ids| ids.into_iter().filter(|id| project.members.contains_key(id)).collect())
}

/// Address of a list under a merge request.
pub(crate) fn sub_url(forge: &Forge, project: &Project, one: &ChangeRequest, rest: &str) -> String {
    format!(
        "{}/api/v4/projects/{}/merge_requests/{}/{rest}",
        forge.gitlab(),
        project.id,
        one.number
    )
}
