//! How an agent asks people for leave. The agent's protocol makes the question of its own words; the session asks it and waits.
//!
//! Values and a seam: decides nothing.

use async_trait::async_trait;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::message::{ChoiceKind, DecidedBy};

/// Who answers an agent that asks for leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Permissions {
    /// It is given leave at once: the sandbox is the boundary.
    #[default]
    Allow,
    /// People are asked (`needs_attention`); without an answer in time it is refused.
    Ask,
}

/// What an agent asks leave for, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// In a few words.
    pub title: String,
    /// What exactly, as far as it says so.
    pub detail: String,
    /// The answers that it takes.
    pub options: Vec<(ChoiceKind, String)>,
}

/// What it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The place of the chosen option in the request; none when nobody chose.
    pub option: Option<usize>,
    /// Who decided.
    pub by: DecidedBy,
    /// The question that people were asked, where they were.
    pub question: Option<String>,
}

/// Asks people.
#[async_trait]
pub trait Ask: Send + Sync + std::fmt::Debug {
    /// Asks, and waits for the answer, the end of the time for it, or of the turn.
    async fn ask(&self, request: Request, ended: &CancellationToken) -> Decided;
}
