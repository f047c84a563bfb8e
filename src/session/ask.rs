//! One prompt and the agent's answer to it, and the words that are told of it. Starts the agent when it does not run.

use std::sync::Arc;
use std::time::Duration;

use super::failure::Failure;
use super::prompts::Begun;
use super::publish::Words;
use super::questions::AskPeople;
use super::turn::Started;
use super::{Ready, Session, turn, usage};
use crate::agent::ask::{Ask, Permissions};
use crate::agent::{self, AgentError, ProjectBrief, Said, TurnLimits, TurnReport, prompt};
use crate::grant::{Grant, ProjectGrant};
use crate::message::{EventBody, ProjectKey};

impl Session<'_> {
    /// One prompt and the agent's answer to it.
    pub(super) async fn turn(
        &mut self,
        ready: &Ready<'_>,
        begun: &Begun,
        agent: &mut Option<Started>,
    ) -> Result<TurnReport, Failure> {
        let inside = self.live.inside()?;
        let grant = self.open.grant()?;
        let stop = &begun.stop;
        // What was added is told once; an agent that starts now is told of all.
        let untold = self.open.projects.take_untold();
        let mut briefs = self.briefs(&grant);
        let is_begun = agent.is_some();
        if is_begun {
            let is_new = |brief: &ProjectBrief| {
                untold
                    .iter()
                    .any(|key| (&key.connection, &key.path) == (&brief.connection, &brief.path))
            };
            briefs.retain(is_new);
            self.hear(ready.config, &mut briefs).await;
        }
        let told = is_begun.then(|| prompt::next(&begun.prompt, &briefs));
        let (started, prompt) = match (agent, told) {
            (Some(started), Some(prompt)) => (started, prompt),
            (agent, _) => {
                let directories: Vec<String> = grant.projects.iter().map(|project| project.directory.clone()).collect();
                let directory = turn::directory(&directories);
                let start = turn::Start {
                    config: ready.config,
                    task: self.task,
                    directory: &directory,
                    ask: self.asks(ready.config),
                };
                let saved = self.find_saved(ready, &directories).await;
                let has_memory = saved.is_some();
                // Boxed, as what is large and soon over: a session holds the room for it as long as its agent works.
                let starting = Box::pin(self.live.while_alive(turn::start(&inside, start, saved, self.progress)));
                // What an agent remembers it was told before.
                let hearing = Box::pin(async {
                    if !has_memory {
                        self.hear(ready.config, &mut briefs).await;
                    }
                });
                let started = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Err(AgentError::Cancelled.into()),
                    (started, ()) = async { tokio::join!(starting, hearing) } => started?,
                };
                self.used_saved().await;
                if has_memory && !started.loaded {
                    self.hear(ready.config, &mut briefs).await;
                }
                let prompt = if started.loaded {
                    prompt::loaded(&begun.prompt, &briefs)
                } else {
                    prompt::first(&begun.prompt, &briefs, &self.memory.history)
                };
                (agent.insert(started), prompt)
            }
        };
        let limits = TurnLimits {
            turn: grant.limits.turn,
            idle: grant.limits.idle,
            grace: Duration::from_secs(self.rooms.config.grace_s),
            wind_down: Duration::from_secs(self.rooms.config.wind_down_s),
            session_end: self.deadline,
        };
        let turn = begun.number;
        self.progress.state(EventBody::TurnStarted { turn }).await;
        // A spent budget stops the turn too, and is told from somebody's word.
        let watched = stop.child_token();
        let turning = Box::pin(self.live.while_alive(async {
            let turned = started.agent.turn(&prompt, limits, self.progress, &watched).await;
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
        }));
        let turned = usage::watched(ready.meter.as_deref(), self.progress, &watched, stop, turning).await;
        agent::tell_dropped_errors(started.dropped_errors(), self.progress).await;
        let stop_reason = match &turned {
            Ok(report) => report.stop_reason.clone(),
            Err(failure) => failure.reason.as_str().to_owned(),
        };
        self.progress.state(EventBody::TurnEnded { turn, stop_reason }).await;
        turned
    }

    /// Adds what the projects say to agents. What cannot be read is told, and stops nothing.
    async fn hear(&self, config: &agent::Config, briefs: &mut [ProjectBrief]) {
        let all = self.open.work();
        let hearing = briefs.iter_mut().map(async |brief| {
            let is_it =
                |grant: &ProjectGrant| (&grant.key.connection, &grant.key.path) == (&brief.connection, &brief.path);
            let Some(work) = all.iter().find(|work| is_it(&work.admitted.grant)) else {
                return;
            };
            let branch = &work.admitted.grant.default_branch;
            match work.staging.instructions(branch, &config.instructions).await {
                Ok(found) => {
                    let said = found.into_iter().map(|one| Said {
                        at: format!("{} (branch {branch})", one.path),
                        text: one.text,
                        note: one.note,
                    });
                    brief.said.extend(said);
                }
                Err(error) => {
                    let code = "instructions_unread".to_owned();
                    let message = format!(
                        "{}: the agent is not told what its project says to it: {error}",
                        brief.path
                    );
                    self.progress.state(EventBody::Warning { code, message }).await;
                }
            }
        });
        futures::future::join_all(hearing).await;
    }

    /// Who answers an agent that asks for leave, where people do.
    fn asks(&self, config: &agent::Config) -> Option<Arc<dyn Ask>> {
        match config.permissions {
            Permissions::Allow => None,
            Permissions::Ask => Some(Arc::new(AskPeople {
                questions: self.open.questions.clone(),
                progress: self.progress.clone(),
                steering: self.steering.clone(),
                wait: Duration::from_secs(self.rooms.config.answer_wait_s),
            })),
        }
    }

    pub(super) fn words<'w>(&'w self, ready: &'w Ready<'_>, is_whole: bool) -> Words<'w> {
        Words {
            session: self.task.session,
            publish: self.task.publish,
            title: self.task.title.as_deref(),
            is_whole,
            unreached: ready.refusals.counted(),
            agent: ready.agent.as_str(),
            user: &ready.user,
        }
    }

    /// Who asked, for people: the task's user, or the first token's.
    pub(super) fn user(&self, grant: &Grant) -> String {
        let given = self.task.user.as_ref().map(|user| user.name.clone());
        let first = || grant.projects.first().map(|project| project.identity.name.clone());
        given.or_else(first).unwrap_or_default()
    }

    fn briefs(&self, grant: &Grant) -> Vec<ProjectBrief> {
        let all = self.open.work();
        let begun = |key: &ProjectKey| {
            all.iter()
                .any(|work| work.admitted.grant.key == *key && work.expected().is_some())
        };
        let brief = |project: &ProjectGrant| ProjectBrief {
            connection: project.connection.clone(),
            path: project.key.path.clone(),
            directory: project.directory.clone(),
            branch: project.branch.to_string(),
            base: project.base.to_string(),
            change_request_word: project.forge.change_request_word(),
            begun: begun(&project.key),
            said: Vec::new(),
        };
        grant.projects.iter().map(brief).collect()
    }
}
