//! Where each project is cloned in the sandbox: by its own name, with its connection and path where names collide. Pure.
//!
//! No clone lies in another, and nothing that has its place moves for a project that comes later.

use crate::grant::overlap;
use crate::message::task::{MOST_PROJECTS, ProjectRequest};
use crate::message::{ProjectKey, Task};
use crate::sandbox::WORKSPACE;

/// The directories of a task's projects, in their order.
pub(super) fn of(task: &Task) -> Vec<String> {
    let later = |project: &&ProjectRequest| task.added.iter().any(|one| one.is_same(project));
    let first: Vec<ProjectRequest> = task.projects.iter().filter(|one| !later(one)).cloned().collect();
    let mut taken = all(&first);
    let mut places = taken.clone().into_iter();
    let mut found = Vec::new();
    for project in &task.projects {
        let directory = match later(&project) {
            // In the order in which they were added, so that each finds its old place.
            true => {
                let directory = beside(&taken, &project.key());
                taken.push(directory.clone());
                directory
            }
            false => places.next().unwrap_or_default(),
        };
        found.push(directory);
    }
    found
}

/// A place for one more project.
pub(super) fn beside(taken: &[String], project: &ProjectKey) -> String {
    let name = project.path.name();
    let own = format!("{WORKSPACE}/{name}");
    let whole = format!("{WORKSPACE}/{}/{}", project.connection, project.path);
    let numbered = (2..=MOST_PROJECTS + 2).map(|number| format!("{WORKSPACE}/{name}-{number}"));
    let mut all = [own.clone(), whole].into_iter().chain(numbered);
    // With so many names one is free; the grant refuses what is not.
    all.find(|place| !taken.iter().any(|one| overlap(one, place)))
        .unwrap_or(own)
}

/// The places of projects that come together.
fn all(projects: &[ProjectRequest]) -> Vec<String> {
    // A directory named like a connection would hold the clones of projects whose names collide.
    let is_connection = |name: &str| projects.iter().any(|project| project.connection.as_str() == name);
    projects
        .iter()
        .map(|project| {
            let name = project.path.name().to_lowercase();
            let alone = projects
                .iter()
                .filter(|other| other.path.name().to_lowercase() == name)
                .count()
                == 1
                && !is_connection(&name);
            if alone {
                format!("{WORKSPACE}/{}", project.path.name())
            } else {
                format!("{WORKSPACE}/{}/{}", project.connection, project.path)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(connection: &str, path: &str) -> ProjectRequest {
        ProjectRequest {
            connection: connection.parse().unwrap(),
            path: path.parse().unwrap(),
            base: None,
        }
    }

    #[test]
    fn projects_of_one_name_get_their_connection_in_the_path() {
        let got = all(&[project("a", "x/site"), project("b", "y/Site"), project("a", "x/api")]);
        assert_eq!(got, ["/workspace/a/x/site", "/workspace/b/y/Site", "/workspace/api"]);
        // No clone lies in another.
        let got = all(&[project("a", "x/site"), project("b", "y/site"), project("a", "x/a")]);
        assert_eq!(got[2], "/workspace/a/x/a");
    }

    #[test]
    fn one_that_comes_later_moves_nobody() {
        let mut taken = vec!["/workspace/site".to_owned(), "/workspace/b".to_owned()];
        for (connection, path, place) in [
            ("a", "x/api", "/workspace/api"),
            ("a", "y/Site", "/workspace/a/y/Site"),
            // `/workspace/b` is a clone.
            ("b", "y/Site", "/workspace/Site-2"),
            ("b", "z/site", "/workspace/site-3"),
            // `/workspace/a` holds clones.
            ("c", "x/a", "/workspace/c/x/a"),
        ] {
            let got = beside(&taken, &project(connection, path).key());
            assert_eq!(got, place);
            taken.push(got);
        }
    }

    #[test]
    fn a_session_that_goes_on_has_everything_where_it_was() {
        let task = |projects: &[&str], added: &[&str]| {
            let project = |path: &&str| serde_json::json!({"connection": "a", "path": path});
            let task = serde_json::json!({
                "version": 1, "session": "0190c2f0-7c1e-7000-8000-000000000001", "prompt": "x",
                "projects": projects.iter().map(project).collect::<Vec<_>>(),
                "connections": {"a": {"forge": "gitlab", "credential": {"env": "X"}}},
                "resume": {"attempt": 1, "turns": 1, "added": added.iter().map(project).collect::<Vec<_>>()},
            });
            Task::parse(task.to_string().as_bytes()).unwrap()
        };
        let places = ["/workspace/site", "/workspace/a/y/site"];
        assert_eq!(of(&task(&["x/site"], &["y/site"])), places);
        // Whoever lists what was added changes nothing by it.
        assert_eq!(of(&task(&["x/site", "Y/site"], &["y/site"]))[0], places[0]);
    }
}
