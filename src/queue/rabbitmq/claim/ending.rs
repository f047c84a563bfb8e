//! How an ownership ends on the broker: the marks that are left, the mailbox that goes, and what is still in it.
//!
//! Marks are numbered by the attempt that a task goes on from: everything that came of one task (its duplicates, its ticket, what a take-over
//! queued) has the same number, so one look tells whether it is still right. Never removes a mailbox that somebody consumes unless the caller
//! owns it.

use lapin::BasicProperties;
use lapin::options::QueueDeleteOptions;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::super::QueueError;
use super::super::address::Settings;
use super::super::connection::{Failure, Link, Live, limited};
use super::super::publish::{Publisher, properties, short};
use super::super::topology;
use super::PAUSE;
use crate::message::SessionId;

/// Marks that are left at once, at most. A task that goes on from one attempt was queued by an owner a few attempts later at most.
const MOST_MARKS: u32 = 16;
/// How many calls' time it may take to shut a mailbox.
const SHUT_CALLS: u32 = 2;
/// Looks at a mailbox that is to be empty, and the pause between them.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: std::time::Duration = std::time::Duration::from_millis(50);

/// The things that end a session, or a worker's part in it, on the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// The tombstone is declared.
    Over,
    /// Tasks that go on from these attempts are marked as superseded.
    Superseded(Vec<u32>),
    /// The mailbox is deleted, with what is in it.
    Remove,
    /// The mailbox is deleted unless somebody consumes it or something waits in it: that is for whoever goes on with the session.
    RemoveEmpty,
    /// What was kept for a next owner is deleted.
    Forget,
}

/// What a suspension supersedes: the task that runs, and what goes on from any attempt before the one that is suspended.
pub(super) fn within(after: u32, attempt: u32) -> Vec<u32> {
    // Its own always: a task that was handed out often has an attempt far from it.
    let latest = after.saturating_add(1).max(attempt.saturating_sub(MOST_MARKS))..attempt;
    std::iter::once(after).chain(latest).collect()
}

/// What a task that goes on from `after` supersedes: all that goes on from earlier.
pub(super) fn before(after: u32) -> Vec<u32> {
    (after.saturating_sub(MOST_MARKS)..after).collect()
}

impl Ending {
    pub(super) async fn act(&self, live: &Live, settings: &Settings, session: SessionId) -> Result<(), Failure> {
        let names = &settings.names;
        if *self == Self::RemoveEmpty {
            return remove_empty(settings, live, session, LOOKS).await;
        }
        let lent = live.short_channel(settings).await?;
        let channel = &lent.channel;
        let acted = async {
            match self {
                Self::Over => topology::declare_mark(channel, names.tombstone(session)).await,
                Self::Superseded(marks) => {
                    for after in marks {
                        topology::declare_mark(channel, names.superseded(session, *after)).await?;
                    }
                    Ok(())
                }
                Self::Remove | Self::RemoveEmpty => {
                    let mailbox = names.mailbox(session);
                    let options = QueueDeleteOptions::default();
                    channel.queue_delete(mailbox.into(), options).await.map(drop)
                }
                Self::Forget => {
                    let notes = names.notes(session);
                    let options = QueueDeleteOptions::default();
                    channel.queue_delete(notes.into(), options).await.map(drop)
                }
            }
        };
        limited(settings.call_timeout, acted).await?;
        live.give_back(lent);
        Ok(())
    }
}

/// Does it as often as it takes; the caller limits the time.
pub(super) async fn repeat(settings: &Settings, link: &Link, session: SessionId, ending: &Ending) {
    loop {
        let live = link.connected().await;
        match ending.act(&live, settings, session).await {
            Ok(()) => return,
            Err(failure) => tracing::warn!(%session, %failure, "the session's queues are not settled yet"),
        }
        sleep(PAUSE).await;
    }
}

/// Deletes a mailbox that nobody consumes; says whether it is gone. Not by the broker's own condition: for a queue of another kind, which a
/// stranger may have declared, that is an error which closes the connection.
pub(super) async fn remove_unused(settings: &Settings, live: &Live, session: SessionId) -> Result<bool, Failure> {
    let mailbox = settings.names.mailbox(session);
    match topology::consumers(live, settings, &mailbox).await? {
        None => return Ok(true),
        Some(0) => {}
        Some(_) => return Ok(false),
    }
    let channel = live.channel(settings).await?;
    let deleting = channel.queue_delete(mailbox.into(), QueueDeleteOptions::default());
    limited(settings.call_timeout, deleting).await.map(|_| true)
}

