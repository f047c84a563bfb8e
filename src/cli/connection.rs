//! `connection check` and `projects`: what a user's token is, what it may do, and which projects it sees.
//!
//! Asks forges and nothing else: no broker, no engine, no state directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::compose::{Silent, read_task};
use super::{Exit, show};
use crate::config::Config;
use crate::forge::inspect::PageRequest;
use crate::forge::{Clients, ForgeError, check};
use crate::message::task::ConnectionRequest;
use crate::message::{ConnectionName, SessionId, Task};
use crate::session::credential::Asked;

/// Rows that are asked for at a time.
const PER_PAGE: u32 = 100;

/// A connection, with the session of the task that it comes from.
type Known = (ConnectionRequest, Option<SessionId>);

/// The connections of the configuration, and of a task where one is given.
fn connections(config: &Config, task: Option<&Path>) -> Result<BTreeMap<ConnectionName, Known>, (Exit, String)> {
    let own = config.connections.iter();
    let mut all: BTreeMap<_, _> = own
        .map(|(name, request)| (name.clone(), (request.clone(), None)))
        .collect();
    if let Some(path) = task {
        let parsed = read_task(path).and_then(|body| Task::parse(&body).map_err(|error| error.to_string()));
        let task = parsed.map_err(|message| (Exit::BadTask, message))?;
        let named = task.connections.into_iter();
        all.extend(named.map(|(name, request)| (name, (request, Some(task.session)))));
    }
    if all.is_empty() {
        let message = "there is no connection to look at: add a [connections.NAME] section, or name a task with --task";
        return Err((Exit::BadConfig, message.to_owned()));
    }
    Ok(all)
}

async fn ask(
    config: &Config,
    request: &ConnectionRequest,
    session: Option<SessionId>,
) -> Result<(Arc<dyn crate::forge::Forge>, check::Checked), String> {
    let secret = config
        .credentials
        .resolve(&request.credential, &Asked::of(session, request), |name| {
            std::env::var(name).ok()
        })
        .map_err(|error| error.to_string())?;
    let asked = async {
        let clients = Clients::new(config.forge.clone(), Arc::new(Silent))?;
        check::check(&clients, request, &secret).await
    };
    asked.await.map_err(|error: ForgeError| error.to_string())
}

/// Checks the named connections, or all.
pub(super) async fn check_all(config: &Config, names: &[ConnectionName], task: Option<&Path>, json: bool) -> Exit {
    let all = match connections(config, task) {
        Ok(all) => all,
        Err((exit, message)) => {
            show::complain(&message);
            return exit;
        }
    };
    if let Some(unknown) = names.iter().find(|name| !all.contains_key(name)) {
        show::complain(&format!(
            "there is no connection {unknown}; there are: {}",
            listed(&all)
        ));
        return Exit::BadConfig;
    }
    let mut exit = Exit::Success;
    for (name, (request, session)) in all.iter().filter(|(name, _)| names.is_empty() || names.contains(name)) {
        match ask(config, request, *session).await {
            Ok((_, checked)) if json => {
                show::line(&json!({"connection": name, "ok": true, "checked": checked}).to_string())
            }
            Ok((_, checked)) => show::line(&table(name, &checked)),
            Err(message) => {
                exit = Exit::Failure;
                if json {
                    show::line(&json!({"connection": name, "ok": false, "message": message}).to_string());
                } else {
                    show::complain(&format!("{name}: {message}"));
                }
            }
        }
    }
    exit
}

fn table(name: &ConnectionName, checked: &check::Checked) -> String {
    let scopes = if checked.scopes.is_empty() {
        "scopes unknown".to_owned()
    } else {
        format!("scopes {}", checked.scopes.join(", "))
    };
    let who = match (checked.account.as_str(), checked.name.as_str()) {
        ("", _) => "a user that the token may not name".to_owned(),
        (account, name) => format!("{account} ({name} <{}>)", checked.email),
    };
    let mut text = format!("{name}: {} at {}, {who}, {scopes}", checked.forge, checked.instance);
    if let Some(expires) = &checked.expires {
        text.push_str(&format!(", ends {expires}"));
    }
    for (row, right) in checked.capabilities.rows() {
        text.push_str(&format!("\n  {row:<26}{}", right.as_str()));
    }
    if let Some(path) = &checked.tried_on {
        text.push_str(&format!(
            "\n  note: the forge tells no scopes of this token; its rights were tried out by reading {path}"
        ));
    }
    for remark in &checked.remarks {
        text.push_str(&format!("\n  note: {remark}"));
    }
    text
}

fn listed(all: &BTreeMap<ConnectionName, Known>) -> String {
    all.keys().map(ConnectionName::to_string).collect::<Vec<_>>().join(", ")
}

/// What `projects` is asked.
pub(super) struct Wanted<'a> {
    pub(super) connection: &'a ConnectionName,
    pub(super) search: Option<&'a str>,
    pub(super) limit: usize,
    pub(super) json: bool,
}

/// Lists the projects to pick from, page by page; holds one page at a time.
pub(super) async fn projects(config: &Config, wanted: Wanted<'_>, task: Option<&Path>) -> Exit {
    let all = match connections(config, task) {
        Ok(all) => all,
        Err((exit, message)) => {
            show::complain(&message);
            return exit;
        }
    };
    let Some((request, session)) = all.get(wanted.connection) else {
        show::complain(&format!(
            "there is no connection {}; there are: {}",
            wanted.connection,
            listed(&all)
        ));
        return Exit::BadConfig;
    };
    let listing = async {
        let (forge, checked) = ask(config, request, *session).await?;
        let mut page = PageRequest {
            page: 1,
            per_page: PER_PAGE,
        };
        let mut shown = 0;
        loop {
            let found = check::projects(forge.as_ref(), &checked.capabilities, wanted.search, page)
                .await
                .map_err(|error| error.to_string())?;
            for project in found.items.iter().take(wanted.limit - shown) {
                shown += 1;
                let archived = if project.archived { "  (archived)" } else { "" };
                let branch = project.default_branch.as_deref().unwrap_or("(empty)");
                show::line(&if wanted.json {
                    json!(project).to_string()
                } else {
                    format!("{}  {branch}{archived}", project.path)
                });
            }
            match found.next_page {
                Some(next) if shown < wanted.limit => page.page = next,
                Some(_) => return Ok::<bool, String>(true),
                None => return Ok(false),
            }
        }
    };
    match listing.await {
        Ok(more) => {
            if more && !wanted.json {
                show::complain("there are more: narrow it with --search, or raise --limit");
            }
            Exit::Success
        }
        Err(message) => {
            show::complain(&format!("{}: {message}", wanted.connection));
            Exit::Failure
        }
    }
}
