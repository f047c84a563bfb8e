//! Confirmed publishing over the publishing connection: events, dead letters, messages to queues by name.
//!
//! Every message is confirmed within a time limit or is an error. Nothing is repeated here: whoever has the message decides.

use std::sync::Arc;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::super::{QueueError, Routed};
use super::address::Settings;
use super::connection::{Failure, Link, Live, limited};
use super::consume::TRACE;
use super::topology::text;
use crate::message::{Event, redact};

/// `delivery_mode` of a message that a broker keeps on disk, and of one that it does not.
const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;
/// Who publishes, in every message.
const APPLICATION: &str = "cofferdam";
/// Longest reason in a dead letter's header: all headers go in one frame.
const LONGEST_REASON: usize = 2000;

/// One message on its way out.
pub(super) struct Outgoing<'a> {
    pub(super) exchange: &'a str,
    pub(super) key: &'a str,
    pub(super) body: &'a [u8],
    pub(super) properties: BasicProperties,
    /// Whether the broker must tell when no queue takes it.
    pub(super) mandatory: bool,
}

impl Outgoing<'_> {
    /// Publishes on a channel that confirms. Without a time limit.
    pub(super) async fn publish(self, channel: &Channel) -> lapin::Result<Option<Routed>> {
        let options = BasicPublishOptions {
            mandatory: self.mandatory,
            immediate: false,
        };
        let confirm = channel
            .basic_publish(
                self.exchange.into(),
                self.key.into(),
                options,
                self.body,
                self.properties,
            )
            .await?;
        Ok(match confirm.await? {
            Confirmation::Ack(None) => Some(Routed::Delivered),
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Some(Routed::NoRoute),
            Confirmation::Nack(None) | Confirmation::NotRequested => None,
        })
    }
}

/// The properties that all our messages share.
pub(super) fn properties(persistent: bool) -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(if persistent { PERSISTENT } else { TRANSIENT })
        .with_app_id(APPLICATION.into())
        .with_timestamp(u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default())
}

/// Whether a message's id is one: what else its sender wrote there may be anything, and is not kept.
fn is_id(text: &str) -> bool {
    uuid::Uuid::try_parse(text).is_ok()
}

/// Publishes on whatever publishing connection there is.
#[derive(Debug)]
pub(super) struct Publisher {
    settings: Arc<Settings>,
    link: Arc<Link>,
    /// The confirming channel and the generation of the connection that it belongs to.
    channel: Mutex<Option<(u64, Channel)>>,
}

impl Publisher {
    pub(super) fn new(settings: Arc<Settings>, link: Arc<Link>) -> Self {
        Self {
            settings,
            link,
            channel: Mutex::new(None),
        }
    }

    pub(super) async fn event(&self, event: &Event) -> Result<(), QueueError> {
        let progress = event.data.body.is_progress();
        let failed = |detail: String| QueueError::Publish {
            what: format!("the event {}", event.id),
            detail,
        };
        let body = serde_json::to_vec(event).map_err(|error| failed(error.to_string()))?;
        let mut headers = FieldTable::default();
        headers.insert("cloudEvents_type".into(), text(&event.kind));
        headers.insert("cloudEvents_id".into(), text(&event.id));
        headers.insert("cloudEvents_source".into(), text(&event.source));
        if let Some(trace) = event.trace {
            headers.insert(TRACE.into(), text(&trace.to_string()));
        }
        let properties = properties(!progress)
            .with_content_type("application/cloudevents+json; charset=utf-8".into())
            .with_headers(headers)
            .with_message_id(short(&event.id))
            .with_correlation_id(short(&event.data.session.to_string()))
            .with_type(short(&event.kind));
        let outgoing = Outgoing {
            exchange: &self.settings.names.events,
            key: &event.routing_key(),
            body: &body,
            properties,
            mandatory: false,
        };
        if progress && self.link.current().is_none_or(|live| live.is_blocked()) {
            return Err(failed("the broker takes no messages now".into()));
        }
        self.send(outgoing).await.map(drop).map_err(failed)
    }

