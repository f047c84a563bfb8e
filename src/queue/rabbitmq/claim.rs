//! Ownership of a session: the exclusive consumer of its mailbox. Its end: empty queues that mark the session as over, or its task as
//! superseded (see `ending`).
//!
//! Never leaves the mailbox of a session that is over behind: a late prompt must come back to its sender, not vanish.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::super::{Again, Claim, Claimed, QueueError};
use super::address::Settings;
use super::connection::{Failure, Link, Live, limited};
use super::publish::Publisher;
use super::ticket::Ticket;
use super::topology::{self, Marked};
use crate::message::SessionId;

mod ending;

use ending::{Ending, Last, repeat};

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
    Owner(Owned),
    Elsewhere,
    Marked(Claimed),
}

/// A mailbox that is consumed.
struct Owned {
    channel: Channel,
    consumer: Box<Consumer>,
    /// Messages that waited in it.
    waiting: u32,
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
        let since = Instant::now();
        loop {
            let live = link.connected().await;
            match take(settings, &live, session, again.after).await {
                // The task that goes on is queued before the owner lets go.
                Ok(Taken::Elsewhere) if again.after > 0 && since.elapsed() < settings.call_timeout => {
                    sleep(PAUSE).await
                }
                taken => break taken.map(|taken| (live, taken)),
            }
        }
    };
    let (live, taken) = timeout(limit, claiming)
        .await
        .map_err(|_| failed(Failure::Silent(limit).to_string()))?
        .map_err(|failure| failed(failure.to_string()))?;
    let ticket = Ticket::new(session, again.clone());
    let Owned {
        channel,
        consumer,
        waiting,
    } = match taken {
        Taken::Owner(owned) => owned,
        Taken::Elsewhere => {
            // What a worker queued, or what goes on, may be what keeps the session alive when that owner is gone: it rests instead of being
            // dropped. Where it is a mere duplicate, its ticket is one more, and as harmless.
            if again.after > 0 || again.takeovers > 0 {
                ticket.issue(settings, publisher).await?;
            }
            return Ok(Claimed::Elsewhere);
        }
        Taken::Marked(claimed) => return Ok(claimed),
    };
    // Owner first, then the ticket: a ticket without an owner would have the session begun a second time. The task is acknowledged only after
    // both, so a worker that dies in between costs nothing.
    ticket.issue(settings, publisher).await?;
    if again.after > 0 {
        // Whoever let go may have died before it left the mark.
        let mark = Ending::Superseded(ending::before(again.after));
        timeout(limit, repeat(settings, link, session, &mark))
            .await
            .map_err(|_| failed(Failure::Silent(limit).to_string()))?;
    }
    let (sender, controls) = mpsc::channel(PREFETCH.into());
    let (release, released) = oneshot::channel();
    let (holding, holds) = watch::channel(true);
    let keeper = Keeper {
        settings: Arc::clone(settings),
        link: Arc::clone(link),
        session,
        after: again.after,
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
        again,
        waiting,
        controls,
        given: None,
        last: None,
        holds,
        keeper,
        release,
    })))
}

/// Takes the mailbox. Every step that may be refused is on a channel of its own, because a refusal closes the channel.
async fn take(settings: &Settings, live: &Live, session: SessionId, after: u32) -> Result<Taken, Failure> {
    if let Some(marked) = looked(settings, live, session, after).await? {
        if matches!(marked, Claimed::Over) {
            // A submitter may have made one for a task that comes too late.
            ending::remove_unused(settings, live, session).await?;
        }
        return Ok(Taken::Marked(marked));
    }
    let owned = match consume(settings, live, session).await {
        Ok(owned) => owned,
        Err(failure) if is_taken(&failure) => return Ok(Taken::Elsewhere),
        Err(failure) if failure.reply_code() == Some(406) => {
            tracing::warn!(%session, "the mailbox was declared with other arguments than the contract says; it is made anew");
            if !ending::remove_unused(settings, live, session).await? {
                return Ok(Taken::Elsewhere);
            }
            consume(settings, live, session).await?
        }
        Err(failure) => return Err(failure),
    };
    // The last owner may have left its mark and the mailbox between the look and now.
    if let Some(marked) = looked(settings, live, session, after).await? {
        drop(owned);
        Ending::Remove.act(live, settings, session).await?;
        return Ok(Taken::Marked(marked));
    }
    Ok(Taken::Owner(owned))
}

