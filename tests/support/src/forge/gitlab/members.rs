//! Members and protected branches of a project, and users by name. Read only.

use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::access::{self, Visitor};
use super::users::{basic, basic_of};
use super::wire::{Answer, Refusal, found, page, time};
use crate::forge::Forge;
use crate::forge::parameters::Parameters;
use crate::forge::seed::{Protection, PushAccess, Role};
use crate::forge::state::Project;

fn member_wire(forge: &Forge, project: &Project, id: u64, role: Role) -> Value {
    let mut body = basic(forge, id);
    let level = role as u8;
    body["access_level"] = json!(level);
    body["created_at"] = json!(time(project.created_at));
    body["expires_at"] = Value::Null;
    body["membership_state"] = json!("active");
    body
}

/// `GET …/members` and `…/members/all`: no groups are played, so both are the same.
pub(crate) async fn list(
    State(forge): State<Forge>,
    Path(key): Path<String>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let caller = visitor.anyone()?;
    let project = access::project(&forge, &key, caller.as_ref().map(|caller| &caller.user))?;
    let url = format!("{}/api/v4/projects/{}/members", forge.gitlab(), project.id);
    let id = project.id.to_string();
    let all: Vec<(u64, Role)> = project.members.iter().map(|(id, role)| (*id, *role)).collect();
    page(&url, &parameters, &[("id", &id)], all, |(id, role)| {
        member_wire(&forge, &project, id, role)
    })
}

/// `GET …/members/:user` and `…/members/all/:user`
pub(crate) async fn one(
    State(forge): State<Forge>,
    Path((key, user)): Path<(String, String)>,
    visitor: Visitor,
) -> Answer {
    let caller = visitor.anyone()?;
    let project = access::project(&forge, &key, caller.as_ref().map(|caller| &caller.user))?;
    let id: u64 = user
        .parse()
        .map_err(|_| Refusal::Parameter("user_id is invalid".to_owned()))?;
    let role = project.role(Some(id)).ok_or(Refusal::MissingEntry)?;
    found(member_wire(&forge, &project, id, role))
}

fn protection_wire(rule: &Protection) -> Value {
    let (level, words) = match rule.push {
        PushAccess::Developer => (30, "Developers + Maintainers"),
        PushAccess::Maintainer => (40, "Maintainers"),
        PushAccess::NoOne => (0, "No one"),
    };
    let access = |id: u32, level: u32, words: &str| json!([{"id": id, "access_level": level, "access_level_description": words, "deploy_key_id": null, "user_id": null, "group_id": null}]);
    json!({
        "id": 1,
        "name": rule.branch,
        "push_access_levels": access(1, level, words),
        "merge_access_levels": access(2, 40, "Maintainers"),
        "allow_force_push": rule.allow_force_push,
        "unprotect_access_levels": [],
        "code_owner_approval_required": false,
        "inherited": false,
    })
}

/// `GET …/protected_branches`: maintainers only.
pub(crate) async fn protected(
    State(forge): State<Forge>,
    Path(key): Path<String>,
    visitor: Visitor,
    parameters: Parameters,
) -> Answer {
    let project = for_maintainers(&forge, &key, visitor)?;
    let url = format!("{}/api/v4/projects/{}/protected_branches", forge.gitlab(), project.id);
    let id = project.id.to_string();
    page(&url, &parameters, &[("id", &id)], project.protected, |rule| {
        protection_wire(&rule)
    })
}

/// `GET …/protected_branches/:name`
pub(crate) async fn protected_one(
    State(forge): State<Forge>,
    Path((key, name)): Path<(String, String)>,
    visitor: Visitor,
) -> Answer {
    let project = for_maintainers(&forge, &key, visitor)?;
    let rule = project.protected.iter().find(|rule| rule.branch == name);
    found(protection_wire(rule.ok_or(Refusal::MissingEntry)?))
}

fn for_maintainers(forge: &Forge, key: &str, visitor: Visitor) -> Result<Project, Refusal> {
    let caller = visitor.anyone()?.ok_or(Refusal::Unauthorized)?;
    let project = access::project(forge, key, Some(&caller.user))?;
    match project.role(Some(caller.user.id)) {
        Some(role) if role >= Role::Maintainer => Ok(project),
        Some(_) | None => Err(Refusal::Forbidden),
    }
}

/// `GET /users`: by user name or search.
pub(crate) async fn users(State(forge): State<Forge>, visitor: Visitor, parameters: Parameters) -> Answer {
    visitor.account()?;
    let (name, search) = (parameters.text("username"), parameters.text("search"));
    let all: Vec<_> = {
        let world = forge.world();
        let wanted = |username: &str, full: &str| {
            let by_name = name.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(username));
            let part = |part: &String| username.contains(part.as_str()) || full.contains(part.as_str());
            by_name && search.as_ref().is_none_or(part)
        };
        world
            .users
            .iter()
            .filter(|user| wanted(&user.username, &user.name))
            .cloned()
            .collect()
    };
    let url = format!("{}/api/v4/users", forge.gitlab());
    let defaults = [
        ("active", "false"),
        ("admins", "false"),
        ("blocked", "false"),
        ("external", "false"),
        ("skip_ldap", "false"),
        ("with_custom_attributes", "false"),
    ];
    page(&url, &parameters, &defaults, all, |user| basic_of(&forge, &user))
}
