//! Projects: the list and one of them. Read only.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::{self, Visitor};
use super::project_settings;
use super::users::basic_of;
use super::wire::{Answer, Refusal, effective, found, time};
use crate::forge::Forge;
use crate::forge::json::extend;
use crate::forge::paging::Window;
use crate::forge::parameters::Parameters;
use crate::forge::seed::{Role, Side, Visibility};
use crate::forge::state::{Caller, Project, Standing};

fn project_wire(forge: &Forge, project: &Project, caller: Option<&Caller>, empty: bool) -> Value {
    let root = forge.gitlab();
    let web = format!("{root}/{}", project.path);
    let rest = format!("{root}/api/v4/projects/{}", project.id);
    let namespace = project.namespace();
    let user = caller.map(|caller| caller.user.id);
    let open_issues = project
        .issues
        .iter()
        .filter(|issue| issue.standing == Standing::Open)
        .count();
    let access = |enabled: bool| if enabled { "enabled" } else { "disabled" };
    let mut body = json!({
        "id": project.id,
        "description": project.description,
        "name": project.name(),
        "name_with_namespace": format!("{} / {}", namespace.replace('/', " / "), project.name()),
        "path": project.name(),
        "path_with_namespace": project.path,
        "created_at": time(project.created_at),
        "default_branch": if empty { Value::Null } else { json!(project.default_branch) },
        "tag_list": [],
        "topics": [],
        "ssh_url_to_repo": format!("git@127.0.0.1:{}.git", project.path),
        "http_url_to_repo": format!("{web}.git"),
        "web_url": web,
        "readme_url": if empty { Value::Null } else { json!(format!("{web}/-/blob/{}/README.md", project.default_branch)) },
        "forks_count": 0,
        "avatar_url": null,
        "star_count": 0,
        "last_activity_at": time(project.last_activity),
        "visibility": project.visibility,
        "namespace": {
            "id": project.id + 10_000,
            "name": namespace.rsplit('/').next().unwrap_or_default(),
            "path": namespace.rsplit('/').next().unwrap_or_default(),
            "kind": "group",
            "full_path": namespace,
            "parent_id": namespace.contains('/').then_some(project.id + 20_000),
            "avatar_url": null,
            "web_url": format!("{root}/groups/{namespace}"),
        },
    });
    let more = json!({
        "_links": {
            "self": rest,
            "issues": format!("{rest}/issues"),
            "merge_requests": format!("{rest}/merge_requests"),
            "repo_branches": format!("{rest}/repository/branches"),
            "labels": format!("{rest}/labels"),
            "events": format!("{rest}/events"),
            "members": format!("{rest}/members"),
        },
        "empty_repo": empty,
        "archived": project.archived,
        "issues_enabled": project.issues_enabled,
        "merge_requests_enabled": project.change_requests_enabled,
        "wiki_enabled": false,
        "jobs_enabled": false,
        "snippets_enabled": false,
        "issues_access_level": access(project.issues_enabled),
        "repository_access_level": "enabled",
        "merge_requests_access_level": access(project.change_requests_enabled),
        "creator_id": project.members.keys().next(),
        "open_issues_count": open_issues,
        "merge_method": "merge",
        "squash_option": "default_off",
        "remove_source_branch_after_merge": true,
        "only_allow_merge_if_pipeline_succeeds": false,
        "only_allow_merge_if_all_discussions_are_resolved": false,
        "lfs_enabled": false,
        "shared_runners_enabled": false,
    });
    let owner = forge.world().person(namespace).cloned();
    if owner.is_some() {
        body["namespace"]["kind"] = json!("user");
        body["namespace"]["web_url"] = json!(format!("{root}/{namespace}"));
    }
    // Without a token only the short form is shown.
    if caller.is_some() {
        extend(&mut body, project_settings::all());
        extend(&mut body, more);
        body["updated_at"] = json!(time(project.last_activity));
        body["description_html"] = json!(project.description.as_deref().unwrap_or_default());
        body["_links"]["cluster_agents"] = json!(format!("{rest}/cluster_agents"));
        if let Some(owner) = &owner {
            body["owner"] = basic_of(forge, owner);
        }
        if project.role(user) >= Some(Role::Maintainer) {
            body["runners_token"] = json!("not-a-token");
        }
        let level = project
            .role(user)
            .map(|role| json!({"access_level": role as u8, "notification_level": 3}));
        body["permissions"] = json!({"project_access": level, "group_access": null});
    }
    body
}

fn least_role(parameters: &Parameters) -> Result<Option<Role>, Refusal> {
    if !parameters.has("min_access_level") {
        return Ok(None);
    }
    match parameters.number("min_access_level") {
        Some(10) => Ok(Some(Role::Guest)),
        Some(20) => Ok(Some(Role::Reporter)),
        Some(30) => Ok(Some(Role::Developer)),
        Some(40) => Ok(Some(Role::Maintainer)),
        Some(50) => Ok(Some(Role::Owner)),
        Some(_) | None => Err(Refusal::Parameter(
            "min_access_level does not have a valid value".to_owned(),
        )),
    }
}