async fn looked(settings: &Settings, live: &Live, session: SessionId, after: u32) -> Result<Option<Claimed>, Failure> {
    Ok(match topology::marked(live, settings, session, after).await? {
        Marked::No => None,
        Marked::Superseded => Some(Claimed::Superseded),
        Marked::Over => Some(Claimed::Over),
    })
}

async fn consume(settings: &Settings, live: &Live, session: SessionId) -> Result<Owned, Failure> {
    let channel = live.channel(settings).await?;
    let names = &settings.names;
    let consuming = async {
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let waiting = topology::declare_mailbox(&channel, names, session).await?;
        let options = BasicConsumeOptions {
            exclusive: true,
            ..BasicConsumeOptions::default()
        };
        let mailbox = names.mailbox(session);
        let consumer = channel
            .basic_consume(mailbox.into(), "".into(), options, FieldTable::default())
            .await?;
        Ok((consumer, waiting))
    };
    let (consumer, waiting) = limited(settings.call_timeout, consuming).await?;
    Ok(Owned {
        channel,
        consumer: Box::new(consumer),
        waiting,
    })
}

/// Whether the refusal means another consumer. A missing permission is 403 too, and must not look like it.
fn is_taken(failure: &Failure) -> bool {
    match failure.reply_code() {
        Some(405) => true,
        Some(403) => failure.to_string().contains("exclusive"),
        Some(_) | None => false,
    }
}

/// A message of the mailbox, as it came.
struct Given {
    body: Bytes,
    /// The id of a last message (see [`ending::shut`]), where it is one.
    last: Option<String>,
    acker: Acker,
}

