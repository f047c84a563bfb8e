//! The conversation with the agent, turn by turn: prompt, work, publish, and then the next prompt, a wait for one, or the end.
//!
//! The turns obey the session's deadline; publishing does not, because cut in the middle it would leave a change request that nobody names.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::failure::Failure;
use super::prompts::Begun;
use super::publish::{Left, Publishing};
use super::steering::Cause;
use super::turn::Started;
use super::verdict::{bounded, fold};
use super::{Ready, Refused, Rooms, Session, admit, stopped, workspace};
use crate::agent::sections;
use crate::message::event::Stage;
use crate::message::outcome::Outcome;
use crate::message::resume::LONGEST_MEMORY;
use crate::message::{EventBody, ProjectOutcome, Reason, Task};
use crate::metrics::Awaits;

/// How a session gives its slot back.
pub(super) enum Close {
    /// It is over.
    Finished(Reason, String, Vec<ProjectOutcome>),
    /// It goes on later: at once elsewhere with this prompt, or with the next one.
    Suspended {
        message: String,
        projects: Vec<ProjectOutcome>,
        next: Option<String>,
        /// It lost its engine: another attempt counts.
        is_lost: bool,
    },
}

/// What a turn left to be published.
struct Worked {
    refused: Refused,
    /// What was asked and not answered to its end, because the worker stops.
    interrupted: Option<String>,
}

