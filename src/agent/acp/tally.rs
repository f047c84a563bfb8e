//! What an agent could tell without end, counted in place of being told each time: leave that it asks for, tokens it says it used, output
//! that is no message. Told at the end of a turn, and when its output ends. Pure; no clock, no I/O.

use std::sync::{Arc, Mutex, PoisonError};

use crate::message::EventBody;

/// Requests for leave that are told each; more are counted. A well-behaved agent asks a few hundred times in its life.
const MOST_PERMISSIONS: u32 = 500;

/// Shared by the reader of the output and the conversation.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    told_permissions: u32,
    untold_permissions: u64,
    /// The last word of the running turn; an agent may repeat it as often as it likes.
    usage: Option<EventBody>,
    dropped_bytes: u64,
}

impl Tally {
    /// One more request for leave; whether it is told.
    pub(super) fn permission(&self) -> bool {
        self.with(|counted| {
            let told = counted.told_permissions < MOST_PERMISSIONS;
            if told {
                counted.told_permissions += 1;
            } else {
                counted.untold_permissions += 1;
            }
            told
        })
    }

    /// The tokens of the running turn, in place of what was said before.
    pub(super) fn usage(&self, usage: EventBody) {
        self.with(|counted| counted.usage = Some(usage));
    }

    /// Output that was not read.
    pub(super) fn dropped(&self, bytes: u64) {
        self.with(|counted| counted.dropped_bytes = counted.dropped_bytes.saturating_add(bytes));
    }

    /// What is to be told now; each is told once.
    pub(super) fn take(&self) -> Vec<EventBody> {
        let (usage, untold, bytes) = self.with(|counted| {
            (
                counted.usage.take(),
                std::mem::take(&mut counted.untold_permissions),
                std::mem::take(&mut counted.dropped_bytes),
            )
        });
        let untold = (untold > 0).then(|| EventBody::Warning {
            code: "permissions_not_told".to_owned(),
            message: format!(
                "the agent asked for leave {untold} times more; each was answered by policy and is not told one by one"
            ),
        });
        let dropped = (bytes > 0).then(|| EventBody::OutputDropped {
            what: "agent output that is no message".to_owned(),
            bytes,
        });
        [usage, untold, dropped].into_iter().flatten().collect()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Counted) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_bound_is_counted_and_told_once() {
        let tally = Tally::default();
        let told = (0..MOST_PERMISSIONS + 7).filter(|_| tally.permission()).count();
        assert_eq!(told, MOST_PERMISSIONS as usize);
        for tokens in [3, 9] {
            tally.usage(EventBody::AgentUsage {
                input_tokens: tokens,
                output_tokens: 0,
            });
        }
        tally.dropped(5);
        tally.dropped(6);
        let events = tally.take();
        assert!(
            matches!(
                events.as_slice(),
                [
                    EventBody::AgentUsage { input_tokens: 9, .. },
                    EventBody::Warning { message, .. },
                    EventBody::OutputDropped { bytes: 11, .. },
                ] if message.contains(" 7 times")
            ),
            "{events:?}"
        );
        assert!(tally.take().is_empty());
    }
}
