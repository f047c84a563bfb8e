//! How a running session is told to stop, and why, and what else it is asked. The session's own cancellation scope; teardown is not in it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use tokio_util::sync::CancellationToken;

use super::lending::{Lend, Waiting, Waits};
use crate::message::control::PromptMode;
use crate::message::event::Stage;
use crate::message::task::{ConnectionRequest, ProjectRequest};
use crate::message::{ConnectionName, Credential, Notes, ProjectKey};
use crate::metrics::Awaits;

/// Why a session shall stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Stop the turn and publish what there is.
    Publish,
    /// Stop and leave nothing behind.
    Discard,
    /// The worker stops.
    WorkerStopped,
    /// The worker stops, and the session goes on elsewhere.
    Drain,
    /// Another worker owns the session now: stop, publish nothing, say nothing.
    OwnershipLost,
}

impl Cause {
    /// A stronger cause takes the place of a weaker one; among equals the first counts.
    fn rank(self) -> u8 {
        match self {
            Self::Drain | Self::WorkerStopped => 0,
            Self::Publish | Self::Discard => 1,
            Self::OwnershipLost => 2,
        }
    }
}

/// How long finished work waits for the broker before it is kept instead of published.
const LONGEST_DOUBT: Duration = Duration::from_secs(15 * 60);
/// The same where the session is to end: the worker does not wait for it for ever, and the work must be kept before it goes.
const DOUBT_AT_THE_END: Duration = Duration::from_secs(20);
/// How long a session waits at most before it asks for more, until the broker has what the next owner must know.
const NOTING: Duration = Duration::from_secs(20);

/// Orders that wait for a session at most.
const WAITING_ORDERS: usize = 64;

/// What a control message asks for besides stopping; the session answers it by an event that names `id`.
#[derive(Debug, Clone)]
pub struct Order {
    /// The sender's id of the message.
    pub id: String,
    /// What to do.
    pub kind: OrderKind,
}

/// The kinds of order.
#[derive(Debug, Clone)]
pub enum OrderKind {
    /// Stop the running turn.
    CancelTurn,
    /// Another prompt.
    Prompt {
        /// What the user asks.
        text: String,
        /// What becomes of a running turn.
        mode: PromptMode,
    },
    /// Another project.
    AddProject {
        /// Which one.
        project: ProjectRequest,
        /// Its connection, where it is new.
        new_connection: Option<ConnectionRequest>,
    },
    /// Use this credential from now on.
    Credential {
        /// The connection.
        connection: ConnectionName,
        /// Where the credential is.
        credential: Credential,
    },
    /// Drop a connection.
    Disconnect {
        /// The connection.
        connection: ConnectionName,
    },
    /// Answer what a project waits for.
    Answer {
        /// The project.
        project: ProjectKey,
        /// Whether its work is published.
        publish: bool,
    },
    /// Answer a question of the agent.
    Choose {
        /// Its id.
        question: String,
        /// The option.
        option: String,
    },
}

/// The handle; clones share it.
#[derive(Debug, Clone)]
pub struct Steering {
    token: CancellationToken,
    cause: Arc<Mutex<Option<Cause>>>,
    publishing: Arc<AtomicBool>,
    /// Boxed: a queue takes the memory of 32 at its beginning, and few sessions get one.
    orders: mpsc::Sender<Box<Order>>,
    inbox: Arc<Mutex<Option<mpsc::Receiver<Box<Order>>>>>,
    owned: watch::Receiver<bool>,
    stage: Arc<Mutex<Option<(Stage, Instant)>>>,
    noting: Noting,
    /// Which notes the broker has.
    kept: Arc<watch::Sender<u64>>,
    waiting: Waiting,
    /// Whether another attempt may follow where this one loses its engine.
    has_another: bool,
}

/// Where a session notes what the next owner must know. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Noting(Arc<watch::Sender<(u64, Notes)>>);

impl Noting {
    pub(super) fn note(&self, notes: Notes) {
        self.0.send_modify(|noted| *noted = (noted.0 + 1, notes));
    }
}

impl Default for Steering {
    fn default() -> Self {
        // A receiver keeps its last value when the sender is gone.
        Self::of(watch::channel(true).1)
    }
}

impl Steering {
    /// The steering of a session whose ownership is certain whenever `owned` is true.
    #[must_use]
    pub fn of(owned: watch::Receiver<bool>) -> Self {
        let (orders, inbox) = mpsc::channel(WAITING_ORDERS);
        Self {
            token: CancellationToken::new(),
            cause: Arc::default(),
            publishing: Arc::default(),
            orders,
            inbox: Arc::new(Mutex::new(Some(inbox))),
            owned,
            stage: Arc::default(),
            noting: Noting(Arc::new(watch::Sender::new((0, Notes::default())))),
            kept: Arc::new(watch::Sender::new(0)),
            waiting: Waiting::default(),
            has_another: false,
        }
    }

    /// Where the session notes what the next owner must know.
    pub(super) fn noting(&self) -> Noting {
        self.noting.clone()
    }

    /// What the next owner must know, and how often that changed; 0 while it is no more than the task says. Also wakes when an order was done.
    #[must_use]
    pub fn notes(&self) -> watch::Receiver<(u64, Notes)> {
        self.noting.0.subscribe()
    }

    /// The broker has the notes of this number.
    pub fn kept(&self, number: u64) {
        self.kept.send_replace(number);
    }

    /// Waits until the broker has what is noted now, for a while.
    pub(super) async fn noted(&self) {
        let number = self.noting.0.borrow().0;
        let mut kept = self.kept.subscribe();
        if tokio::time::timeout(NOTING, kept.wait_for(|kept| *kept >= number))
            .await
            .is_err()
        {
            tracing::warn!("the session goes on before the broker has how far it came");
        }
    }

