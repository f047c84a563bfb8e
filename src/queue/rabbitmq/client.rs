//! The orchestrator's side, for the commands that enqueue, watch and steer: a connection for each call.
//!
//! Never declares the shared objects: a broker without them has no worker, and the caller is told so.

use bytes::Bytes;
use futures::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer};

use super::super::{QueueError, Routed};
use super::Config;
use super::address::Settings;
use super::connection::{Failure, Live, connect_once, limited};
use super::consume::{TRACE, trace};
use super::publish::{Outgoing, properties, short};
use super::topology;
use crate::message::{SessionId, TraceParent};

/// Events that wait for the reader at most.
const PREFETCH: u16 = 256;

/// Enqueues a session's task on the first lane, confirmed, and declares its mailbox before, so that what is sent to the session from now on
/// waits there. `NoRoute` when no worker has declared the queue on this broker yet.
pub async fn submit(
    config: &Config,
    session: SessionId,
    body: &[u8],
    trace: Option<TraceParent>,
) -> Result<Routed, QueueError> {
    let settings = Settings::resolve(config)?;
    let id = uuid::Uuid::new_v4().to_string();
    let mut properties = message_properties(&id).with_type(short("dev.cofferdam.task"));
    if let Some(trace) = trace {
        let mut headers = FieldTable::default();
        headers.insert(TRACE.into(), topology::text(&trace.to_string()));
        properties = properties.with_headers(headers);
    }
    // There is at least one lane: the configuration was checked.
    let lane = settings.names.lanes.first().cloned().unwrap_or_default();
    let live = connect_once(&settings, "client", 0).await?;
    let sent = async {
        let failed = |failure: Failure| failure.declare(&settings.address, format!("the mailbox of {session}"));
        if !topology::queue_exists(&live, &settings, &lane).await.map_err(failed)? {
            return Ok(Routed::NoRoute);
        }
        open_mailbox(&live, &settings, session).await.map_err(failed)?;
        send(&live, &settings, "", &lane, body, properties).await
    };
    let routed = sent.await;
    live.close(&settings).await;
    routed
}

/// A session that is over gets none: what is sent to it comes back to its sender.
async fn open_mailbox(live: &Live, settings: &Settings, session: SessionId) -> Result<(), Failure> {
    if topology::queue_exists(live, settings, &settings.names.tombstone(session)).await? {
        return Ok(());
    }
    let channel = live.channel(settings).await?;
    let declaring = topology::declare_mailbox(&channel, &settings.names, session);
    limited(settings.call_timeout, declaring).await.map(drop)
}

/// Whether a session has ended, within the last day.
pub async fn is_over(config: &Config, session: SessionId) -> Result<bool, QueueError> {
    let settings = Settings::resolve(config)?;
    let live = connect_once(&settings, "client", 0).await?;
    let tombstone = settings.names.tombstone(session);
    let looked = topology::queue_exists(&live, &settings, &tombstone).await;
    live.close(&settings).await;
    looked.map_err(|failure| failure.declare(&settings.address, tombstone))
}

/// Sends a control message to a session's mailbox, confirmed. `NoRoute` when no worker runs the session.
pub async fn send_control(config: &Config, session: SessionId, body: &[u8]) -> Result<Routed, QueueError> {
    let settings = Settings::resolve(config)?;
    let id = uuid::Uuid::new_v4().to_string();
    let properties = message_properties(&id)
        .with_type(short("dev.cofferdam.control"))
        .with_correlation_id(short(&session.to_string()));
    let live = connect_once(&settings, "client", 0).await?;
    let exchange = &settings.names.session_in;
    let routed = send(&live, &settings, exchange, &session.to_string(), body, properties).await;
    live.close(&settings).await;
    routed
}

fn message_properties(id: &str) -> BasicProperties {
    properties(true)
        .with_content_type(short("application/json"))
        .with_message_id(short(id))
}

async fn send(
    live: &Live,
    settings: &Settings,
    exchange: &str,
    key: &str,
    body: &[u8],
    properties: BasicProperties,
) -> Result<Routed, QueueError> {
    let failed = |detail: String| QueueError::Publish {
        what: format!("the message to {}", if exchange.is_empty() { key } else { exchange }),
        detail,
    };
    let outgoing = Outgoing {
        exchange,
        key,
        body,
        properties,
        mandatory: true,
    };
    let sending = async {
        let channel = live.channel(settings).await?;
        let confirmed = async {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            outgoing.publish(&channel).await
        };
        limited(settings.call_timeout, confirmed).await
    };
    match sending.await {
        Ok(Some(routed)) => Ok(routed),
        Ok(None) => Err(failed("the broker refused it".into())),
        // The exchange does not exist: no worker was ever here.
        Err(failure) if failure.reply_code() == Some(404) => Ok(Routed::NoRoute),
        Err(failure) => Err(failed(failure.to_string())),
    }
}

/// A session's events, from the moment that this was made.
#[derive(Debug)]
pub struct Follow {
    address: String,
    consumer: Consumer,
    // Both keep the queue in being.
    _channel: Channel,
    _live: Live,
}

impl Follow {
    /// The next event's body, and the trace that it belongs to; `Err` when the connection is lost.
    pub async fn next(&mut self) -> Result<(Bytes, Option<TraceParent>), QueueError> {
        let address = self.address.clone();
        let lost = |detail: String| QueueError::Connect { address, detail };
        let message = match self.consumer.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(lost(Failure::Refused(error).to_string())),
            None => return Err(lost("the queue is gone".into())),
        };
        let acked = message.acker.ack(BasicAckOptions::default()).await;
        acked.map_err(|error| lost(Failure::Refused(error).to_string()))?;
        let trace = trace(&message.properties);
        Ok((message.data.into(), trace))
    }
}

/// Follows a session's events. Returns when the broker will keep them for this reader, so follow first and submit then.
pub async fn follow(config: &Config, session: SessionId) -> Result<Follow, QueueError> {
    let settings = Settings::resolve(config)?;
    let live = connect_once(&settings, "follow", 0).await?;
    let failed = |failure: Failure| failure.declare(&settings.address, format!("a queue on {}", settings.names.events));
    let channel = live.channel(&settings).await.map_err(failed)?;
    let following = async {
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = QueueDeclareOptions::exclusive().auto_delete();
        // A name of ours rather than the broker's, so that permissions on the prefix are enough.
        let name = short(&settings.names.follower(uuid::Uuid::new_v4()));
        channel
            .queue_declare(name.clone(), options, FieldTable::default())
            .await?;
        let options = lapin::options::QueueBindOptions::default();
        let key = format!("session.{session}.#");
        let events = settings.names.events.as_str();
        channel
            .queue_bind(name.clone(), events.into(), key.into(), options, FieldTable::default())
            .await?;
        let options = BasicConsumeOptions::default();
        channel
            .basic_consume(name, "".into(), options, FieldTable::default())
            .await
    };
    let consumer = limited(settings.call_timeout, following).await.map_err(failed)?;
    Ok(Follow {
        address: settings.address,
        consumer,
        _channel: channel,
        _live: live,
    })
}
