//! Why a tool did not do what it was asked. Each is one sentence for the agent: what is wrong, and what to do instead.
//!
//! Never holds a token: what a forge said was masked and bounded in its room.

use rmcp::ErrorData;
use rmcp::handler::server::tool::IntoCallToolResult;
use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock};

use super::bounds;
use crate::forge::ForgeError;
use crate::message::readable::readable;

/// A refusal or a failure of a tool.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    /// No project was named, or none of the session's.
    #[error("name one of the session's projects as `project`: {projects}")]
    UnknownProject {
        /// Those there are.
        projects: String,
    },
    /// The project's forge cannot be asked in this session.
    #[error("the forge of {project} cannot be asked in this session")]
    NotConnected {
        /// Which project.
        project: String,
    },
    /// Little is left of what the forge lets the user's token ask.
    #[error(
        "the forge lets the user's token ask only a little more for now, which is kept for publishing your work: wait some minutes, or go on with what you know"
    )]
    RateReserved,
    /// An argument is too long, too large or too small.
    #[error("{argument} {rule}")]
    Argument {
        /// Its name.
        argument: &'static str,
        /// What would be accepted.
        rule: String,
    },
    /// Words that would be shown to others hold a credential.
    #[error("{argument} holds {holds}: nothing was sent; take it out, and say where it stands instead of what it is")]
    HoldsSecret {
        /// The argument.
        argument: &'static str,
        /// What it is, in words, never the value.
        holds: String,
    },
    /// The user's token may not do this.
    #[error("the user's token for {project} may not {act}: it needs {needs}; only the user can give another token")]
    ScopeMissing {
        /// Which project.
        project: String,
        /// What was asked.
        act: &'static str,
        /// The scope, in the forge's words.
        needs: &'static str,
    },
    /// The task does not let the agent speak in the user's name.
    #[error(
        "this session may not comment: the task does not permit it (its field `comment`); put it into your final answer instead"
    )]
    MayNotComment,
    /// The worker has lost its broker and may not be the session's owner any more.
    #[error("nothing can be said on a forge at this moment: try again in a minute, or put it into your final answer")]
    NotNow,
    /// Enough was said in the user's name.
    #[error("this session has made its {most} comments: put what else there is to say into your final answer")]
    TooManyComments {
        /// How many there may be.
        most: u32,
    },
    /// Too many calls at a time.
    #[error("{most} calls to the forges run already: wait for one of them to end, then ask again")]
    TooManyAtOnce {
        /// How many there may be.
        most: usize,
    },
    /// Too many calls in all.
    #[error("this session has asked the forges {most} times, which is all it may: go on with what you know")]
    TooManyCalls {
        /// How many there may be.
        most: u32,
    },
    /// One row alone is larger than a result may be.
    #[error("row {row} of this page is too large to be shown: call again with skip {row} to go on behind it")]
    RowTooLarge {
        /// Which one, from 1.
        row: usize,
    },
    /// The forge did not do it.
    #[error("{}", sentence(.0))]
    Forge(#[from] ForgeError),
    /// A comment was sent, and nobody knows whether it arrived.
    #[error("{}; the comment may be there all the same: look before you say it again", sentence(.0))]
    CommentUnknown(ForgeError),
    /// The worker stops.
    #[error("the worker was interrupted while it commented: look whether the comment is there before you say it again")]
    Interrupted,
}

impl ToolError {
    /// What the failure of a comment means: said twice is worse than not said.
    pub(super) fn of_comment(error: ForgeError) -> Self {
        match error {
            ForgeError::Unavailable { .. } | ForgeError::Answer { .. } => Self::CommentUnknown(error),
            ForgeError::Address { .. }
            | ForgeError::TokenInvalid { .. }
            | ForgeError::TokenExpired { .. }
            | ForgeError::TokenRevoked { .. }
            | ForgeError::ScopeMissing { .. }
            | ForgeError::NotFound { .. }
            | ForgeError::Refused { .. }
            | ForgeError::RateLimited { .. }
            | ForgeError::Certificates { .. }
            | ForgeError::Setup { .. } => Self::Forge(error),
        }
    }
}

/// The failure as one bounded line.
fn sentence(error: &ForgeError) -> String {
    let line = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    bounds::line(&readable(&line), bounds::LONGEST_ERROR)
}

/// An agent can act on a tool's own error; a protocol error would end the call in its client.
impl IntoCallToolResult for ToolError {
    fn into_call_tool_result(self) -> Result<CallToolResponse, ErrorData> {
        Ok(CallToolResult::error(vec![ContentBlock::text(self.to_string())]).into())
    }
}
