//! Who may fetch from and push to which project, in the words of each forge.
//!
//! Never looks at what is pushed.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::{Call, Service, plain};
use crate::forge::Forge;
use crate::forge::credentials::{Presented, presented};
use crate::forge::github;
use crate::forge::seed::{Side, Visibility};
use crate::forge::state::{Caller, Project};

/// The project and the caller, or the answer that refuses.
type Passed = Result<(Project, Option<Caller>), Box<Response>>;

/// Decides whether a request of git may go on.
pub(super) fn pass(forge: &Forge, call: &Call, headers: &HeaderMap) -> Passed {
    let project = {
        let world = forge.world();
        world
            .project(call.side, &call.path)
            .or_else(|| world.moved(call.side, &call.path))
            .cloned()
    };
    match call.side {
        Side::Gitlab => gitlab(forge, call, project, headers),
        Side::Github => github(forge, call, project, headers),
    }
}

fn challenge(realm: &'static str, text: impl Into<String>) -> Box<Response> {
    let mut response = plain(StatusCode::UNAUTHORIZED, text);
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(realm));
    Box::new(response)
}

fn refuse<T>(status: StatusCode, text: impl Into<String>) -> Result<T, Box<Response>> {
    Err(Box::new(plain(status, text)))
}

fn gitlab(forge: &Forge, call: &Call, project: Option<Project>, headers: &HeaderMap) -> Passed {
    let denied = || {
        let help = format!(
            "{}/gitlab/help/topics/git/troubleshooting_git#error-on-git-fetch-http-basic-access-denied",
            forge.url()
        );
        let text = "HTTP Basic: Access denied. If a password was provided for Git authentication, the password was \
                    incorrect or you're required to use a token instead of a password. If a token was provided, it was \
                    either incorrect, expired, or improperly scoped. See";
        challenge("Basic realm=\"GitLab\"", format!("{text} {help}"))
    };
    let forbidden = |text: &str| refuse(StatusCode::FORBIDDEN, text);
    let caller = match presented(forge, Side::Gitlab, headers, None) {
        Presented::Alive(caller) => *caller,
        Presented::Nothing => {
            return match project {
                Some(project) if project.visibility == Visibility::Public && call.service == Service::Upload => {
                    Ok((project, None))
                }
                Some(_) | None => Err(denied()),
            };
        }
        Presented::Unknown | Presented::Expired(_) | Presented::Revoked(_) => return Err(denied()),
    };
    let user = Some(caller.user.id);
    let Some(project) = project.filter(|project| project.visible_to(user)) else {
        let text = "The project you were looking for could not be found or you don't have permission to view it.";
        return refuse(StatusCode::NOT_FOUND, text);
    };
    let token = &caller.token;
    match call.service {
        Service::Upload if !token.has_any(&["api", "read_api", "read_repository", "write_repository", "granular"]) => {
            forbidden("You are not allowed to download code.")
        }
        Service::Upload if !project.readable_by(user) => {
            forbidden("You are not allowed to download code from this project.")
        }
        Service::Receive if !token.has_any(&["api", "write_repository", "granular"]) => {
            forbidden("You are not allowed to upload code.")
        }
        Service::Receive if project.archived => forbidden("You can't push code to an archived project."),
        Service::Receive if !project.writable_by(user) => {
            forbidden("You are not allowed to push code to this project.")
        }
        Service::Upload | Service::Receive => Ok((project, Some(caller))),
    }
}

fn github(forge: &Forge, call: &Call, project: Option<Project>, headers: &HeaderMap) -> Passed {
    const REALM: &str = "Basic realm=\"GitHub\"";
    let caller = match presented(forge, Side::Github, headers, None) {
        Presented::Alive(caller) => *caller,
        Presented::Nothing => {
            return match project {
                Some(project) if project.visibility == Visibility::Public && call.service == Service::Upload => {
                    Ok((project, None))
                }
                Some(_) | None => Err(challenge(REALM, "Repository not found.")),
            };
        }
        Presented::Unknown | Presented::Expired(_) | Presented::Revoked(_) => {
            let text = "Invalid username or token. Password authentication is not supported for Git operations.";
            return Err(challenge(REALM, text));
        }
    };
    let Some(project) = project.filter(|project| github::sees(&caller, project)) else {
        return refuse(StatusCode::NOT_FOUND, "Repository not found.");
    };
    if call.service == Service::Receive {
        if project.archived {
            return refuse(
                StatusCode::FORBIDDEN,
                "This repository was archived so it is read-only.",
            );
        }
        if !project.writable_by(Some(caller.user.id)) {
            let text = format!("Permission to {}.git denied to {}.", project.path, caller.user.username);
            return refuse(StatusCode::FORBIDDEN, text);
        }
        if !github::permits(&caller, &project, "contents", true) {
            return refuse(StatusCode::FORBIDDEN, "Write access to repository not granted.");
        }
    } else if !github::permits(&caller, &project, "contents", false) {
        return refuse(StatusCode::FORBIDDEN, "Write access to repository not granted.");
    }
    Ok((project, Some(caller)))
}