impl Session<'_> {
    /// Turns until nothing is asked any more.
    pub(super) async fn talk(&mut self, ready: &Ready<'_>, deadline: Instant) -> Close {
        let mut agent = None;
        let mut projects = None;
        loop {
            let mut interrupted = None;
            if self.open.prompts.is_waiting() {
                self.settle(deadline).await;
            }
            if let Some(begun) = self.open.prompts.begin(self.steering.token()) {
                self.enter(Stage::Turn).await;
                let worked = timeout_at(deadline, self.exchange(ready, &begun, &mut agent)).await;
                self.open.prompts.ended();
                let worked = match worked.unwrap_or_else(|_| Err(self.out_of_time())) {
                    Ok(worked) => worked,
                    Err(failure) => return Box::pin(self.broke(failure)).await,
                };
                interrupted = worked.interrupted;
                let published = self.publish(ready, worked.refused).await;
                if interrupted.is_none() {
                    self.turn_is_done(&published).await;
                }
                projects = Some(published);
            }
            let mut closing = self.steering.cause().is_some();
            if !closing && !self.open.prompts.is_waiting() {
                if let Some(projects) = &projects {
                    self.tell_unpublished(projects).await;
                }
                match self.idle(ready, deadline).await {
                    Ok(()) => closing = self.steering.cause().is_some() || self.open.prompts.close_if_empty(),
                    Err(failure) => {
                        let projects = self.outcomes(ready, projects.take()).await;
                        let left = self.open.prompts.close(None);
                        return Close::Finished(failure.reason, without(failure.message, left.is_some()), projects);
                    }
                }
            }
            if closing {
                let projects = self.outcomes(ready, projects.take()).await;
                let close = self.close(interrupted.as_deref(), projects);
                if let Close::Suspended { .. } = &close {
                    Box::pin(self.put_away(ready, agent.take())).await;
                }
                return close;
            }
        }
    }

    /// Whoever goes on, should this worker die, does not ask it again. What could not reach a forge for now would be lost by that.
    async fn turn_is_done(&self, projects: &[ProjectOutcome]) {
        let is_settled = |project: &ProjectOutcome| {
            project.reason == Reason::Disconnected
                || matches!(project.reason.result(), Outcome::Success | Outcome::Failure)
        };
        let is_published = projects.iter().all(is_settled);
        self.open.prompts.done(&self.memory.history, is_published);
        self.steering.noted().await;
    }

    /// A project that was sent before a prompt is there when that is given.
    async fn settle(&self, deadline: Instant) {
        tokio::select! {
            () = self.steering.token().cancelled() => {}
            // A time that is over is seen by what comes next.
            _ = timeout_at(deadline, self.open.adding.settled()) => {}
        }
    }

    /// Waits for a prompt, where the task wants that; returns when one came, the time is over, or the session is told to stop.
    async fn idle(&mut self, ready: &Ready<'_>, deadline: Instant) -> Result<(), Failure> {
        let Some(limit) = ready.idle else { return Ok(()) };
        self.leave(None);
        let _waits = self.steering.waits(Awaits::Prompt);
        let alive = self.live.while_alive(async {
            tokio::select! {
                () = self.open.prompts.came() => Ok(()),
                () = self.steering.token().cancelled() => Ok(()),
                // Whoever adds a project has something in mind for it.
                () = async { sleep(limit).await; self.open.adding.settled().await } => Ok(()),
            }
        });
        match timeout_at(deadline, alive).await {
            // A sandbox that ends while nothing is done in it takes nothing with it: all that was committed is taken.
            Ok(waited) => {
                if let Err(failure) = waited {
                    tracing::info!(session = %self.task.session, "the sandbox of an idle session ended: {}", failure.message);
                    self.steering.stop(Cause::Drain);
                }
                Ok(())
            }
            Err(_) => Err(self.out_of_time()),
        }
    }

    /// How the session ends, when nothing of it went wrong.
    fn close(&self, interrupted: Option<&str>, projects: Vec<ProjectOutcome>) -> Close {
        let next = self.open.prompts.close(interrupted);
        let is_open_ended = idle_timeout(self.rooms, self.task).is_some();
        let suspended = |message: &str, projects: Vec<ProjectOutcome>, next| Close::Suspended {
            message: with_kept(message, &projects),
            projects,
            next,
            is_lost: false,
        };
        match self.steering.cause() {
            Some(Cause::Drain) if next.is_some() => suspended(
                "the worker stops; another goes on with the session from its branch",
                projects,
                next,
            ),
            Some(Cause::Drain | Cause::WorkerStopped) | None if next.is_none() && is_open_ended => suspended(
                "no prompt waits: the session goes on when the next one comes",
                projects,
                None,
            ),
            Some(Cause::Discard) => Close::Finished(
                Reason::Cancelled,
                without("a control message ended the session".to_owned(), next.is_some()),
                projects,
            ),
            Some(Cause::WorkerStopped) if next.is_some() => {
                let failure = stopped(self.steering);
                Close::Finished(failure.reason, without(failure.message, true), projects)
            }
            Some(Cause::Publish | Cause::OwnershipLost | Cause::WorkerStopped | Cause::Drain) | None => {
                let (reason, message, projects) = fold(projects);
                Close::Finished(reason, without(message, next.is_some()), projects)
            }
        }
    }

    /// After a failure: the work is kept, and what a stopping worker could not begin is handed on.
    pub(super) async fn broke(&mut self, failure: Failure) -> Close {
        self.open.adding.end().await;
        if failure.is_engine_away {
            self.rooms.engine_health.lost();
        }
        if failure.reason == Reason::SandboxUnavailable
            && self.steering.has_another()
            && matches!(self.steering.cause(), None | Some(Cause::Drain))
        {
            let (next, history) = self.open.prompts.close_undone();
            if let Some(next) = next {
                self.memory.history = history;
                return self.begin_again(&failure, next).await;
            }
        }
        let left = self.open.prompts.is_one_left();
        let next = self.open.prompts.close(None);
        let next =
            next.filter(|_| self.steering.cause() == Some(Cause::Drain) && failure.reason == Reason::WorkerStopped);
        let projects = self.keep_work(&failure, next.is_some()).await;
        match next {
            Some(next) => Close::Suspended {
                message: with_kept("the worker stops; another goes on with the session", &projects),
                projects,
                next: Some(next),
                is_lost: false,
            },
            None => Close::Finished(failure.reason, without(failure.message, left), projects),
        }
    }

    /// The engine went away, or took the sandbox away: neither the task nor the agent is to blame, so the session begins anew from its branch.
    async fn begin_again(&self, failure: &Failure, next: String) -> Close {
        tracing::warn!(session = %self.task.session, "another attempt is made: {}", failure.message);
        let projects = self.keep_work(failure, true).await;
        Close::Suspended {
            message: with_kept(
                "the container engine went away, or the cluster took the sandbox away: another attempt goes on with the session from its branch",
                &projects,
            ),
            projects,
            next: Some(next),
            is_lost: true,
        }
    }

    async fn outcomes(&mut self, ready: &Ready<'_>, projects: Option<Vec<ProjectOutcome>>) -> Vec<ProjectOutcome> {
        self.open.adding.end().await;
        match projects {
            // None came since.
            Some(projects) if projects.len() == self.open.work().len() => projects,
            _ if self.steering.cause() == Some(Cause::OwnershipLost) => Vec::new(),
            // No turn was given, to a project at least: this says so.
            _ => self.publish(ready, Refused::default()).await,
        }
    }

    /// One prompt, the agent's answer, and everything that it committed taken into staging.
    async fn exchange(
        &mut self,
        ready: &Ready<'_>,
        begun: &Begun,
        agent: &mut Option<Started>,
    ) -> Result<Worked, Failure> {
        self.loadable = None;
        let turned = self.turn(ready, begun, agent).await;
        self.learn(agent.as_ref());
        let (answer, was_stopped) = match turned {
            Ok(report) => {
                let answer = report.answer.clone();
                self.report = report;
                (answer, false)
            }
            Err(failure) if failure.reason == Reason::Cancelled && begun.stop.is_cancelled() => (String::new(), true),
            Err(failure) => return Err(failure),
        };
        let interrupted = match self.steering.cause() {
            None | Some(Cause::Publish) => None,
            Some(Cause::Drain) => was_stopped.then(|| begun.prompt.clone()),
            Some(Cause::Discard | Cause::WorkerStopped | Cause::OwnershipLost) => return Err(stopped(self.steering)),
        };
        let keys: Vec<_> = self
            .open
            .work()
            .iter()
            .map(|work| work.admitted.grant.key.clone())
            .collect();
        self.told.turn(&keys, &sections::read(&answer), &ready.wishes);
        if interrupted.is_none() {
            let prompt = self.progress.masked(&begun.prompt);
            // What an answer comes to stands at its end.
            let answer = bounded(self.progress.masked(&answer), LONGEST_MEMORY);
            self.memory.remember(&prompt, &answer);
        }
        let goes_on = self.steering.cause().is_none() && (self.open.prompts.is_waiting() || ready.idle.is_some());
        let stays = goes_on && agent.as_ref().is_some_and(|started| started.agent.is_usable());
        let agent_is = if stays {
            workspace::Agent::Stays
        } else {
            self.let_go(ready.config, agent.take()).await;
            workspace::Agent::Ends
        };
        let title = admit::title_of(self.task, &begun.prompt, begun.number);
        let grant = self.open.grant()?;
        let collecting = self.collect(&grant, (&title, &answer), agent_is);
        let refused = Box::pin(self.live.while_alive(collecting)).await?;
        if !refused.is_empty()
            && let Some(place) = self.live.full().await
        {
            let message = format!(
                "{place} in the sandbox is full and not everything could be committed: ask for less at a time, or let the operator raise \
                 sandbox.workspace_bytes"
            );
            return Err(Failure::new(Reason::DiskFull, message));
        }
        Ok(Worked { refused, interrupted })
    }

    /// staging -> publish.
    async fn publish(&mut self, ready: &Ready<'_>, refused: Refused) -> Vec<ProjectOutcome> {
        self.enter(Stage::Publish).await;
        self.steering.publishes(true);
        let work = self.open.work();
        let is_whole = self.open.prompts.begun() > 1 || work.iter().any(|work| work.began_at.is_some());
        let publishing = Publishing {
            rooms: self.rooms,
            progress: self.progress,
            steering: self.steering,
            open: self.open,
            words: self.words(ready, is_whole),
        };
        let published = publishing
            .all(&work, |work| {
                let key = &work.admitted.grant.key;
                Left {
                    wish: ready.wishes.get(key),
                    sections: self.told.whole(key),
                    refused: refused.get(key).cloned(),
                }
            })
            .await;
        self.steering.publishes(false);
        published
    }

    /// Before the session goes on: what did not reach a forge. When it ends its outcome says so.
    async fn tell_unpublished(&self, projects: &[ProjectOutcome]) {
        if idle_timeout(self.rooms, self.task).is_none() {
            return;
        }
        for project in projects {
            if matches!(
                project.reason,
                Reason::Published | Reason::Kept | Reason::NothingToPublish
            ) {
                continue;
            }
            let code = project.reason.as_str().to_owned();
            let message = format!("{}: {}", project.project, project.message);
            self.progress.state(EventBody::Warning { code, message }).await;
        }
    }

    pub(super) fn out_of_time(&self) -> Failure {
        let message = format!(
            "the session reached its limit of {} s: ask for less at a time, or for more time (limits.session_s, session.session_s)",
            admit::limits(self.rooms, self.task).session.as_secs()
        );
        Failure::new(Reason::SessionTimeout, message)
    }
}

/// Adds that something was accepted and is not done.
fn without(message: String, prompts_left: bool) -> String {
    if prompts_left {
        message + "; what waited to be asked was not asked any more"
    } else {
        message
    }
}

/// Adds what only this worker's disk holds: it does not travel with the session.
fn with_kept(message: &str, projects: &[ProjectOutcome]) -> String {
    let kept: Vec<&str> = projects.iter().filter_map(|project| project.kept.as_deref()).collect();
    if kept.is_empty() {
        return message.to_owned();
    }
    format!(
        "{message}; commits that are not on a forge stay on this worker as {} and are not in the branch that is gone on from",
        kept.join(", ")
    )
}

/// How long the session waits for another prompt; not at all where the task does not ask for it.
pub(super) fn idle_timeout(rooms: &Rooms, task: &Task) -> Option<Duration> {
    let asked = task.idle_timeout_s.unwrap_or(0).min(rooms.config.idle_timeout_s);
    (asked > 0).then(|| Duration::from_secs(asked))
}
