//! One delivery: from its body to a claim, or to whatever else becomes of it.
//!
//! Holds no delivery for the length of a session, and never lets one go without a claim, a mark or an answer that says why.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::Instrument as _;
use uuid::Uuid;

use super::controls::{self, Controls};
use super::own::{close, refused};
use super::slot::Slot;
use super::{Worker, settle, trace};
use crate::message::{Control, Event, EventBody, Reason, SessionId, Task};
use crate::queue::{Claim, Claimed, Delivery, Settle};
use crate::session;
use crate::session::failure::Failure;
use crate::session::steering::Steering;

/// How long a session that runs here may take to get its mailbox back before its task is tried.
const TAKING_BACK: Duration = Duration::from_secs(10);

impl Worker {
    /// One delivery, from its body to the end of its session.
    pub(super) async fn take_in(&self, delivery: Delivery, slot: &Arc<Slot>) {
        let task = match Task::parse(&delivery.body) {
            Ok(task) => task,
            Err(error) => {
                let session = Task::session_of(&delivery.body).unwrap_or(SessionId(Uuid::nil()));
                self.reject(session, delivery, error.code(), &error.to_string()).await;
                return;
            }
        };
        let span = trace::span(task.session, delivery.trace);
        self.take_task(task, delivery, slot).instrument(span).await;
    }

    /// A delivery that is a task.
    async fn take_task(&self, task: Task, mut delivery: Delivery, slot: &Arc<Slot>) {
        let session = task.session;
        if delivery.redelivered {
            self.rooms.metrics.broker.redelivered();
        }
        let after = task.resume.as_ref().map_or(0, |resume| resume.attempt);
        delivery.count_from(after);
        // What was taken over was claimed before, where it was allowed: whether its owner is really gone, only a claim can tell.
        if delivery.takeovers == 0
            && let Some(refused) = session::admit::in_clear(&self.rooms, &task)
        {
            self.reject(session, delivery, refused.reason.as_str(), &refused.message)
                .await;
            return;
        }
        self.let_it_take_back(session).await;
        // Whoever asks to go on waits for an answer, unless a worker asked, or the broker says it twice.
        let is_asked = task.resume.is_some() && !delivery.numbered && !delivery.redelivered;
        match self.queue.claim(session, delivery.again(after)).await {
            Ok(Claimed::Owner(claim)) if delivery.takeovers > self.rooms.config.most_takeovers => {
                self.rooms.metrics.broker.delivery("abandoned");
                let agent = task.agent.as_ref().or(self.rooms.default_agent.as_ref());
                let (reason, sessions) = (Reason::Abandoned, &self.rooms.metrics.sessions);
                let (result, reason) = (reason.result().as_str(), reason.as_str());
                sessions.finished(agent.map(AsRef::as_ref), result, reason, Duration::ZERO);
                self.give_up(session, delivery, claim).await;
            }
            Ok(Claimed::Owner(claim)) => {
                self.rooms.metrics.broker.delivery("claimed");
                if delivery.takeovers > 0 {
                    self.rooms.metrics.broker.took_over();
                }
                self.own(task, delivery, claim, slot).await;
            }
            Ok(Claimed::Elsewhere) => {
                tracing::info!(%session, "a duplicate of a task was dropped: its session runs already");
                self.rooms.metrics.broker.delivery("elsewhere");
                if is_asked {
                    self.refuse_to_resume(session, after, SUPERSEDED).await;
                }
                settle(delivery, Settle::Ack).await;
            }
            Ok(Claimed::Superseded) => {
                tracing::info!(%session, "a duplicate of a task was dropped: its session went on from there since");
                self.rooms.metrics.broker.delivery("superseded");
                if is_asked {
                    self.refuse_to_resume(session, after, SUPERSEDED).await;
                }
                settle(delivery, Settle::Ack).await;
            }
            Ok(Claimed::Over(left)) => {
                tracing::info!(%session, "a task was dropped: its session is over");
                self.rooms.metrics.broker.delivery("over");
                if task.resume.is_some() {
                    self.refuse_to_resume(session, after, OVER).await;
                }
                self.answer_leftover(session, after, &left.0).await;
                settle(delivery, Settle::Ack).await;
            }
            Err(error) => {
                tracing::warn!(%session, %error, "a session was not claimed; its task goes back");
                self.rooms.metrics.broker.delivery("returned");
                // Each return counts against the task: a broker that is unwell for a while must not use them up.
                tokio::time::sleep(pause(delivery.attempt)).await;
                settle(delivery, Settle::Return).await;
            }
        }
    }

