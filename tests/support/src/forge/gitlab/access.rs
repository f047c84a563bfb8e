//! Who may use which route: GitLab's scopes, then the project's visibility and the member's role.
//!
//! Never tells a missing project from an invisible one.

use axum::extract::FromRequestParts;
use axum::http::HeaderName;
use axum::http::request::Parts;

use super::wire::Refusal;
use crate::forge::Forge;
use crate::forge::credentials::{Presented, presented};
use crate::forge::seed::Side;
use crate::forge::state::{Caller, Project, User};

const SUDO: HeaderName = HeaderName::from_static("sudo");

/// Whoever sends a request: nobody, or the owner of a live token.
pub(crate) struct Visitor(Option<Caller>);

impl FromRequestParts<Forge> for Visitor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, forge: &Forge) -> Result<Self, Refusal> {
        match presented(forge, Side::Gitlab, &parts.headers, parts.uri.query()) {
            Presented::Nothing => Ok(Self(None)),
            Presented::Unknown => Err(Refusal::Unauthorized),
            Presented::Expired(_) => Err(Refusal::Expired),
            Presented::Revoked(_) => Err(Refusal::Revoked),
            Presented::Alive(caller) => {
                if parts.headers.contains_key(SUDO) && !caller.token.has("sudo") {
                    return Err(Refusal::Scope("sudo"));
                }
                Ok(Self(Some(*caller)))
            }
        }
    }
}

impl Visitor {
    /// Any live token at all.
    pub(crate) fn token(self) -> Result<Caller, Refusal> {
        self.0.ok_or(Refusal::Unauthorized)
    }

    /// A token for `/user`.
    pub(crate) fn account(self) -> Result<Caller, Refusal> {
        let caller = self.token()?;
        if caller.token.has_any(&["api", "read_api", "read_user", "granular"]) {
            Ok(caller)
        } else {
            Err(Refusal::Scope("api read_user read_api"))
        }
    }

    /// A token that reads the REST API, or nobody.
    pub(crate) fn anyone(self) -> Result<Option<Caller>, Refusal> {
        match self.0 {
            Some(caller) if !caller.token.has_any(&["api", "read_api", "granular"]) => {
                Err(Refusal::Scope("api read_api"))
            }
            other => Ok(other),
        }
    }

    /// A token that writes by the REST API.
    pub(crate) fn writer(self) -> Result<Caller, Refusal> {
        let caller = self.token()?;
        if caller.token.has("granular") {
            return Err(Refusal::Forbidden);
        }
        if caller.token.has("api") {
            Ok(caller)
        } else {
            Err(Refusal::Scope("api"))
        }
    }
}

/// A project by number or path, if this user may know of it.
pub(crate) fn project(forge: &Forge, key: &str, user: Option<&User>) -> Result<Project, Refusal> {
    let world = forge.world();
    let found = match key.parse::<u64>() {
        Ok(id) => world
            .projects
            .iter()
            .find(|project| project.side == Side::Gitlab && project.id == id),
        Err(_) => world.project(Side::Gitlab, key),
    };
    let user = user.map(|user| user.id);
    if let Some(project) = found.filter(|project| project.visible_to(user)) {
        return Ok(project.clone());
    }
    match world
        .moved(Side::Gitlab, key)
        .filter(|project| project.visible_to(user))
    {
        Some(project) => Err(Refusal::Moved(format!(
            "{}/api/v4/projects/{}",
            forge.gitlab(),
            project.id
        ))),
        None => Err(Refusal::Missing("Project")),
    }
}

/// The same for routes that show code or what hangs on it.
pub(crate) fn project_with_code(forge: &Forge, key: &str, user: Option<&User>) -> Result<Project, Refusal> {
    let project = project(forge, key, user)?;
    if project.readable_by(user.map(|user| user.id)) {
        Ok(project)
    } else {
        Err(Refusal::Forbidden)
    }
}
