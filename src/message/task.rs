//! The task: the message that asks for a session. `version: 1`.
//!
//! Parsing is the only way to make one: it bounds sizes, refuses unknown fields by name and checks what the fields say of each other.
//! Never reads a credential: a task only says where the worker finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::egress::{EgressError, EgressRequest};
use super::id::{AgentName, BranchName, ConnectionName, ProjectKey, ProjectPath, SessionId, TenantName};
use super::resume::Resume;
use super::{redact, tree};

pub use super::connection::{ConnectionRequest, Credential, ForgeKind};

/// Largest task body that is read, in bytes.
pub const LARGEST_TASK: usize = 1024 * 1024;
/// Longest prompt, in bytes.
pub const LONGEST_PROMPT: usize = 256 * 1024;
/// Most projects in one session.
pub const MOST_PROJECTS: usize = 32;

/// Asks for one session: a prompt to an agent over some projects.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The version of this contract; 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// The session's id, chosen by the orchestrator. Sending the same id again is a duplicate, not a second session.
    pub session: SessionId,
    /// What the user asks the agent to do.
    #[schemars(length(min = 1, max = LONGEST_PROMPT))]
    pub prompt: String,
    /// The projects to clone, 1 to 32.
    #[schemars(length(max = MOST_PROJECTS))]
    pub projects: Vec<ProjectRequest>,
    /// Forge instances with the user's credential for each, by a name that the projects use.
    pub connections: BTreeMap<ConnectionName, ConnectionRequest>,
    /// Who asked. Needed where a token cannot tell whose it is; otherwise the token's own user is the author of commits.
    #[serde(default)]
    pub user: Option<User>,
    /// Which configured agent; the configuration's default when absent.
    #[serde(default)]
    pub agent: Option<AgentName>,
    /// On whose behalf. Chooses the walls that the operator set for that tenant, never weaker ones; refused where the operator lists tenants and
    /// this is none of them.
    #[serde(default)]
    pub tenant: Option<TenantName>,
    /// A short title for branch and change request; made from the prompt when absent.
    #[serde(default)]
    pub title: Option<String>,
    /// What to leave behind on the forge.
    #[serde(default)]
    pub publish: Publish,
    /// What to do with changes that the agent left uncommitted at the end of a turn.
    #[serde(default)]
    pub uncommitted: Uncommitted,
    /// Whether the agent may reply to discussions of change requests and comment on issues, in the name of the token's user. What it says
    /// is told as an event.
    #[serde(default)]
    pub comment: bool,
    /// Whether public and other projects may be in this session together, where the operator lets tasks decide.
    #[serde(default)]
    pub mixed_visibility: bool,
    /// Limits below the operator's own.
    #[serde(default)]
    pub limits: Limits,
    /// How far the sandbox reaches beyond the gateway's own routes; the operator's default when absent, and never more than the operator allows.
    #[serde(default)]
    pub egress: Option<EgressRequest>,
    /// How long the session waits for another prompt after a turn, in seconds, at most as long as the operator allows; then it is suspended. When
    /// absent or 0 the session ends after its turn, and after the prompts that came meanwhile.
    #[serde(default)]
    pub idle_timeout_s: Option<u64>,
    /// Goes on with a session that was suspended: what its `suspended` event gave, unchanged.
    #[serde(default)]
    pub resume: Option<Resume>,
    /// Extra environment of the agent. Not for secrets: everything in the sandbox is readable by the agent.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Those of its projects that were added while the session ran, in their order. Never in a body: `resume` and a former owner tell.
    #[serde(skip)]
    pub added: Vec<ProjectRequest>,
}

/// A project to work on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectRequest {
    /// Which of the task's connections.
    pub connection: ConnectionName,
    /// `group/project` or `owner/repository`.
    pub path: ProjectPath,
    /// The branch to start from and to merge into; the project's default branch when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BranchName>,
}

impl ProjectRequest {
    /// Whether both name one project: forges compare paths without regard to case, so two spellings are one.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.connection == other.connection && self.path.as_str().eq_ignore_ascii_case(other.path.as_str())
    }

    /// The key that names this project in events and outcomes.
    #[must_use]
    pub fn key(&self) -> ProjectKey {
        ProjectKey {
            connection: self.connection.clone(),
            path: self.path.clone(),
        }
    }
}