/// Passes control messages on and takes the mailbox back after a lost connection.
struct Keeper {
    settings: Arc<Settings>,
    link: Arc<Link>,
    session: SessionId,
    after: u32,
    controls: mpsc::Sender<Given>,
    /// Whether the consumer is there, as far as can be known: until the broker is silent or lost, and from when it is back.
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
                never = self.doubt(&live) => match never {},
            }
            self.holding.send_replace(false);
            drop((consumer, channel));
            match self.take_back().await {
                Some(back) => {
                    (live, channel, consumer) = back;
                }
                None => return,
            }
        }
    }

    /// Holds effects back while the broker does not answer: it may have given the session to somebody else.
    async fn doubt(&self, live: &Live) -> Infallible {
        let mut silent = live.silent();
        loop {
            let certain = !*silent.borrow_and_update();
            self.holding
                .send_if_modified(|holding| std::mem::replace(holding, certain) != certain);
            if silent.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn forward(&self, consumer: &mut Consumer) {
        while let Some(Ok(message)) = consumer.next().await {
            let given = Given {
                body: message.data.into(),
                last: ending::last(&message.properties),
                acker: message.acker,
            };
            if self.controls.send(given).await.is_err() {
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
            match take(&self.settings, &live, self.session, self.after).await {
                Ok(Taken::Owner(owned)) => {
                    tracing::info!(session = %self.session, "took the session's mailbox back");
                    return Some((live, owned.channel, owned.consumer));
                }
                Ok(Taken::Marked(_)) => {
                    tracing::warn!(session = %self.session, "the session was ended by another worker, or went on with one");
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
struct Mailbox {
    settings: Arc<Settings>,
    link: Arc<Link>,
    publisher: Arc<Publisher>,
    session: SessionId,
    again: Again,
    /// Messages that waited when it was claimed.
    waiting: u32,
    controls: mpsc::Receiver<Given>,
    /// The last message that was handed out and is not acknowledged.
    given: Option<Acker>,
    /// What no message comes after, where the mailbox is shut.
    last: Option<Last>,
    holds: watch::Receiver<bool>,
    /// Yields whether the mailbox was still ours.
    keeper: tokio::task::JoinHandle<bool>,
    /// Dropping it ends the keeper.
    release: oneshot::Sender<()>,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The task's body may hold what must not be logged.
        formatter
            .debug_struct("Mailbox")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Claim for Mailbox {
    fn waiting(&self) -> u32 {
        self.waiting
    }

    async fn next_control(&mut self) -> Option<Bytes> {
        loop {
            if self.last.as_ref().is_some_and(Last::has_come) {
                return None;
            }
            let given = self.controls.recv().await?;
            self.given = Some(given.acker);
            let Some(id) = given.last else { return Some(given.body) };
            // Ours, or one that an owner left which died after it.
            self.taken();
            if let Some(last) = &mut self.last {
                last.note(&id);
            }
        }
    }

    fn taken(&mut self) {
        let Some(acker) = self.given.take() else { return };
        let limit = self.settings.call_timeout;
        // Not waited for: unacknowledged, it comes again, and is known by its id.
        tokio::spawn(async move { limited(limit, acker.ack(BasicAckOptions::default())).await.is_ok() });
    }

    async fn shut(&mut self) -> Result<(), QueueError> {
        // Another owner's mailbox must stay open.
        if self.holds.wait_for(|holds| *holds).await.is_err() {
            let (session, detail) = (self.session, "another worker owns it".to_owned());
            return Err(QueueError::Claim { session, detail });
        }
        let last = ending::shut(&self.settings, &self.link, &self.publisher, self.session).await?;
        self.last = Some(last);
        Ok(())
    }

    fn holds(&self) -> watch::Receiver<bool> {
        self.holds.clone()
    }

    async fn close(self: Box<Self>) -> Result<(), QueueError> {
        self.end(Ending::Over, true).await
    }

    async fn suspend(self: Box<Self>, next: Option<Again>) -> Result<(), QueueError> {
        let goes_on = next.is_some();
        if let Some(next) = next {
            Ticket::new(self.session, next)
                .queue(&self.settings, &self.publisher)
                .await?;
        }
        let marks = ending::within(self.again.after, self.again.attempt);
        self.end(Ending::Superseded(marks), !goes_on).await
    }
}

impl Mailbox {
    /// Leaves the mark and lets the mailbox go; removes it where nobody goes on with it.
    async fn end(self, mark: Ending, remove: bool) -> Result<(), QueueError> {
        let Self {
            settings,
            link,
            session,
            controls,
            mut holds,
            keeper,
            release,
            ..
        } = self;
        let failed = |detail: String| QueueError::Claim { session, detail };
        let limit = settings.call_timeout * CLOSE_CALLS;
        let closing = async {
            // The keeper has ended where there is nothing to wait for.
            if holds.wait_for(|holds| *holds).await.is_err() {
                return Err("another worker owns it".to_owned());
            }
            // First the mark, then the mailbox: in between a duplicate sees at least one of the two.
            repeat(&settings, &link, session, &mark).await;
            drop((release, controls));
            // Where the connection was lost just now, our own mark looks like another owner's.
            let ours = keeper.await.unwrap_or(false);
            if remove {
                let removal = if ours { Ending::Remove } else { Ending::RemoveUnused };
                repeat(&settings, &link, session, &removal).await;
            }
            Ok(())
        };
        match timeout(limit, closing).await {
            Ok(closed) => closed.map_err(failed),
            Err(_) => Err(failed(Failure::Silent(limit).to_string())),
        }
    }
}
