//! What a token may do, row by row, as events and answers tell it. Values only; what only the act itself can prove is called unproven.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a token may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// It may.
    Yes,
    /// It may, over git only: the API is closed to it.
    GitOnly,
    /// It may, by push options: the API is closed to it.
    PushOptions,
    /// It may not.
    No,
    /// The forge does not say: trying proves it.
    Unproven,
}

impl Right {
    /// Whether there is no use in trying.
    #[must_use]
    pub fn is_refused(self) -> bool {
        matches!(self, Self::No)
    }

    /// The word that people are shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::GitOnly => "yes (git only)",
            Self::PushOptions => "yes (by push options)",
            Self::No => "no",
            Self::Unproven => "unproven",
        }
    }
}

/// What a token may do. Its user's own rights on a project bound it further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capabilities {
    /// Look projects up.
    pub read_projects: Right,
    /// Clone them.
    pub clone: Right,
    /// Push branches.
    pub push_branches: Right,
    /// Open change requests.
    pub open_change_requests: Right,
    /// Read change requests, diffs, discussions.
    pub inspect_change_requests: Right,
    /// Read issues.
    pub read_issues: Right,
    /// Reply to discussions and comment on issues.
    pub comment: Right,
}

impl Capabilities {
    /// Nothing is known.
    pub const UNPROVEN: Self = Self {
        read_projects: Right::Unproven,
        clone: Right::Unproven,
        push_branches: Right::Unproven,
        open_change_requests: Right::Unproven,
        inspect_change_requests: Right::Unproven,
        read_issues: Right::Unproven,
        comment: Right::Unproven,
    };

    /// It may do nothing.
    pub const NONE: Self = Self {
        read_projects: Right::No,
        clone: Right::No,
        push_branches: Right::No,
        open_change_requests: Right::No,
        inspect_change_requests: Right::No,
        read_issues: Right::No,
        comment: Right::No,
    };

    /// Every row with the words that people are shown.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, Right); 7] {
        [
            ("read projects", self.read_projects),
            ("clone", self.clone),
            ("push branches", self.push_branches),
            ("open change requests", self.open_change_requests),
            ("inspect change requests", self.inspect_change_requests),
            ("read issues", self.read_issues),
            ("comment", self.comment),
        ]
    }
}
