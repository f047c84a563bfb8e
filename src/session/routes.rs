//! What a sandbox is given to reach: the gateway's routes of one session, put together. Decides nothing: each route has its own rules.

use std::sync::Arc;

use super::failure::Failure;
use super::{Session, reach};
use crate::agent;
use crate::gateway::egress::{Proxy, Refusals};
use crate::gateway::git::{self, GitRoutes};
use crate::gateway::model::{self, Meter};
use crate::grant::Grant;
use crate::message::Reason;
use crate::tools::{self, Wishes};

impl Session<'_> {
    /// The proxy of the way out, for a sandbox of this session: the grant decides, and refusals are counted into `refusals`.
    pub(super) fn egress(&self, grant: &Grant, refusals: &Refusals) -> Arc<Proxy> {
        Arc::new(Proxy::new(
            grant.egress.clone(),
            self.rooms.egress.clone(),
            self.rooms.resolver.clone(),
            refusals.clone(),
            self.rooms.metrics.clone(),
            self.tell_state(),
        ))
    }

    /// Tells an event of the gateway's in its turn.
    fn tell_state(&self) -> git::Tell {
        let progress = self.progress.clone();
        Box::new(move |event| {
            let progress = progress.clone();
            Box::pin(async move { progress.state(event).await })
        })
    }

    /// git, tools, the agent's model and the way out become reachable for the sandbox; the result is the meter on the model.
    pub(super) fn open_routes(
        &self,
        grant: &Arc<Grant>,
        agent: &agent::Config,
        wishes: &Wishes,
        refusals: &Refusals,
    ) -> Result<Option<Arc<Meter>>, Failure> {
        let projects = self
            .work
            .iter()
            .map(|work| (work.admitted.grant.key.clone(), work.staging.clone()));
        let routes = Arc::new(GitRoutes::new(projects, self.tell_state()));
        self.open.reachable(self.live.inside()?, routes.clone());
        let reach = reach::of(self.rooms, &self.work, self.progress, &self.open.speaking);
        let mut router = git::router(routes).merge(tools::router(grant.clone(), wishes.clone(), reach));
        let mut meter = None;
        if let Some(name) = &agent.model {
            let endpoint = self.rooms.models.get(name).ok_or_else(|| {
                Failure::new(Reason::Internal, format!("the model endpoint {name} is not configured"))
            })?;
            let (route, on_it) = model::router(name, endpoint.clone(), self.task.limits.model_tokens);
            router = router.merge(route);
            meter = Some(on_it);
        }
        self.live.serve(router, self.egress(grant, refusals))?;
        Ok(meter)
    }
}
