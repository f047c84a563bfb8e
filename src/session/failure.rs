//! From any room's error to the reason and the sentence that users are told: one exhaustive match per room. Pure.

use crate::agent::AgentError;
use crate::forge::ForgeError;
use crate::gateway::GatewayError;
use crate::grant::branch::BranchError;
use crate::message::Reason;
use crate::repository::RepositoryError;
use crate::sandbox::SandboxError;
use crate::session::credential::CredentialError;

/// Why a session or a project in it could not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub reason: Reason,
    /// One sentence that says what to do.
    pub message: String,
    /// Whether the engine itself is away or full, and not only this session's sandbox: then others need not try.
    pub is_engine_away: bool,
}

impl Failure {
    /// A failure in our own words.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            is_engine_away: false,
        }
    }

    /// The engine went away and took the sandbox with it.
    pub(super) fn engine_away(message: String) -> Self {
        Self {
            is_engine_away: true,
            ..Self::new(Reason::SandboxUnavailable, message)
        }
    }
}

impl From<CredentialError> for Failure {
    fn from(error: CredentialError) -> Self {
        let reason = match &error {
            CredentialError::Refused { .. } | CredentialError::Sealed { .. } | CredentialError::Identity { .. } => {
                Reason::CredentialRefused
            }
            CredentialError::Missing { .. } => Reason::CredentialMissing,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<ForgeError> for Failure {
    fn from(error: ForgeError) -> Self {
        let reason = match &error {
            ForgeError::Address { .. } | ForgeError::Certificates { .. } => Reason::AddressRefused,
            ForgeError::TokenInvalid { .. } => Reason::TokenInvalid,
            ForgeError::TokenExpired { .. } => Reason::TokenExpired,
            ForgeError::TokenRevoked { .. } => Reason::TokenRevoked,
            ForgeError::ScopeMissing { .. } => Reason::ScopeMissing,
            ForgeError::NotFound { .. } => Reason::ProjectNotFound,
            ForgeError::Refused { .. } => Reason::ChangeRequestFailed,
            ForgeError::RateLimited { .. } | ForgeError::Unavailable { .. } => Reason::ForgeUnavailable,
            ForgeError::Answer { .. } => Reason::ForgeAnswerInvalid,
            ForgeError::Setup { .. } => Reason::Internal,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        let reason = match &error {
            SandboxError::Connect { .. }
            | SandboxError::ClusterAway { .. }
            | SandboxError::Quota { .. }
            | SandboxError::Unplaced { .. }
            | SandboxError::Taken { .. } => Reason::SandboxUnavailable,
            SandboxError::Full { .. } => Reason::DiskFull,
            SandboxError::ImageMissing { .. } | SandboxError::PullImage { .. } => Reason::ImageMissing,
            SandboxError::PullTimeout { .. } => Reason::PullTimeout,
            SandboxError::ImageRefused { .. } => Reason::ImageRefused,
            SandboxError::RuntimeMissing { .. } => Reason::RuntimeMissing,
            SandboxError::Create { .. }
            | SandboxError::Start { .. }
            | SandboxError::Wait { .. }
            | SandboxError::Remove { .. }
            | SandboxError::Forbidden { .. }
            | SandboxError::NetworkOpen { .. }
            | SandboxError::Prepare { .. } => Reason::SandboxFailed,
        };
        let is_engine_away = matches!(
            error,
            SandboxError::Connect { .. }
                | SandboxError::ClusterAway { .. }
                | SandboxError::Quota { .. }
                | SandboxError::Unplaced { .. }
        );
        Self {
            is_engine_away,
            ..Self::new(reason, error.to_string())
        }
    }
}

impl From<GatewayError> for Failure {
    fn from(error: GatewayError) -> Self {
        let reason = match &error {
            GatewayError::Bind { .. }
            | GatewayError::Hello { .. }
            | GatewayError::Gone
            | GatewayError::Refused { .. }
            | GatewayError::Unanswered { .. } => Reason::SandboxFailed,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        let reason = match &error {
            AgentError::Unauthenticated { .. } => Reason::AgentUnauthenticated,
            AgentError::StartTimeout { .. } => Reason::StartTimeout,
            AgentError::PromptTooLong { .. }
            | AgentError::Answered { .. }
            | AgentError::Ended { .. }
            | AgentError::Protocol { .. } => Reason::AgentFailed,
            AgentError::Cancelled => Reason::Cancelled,
            AgentError::TurnTimeout { .. } => Reason::TurnTimeout,
            AgentError::Stalled { .. } => Reason::AgentStalled,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<BranchError> for Failure {
    fn from(error: BranchError) -> Self {
        let reason = match &error {
            BranchError::NoSession(_) | BranchError::Unsafe(..) => Reason::Internal,
            BranchError::NoneFree(_) => Reason::PushRejected,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        let reason = match &error {
            RepositoryError::StartGit { .. }
            | RepositoryError::GitVersion { .. }
            | RepositoryError::State { .. }
            | RepositoryError::Address { .. }
            | RepositoryError::Credential
            | RepositoryError::Maintain { .. }
            | RepositoryError::Serve { .. }
            | RepositoryError::ServeBusy { .. }
            | RepositoryError::StagingFull { .. }
            | RepositoryError::Inspect { .. }
            | RepositoryError::Diff { .. }
            | RepositoryError::PushOption { .. }
            | RepositoryError::NothingToKeep
            | RepositoryError::Keep { .. } => Reason::Internal,
            RepositoryError::Scan { .. } => Reason::ReviewNeeded,
            RepositoryError::MirrorBusy { .. }
            | RepositoryError::Answer { .. }
            | RepositoryError::TooLarge { .. }
            | RepositoryError::Fetch { .. }
            | RepositoryError::Moved { .. } => Reason::MirrorFailed,
            RepositoryError::Timeout { .. }
            | RepositoryError::Unavailable { .. }
            | RepositoryError::Certificate { .. } => Reason::ForgeUnavailable,
            RepositoryError::Authentication { .. } => Reason::TokenInvalid,
            RepositoryError::Forbidden { .. } => Reason::ScopeMissing,
            RepositoryError::NotFound { .. } => Reason::ProjectNotFound,
            RepositoryError::Empty => Reason::ProjectEmpty,
            RepositoryError::Lfs { .. } => Reason::ProjectUnsupported,
            RepositoryError::BaseNotFound { .. } => Reason::BaseNotFound,
            RepositoryError::PushRejected { .. } => Reason::PushRejected,
            RepositoryError::PushStale { .. } | RepositoryError::PushRewinds { .. } => Reason::BranchMoved,
        };
        Self::new(reason, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passing_failure_of_the_forge_is_an_error_and_a_bad_token_is_the_users() {
        use crate::message::outcome::Outcome;
        let of = |error: ForgeError| Failure::from(error).reason.result();
        let instance = || "https://forge.example".to_owned();
        assert_eq!(
            of(ForgeError::Unavailable {
                instance: instance(),
                detail: String::new()
            }),
            Outcome::Error
        );
        assert_eq!(of(ForgeError::TokenExpired { instance: instance() }), Outcome::Failure);
        assert_eq!(
            Failure::from(AgentError::Cancelled).reason.result(),
            Outcome::Cancellation
        );
    }
}
