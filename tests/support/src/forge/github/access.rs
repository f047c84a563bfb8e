//! Who may use which route: GitHub's scopes and permissions, then the repository's visibility and the person's role.
//!
//! Never tells a missing repository from an invisible one.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::wire::Refusal;
use crate::forge::Forge;
use crate::forge::credentials::{Presented, presented};
use crate::forge::seed::{Side, Visibility};
use crate::forge::state::{Caller, Project};

/// Whether a token may know of a repository.
pub(crate) fn sees(caller: &Caller, project: &Project) -> bool {
    if project.visibility == Visibility::Public {
        return true;
    }
    let covered = match &caller.token.fine_grained {
        Some(limits) => limits.repositories.contains(&project.path),
        None => caller.token.has("repo"),
    };
    // An installation is given repositories; no person stands behind it.
    covered && (caller.token.installation || project.visible_to(Some(caller.user.id)))
}

/// Whether a token may read or write one area of a repository that it sees. Says nothing about the person's role.
pub(crate) fn permits(caller: &Caller, project: &Project, area: &str, write: bool) -> bool {
    let public = project.visibility == Visibility::Public;
    match &caller.token.fine_grained {
        Some(limits) if limits.repositories.contains(&project.path) => {
            let held = limits.permissions.get(area).map(String::as_str);
            held == Some("write") || (!write && (held == Some("read") || public))
        }
        Some(_) => public && !write,
        None if write => caller.token.has("repo") || (public && caller.token.has("public_repo")),
        None => public || caller.token.has("repo"),
    }
}

fn judge(forge: &Forge, parts: &Parts) -> Result<Option<Caller>, Refusal> {
    match presented(forge, Side::Github, &parts.headers, None) {
        Presented::Nothing => Ok(None),
        Presented::Unknown | Presented::Expired(_) | Presented::Revoked(_) => Err(Refusal::BadCredentials),
        Presented::Alive(caller) => Ok(Some(*caller)),
    }
}

/// Somebody with a live token.
pub(crate) struct Account(pub(crate) Caller);

impl FromRequestParts<Forge> for Account {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, forge: &Forge) -> Result<Self, Refusal> {
        judge(forge, parts)?.map(Self).ok_or(Refusal::NeedsToken)
    }
}

/// A request under one repository that its sender may know of.
pub(crate) struct Entry {
    pub(crate) project: Project,
    pub(crate) caller: Option<Caller>,
    rest: HashMap<String, String>,
}

impl FromRequestParts<Forge> for Entry {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, forge: &Forge) -> Result<Self, Refusal> {
        const MISSING: Refusal = Refusal::NotFound("/repos/repos#get-a-repository");
        let caller = judge(forge, parts)?;
        let Ok(Path(rest)) = Path::<HashMap<String, String>>::from_request_parts(parts, forge).await else {
            return Err(MISSING);
        };
        let visible = |project: &Project| match &caller {
            Some(caller) => sees(caller, project),
            None => project.visibility == Visibility::Public,
        };
        let found = {
            let world = forge.world();
            let one = match (rest.get("owner"), rest.get("repo")) {
                (Some(owner), Some(repo)) => {
                    let path = format!("{owner}/{repo}");
                    let moved = world.moved(Side::Github, &path).filter(|project| visible(project));
                    if let Some(project) = moved {
                        let url = format!("{}/api/v3/repositories/{}", forge.github(), project.id);
                        return Err(Refusal::Moved(url));
                    }
                    world.project(Side::Github, &path)
                }
                _ => {
                    let id = rest.get("repository_id").and_then(|id| id.parse::<u64>().ok());
                    world
                        .projects
                        .iter()
                        .find(|one| one.side == Side::Github && Some(one.id) == id)
                }
            };
            one.cloned()
        };

        let project = found.filter(visible).ok_or(MISSING)?;
        Ok(Self { project, caller, rest })
    }
}

impl Entry {
    /// A part of the path.
    pub(crate) fn part(&self, name: &str) -> &str {
        self.rest.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The number of an issue or pull request in the path.
    pub(crate) fn number(&self) -> Result<u64, Refusal> {
        self.part("number").parse().map_err(|_| Refusal::NotFound(""))
    }

    /// Asks for one permission; `header` is how GitHub names it.
    pub(crate) fn needs(&self, area: &str, write: bool, header: &'static str) -> Result<(), Refusal> {
        match &self.caller {
            Some(caller) if permits(caller, &self.project, area, write) => Ok(()),
            Some(caller) if caller.token.fine_grained.is_some() => {
                Err(Refusal::NotAccessible(header, caller.token.installation))
            }
            None if !write && self.project.visibility == Visibility::Public => Ok(()),
            None if write => Err(Refusal::NeedsToken),
            Some(_) | None => Err(Refusal::NotFound("")),
        }
    }

    /// Whoever sends the request, where a token is needed.
    pub(crate) fn caller(&self) -> Result<&Caller, Refusal> {
        self.caller.as_ref().ok_or(Refusal::NeedsToken)
    }
}
