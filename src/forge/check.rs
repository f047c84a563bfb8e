//! What an orchestrator asks before it offers a connection to a user: does the token work, whose is it, what may it do, which projects are there.
//!
//! Reads only: two or three requests per check, some more where rights must be tried out, one per page of projects. Never keeps a token.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::inspect::{PageRequest, ProjectSummary};
use super::{Connect, Forge, ForgeError, TokenKind};
use crate::message::task::ConnectionRequest;
use crate::message::{Capabilities, ForgeKind, Right};
use crate::secret::Secret;

/// What a connection is and may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Checked {
    /// The kind of forge.
    pub forge: &'static str,
    /// The instance's canonical address.
    pub instance: String,
    /// The account's user name; empty where the token may not tell.
    pub account: String,
    /// The account's name.
    pub name: String,
    /// The address that commits will bear.
    pub email: String,
    /// The scopes' own names, where the forge tells them.
    pub scopes: Vec<String>,
    /// When the token ends, where the forge says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Of what kind the token is.
    pub kind: TokenKind,
    /// What it may do.
    pub capabilities: Capabilities,
    /// The project on which that was tried out by reading, where the forge does not tell it of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tried_on: Option<String>,
    /// What stands in the way of full use, in words.
    pub remarks: Vec<String>,
}

/// Asks the forge what a token is and may do.
///
/// # Errors
/// The address cannot be used, the token is dead or of another instance, the forge is away.
pub async fn check(
    connect: &dyn Connect,
    request: &ConnectionRequest,
    secret: &Secret,
) -> Result<(Arc<dyn Forge>, Checked), ForgeError> {
    let forge = connect.connect(request.forge, request.url.as_deref(), secret, request.ca.as_deref())?;
    let mut facts = forge.token().await?;
    let tried_on = if facts.capabilities == Capabilities::UNPROVEN {
        try_out(forge.as_ref()).await
    } else {
        None
    };
    if let Some((_, capabilities)) = &tried_on {
        facts.capabilities = *capabilities;
    }
    let checked = Checked {
        forge: request.forge.as_str(),
        instance: forge.instance().to_owned(),
        remarks: remarks(request.forge, &facts.capabilities, facts.email.is_empty()),
        account: facts.account,
        name: facts.name,
        email: facts.email,
        scopes: facts.scopes,
        expires: facts.expires,
        kind: facts.kind,
        capabilities: facts.capabilities,
        tried_on: tried_on.map(|(path, _)| path),
    };
    Ok((forge, checked))
}

/// The first project that the token sees, and what it may do there. Nothing where it sees none: then the rights stay unproven.
async fn try_out(forge: &dyn Forge) -> Option<(String, Capabilities)> {
    let first = PageRequest { page: 1, per_page: 1 };
    let listed = forge.projects(None, first).await.ok()?;
    let path = listed.items.into_iter().next()?.path;
    let facts = forge.project(&path.parse().ok()?).await.ok()?;
    Some((path, forge.probe(&facts).await))
}

/// One page of the projects to pick from.
///
/// # Errors
/// The token may not list projects, or the forge is away.
pub async fn projects(
    forge: &dyn Forge,
    may: &Capabilities,
    search: Option<&str>,
    page: PageRequest,
) -> Result<super::inspect::Page<ProjectSummary>, ForgeError> {
    if may.read_projects == Right::GitOnly {
        return Err(ForgeError::ScopeMissing {
            instance: forge.instance().to_owned(),
            act: "list projects (name them by their paths instead)".to_owned(),
            needs: "the scope api or read_api".to_owned(),
        });
    }
    forge.projects(search, page).await
}

fn remarks(kind: ForgeKind, may: &Capabilities, no_address: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    let word = kind.change_request_word();
    if may.push_branches.is_refused() {
        remarks.push("it may not push: a session's commits are kept and offered as a patch".to_owned());
    }
    if may.open_change_requests == Right::PushOptions {
        remarks.push(format!(
            "a {word} is opened by push options; the task must name \"user\""
        ));
    } else if no_address {
        remarks.push("the forge tells no e-mail address of the user: the task must name \"user\"".to_owned());
    }
    if may.inspect_change_requests.is_refused() {
        remarks.push(format!("the agent cannot read {word}s and issues"));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_way_is_said() {
        let full = Capabilities {
            read_projects: Right::Yes,
            clone: Right::Yes,
            push_branches: Right::Yes,
            open_change_requests: Right::Yes,
            inspect_change_requests: Right::Yes,
            read_issues: Right::Yes,
            comment: Right::Yes,
        };
        assert!(remarks(ForgeKind::Gitlab, &full, false).is_empty());
        let pushing = Capabilities {
            open_change_requests: Right::PushOptions,
            inspect_change_requests: Right::No,
            ..full
        };
        assert_eq!(remarks(ForgeKind::Gitlab, &pushing, true).len(), 2);
        let reading = Capabilities {
            push_branches: Right::No,
            ..full
        };
        assert!(remarks(ForgeKind::Github, &reading, false)[0].contains("patch"));
    }
}