    /// Wakes whoever waits for notes: an order was done.
    pub(super) fn done(&self) {
        self.noting.0.send_modify(|_| ());
    }

    /// Whether the session is this worker's at this moment, and later.
    #[must_use]
    pub fn ownership(&self) -> watch::Receiver<bool> {
        self.owned.clone()
    }

    /// The same, with a slot that others may have while the session waits for people.
    #[must_use]
    pub fn with_slot(mut self, slot: Arc<dyn Lend>) -> Self {
        self.waiting = Waiting::of(slot);
        self
    }

    /// The same, where another attempt may follow if this one loses its engine.
    #[must_use]
    pub fn with_another(mut self, has_another: bool) -> Self {
        self.has_another = has_another;
        self
    }

    /// Whether another attempt may follow.
    pub(super) fn has_another(&self) -> bool {
        self.has_another
    }

    /// The session waits for people, or for a prompt, for as long as the result lives.
    pub(super) fn waits(&self, awaits: Awaits) -> Waits {
        self.waiting.begin(awaits)
    }

    /// Whether it waits for people at this moment.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_waiting()
    }

    /// Notes where the session is, for whoever looks.
    pub(super) fn at(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = Some((stage, Instant::now()));
    }

    /// Where the session is, and since when.
    #[must_use]
    pub fn stage(&self) -> Option<(Stage, Instant)> {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the session is this worker's at this moment, as far as can be known.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        *self.owned.borrow() && self.cause() != Some(Cause::OwnershipLost)
    }

    /// Waits until the session is certainly this worker's; says whether it is. For whatever leaves a trace on a forge: a worker that lost the
    /// broker must not act while another may have taken over.
    pub(super) async fn owned(&self) -> bool {
        self.owned_within(LONGEST_DOUBT, DOUBT_AT_THE_END).await
    }

    /// The same within these times: the second begins when the session is told to stop.
    async fn owned_within(&self, longest: Duration, at_the_end: Duration) -> bool {
        let mut owned = self.owned.clone();
        let ending = async {
            self.token.cancelled().await;
            tokio::time::sleep(at_the_end).await;
        };
        let certain = tokio::select! {
            biased;
            certain = owned.wait_for(|owned| *owned) => certain.is_ok(),
            () = ending => false,
            () = tokio::time::sleep(longest) => false,
        };
        certain && self.cause() != Some(Cause::OwnershipLost)
    }

    /// Hands the session an order; says whether it will see it.
    #[must_use]
    pub fn order(&self, order: Order) -> bool {
        self.orders.try_send(Box::new(order)).is_ok()
    }

    /// The session's end of the orders; once.
    pub(super) fn inbox(&self) -> Option<mpsc::Receiver<Box<Order>>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Stops the session; says whether this cause counts.
    pub fn stop(&self, cause: Cause) -> bool {
        let mut slot = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = slot.is_none_or(|before| before.rank() < cause.rank());
        if counts {
            *slot = Some(cause);
        }
        self.token.cancel();
        counts
    }

    /// Ends the session as a control message asks; whether that was done, and what is to be answered.
    pub fn end(&self, publish: bool) -> (bool, &'static str) {
        // Looked at first: publishing that begins now sees the cause.
        let publishing = self.publishing.load(Ordering::Acquire);
        let cause = if publish { Cause::Publish } else { Cause::Discard };
        match (self.stop(cause), publish, publishing) {
            (false, _, _) => (false, "the session is ending already"),
            (true, true, _) => (true, "the session ends; what was committed is published"),
            (true, false, false) => (
                true,
                "the session ends; nothing more is published, and what earlier turns published stays",
            ),
            (true, false, true) => (
                false,
                "the work is being published at this moment, which is not stopped; the session ends after it",
            ),
        }
    }

    /// Work is on its way to the forges, or no more.
    pub(super) fn publishes(&self, publishing: bool) {
        self.publishing.store(publishing, Ordering::Release);
    }

    /// Why it was stopped.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancelled when the session shall stop.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_counts_unless_a_stronger_one_comes() {
        let steering = Steering::default();
        assert!(steering.stop(Cause::Drain));
        assert!(!steering.stop(Cause::WorkerStopped));
        assert!(steering.stop(Cause::Publish));
        assert!(!steering.stop(Cause::Discard));
        assert_eq!(steering.cause(), Some(Cause::Publish));
        assert!(steering.token().is_cancelled());
        assert!(steering.stop(Cause::OwnershipLost));
        assert!(!steering.is_owned());
    }

    #[tokio::test]
    async fn who_must_end_does_not_wait_for_the_broker_as_long_as_who_works() {
        let (moment, long) = (Duration::from_millis(1), Duration::from_secs(3600));
        let (holds, owned) = watch::channel(false);
        let steering = Steering::of(owned);
        assert!(!steering.owned_within(moment, long).await);
        assert!(
            tokio::time::timeout(moment * 50, steering.owned_within(long, moment))
                .await
                .is_err()
        );
        steering.stop(Cause::Drain);
        assert!(!steering.owned_within(long, moment).await);
        holds.send_replace(true);
        assert!(steering.owned_within(long, moment).await);
    }

    #[test]
    fn the_answer_to_an_end_says_what_it_does() {
        let steering = Steering::default();
        steering.publishes(true);
        let (applied, said) = steering.end(false);
        assert!(!applied && said.contains("not stopped"), "{said}");
        assert_eq!(steering.end(true), (false, "the session is ending already"));
        let steering = Steering::default();
        steering.publishes(true);
        steering.publishes(false);
        assert!(steering.end(false).0);
    }
}
