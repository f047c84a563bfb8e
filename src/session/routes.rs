//! What a sandbox is given to reach: the gateway's routes of one session, put together. Decides nothing: each route has its own rules.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::failure::Failure;
use super::{Session, reach};
use crate::agent;
use crate::gateway::git::{self, GitRoutes};
use crate::gateway::model;
use crate::grant::Grant;
use crate::message::{EventBody, Reason};
use crate::tools::{self, Wishes};

/// Refused pushes that are told each.
const MOST_REFUSALS: u32 = 200;

impl Session<'_> {
    /// git, tools and the agent's model become reachable for the sandbox.
    pub(super) fn open_routes(
        &self,
        grant: &Arc<Grant>,
        agent: &agent::Config,
        wishes: &Wishes,
    ) -> Result<(), Failure> {
        let routes = self.git_routes();
        self.open.reachable(self.live.inside()?, routes.clone());
        let reach = reach::of(self.rooms, &self.work, self.progress, &self.open.speaking);
        let mut router = git::router(routes).merge(tools::router(grant.clone(), wishes.clone(), reach));
        if let Some(name) = &agent.model {
            let endpoint = self.rooms.models.get(name).ok_or_else(|| {
                Failure::new(Reason::Internal, format!("the model endpoint {name} is not configured"))
            })?;
            router = router.merge(model::router(name, endpoint.clone()));
        }
        self.live.serve(router)
    }

    /// What the sandbox of a set-up reaches: git to clone from; no tools, no model. Egress of the set-up is merged in here.
    pub(super) fn open_set_up_routes(&self) -> Result<(), Failure> {
        let first = self.first()?;
        first.serve(git::router(self.git_routes()))
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
        let projects = self
            .work
            .iter()
            .map(|work| (work.admitted.grant.key.clone(), work.staging.clone()));
        Arc::new(GitRoutes::new(projects, tell))
    }
}