/// The person who asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Name as it stands in commits.
    pub name: String,
    /// E-mail address as it stands in commits.
    pub email: String,
}

/// What a session leaves on the forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Publish {
    /// Branch and change request.
    #[default]
    ChangeRequest,
    /// Branch and a draft change request.
    Draft,
    /// The branch alone.
    Branch,
    /// Nothing: the commits are kept on the worker as a bundle and named in the outcome.
    OnRequest,
}

/// What happens to changes that the agent did not commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Uncommitted {
    /// Committed at the end of the turn, with a message from the agent's own summary.
    #[default]
    Commit,
    /// Left behind in the sandbox and removed with it.
    Discard,
}

/// Limits that a task may lower, never raise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The whole session, in seconds.
    #[serde(default)]
    pub session_s: Option<u64>,
    /// One turn, in seconds.
    #[serde(default)]
    pub turn_s: Option<u64>,
    /// Time without any sign of life from the agent, in seconds.
    #[serde(default)]
    pub idle_s: Option<u64>,
    /// Tokens of the agent's model, read and written together.
    #[serde(default)]
    pub model_tokens: Option<u64>,
}

impl Limits {
    /// The lower of the operator's limit and the task's.
    #[must_use]
    pub fn lower(operator: Duration, task: Option<u64>) -> Duration {
        task.map_or(operator, |seconds| operator.min(Duration::from_secs(seconds)))
    }
}

/// Why a body is not a task. Each variant has a stable code and a sentence for the sender.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Larger than `LARGEST_TASK`.
    #[error("the task is {size} bytes, the limit is {LARGEST_TASK}: send a shorter prompt")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// Not JSON at all.
    #[error("the body is not JSON: {detail}")]
    NotJson {
        /// The parser's words.
        detail: String,
    },
    /// A version that this worker does not know.
    #[error("task version {found} is not known here: this worker reads version 1")]
    UnknownVersion {
        /// The number that stood in `version`; in words, where it was none.
        found: String,
    },
    /// A field that is unknown, missing or of the wrong form.
    #[error("at {path}: {detail}")]
    BadField {
        /// Where in the document.
        path: String,
        /// What is wrong there.
        detail: String,
    },
    /// The session id is not a UUID.
    #[error("the session id is not a UUID: send one such as 0190c2f0-7c1e-7000-8000-000000000001")]
    BadSession,
    /// The task names no project.
    #[error("the task names no project: list at least one in \"projects\"")]
    NoProject,
    /// More than `MOST_PROJECTS`.
    #[error("the task names {count} projects, the limit is {MOST_PROJECTS}")]
    TooManyProjects {
        /// How many it names.
        count: usize,
    },
    /// The same project twice.
    #[error("the project {project} is listed twice: list it once")]
    DuplicateProject {
        /// Which one.
        project: ProjectKey,
    },
    /// A project names a connection that the task does not have.
    #[error("the project {} uses the connection {:?}, which the task does not define", project.path, redact::shown(project.connection.as_str()))]
    UnknownConnection {
        /// Which project.
        project: ProjectKey,
    },
    /// The way out that is asked for contradicts itself.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// No prompt.
    #[error("the prompt is empty: say what the agent should do")]
    EmptyPrompt,
}

impl TaskError {
    /// The stable code in events.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "task_too_large",
            Self::NotJson { .. } => "not_json",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::BadField { .. } => "bad_field",
            Self::BadSession => "bad_session_id",
            Self::NoProject => "no_project",
            Self::TooManyProjects { .. } => "too_many_projects",
            Self::DuplicateProject { .. } => "duplicate_project",
            Self::UnknownConnection { .. } => "unknown_connection",
            Self::Egress(error) => error.code(),
            Self::EmptyPrompt => "empty_prompt",
        }
    }
}

