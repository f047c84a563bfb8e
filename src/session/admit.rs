//! The first step: what each token is and may do, what each project is, and from that the grant. Missing things are named now.
//!
//! Nothing is started before this has succeeded for every connection and every project.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::try_join_all;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::connections::{Connected, Connection, Connections};
use super::credential::Asked;
use super::failure::Failure;
use super::{Rooms, directories, expiry, identity, visibility};
use crate::forge::{ProjectFacts, Visibility};
use crate::grant::{Egress, Identity, ProjectGrant, SessionLimits, Trailers, branch};
use crate::message::task::{ConnectionRequest, Credential, Limits, ProjectRequest};
use crate::message::{
    BranchName, Capabilities, ConnectionName, EventBody, ForgeKind, ProjectKey, Publish, Reason, Right, Task,
};
use crate::progress::Progress;
use crate::repository::Shown;
use crate::secret::Secret;

/// One project that may be worked on.
pub(super) struct Admitted {
    pub(super) grant: ProjectGrant,
    pub(super) facts: ProjectFacts,
    pub(super) connection: Arc<Connection>,
    /// Whether git alone told of it: then the facts hold no id that the API knows.
    pub(super) by_git: bool,
    /// Why its commits cannot be pushed, where that is known.
    pub(super) cannot_push: Option<String>,
    /// What the forge shows of it, asked when it was looked up; taken by the first refresh.
    pub(super) shown: Option<AbortOnDropHandle<Option<Shown>>>,
}

/// The secrets of a task, looked up where the operator allows; also what the session's events are masked with.
///
/// # Errors
/// The first credential that is refused or missing.
pub fn credentials(rooms: &Rooms, task: &Task) -> Result<BTreeMap<ConnectionName, Secret>, Failure> {
    task.connections
        .iter()
        .map(|(name, connection)| {
            let asked = Asked::of(Some(task.session), connection);
            Ok((name.clone(), (rooms.credentials)(&connection.credential, &asked)?))
        })
        .collect()
}

/// Why a task is refused for a token in clear. To be asked before its session is claimed: a claim lays the whole task down at the broker once
/// more, for the worker that may have to go on with it.
#[must_use]
pub fn in_clear(rooms: &Rooms, task: &Task) -> Option<Failure> {
    let clear = |connection: &&ConnectionRequest| matches!(connection.credential, Credential::Plain(_));
    let refused = task.connections.values().filter(clear).find_map(|connection| {
        let asked = Asked::of(Some(task.session), connection);
        (rooms.credentials)(&connection.credential, &asked).err()
    });
    refused.map(Failure::from)
}

/// Asks the forges and decides.
pub(super) async fn admit(
    rooms: &Rooms,
    task: &Task,
    secrets: BTreeMap<ConnectionName, Secret>,
    connections: &Connections,
    progress: &Progress,
) -> Result<Vec<Admitted>, Failure> {
    // Only connections that a project uses are asked: an unused one cannot fail the session.
    let used = task
        .connections
        .iter()
        .filter(|(name, _)| task.projects.iter().any(|project| project.connection == **name));
    let asked = used.map(|(name, request)| {
        let secret = secrets.get(name);
        async move {
            let secret =
                secret.ok_or_else(|| Failure::new(Reason::CredentialMissing, format!("no credential for {name}")))?;
            Ok::<_, Failure>((name, Connected::ask(rooms, task, request, secret).await?))
        }
    });
    for (name, connected) in try_join_all(asked).await? {
        for event in told(rooms, task, name, &connected) {
            progress.state(event).await;
        }
        let request = task.connections.get(name).cloned();
        let request = request.ok_or_else(|| Failure::new(Reason::Internal, "a connection without a request"))?;
        connections.open(name, request, connected);
    }
    drop(secrets);
    let directories = directories::of(task);
    let looked_up = task
        .projects
        .iter()
        .zip(directories)
        .map(|(request, directory)| async move {
            let connection = connections
                .get(&request.connection)
                .ok_or_else(|| Failure::new(Reason::Internal, "a project without a connection"))?;
            project(rooms, task, request, directory, connection).await
        });
    let admitted = try_join_all(looked_up).await?;
    let seen: Vec<_> = admitted.iter().map(Admitted::seen).collect();
    let mixed = mixed(rooms, task, &seen)?;
    let missing = admitted.iter().filter_map(Admitted::missing);
    for event in mixed.into_iter().chain(missing) {
        progress.state(event).await;
    }
    Ok(admitted)
}

