//! Ownership of a session: the exclusive consumer of its mailbox. Its end: an empty queue that marks the session as over.
//!
//! Never creates the mailbox of a session that is over: a late prompt must come back to its sender, not vanish.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::super::{Again, Claim, Claimed, QueueError};
use super::address::Settings;
use super::connection::{Failure, Link, Live, limited};
use super::publish::Publisher;
use super::ticket::Ticket;
use super::topology;
use crate::message::SessionId;

/// Control messages that are on their way to the session at once.
const PREFETCH: u16 = 16;
/// Pause between attempts to take a mailbox back.
const PAUSE: Duration = Duration::from_millis(500);
/// How many calls' time the end of a session may take, reconnecting included.
const CLOSE_CALLS: u32 = 12;
/// How many calls' time a claim may take.
const CLAIM_CALLS: u32 = 3;

/// What became of an attempt to consume a mailbox.
enum Taken {
    Owner(Channel, Box<Consumer>),
    Elsewhere,
    Over,
}

pub(super) async fn claim(
    settings: &Arc<Settings>,
    link: &Arc<Link>,
    publisher: &Arc<Publisher>,
    session: SessionId,
    again: Again,
) -> Result<Claimed, QueueError> {
    let failed = |detail: String| QueueError::Claim { session, detail };
    let limit = settings.call_timeout * CLAIM_CALLS;
    let claiming = async {
        let live = link.connected().await;
        let taken = take(settings, &live, session).await;
        taken.map(|taken| (live, taken))
    };
    let (live, taken) = timeout(limit, claiming)
        .await
        .map_err(|_| failed(Failure::Silent(limit).to_string()))?
        .map_err(|failure| failed(failure.to_string()))?;
    let (channel, consumer) = match taken {
        Taken::Owner(channel, consumer) => (channel, consumer),
        Taken::Elsewhere => return Ok(Claimed::Elsewhere),
        Taken::Over => return Ok(Claimed::Over),
    };
    // Owner first, then the ticket: a ticket without an owner would have the session begun a second time. The task is acknowledged only after
    // both, so a worker that dies in between costs nothing.
    Ticket::new(session, again).issue(settings, publisher).await?;
    let (sender, controls) = mpsc::channel(PREFETCH.into());
    let (release, released) = oneshot::channel();
    let (holding, holds) = watch::channel(true);
    let keeper = Keeper {
        settings: Arc::clone(settings),
        link: Arc::clone(link),
        session,
        controls: sender,
        holding,
    };
    let keeper = tokio::spawn(async move {
        tokio::select! {
            // Also when the claim was dropped without being closed.
            _ = released => true,
            () = keeper.keep(live, channel, consumer) => false,
        }
    });
    Ok(Claimed::Owner(Box::new(Mailbox {
        settings: Arc::clone(settings),
        link: Arc::clone(link),
        publisher: Arc::clone(publisher),
        session,
        controls,
        holds,
        keeper,
        release,
    })))
}

/// Takes the mailbox. Every step that may be refused is on a channel of its own, because a refusal closes the channel.
async fn take(settings: &Settings, live: &Live, session: SessionId) -> Result<Taken, Failure> {
    let names = &settings.names;
    if topology::queue_exists(live, settings, &names.tombstone(session)).await? {
        return Ok(Taken::Over);
    }
    let channel = live.channel(settings).await?;
    let mailbox = async {
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        topology::declare_mailbox(&channel, names, session).await?;
        let options = BasicConsumeOptions {
            exclusive: true,
            ..BasicConsumeOptions::default()
        };
        let mailbox = names.mailbox(session);
        channel
            .basic_consume(mailbox.into(), "".into(), options, FieldTable::default())
            .await
    };
    match limited(settings.call_timeout, mailbox).await {
        Ok(consumer) => Ok(Taken::Owner(channel, Box::new(consumer))),
        Err(failure) if is_taken(&failure) => Ok(Taken::Elsewhere),
        Err(failure) => Err(failure),
    }
}

/// Whether the refusal means another consumer. A missing permission is 403 too, and must not look like it.
fn is_taken(failure: &Failure) -> bool {
    match failure.reply_code() {
        Some(405) => true,
        Some(403) => failure.to_string().contains("exclusive"),
        Some(_) | None => false,
    }
}

/// Passes control messages on and takes the mailbox back after a lost connection.
struct Keeper {
    settings: Arc<Settings>,
    link: Arc<Link>,
    session: SessionId,
    controls: mpsc::Sender<(Bytes, Acker)>,
    /// Whether the consumer is there: until the loss is seen and from when it is back.
    holding: watch::Sender<bool>,
}

impl Keeper {
    /// Ends when the ownership is lost.
    async fn keep(self, live: Arc<Live>, channel: Channel, consumer: Box<Consumer>) {
        let (mut live, mut channel, mut consumer) = (live, channel, consumer);
        loop {
            tokio::select! {
                () = self.forward(&mut consumer) => {}
                () = self.link.lost(live.generation) => {}
            }
            self.holding.send_replace(false);
            drop((consumer, channel));
            match self.take_back().await {
                Some(back) => {
                    (live, channel, consumer) = back;
                    self.holding.send_replace(true);
                }
                None => return,
            }
        }
    }

