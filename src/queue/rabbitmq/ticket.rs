//! Finds sessions whose owner died. Each running session has one ticket: its task, resting in a queue whose messages expire into another,
//! where any worker looks whether the session's mailbox still has its consumer.
//!
//! Never takes a session over itself: it puts the task back, a higher attempt, and whoever has a free slot claims it. Nothing is renewed by
//! the owner, so an owner that hangs without losing its connection is not found here; the session's own limits end it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::watch;
use tokio::time::sleep;

use super::super::{Again, QueueError};
use super::address::Settings;
use super::connection::{Failure, Link, Live, limited};
use super::consume::{ATTEMPT, TAKEOVERS, TRACE, number, trace};
use super::publish::{Publisher, properties, short};
use super::topology::{self, Marked, text};
use crate::message::SessionId;

/// How often in a row an owner is missed before it is taken for dead. The first miss may be its reconnecting.
const MISSES: u32 = 2;
/// The headers of a ticket.
const MISSED: &str = "cofferdam-misses";
const LANE: &str = "cofferdam-lane";
const AFTER: &str = "cofferdam-after";
/// Pause after a failed look.
const PAUSE: Duration = Duration::from_secs(1);

/// One ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    session: SessionId,
    again: Again,
    misses: u32,
}

/// What a look at a session found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It has ended, or went on with another task: no ticket any more.
    Drop,
    /// Its owner is there, or was not missed often enough: another ticket with this many misses.
    Rest(u32),
    /// Its owner is dead.
    Abandoned,
}

/// What follows from the marks, the number of consumers of the mailbox, and the misses so far.
fn judge(marked: Marked, consumers: Option<u32>, misses: u32) -> Verdict {
    match consumers {
        _ if marked != Marked::No => Verdict::Drop,
        Some(1..) => Verdict::Rest(0),
        Some(0) | None if misses.saturating_add(1) < MISSES => Verdict::Rest(misses.saturating_add(1)),
        Some(0) | None => Verdict::Abandoned,
    }
}

impl Ticket {
    pub(super) fn new(session: SessionId, again: Again) -> Self {
        Self {
            session,
            again,
            misses: 0,
        }
    }

    /// Lays it down. Confirmed.
    pub(super) async fn issue(&self, settings: &Settings, publisher: &Publisher) -> Result<(), QueueError> {
        let mut headers = self.headers(self.again.attempt, self.again.takeovers);
        headers.insert(MISSED.into(), AMQPValue::LongUInt(self.misses));
        headers.insert(LANE.into(), text(&self.again.lane));
        headers.insert(AFTER.into(), AMQPValue::LongUInt(self.again.after));
        self.put(&settings.names.tickets, headers, publisher).await
    }

    /// Puts the task back, for its next attempt.
    async fn begin_again(&self, settings: &Settings, publisher: &Publisher) -> Result<(), QueueError> {
        let again = Again {
            attempt: self.again.attempt.saturating_add(1),
            takeovers: self.again.takeovers.saturating_add(1),
            ..self.again.clone()
        };
        Self::new(self.session, again).queue(settings, publisher).await
    }

    /// Queues its task as it is. Confirmed.
    pub(super) async fn queue(&self, settings: &Settings, publisher: &Publisher) -> Result<(), QueueError> {
        let again = &self.again;
        let headers = self.headers(again.attempt, again.takeovers);
        // A lane that this worker does not know may have been taken out of the configuration since.
        let lanes = &settings.names.lanes;
        let lane = lanes.iter().find(|lane| **lane == again.lane).or(lanes.first());
        let lane = lane.map_or(again.lane.as_str(), String::as_str);
        self.put(lane, headers, publisher).await
    }

    fn headers(&self, attempt: u32, takeovers: u32) -> FieldTable {
        let mut headers = FieldTable::default();
        headers.insert(ATTEMPT.into(), AMQPValue::LongUInt(attempt));
        headers.insert(TAKEOVERS.into(), AMQPValue::LongUInt(takeovers));
        if let Some(trace) = self.again.trace {
            headers.insert(TRACE.into(), text(&trace.to_string()));
        }
        headers
    }

    async fn put(&self, queue: &str, headers: FieldTable, publisher: &Publisher) -> Result<(), QueueError> {
        let properties = properties(true)
            .with_headers(headers)
            .with_content_type("application/json".into())
            .with_correlation_id(short(&self.session.to_string()));
        publisher
            .put(queue, &self.again.body, properties)
            .await
            .map_err(|detail| QueueError::Publish {
                what: format!("the ticket of {}", self.session),
                detail,
            })
    }

