//! When a dead owner is replaced, and when one that cannot hear the broker stops acting. Pure arithmetic on what the parts do.
//!
//! The broker takes a connection for dead between two and three heartbeat intervals after its last byte, and a client sends one every half
//! interval. A ticket is looked at once each `ticket`; two looks in a row without an owner put the task back.

use std::time::Duration;

/// The two settings that decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    pub(super) heartbeat: Duration,
    pub(super) ticket: Duration,
}

impl Timing {
    /// How often the broker is asked for a sign of life, and how long it may take to give it.
    pub(super) fn asking(self) -> Duration {
        self.heartbeat / 2
    }

    /// After the network swallows everything: when the owner has stopped acting at the latest. It waits to ask, and then for the answer.
    pub(super) fn stops_acting(self) -> Duration {
        self.asking() * 2
    }

    /// When the task is back in its queue at the latest, whatever became of the owner.
    pub(super) fn latest_takeover(self) -> Duration {
        self.heartbeat * 3 + self.ticket * 2
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    /// After the network swallows everything: when another worker has the session at the earliest. The last byte may have come half an interval
    /// before, two more pass until the connection counts as dead, and between the two looks that miss the owner is one whole rest.
    fn earliest_takeover(timing: Timing) -> Duration {
        timing.heartbeat * 2 - timing.heartbeat / 2 + timing.ticket
    }

    #[test]
    fn a_dead_owner_is_replaced_within_75_s_by_default() {
        let config = Config::default();
        let timing = Timing {
            heartbeat: Duration::from_secs(config.heartbeat_s.into()),
            ticket: Duration::from_secs(config.ticket_s.into()),
        };
        // Confirms, the claim and a busy machine have the rest.
        assert_eq!(timing.latest_takeover(), Duration::from_secs(70));
        // A killed process closes its connection at once.
        assert_eq!(timing.latest_takeover() - timing.heartbeat * 3, Duration::from_secs(40));
        assert_eq!(timing.stops_acting(), Duration::from_secs(10));
        assert_eq!(earliest_takeover(timing), Duration::from_secs(35));
    }

    #[test]
    fn whatever_is_configured_an_owner_stops_acting_before_anybody_can_take_over() {
        for heartbeat in [1, 3, 10, 60, 600] {
            for ticket in [1, 2, 20, 3600] {
                let timing = Timing {
                    heartbeat: Duration::from_secs(heartbeat),
                    ticket: Duration::from_secs(ticket),
                };
                assert!(timing.stops_acting() < earliest_takeover(timing), "{timing:?}");
            }
        }
    }
}
