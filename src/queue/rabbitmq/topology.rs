//! The names of all objects on the broker, and their declaration.
//!
//! What exists is left as it is: each object is looked for first and declared only when it is missing, because a declaration with other
//! arguments is refused. Never deletes anything that is shared.

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::super::QueueError;
use super::address::Settings;
use super::connection::{Failure, Live, limited};
use crate::message::SessionId;

/// How long a mailbox without a consumer waits: for its task to be taken, or for its owner to come back.
pub(super) const MAILBOX_EXPIRES_MS: i32 = 86_400_000;
/// How long late duplicates of what is over are recognised.
const MARK_EXPIRES_MS: i32 = 86_400_000;
/// Control messages that wait in one mailbox at most.
pub(super) const MAILBOX_LENGTH: i32 = 1000;
/// How long what an owner keeps is there without being read: longer than any session.
const NOTES_EXPIRE_MS: i32 = 604_800_000;
/// What is kept at once at most, the newest: one that comes late from an owner that lost the session must not take the place of all.
pub(super) const MOST_NOTES: i32 = 4;
/// What becomes of a message to a full one: its sender is told.
pub(super) const MAILBOX_OVERFLOW: &str = "reject-publish";

/// What the objects are called.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
    /// The task queues, the most urgent first.
    pub(super) lanes: Vec<String>,
    /// The queue of what is not a task.
    pub(super) dead: String,
    /// What is kept of running sessions, until it is looked at again.
    pub(super) tickets: String,
    /// What is to be looked at now.
    pub(super) checks: String,
    /// The topic exchange of events.
    pub(super) events: String,
    /// The direct exchange in front of the mailboxes.
    pub(super) session_in: String,
}

impl Names {
    pub(super) fn new(prefix: &str, lanes: &[String]) -> Self {
        Self {
            prefix: prefix.to_owned(),
            lanes: lanes.iter().map(|lane| format!("{prefix}.{lane}")).collect(),
            dead: format!("{prefix}.dead"),
            tickets: format!("{prefix}.tickets"),
            checks: format!("{prefix}.ticket-checks"),
            events: format!("{prefix}.events"),
            session_in: format!("{prefix}.session.in"),
        }
    }

    pub(super) fn mailbox(&self, session: SessionId) -> String {
        format!("{}.session.{session}.in", self.prefix)
    }

    /// What the owner keeps for the next one.
    pub(super) fn notes(&self, session: SessionId) -> String {
        format!("{}.session.{session}.notes", self.prefix)
    }

    pub(super) fn follower(&self, id: uuid::Uuid) -> String {
        format!("{}.follow.{id}", self.prefix)
    }

    /// What marks that the session went on from the task that goes on from this attempt.
    pub(super) fn superseded(&self, session: SessionId, after: u32) -> String {
        format!("{}.session.{session}.rest.{after}", self.prefix)
    }

    pub(super) fn tombstone(&self, session: SessionId) -> String {
        format!("{}.session.{session}.closed", self.prefix)
    }
}

/// Declares what is missing of the shared objects.
pub(super) async fn ensure(live: &Live, settings: &Settings) -> Result<(), QueueError> {
    let names = &settings.names;
    // The dead-letter queue first: the task queues point to it.
    ensure_queue(live, settings, &names.dead, quorum()).await?;
    for lane in &names.lanes {
        let mut arguments = quorum();
        put(
            &mut arguments,
            "x-delivery-limit",
            AMQPValue::LongInt(settings.delivery_limit.into()),
        );
        dead_letter_to(&mut arguments, &names.dead);
        ensure_queue(live, settings, lane, arguments).await?;
    }
    // A ticket is never given up by the broker: 4.0 and newer would after 20 returns.
    let mut checks = quorum();
    put(&mut checks, "x-delivery-limit", AMQPValue::LongInt(i32::MAX));
    ensure_queue(live, settings, &names.checks, checks).await?;
    let mut tickets = quorum();
    put(
        &mut tickets,
        "x-message-ttl",
        AMQPValue::LongLongInt(settings.ticket_ms),
    );
    dead_letter_to(&mut tickets, &names.checks);
    ensure_queue(live, settings, &names.tickets, tickets).await?;
    ensure_exchange(live, settings, &names.events, ExchangeKind::Topic).await?;
    ensure_exchange(live, settings, &names.session_in, ExchangeKind::Direct).await
}

/// Declares a session's mailbox on this channel and binds it; says how many messages wait in it. Submitters do the same, with the same
/// arguments.
pub(super) async fn declare_mailbox(channel: &Channel, names: &Names, session: SessionId) -> lapin::Result<u32> {
    let mailbox = names.mailbox(session);
    let waiting = declare_mailbox_alone(channel, names, session).await?;
    let key = session.to_string();
    let options = lapin::options::QueueBindOptions::default();
    channel
        .queue_bind(
            mailbox.into(),
            names.session_in.as_str().into(),
            key.into(),
            options,
            FieldTable::default(),
        )
        .await?;
    Ok(waiting)
}

/// Declares it without binding it; says how many messages wait in it.
pub(super) async fn declare_mailbox_alone(channel: &Channel, names: &Names, session: SessionId) -> lapin::Result<u32> {
    let mailbox = names.mailbox(session);
    let mut arguments = FieldTable::default();
    put(&mut arguments, "x-expires", AMQPValue::LongInt(MAILBOX_EXPIRES_MS));
    put(&mut arguments, "x-max-length", AMQPValue::LongInt(MAILBOX_LENGTH));
    put(&mut arguments, "x-overflow", text(MAILBOX_OVERFLOW));
    let options = QueueDeclareOptions::durable();
    let declared = channel.queue_declare(mailbox.into(), options, arguments).await?;
    Ok(declared.message_count())
}

