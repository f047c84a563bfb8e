//! What a push may do to which branch, and what follows from it. git asks by its hooks, as on the real forges: before
//! it accepts (pre-receive) and after (post-receive).
//!
//! Never trusts a hook call that does not belong to a push in flight.

mod options;
mod rules;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use super::Forge;
use super::change_request;
use super::git::GitError;
use super::seed::Side;
use super::state::{Caller, Project};

/// The hook of every repository: hands git's words to the forge, prints the answer, and obeys its status.
pub(crate) const HOOK: &str = r#"#!/bin/bash
# Hook of the cofferdam test forge. Starts no program: what it costs is counted against whoever pushes.
set -u
export LC_ALL=C
body="push ${FORGE_PUSH-}
objects ${GIT_OBJECT_DIRECTORY-}
alternates ${GIT_ALTERNATE_OBJECT_DIRECTORIES-}
"
i=0
while [ "$i" -lt "${GIT_PUSH_OPTION_COUNT:-0}" ]; do
    name="GIT_PUSH_OPTION_$i"
    body+="option ${!name}"$'\n'
    i=$((i + 1))
done
while IFS= read -r line; do body+="update $line"$'\n'; done
exec 3<>"/dev/tcp/$FORGE_HOST/$FORGE_PORT" || exit 1
printf 'POST /_test/hook/%s HTTP/1.0\r\nHost: forge\r\nContent-Length: %d\r\n\r\n%s' "${0##*/}" "${#body}" "$body" >&3
IFS= read -r status <&3
while IFS= read -r line <&3; do [ "$line" = $'\r' ] && break; done
mapfile -u 3 answer
printf '%s' "${answer[@]}" >&2
case "$status" in *" 200 "*) exit 0 ;; *) exit 1 ;; esac
"#;

const ZEROS: &str = "0000000000000000000000000000000000000000";

/// A push that git is working on.
struct InFlight {
    project: u64,
    caller: Caller,
    /// The path that git used; another one than the project's after a rename.
    path: String,
    reason: Option<String>,
}

/// The pushes in flight.
#[derive(Default)]
pub(crate) struct Pushes {
    all: Mutex<HashMap<String, InFlight>>,
    count: AtomicU64,
}

impl Pushes {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, InFlight>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a push and returns the ticket that its hooks show.
    pub(crate) fn begin(&self, project: u64, caller: Caller, path: &str) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let ticket = hex::encode(Sha256::digest(format!(
            "{count} {:?} {}",
            Instant::now(),
            caller.token.value
        )));
        self.lock().insert(
            ticket.clone(),
            InFlight {
                project,
                caller,
                path: path.to_owned(),
                reason: None,
            },
        );
        ticket
    }

    /// Forgets a push; returns the forge's own reason if it was refused with one.
    pub(crate) fn end(&self, ticket: &str) -> Option<String> {
        self.lock().remove(ticket).and_then(|push| push.reason)
    }
}

/// One ref that a push changes.
#[derive(Debug, Clone)]
struct Update {
    old: String,
    new: String,
    name: String,
}

impl Update {
    fn branch(&self) -> Option<&str> {
        self.name.strip_prefix("refs/heads/")
    }

    fn creates(&self) -> bool {
        self.old == ZEROS
    }

    fn deletes(&self) -> bool {
        self.new == ZEROS
    }
}

/// What a hook says.
#[derive(Debug, Default)]
struct Told {
    ticket: String,
    objects: String,
    alternates: String,
    options: Vec<String>,
    updates: Vec<Update>,
}

impl Told {
    fn parse(body: &str) -> Self {
        let mut told = Self::default();
        for line in body.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "push" => rest.clone_into(&mut told.ticket),
                "objects" => rest.clone_into(&mut told.objects),
                "alternates" => rest.clone_into(&mut told.alternates),
                "option" => told.options.push(rest.to_owned()),
                "update" => {
                    if let [old, new, name] = rest.splitn(3, ' ').collect::<Vec<_>>()[..] {
                        told.updates.push(Update {
                            old: old.to_owned(),
                            new: new.to_owned(),
                            name: name.to_owned(),
                        });
                    }
                }
                _ => {}
            }
        }
        told
    }
}

/// Why a push is refused: what the hook prints, and git's one-line reason if it is the forge's own.
struct Refusal {
    text: String,
    reason: Option<String>,
}

/// Routes for the hooks.
pub(crate) fn router() -> Router<Forge> {
    Router::new().route("/_test/hook/{hook}", post(hook))
}