impl Task {
    /// Reads a task from a message body.
    ///
    /// # Errors
    /// A `TaskError` that says what the sender must change.
    pub fn parse(body: &[u8]) -> Result<Self, TaskError> {
        if body.len() > LARGEST_TASK {
            return Err(TaskError::TooLarge { size: body.len() });
        }
        // The words of this parser repeat nothing of the body.
        let value = tree::parse(body).map_err(|error| TaskError::NotJson {
            detail: error.to_string(),
        })?;
        match value.get("version") {
            Some(version) if version.as_u64() == Some(1) => {}
            Some(other) => {
                let number = other.as_u64().filter(|number| *number < 10_000);
                return Err(TaskError::UnknownVersion {
                    found: number.map_or_else(|| "of another form".to_owned(), |number| number.to_string()),
                });
            }
            None => {
                return Err(TaskError::BadField {
                    path: "version".into(),
                    detail: "missing field `version`".into(),
                });
            }
        }
        if let Some(session) = value.get("session")
            && session.as_str().is_none_or(|text| text.parse::<SessionId>().is_err())
        {
            return Err(TaskError::BadSession);
        }
        let mut task: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            let (path, detail) = redact::told(&error.path().to_string(), &error.inner().to_string());
            TaskError::BadField { path, detail }
        })?;
        task.join_added();
        task.check()?;
        Ok(task)
    }

    /// The projects that were added while the session ran are its projects like the others when it goes on; whoever lists them himself may.
    fn join_added(&mut self) {
        let added = self.resume.iter().flat_map(|resume| &resume.added);
        self.join(added.take(MOST_PROJECTS + 1).cloned().collect());
    }

    /// Beside those that it has.
    pub(super) fn join(&mut self, added: Vec<ProjectRequest>) {
        for project in added {
            if !self.projects.iter().any(|one| one.is_same(&project)) {
                self.projects.push(project.clone());
            }
            if !self.added.iter().any(|one| one.is_same(&project)) {
                self.added.push(project);
            }
        }
    }

    /// The session id in a body that is otherwise no task, so that a refusal can name the session it belongs to.
    #[must_use]
    pub fn session_of(body: &[u8]) -> Option<SessionId> {
        if body.len() > LARGEST_TASK {
            return None;
        }
        let value: serde_json::Value = serde_json::from_slice(body).ok()?;
        value.get("session")?.as_str()?.parse().ok()
    }

    pub(super) fn check(&self) -> Result<(), TaskError> {
        let bad = |path: &str, detail: &str| {
            Err(TaskError::BadField {
                path: path.into(),
                detail: detail.into(),
            })
        };
        if self.prompt.trim().is_empty() {
            return Err(TaskError::EmptyPrompt);
        }
        if self.prompt.len() > LONGEST_PROMPT {
            return bad("prompt", "longer than 256 KiB");
        }
        if self.title.as_ref().is_some_and(|title| title.len() > 500) {
            return bad("title", "longer than 500 bytes");
        }
        if self.projects.is_empty() {
            return Err(TaskError::NoProject);
        }
        if self.projects.len() > MOST_PROJECTS {
            return Err(TaskError::TooManyProjects {
                count: self.projects.len(),
            });
        }
        let mut seen = BTreeSet::new();
        for project in &self.projects {
            if !self.connections.contains_key(&project.connection) {
                return Err(TaskError::UnknownConnection { project: project.key() });
            }
            if !seen.insert((project.connection.clone(), project.path.as_str().to_lowercase())) {
                return Err(TaskError::DuplicateProject { project: project.key() });
            }
        }
        if let Some(user) = &self.user {
            check_user(user)?;
        }
        if let Some(wrong) = self
            .connections
            .values()
            .find_map(|connection| connection.check().err())
        {
            return bad("connections.ca", wrong);
        }
        if let Some(egress) = &self.egress {
            egress.check()?;
        }
        if let Some(Err(wrong)) = self.resume.as_ref().map(Resume::check) {
            return bad("resume", wrong);
        }
        for (name, value) in &self.environment {
            let well_formed = !name.is_empty()
                && name.len() <= 128
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !well_formed {
                return bad(
                    "environment",
                    "names are letters, digits and '_', not beginning with a digit",
                );
            }
            if value.len() > 32 * 1024 || value.contains('\0') {
                return bad("environment", "values are at most 32 KiB and hold no NUL");
            }
        }
        Ok(())
    }
}

