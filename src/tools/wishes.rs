//! What the agent wants its change requests to say: written by a tool, read when the worker publishes.
//!
//! A wish decides nothing but words.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::message::ProjectKey;

/// What the agent wants a change request to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The title.
    pub title: String,
    /// What changed.
    pub changes: String,
    /// How and why that way.
    pub approach: String,
    /// What it costs.
    pub trade_offs: String,
    /// How it was checked.
    pub checked: String,
    /// Whether the agent wants a draft.
    pub draft: bool,
}

/// The wishes of one session, written by the tools and read at publish.
#[derive(Debug, Clone, Default)]
pub struct Wishes(Arc<Mutex<BTreeMap<ProjectKey, Wish>>>);

impl Wishes {
    /// The wish for a project.
    #[must_use]
    pub fn get(&self, project: &ProjectKey) -> Option<Wish> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(project)
            .cloned()
    }

    pub(super) fn set(&self, project: ProjectKey, wish: Wish) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(project, wish);
    }
}
