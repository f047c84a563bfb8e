//! RabbitMQ: tasks from quorum queues, ownership of a session by its mailbox, confirmed events. With the files under it the only place that
//! names the client library.
//!
//! Never holds a delivery for the length of a session, never recovers a connection behind the caller's back, never prints a password.
//!
//! # Objects on the broker
//!
//! All names begin with the configured prefix (here `cofferdam`), so installations can share a virtual host, and a worker's user needs the
//! permissions configure, write and read on `^cofferdam\.` only (plus write on `amq\.default` for publishing into queues by name).
//!
//! | object | kind | what for |
//! |---|---|---|
//! | `cofferdam.<lane>` (`cofferdam.tasks`) | quorum queue, delivery limit, dead-letters to `cofferdam.dead` | tasks; orchestrators publish into it by name |
//! | `cofferdam.dead` | quorum queue | bodies that are not tasks, with `cofferdam-code` and `cofferdam-message`; tasks over the delivery limit |
//! | `cofferdam.tickets` | quorum queue, messages expire after `ticket_s` into the next | one ticket for each running session: its task |
//! | `cofferdam.ticket-checks` | quorum queue, every worker consumes it | tickets to be looked at: is the owner alive? |
//! | `cofferdam.session.in` | direct exchange | control messages, routing key `<session id>`, publish with `mandatory` |
//! | `cofferdam.session.<id>.in` | classic queue, one exclusive consumer, expires unused after a day | the mailbox: whoever consumes it owns the session; a submitter declares it before it sends the task |
//! | `cofferdam.session.<id>.notes` | classic queue, the newest message counts, goes with the session | what the owner keeps for the next one, should it die: how far it came |
//! | `cofferdam.session.<id>.rest.<n>` | classic queue, always empty, expires after a day | the session went on since from the task that goes on from attempt n |
//! | `cofferdam.session.<id>.closed` | classic queue, always empty, expires after a day | the tombstone: the session is over |
//! | `cofferdam.events` | topic exchange | events, routing key `session.<id>.<kind>` |
//! | `cofferdam.follow.<random>` | exclusive queue of one reader, goes with it | what `follow` reads a session's events from |
//!
//! Objects that exist are used as they are, whatever their arguments: put other limits into a policy or declare them first.
//!
//! # Who may run a session
//!
//! A task begins a session (0) or goes on from an attempt that was suspended (its `resume`); everything that came of one task has that number:
//! duplicates, the ticket, what a take-over queued. A suspension marks its own number; a task that goes on marks the ones before its own when it
//! is claimed, should the suspended owner have died before it could. What is marked is dropped wherever it is met, so a second ticket or a second
//! task is harmless. The tombstone wins over everything.
//!
//! A ticket has the task as it was sent; how far the session came since is in its notes, which its owner replaces as it goes and only an owner
//! reads. Each claim writes its attempt there before anything is told under that number, and takes one that is higher than what it found: so
//! attempts increase, however many tickets lead to a session, and an owner that comes back finds that there was another. Notes of attempts up to
//! the one that a task goes on from are older than the task, and not heeded.
//!
//! # Connections
//!
//! One connection consumes and settles, another publishes: a publisher that the broker blocks (memory alarm) must not stop acks. Each has a
//! supervisor that connects for ever. A delivery, a consumer and a channel belong to the connection that they came on and die with it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::watch;

use super::{Again, Claimed, Delivery, Queue, QueueError};
use crate::message::{Event, SessionId};

mod address;
mod asking;
mod claim;
mod client;
mod connection;
mod consume;
mod contract;
mod publish;
mod ticket;
mod timing;
mod topology;

#[cfg(test)]
mod tests;

pub use client::{Follow, follow, is_over, send_control, submit};
pub use contract::Contract;

use address::Settings;
use connection::Link;
use publish::Publisher;

