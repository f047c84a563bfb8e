//! Taking tasks: one at a time, only while somebody waits, each on a channel of its own.
//!
//! Never prefetches for a worker without a free slot, never acknowledges what came on a connection that is gone, and takes nothing while nothing
//! can be published: what is taken then could neither be claimed nor told of.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::SelectAll;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::super::{Delivery, QueueError, Settle, SettleHandle};
use super::address::Settings;
use super::connection::{Failure, Link, Live, limited};
use super::publish::Publisher;
use super::topology;
use crate::message::TraceParent;

/// The header that carries the attempt, where a task was put back by a worker.
pub(super) const ATTEMPT: &str = "cofferdam-attempt";
/// The header that carries how often an owner of the session died.
pub(super) const TAKEOVERS: &str = "cofferdam-takeovers";
/// The W3C header of a trace, in tasks and in events.
pub(super) const TRACE: &str = "traceparent";
/// Pause after a broker that is connected refused to hand out tasks.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn next_task(
    settings: &Arc<Settings>,
    (link, publishing): (&Arc<Link>, &Arc<Link>),
    publisher: &Arc<Publisher>,
    mut stopped: watch::Receiver<bool>,
) -> Option<Delivery> {
    let taking = async {
        loop {
            let out = publishing.connected().await;
            tokio::select! {
                () = out.unblocked() => {}
                () = publishing.lost(out.generation) => continue,
            }
            let live = link.connected().await;
            let taken = tokio::select! {
                taken = take(settings, &live) => taken,
                () = link.lost(live.generation) => continue,
                () = publishing.lost(out.generation) => continue,
                () = out.blocks() => continue,
            };
            match taken {
                Ok(taken) => return taken.into_delivery(settings, link, publisher, live),
                Err(failure) => tracing::warn!(%failure, "tasks cannot be taken"),
            }
            // Somebody may have deleted a queue: put it back rather than wait for the next connection.
            if let Err(error) = topology::ensure(&live, settings).await {
                tracing::warn!(%error, "the task queues are not as they should be");
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = link.lost(live.generation) => {}
            }
        }
    };
    tokio::select! {
        biased;
        _ = stopped.wait_for(|stopped| *stopped) => None,
        delivery = taking => Some(delivery),
    }
}

/// A message and the channel that it must be settled on.
struct Taken {
    lane: String,
    channel: Channel,
    delivery: lapin::message::Delivery,
}

/// Waits for a message of any lane. Dropping it closes the channels, and what was prefetched goes back.
async fn take(settings: &Settings, live: &Live) -> Result<Taken, Failure> {
    let mut channels = Vec::new();
    for lane in &settings.names.lanes {
        let channel = live.channel(settings).await?;
        limited(settings.call_timeout, channel.basic_qos(1, BasicQosOptions::default())).await?;
        // With several lanes full, consuming from all would bring one message of each, and returning the others counts against them.
        if settings.names.lanes.len() > 1 {
            let got = channel.basic_get(lane.as_str().into(), BasicGetOptions::default());
            if let Some(message) = limited(settings.call_timeout, got).await? {
                let delivery = message.delivery;
                let lane = lane.clone();
                return Ok(Taken {
                    lane,
                    channel,
                    delivery,
                });
            }
        }
        channels.push((lane, channel));
    }
    let mut consumers = SelectAll::new();
    for (index, (lane, channel)) in channels.iter().enumerate() {
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(lane.as_str().into(), "".into(), options, FieldTable::default());
        let consumer = limited(settings.call_timeout, consume).await?;
        let tag = consumer.tag();
        consumers.push(Box::pin(consumer.map(move |message| (index, tag.clone(), message))));
    }
    // The end of any consumer is the end of all: its queue or its channel is gone.
    let ended = || Failure::from(lapin::Error::from(lapin::ErrorKind::FutureCompleted));
    let (index, tag, message) = consumers.next().await.ok_or_else(ended)?;
    let delivery = message?;
    let (lane, channel) = channels.swap_remove(index);
    // Before the message is settled: a settled one would make room for the next, which would wait here for hours.
    limited(
        settings.call_timeout,
        channel.basic_cancel(tag, BasicCancelOptions::default()),
    )
    .await?;
    let lane = lane.clone();
    Ok(Taken {
        lane,
        channel,
        delivery,
    })
}

impl Taken {
    fn into_delivery(
        self,
        settings: &Arc<Settings>,
        link: &Arc<Link>,
        publisher: &Arc<Publisher>,
        live: Arc<Live>,
    ) -> Delivery {
        let body = Bytes::from(self.delivery.data);
        let properties = self.delivery.properties;
        Delivery {
            body: body.clone(),
            lane: self.lane,
            attempt: attempt(&properties),
            numbered: number(&properties, ATTEMPT).is_some(),
            takeovers: number(&properties, TAKEOVERS).unwrap_or(0),
            redelivered: self.delivery.redelivered,
            trace: trace(&properties),
            handle: Box::new(Settler {
                settings: Arc::clone(settings),
                link: Arc::clone(link),
                publisher: Arc::clone(publisher),
                live,
                channel: self.channel,
                acker: self.delivery.acker,
                body,
                properties,
            }),
        }
    }
}

