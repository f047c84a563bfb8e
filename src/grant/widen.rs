//! One more project in the grant of a running session. Pure. Nothing that was granted changes by it.

use super::{Grant, ProjectGrant, Trailers};
use crate::message::ProjectKey;
use crate::message::task::MOST_PROJECTS;

/// Why a project cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WidenError {
    /// It is granted already.
    #[error("{project} is in this session already, at {directory}: nothing was changed")]
    There {
        /// Which project.
        project: ProjectKey,
        /// Where it is cloned.
        directory: String,
    },
    /// It is granted already under another name or connection: both would have one branch.
    #[error("{project} is the project that this session has as {other}: work on it there")]
    Same {
        /// How it was named.
        project: ProjectKey,
        /// How it is known.
        other: ProjectKey,
    },
    /// More than `MOST_PROJECTS`.
    #[error("the session has {MOST_PROJECTS} projects, which is the most: send a task for the others")]
    TooMany,
    /// It would lie in another project's clone, or the other way round.
    #[error("{directory} is taken by {other}")]
    Directory {
        /// The directory.
        directory: String,
        /// Whose it is.
        other: ProjectKey,
    },
}

impl Grant {
    /// What can be said before anybody is asked.
    ///
    /// # Errors
    /// It is there already, or there are too many.
    pub fn has_room(&self, project: &ProjectKey) -> Result<(), WidenError> {
        let same = |one: &&ProjectGrant| {
            one.key.connection == project.connection
                && one.key.path.as_str().eq_ignore_ascii_case(project.path.as_str())
        };
        if let Some(there) = self.projects.iter().find(same) {
            return Err(WidenError::There {
                project: there.key.clone(),
                directory: there.directory.clone(),
            });
        }
        if self.projects.len() >= MOST_PROJECTS {
            return Err(WidenError::TooMany);
        }
        Ok(())
    }

    /// This grant with one more project.
    ///
    /// # Errors
    /// The project is there already, by name or by what the forge says of it; there are too many; its directory is taken.
    pub fn widened(&self, project: ProjectGrant, trailers: Trailers) -> Result<Self, WidenError> {
        self.has_room(&project.key)?;
        for one in &self.projects {
            let paths = (one.key.path.as_str(), project.key.path.as_str());
            if one.instance == project.instance && (one.id == project.id || paths.0.eq_ignore_ascii_case(paths.1)) {
                return Err(WidenError::Same {
                    project: project.key,
                    other: one.key.clone(),
                });
            }
            if overlap(&one.directory, &project.directory) {
                return Err(WidenError::Directory {
                    directory: project.directory,
                    other: one.key.clone(),
                });
            }
        }
        let mut widened = self.clone();
        widened.trailers.insert(project.key.clone(), trailers);
        widened.projects.push(project);
        Ok(widened)
    }
}

/// Whether one directory is the other or lies in it, on any file system.
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_lowercase() + "/", other.to_lowercase() + "/");
    one.starts_with(&other) || other.starts_with(&one)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::grant::{Egress, Identity, SessionLimits};
    use crate::message::{Capabilities, ForgeKind, Publish, Uncommitted};

    fn project(connection: &str, path: &str, id: &str, directory: &str) -> ProjectGrant {
        let key = ProjectKey {
            connection: connection.parse().unwrap(),
            path: path.parse().unwrap(),
        };
        ProjectGrant {
            connection: key.connection.clone(),
            key,
            forge: ForgeKind::Gitlab,
            id: id.into(),
            instance: "https://forge.example".into(),
            clone_url: format!("https://forge.example/{path}.git"),
            web_url: format!("https://forge.example/{path}"),
            base: "main".parse().unwrap(),
            default_branch: "main".parse().unwrap(),
            branch: "cofferdam/x-1".parse().unwrap(),
            directory: directory.into(),
            identity: identity(),
            capabilities: Capabilities::UNPROVEN,
        }
    }

    fn identity() -> Identity {
        Identity {
            name: "Ada".into(),
            email: "ada@example.org".into(),
        }
    }

    fn session() -> crate::message::SessionId {
        "0190c2f0-7c1e-7000-8000-000000000001".parse().unwrap()
    }

    fn trailers() -> Trailers {
        Trailers::new(&identity(), &identity(), session())
    }

    fn grant() -> Grant {
        let second = Duration::from_secs(1);
        let first = project("lab", "a/one", "1", "/workspace/one");
        Grant {
            session: session(),
            trailers: BTreeMap::from([(first.key.clone(), trailers())]),
            projects: vec![first],
            publish: Publish::ChangeRequest,
            uncommitted: Uncommitted::Commit,
            may_comment: false,
            egress: Egress::default(),
            limits: SessionLimits {
                session: second,
                turn: second,
                idle: second,
            },
        }
    }

    #[test]
    fn what_was_granted_stays_as_it_was() {
        let before = grant();
        let after = before
            .widened(project("hub", "a/two", "2", "/workspace/two"), trailers())
            .unwrap();
        assert_eq!((before.projects.len(), after.projects.len()), (1, 2));
        assert_eq!(after.trailers.len(), 2);
        let shown = |project: &ProjectGrant| format!("{project:?}");
        assert_eq!(shown(&after.projects[0]), shown(&before.projects[0]));
        assert_eq!(after.projects[1].key.to_string(), "hub:a/two");
        let rest = |grant: &Grant| {
            let mut grant = grant.clone();
            grant.projects.clear();
            grant.trailers.clear();
            format!("{grant:?}")
        };
        assert_eq!(rest(&after), rest(&before));
    }

    #[test]
    fn what_is_there_already_is_refused_by_any_name() {
        let widen = |project| grant().widened(project, trailers()).unwrap_err();
        let other = "/workspace/other";
        assert!(matches!(
            widen(project("lab", "A/One", "7", other)),
            WidenError::There { .. }
        ));
        assert!(
            matches!(widen(project("hub", "A/One", "7", other)), WidenError::Same { .. }),
            "another connection"
        );
        assert!(
            matches!(widen(project("lab", "a/renamed", "1", other)), WidenError::Same { .. }),
            "another path"
        );
        let mut elsewhere = project("hub", "a/one", "1", other);
        elsewhere.instance = "https://other.example".into();
        assert!(grant().widened(elsewhere, trailers()).is_ok());
    }

    #[test]
    fn no_clone_lies_in_another() {
        for taken in ["/workspace/one", "/workspace/ONE", "/workspace/one/x", "/workspace"] {
            let refused = grant().widened(project("lab", "a/two", "2", taken), trailers());
            assert!(matches!(refused, Err(WidenError::Directory { .. })), "{taken}");
        }
        assert!(
            grant()
                .widened(project("lab", "a/two", "2", "/workspace/one-2"), trailers())
                .is_ok()
        );
    }

    #[test]
    fn there_is_a_most() {
        let mut grant = grant();
        for number in 2..=MOST_PROJECTS {
            let path = format!("a/p{number}");
            let more = project("lab", &path, &number.to_string(), &format!("/workspace/p{number}"));
            grant = grant.widened(more, trailers()).unwrap();
        }
        let more = grant.widened(project("lab", "a/more", "99", "/workspace/more"), trailers());
        assert_eq!(more.unwrap_err(), WidenError::TooMany);
    }
}
