//! From the sandbox into staging, at the end of each turn and after a failure: what the agent committed is taken, and never lost by what follows.
//!
//! Publishes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;

use super::failure::Failure;
use super::steering::Cause;
use super::verdict::commit_message;
use super::workspace::Agent;
use super::{Session, admit, tell, workspace};
use crate::grant::Grant;
use crate::message::{EventBody, ProjectKey, ProjectOutcome, Reason, Uncommitted};

/// How long a sandbox may take to hand over its commits after a failure.
const KEEPING: Duration = Duration::from_secs(45);

impl Session<'_> {
    /// Takes everything that is committed, or is to be, into staging. What was refused, by project.
    pub(super) async fn collect(
        &self,
        grant: &Grant,
        said: (&str, &str),
        agent: Agent,
    ) -> Result<BTreeMap<ProjectKey, String>, Failure> {
        let inside = self.live.inside()?;
        if agent == Agent::Ends {
            workspace::quiet(&inside).await;
        }
        let (title, answer) = said;
        let message = commit_message(title, answer);
        let work = self.open.work();
        let open = work.iter().filter(|work| work.ended.get().is_none());
        let collected = join_all(open.map(|work| {
            let (inside, message) = (&inside, &message);
            async move {
                let project = &work.admitted.grant;
                (
                    project,
                    workspace::collect(inside, project, grant.uncommitted, message, agent).await,
                )
            }
        }))
        .await;
        let mut refused = BTreeMap::new();
        for (project, collected) in collected {
            match collected? {
                workspace::Collected::Taken => {}
                workspace::Collected::Refused(said) => {
                    tracing::info!(project = %project.key, said, "commits were not taken into staging");
                    let message = format!("not everything in {} was taken: {said}", project.directory);
                    let code = "not_taken".to_owned();
                    self.progress.state(EventBody::Warning { code, message }).await;
                    refused.insert(project.key.clone(), said);
                }
            }
        }
        Ok(refused)
    }

    /// After a failure: what the sandbox still has committed is taken, and everything in staging is kept as a bundle. The projects end with it,
    /// unless another worker goes on with them.
    pub(super) async fn keep_work(&self, failure: &Failure, goes_on: bool) -> Vec<ProjectOutcome> {
        match self.steering.cause() {
            Some(Cause::Discard) => return self.open.work().iter().filter_map(|work| work.published()).collect(),
            Some(Cause::OwnershipLost) => return Vec::new(),
            Some(Cause::Publish | Cause::WorkerStopped | Cause::Drain) | None => {}
        }
        // What filled the workspace is not to be committed on top.
        let uncommitted = if failure.reason == Reason::DiskFull {
            Uncommitted::Discard
        } else {
            self.task.uncommitted
        };
        let all = self.open.work();
        if let Ok(inside) = self.live.inside() {
            let taking =
                join_all(all.iter().filter(|work| work.ended.get().is_none()).map(|work| {
                    let message = commit_message(&admit::title(self.task), "");
                    let inside = inside.clone();
                    async move {
                        workspace::collect(&inside, &work.admitted.grant, uncommitted, &message, Agent::Ends).await
                    }
                }));
            // The sandbox may hang or be gone; what is in staging already is safe either way.
            let taking = self.live.while_keeping(async {
                workspace::quiet(&inside).await;
                Ok(taking.await)
            });
            let _ = tokio::time::timeout(KEEPING, taking).await;
        }
        let mut outcomes = Vec::new();
        for work in &all {
            let _busy = work.busy.lock().await;
            if let Some(outcome) = work.ended.get() {
                outcomes.push(outcome.clone());
                continue;
            }
            let outcome = work.closed(failure).await;
            // Under `busy`, so nobody else has set it.
            let _ = work.ended.set(outcome.clone());
            outcomes.push(outcome.clone());
            if !goes_on && work.is_untold() {
                tell(self.progress, EventBody::ProjectFinished { outcome }).await;
            }
        }
        outcomes
    }
}
