//! The conversation with the agent: prompts, and what is said of its work afterwards.

use std::time::Duration;

use super::failure::Failure;
use super::publish::Words;
use super::{Session, turn, usage};
use crate::agent::{self, AgentError, ProjectBrief, TurnLimits, TurnReport, prompt, sections};
use crate::gateway::egress::Refusals;
use crate::gateway::model::Meter;
use crate::grant::{Grant, ProjectGrant};
use crate::message::{AgentName, EventBody, ProjectKey};

impl Session<'_> {
    /// One prompt and the agent's answer to it.
    pub(super) async fn turn(
        &self,
        grant: &Grant,
        config: &agent::Config,
        meter: Option<&Meter>,
    ) -> Result<TurnReport, Failure> {
        let inside = self.live.inside()?;
        let directories: Vec<String> = grant.projects.iter().map(|project| project.directory.clone()).collect();
        let directory = turn::directory(&directories);
        let starting = turn::start(&inside, config, self.task, &directory, self.progress);
        let mut started = self.stoppable(self.live.while_alive(starting)).await?;
        let prompt = prompt::first(&self.task.prompt, &self.briefs(grant));
        let limits = TurnLimits {
            turn: grant.limits.turn,
            idle: grant.limits.idle,
            grace: Duration::from_secs(self.rooms.config.grace_s),
        };
        self.progress.state(EventBody::TurnStarted { turn: 1 }).await;
        let stop = self.steering.token().child_token();
        let turning = self.live.while_alive(async {
            let turned = started.agent.turn(&prompt, limits, self.progress, &stop).await;
            if matches!(turned, Err(AgentError::Ended { .. })) {
                started.settle().await;
            }
            turned.map_err(|error| {
                let ended = matches!(error, AgentError::Ended { .. } | AgentError::Answered { .. });
                let mut failure = Failure::from(error);
                if ended {
                    turn::add_last_words(&mut failure, &started.last_words());
                }
                failure
            })
        });
        let turned = usage::watched(meter, self.progress, &stop, self.steering.token(), turning).await;
        agent::tell_dropped_errors(started.dropped_errors(), self.progress).await;
        let stop_reason = match &turned {
            Ok(report) => report.stop_reason.clone(),
            Err(failure) => failure.reason.as_str().to_owned(),
        };
        self.progress.state(EventBody::TurnEnded { turn: 1, stop_reason }).await;
        turned
    }

    pub(super) fn words<'w>(&'w self, agent: &'w AgentName, grant: &'w Grant, refusals: &Refusals) -> Words<'w> {
        let user = self.task.user.as_ref().map(|user| user.name.as_str());
        Words {
            session: self.task.session,
            publish: self.task.publish,
            title: self.task.title.as_deref(),
            sections: sections::read(&self.report.answer),
            unreached: refusals.counted(),
            agent: agent.as_str(),
            user: user
                .or_else(|| grant.projects.first().map(|project| project.identity.name.as_str()))
                .unwrap_or_default(),
        }
    }

    fn briefs(&self, grant: &Grant) -> Vec<ProjectBrief> {
        let begun = |key: &ProjectKey| {
            let mut all = self.work.iter();
            all.any(|work| work.admitted.grant.key == *key && work.expected.is_some())
        };
        let brief = |project: &ProjectGrant| ProjectBrief {
            connection: project.connection.clone(),
            path: project.key.path.clone(),
            directory: project.directory.clone(),
            branch: project.branch.to_string(),
            base: project.base.to_string(),
            change_request_word: project.forge.change_request_word(),
            begun: begun(&project.key),
        };
        grant.projects.iter().map(brief).collect()
    }
}