    /// A session that runs here and lost sight of the broker takes its mailbox back by itself: its task must not be quicker.
    async fn let_it_take_back(&self, session: SessionId) {
        let Some(mut holds) = self.ownership_of(session) else {
            return;
        };
        let _ = tokio::time::timeout(TAKING_BACK, holds.wait_for(|holds| *holds)).await;
    }

    /// Whoever asks to go on with a session that cannot waits for an answer; the sender of a plain duplicate does not. It bears the attempt that
    /// was to be gone on from, so that whoever follows the one that runs heeds it not, and a number of its own.
    async fn refuse_to_resume(&self, session: SessionId, after: u32, (code, message): (&str, &str)) {
        let body = EventBody::Rejected {
            code: code.to_owned(),
            message: message.to_owned(),
        };
        self.say_aside(session, after, body).await;
    }

    /// Whoever wrote to a session that is over, into a mailbox that he made himself, waits for an answer.
    async fn answer_leftover(&self, session: SessionId, after: u32, bodies: &[Bytes]) {
        for body in bodies {
            let id = Control::parse(body).map_or_else(|_| Control::id_of(body), |control| Some(control.id));
            let body = EventBody::ControlAnswered {
                in_reply_to: self.mask.apply(&id.unwrap_or_default()),
                applied: false,
                message: controls::OVER.to_owned(),
            };
            self.say_aside(session, after, body).await;
        }
    }

    /// Says something of a session that does not run here: beside its events, with a number that none of them has.
    async fn say_aside(&self, session: SessionId, after: u32, body: EventBody) {
        let mut event = Event::now(&self.rooms.worker, session, after, 0, body);
        event.id = format!("{session}/{after}/aside-{}", Uuid::new_v4());
        if let Err(error) = self.queue.publish(&event).await {
            tracing::warn!(%session, %error, "an answer about a session that does not run here was not published");
        }
    }

    /// What is not taken goes to the dead-letter queue, and its sender is told why.
    async fn reject(&self, session: SessionId, delivery: Delivery, code: &str, message: &str) {
        let (code, message) = (code.to_owned(), self.mask.apply(message));
        tracing::warn!(%session, code, "a task was refused: {message}");
        self.rooms.metrics.broker.delivery("dead_lettered");
        let body = EventBody::Rejected {
            code: code.clone(),
            message: message.clone(),
        };
        let mut event = Event::now(&self.rooms.worker, session, delivery.attempt, 1, body);
        event.trace = delivery.trace;
        if let Err(error) = self.queue.publish(&event).await {
            tracing::warn!(%session, %error, "the rejection of a task was not published");
        }
        settle(delivery, Settle::DeadLetter { code, message }).await;
    }

    /// A task whose every worker died. It may be the task that kills them: it goes where it kills nobody, with the reason.
    async fn give_up(&self, session: SessionId, delivery: Delivery, mut claim: Box<dyn Claim>) {
        let reason = Reason::Abandoned;
        let message = format!(
            "{} workers died while they had this session: look into their logs before you send it again",
            delivery.takeovers
        );
        tracing::error!(%session, "{message}");
        let progress = self.progress(session, claim.attempt(), self.mask.clone());
        let progress = Arc::new(progress.traced(delivery.trace));
        Controls::new(Steering::default(), progress.clone(), None)
            .refuse_the_rest(claim.as_mut(), controls::OVER)
            .await;
        let body = EventBody::Finished {
            outcome: refused(Failure::new(reason, message.clone())),
        };
        if let Err(error) = progress.finish(body).await {
            tracing::warn!(%session, %error, "the end of an abandoned session was not published; its task comes again");
            settle(delivery, Settle::Return).await;
            return;
        }
        let code = reason.as_str().to_owned();
        settle(delivery, Settle::DeadLetter { code, message }).await;
        close(session, claim).await;
    }
}

/// What a task that would go on with a session is told that is over.
const OVER: (&str, &str) = (
    "session_over",
    "this session is over and cannot go on: send a task with a new session id",
);
/// The same where it went on already.
const SUPERSEDED: (&str, &str) = (
    "superseded",
    "this session went on already from where the task would: send the prompt as a control message, or, when the session rests again, with the \
     `resume` of its last event `suspended`",
);

/// How long a task that could not be claimed is kept before it goes back, by how often it came.
fn pause(attempt: u32) -> Duration {
    Duration::from_secs(u64::from(attempt.clamp(1, 15)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_comes_again_and_again_is_kept_longer_each_time_up_to_a_bound() {
        let pauses: Vec<u64> = [0, 1, 2, 14, 15, 16, u32::MAX].map(|n| pause(n).as_secs()).into();
        assert_eq!(pauses, [1, 1, 2, 14, 15, 15, 15]);
    }
}