    /// Moves what is not a task to the dead-letter queue, with the reason, and without the tokens that its sender put into it.
    pub(super) async fn dead_letter(
        &self,
        body: &[u8],
        original: &BasicProperties,
        code: &str,
        message: &str,
    ) -> Result<(), QueueError> {
        let failed = |detail: String| QueueError::Publish {
            what: "a dead letter".into(),
            detail,
        };
        let mut headers = FieldTable::default();
        let reason: String = message.chars().take(LONGEST_REASON).collect();
        headers.insert(
            "cofferdam-code".into(),
            text(&code.chars().take(100).collect::<String>()),
        );
        headers.insert("cofferdam-message".into(), text(&reason));
        let mut properties = properties(true).with_headers(headers);
        if let Some(id) = original.message_id().as_ref().filter(|id| is_id(id.as_str())) {
            properties = properties.with_message_id(id.clone());
        }
        let queue = &self.settings.names.dead;
        self.put(queue, &redact::body(body), properties).await.map_err(failed)
    }

    /// Puts a message into a queue by its name. An error when there is none.
    pub(super) async fn put(&self, queue: &str, body: &[u8], properties: BasicProperties) -> Result<(), String> {
        let outgoing = Outgoing {
            exchange: "",
            key: queue,
            body,
            properties,
            mandatory: true,
        };
        match self.send(outgoing).await? {
            Routed::Delivered => Ok(()),
            Routed::NoRoute => Err(format!("there is no queue {queue}")),
        }
    }

    /// Waits for a broker that takes messages, publishes, waits for the confirm: all within one time limit.
    async fn send(&self, outgoing: Outgoing<'_>) -> Result<Routed, String> {
        let limit = self.settings.call_timeout;
        let mut used = None;
        let sending = async {
            let live = self.link.connected().await;
            live.unblocked().await;
            used = Some(live.generation);
            if !outgoing.mandatory {
                let channel = self.channel(&live).await?;
                return outgoing.publish(&channel).await.map_err(Failure::Refused);
            }
            // The client library gives a returned message to whichever confirm comes next on its channel, so these have one for themselves.
            let lent = match live.confirming.take() {
                Some(lent) => lent,
                None => self.open(&live).await?.into(),
            };
            let published = outgoing.publish(&lent.channel).await.map_err(Failure::Refused)?;
            live.confirming.give_back(lent);
            Ok(published)
        };
        let failure = match timeout(limit, sending).await {
            Ok(Ok(Some(routed))) => return Ok(routed),
            Ok(Ok(None)) => return Err("the broker refused it".into()),
            Ok(Err(failure)) => failure,
            Err(_) if used.is_none() => {
                return Err(format!(
                    "the broker takes no messages (waited {} s)",
                    limit.as_secs_f32()
                ));
            }
            Err(_) => Failure::Silent(limit),
        };
        // A channel that failed or kept silent is not used again: the next message opens another, and finds what else is wrong.
        self.forget(used).await;
        Err(failure.to_string())
    }

    async fn channel(&self, live: &Live) -> Result<Channel, Failure> {
        let mut slot = self.channel.lock().await;
        if let Some((generation, channel)) = slot.as_ref()
            && *generation == live.generation
            && channel.status().connected()
        {
            return Ok(channel.clone());
        }
        let channel = self.open(live).await?;
        *slot = Some((live.generation, channel.clone()));
        Ok(channel)
    }

    async fn open(&self, live: &Live) -> Result<Channel, Failure> {
        let channel = live.channel(&self.settings).await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        limited(self.settings.call_timeout, select).await?;
        Ok(channel)
    }

    async fn forget(&self, generation: Option<u64>) {
        let mut slot = self.channel.lock().await;
        if slot.as_ref().map(|(known, _)| *known) == generation {
            *slot = None;
        }
    }
}

/// A short string of at most 255 bytes, cut where it is longer.
pub(super) fn short(value: &str) -> ShortString {
    let end = value.floor_char_boundary(255);
    value[..end].into()
}
