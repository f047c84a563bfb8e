//! What the session's tools reach: each project's forge with the user's token, its diffs in git, and the session's events.
//!
//! Hands over what was admitted and nothing more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::orders::Open;
use super::projects::Projects;
use super::steering::Steering;
use super::{Rooms, checks};
use crate::forge::inspect::FileDiff;
use crate::message::ProjectKey;
use crate::progress::Progress;
use crate::repository::{self, DiffReader, FileChange, NoDiff, Repositories};
use crate::tools::{DiffRequest, Diffs, ForgeProject, GitDiff, Reach};

/// How long git may take for one page of a diff.
const DIFFING: Duration = Duration::from_secs(120);

/// What the tools of a session reach: the projects that it has when they ask.
pub(super) fn of(rooms: &Rooms, progress: &Arc<Progress>, steering: &Steering, open: &Open) -> Reach {
    let all = open.projects.clone();
    let readers = Readers {
        repositories: rooms.repositories.clone(),
        projects: open.projects.clone(),
        made: Mutex::default(),
    };
    let (progress, steering) = (progress.clone(), steering.clone());
    Reach {
        project: Arc::new(move |key| {
            let work = all.work_of(key)?;
            let admitted = &work.admitted;
            Some(ForgeProject {
                forge: admitted.connection.current().ok()?.forge.clone(),
                facts: admitted.facts.clone(),
            })
        }),
        diffs: Arc::new(readers),
        may_act: Arc::new(move || steering.is_owned()),
        speaking: open.speaking.clone(),
        refuse: {
            let (known, rules) = (open.known.clone(), checks::rules(rooms));
            Arc::new(move |text| {
                let found = known.wanted(rules.clone()).in_text("", text);
                found.into_iter().next().map(|found| found.says)
            })
        },
        tell: Arc::new(move |event| {
            let progress = progress.clone();
            Box::pin(async move { progress.state(event).await })
        }),
    }
}

/// Diffs from git, by project.
struct Readers {
    repositories: Repositories,
    projects: Projects,
    /// One for each project, so that two questions about one wait for each other.
    made: Mutex<BTreeMap<ProjectKey, Arc<DiffReader>>>,
}

#[async_trait]
impl Diffs for Readers {
    async fn diff(&self, project: &ProjectKey, request: &DiffRequest) -> Result<GitDiff, String> {
        let work = self.projects.work_of(project).ok_or("the project is not here")?;
        let reader = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            let reader = || Arc::new(self.repositories.diffs(&work.staging, &work.admitted.grant));
            made.entry(project.clone()).or_insert_with(reader).clone()
        };
        let connected = work.admitted.connection.current().map_err(|failure| failure.message)?;
        // What the forge's API told is a stranger's text until it reads as a commit or a branch.
        let request = repository::DiffRequest {
            number: request.number,
            head: request.head.as_deref().and_then(|head| head.parse().ok()),
            base: request.base.as_deref().and_then(|base| base.parse().ok()),
            target: request.target.parse().ok(),
            path: request.path.clone(),
            skip: request.skip,
            most: request.most,
        };
        let connection = &work.admitted.connection;
        let found = tokio::select! {
            biased;
            () = connection.closed() => return Err(connection.dropped().message),
            found = tokio::time::timeout(DIFFING, reader.read(&request, &connected.access)) => found,
        };
        let found = found
            .map_err(|_| format!("git took longer than {} s", DIFFING.as_secs()))?
            .map_err(|error| error.to_string())?;
        Ok(GitDiff {
            base: found.base.to_string(),
            head: found.head.to_string(),
            total: found.total,
            files: found.files.into_iter().map(file).collect(),
        })
    }
}

fn file(of: repository::FileDiff) -> FileDiff {
    let (diff, why) = match of.diff {
        Ok(diff) => (Some(diff), None),
        Err(NoDiff::Binary) => (None, Some("binary")),
        Err(NoDiff::TooLarge) => (None, Some("too_large")),
    };
    FileDiff {
        path: of.path,
        old_path: of.old_path,
        change: match of.change {
            FileChange::Added => "added",
            FileChange::Removed => "removed",
            FileChange::Renamed => "renamed",
            FileChange::Modified => "modified",
        }
        .to_owned(),
        diff,
        why: why.map(str::to_owned),
    }
}
