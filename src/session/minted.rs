//! What a session works with, decided once: the agent that the task names, and the grant. No I/O.

use super::Session;
use super::admit::{self, Admitted};
use super::failure::Failure;
use crate::agent;
use crate::grant::{Egress, Grant, Identity};
use crate::message::{AgentName, Reason};

impl<'a> Session<'a> {
    /// The agent that the task names, or the default one.
    pub(super) fn agent(&self) -> Result<(AgentName, &'a agent::Config), Failure> {
        let names = || {
            self.rooms
                .agents
                .keys()
                .map(AgentName::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let name = self
            .task
            .agent
            .as_ref()
            .or(self.rooms.default_agent.as_ref())
            .ok_or_else(|| {
                let message = format!(
                    "the task names no agent and this worker has no default_agent: name one of {}",
                    names()
                );
                Failure::new(Reason::UnknownAgent, message)
            })?;
        let config = self.rooms.agents.get(name).ok_or_else(|| {
            Failure::new(
                Reason::UnknownAgent,
                format!("this worker has no agent {name}: name one of {}", names()),
            )
        })?;
        Ok((name.clone(), config))
    }

    /// The authority of this session, from what the forges answered.
    pub(super) fn mint(&self, admitted: &[Admitted], agent: &Identity, egress: Egress) -> Grant {
        Grant {
            session: self.task.session,
            projects: admitted.iter().map(|one| one.grant.clone()).collect(),
            trailers: admit::trailers(self.task, admitted, agent),
            publish: self.task.publish,
            uncommitted: self.task.uncommitted,
            may_comment: self.task.comment,
            egress,
            limits: admit::limits(self.rooms, self.task),
        }
    }
}
