//! The seam to the broker: tasks come in, events go out, and a session's mailbox is what makes a worker its owner.
//!
//! Never looks into a body. `rabbitmq` is the real one, `memory` serves `exec` and the demo.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::message::{Event, SessionId, TraceParent};

pub mod memory;
pub mod rabbitmq;

/// A message that asks for a session, not yet acknowledged.
#[derive(Debug)]
pub struct Delivery {
    /// The body as it came.
    pub body: Bytes,
    /// The task queue that it came from.
    pub lane: String,
    /// Which attempt this is, from 1: at the session where `numbered`, otherwise at the task.
    pub attempt: u32,
    /// Whether a worker put it there and wrote the session's attempt into it.
    pub numbered: bool,
    /// How often an owner of the session died; see [`Again`].
    pub takeovers: u32,
    /// Whether the broker handed it out before.
    pub redelivered: bool,
    /// The trace that it came with.
    pub trace: Option<TraceParent>,
    /// Settles it; see [`Settle`].
    pub handle: Box<dyn SettleHandle>,
}

/// What another worker needs to begin a session again when its owner dies: the broker keeps it for as long as the session lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// The task's body.
    pub body: Bytes,
    /// The task queue that it came from, and would go back to.
    pub lane: String,
    /// The attempt that runs.
    pub attempt: u32,
    /// How often an owner died before.
    pub takeovers: u32,
    /// The attempt that the task goes on from; 0 for one that begins a session. Everything that came of one task has the same, and no two
    /// tasks of a session that are both right have.
    pub after: u32,
    /// Whether it is kept where another worker has the session: it may be all that is left of it when that one dies.
    pub rests: bool,
    /// The trace that the task came with.
    pub trace: Option<TraceParent>,
}

impl Delivery {
    /// Counts attempts on from the one that the task goes on from. Once.
    pub fn count_from(&mut self, after: u32) {
        if !self.numbered {
            self.attempt = self.attempt.saturating_add(after);
        }
    }

    /// What is kept of it while its session runs; `after` is [`Again::after`].
    #[must_use]
    pub fn again(&self, after: u32) -> Again {
        Again {
            body: self.body.clone(),
            lane: self.lane.clone(),
            attempt: self.attempt,
            takeovers: self.takeovers,
            after,
            // What a sender sent once is a duplicate where the session runs; he has it still, and is told.
            rests: self.takeovers > 0 || (after > 0 && (self.numbered || self.redelivered)),
            trace: self.trace,
        }
    }
}

/// What becomes of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settle {
    /// Done: the session is claimed and lives on without the delivery, or the task is a duplicate.
    Ack,
    /// Not taken: any worker may have it.
    Return,
    /// Not a task: to the dead-letter queue, with the reason.
    DeadLetter {
        /// A stable word.
        code: String,
        /// The sentence.
        message: String,
    },
}

/// Settles one delivery, once.
#[async_trait]
pub trait SettleHandle: Send + Sync + std::fmt::Debug {
    /// Settles the delivery. An error means that the broker will hand it out again.
    async fn settle(self: Box<Self>, settle: Settle) -> Result<(), QueueError>;
}

/// A control message that a claim gave.
#[derive(Debug, Clone)]
pub struct Given {
    /// Its body as it came.
    pub body: Bytes,
    /// What it is given back by; see [`Claim::taken`].
    pub receipt: Receipt,
}

/// Stands for one message of one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Receipt(pub u64);

/// Ownership of a session: holds as long as this value lives and the broker is reachable.
#[async_trait]
pub trait Claim: Send + Sync + std::fmt::Debug {
    /// Which attempt at the session this is: higher than that of any claim of it before.
    fn attempt(&self) -> u32;

    /// What the owner before kept last for whoever goes on from where this claim's task would; see [`Claim::keep`].
    fn kept(&self) -> Option<Bytes>;

    /// Keeps something for the next owner, should this one die, instead of what was kept before. Confirmed; an error leaves one of the two.
    async fn keep(&self, notes: Bytes) -> Result<(), QueueError>;

    /// How many control messages waited when the session was claimed: they come first.
    fn waiting(&self) -> u32;

    /// The next control message; `None` when ownership is lost, or after [`Claim::shut`] when all were given. Safe to drop while
    /// waiting. After a lost connection a message may come twice: know it by its id. None come while very many are not [`Claim::taken`].
    async fn next_control(&mut self) -> Option<Given>;

    /// A message that was given is in safe hands: the broker forgets it. One that this is not called for comes to the next owner. Brokers
    /// lose patience after half an hour.
    fn taken(&mut self, receipt: Receipt);

