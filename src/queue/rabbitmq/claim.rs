//! Ownership of a session: the exclusive consumer of its mailbox. Its end: empty queues that mark the session as over, or its task as
//! superseded (see `ending`).
//!
//! Never leaves the mailbox of a session that is over behind: a late prompt must come back to its sender, not vanish.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::super::{Again, Claim, Claimed, Given, Leftover, QueueError, Receipt};
use super::address::Settings;
use super::connection::{Failure, Link, Live, limited};
use super::publish::Publisher;
use super::ticket::Ticket;
use super::topology::{self, Marked};
use crate::message::SessionId;

mod ending;
mod keeper;
mod leftover;
mod notes;

use ending::{Ending, Last, repeat};
use keeper::Keeper;

/// Control messages that are on their way to the session at once, or read and not yet in safe hands: more than the prompts that may wait and
/// what ends a session together, so that no `end` waits behind them.
const PREFETCH: u16 = 64;
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
    let Owned {
        channel,
        consumer,
        waiting,
    } = match taken {
        Taken::Owner(owned) => owned,
        Taken::Elsewhere => {
            // What a worker queued may be what keeps the session alive when that owner is gone: it rests instead of being dropped. Where it is a
            // mere duplicate, its ticket is one more, and as harmless.
            if again.rests {
                Ticket::new(session, again).issue(settings, publisher).await?;
            }
            return Ok(Claimed::Elsewhere);
        }
        Taken::Marked(claimed) => return Ok(claimed),
    };
    let found = notes::read(settings, &live, session, again.after)
        .await
        .map_err(|failure| failed(failure.to_string()))?;
    // Several tickets may lead to a session, each with its own count: what was taken says which number is free.
    let attempt = again.attempt.max(found.highest.saturating_add(1));
    let again = Again { attempt, ..again };
    // Owner first, then the ticket: a ticket without an owner would have the session begun a second time. The task is acknowledged only after
    // both, so a worker that dies in between costs nothing.
    Ticket::new(session, again.clone()).issue(settings, publisher).await?;
    // Before anything is told under this number.
    let kept = found.body.clone();
    notes::write(settings, link, publisher, (session, attempt), &kept).await?;
    if let Err(failure) = found.replaced(&live, settings).await {
        tracing::debug!(%session, %failure, "what an owner before kept stays beside what is kept now");
    }
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
        attempt,
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
        kept: (!kept.is_empty()).then_some(kept),
        waiting,
        controls,
        given: BTreeMap::new(),
        count: 0,
        acks: Vec::new(),
        last: None,
        holds,
        keeper,
        release,
    })))
}

