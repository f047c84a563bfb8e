//! The set-up apart from the agent: clone, script with secrets, in a sandbox of its own that is gone before the agent's starts. Only the
//! workspace carries over, after a search for the secrets' values.
//!
//! While secrets are in reach, the workspace holds the default branch and nothing that an agent wrote. A secret never stands in a container's
//! configuration, a file or an argument: `inside` hands it to the script's environment.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;

use super::failure::Failure;
use super::live::Live;
use super::publish::Work;
use super::stage::no_trailers;
use super::{Session, stoppable, workspace};
use crate::agent::set_up;
use crate::gateway::Inside;
use crate::gateway::egress::Refusals;
use crate::grant::Grant;
use crate::message::event::Stage;
use crate::message::{AgentName, EventBody, Reason};
use crate::secret::Secret;

mod script;
mod search;

/// The secrets of one agent's set-up, by the variable's name.
pub type SetUpSecrets = Vec<(String, Secret)>;

/// What is to be done for a session, and with what.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    config: &'a set_up::Config,
    secrets: &'a [(String, Secret)],
    /// The image of the set-up's sandbox.
    pub(super) image: &'a str,
}

impl<'a> Session<'a> {
    /// What set-up this agent's sessions have, where one of the projects is covered by it; in the agent's image where it names none.
    pub(super) fn plan<'i>(&self, name: &AgentName, grant: &Grant, image: &'i str) -> Option<Plan<'i>>
    where
        'a: 'i,
    {
        let agent = self.rooms.agents.get(name)?;
        let config = agent.set_up.as_ref()?;
        let covered = grant
            .projects
            .iter()
            .any(|project| config.covers(&address(&project.instance, project.key.path.as_str())));
        covered.then(|| Plan {
            config,
            secrets: self.rooms.set_up_secrets.get(name).map_or(&[], Vec::as_slice),
            image: config.image.as_deref().unwrap_or(image),
        })
    }

    /// Makes the workspace on disk that both sandboxes work in, one after the other.
    pub(super) fn make_first(&mut self) -> Result<(), Failure> {
        let workspace = self.live.make_workspace(self.rooms)?;
        self.first = Some(Live::in_workspace(workspace));
        Ok(())
    }

    /// From the started sandbox of the set-up to the started sandbox of the agent, with the projects in its workspace.
    pub(super) async fn set_up(
        &mut self,
        plan: Plan<'_>,
        grant: &Arc<Grant>,
        image: &str,
        runtime: Option<&str>,
        refusals: &Refusals,
    ) -> Result<(), Failure> {
        self.open_set_up_routes(self.set_up_egress(refusals))?;
        self.enter(Stage::Clone).await;
        let inside = self.first()?.inside()?;
        let all = self.open.work();
        self.early(self.first()?.while_alive(self.cloning.spend(Box::pin(async {
            workspace::prepare(&inside, grant).await?;
            try_join_all(all.iter().map(|work| self.clone_default(&inside, grant, work))).await
        }))))
        .await?;
        self.enter(Stage::SetUp).await;
        for work in &all {
            self.run_in(plan, &inside, work).await?;
        }
        workspace::quiet(&inside).await;
        drop(inside);
        self.end_first().await?;
        self.search(plan).await?;
        let starting = self.live.start(self.rooms, image, runtime, self.progress);
        self.open.undropped(stoppable(self.steering, starting)).await
    }

    pub(super) fn first(&self) -> Result<&Live, Failure> {
        self.first
            .as_ref()
            .ok_or_else(|| Failure::new(Reason::Internal, "the sandbox of the set-up is not started"))
    }

    /// The default branch, so that nothing that an agent pushed before meets the secrets.
    async fn clone_default(&self, inside: &Inside, grant: &Grant, work: &Work) -> Result<(), Failure> {
        let mut project = work.admitted.grant.clone();
        let trailers = grant.trailers.get(&project.key).ok_or_else(no_trailers)?;
        project.base = project.default_branch.clone();
        project.branch = project.default_branch.clone();
        workspace::clone(inside, &project, trailers, false, None, self.progress).await
    }

    /// The script in one project, where there is one for it.
    async fn run_in(&self, plan: Plan<'_>, inside: &Inside, work: &Work) -> Result<(), Failure> {
        let project = &work.admitted.grant;
        if !plan
            .config
            .covers(&address(&project.instance, project.key.path.as_str()))
        {
            return Ok(());
        }
        let script = match (&plan.config.script, &plan.config.from_default_branch) {
            (Some(script), _) => Some(script.clone()),
            (None, Some(path)) => {
                let read = async { Ok(work.staging.script(&project.default_branch, path).await?) };
                self.early(read).await?
            }
            (None, None) => None,
        };
        let Some(script) = script else {
            tracing::info!(project = %project.key, "the project's default branch has no set-up script");
            return Ok(());
        };
        let run = script::Run {
            script: &script,
            secrets: plan.secrets,
            directory: &project.directory,
            limit: Duration::from_secs(plan.config.timeout_s),
        };
        let ran = self.early(self.first()?.while_alive(run.run(inside))).await?;
        if ran.dropped > 0 {
            let what = "output of the set-up script".to_owned();
            let bytes = ran.dropped;
            self.progress.state(EventBody::OutputDropped { what, bytes }).await;
        }
        let Some(problem) = ran.problem else { return Ok(()) };
        if !ran.output.is_empty() {
            let code = "set_up_output".to_owned();
            let message = ran.output;
            self.progress.state(EventBody::Warning { code, message }).await;
        }
        let reason = if ran.is_late {
            Reason::SetUpTimeout
        } else {
            Reason::SetUpFailed
        };
        let message = format!("the set-up script of {} {problem}", project.key);
        Err(Failure::new(reason, message))
    }

    /// Removes the set-up's sandbox, with all that it had in memory. In a task of its own: a session that is cut here still removes it.
    async fn end_first(&mut self) -> Result<(), Failure> {
        let Some(first) = self.first.take() else { return Ok(()) };
        let session = self.task.session;
        let gone = tokio::spawn(async move { first.close_sandbox(&session).await }).await;
        if gone.unwrap_or(false) {
            Ok(())
        } else {
            let message =
                "the sandbox of the set-up could not be removed, so the agent's was not started: see the worker's log";
            Err(Failure::new(Reason::SandboxFailed, message))
        }
    }

    /// No secret may lie in what the agent will see.
    async fn search(&self, plan: Plan<'_>) -> Result<(), Failure> {
        let Some(workspace) = self.live.workspace() else {
            return Err(Failure::new(Reason::Internal, "a set-up without a workspace on disk"));
        };
        let secrets = plan.secrets.to_vec();
        let searching = async {
            tokio::task::spawn_blocking(move || search::search(&workspace, &secrets))
                .await
                .map_err(|error| {
                    Failure::new(
                        Reason::Internal,
                        format!("the search of the workspace was lost: {error}"),
                    )
                })
        };
        match self.early(searching).await? {
            Ok(()) => Ok(()),
            Err(error) => Err(Failure::new(Reason::SetUpFailed, error.to_string())),
        }
    }
}

/// How the configuration names a project.
fn address(instance: &str, path: &str) -> String {
    format!("{}/{path}", instance.trim_end_matches('/'))
}