    async fn forward(&self, consumer: &mut Consumer) {
        while let Some(Ok(message)) = consumer.next().await {
            if self.controls.send((message.data.into(), message.acker)).await.is_err() {
                // The claim is gone; its drop ends this task as well.
                return;
            }
        }
    }

    /// After a reset the broker may hold our own old consumer until it has missed its heartbeats, which takes two to three intervals: only a
    /// refusal that outlives them is another owner.
    async fn take_back(&self) -> Option<(Arc<Live>, Channel, Box<Consumer>)> {
        let ours_is_gone = self.settings.heartbeat * 3 + self.settings.call_timeout;
        let mut refused_since = None;
        loop {
            let live = self.link.connected().await;
            match take(&self.settings, &live, self.session).await {
                Ok(Taken::Owner(channel, consumer)) => {
                    tracing::info!(session = %self.session, "took the session's mailbox back");
                    return Some((live, channel, consumer));
                }
                Ok(Taken::Over) => {
                    tracing::warn!(session = %self.session, "the session was ended by another worker");
                    return None;
                }
                Ok(Taken::Elsewhere) => {
                    if refused_since.get_or_insert_with(Instant::now).elapsed() > ours_is_gone {
                        tracing::warn!(session = %self.session, "another worker owns the session now");
                        return None;
                    }
                }
                Err(failure) => tracing::warn!(session = %self.session, %failure, "the mailbox is not back yet"),
            }
            sleep(PAUSE).await;
        }
    }
}

/// An owned session.
#[derive(Debug)]
struct Mailbox {
    settings: Arc<Settings>,
    link: Arc<Link>,
    publisher: Arc<Publisher>,
    session: SessionId,
    controls: mpsc::Receiver<(Bytes, Acker)>,
    holds: watch::Receiver<bool>,
    /// Yields whether the mailbox was still ours.
    keeper: tokio::task::JoinHandle<bool>,
    /// Dropping it ends the keeper.
    release: oneshot::Sender<()>,
}

#[async_trait]
impl Claim for Mailbox {
    async fn next_control(&mut self) -> Option<Bytes> {
        let (body, acker) = self.controls.recv().await?;
        let limit = self.settings.call_timeout;
        // Not waited for, so that dropping this call cannot lose the message. Unacknowledged, it comes again.
        tokio::spawn(async move { limited(limit, acker.ack(BasicAckOptions::default())).await.is_ok() });
        Some(body)
    }

    fn holds(&self) -> watch::Receiver<bool> {
        self.holds.clone()
    }

    async fn close(self: Box<Self>) -> Result<(), QueueError> {
        self.end(Some(Ending::Mark)).await
    }

    async fn suspend(self: Box<Self>, next: Option<Again>) -> Result<(), QueueError> {
        if let Some(next) = next {
            Ticket::new(self.session, next)
                .queue(&self.settings, &self.publisher)
                .await?;
        }
        self.end(None).await
    }
}

impl Mailbox {
    /// Leaves the mark, if any, and removes the mailbox.
    async fn end(self, mark: Option<Ending>) -> Result<(), QueueError> {
        let Self {
            settings,
            link,
            publisher: _,
            session,
            controls,
            holds: _,
            keeper,
            release,
        } = self;
        let failed = |detail: String| QueueError::Claim { session, detail };
        if keeper.is_finished() {
            return Err(failed("another worker owns it".into()));
        }
        let limit = settings.call_timeout * CLOSE_CALLS;
        let closing = async {
            // First the mark, then the mailbox: in between a duplicate sees at least one of the two.
            if let Some(mark) = mark {
                repeat(&settings, &link, session, mark).await;
            }
            drop((release, controls));
            if !keeper.await.unwrap_or(false) {
                return Err("another worker took it".to_owned());
            }
            repeat(&settings, &link, session, Ending::Remove).await;
            Ok(())
        };
        match timeout(limit, closing).await {
            Ok(closed) => closed.map_err(failed),
            Err(_) => Err(failed(Failure::Silent(limit).to_string())),
        }
    }
}

/// The two things that end a session on the broker.
#[derive(Clone, Copy)]
enum Ending {
    /// The tombstone is declared.
    Mark,
    /// The mailbox is deleted.
    Remove,
}

impl Ending {
    async fn act(self, live: &Live, settings: &Settings, session: SessionId) -> Result<(), Failure> {
        let channel = live.channel(settings).await?;
        let acted = async {
            match self {
                Self::Mark => topology::declare_tombstone(&channel, &settings.names, session).await,
                Self::Remove => {
                    let mailbox = settings.names.mailbox(session);
                    let options = QueueDeleteOptions::default();
                    channel.queue_delete(mailbox.into(), options).await.map(drop)
                }
            }
        };
        limited(settings.call_timeout, acted).await
    }
}

/// Does it as often as it takes; the caller limits the time.
async fn repeat(settings: &Settings, link: &Link, session: SessionId, ending: Ending) {
    loop {
        let live = link.connected().await;
        match ending.act(&live, settings, session).await {
            Ok(()) => return,
            Err(failure) => tracing::warn!(%session, %failure, "the session's queues are not settled yet"),
        }
        sleep(PAUSE).await;
    }
}