/// By what a list may be ordered.
const ORDERS: [&str; 8] = [
    "id",
    "name",
    "path",
    "created_at",
    "updated_at",
    "last_activity_at",
    "star_count",
    "similarity",
];

/// `GET /projects`
pub(crate) async fn list(State(forge): State<Forge>, visitor: Visitor, parameters: Parameters) -> Answer {
    let caller = visitor.anyone()?;
    let user = caller.as_ref().map(|caller| caller.user.id);
    let order = parameters.text("order_by").unwrap_or_else(|| "created_at".to_owned());
    if !ORDERS.contains(&order.as_str()) {
        return Err(Refusal::Parameter("order_by does not have a valid value".to_owned()));
    }
    let ascending = match parameters.text("sort").as_deref() {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(Refusal::Parameter("sort does not have a valid value".to_owned())),
    };
    let keyset = parameters.text("pagination").as_deref() == Some("keyset");
    if keyset && order != "id" {
        return Err(Refusal::NoKeyset);
    }
    let mut keys = selected(&forge, user, &parameters)?;
    keys.sort_by(|a, b| match order.as_str() {
        "name" => (&a.name, a.id).cmp(&(&b.name, b.id)),
        "path" => (&a.path, a.id).cmp(&(&b.path, b.id)),
        "last_activity_at" | "updated_at" => (a.last_activity, a.id).cmp(&(b.last_activity, b.id)),
        _ => a.id.cmp(&b.id),
    });
    if !ascending {
        keys.reverse();
    }
    let ids: Vec<u64> = keys.into_iter().map(|key| key.id).collect();
    let url = format!("{}/api/v4/projects", forge.gitlab());
    let sort = if ascending { "asc" } else { "desc" };
    let defaults = [
        ("archived", "false"),
        ("membership", "false"),
        ("order_by", &order),
        ("owned", "false"),
        ("simple", "false"),
        ("sort", sort),
        ("starred", "false"),
        ("statistics", "false"),
    ];
    let effective = effective(&parameters, &defaults);
    let window = Window::of(&parameters, 20);
    let (headers, cut) = if keyset {
        window.gitlab_keyset(&url, &effective, &parameters, ascending, ids)
    } else {
        (window.gitlab(&url, &effective, ids.len()), window.cut(ids))
    };
    let simple = parameters.flag("simple") == Some(true);
    let mut rows = Vec::new();
    for id in cut {
        let project = forge.world().projects.iter().find(|one| one.id == id).cloned();
        let Some(project) = project else { continue };
        // All of a crowd have the same commit: git need not be asked for each.
        let empty = !project.of_a_crowd && project.repository.branches().await?.is_empty();
        let shown = caller.as_ref().filter(|_| !simple);
        rows.push(project_wire(&forge, &project, shown, empty));
    }
    Ok((headers, Json(rows)).into_response())
}

/// What lists are sorted by.
struct Key {
    id: u64,
    name: String,
    path: String,
    last_activity: Timestamp,
}

/// The projects that a list is asked for.
fn selected(forge: &Forge, user: Option<u64>, parameters: &Parameters) -> Result<Vec<Key>, Refusal> {
    let member = parameters.flag("membership") == Some(true);
    let archived = parameters.flag("archived");
    let least = least_role(parameters)?;
    let search = parameters.text("search").unwrap_or_default().to_lowercase();
    let with_namespace = parameters.flag("search_namespaces") == Some(true);
    let wanted: Option<Visibility> = match parameters.text("visibility").as_deref() {
        None => None,
        Some("private") => Some(Visibility::Private),
        Some("internal") => Some(Visibility::Internal),
        Some("public") => Some(Visibility::Public),
        Some(_) => return Err(Refusal::Parameter("visibility does not have a valid value".to_owned())),
    };
    let world = forge.world();
    let all = world
        .projects
        .iter()
        .filter(|project| project.side == Side::Gitlab && project.visible_to(user));
    let found = all
        .filter(|project| !member || project.role(user).is_some())
        .filter(|project| archived.is_none_or(|archived| project.archived == archived))
        .filter(|project| least.is_none_or(|least| project.role(user).is_some_and(|role| role >= least)))
        .filter(|project| wanted.is_none_or(|wanted| project.visibility == wanted))
        .filter(|project| {
            let text = if with_namespace { &project.path } else { project.name() };
            let description = project.description.as_deref().unwrap_or_default();
            text.to_lowercase().contains(&search) || description.to_lowercase().contains(&search)
        });
    let key = |project: &Project| Key {
        id: project.id,
        name: project.name().to_lowercase(),
        path: project.path.clone(),
        last_activity: project.last_activity,
    };
    Ok(found.map(key).collect())
}

/// `GET /projects/:id`
pub(crate) async fn one(State(forge): State<Forge>, Path(key): Path<String>, visitor: Visitor) -> Answer {
    let caller = visitor.anyone()?;
    let project = access::project(&forge, &key, caller.as_ref().map(|caller| &caller.user))?;
    let empty = project.repository.branches().await?.is_empty();
    found(project_wire(&forge, &project, caller.as_ref(), empty))
}
