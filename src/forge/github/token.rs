//! What a GitHub token is and may do: what its answers carry first, and what only trying shows.
//!
//! Never judges a token by how it looks, and never writes to find out.

use std::sync::PoisonError;

use serde::de::IgnoredAny;

use super::wire::User;
use super::{Github, USER, scopes, what};
use crate::forge::http::{Answer, Api, Asked};
use crate::forge::text::person;
use crate::forge::{ForgeError, ProjectFacts, TokenFacts, TokenKind};
use crate::message::{Capabilities, Right};

const INSTALLATION: Asked = Asked {
    endpoint: "installation",
    act: "read the installation's repositories",
};
const PROBE: Asked = Asked {
    endpoint: "probe",
    act: "read what the token may read",
};

/// The moment a token ends, in seconds since 1970. GitHub writes it with the zone's name or its distance from UTC.
fn end_of(text: &str) -> Option<i64> {
    let text = text.trim();
    let zoned = match text.strip_suffix("UTC") {
        Some(bare) => format!("{} +0000", bare.trim_end()),
        None => text.to_owned(),
    };
    let moment = jiff::Timestamp::strptime("%Y-%m-%d %H:%M:%S %z", &zoned).ok()?;
    Some(moment.as_second())
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).and_then(|value| value.to_str().ok())
}

impl Github {
    pub(super) async fn ask_token(&self) -> Result<TokenFacts, ForgeError> {
        let url = self.api.address.resource(&["user"]);
        let answer = self.api.get_kept(USER, url).await?;
        let scopes: Vec<String> = header(&answer, "x-oauth-scopes")
            .unwrap_or_default()
            .split(',')
            .take(100)
            .map(person)
            .filter(|scope| !scope.is_empty())
            .collect();
        let (user, kind) = match self.parsed::<User>(USER, "the token's user", &answer) {
            Ok(user) => {
                let kind = if !scopes.is_empty() {
                    TokenKind::Classic
                } else if header(&answer, "x-accepted-github-permissions").is_some() {
                    TokenKind::FineGrained
                } else {
                    TokenKind::Unknown
                };
                (Some(user), kind)
            }
            // An App's installation is no user.
            Err(ForgeError::ScopeMissing { .. }) => (None, self.kind_without_user().await?),
            Err(ForgeError::NotFound { .. }) => return Err(self.api.no_api(USER)),
            Err(ForgeError::Refused { .. }) if answer.status.as_u16() == 410 => return Err(self.api.no_api(USER)),
            Err(error) => return Err(Api::other_product(error)),
        };
        // Fine-grained and App tokens name no scopes: nothing can be inferred.
        let capabilities = scopes::capabilities((!scopes.is_empty()).then_some(scopes.as_slice()));
        *self.rights.lock().unwrap_or_else(PoisonError::into_inner) = capabilities;
        let host = self.api.address.instance.split_once("://").map_or("", |(_, rest)| rest);
        let host = host.split(['/', ':']).next().unwrap_or_default();
        let end = header(&answer, "github-authentication-token-expiration");
        Ok(TokenFacts {
            account: user.as_ref().map(User::account).unwrap_or_default(),
            user_id: user.as_ref().map(|user| user.id),
            name: user.as_ref().map(User::display_name).unwrap_or_default(),
            email: user.as_ref().map(|user| user.address(host)).unwrap_or_default(),
            expires: end.map(person),
            expires_at: end.and_then(end_of),
            kind,
            capabilities,
            scopes,
        })
    }

    async fn kind_without_user(&self) -> Result<TokenKind, ForgeError> {
        let mut url = self.api.address.resource(&["installation", "repositories"]);
        url.query_pairs_mut().append_pair("per_page", "1");
        let answer = self.api.get_kept(INSTALLATION, url).await?;
        match self.parsed::<IgnoredAny>(INSTALLATION, "the installation", &answer) {
            Ok(_) => Ok(TokenKind::AppInstallation),
            Err(ForgeError::ScopeMissing { .. } | ForgeError::Refused { .. } | ForgeError::NotFound { .. }) => {
                Ok(TokenKind::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn try_out(&self, project: &ProjectFacts) -> Capabilities {
        let mut may = *self.rights.lock().unwrap_or_else(PoisonError::into_inner);
        if !project.may_push {
            may.push_branches = Right::No;
        }
        if may.read_projects == Right::Unproven {
            // That it is known shows it.
            may.read_projects = Right::Yes;
        }
        // Branches are contents, which is what a clone reads.
        for (right, list) in [
            (&mut may.clone, "branches"),
            (&mut may.inspect_change_requests, "pulls"),
            (&mut may.read_issues, "issues"),
        ] {
            if *right == Right::Unproven {
                *right = self.may_list(project, list).await;
            }
        }
        may
    }

    async fn may_list(&self, project: &ProjectFacts, list: &str) -> Right {
        let read = async {
            let mut url = self.api.address.resource(&self.below(&project.path, &[list])?);
            url.query_pairs_mut().append_pair("per_page", "1");
            let answer = self.api.get(PROBE, url).await?;
            self.parsed::<Vec<IgnoredAny>>(PROBE, &what(&project.path), &answer)
        };
        match read.await {
            Ok(_) => Right::Yes,
            // 410 is among the refusals: a repository without issues.
            Err(ForgeError::ScopeMissing { .. } | ForgeError::Refused { .. }) => Right::No,
            Err(error) => {
                tracing::debug!(%error, list, "it stays unproven");
                Right::Unproven
            }
        }
    }
}

#[cfg(test)]
mod tests;
