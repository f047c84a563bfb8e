//! A task, said briefly.

use serde_json::{Value, json};

use super::World;

/// A task under construction.
#[derive(Clone)]
pub(crate) struct Task {
    body: Value,
}

impl Task {
    /// A task of a new session.
    pub(crate) fn new() -> Self {
        let session = uuid::Uuid::now_v7().to_string();
        Self {
            body: json!({"version": 1, "session": session, "prompt": "", "projects": [], "connections": {}}),
        }
    }

    /// The session's id.
    pub(crate) fn session(&self) -> &str {
        super::text(&self.body, "/session")
    }

    /// What the agent is asked; one line for each directive of the scripted agent.
    pub(crate) fn prompt(self, lines: &[&str]) -> Self {
        self.field("prompt", lines.join("\n"))
    }

    /// The title.
    pub(crate) fn title(self, title: &str) -> Self {
        self.field("title", title)
    }

    /// One more project.
    pub(crate) fn project(mut self, connection: &str, path: &str) -> Self {
        let projects = self.body["projects"].as_array_mut().unwrap();
        projects.push(json!({"connection": connection, "path": path}));
        self
    }

    /// The project on GitLab that most tests work on.
    pub(crate) fn greeter(self) -> Self {
        self.project("lab", super::GREETER)
    }

    /// The repository on GitHub that most tests work on.
    pub(crate) fn website(self) -> Self {
        self.project("hub", super::WEBSITE)
    }

    /// Any field of the task.
    pub(crate) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body[name] = value.into();
        self
    }

    /// A connection other than the usual ones, or the usual one with another credential.
    pub(crate) fn connection(mut self, name: &str, request: Value) -> Self {
        self.body["connections"][name] = request;
        self
    }

    /// The body, with the usual connections for the projects that name them: `lab` on GitLab, `hub` on GitHub.
    pub(crate) fn json(&self, world: &World) -> Value {
        let mut body = self.body.clone();
        let forge = world.forge();
        let usual = [
            ("lab", "gitlab", forge.gitlab(), "COFFERDAM_TOKEN_LAB"),
            ("hub", "github", forge.github(), "COFFERDAM_TOKEN_HUB"),
        ];
        for (name, kind, url, variable) in usual {
            let projects = self.body["projects"].as_array();
            let used = projects.is_some_and(|projects| projects.iter().any(|project| project["connection"] == name));
            if used && body["connections"].get(name).is_none() {
                body["connections"][name] = json!({"forge": kind, "url": url, "credential": {"env": variable}});
            }
        }
        body
    }
}
