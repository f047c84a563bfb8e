//! A queue inside this process, for `exec`, the demo and tests: tasks are pushed by a handle, events come out at one subscriber.
//!
//! Nothing survives the process, and nothing is dropped silently: a slow subscriber holds state events back, progress is refused.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};

use super::{
    Again, Claim, Claimed, Delivery, Given, Leftover, Queue, QueueError, Receipt, Routed, Settle, SettleHandle,
};
use crate::message::{Event, SessionId};

/// Tasks that wait at most; a push beyond it waits.
const TASKS: usize = 64;
/// Control messages that wait in one mailbox at most.
const MAILBOX: usize = 64;
/// Sessions that are remembered as over, and dead letters that are kept, at most: the oldest are forgotten first.
const REMEMBERED: usize = 1024;
/// Events that wait for the subscriber at most.
const EVENTS: usize = 256;

/// The worker's side.
#[derive(Debug)]
pub struct MemoryQueue {
    shared: Arc<Shared>,
    tasks: tokio::sync::Mutex<mpsc::Receiver<Task>>,
    events: mpsc::Sender<Event>,
    stopped: watch::Sender<bool>,
}

/// The orchestrator's side.
#[derive(Debug, Clone)]
pub struct MemoryHandle {
    shared: Arc<Shared>,
    tasks: mpsc::Sender<Task>,
}

#[derive(Debug)]
struct Task {
    body: Bytes,
    attempt: u32,
    numbered: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    came_back: Notify,
}

#[derive(Debug, Default)]
struct State {
    mailboxes: HashMap<SessionId, mpsc::Sender<Bytes>>,
    /// In the order in which they ended.
    over: VecDeque<SessionId>,
    superseded: VecDeque<(SessionId, u32)>,
    returned: Vec<Task>,
    dead: VecDeque<DeadTask>,
}

/// Adds one, and forgets the oldest beyond the bound.
fn remember<T>(all: &mut VecDeque<T>, one: T) {
    if all.len() >= REMEMBERED {
        all.pop_front();
    }
    all.push_back(one);
}

/// A body that was not a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadTask {
    /// The body as it came.
    pub body: Bytes,
    /// The reason's stable word.
    pub code: String,
    /// The sentence.
    pub message: String,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryQueue {
    /// A queue, the handle that feeds it, and the one subscriber of its events. Dropping the subscriber discards the events.
    #[must_use]
    pub fn new() -> (Arc<Self>, MemoryHandle, mpsc::Receiver<Event>) {
        let shared = Arc::new(Shared::default());
        let (push, tasks) = mpsc::channel(TASKS);
        let (events, subscriber) = mpsc::channel(EVENTS);
        let queue = Self {
            shared: Arc::clone(&shared),
            tasks: tokio::sync::Mutex::new(tasks),
            events,
            stopped: watch::Sender::new(false),
        };
        (Arc::new(queue), MemoryHandle { shared, tasks: push }, subscriber)
    }

    fn delivery(&self, task: Task, redelivered: bool) -> Delivery {
        Delivery {
            body: task.body.clone(),
            lane: String::new(),
            attempt: task.attempt,
            numbered: task.numbered,
            takeovers: 0,
            redelivered,
            trace: None,
            handle: Box::new(Settler {
                shared: Arc::clone(&self.shared),
                task: Some(task),
            }),
        }
    }
}

impl MemoryHandle {
    /// Enqueues a task; waits while too many wait already.
    pub async fn push(&self, body: Bytes) -> Routed {
        let task = Task {
            body,
            attempt: 1,
            numbered: false,
        };
        match self.tasks.send(task).await {
            Ok(()) => Routed::Delivered,
            Err(_) => Routed::NoRoute,
        }
    }

    /// Sends a control message to a session that runs.
    pub async fn send_control(&self, session: SessionId, body: Bytes) -> Routed {
        let mailbox = self.shared.state().mailboxes.get(&session).cloned();
        let Some(mailbox) = mailbox else {
            return Routed::NoRoute;
        };
        match mailbox.send(body).await {
            Ok(()) => Routed::Delivered,
            Err(_) => Routed::NoRoute,
        }
    }

    /// What was dead-lettered so far.
    #[must_use]
    pub fn dead(&self) -> Vec<DeadTask> {
        self.shared.state().dead.iter().cloned().collect()
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn next_task(&self) -> Option<Delivery> {
        let mut stopped = self.stopped.subscribe();
        let mut tasks = self.tasks.lock().await;
        loop {
            if *stopped.borrow_and_update() {
                return None;
            }
            if let Some(task) = self.shared.state().returned.pop() {
                return Some(self.delivery(task, true));
            }
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return None,
                () = self.shared.came_back.notified() => {}
                task = tasks.recv() => return task.map(|task| self.delivery(task, false)),
            }
        }
    }

