//! One turn of a started agent: the prompt, the wait for its answer within the turn's times, and what is done when one of them is reached.
//!
//! The protocol has no way to say something to an agent that works. So its prompt is cancelled a while before the end, and another one of the
//! same turn tells it to commit what it has. An agent that does not heed the cancel keeps its whole time.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::asking::Waits;
use super::clock::Clock;
use super::{AcpAgent, Error, Prompt, described};
use crate::agent::{Agent, AgentError, TurnLimits, TurnReport, prompt};
use crate::message::EventBody;
use crate::progress::Progress;

/// An answer on its way.
type Answer = oneshot::Receiver<Result<String, Error>>;

/// What a prompt came to.
enum Came {
    /// The agent answered.
    Answered(Result<String, Error>),
    /// It is gone.
    Gone(AgentError),
    /// It is to be stopped.
    Stop(AgentError),
    /// It is to be told that its time is nearly over.
    WindDown,
}

#[async_trait]
impl Agent for AcpAgent {
    async fn turn(
        &mut self,
        prompt: &str,
        limits: TurnLimits,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<TurnReport, AgentError> {
        self.said.clear();
        self.replay.over();
        let mut waits = self.asking.watch();
        let mut answer = self.give(prompt).await?;
        let clock = Clock::start(Instant::now(), limits);
        let mut came = self.wait(&mut answer, &clock, &mut waits, cancel, true).await;
        if matches!(came, Came::WindDown) {
            came = self
                .wind_down(answer, &clock, &mut waits, (progress, cancel), limits)
                .await?;
        }
        // Whoever still asks people asks for a turn that is over.
        self.asking.end();
        match came {
            Came::Answered(Ok(stop_reason)) => Ok(TurnReport {
                stop_reason,
                answer: self.said.take(),
            }),
            Came::Answered(Err(error)) => Err(described(&error)),
            Came::Gone(error) | Came::Stop(error) => Err(error),
            Came::WindDown => Err(AgentError::TurnTimeout { after: limits.turn }),
        }
    }

    fn is_usable(&self) -> bool {
        self.is_usable
    }
}

impl AcpAgent {
    /// Hands a prompt to the agent.
    async fn give(&mut self, prompt: &str) -> Result<Answer, AgentError> {
        self.is_usable = false;
        let (answer, receiver) = oneshot::channel();
        self.asking.begin();
        let prompt = Prompt {
            text: prompt.to_owned(),
            answer,
        };
        self.prompts.send(prompt).await.map_err(|_| gone())?;
        Ok(receiver)
    }

    /// Waits for the answer. An agent that must stop was told so and had its grace when this returns.
    async fn wait(
        &mut self,
        answer: &mut Answer,
        clock: &Clock,
        waits: &mut watch::Receiver<Waits>,
        cancel: &CancellationToken,
        tells: bool,
    ) -> Came {
        let limits = clock.limits();
        let stop = loop {
            let waited = *waits.borrow_and_update();
            let heard = *self.heard.borrow_and_update();
            let told_at = tells.then(|| clock.wind_down(&waited)).flatten();
            tokio::select! {
                outcome = &mut *answer => {
                    self.is_usable = outcome.is_ok();
                    return outcome.map_or_else(|_| Came::Gone(gone()), Came::Answered);
                }
                changed = self.heard.changed() => {
                    if changed.is_err() {
                        return last_word(answer).await;
                    }
                }
                // The sender lives in `self`.
                Ok(()) = waits.changed() => {}
                () = cancel.cancelled() => break AgentError::Cancelled,
                () = at(clock.end(&waited)) => break AgentError::TurnTimeout { after: limits.turn },
                () = at(clock.stall(heard, &waited)) => break AgentError::Stalled { after: limits.idle },
                () = at(told_at) => return Came::WindDown,
            }
        };
        self.cancel();
        // After our own cancel any answer means "cancelled": some agents answer with an error.
        let answered = timeout(limits.grace, answer).await;
        self.is_usable = matches!(answered, Ok(Ok(_)));
        Came::Stop(stop)
    }

    /// Interrupts the agent and tells it to commit what it has. It keeps its time where it does not heed that.
    async fn wind_down(
        &mut self,
        mut answer: Answer,
        clock: &Clock,
        waits: &mut watch::Receiver<Waits>,
        (progress, cancel): (&Progress, &CancellationToken),
        limits: TurnLimits,
    ) -> Result<Came, AgentError> {
        self.cancel();
        match self.wait(&mut answer, clock, waits, cancel, false).await {
            Came::Answered(_) => {}
            came @ (Came::Gone(_) | Came::Stop(_) | Came::WindDown) => return Ok(came),
        }
        let waited = *waits.borrow();
        let timed_out = AgentError::TurnTimeout { after: limits.turn };
        let Some(left) = clock.left(Instant::now(), &waited) else {
            return Ok(Came::Stop(timed_out));
        };
        let seconds = left.as_secs();
        let whose = if clock.is_session_nearer(&waited) {
            "session"
        } else {
            "turn"
        };
        let message = format!(
            "the {whose} ends in {seconds} s: the agent was interrupted and told to commit what it has (session.wind_down_s)"
        );
        let code = "time_is_short".to_owned();
        progress.state(EventBody::Warning { code, message }).await;
        let mut answer = self.give(&prompt::wind_down(seconds)).await?;
        let came = self.wait(&mut answer, clock, waits, cancel, false).await;
        let session_is_nearer = clock.is_session_nearer(&waits.borrow());
        // It had no time left to do better.
        let gave_up = matches!(
            came,
            Came::Answered(Err(_)) | Came::Gone(_) | Came::Stop(AgentError::Stalled { .. })
        );
        Ok(if gave_up && !session_is_nearer {
            Came::Stop(timed_out)
        } else {
            came
        })
    }

    /// Tells the agent to stop; whoever waits for people for it is told first.
    fn cancel(&self) {
        self.asking.end();
        let _ = self.cancels.try_send(());
    }
}

/// What an agent said last whose output has ended: the answer may have been its last line.
async fn last_word(answer: &mut Answer) -> Came {
    match timeout(Duration::from_secs(1), answer).await {
        Ok(Ok(Ok(stop_reason))) => Came::Answered(Ok(stop_reason)),
        Ok(Ok(Err(error))) if !error.message.is_empty() && i32::from(error.code) != -32603 => {
            Came::Gone(described(&error))
        }
        Ok(_) | Err(_) => Came::Gone(gone()),
    }
}

fn gone() -> AgentError {
    AgentError::Ended { detail: String::new() }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
