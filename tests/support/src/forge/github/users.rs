//! Who the token is, and what the instance is. Read only.

use axum::extract::State;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::Account;
use super::wire::{Answer, Refusal, found, node, time};
use crate::forge::Forge;
use crate::forge::json::extend;
use crate::forge::seed::{Role, Side, Visibility};
use crate::forge::state::{Project, User};

/// The short form of an account.
fn account(forge: &Forge, id: u64, login: &str, kind: &str) -> Value {
    let rest = format!("{}/api/v3/users/{login}", forge.github());
    json!({
        "login": login,
        "id": id,
        "node_id": node(kind, id),
        "avatar_url": format!("{}/avatars/u/{id}?v=4", forge.github()),
        "gravatar_id": "",
        "url": rest,
        "html_url": format!("{}/{login}", forge.github()),
        "followers_url": format!("{rest}/followers"),
        "following_url": format!("{rest}/following{{/other_user}}"),
        "gists_url": format!("{rest}/gists{{/gist_id}}"),
        "starred_url": format!("{rest}/starred{{/owner}}{{/repo}}"),
        "subscriptions_url": format!("{rest}/subscriptions"),
        "organizations_url": format!("{rest}/orgs"),
        "repos_url": format!("{rest}/repos"),
        "events_url": format!("{rest}/events{{/privacy}}"),
        "received_events_url": format!("{rest}/received_events"),
        "type": kind,
        "user_view_type": "public",
        "site_admin": false,
    })
}

/// A person by id.
pub(crate) fn basic(forge: &Forge, id: u64) -> Value {
    let login = forge.world().user(id).map(|user| user.username.clone());
    login.map_or(Value::Null, |login| account(forge, id, &login, "User"))
}

/// A person by the e-mail of a commit; null if nobody has it.
pub(crate) fn by_email(forge: &Forge, email: &str) -> Value {
    let id = {
        let world = forge.world();
        let own = |user: &&User| {
            let noreply = format!("{}+{}@users.noreply.github.com", user.id, user.username);
            [&user.email, &user.commit_email, &noreply]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(email))
        };
        world.users.iter().find(own).map(|user| user.id)
    };
    id.map_or(Value::Null, |id| basic(forge, id))
}

/// The owner of a repository: a person of that name, or an organisation.
pub(crate) fn owner(forge: &Forge, project: &Project) -> Value {
    let login = project.namespace();
    let person = forge
        .world()
        .users
        .iter()
        .find(|user| user.username == login)
        .map(|user| user.id);
    match person {
        Some(id) => basic(forge, id),
        None => account(forge, project.id + 10_000, login, "Organization"),
    }
}

/// `GET /user`
pub(crate) async fn user(State(forge): State<Forge>, Account(caller): Account) -> Answer {
    if caller.token.installation {
        return Err(Refusal::NotByIntegration);
    }
    let user = &caller.user;
    let mut body = basic(&forge, user.id);
    let since = time(caller.token.created_at);
    let public = (!user.public_email.is_empty()).then_some(&user.public_email);
    let more = json!({
        "name": user.name,
        "company": "",
        "blog": "",
        "location": "",
        "email": public,
        "hireable": null,
        "bio": null,
        "twitter_username": null,
        "notification_email": public,
        "public_repos": 0,
        "public_gists": 0,
        "followers": 0,
        "following": 0,
        "created_at": since,
        "updated_at": since,
        "private_gists": 0,
        "total_private_repos": 0,
        "owned_private_repos": 0,
        "disk_usage": 0,
        "collaborators": 0,
        "two_factor_authentication": true,
        "plan": {"name": "free", "space": 976_562_499, "collaborators": 0, "private_repos": 10_000},
    });
    extend(&mut body, more);
    found(body)
}

/// `GET /users/:login`
pub(crate) async fn by_login(
    State(forge): State<Forge>,
    axum::extract::Path(login): axum::extract::Path<String>,
) -> Answer {
    let user = forge.world().person(&login).cloned();
    let user = user.ok_or(Refusal::NotFound("/users/users#get-a-user"))?;
    let mut body = basic(&forge, user.id);
    let public = (!user.public_email.is_empty()).then_some(&user.public_email);
    let more = json!({
        "name": user.name,
        "company": null,
        "blog": "",
        "location": null,
        "email": public,
        "hireable": null,
        "bio": null,
        "twitter_username": null,
        "public_repos": 0,
        "public_gists": 0,
        "followers": 0,
        "following": 0,
        "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:05Z",
    });
    extend(&mut body, more);
    found(body)
}

/// `GET …/collaborators/:login/permission`: for those who may push.
pub(crate) async fn permission(State(forge): State<Forge>, entry: super::access::Entry) -> Answer {
    let caller = entry.caller()?;
    if !entry.project.writable_by(Some(caller.user.id)) {
        return Err(Refusal::Forbidden(
            "Must have push access to view collaborator permission.",
        ));
    }
    let user = forge.world().person(entry.part("login")).map(|user| user.id);
    let user = user.ok_or(Refusal::NotFound(""))?;
    let role = entry.project.role(Some(user));
    let word = match role {
        Some(Role::Owner) => "admin",
        Some(Role::Developer | Role::Maintainer) => "write",
        Some(Role::Guest | Role::Reporter) => "read",
        None if entry.project.visibility == Visibility::Public => "read",
        None => "none",
    };
    let at_least = |least: Role| role.is_some_and(|role| role >= least);
    let mut body = basic(&forge, user);
    body["role_name"] = json!(word);
    body["permissions"] = json!({
        "admin": at_least(Role::Owner),
        "maintain": at_least(Role::Maintainer),
        "push": at_least(Role::Developer),
        "triage": at_least(Role::Reporter),
        "pull": role.is_some() || word == "read",
    });
    found(json!({"permission": word, "user": body, "role_name": word}))
}

/// `GET /user/emails`
pub(crate) async fn emails(Account(caller): Account) -> Answer {
    found(json!([{"email": caller.user.email, "primary": true, "verified": true, "visibility": "private"}]))
}

/// `GET /rate_limit`: off by default on GitHub Enterprise, but the route answers on github.com.
pub(crate) async fn rate_limit(Account(_): Account) -> Answer {
    let limit = |limit: u32| json!({"limit": limit, "used": 0, "remaining": limit, "reset": Timestamp::now().as_second() + 3600});
    found(json!({
        "resources": {"core": limit(5000), "search": limit(30), "graphql": limit(5000)},
        "rate": limit(5000),
    }))
}

/// `GET /meta`
pub(crate) async fn meta() -> Answer {
    found(json!({"verifiable_password_authentication": false, "installed_version": "3.19.0"}))
}

/// `GET /`
pub(crate) async fn root(State(forge): State<Forge>) -> Answer {
    let rest = format!("{}/api/v3", forge.github());
    let count = forge
        .world()
        .projects
        .iter()
        .filter(|project| project.side == Side::Github)
        .count();
    found(json!({
        "current_user_url": format!("{rest}/user"),
        "repository_url": format!("{rest}/repos/{{owner}}/{{repo}}"),
        "test_forge_repositories": count,
    }))
}