    /// Reads one that came back; `None` when it is none.
    fn read(body: Bytes, properties: &BasicProperties) -> Option<Self> {
        let session = properties.correlation_id().as_ref()?.as_str().parse().ok()?;
        let AMQPValue::LongString(lane) = properties.headers().as_ref()?.inner().get(LANE)? else {
            return None;
        };
        let lane = std::str::from_utf8(lane.as_bytes()).ok()?.to_owned();
        Some(Self {
            session,
            again: Again {
                body,
                lane,
                attempt: number(properties, ATTEMPT)?,
                takeovers: number(properties, TAKEOVERS)?,
                after: number(properties, AFTER)?,
                rests: true,
                trace: trace(properties),
            },
            misses: number(properties, MISSED)?,
        })
    }

    /// Looks after its session and does what follows. Repeating it is harmless: a second ticket lasts as long as the session, and a second task
    /// is dropped as a duplicate.
    async fn look(&self, settings: &Settings, live: &Live, publisher: &Publisher) -> Result<(), LookError> {
        let names = &settings.names;
        let marked = topology::marked(live, settings, self.session, self.again.after).await?;
        let consumers = match marked {
            Marked::Over | Marked::Superseded => None,
            Marked::No => topology::consumers(live, settings, &names.mailbox(self.session)).await?,
        };
        match judge(marked, consumers, self.misses) {
            Verdict::Drop => Ok(()),
            Verdict::Rest(misses) => {
                let next = Self { misses, ..self.clone() };
                Ok(next.issue(settings, publisher).await?)
            }
            Verdict::Abandoned => {
                tracing::warn!(session = %self.session, attempt = self.again.attempt, "a session's owner is gone; its task goes back");
                Ok(self.begin_again(settings, publisher).await?)
            }
        }
    }
}

/// Why a look came to nothing. The ticket is looked at again.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("{0}")]
    Ask(Failure),
    #[error(transparent)]
    Publish(#[from] QueueError),
}

impl From<Failure> for LookError {
    fn from(failure: Failure) -> Self {
        Self::Ask(failure)
    }
}

/// Looks after tickets until `stopped`.
pub(super) async fn check(
    settings: Arc<Settings>,
    link: Arc<Link>,
    publisher: Arc<Publisher>,
    mut stopped: watch::Receiver<bool>,
) {
    let checking = async {
        loop {
            let live = link.connected().await;
            tokio::select! {
                failure = follow(&settings, &live, &publisher) => tracing::warn!(%failure, "the owners of sessions are not looked after"),
                () = link.lost(live.generation) => {}
            }
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = checking => {}
    }
}

/// One ticket at a time. Ends with the first failure, and what was not acknowledged comes again.
async fn follow(settings: &Settings, live: &Live, publisher: &Publisher) -> LookError {
    let following = async {
        let channel = live.channel(settings).await?;
        limited(settings.call_timeout, channel.basic_qos(1, BasicQosOptions::default())).await?;
        let queue = settings.names.checks.as_str();
        let consume = channel.basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut consumer = limited(settings.call_timeout, consume).await?;
        while let Some(message) = consumer.next().await {
            let message = message.map_err(Failure::from)?;
            match Ticket::read(message.data.into(), &message.properties) {
                Some(ticket) => ticket.look(settings, live, publisher).await?,
                None => tracing::warn!("something that is no ticket was among the tickets; it is dropped"),
            }
            limited(settings.call_timeout, message.acker.ack(BasicAckOptions::default())).await?;
        }
        Err(LookError::Ask(
            lapin::Error::from(lapin::ErrorKind::FutureCompleted).into(),
        ))
    };
    let ended: Result<std::convert::Infallible, LookError> = following.await;
    match ended {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_dead_when_it_is_missed_twice_in_a_row_and_nothing_says_that_it_may_be_gone() {
        for (marked, consumers, misses, verdict) in [
            (Marked::Over, Some(1), 0, Verdict::Drop),
            (Marked::Over, None, 1, Verdict::Drop),
            (Marked::Superseded, None, 1, Verdict::Drop),
            // The owner that is there has a ticket of its own.
            (Marked::Superseded, Some(1), 0, Verdict::Drop),
            (Marked::No, Some(1), 0, Verdict::Rest(0)),
            (Marked::No, Some(1), 1, Verdict::Rest(0)),
            (Marked::No, Some(0), 0, Verdict::Rest(1)),
            (Marked::No, None, 0, Verdict::Rest(1)),
            (Marked::No, Some(0), 1, Verdict::Abandoned),
            (Marked::No, None, 1, Verdict::Abandoned),
            (Marked::No, None, u32::MAX, Verdict::Abandoned),
        ] {
            assert_eq!(
                judge(marked, consumers, misses),
                verdict,
                "{marked:?} {consumers:?} {misses}"
            );
        }
    }

    #[test]
    fn what_is_no_ticket_is_not_read_as_one() {
        assert_eq!(Ticket::read(Bytes::new(), &BasicProperties::default()), None);
        let half = BasicProperties::default().with_correlation_id("0190c2f0-7c1e-7000-8000-000000000001".into());
        assert_eq!(Ticket::read(Bytes::new(), &half), None);
    }
}