/// Where the broker is and what the queues are called.
#[derive(Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The broker's address: `amqp://user:password@host:5672/virtual-host`, or `amqps://` for TLS. `/` in the virtual host is `%2f`.
    pub url: String,
    /// The name of an environment variable that holds the address; goes before `url`.
    pub url_env: Option<String>,
    /// A file that holds the address; goes before `url` and `url_env`.
    pub url_file: Option<PathBuf>,
    /// What all names on the broker begin with.
    pub prefix: String,
    /// The task queues' names after the prefix, the most urgent first.
    pub lanes: Vec<String>,
    /// Heartbeat interval, in seconds. A connection is lost after two intervals of silence.
    pub heartbeat_s: u16,
    /// Time limit for connecting, in seconds.
    pub connect_timeout_s: u64,
    /// Time limit for one confirm, declaration or acknowledgement, in seconds.
    pub confirm_timeout_s: u64,
    /// How often a task is handed out before it is dead-lettered; takes effect when the queue is first declared.
    pub delivery_limit: u16,
    /// How often a running session's owner is looked for, in seconds; the owner is taken for dead when it is missed twice in a row. Takes
    /// effect when the queue is first declared.
    pub ticket_s: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "amqp://guest:guest@127.0.0.1:5672/%2f".into(),
            url_env: None,
            url_file: None,
            prefix: "cofferdam".into(),
            lanes: vec!["tasks".into()],
            heartbeat_s: 10,
            connect_timeout_s: 10,
            confirm_timeout_s: 5,
            delivery_limit: 20,
            ticket_s: 20,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("url", &address::without_credentials(&self.url))
            .field("url_env", &self.url_env)
            .field("url_file", &self.url_file)
            .field("prefix", &self.prefix)
            .field("lanes", &self.lanes)
            .finish_non_exhaustive()
    }
}

/// A worker's access to RabbitMQ. Dropping it ends its connections.
#[derive(Debug)]
pub struct RabbitMq {
    settings: Arc<Settings>,
    consuming: Arc<Link>,
    publishing: Arc<Link>,
    publisher: Arc<Publisher>,
    stopped: watch::Sender<bool>,
    checks: tokio::task::AbortHandle,
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.checks.abort();
    }
}

impl RabbitMq {
    /// Starts connecting in the background and keeps at it. Fails only for a configuration that cannot be used; `is_connected` tells the rest.
    pub fn start(config: &Config) -> Result<Self, QueueError> {
        let settings = Arc::new(Settings::resolve(config)?);
        let timing = settings.timing();
        tracing::info!(
            takeover_s = timing.latest_takeover().as_secs_f32(),
            stops_acting_s = timing.stops_acting().as_secs_f32(),
            "a dead worker's session begins again within takeover_s; one that the broker does not answer pushes nothing after stops_acting_s"
        );
        let asking = Arc::new(asking::Asking::default());
        let consuming = Arc::new(Link::start(Arc::clone(&settings), "consume", asking.clone()));
        let publishing = Arc::new(Link::start(Arc::clone(&settings), "publish", asking));
        let publisher = Arc::new(Publisher::new(Arc::clone(&settings), Arc::clone(&publishing)));
        let stopped = watch::Sender::new(false);
        let checking = ticket::check(
            Arc::clone(&settings),
            Arc::clone(&consuming),
            Arc::clone(&publisher),
            stopped.subscribe(),
        );
        Ok(Self {
            settings,
            consuming,
            publishing,
            publisher,
            stopped,
            checks: tokio::spawn(checking).abort_handle(),
        })
    }

    /// Whether the configuration makes sense, as far as that can be known without a broker.
    ///
    /// # Errors
    /// What is wrong with it: an address that is nowhere or is none, a name, a lane.
    pub fn configured(config: &Config) -> Result<(), QueueError> {
        Settings::resolve(config).map(drop)
    }

    /// Connects once, declares what is missing, and says what is wrong if anything is.
    pub async fn check(config: &Config) -> Result<(), QueueError> {
        let settings = Settings::resolve(config)?;
        let live = connection::connect_once(&settings, "check", 0).await?;
        topology::ensure(&live, &settings).await?;
        live.close(&settings).await;
        Ok(())
    }

    /// The broker's address without user and password.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.settings.address
    }
}

#[async_trait]
impl Queue for RabbitMq {
    async fn next_task(&self) -> Option<Delivery> {
        consume::next_task(
            &self.settings,
            (&self.consuming, &self.publishing),
            &self.publisher,
            self.stopped.subscribe(),
        )
        .await
    }

    async fn claim(&self, session: SessionId, again: Again) -> Result<Claimed, QueueError> {
        claim::claim(&self.settings, &self.consuming, &self.publisher, session, again).await
    }

    async fn publish(&self, event: &Event) -> Result<(), QueueError> {
        self.publisher.event(event).await
    }

    async fn stop_consuming(&self) {
        self.stopped.send_replace(true);
    }

    fn is_connected(&self) -> bool {
        self.consuming.current().is_some() && self.publishing.current().is_some()
    }
}
