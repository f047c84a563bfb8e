//! Labels of issues, pull requests and repositories. Never deletes one.

use std::collections::BTreeSet;

use axum::extract::{RawQuery, State};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::access::Entry;
use super::repositories::numbered;
use super::repository_wire::rest_url;
use super::wire::{Answer, Refusal, found, node, page};
use crate::forge::Forge;
use crate::forge::parameters::Parameters;
use crate::forge::state::Project;

/// The labels that every new repository has, with what they say. Others are only names here, and say nothing.
const DEFAULTS: [(&str, &str); 4] = [
    ("bug", "Something isn't working"),
    ("documentation", "Improvements or additions to documentation"),
    ("enhancement", "New feature or request"),
    ("question", "Further information is requested"),
];

/// One label. Its id follows from its name, since labels are only names here.
pub(crate) fn label(forge: &Forge, project: &Project, name: &str) -> Value {
    let known = DEFAULTS.iter().find(|(default, _)| *default == name);
    let digest = Sha256::digest(format!("{} {name}", project.id));
    let id = digest
        .iter()
        .take(4)
        .fold(0_u64, |id, byte| id * 256 + u64::from(*byte));
    json!({
        "id": id,
        "node_id": node("Label", id),
        "url": format!("{}/labels/{name}", rest_url(forge, project)),
        "name": name,
        "color": "ededed",
        "default": known.is_some(),
        "description": known.map(|(_, description)| description),
        "archived_at": null,
        "archived_by": null,
    })
}

pub(crate) fn labels(forge: &Forge, project: &Project, names: &[String]) -> Vec<Value> {
    names.iter().map(|name| label(forge, project, name)).collect()
}

/// `GET …/labels`: those in use.
pub(crate) async fn of_repository(State(forge): State<Forge>, entry: Entry, RawQuery(query): RawQuery) -> Answer {
    entry.needs("issues", false, "issues=read; pull_requests=read")?;
    let project = &entry.project;
    let all: BTreeSet<&String> = project
        .issues
        .iter()
        .flat_map(|one| &one.labels)
        .chain(project.change_requests.iter().flat_map(|one| &one.labels))
        .collect();
    let url = numbered(&forge, project, "/labels");
    page(&url, query.as_deref(), all.into_iter().collect(), |name| {
        label(&forge, project, name)
    })
}

fn of(project: &mut Project, number: u64) -> Option<&mut Vec<String>> {
    if let Some(one) = project.change_requests.iter_mut().find(|one| one.number == number) {
        return Some(&mut one.labels);
    }
    let issue = project.issues.iter_mut().find(|one| one.number == number);
    issue.map(|one| &mut one.labels)
}

/// `GET …/issues/:number/labels`
pub(crate) async fn of_issue(State(forge): State<Forge>, mut entry: Entry, RawQuery(query): RawQuery) -> Answer {
    entry.needs("issues", false, "issues=read; pull_requests=read")?;
    let number = entry.number()?;
    let names = of(&mut entry.project, number).ok_or(Refusal::NotFound(""))?.clone();
    let url = numbered(&forge, &entry.project, &format!("/issues/{number}/labels"));
    page(&url, query.as_deref(), names, |name| {
        label(&forge, &entry.project, &name)
    })
}

/// `POST …/issues/:number/labels`: adds some.
pub(crate) async fn add(State(forge): State<Forge>, entry: Entry, parameters: Parameters) -> Answer {
    entry.needs("issues", true, "issues=write; pull_requests=write")?;
    let number = entry.number()?;
    let wanted = parameters.list("labels").unwrap_or_default();
    let names = {
        let mut world = forge.world();
        let live = world.project_mut(entry.project.id).ok_or(Refusal::NotFound(""))?;
        let names = of(live, number).ok_or(Refusal::NotFound(""))?;
        for name in wanted {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.clone()
    };
    found(Value::Array(labels(&forge, &entry.project, &names)))
}