/// A name or address that would break a commit header or a trailer is refused, not repaired.
fn check_user(user: &User) -> Result<(), TaskError> {
    let bad = |path: &str, detail: &str| {
        Err(TaskError::BadField {
            path: path.into(),
            detail: detail.into(),
        })
    };
    let breaks = |text: &str| text.chars().any(|c| c.is_control() || matches!(c, '<' | '>'));
    if user.name.trim().is_empty() || user.name.len() > 200 || breaks(&user.name) {
        return bad("user.name", "1 to 200 bytes without '<', '>' or control characters");
    }
    if !user.email.contains('@') || user.email.len() > 254 || breaks(&user.email) || user.email.contains(' ') {
        return bad("user.email", "an e-mail address");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> serde_json::Value {
        json!({
            "version": 1,
            "session": "0190c2f0-7c1e-7000-8000-000000000001",
            "prompt": "Add a greeting",
            "projects": [{"connection": "work", "path": "platform/greeter"}],
            "connections": {"work": {"forge": "gitlab", "url": "https://gitlab.example", "credential": {"env": "COFFERDAM_TOKEN_A"}}}
        })
    }

    fn code(value: &serde_json::Value) -> &'static str {
        Task::parse(value.to_string().as_bytes())
            .map(|_| "accepted")
            .unwrap_or_else(|error| error.code())
    }

    #[test]
    fn a_plain_task_is_read() {
        let task = Task::parse(sample().to_string().as_bytes()).unwrap();
        assert_eq!(task.publish, Publish::ChangeRequest);
        assert!(!task.comment, "nobody speaks in a user's name unasked");
        assert_eq!(task.projects[0].key().to_string(), "work:platform/greeter");
    }

    #[test]
    fn every_bad_input_has_its_own_code() {
        let with = |path: &str, value: serde_json::Value| {
            let mut task = sample();
            *task.pointer_mut(path).unwrap() = value;
            task
        };
        assert_eq!(Task::parse(b"{nope").unwrap_err().code(), "not_json");
        assert_eq!(code(&with("/version", json!(2))), "unknown_version");
        assert_eq!(code(&with("/version", json!("1"))), "unknown_version");
        assert_eq!(code(&with("/session", json!("abc"))), "bad_session_id");
        assert_eq!(code(&with("/projects", json!([]))), "no_project");
        assert_eq!(code(&with("/prompt", json!("  "))), "empty_prompt");
        let project = json!({"connection": "work", "path": "platform/greeter"});
        let other_case = json!({"connection": "work", "path": "Platform/Greeter"});
        assert_eq!(
            code(&with("/projects", json!([project, other_case]))),
            "duplicate_project"
        );
        assert_eq!(
            code(&with("/projects/0/connection", json!("home"))),
            "unknown_connection"
        );
        assert_eq!(code(&with("/projects/0/path", json!("../etc"))), "bad_field");
        let mut unknown = sample();
        unknown["projekts"] = json!([]);
        let error = Task::parse(unknown.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("projekts"), "{error}");
        let many: Vec<_> = (0..33)
            .map(|n| json!({"connection": "work", "path": format!("a/p{n}")}))
            .collect();
        assert_eq!(code(&with("/projects", json!(many))), "too_many_projects");
        assert_eq!(
            Task::parse(&vec![b' '; LARGEST_TASK + 1]).unwrap_err().code(),
            "task_too_large"
        );
    }

    #[test]
    fn a_plain_token_never_shows_in_debug() {
        let mut task = sample();
        task["connections"]["work"]["credential"] = json!({"plain": "glpat-canary-0001"});
        let parsed = Task::parse(task.to_string().as_bytes()).unwrap();
        assert!(!format!("{parsed:?}").contains("canary"));
    }

    #[test]
    fn a_misplaced_token_is_not_repeated() {
        for credential in [
            json!("canary-0001"),
            json!({"plian": "canary-0001"}),
            json!({"canary-0001": "x"}),
            json!({"file": {"canary-0001": 1}}),
        ] {
            let mut task = sample();
            task["connections"]["work"]["credential"] = credential;
            let error = Task::parse(task.to_string().as_bytes()).unwrap_err();
            assert_eq!(error.code(), "bad_field");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_user_cannot_break_a_trailer() {
        let mut task = sample();
        task["user"] = json!({"name": "A\nCofferdam-Session: x", "email": "a@b"});
        assert_eq!(code(&task), "bad_field");
    }

    #[test]
    fn the_session_of_a_broken_task_is_still_found() {
        let id = "0190c2f0-7c1e-7000-8000-000000000001";
        let body = format!("{{\"session\":\"{id}\",\"version\":9}}");
        assert_eq!(Task::session_of(body.as_bytes()).unwrap().to_string(), id);
    }
}