/// Takes the mailbox. Every step that may be refused is on a channel of its own, because a refusal closes the channel.
async fn take(settings: &Settings, live: &Live, session: SessionId, after: u32) -> Result<Taken, Failure> {
    if let Some(marked) = looked(settings, live, session, after).await? {
        // A submitter may have made one for a task that comes too late. What is in it is nobody's, unless the session may go on.
        match marked {
            Claimed::Over(_) => {
                let left = leftover::take_out(settings, live, session).await?;
                return Ok(Taken::Marked(Claimed::Over(Leftover(left))));
            }
            Claimed::Superseded => ending::remove_empty(settings, live, session, 1).await?,
            Claimed::Owner(_) | Claimed::Elsewhere => {}
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
        let Owned { channel, consumer, .. } = owned;
        // Before the consumer is dropped: that cancels it, and what it was given would go back only some time after the channel.
        limited(settings.call_timeout, channel.close(200, "marked".into())).await?;
        drop(consumer);
        ending::remove_empty(settings, live, session, 1).await?;
        return Ok(Taken::Marked(marked));
    }
    Ok(Taken::Owner(owned))
}

async fn looked(settings: &Settings, live: &Live, session: SessionId, after: u32) -> Result<Option<Claimed>, Failure> {
    Ok(match topology::marked(live, settings, session, after).await? {
        Marked::No => None,
        Marked::Superseded => Some(Claimed::Superseded),
        Marked::Over => Some(Claimed::Over(Leftover::default())),
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
struct Came {
    body: Bytes,
    /// The id of a last message (see [`ending::shut`]), where it is one.
    last: Option<String>,
    acker: Acker,
}

/// An owned session.
struct Mailbox {
    settings: Arc<Settings>,
    link: Arc<Link>,
    publisher: Arc<Publisher>,
    session: SessionId,
    again: Again,
    /// What the owner before kept.
    kept: Option<Bytes>,
    /// Messages that waited when it was claimed.
    waiting: u32,
    controls: mpsc::Receiver<Box<Came>>,
    /// The messages that were handed out and are not acknowledged.
    given: BTreeMap<Receipt, Acker>,
    /// Messages that were handed out.
    count: u64,
    /// Acknowledgements that are on their way.
    acks: Vec<tokio::task::JoinHandle<()>>,
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
    fn attempt(&self) -> u32 {
        self.again.attempt
    }

    fn kept(&self) -> Option<Bytes> {
        self.kept.clone()
    }

    async fn keep(&self, body: Bytes) -> Result<(), QueueError> {
        // One that lost the session must not speak for it.
        if !*self.holds.borrow() {
            let (session, detail) = (self.session, "it is not certain who owns it".to_owned());
            return Err(QueueError::Claim { session, detail });
        }
        let of = (self.session, self.again.attempt);
        notes::write(&self.settings, &self.link, &self.publisher, of, &body).await
    }

    fn waiting(&self) -> u32 {
        self.waiting
    }

    async fn next_control(&mut self) -> Option<Given> {
        loop {
            if let Some(last) = &mut self.last {
                if last.has_come() {
                    return None;
                }
                last.place(&self.settings, &self.publisher, self.session).await;
            }
            let came = self.controls.recv().await?;
            self.count += 1;
            let receipt = Receipt(self.count);
            self.given.insert(receipt, came.acker);
            let Some(id) = came.last else {
                return Some(Given {
                    body: came.body,
                    receipt,
                });
            };
            // Ours, or one that an owner left which died after it.
            self.taken(receipt);
            if let Some(last) = &mut self.last {
                last.note(&id);
            }
        }
    }

    fn taken(&mut self, receipt: Receipt) {
        let Some(acker) = self.given.remove(&receipt) else {
            return;
        };
        let limit = self.settings.call_timeout;
        self.acks.retain(|ack| !ack.is_finished());
        // Not waited for before the end: unacknowledged, it comes again, and is known by its id.
        self.acks.push(tokio::spawn(async move {
            let _ = limited(limit, acker.ack(BasicAckOptions::default())).await;
        }));
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
        self.end(Ending::Over, Some(Ending::Remove)).await
    }

    async fn hand_on(&self, next: Again) -> Result<(), QueueError> {
        Ticket::new(self.session, next)
            .queue(&self.settings, &self.publisher)
            .await
    }

    async fn suspend(self: Box<Self>, goes_on: bool) -> Result<(), QueueError> {
        let marks = ending::within(self.again.after, self.again.attempt);
        let removal = (!goes_on).then_some(Ending::RemoveEmpty);
        self.end(Ending::Superseded(marks), removal).await
    }
}

impl Mailbox {
    /// Leaves the mark and lets the mailbox go; removes it where nobody goes on with it, and what was kept for a next owner.
    async fn end(self, mark: Ending, removal: Option<Ending>) -> Result<(), QueueError> {
        let Self {
            settings,
            link,
            session,
            controls,
            acks,
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
            // While nobody else can own it and keep something there.
            repeat(&settings, &link, session, &Ending::Forget).await;
            // What is in safe hands must not come to whoever goes on: its channel ends with the ownership.
            for ack in acks {
                let _ = ack.await;
            }
            drop((release, controls));
            // Where the connection was lost just now, our own mark looks like another owner's.
            let ours = keeper.await.unwrap_or(false);
            if let Some(removal) = removal {
                let removal = if ours { removal } else { Ending::RemoveEmpty };
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