async fn hook(State(forge): State<Forge>, Path(hook): Path<String>, body: String) -> Response {
    let told = Told::parse(&body);
    let found = forge
        .0
        .pushes
        .lock()
        .get(&told.ticket)
        .map(|push| (push.project, push.caller.clone()));
    let found = found.and_then(|(id, caller)| {
        let project = forge.world().project_mut(id)?.clone();
        Some((project, caller))
    });
    let Some((project, caller)) = found else {
        return (StatusCode::FORBIDDEN, "no such push\n").into_response();
    };
    let done = match hook.as_str() {
        "pre-receive" => before(&forge, &told, &project, &caller).await,
        "post-receive" => after(&forge, &told, &project, &caller)
            .await
            .map(|text| (StatusCode::OK, text)),
        _ => Ok((StatusCode::NOT_FOUND, "no such hook\n".to_owned())),
    };
    match done {
        Ok(answer) => answer.into_response(),
        Err(source) => (StatusCode::INTERNAL_SERVER_ERROR, format!("test forge: {source}\n")).into_response(),
    }
}

async fn before(
    forge: &Forge,
    told: &Told,
    project: &Project,
    caller: &Caller,
) -> Result<(StatusCode, String), GitError> {
    let arriving = project.repository.with_quarantine(&told.objects, &told.alternates);
    for update in &told.updates {
        let refusal = match project.side {
            Side::Gitlab => rules::gitlab(forge, project, caller, &arriving, update).await?,
            Side::Github => rules::github(project, caller, &arriving, update).await?,
        };
        if let Some(refusal) = refusal {
            if let Some(push) = forge.0.pushes.lock().get_mut(&told.ticket) {
                push.reason = refusal.reason;
            }
            return Ok((StatusCode::FORBIDDEN, refusal.text));
        }
    }
    Ok((StatusCode::OK, String::new()))
}

async fn after(forge: &Forge, told: &Told, project: &Project, caller: &Caller) -> Result<String, GitError> {
    let mut text = String::new();
    for update in told.updates.iter().filter(|update| !update.deletes()) {
        let Some(branch) = update.branch() else {
            continue;
        };
        if let Some(project) = forge.world().project_mut(project.id) {
            change_request::touch(project);
            if update.creates() && project.branch_delay_ms > 0 {
                let until = Instant::now() + Duration::from_millis(project.branch_delay_ms);
                project.unseen.insert(branch.to_owned(), until);
            }
        }
        if !update.creates() {
            let heads = (update.old.as_str(), update.new.as_str());
            change_request::head_moved(forge, project, branch, heads, caller.user.id).await?;
        }
    }
    if project.side == Side::Gitlab && !told.options.is_empty() {
        text.push_str(&options::apply(forge, project, caller, told).await?);
    }
    for update in &told.updates {
        text.push_str(&greeting(forge, project, update));
    }
    let used = forge.0.pushes.lock().get(&told.ticket).map(|push| push.path.clone());
    if let Some(old) = used.filter(|used| project.side == Side::Gitlab && project.moved_from.contains(used)) {
        let url = format!("{}/{}.git", forge.gitlab(), project.path);
        let hint = format!("Please update your Git remote:\n\n  git remote set-url origin {url}");
        text.push_str(&format!(
            "\nProject '{old}' was moved to '{}'.\n\n{hint}\n\n",
            project.path
        ));
    }
    Ok(text)
}

/// What the forge prints after a push to a branch.
fn greeting(forge: &Forge, project: &Project, update: &Update) -> String {
    let Some(branch) = update
        .branch()
        .filter(|branch| !update.deletes() && *branch != project.default_branch)
    else {
        return String::new();
    };
    let encoded = utf8_percent_encode(branch, NON_ALPHANUMERIC).to_string();
    let project = forge.reread(project);
    let open = project.open_from(branch).next();
    match (project.side, open) {
        (Side::Gitlab, Some(one)) => {
            let url = format!("{}/{}/-/merge_requests/{}", forge.gitlab(), project.path, one.number);
            format!("\nView merge request for {branch}:\n  {url}\n\n")
        }
        (Side::Gitlab, None) => {
            let url = format!("{}/{}/-/merge_requests/new", forge.gitlab(), project.path);
            let query = format!("merge_request%5Bsource_branch%5D={encoded}");
            format!("\nTo create a merge request for {branch}, visit:\n  {url}?{query}\n\n")
        }
        (Side::Github, None) if update.creates() => {
            let url = format!("{}/{}/pull/new/{branch}", forge.github(), project.path);
            format!("\nCreate a pull request for '{branch}' on GitHub by visiting:\n     {url}\n\n")
        }
        (Side::Github, Some(_) | None) => String::new(),
    }
}
