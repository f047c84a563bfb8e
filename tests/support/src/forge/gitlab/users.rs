//! Who the token is, and what the instance is. Read only.

use axum::extract::State;
use serde_json::{Value, json};

use super::access::Visitor;
use super::wire::{Answer, found, time};
use crate::forge::Forge;
use crate::forge::json::extend;
use crate::forge::state::User;

/// The version that this double plays.
const VERSION: &str = "18.4.1-ee";
const REVISION: &str = "cofferdam-test-forge";

/// The short form of a user.
pub(crate) fn basic(forge: &Forge, id: u64) -> Value {
    let world = forge.world();
    world.user(id).map_or(Value::Null, |user| basic_of(forge, user))
}

pub(crate) fn basic_of(forge: &Forge, user: &User) -> Value {
    json!({
        "id": user.id,
        "username": user.username,
        "public_email": user.public_email,
        "name": user.name,
        "state": "active",
        "locked": false,
        "avatar_url": format!("{}/uploads/-/system/user/avatar/{}/avatar.png", forge.gitlab(), user.id),
        "web_url": format!("{}/{}", forge.gitlab(), user.username),
    })
}

/// `GET /user`
pub(crate) async fn user(State(forge): State<Forge>, visitor: Visitor) -> Answer {
    let caller = visitor.account()?;
    let user = &caller.user;
    let mut body = basic_of(&forge, user);
    let since = time(caller.token.created_at);
    let today = since.get(..10).unwrap_or_default().to_owned();
    let full = json!({
        "created_at": since,
        "bio": "",
        "bio_html": "",
        "followers": 0,
        "following": 0,
        "is_followed": false,
        "location": "",
        "skype": "",
        "linkedin": "",
        "twitter": "",
        "discord": "",
        "github": "",
        "website_url": "",
        "organization": "",
        "job_title": "",
        "pronouns": "",
        "bot": false,
        "work_information": null,
        "local_time": null,
        "last_sign_in_at": since,
        "confirmed_at": since,
        "last_activity_on": today,
        "email": user.email,
        "theme_id": 1,
        "color_scheme_id": 1,
        "projects_limit": 100_000,
        "current_sign_in_at": since,
        "identities": [],
        "can_create_group": true,
        "can_create_project": true,
        "two_factor_enabled": true,
        "external": false,
        "private_profile": false,
        "commit_email": user.commit_email,
        "preferred_language": "en",
        "shared_runners_minutes_limit": null,
        "extra_shared_runners_minutes_limit": null,
        "scim_identities": [],
    });
    extend(&mut body, full);
    found(body)
}

/// `GET /personal_access_tokens/self`: every live token may.
pub(crate) async fn token(visitor: Visitor) -> Answer {
    let token = visitor.token()?.token;
    found(json!({
        "id": token.id,
        "name": token.name,
        "revoked": false,
        "created_at": time(token.created_at),
        "description": "",
        "scopes": token.scopes,
        "user_id": token.user,
        "last_used_at": time(token.created_at),
        "active": true,
        "granular": token.has("granular"),
        "expires_at": token.expires_at.map(|date| date.to_string()),
        "last_used_ips": ["127.0.0.1"],
    }))
}

/// `GET /metadata`
pub(crate) async fn metadata(visitor: Visitor) -> Answer {
    visitor.account()?;
    found(json!({
        "version": VERSION,
        "revision": REVISION,
        "kas": {"enabled": false, "externalUrl": null, "version": null},
        "enterprise": true,
    }))
}

/// `GET /version`
pub(crate) async fn version(visitor: Visitor) -> Answer {
    visitor.account()?;
    found(json!({"version": VERSION, "revision": REVISION}))
}
