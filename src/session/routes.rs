//! What a sandbox is given to reach: the gateway's routes of one session, put together. Decides nothing: each route has its own rules.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::failure::Failure;
use super::{Session, reach};
use crate::agent;
use crate::gateway::Routes;
use crate::gateway::egress::{Proxy, Refusals};
use crate::gateway::git::{self, GitRoutes};
use crate::gateway::model::{self, Meter};
use crate::grant::{Egress, Grant};
use crate::message::{EventBody, Reason};
use crate::tools::{self, Granted, Wishes};

/// Refused pushes that are told each.
const MOST_REFUSALS: u32 = 200;

impl Session<'_> {
    /// The proxy of the way out, for a sandbox of this session: the grant decides, and refusals are counted into `refusals`.
    pub(super) fn egress(&self, grant: &Grant, refusals: &Refusals) -> Arc<Proxy> {
        self.proxy(grant.egress.clone(), refusals)
    }

    /// The same for the sandbox of a set-up: the operator's own level, whatever the task asks for. Secrets are in reach there.
    pub(super) fn set_up_egress(&self, refusals: &Refusals) -> Arc<Proxy> {
        // The configuration was checked: its default is never above its most.
        self.proxy(self.rooms.egress.grant(None).unwrap_or_default(), refusals)
    }

    fn proxy(&self, egress: Egress, refusals: &Refusals) -> Arc<Proxy> {
        Arc::new(Proxy::new(
            egress,
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
        proxy: Arc<Proxy>,
    ) -> Result<Option<Arc<Meter>>, Failure> {
        let routes = self.git_routes();
        self.open.reachable(self.live.inside()?, routes.clone());
        let reach = reach::of(self.rooms, self.progress, self.steering, self.open);
        let (projects, first) = (self.open.projects.clone(), grant.clone());
        let granted = Granted::new(move || projects.grant().unwrap_or_else(|_| first.clone()));
        let tools = tools::router(granted, wishes.clone(), reach);
        let base = move || git::router(routes.clone()).merge(tools());
        let (made, meter): (Routes, _) = if let Some(name) = &agent.model {
            let endpoint = self.rooms.models.get(name).ok_or_else(|| {
                Failure::new(Reason::Internal, format!("the model endpoint {name} is not configured"))
            })?;
            let (model, meter) = model::router(name, endpoint.clone(), self.task.limits.model_tokens);
            (Arc::new(move || base().merge(model())), Some(meter))
        } else {
            (Arc::new(base), None)
        };
        self.live.serve(made, proxy)?;
        Ok(meter)
    }

    /// What the sandbox of a set-up reaches: git to clone from and the operator's way out; no tools, no model.
    pub(super) fn open_set_up_routes(&self, proxy: Arc<Proxy>) -> Result<(), Failure> {
        let first = self.first()?;
        let routes = self.git_routes();
        first.serve(Arc::new(move || git::router(routes.clone())), proxy)
    }

    /// git of the session's projects. What is accepted or refused is told, refusals up to a bound: an agent may push in a loop.
    fn git_routes(&self) -> Arc<GitRoutes> {
        let progress = self.progress.clone();
        let refusals = AtomicU32::new(0);
        let tell: git::Tell = Box::new(move |event| {
            let progress = progress.clone();
            let refused = matches!(event, EventBody::PushRefused { .. });
            let before = if refused {
                refusals.fetch_add(1, Ordering::Relaxed)
            } else {
                0
            };
            Box::pin(async move {
                match before.cmp(&MOST_REFUSALS) {
                    std::cmp::Ordering::Less => progress.state(event).await,
                    std::cmp::Ordering::Equal => {
                        let code = "refusals_not_told".to_owned();
                        let message = format!(
                            "more than {MOST_REFUSALS} pushes were refused; later refusals are told to the agent only"
                        );
                        progress.state(EventBody::Warning { code, message }).await;
                    }
                    std::cmp::Ordering::Greater => {}
                }
            })
        });
        let work = self.open.work();
        let projects = work
            .iter()
            .map(|work| (work.admitted.grant.key.clone(), work.staging.clone()));
        Arc::new(GitRoutes::new(projects, tell))
    }
}