/// Deletes a mailbox that nobody consumes and nothing waits in. The last look is the broker's own, so nothing that comes meanwhile is lost.
pub(super) async fn remove_empty(
    settings: &Settings,
    live: &Live,
    session: SessionId,
    looks: u32,
) -> Result<(), Failure> {
    let mailbox = settings.names.mailbox(session);
    for look in 0..looks {
        match topology::counts(live, settings, &mailbox).await? {
            None => return Ok(()),
            Some((_, 1..)) => return Ok(()),
            // Our own consumer may still be on its way out.
            Some((1.., 0)) if look + 1 == looks => return Ok(()),
            Some((1.., 0)) => {}
            Some((0, 0)) => {
                let channel = live.channel(settings).await?;
                // For a queue of another kind these conditions are an error that closes the connection; one that is declared like this is none.
                let declared = topology::declare_mailbox_alone(&channel, &settings.names, session);
                match limited(settings.call_timeout, declared).await {
                    Ok(_) => {}
                    Err(failure) if failure.reply_code() == Some(406) => {
                        return remove_unused(settings, live, session).await.map(drop);
                    }
                    Err(failure) => return Err(failure),
                }
                let options = QueueDeleteOptions {
                    if_unused: true,
                    if_empty: true,
                    ..QueueDeleteOptions::default()
                };
                let deleting = channel.queue_delete(mailbox.as_str().into(), options);
                match limited(settings.call_timeout, deleting).await {
                    Ok(_) => return Ok(()),
                    Err(failure) if failure.reply_code() == Some(406) => {}
                    Err(failure) => return Err(failure),
                }
            }
        }
        sleep(BETWEEN_LOOKS).await;
    }
    Ok(())
}

/// The type of a message of our own that nothing comes after.
const LAST: &str = "dev.cofferdam.last";

/// Which one the owner waits for.
#[derive(Debug)]
pub(super) struct Last {
    id: String,
    /// Whether the broker took it. A mailbox that is full takes it when some of what is in it was read.
    placed: bool,
    come: bool,
}

impl Last {
    fn new() -> Self {
        Self {
            id: Uuid::new_v4().to_string(),
            placed: false,
            come: false,
        }
    }

    /// Puts it behind what is in the mailbox, unless it is there already.
    pub(super) async fn place(&mut self, settings: &Settings, publisher: &Publisher, session: SessionId) {
        if self.placed {
            return;
        }
        let properties = properties(false)
            .with_type(short(LAST))
            .with_message_id(short(&self.id));
        match publisher.put(&settings.names.mailbox(session), b"", properties).await {
            Ok(()) => self.placed = true,
            Err(detail) => tracing::debug!(%session, detail, "the mailbox takes no last message yet"),
        }
    }

    /// One with this id came.
    pub(super) fn note(&mut self, id: &str) {
        self.come |= id == self.id;
    }

    pub(super) fn has_come(&self) -> bool {
        self.come
    }
}

/// The id of a last message; `None` for any other.
pub(super) fn last(properties: &BasicProperties) -> Option<String> {
    let is_last = properties.kind().as_ref().is_some_and(|kind| kind.as_str() == LAST);
    is_last.then(|| {
        properties
            .message_id()
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    })
}

/// Takes the mailbox off its exchange, and puts a last message behind what is in it.
pub(super) async fn shut(
    settings: &Settings,
    link: &Link,
    publisher: &Publisher,
    session: SessionId,
) -> Result<Last, QueueError> {
    let failed = |detail: String| QueueError::Claim { session, detail };
    let limit = settings.call_timeout * SHUT_CALLS;
    let unbinding = async {
        let live = link.connected().await;
        let lent = live.short_channel(settings).await?;
        let channel = &lent.channel;
        let unbind = topology::unbind_mailbox(channel, &settings.names, session);
        limited(settings.call_timeout, unbind).await?;
        live.give_back(lent);
        Ok(())
    };
    timeout(limit, unbinding)
        .await
        .map_err(|_| failed(Failure::Silent(limit).to_string()))?
        .map_err(|failure: Failure| failed(failure.to_string()))?;
    let mut last = Last::new();
    last.place(settings, publisher, session).await;
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspension_marks_its_own_task_and_all_that_a_take_over_could_have_gone_on_from() {
        assert_eq!(within(0, 1), [0]);
        assert_eq!(within(0, 3), [0, 1, 2]);
        assert_eq!(within(3, 4), [3]);
        assert_eq!(within(0, 100), [0].into_iter().chain(84..100).collect::<Vec<_>>());
        // Nonsense of a sender marks its own task at least.
        assert_eq!(within(7, 2), [7]);
        assert_eq!(within(u32::MAX, 1), [u32::MAX]);
    }

    #[test]
    fn a_task_that_goes_on_marks_what_came_before_and_never_itself() {
        assert_eq!(before(0), Vec::<u32>::new());
        assert_eq!(before(2), [0, 1]);
        assert_eq!(before(50), (34..50).collect::<Vec<_>>());
    }

    #[test]
    fn the_last_message_is_known_by_its_id_alone() {
        let mut last = Last {
            id: "x".into(),
            ..Last::new()
        };
        last.note("y");
        assert!(!last.has_come());
        last.note("x");
        last.note("y");
        assert!(last.has_come());
        let other = BasicProperties::default().with_message_id("x".into());
        assert_eq!(super::last(&other), None);
        assert_eq!(super::last(&other.with_type(LAST.into())).as_deref(), Some("x"));
    }
}
