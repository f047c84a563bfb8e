//! Shows projects' objects to the sandbox, so that a clone copies none of them: links in a directory that is mounted there read-only.
//!
//! Never shows more than the project's own object store, and never the mirror. A saving only: what cannot be shown is cloned through the gateway.

use std::path::PathBuf;

use crate::repository::Staging;
use crate::sandbox::OBJECTS_DIRECTORY;

/// The directory of one sandbox in which projects are shown.
#[derive(Debug, Clone)]
pub(super) struct Objects {
    directory: PathBuf,
}

impl Objects {
    pub(super) fn of(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Shows a project's objects; where they are, seen from inside.
    pub(super) async fn show(&self, staging: &Staging) -> Option<String> {
        let name = staging.number().to_string();
        match staging.show(self.directory.join(&name)).await {
            Ok(()) => Some(format!("{OBJECTS_DIRECTORY}/{name}")),
            Err(error) => {
                tracing::info!(project = %staging.project(), %error, "the objects are not shown to the sandbox, which clones them");
                None
            }
        }
    }

    /// Shows them no more: a clone that builds on them is of no use from then on.
    pub(super) async fn hide(&self, number: usize) {
        let path = self.directory.join(number.to_string());
        if let Err(error) = tokio::fs::remove_dir_all(&path).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::error!(path = %path.display(), %error, "the objects shown to a sandbox were not removed; they go with it");
        }
    }
}
