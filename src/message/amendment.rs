//! What control messages made of a task since it was sent: projects that were added, connections that are new or have a fresh credential, and
//! those that were dropped. Whoever goes on with the session needs it beside the task.
//!
//! Pure. Bounded by whoever carries it. Never shows a credential: as in a task, a token in clear stays in clear only on its way.

use std::collections::{BTreeMap, BTreeSet};

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};

use super::connection::ConnectionRequest;
use super::id::ConnectionName;
use super::task::{MOST_PROJECTS, ProjectRequest, Task, TaskError};

/// Connections of one amendment at most, and as many that were dropped.
const MOST_CONNECTIONS: usize = 4 * MOST_PROJECTS;

/// The changes, all of them since the task that is gone on from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Amendment {
    /// The projects that were added, in their order.
    pub added: Vec<ProjectRequest>,
    /// The connections that the task does not have, or not with the credential that they have now.
    #[serde(serialize_with = "as_in_a_task")]
    pub connections: BTreeMap<ConnectionName, ConnectionRequest>,
    /// The connections that were dropped: they do not come back, and neither do their projects.
    pub dropped: BTreeSet<ConnectionName>,
}

impl Amendment {
    /// Makes a task what it came to be.
    ///
    /// # Errors
    /// Nothing is left to work on, or the whole is beyond what a task may be.
    pub fn apply(&self, task: &mut Task) -> Result<(), TaskError> {
        let is_dropped = |project: &ProjectRequest| self.dropped.contains(&project.connection);
        task.projects.retain(|project| !is_dropped(project));
        task.added.retain(|project| !is_dropped(project));
        task.connections.retain(|name, _| !self.dropped.contains(name));
        task.connections.extend(self.connections.clone());
        task.join(self.added.clone());
        task.check()
    }

    /// What is wrong with one that was carried.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.added.len() > MOST_PROJECTS {
            return Err("too many added projects");
        }
        if self.connections.len() > MOST_CONNECTIONS || self.dropped.len() > MOST_CONNECTIONS {
            return Err("too many connections");
        }
        self.connections.values().try_for_each(ConnectionRequest::check)
    }
}

fn as_in_a_task<S: Serializer>(
    connections: &BTreeMap<ConnectionName, ConnectionRequest>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(connections.len()))?;
    for (name, request) in connections {
        map.serialize_entry(name, &request.for_task())?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        let task = serde_json::json!({
            "version": 1, "session": "0190c2f0-7c1e-7000-8000-000000000001", "prompt": "one",
            "projects": [{"connection": "lab", "path": "a/b"}, {"connection": "old", "path": "a/c"}],
            "connections": {"lab": {"forge": "gitlab", "credential": {"env": "OLD"}}, "old": {"forge": "gitlab", "credential": {"env": "X"}}},
            "resume": {"attempt": 1, "turns": 1, "added": [{"connection": "old", "path": "a/d"}, {"connection": "lab", "path": "a/e"}]},
        });
        Task::parse(task.to_string().as_bytes()).unwrap()
    }

    fn amendment(value: serde_json::Value) -> Amendment {
        serde_json::from_value(value).unwrap()
    }

    fn keys(projects: &[ProjectRequest]) -> Vec<String> {
        projects.iter().map(|project| project.key().to_string()).collect()
    }

    #[test]
    fn a_task_becomes_what_control_messages_made_of_it() {
        let mut task = task();
        let lab = serde_json::json!({"forge": "gitlab", "credential": {"env": "NEW"}});
        amendment(serde_json::json!({
            "added": [{"connection": "hub", "path": "c/d"}, {"connection": "lab", "path": "A/E"}],
            "connections": {"lab": lab, "hub": {"forge": "github", "credential": {"plain": "canary"}}},
            "dropped": ["old"],
        }))
        .apply(&mut task)
        .unwrap();
        assert_eq!(keys(&task.projects), ["lab:a/b", "lab:a/e", "hub:c/d"], "each once");
        assert_eq!(
            keys(&task.added),
            ["lab:a/e", "hub:c/d"],
            "those of its resume too, and none that was dropped"
        );
        assert_eq!(task.connections.len(), 2);
        assert_eq!(task.connections[&"lab".parse().unwrap()].for_task(), lab);
    }

    #[test]
    fn what_leaves_no_task_is_an_error() {
        let all = amendment(serde_json::json!({"added": [], "connections": {}, "dropped": ["lab", "old"]}));
        assert!(matches!(all.apply(&mut task()), Err(TaskError::NoProject)));
        let unknown = amendment(
            serde_json::json!({"added": [{"connection": "hub", "path": "c/d"}], "connections": {}, "dropped": []}),
        );
        assert!(matches!(
            unknown.apply(&mut task()),
            Err(TaskError::UnknownConnection { .. })
        ));
    }

    #[test]
    fn a_token_in_clear_shows_in_no_debug() {
        let plain = serde_json::json!({"hub": {"forge": "github", "credential": {"plain": "canary"}}});
        let amendment = amendment(serde_json::json!({"added": [], "connections": plain, "dropped": []}));
        assert!(!format!("{amendment:?}").contains("canary"));
    }
}