impl Admitted {
    /// What the forge says of who sees it.
    pub(super) fn seen(&self) -> (&ProjectKey, Visibility) {
        (&self.grant.key, self.facts.visibility)
    }

    /// The warning of what will be missing at the end.
    pub(super) fn missing(&self) -> Option<EventBody> {
        let message = self.cannot_push.clone()?;
        let code = Reason::ScopeMissing.as_str().to_owned();
        Some(EventBody::Warning { code, message })
    }
}

/// What is told of a connection that the forge answered for.
pub(super) fn told(rooms: &Rooms, task: &Task, name: &ConnectionName, connected: &Connected) -> Vec<EventBody> {
    let ends = expiry::warning(name, &connected.facts, limits(rooms, task).session);
    let ends = ends.map(|message| EventBody::Warning {
        code: "token_expires".to_owned(),
        message,
    });
    [connected.told(name)].into_iter().chain(ends).collect()
}

/// A session over a public and another project could carry what it reads in the one into the other. Where that is allowed it is told.
pub(super) fn mixed(
    rooms: &Rooms,
    task: &Task,
    seen: &[(&ProjectKey, Visibility)],
) -> Result<Option<EventBody>, Failure> {
    let Some(mix) = visibility::mix(seen) else {
        return Ok(None);
    };
    visibility::allow(rooms.config.mixed_visibility, task.mixed_visibility, &mix)
        .map_err(|sentence| Failure::new(Reason::MixedVisibility, sentence))?;
    let code = Reason::MixedVisibility.as_str().to_owned();
    Ok(Some(EventBody::Warning { code, message: mix }))
}

/// Looks one project up and says what the session may do there.
pub(super) async fn project(
    rooms: &Rooms,
    task: &Task,
    request: &ProjectRequest,
    directory: String,
    connection: Arc<Connection>,
) -> Result<Admitted, Failure> {
    let key = request.key();
    let connected = connection.current()?;
    let git_only = connected.is_git_only();
    let (facts, shown) = if git_only {
        (by_git(rooms, request, &connected).await?, None)
    } else {
        // A forge may be far away: its API and its git are asked at once, at the address that the project has unless it was renamed. Only the
        // refresh waits for the second answer, in its own time.
        let address = format!("{}/{}.git", connected.forge.instance(), request.path);
        let (repositories, access) = (rooms.repositories.clone(), connected.access.clone());
        let asking = tokio::spawn(async move { repositories.shown(&address, &access).await }.in_current_span());
        let asking = AbortOnDropHandle::new(asking);
        (connected.forge.project(&request.path).await?, Some(asking))
    };
    let Some(default_branch) = facts.default_branch.clone() else {
        let message = format!("{key} has no commit yet: push a first one, then send the task again");
        return Err(Failure::new(Reason::ProjectEmpty, message));
    };
    if facts.archived {
        let message = format!("{key} is archived: unarchive it, then send the task again");
        return Err(Failure::new(Reason::ProjectArchived, message));
    }
    let mut capabilities = connected.facts.capabilities;
    if capabilities == Capabilities::UNPROVEN {
        // Its rights are not in scopes: reading proves some of them.
        capabilities = connected.forge.probe(&facts).await;
    }
    if !facts.may_push {
        capabilities.push_branches = Right::No;
    }
    let cannot_push = cannot_push(task.publish, &key, capabilities, &connected);
    // A branch that collides with others is renamed once the forge's branches are known.
    let provisional = branch::branch_name(
        &rooms.config.branch,
        task.session,
        &title(task),
        &std::collections::BTreeSet::new(),
    )?;
    let grant = ProjectGrant {
        key,
        forge: connected.forge.kind(),
        connection: request.connection.clone(),
        id: facts.id.clone(),
        instance: connected.forge.instance().to_owned(),
        clone_url: facts.clone_url.clone(),
        web_url: facts.web_url.clone(),
        base: request.base.clone().unwrap_or_else(|| default_branch.clone()),
        default_branch,
        branch: provisional,
        directory,
        identity: connected.identity.clone(),
        capabilities,
    };
    Ok(Admitted {
        grant,
        facts,
        connection,
        by_git: git_only,
        cannot_push,
        shown,
    })
}