    /// Nobody outlives the owner here, so nobody begins again.
    async fn claim(&self, session: SessionId, again: Again) -> Result<Claimed, QueueError> {
        let mut state = self.shared.state();
        if state.over.contains(&session) {
            return Ok(Claimed::Over(Leftover::default()));
        }
        if state.superseded.contains(&(session, again.after)) {
            return Ok(Claimed::Superseded);
        }
        // A claim that was dropped without `close` has left a mailbox that nobody reads any more.
        if state
            .mailboxes
            .get(&session)
            .is_some_and(|mailbox| !mailbox.is_closed())
        {
            return Ok(Claimed::Elsewhere);
        }
        state.mailboxes.retain(|_, mailbox| !mailbox.is_closed());
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        state.mailboxes.insert(session, sender);
        Ok(Claimed::Owner(Box::new(MemoryClaim {
            session,
            after: again.after,
            attempt: again.attempt,
            mailbox,
            shared: Arc::clone(&self.shared),
        })))
    }

    async fn publish(&self, event: &Event) -> Result<(), QueueError> {
        if !event.data.body.is_progress() {
            // A subscriber that went away is its own choice: the event counts as taken.
            let _ = self.events.send(event.clone()).await;
            return Ok(());
        }
        match self.events.try_send(event.clone()) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(QueueError::Publish {
                what: "progress".into(),
                detail: "the subscriber is too slow".into(),
            }),
        }
    }

    async fn stop_consuming(&self) {
        self.stopped.send_replace(true);
    }

    fn is_connected(&self) -> bool {
        true
    }
}

/// Gives the task back when it is dropped unsettled, as a broker does when a connection ends.
#[derive(Debug)]
struct Settler {
    shared: Arc<Shared>,
    task: Option<Task>,
}

#[async_trait]
impl SettleHandle for Settler {
    async fn settle(mut self: Box<Self>, settle: Settle) -> Result<(), QueueError> {
        match settle {
            Settle::Ack => self.task = None,
            // Dropping gives it back.
            Settle::Return => {}
            Settle::DeadLetter { code, message } => {
                if let Some(task) = self.task.take() {
                    let dead = DeadTask {
                        body: task.body,
                        code,
                        message,
                    };
                    remember(&mut self.shared.state().dead, dead);
                }
            }
        }
        Ok(())
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        if let Some(mut task) = self.task.take() {
            task.attempt = task.attempt.saturating_add(1);
            self.shared.state().returned.push(task);
            self.shared.came_back.notify_one();
        }
    }
}

#[derive(Debug)]
struct MemoryClaim {
    session: SessionId,
    after: u32,
    attempt: u32,
    mailbox: mpsc::Receiver<Bytes>,
    shared: Arc<Shared>,
}

#[async_trait]
impl Claim for MemoryClaim {
    fn attempt(&self) -> u32 {
        self.attempt
    }

    fn kept(&self) -> Option<Bytes> {
        None
    }

    /// Nobody outlives the owner here, so nobody would read it.
    async fn keep(&self, _: Bytes) -> Result<(), QueueError> {
        Ok(())
    }

    fn waiting(&self) -> u32 {
        0
    }

    async fn next_control(&mut self) -> Option<Given> {
        let receipt = Receipt(0);
        self.mailbox.recv().await.map(|body| Given { body, receipt })
    }

    fn taken(&mut self, _: Receipt) {}

    async fn shut(&mut self) -> Result<(), QueueError> {
        self.mailbox.close();
        Ok(())
    }

    fn holds(&self) -> watch::Receiver<bool> {
        // A receiver keeps its last value when the sender is gone.
        watch::channel(true).1
    }

    async fn close(self: Box<Self>) -> Result<(), QueueError> {
        let mut state = self.shared.state();
        state.mailboxes.remove(&self.session);
        remember(&mut state.over, self.session);
        Ok(())
    }

    async fn hand_on(&self, next: Again) -> Result<(), QueueError> {
        self.shared.state().returned.push(Task {
            body: next.body,
            attempt: next.attempt,
            numbered: true,
        });
        self.shared.came_back.notify_one();
        Ok(())
    }

