//! Keeps a mailbox consumed for as long as its session runs here: passes control messages on, and takes it back after a lost connection.
//!
//! Never goes on beside another owner, and not after one either: what was told under a higher attempt counts.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt as _;
use lapin::{Channel, Consumer};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::super::address::Settings;
use super::super::connection::{Link, Live};
use super::{Came, PAUSE, Taken, ending, notes, take};
use crate::message::SessionId;

/// Passes control messages on and takes the mailbox back after a lost connection.
pub(super) struct Keeper {
    pub(super) settings: Arc<Settings>,
    pub(super) link: Arc<Link>,
    pub(super) session: SessionId,
    pub(super) after: u32,
    pub(super) attempt: u32,
    /// Boxed: a queue takes the memory of 32 at its beginning, and few claims get many.
    pub(super) controls: mpsc::Sender<Box<Came>>,
    /// Whether the consumer is there, as far as can be known: until the broker is silent or lost, and from when it is back.
    pub(super) holding: watch::Sender<bool>,
}

impl Keeper {
    /// Ends when the ownership is lost.
    pub(super) async fn keep(self, live: Arc<Live>, channel: Channel, consumer: Box<Consumer>) {
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
            let given = Came {
                body: message.data.into(),
                last: ending::last(&message.properties),
                acker: message.acker,
            };
            if self.controls.send(Box::new(given)).await.is_err() {
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
                Ok(Taken::Owner(owned)) => match notes::read(&self.settings, &live, self.session, self.after).await {
                    // Whoever took the session over meanwhile has died since: its task goes on, this one is old.
                    Ok(found) if found.highest > self.attempt => {
                        tracing::warn!(session = %self.session, "another worker had the session meanwhile");
                        return None;
                    }
                    Ok(_) => {
                        tracing::info!(session = %self.session, "took the session's mailbox back");
                        return Some((live, owned.channel, owned.consumer));
                    }
                    Err(failure) => tracing::warn!(session = %self.session, %failure, "the mailbox is not back yet"),
                },
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
