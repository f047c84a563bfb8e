//! Questions that the broker answers by closing the channel they came on: whether a queue is there. They have a connection of their own.
//!
//! The client library (lapin 4.12) keeps the error that closed a channel for whatever gets that channel's number later, so each number of such
//! a connection is used once, and then the connection is replaced. Never consumes and never publishes, so its loss costs a question.

use lapin::{Channel, Connection};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::address::Settings;
use super::connection::{Failure, limited, open};

/// Channels of one connection at most, where the broker allows more.
const MOST: u16 = 1000;

/// Asks on whatever connection it has, one after the other.
#[derive(Debug, Default)]
pub(super) struct Asking(Mutex<Option<Fresh>>);

/// A connection some of whose numbers were not used yet.
#[derive(Debug)]
struct Fresh {
    connection: Connection,
    left: u16,
}

impl Asking {
    /// A channel whose number was never used before. Those that are open keep their connection when it is replaced here.
    pub(super) async fn channel(&self, settings: &Settings) -> Result<Channel, Failure> {
        // Around the lock too: those who wait for one that a hole swallows must not each wait for one of their own.
        let limit = settings.connect_timeout + settings.call_timeout;
        match timeout(limit, self.next(settings)).await {
            Ok(opened) => opened,
            Err(_) => Err(Failure::Silent(limit)),
        }
    }

    async fn next(&self, settings: &Settings) -> Result<Channel, Failure> {
        let mut slot = self.0.lock().await;
        let is_usable = |fresh: &Fresh| fresh.left > 0 && fresh.connection.status().connected();
        let mut fresh = match slot.take().filter(is_usable) {
            Some(fresh) => fresh,
            None => Fresh::connect(settings).await?,
        };
        fresh.left -= 1;
        let opened = limited(settings.call_timeout, fresh.connection.create_channel()).await;
        // One that failed is not asked again.
        if opened.is_ok() {
            *slot = Some(fresh);
        }
        opened
    }
}

impl Fresh {
    async fn connect(settings: &Settings) -> Result<Self, Failure> {
        let connection = limited(settings.connect_timeout, open(settings, "ask")).await?;
        let allowed = match connection.configuration().channel_max() {
            0 => MOST,
            some => some.min(MOST),
        };
        Ok(Self {
            connection,
            left: allowed.max(1),
        })
    }
}
