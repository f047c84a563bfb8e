//! Why a forge did not do what was asked. Values only.
//!
//! Never holds a token: each text in it was masked when it was made.

use std::time::Duration;

/// Why a forge did not do what was asked. Each message is one sentence that says what to do; none holds a token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ForgeError {
    /// The address is not one.
    #[error("the address {url:?} cannot be used: {rule}")]
    Address {
        /// The address as given, without user information.
        url: String,
        /// What would be accepted.
        rule: String,
    },
    /// The forge does not know the token.
    #[error("{instance} does not accept the token: check that it was made on this instance and copied whole")]
    TokenInvalid {
        /// Which instance.
        instance: String,
    },
    /// The token's end has passed.
    #[error("the token for {instance} has expired: make a new one and send the task again")]
    TokenExpired {
        /// Which instance.
        instance: String,
    },
    /// The token was revoked.
    #[error("the token for {instance} was revoked: make a new one and send the task again")]
    TokenRevoked {
        /// Which instance.
        instance: String,
    },
    /// The token may not do this.
    #[error("the token for {instance} may not {act}: it needs {needs}")]
    ScopeMissing {
        /// Which instance.
        instance: String,
        /// What was tried.
        act: String,
        /// The scope or right that is missing, in the forge's words.
        needs: String,
    },
    /// Missing, or not visible to this token: forges do not tell these apart.
    #[error("{what} does not exist on {instance}, or the token cannot see it: check the path and the token's user")]
    NotFound {
        /// Which instance.
        instance: String,
        /// What was looked for.
        what: String,
    },
    /// The forge understood and refused.
    #[error("{instance} refused to {act}: {detail}")]
    Refused {
        /// Which instance.
        instance: String,
        /// What was tried.
        act: String,
        /// The forge's own words, bounded.
        detail: String,
    },
    /// Too many requests.
    #[error("{instance} limits the rate of requests: it asks to wait {} s", wait.as_secs())]
    RateLimited {
        /// Which instance.
        instance: String,
        /// How long it asks to wait.
        wait: Duration,
    },
    /// No answer, or an answer of status 5xx.
    #[error("{instance} cannot be reached: {detail}")]
    Unavailable {
        /// Which instance.
        instance: String,
        /// What happened.
        detail: String,
    },
    /// An answer that is not what the forge's API promises.
    #[error("{instance} was asked to {act} and its answer is not understood: {detail}")]
    Answer {
        /// Which instance.
        instance: String,
        /// What was asked.
        act: String,
        /// What is wrong with the answer.
        detail: String,
    },
    /// Certificates that shall be trusted are none.
    #[error("{place} cannot be used: {detail}; it must be PEM text with one or more certificates")]
    Certificates {
        /// Which certificates.
        place: String,
        /// What is wrong with them.
        detail: String,
    },
    /// The HTTP client could not be made; nothing was asked.
    #[error("requests to forges cannot be made on this machine: {detail}")]
    Setup {
        /// What is missing.
        detail: String,
    },
}

impl ForgeError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::Unavailable { .. } => true,
            Self::Address { .. }
            | Self::TokenInvalid { .. }
            | Self::TokenExpired { .. }
            | Self::TokenRevoked { .. }
            | Self::ScopeMissing { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::Answer { .. }
            | Self::Certificates { .. }
            | Self::Setup { .. } => false,
        }
    }
}
