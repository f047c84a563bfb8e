//! How a session, or a project in it, ended: one closed list of reasons, with stable words for events, metrics and logs.
//!
//! Pure values; deciding which one applies is the session's work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{BranchName, CommitId, ProjectKey};

/// Declares the closed list once: variant, stable word, result, meaning.
macro_rules! reasons {
    ($($variant:ident, $word:literal, $result:ident, $meaning:literal;)*) => {
        /// Why something ended as it did.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason {
            $(#[doc = $meaning] #[serde(rename = $word)] $variant,)*
        }
        impl Reason {
            /// Every reason, for documentation and for metrics that start at zero.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The stable word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// What the word means, for people.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// The coarse result that this reason belongs to.
            #[must_use]
            pub fn result(self) -> Outcome {
                match self { $(Self::$variant => Outcome::$result,)* }
            }
        }
    };
}

/// The coarse result; the words are those of OpenTelemetry's CI/CD conventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
// An orchestrator decides by these: there is never another one within a version of the contract.
#[schemars(extend("x-closed" = true))]
pub enum Outcome {
    /// It did what was asked.
    Success,
    /// The user's side failed: task, token, agent or repository. Trying again without a change will not help.
    Failure,
    /// Our side failed: engine, broker, forge away. Trying again may help.
    Error,
    /// A time limit ended it.
    Timeout,
    /// Somebody ended it.
    Cancellation,
}

impl Outcome {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Cancellation => "cancellation",
        }
    }
}

reasons! {
    Published, "published", Success, "Branches, and change requests where asked, are on the forge.";
    NothingToPublish, "nothing_to_publish", Success, "The agent answered and changed nothing.";
    Kept, "kept", Success, "The commits are kept on the worker as a bundle, as the task asked.";
    Suspended, "suspended", Success, "The session gave its slot back and waits for its next prompt.";
    PartlyPublished, "partly_published", Failure, "At least one project is published and at least one is not.";
    TaskRejected, "task_rejected", Failure, "The message was not a valid task.";
    UnknownAgent, "unknown_agent", Failure, "The task names an agent that this worker does not have.";
    UnknownTenant, "unknown_tenant", Failure, "The task names a tenant that this worker does not have.";
    AddressRefused, "address_refused", Failure, "The forge's address is malformed, or not one that the operator allows.";
    CredentialMissing, "credential_missing", Failure, "The task's credential names nothing on this worker.";
    CredentialRefused, "credential_refused", Failure, "The task carries a plain token, or a name outside what the operator allows.";
    TokenExpired, "token_expired", Failure, "The forge says that the token has expired.";
    TokenRevoked, "token_revoked", Failure, "The forge says that the token was revoked.";
    TokenInvalid, "token_invalid", Failure, "The forge does not know the token.";
    ScopeMissing, "scope_missing", Failure, "The token may not do what the task asks.";
    ProjectNotFound, "project_not_found", Failure, "The project does not exist or the token cannot see it.";
    ProjectArchived, "project_archived", Failure, "The project is archived: nothing can be pushed to it.";
    ProjectEmpty, "project_empty", Failure, "The repository has no commit yet.";
    ProjectUnsupported, "project_unsupported", Failure, "The project needs something that this worker does not do, such as git LFS.";
    BaseNotFound, "base_not_found", Failure, "The base branch does not exist.";
    ForgeUnavailable, "forge_unavailable", Error, "The forge did not answer, or answered with a fault of its own.";
    ForgeAnswerInvalid, "forge_answer_invalid", Error, "The forge's answer could not be understood.";
    MirrorFailed, "mirror_failed", Error, "The worker's copy of the project could not be refreshed.";
    SandboxUnavailable, "sandbox_unavailable", Error, "The container engine did not answer, or the cluster took the sandbox away.";
    ImageMissing, "image_missing", Failure, "The agent's image does not exist on this worker and could not be pulled.";
    ImageRefused, "image_refused", Failure, "The agent's image is not one that the operator allows.";
    RuntimeMissing, "runtime_missing", Failure, "The container engine does not have the runtime that is asked for; nothing weaker is used.";
    EgressRefused, "egress_refused", Failure, "The task asks for a way out that the operator does not allow.";
    MixedVisibility, "mixed_visibility", Failure, "The session would mix public and private projects, and nobody allowed that.";
    SetUpFailed, "set_up_failed", Failure, "The set-up script failed, or left a secret in the workspace.";
    SandboxFailed, "sandbox_failed", Error, "The sandbox did not start, or ended by itself.";
    OutOfMemory, "out_of_memory", Failure, "The sandbox used more memory than its limit.";
    DiskFull, "disk_full", Failure, "The session filled the space that its workspace may take.";
    CloneFailed, "clone_failed", Error, "Cloning inside the sandbox failed.";
    AgentFailed, "agent_failed", Failure, "The agent ended or answered with an error.";
    AgentUnauthenticated, "agent_unauthenticated", Failure, "The agent says that it has no valid key for its model.";
    PullTimeout, "pull_timeout", Timeout, "The image was not pulled within its time limit.";
    CloneTimeout, "clone_timeout", Timeout, "Mirroring and cloning the projects reached their time limit.";
    SetUpTimeout, "set_up_timeout", Timeout, "The set-up script reached its time limit.";
    StartTimeout, "start_timeout", Timeout, "The agent did not answer within its time after its start.";
    AgentStalled, "agent_stalled", Timeout, "The agent gave no sign of life for the idle limit.";
    BudgetSpent, "budget_spent", Failure, "The session used the model tokens that it was allowed.";
    TurnTimeout, "turn_timeout", Timeout, "The turn reached its time limit.";
    SessionTimeout, "session_timeout", Timeout, "The session reached its time limit.";
    PushRejected, "push_rejected", Failure, "The forge refused the branch.";
    SecretFound, "secret_found", Failure, "The work holds something that looks like a credential; it was not published.";
    ReviewNeeded, "review_needed", Failure, "The work changes what runs on its own, such as CI files, or could not be searched for secrets whole, and nobody released it.";
    BranchMoved, "branch_moved", Failure, "Somebody else pushed to the session's branch.";
    ChangeRequestFailed, "change_request_failed", Failure, "The branch is on the forge, the change request could not be opened.";
    Disconnected, "disconnected", Cancellation, "A control message dropped the connection of the project.";
    Cancelled, "cancelled", Cancellation, "A control message ended the session.";
    Abandoned, "abandoned", Error, "Its workers died one after another; the task is in the dead-letter queue.";
    WorkerStopped, "worker_stopped", Cancellation, "The worker was stopped.";
    Internal, "internal", Error, "The worker failed in a way that is a bug.";
}

