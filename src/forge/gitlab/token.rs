//! What a GitLab token is and may do: its own word for it first, and what only trying shows.
//!
//! Never judges a token by how it looks, and never writes to find out.

use std::sync::PoisonError;
use std::time::Duration;

use serde::de::IgnoredAny;

use super::wire::{Token, User};
use super::{Account, Gitlab, TOKEN, USER, scopes, what};
use crate::forge::http::{Api, Asked};
use crate::forge::text::person;
use crate::forge::{ForgeError, ProjectFacts, TokenFacts, TokenKind};
use crate::message::{Capabilities, Right};

/// How long a user's name and address are believed while the token is asked for itself each time.
const USER_AGE: Duration = Duration::from_secs(10 * 60);

const PROBE: Asked = Asked {
    endpoint: "probe",
    act: "read what the token may read",
};

/// The moment a token ends, in seconds since 1970: GitLab's days begin at 00:00 UTC, and the last one does not count.
fn end_of(day: &str) -> Option<i64> {
    let day: jiff::civil::Date = day.trim().parse().ok()?;
    let moment = jiff::tz::TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok()?;
    Some(moment.as_second())
}

impl Gitlab {
    pub(super) async fn ask_token(&self) -> Result<TokenFacts, ForgeError> {
        let url = self.api.address.resource(&["personal_access_tokens", "self"]);
        let answer = self.api.get_kept(TOKEN, url).await?;
        let instance = self.api.address.instance.clone();
        let token = match answer.status.as_u16() {
            // An old server does not know the route; a token of another kind is refused there. Nothing can be inferred then.
            400 | 404 => None,
            _ => {
                let token = self.parsed::<Token>(TOKEN, "the token", &answer);
                Some(token.map_err(Api::other_product)?)
            }
        };
        if token.as_ref().is_some_and(|token| token.revoked) {
            return Err(ForgeError::TokenRevoked { instance });
        }
        if token.as_ref().is_some_and(|token| token.active == Some(false)) {
            return Err(ForgeError::TokenExpired { instance });
        }
        let scopes: Vec<String> = token
            .as_ref()
            .map(|token| token.scopes.iter().take(100).map(|scope| person(scope)).collect())
            .unwrap_or_default();
        let has = |wanted: &[&str]| scopes.iter().any(|scope| wanted.contains(&scope.as_str()));
        let kind = match &token {
            None => TokenKind::Unknown,
            Some(token) if token.granular || has(&["granular"]) => TokenKind::Granular,
            Some(_) => TokenKind::Personal,
        };
        // A granular token's rights are not in its scopes.
        let told = kind == TokenKind::Personal;
        let capabilities = scopes::capabilities(told.then_some(scopes.as_slice()));
        let user = if kind != TokenKind::Personal || has(&["api", "read_api", "read_user"]) {
            self.ask_user(token.is_some()).await?
        } else {
            None
        };
        *self.rights.lock().unwrap_or_else(PoisonError::into_inner) = capabilities;
        let user_id = token.as_ref().and_then(|token| token.user_id);
        let day = token.and_then(|token| token.expires_at);
        Ok(TokenFacts {
            account: user.as_ref().map(User::account).unwrap_or_default(),
            user_id: user.as_ref().map(|user| user.id).or(user_id),
            name: user.as_ref().map(User::display_name).unwrap_or_default(),
            email: user.as_ref().map(User::address).unwrap_or_default(),
            expires_at: day.as_deref().and_then(end_of),
            expires: day.map(|day| person(&day)),
            kind,
            capabilities,
            scopes,
        })
    }

    /// The token's user; none where the token may not read it. `checked` says that the token was accepted just now: then what is known of
    /// its user need not be asked for again.
    async fn ask_user(&self, checked: bool) -> Result<Option<User>, ForgeError> {
        let url = self.api.address.resource(&["user"]);
        let answer = if checked {
            self.api.get_fresh(USER, url, USER_AGE).await?
        } else {
            self.api.get_kept(USER, url).await?
        };
        match self.parsed::<User>(USER, "the token's user", &answer) {
            Ok(user) => {
                let account = Account {
                    id: user.id,
                    administrator: user.is_admin.unwrap_or(false),
                };
                // A second call finds the same user there.
                let _ = self.account.set(account);
                Ok(Some(user))
            }
            Err(ForgeError::ScopeMissing { .. } | ForgeError::Refused { .. }) => Ok(None),
            Err(ForgeError::NotFound { .. }) => Err(self.api.no_api(USER)),
            Err(error) => Err(Api::other_product(error)),
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
        if may.inspect_change_requests == Right::Unproven {
            may.inspect_change_requests = self.may_list(project, "merge_requests").await;
        }
        if may.read_issues == Right::Unproven {
            may.read_issues = self.may_list(project, "issues").await;
        }
        may
    }

    async fn may_list(&self, project: &ProjectFacts, list: &str) -> Right {
        let mut url = self.api.address.resource(&["projects", &project.id, list]);
        url.query_pairs_mut()
            .append_pair("scope", "all")
            .append_pair("per_page", "1");
        let read = match self.api.get(PROBE, url).await {
            Ok(answer) => self.parsed::<Vec<IgnoredAny>>(PROBE, &what(project), &answer),
            Err(error) => Err(error),
        };
        match read {
            Ok(_) => Right::Yes,
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