/// A project as git shows it, for a token that the API is closed to.
async fn by_git(rooms: &Rooms, request: &ProjectRequest, connected: &Connected) -> Result<ProjectFacts, Failure> {
    let web_url = format!("{}/{}", connected.forge.instance(), request.path);
    let clone_url = format!("{web_url}.git");
    let default_branch = rooms.repositories.default_branch(&clone_url, &connected.access).await?;
    Ok(ProjectFacts {
        // Not the forge's id, which only the API tells: a mirror of its own.
        id: format!("path:{}", request.path.as_str().to_lowercase()),
        path: request.path.clone(),
        default_branch,
        clone_url,
        web_url,
        may_push: true,
        archived: false,
        // git does not tell.
        visibility: Visibility::Private,
    })
}

/// Says at the start what will be missing at the end. The session goes on all the same: the agent may inspect and answer, and commits are kept.
fn cannot_push(publish: Publish, key: &ProjectKey, may: Capabilities, connected: &Connected) -> Option<String> {
    let wanted = match publish {
        Publish::OnRequest => return None,
        Publish::Branch | Publish::ChangeRequest | Publish::Draft => may.push_branches.is_refused(),
    };
    let scopes = if connected.facts.scopes.is_empty() {
        "unknown".to_owned()
    } else {
        connected.facts.scopes.join(", ")
    };
    let needs = if connected.facts.capabilities.push_branches.is_refused() {
        match connected.forge.kind() {
            ForgeKind::Gitlab => "a token with the scope api, or write_repository,",
            ForgeKind::Github => "a token with the scope repo, or with write access to contents and pull requests,",
        }
    } else {
        "a user with the right to push"
    };
    wanted.then(|| {
        format!(
            "the token for {key} may not push branches (its scopes: {scopes}; its user: {}): commits will be kept and not published; {needs} is needed",
            connected.facts.account
        )
    })
}

/// The trailers of each project: the task's user where it names one, else the token's own on that project's forge, and the agent.
pub(super) fn trailers(task: &Task, projects: &[Admitted], agent: &Identity) -> BTreeMap<ProjectKey, Trailers> {
    let of = |grant: &ProjectGrant| (grant.key.clone(), trailers_of(task, grant, agent));
    projects.iter().map(|project| of(&project.grant)).collect()
}

/// The same of one project.
pub(super) fn trailers_of(task: &Task, grant: &ProjectGrant, agent: &Identity) -> Trailers {
    let given = task
        .user
        .as_ref()
        .and_then(|user| identity::make(&user.name, &user.email));
    Trailers::new(given.as_ref().unwrap_or(&grant.identity), agent, task.session)
}

/// The session's title: the task's, else the first line of its prompt.
pub(super) fn title(task: &Task) -> String {
    title_of(task, &task.prompt, 1)
}

/// What a turn's own commit is called: its prompt's first line, or the task's title for the first turn.
pub(super) fn title_of(task: &Task, prompt: &str, turn: u32) -> String {
    let first_line = || {
        prompt
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or("work")
    };
    task.title
        .as_deref()
        .map(str::trim)
        .filter(|title| !title.is_empty() && turn == 1)
        .unwrap_or_else(first_line)
        .chars()
        .take(120)
        .collect()
}

/// Operator's limits, lowered by the task's.
pub(super) fn limits(rooms: &Rooms, task: &Task) -> SessionLimits {
    SessionLimits {
        session: Limits::lower(rooms.config.session_limit(), task.limits.session_s),
        turn: Limits::lower(rooms.config.turn_limit(), task.limits.turn_s),
        idle: Limits::lower(rooms.config.idle_limit(), task.limits.idle_s),
    }
}

/// The way out that the task asks for, where the operator allows it.
pub(super) fn egress(rooms: &Rooms, task: &Task) -> Result<Egress, Failure> {
    let granted = rooms.egress.grant(task.egress.as_ref());
    granted.map_err(|error| Failure::new(Reason::EgressRefused, error.to_string()))
}

/// The branches that a forge showed, by name.
pub(super) fn branch_names(refs: &[crate::grant::ShownRef]) -> std::collections::BTreeSet<String> {
    refs.iter()
        .filter_map(|shown| shown.name.strip_prefix("refs/heads/"))
        .map(str::to_owned)
        .collect()
}

/// The session's branch on a project whose branches are known.
pub(super) fn final_branch(rooms: &Rooms, task: &Task, refs: &[crate::grant::ShownRef]) -> Result<BranchName, Failure> {
    let (pattern, existing) = (&rooms.config.branch, branch_names(refs));
    // A session that goes on has another prompt, and so another title than the one that its branch was called by.
    if task.resume.is_some()
        && let Some(begun) = branch::begun(pattern, task.session, &existing)
    {
        return Ok(begun);
    }
    Ok(branch::branch_name(pattern, task.session, &title(task), &existing)?)
}
