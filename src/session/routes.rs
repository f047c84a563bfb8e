//! What a sandbox is given to reach: the gateway's routes of one session, put together. Decides nothing: each route has its own rules.

use std::sync::Arc;

use super::failure::Failure;
use super::{Session, reach};
use crate::agent;
use crate::gateway::git::{self, GitRoutes};
use crate::gateway::model;
use crate::grant::Grant;
use crate::message::Reason;
use crate::tools::{self, Wishes};

impl Session<'_> {
    /// git, tools and the agent's model become reachable for the sandbox.
    pub(super) fn open_routes(
        &self,
        grant: &Arc<Grant>,
        agent: &agent::Config,
        wishes: &Wishes,
    ) -> Result<(), Failure> {
        let progress = self.progress.clone();
        let tell: git::Tell = Box::new(move |event| {
            let progress = progress.clone();
            Box::pin(async move { progress.state(event).await })
        });
        let projects = self
            .work
            .iter()
            .map(|work| (work.admitted.grant.key.clone(), work.staging.clone()));
        let routes = Arc::new(GitRoutes::new(projects, tell));
        self.open.reachable(self.live.inside()?, routes.clone());
        let reach = reach::of(self.rooms, &self.work, self.progress, self.open);
        let mut router = git::router(routes).merge(tools::router(grant.clone(), wishes.clone(), reach));
        if let Some(name) = &agent.model {
            let endpoint = self.rooms.models.get(name).ok_or_else(|| {
                Failure::new(Reason::Internal, format!("the model endpoint {name} is not configured"))
            })?;
            router = router.merge(model::router(name, endpoint.clone()));
        }
        self.live.serve(router)
    }
}