    /// Lets no further control message in: from now on they come back to their senders. What came before is still given. Waits while the
    /// ownership is not certain.
    async fn shut(&mut self) -> Result<(), QueueError>;

    /// Whether the ownership is certain at this moment. While it is not, another worker may take the session over: effects wait.
    fn holds(&self) -> watch::Receiver<bool>;

    /// Ends the ownership after the final event was confirmed: the mailbox goes, late duplicates are recognised for a day.
    async fn close(self: Box<Self>) -> Result<(), QueueError>;

    /// Queues the task with which another worker goes on with the session. Once is enough; a second one is a duplicate. The other waits a
    /// moment for the ownership.
    async fn hand_on(&self, next: Again) -> Result<(), QueueError>;

    /// Ends the ownership of a session that is not over: nobody takes this attempt for abandoned. Where another worker goes on with it, that one
    /// finds the mailbox as it is, with what was not [`Claim::taken`]. Otherwise the mailbox goes, so that the next prompt comes back to its
    /// sender: shut it before, and answer what is left. What somebody put into it since stays there for whoever goes on.
    async fn suspend(self: Box<Self>, goes_on: bool) -> Result<(), QueueError>;
}

/// Where a message to a session or to the task queue went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routed {
    /// A queue holds it.
    Delivered,
    /// Nobody holds it: there is no such session now, or no such queue.
    NoRoute,
}

/// What came of a claim.
#[derive(Debug)]
pub enum Claimed {
    /// This worker owns the session.
    Owner(Box<dyn Claim>),
    /// Another worker runs it: drop the duplicate.
    Elsewhere,
    /// The session went on since from where this task would: drop the duplicate.
    Superseded,
    /// The session has ended: drop the duplicate, and answer who wrote to it since.
    Over(Leftover),
}

/// Control messages to a session that is over, as they came.
#[derive(Default)]
pub struct Leftover(pub Vec<Bytes>);

impl std::fmt::Debug for Leftover {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // They may hold what must not be logged.
        formatter.debug_tuple("Leftover").field(&self.0.len()).finish()
    }
}

/// The broker.
///
/// Order for one task: `next_task`, `claim`, then settle the delivery, then events, then `Claim::close`. `publish` may be called from many
/// tasks at once. All calls have time limits of their own.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Waits for a task; `None` after `stop_consuming`. Tasks are taken from the broker only while this waits, so call it only with a free
    /// slot, and from one place. Safe to drop while waiting.
    async fn next_task(&self) -> Option<Delivery>;

    /// Tries to become the owner of a session. From then on until `Claim::close` the session is begun again by whatever worker when its owner
    /// dies.
    async fn claim(&self, session: SessionId, again: Again) -> Result<Claimed, QueueError>;

    /// Publishes an event once. State events wait for a broker that is away, within the call's time limit, and are kept on its disk; progress
    /// fails at once when the broker is away. Both return when the broker confirmed them. After an error it is not known whether the event
    /// arrived: publish the same event again, consumers drop the second by its id.
    async fn publish(&self, event: &Event) -> Result<(), QueueError>;

    /// Stops taking tasks; what was prefetched goes back.
    async fn stop_consuming(&self);

    /// Whether the broker is reachable now.
    fn is_connected(&self) -> bool;
}

/// Why the broker did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// Cannot be reached.
    #[error("the broker at {address} cannot be reached: {detail}")]
    Connect {
        /// Its address without user and password.
        address: String,
        /// What happened.
        detail: String,
    },
    /// The configuration does not make sense.
    #[error("the queue's configuration cannot be used: {0}")]
    Configure(String),
    /// Queues or exchanges could not be declared.
    #[error("the broker refused to declare {object}: {detail}")]
    Declare {
        /// Which object.
        object: String,
        /// The broker's words.
        detail: String,
    },
    /// A message was not confirmed.
    #[error("the broker did not confirm {what}: {detail}")]
    Publish {
        /// What was published.
        what: String,
        /// What happened.
        detail: String,
    },
    /// A delivery could not be settled.
    #[error("a delivery could not be settled: {0}")]
    Settle(String),
    /// A session could not be claimed for a reason other than another owner.
    #[error("the session {session} could not be claimed: {detail}")]
    Claim {
        /// Which session.
        session: SessionId,
        /// What happened.
        detail: String,
    },
}

impl QueueError {
    /// Whether it may work later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Publish { .. } | Self::Settle(_) | Self::Claim { .. } => true,
            Self::Declare { .. } | Self::Configure(_) => false,
        }
    }
}
