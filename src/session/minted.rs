//! What a session works with, decided once: the agent that the task names, and the grant. No I/O.

use super::admit::{self, Admitted};
use super::failure::Failure;
use super::{Rooms, Session, identity};
use crate::agent;
use crate::grant::{Egress, Grant, Identity};
use crate::message::{AgentName, Reason, Task};

/// The agent that the task names, or the default one.
pub(super) fn agent<'a>(rooms: &'a Rooms, task: &Task) -> Result<(AgentName, &'a agent::Config), Failure> {
    let names = || {
        let names = rooms.agents.keys().map(AgentName::to_string);
        names.collect::<Vec<_>>().join(", ")
    };
    let name = task.agent.as_ref().or(rooms.default_agent.as_ref()).ok_or_else(|| {
        let message = format!(
            "the task names no agent and this worker has no default_agent: name one of {}",
            names()
        );
        Failure::new(Reason::UnknownAgent, message)
    })?;
    let config = rooms.agents.get(name).ok_or_else(|| {
        let message = format!("this worker has no agent {name}: name one of {}", names());
        Failure::new(Reason::UnknownAgent, message)
    })?;
    Ok((name.clone(), config))
}

/// As whom an agent is credited.
pub(super) fn credited(agent: &agent::Config) -> Result<Identity, Failure> {
    identity::parse(&agent.co_author)
        .ok_or_else(|| Failure::new(Reason::Internal, "the agent's co_author is unreadable"))
}

impl Session<'_> {
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
