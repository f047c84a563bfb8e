//! What an owner keeps on the broker for the next one: a small queue of the session's own, whose newest message counts. Its header says which
//! attempt wrote it, so it also tells which attempts were taken.
//!
//! Never looks into what is kept. Read only by whoever owns the session at that moment; what is read stays until something newer is there.

use bytes::Bytes;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::super::super::QueueError;
use super::super::address::Settings;
use super::super::connection::{Failure, Lent, Link, Live, limited};
use super::super::consume::{ATTEMPT, number};
use super::super::publish::{Publisher, properties, short};
use super::super::topology::{self, MOST_NOTES};
use crate::message::SessionId;

/// What was found.
pub(super) struct Found {
    /// The highest attempt that ever wrote here, as far as can be seen; 0 where none did.
    pub(super) highest: u32,
    /// What was kept last by an attempt that belongs to the task; empty where there is nothing.
    pub(super) body: Bytes,
    /// The last message that was read, and its channel, which holds them all.
    last: Option<Acker>,
    lent: Lent,
}

/// Reads what was kept by attempts after `after`: what is older belongs to a task that the session went on from since.
pub(super) async fn read(settings: &Settings, live: &Live, session: SessionId, after: u32) -> Result<Found, Failure> {
    let lent = live.short_channel(settings).await?;
    let declared = topology::declare_notes(&lent.channel, &settings.names, session);
    limited(settings.call_timeout, declared).await?;
    let mut found = Found {
        highest: 0,
        body: Bytes::new(),
        last: None,
        lent,
    };
    let mut best = after;
    for _ in 0..=MOST_NOTES {
        let queue = settings.names.notes(session);
        let get = found.lent.channel.basic_get(queue.into(), BasicGetOptions::default());
        let Some(message) = limited(settings.call_timeout, get).await? else {
            break;
        };
        let attempt = number(&message.delivery.properties, ATTEMPT).unwrap_or(0);
        found.highest = found.highest.max(attempt);
        // A later message of the same attempt is newer.
        if attempt > after && attempt >= best {
            best = attempt;
            found.body = message.delivery.data.into();
        }
        found.last = Some(message.delivery.acker);
    }
    Ok(found)
}

impl Found {
    /// The broker forgets what was read: something newer is there.
    pub(super) async fn replaced(self, live: &Live, settings: &Settings) -> Result<(), Failure> {
        let Some(last) = self.last else {
            live.give_back(self.lent);
            return Ok(());
        };
        let all = BasicAckOptions { multiple: true };
        limited(settings.call_timeout, last.ack(all)).await?;
        // An ack has no answer; the closing of its channel has one, and comes after it.
        limited(settings.call_timeout, self.lent.channel.close(200, "read".into())).await
    }
}

/// Keeps something. Confirmed.
pub(super) async fn write(
    settings: &Settings,
    link: &Link,
    publisher: &Publisher,
    (session, attempt): (SessionId, u32),
    body: &[u8],
) -> Result<(), QueueError> {
    let queue = settings.names.notes(session);
    let put = || {
        let mut headers = FieldTable::default();
        headers.insert(ATTEMPT.into(), AMQPValue::LongUInt(attempt));
        let properties = properties(true)
            .with_headers(headers)
            .with_correlation_id(short(&session.to_string()));
        publisher.put(&queue, body, properties)
    };
    let Err(detail) = put().await else { return Ok(()) };
    let failed = |detail: String| QueueError::Publish {
        what: format!("the notes of {session}"),
        detail,
    };
    // It may have expired, or a node was lost.
    let Some(live) = link.current() else {
        return Err(failed(detail));
    };
    let channel = live.channel(settings).await.map_err(|_| failed(detail.clone()))?;
    let declared = topology::declare_notes(&channel, &settings.names, session);
    limited(settings.call_timeout, declared)
        .await
        .map_err(|_| failed(detail))?;
    put().await.map_err(failed)
}