    async fn suspend(self: Box<Self>, _: bool) -> Result<(), QueueError> {
        let mut state = self.shared.state();
        state.mailboxes.remove(&self.session);
        remember(&mut state.superseded, (self.session, self.after));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::EventBody;

    fn session() -> SessionId {
        SessionId(uuid::Uuid::new_v4())
    }

    fn again() -> Again {
        Again {
            body: Bytes::new(),
            lane: String::new(),
            attempt: 1,
            takeovers: 0,
            after: 0,
            rests: false,
            trace: None,
        }
    }

    #[tokio::test]
    async fn a_task_comes_once_unless_it_is_returned() {
        let (queue, handle, _events) = MemoryQueue::new();
        assert_eq!(handle.push(Bytes::from_static(b"a")).await, Routed::Delivered);
        let first = queue.next_task().await.unwrap();
        assert_eq!(
            (&first.body[..], first.attempt, first.redelivered),
            (&b"a"[..], 1, false)
        );
        first.handle.settle(Settle::Return).await.unwrap();
        let second = queue.next_task().await.unwrap();
        assert_eq!(
            (&second.body[..], second.attempt, second.redelivered),
            (&b"a"[..], 2, true)
        );
        second.handle.settle(Settle::Ack).await.unwrap();
        queue.stop_consuming().await;
        assert!(queue.next_task().await.is_none());
    }

    #[tokio::test]
    async fn a_waiting_worker_is_released_by_stop() {
        let (queue, _handle, _events) = MemoryQueue::new();
        let (task, ()) = tokio::join!(queue.next_task(), queue.stop_consuming());
        assert!(task.is_none());
    }

    #[tokio::test]
    async fn what_is_not_a_task_is_kept_with_its_reason() {
        let (queue, handle, _events) = MemoryQueue::new();
        handle.push(Bytes::from_static(b"{")).await;
        let delivery = queue.next_task().await.unwrap();
        let reason = Settle::DeadLetter {
            code: "malformed".into(),
            message: "not JSON".into(),
        };
        delivery.handle.settle(reason).await.unwrap();
        let dead = handle.dead();
        assert_eq!(dead.len(), 1);
        assert_eq!(
            (dead[0].code.as_str(), dead[0].message.as_str()),
            ("malformed", "not JSON")
        );
    }

    #[tokio::test]
    async fn one_owner_gets_control_until_the_session_is_over() {
        let (queue, handle, _events) = MemoryQueue::new();
        let id = session();
        assert_eq!(handle.send_control(id, Bytes::from_static(b"x")).await, Routed::NoRoute);
        let Claimed::Owner(mut claim) = queue.claim(id, again()).await.unwrap() else {
            panic!("nobody else owns it");
        };
        assert!(matches!(queue.claim(id, again()).await.unwrap(), Claimed::Elsewhere));
        assert_eq!(
            handle.send_control(id, Bytes::from_static(b"x")).await,
            Routed::Delivered
        );
        assert_eq!(claim.next_control().await.unwrap().body, b"x"[..]);
        claim.close().await.unwrap();
        assert!(matches!(queue.claim(id, again()).await.unwrap(), Claimed::Over(_)));
        assert_eq!(handle.send_control(id, Bytes::from_static(b"x")).await, Routed::NoRoute);
    }

    #[tokio::test]
    async fn what_is_over_is_remembered_within_a_bound() {
        let (queue, _handle, _events) = MemoryQueue::new();
        let first = session();
        for id in std::iter::once(first).chain(std::iter::repeat_with(session).take(REMEMBERED)) {
            let Claimed::Owner(claim) = queue.claim(id, again()).await.unwrap() else {
                panic!("nobody else owns it");
            };
            claim.close().await.unwrap();
            assert!(matches!(queue.claim(id, again()).await.unwrap(), Claimed::Over(_)));
        }
        assert_eq!(queue.shared.state().over.len(), REMEMBERED);
        assert!(matches!(queue.claim(first, again()).await.unwrap(), Claimed::Owner(_)));
        // A claim that nobody closed is not kept either.
        drop(queue.claim(session(), again()).await.unwrap());
        let _live = queue.claim(session(), again()).await.unwrap();
        assert_eq!(queue.shared.state().mailboxes.len(), 1);
    }

    #[tokio::test]
    async fn a_slow_subscriber_loses_progress_and_no_state() {
        let (queue, _handle, mut events) = MemoryQueue::new();
        let id = session();
        let turn = |seq| Event::now("w", id, 1, seq, EventBody::TurnStarted { turn: 1 });
        for seq in 0..EVENTS as u64 {
            queue.publish(&turn(seq)).await.unwrap();
        }
        let chatter = Event::now("w", id, 1, 999, EventBody::AgentMessage { text: "x".into() });
        assert!(queue.publish(&chatter).await.is_err());
        let last = tokio::spawn({
            let queue = Arc::clone(&queue);
            let event = turn(EVENTS as u64);
            async move { queue.publish(&event).await }
        });
        for seq in 0..=EVENTS as u64 {
            assert_eq!(events.recv().await.unwrap().data.seq, seq);
        }
        last.await.unwrap().unwrap();
    }
}
