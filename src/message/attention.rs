//! What a session asks of people: why it waits, what may be answered, and what follows when nobody does. Pure values.
//!
//! The texts of a question are the agent's: whoever makes one bounds and masks them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::outcome::Reason;

/// Why a session waits for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// The agent asks for leave to do something.
    PermissionAsked,
    /// The work changes what runs on its own, such as CI files.
    ReviewNeeded,
    /// The forge does not know the token.
    TokenInvalid,
    /// The token has expired.
    TokenExpired,
    /// The token was revoked.
    TokenRevoked,
}

impl Attention {
    /// What a failure waits for, where somebody can help while the session waits: only a fresh credential helps a dead one.
    #[must_use]
    pub fn to_credential(reason: Reason) -> Option<Self> {
        let dead = [
            (Reason::TokenInvalid, Self::TokenInvalid),
            (Reason::TokenExpired, Self::TokenExpired),
            (Reason::TokenRevoked, Self::TokenRevoked),
        ];
        dead.into_iter().find_map(|(one, why)| (one == reason).then_some(why))
    }
}

/// What follows when nobody answers in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// The work is kept on the worker and not published.
    #[default]
    Kept,
    /// The agent is refused what it asks for, and goes on.
    Refused,
}

/// A question of the agent, answered by the control message `answer` with its id and that of an option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// Its id, of this attempt alone.
    pub id: String,
    /// What the agent wants to do, as its tool call says it; cut.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What may be answered, 1 to 16.
    pub options: Vec<Choice>,
}

/// One answer that an agent takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Choice {
    /// Its id in this question. Its kind does as well, where no other option has it.
    pub id: String,
    /// The agent's words for it.
    pub name: String,
    /// What it means.
    pub kind: ChoiceKind,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceKind {
    /// Leave for this time.
    AllowOnce,
    /// Leave for this time and others like it.
    AllowAlways,
    /// No leave this time.
    RejectOnce,
    /// No leave this time and others like it.
    RejectAlways,
}

impl ChoiceKind {
    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowOnce => "allow_once",
            Self::AllowAlways => "allow_always",
            Self::RejectOnce => "reject_once",
            Self::RejectAlways => "reject_always",
        }
    }
}

/// Who decided whether an agent got leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecidedBy {
    /// The operator's configuration, at once.
    #[default]
    Policy,
    /// A control message `answer`.
    Answer,
    /// Nobody, until the time was over.
    Deadline,
    /// Nobody was asked, because the agent asks too much.
    Bound,
    /// The end of the turn.
    End,
}