/// The attempt that a worker wrote into the task, plus how often the broker handed it out in vain.
fn attempt(properties: &BasicProperties) -> u32 {
    let written = number(properties, ATTEMPT).unwrap_or(1).max(1);
    written.saturating_add(number(properties, "x-delivery-count").unwrap_or(0))
}

/// A header that is a number and not negative.
pub(super) fn number(properties: &BasicProperties, name: &str) -> Option<u32> {
    let value = properties.headers().as_ref()?.inner().get(name)?;
    match value {
        AMQPValue::LongLongInt(number) => u32::try_from(*number).ok(),
        AMQPValue::LongInt(number) => u32::try_from(*number).ok(),
        AMQPValue::LongUInt(number) => Some(*number),
        AMQPValue::ShortInt(number) => u32::try_from(*number).ok(),
        AMQPValue::ShortUInt(number) => Some(u32::from(*number)),
        AMQPValue::ShortShortInt(number) => u32::try_from(*number).ok(),
        AMQPValue::ShortShortUInt(number) => Some(u32::from(*number)),
        AMQPValue::Boolean(_)
        | AMQPValue::Float(_)
        | AMQPValue::Double(_)
        | AMQPValue::DecimalValue(_)
        | AMQPValue::ShortString(_)
        | AMQPValue::LongString(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::Timestamp(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::ByteArray(_)
        | AMQPValue::Void => None,
    }
}

/// The trace that a message came with; what cannot be read is none.
pub(super) fn trace(properties: &BasicProperties) -> Option<TraceParent> {
    let AMQPValue::LongString(text) = properties.headers().as_ref()?.inner().get(TRACE)? else {
        return None;
    };
    TraceParent::parse(std::str::from_utf8(text.as_bytes()).ok()?)
}

struct Settler {
    settings: Arc<Settings>,
    link: Arc<Link>,
    publisher: Arc<Publisher>,
    live: Arc<Live>,
    channel: Channel,
    acker: lapin::Acker,
    body: Bytes,
    properties: BasicProperties,
}

impl std::fmt::Debug for Settler {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The body may hold what must not be logged.
        formatter
            .debug_struct("Settler")
            .field("generation", &self.live.generation)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SettleHandle for Settler {
    async fn settle(self: Box<Self>, settle: Settle) -> Result<(), QueueError> {
        let gone = || QueueError::Settle("the connection that it came on is gone".into());
        let current = self.link.current().map(|live| live.generation);
        if current != Some(self.live.generation) {
            return Err(gone());
        }
        if let Settle::DeadLetter { code, message } = &settle {
            // Twice in the dead-letter queue is better than nowhere: first the copy, then the ack.
            self.publisher
                .dead_letter(&self.body, &self.properties, code, message)
                .await?;
        }
        let settling = async {
            let settled = match settle {
                Settle::Ack | Settle::DeadLetter { .. } => self.acker.ack(BasicAckOptions::default()).await?,
                Settle::Return => {
                    let options = BasicNackOptions {
                        multiple: false,
                        requeue: true,
                    };
                    self.acker.nack(options).await?
                }
            };
            if settled {
                // An ack has no answer; the closing of its channel has one, and comes after it.
                self.channel.close(200, "settled".into()).await?;
            }
            Ok::<bool, lapin::Error>(settled)
        };
        match timeout(self.settings.call_timeout, settling).await {
            Ok(Ok(true)) => Ok(()),
            // The library says `false`, not an error, for a delivery of a dead channel.
            Ok(Ok(false)) => Err(gone()),
            Ok(Err(error)) => Err(QueueError::Settle(Failure::Refused(error).to_string())),
            Err(_) => Err(QueueError::Settle(
                Failure::Silent(self.settings.call_timeout).to_string(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(headers: &[(&str, AMQPValue)]) -> BasicProperties {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), value.clone());
        }
        BasicProperties::default().with_headers(table)
    }

    #[test]
    fn a_trace_that_is_none_is_no_trace() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = |value| trace(&with(&[(TRACE, value)])).map(|trace| trace.to_string());
        assert_eq!(read(AMQPValue::LongString(good.into())).as_deref(), Some(good));
        assert_eq!(read(AMQPValue::LongString("00-zz".into())), None);
        assert_eq!(read(AMQPValue::LongInt(1)), None);
        assert_eq!(trace(&BasicProperties::default()), None);
    }

    #[test]
    fn the_attempt_is_counted_from_one_and_survives_nonsense() {
        let count = AMQPValue::LongLongInt(2);
        assert_eq!(attempt(&BasicProperties::default()), 1);
        assert_eq!(attempt(&with(&[("x-delivery-count", count.clone())])), 3);
        assert_eq!(
            attempt(&with(&[(ATTEMPT, AMQPValue::LongInt(2)), ("x-delivery-count", count)])),
            4
        );
        for nonsense in [
            AMQPValue::LongInt(-5),
            AMQPValue::LongLongInt(i64::MAX),
            AMQPValue::LongString("7".into()),
            AMQPValue::Void,
        ] {
            assert_eq!(attempt(&with(&[(ATTEMPT, nonsense)])), 1);
        }
        let most = [
            (ATTEMPT, AMQPValue::LongUInt(u32::MAX)),
            ("x-delivery-count", AMQPValue::LongInt(9)),
        ];
        assert_eq!(attempt(&with(&most)), u32::MAX);
    }
}