/// How one project ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectOutcome {
    /// Which project.
    pub project: ProjectKey,
    /// How it ended.
    pub reason: Reason,
    /// One sentence for the user.
    pub message: String,
    /// The session's branch, where commits exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    /// The last commit of the branch, as the forge confirmed it where the reason is `published`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<CommitId>,
    /// The change request, where one was opened or updated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_request: Option<ChangeRequestRef>,
    /// The name of the bundle under the worker's `kept/` that holds commits which are not on the forge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// The commits as a patch for `git am`, where the token may not push and the patch has at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
}

/// A change request as events and outcomes name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeRequestRef {
    /// "merge request" or "pull request".
    pub word: String,
    /// Its number on the project.
    pub number: u64,
    /// Where a person looks at it.
    pub url: String,
    /// Whether it is a draft.
    pub draft: bool,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionOutcome {
    /// The coarse result.
    pub result: Outcome,
    /// The reason.
    pub reason: Reason,
    /// One sentence that says what happened and, where something is wrong, what to do.
    pub message: String,
    /// One entry per project of the grant.
    pub projects: Vec<ProjectOutcome>,
    /// The agent's last answer, cut to 16 KiB.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
    /// The session's duration in milliseconds.
    pub duration_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_every_reason_under_its_result() {
        let readme = include_str!("../../README.md");
        for reason in Reason::ALL {
            let row = format!("| `{}` |", reason.result().as_str());
            let listed = readme
                .lines()
                .any(|line| line.starts_with(&row) && line.contains(&format!("`{}`", reason.as_str())));
            assert!(
                listed,
                "README.md does not list {} under {}",
                reason.as_str(),
                reason.result().as_str()
            );
        }
    }

    #[test]
    fn words_are_unique_and_serialise_as_themselves() {
        let words: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