/// Declares the place where a session's owner keeps what the next one must know.
pub(super) async fn declare_notes(channel: &Channel, names: &Names, session: SessionId) -> lapin::Result<()> {
    let mut arguments = FieldTable::default();
    put(&mut arguments, "x-expires", AMQPValue::LongInt(NOTES_EXPIRE_MS));
    put(&mut arguments, "x-max-length", AMQPValue::LongInt(MOST_NOTES));
    let name = names.notes(session);
    channel
        .queue_declare(name.into(), QueueDeclareOptions::durable(), arguments)
        .await
        .map(drop)
}

/// Lets no further message into a session's mailbox: from now on they have no route.
pub(super) async fn unbind_mailbox(channel: &Channel, names: &Names, session: SessionId) -> lapin::Result<()> {
    let key = session.to_string();
    channel
        .queue_unbind(
            names.mailbox(session).into(),
            names.session_in.as_str().into(),
            key.into(),
            FieldTable::default(),
        )
        .await
}

/// Declares an empty queue that says something by being there.
pub(super) async fn declare_mark(channel: &Channel, name: String) -> lapin::Result<()> {
    let mut arguments = FieldTable::default();
    put(&mut arguments, "x-expires", AMQPValue::LongInt(MARK_EXPIRES_MS));
    channel
        .queue_declare(name.into(), QueueDeclareOptions::durable(), arguments)
        .await
        .map(drop)
}

/// What the broker's marks say of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marked {
    /// Nothing: it may run.
    No,
    /// It went on since from where such a task would.
    Superseded,
    /// It has ended.
    Over,
}

/// Looks for the marks of a session and of tasks that go on from `after`. The tombstone wins.
pub(super) async fn marked(
    live: &Live,
    settings: &Settings,
    session: SessionId,
    after: u32,
) -> Result<Marked, Failure> {
    let names = &settings.names;
    if queue_exists(live, settings, &names.tombstone(session)).await? {
        return Ok(Marked::Over);
    }
    if queue_exists(live, settings, &names.superseded(session, after)).await? {
        return Ok(Marked::Superseded);
    }
    Ok(Marked::No)
}

/// Whether a queue exists.
pub(super) async fn queue_exists(live: &Live, settings: &Settings, name: &str) -> Result<bool, Failure> {
    Ok(consumers(live, settings, name).await?.is_some())
}

/// How many consumers a queue has; `None` when there is no such queue.
pub(super) async fn consumers(live: &Live, settings: &Settings, name: &str) -> Result<Option<u32>, Failure> {
    Ok(counts(live, settings, name).await?.map(|(consumers, _)| consumers))
}

/// How many consumers a queue has and how many messages wait in it; `None` when there is no such queue. A miss closes the channel.
pub(super) async fn counts(live: &Live, settings: &Settings, name: &str) -> Result<Option<(u32, u32)>, Failure> {
    let channel = live.channel_to_ask(settings).await?;
    let options = QueueDeclareOptions::durable().passive();
    let declared = limited(
        settings.call_timeout,
        channel.queue_declare(name.into(), options, FieldTable::default()),
    );
    match declared.await {
        Ok(queue) => {
            // Its answer is not waited for by anybody; a channel left open would last as long as the connection.
            limited(settings.call_timeout, channel.close(200, "looked".into())).await?;
            Ok(Some((queue.consumer_count(), queue.message_count())))
        }
        Err(failure) if failure.reply_code() == Some(404) => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn ensure_queue(live: &Live, settings: &Settings, name: &str, arguments: FieldTable) -> Result<(), QueueError> {
    let refused = |failure: Failure| failure.declare(&settings.address, format!("the queue {name}"));
    if queue_exists(live, settings, name).await.map_err(refused)? {
        return Ok(());
    }
    let channel = live.channel(settings).await.map_err(refused)?;
    let declared = channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments);
    limited(settings.call_timeout, declared)
        .await
        .map(drop)
        .map_err(refused)
}

async fn ensure_exchange(live: &Live, settings: &Settings, name: &str, kind: ExchangeKind) -> Result<(), QueueError> {
    let refused = |failure: Failure| failure.declare(&settings.address, format!("the exchange {name}"));
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let passive = ExchangeDeclareOptions {
        passive: true,
        ..options
    };
    let channel = live.channel_to_ask(settings).await.map_err(refused)?;
    let looked = channel.exchange_declare(name.into(), kind.clone(), passive, FieldTable::default());
    match limited(settings.call_timeout, looked).await {
        Ok(()) => return Ok(()),
        Err(failure) if failure.reply_code() == Some(404) => {}
        Err(failure) => return Err(refused(failure)),
    }
    let channel = live.channel(settings).await.map_err(refused)?;
    let declared = channel.exchange_declare(name.into(), kind, options, FieldTable::default());
    limited(settings.call_timeout, declared).await.map_err(refused)
}

/// At-least-once dead-lettering needs this overflow behaviour; no length is set.
fn dead_letter_to(arguments: &mut FieldTable, queue: &str) {
    put(arguments, "x-dead-letter-exchange", text(""));
    put(arguments, "x-dead-letter-routing-key", text(queue));
    put(arguments, "x-dead-letter-strategy", text("at-least-once"));
    put(arguments, "x-overflow", text("reject-publish"));
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    put(&mut arguments, "x-queue-type", text("quorum"));
    arguments
}

fn put(table: &mut FieldTable, key: &str, value: AMQPValue) {
    table.insert(key.into(), value);
}

pub(super) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
