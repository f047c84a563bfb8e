//! The times of one turn: when it must be over, when silence is a stall, when the agent is told that its time is short. Pure.
//!
//! The turn's own time and the agent's silence stand still while people are waited for; the session's end does not move.

use std::time::Duration;

use tokio::time::Instant;

use super::asking::Waits;
use crate::agent::TurnLimits;

/// An agent is told of its end only in turns at least so many times as long: others would end by being told.
const LEAST_TIMES: u32 = 4;
/// With less left nobody can commit anything.
const LEAST_LEFT: Duration = Duration::from_secs(1);

/// A turn's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    began: Instant,
    limits: TurnLimits,
}

impl Clock {
    pub(super) fn start(began: Instant, limits: TurnLimits) -> Self {
        Self { began, limits }
    }

    pub(super) fn limits(&self) -> TurnLimits {
        self.limits
    }

    /// When the turn must be over; not known while people are waited for.
    pub(super) fn end(&self, waits: &Waits) -> Option<Instant> {
        (!waits.is_open()).then(|| self.began + self.limits.turn + waits.total())
    }

    /// When silence becomes a stall. Any line of the agent counts as a sign of life.
    pub(super) fn stall(&self, heard: Instant, waits: &Waits) -> Option<Instant> {
        let last = heard.max(self.began).max(waits.ended().unwrap_or(self.began));
        (!waits.is_open()).then(|| last + self.limits.idle)
    }

    /// When the agent is told, where it is.
    pub(super) fn wind_down(&self, waits: &Waits) -> Option<Instant> {
        let before = self.limits.wind_down;
        let whole = self
            .limits
            .turn
            .min(self.limits.session_end.saturating_duration_since(self.began));
        if before.is_zero() || whole < before * LEAST_TIMES {
            return None;
        }
        let end = self.nearest(waits);
        end.checked_sub(before)
    }

    /// What is left for an agent that was told, where it is enough to do anything.
    pub(super) fn left(&self, now: Instant, waits: &Waits) -> Option<Duration> {
        let left = self.nearest(waits).saturating_duration_since(now);
        (left >= LEAST_LEFT).then_some(left)
    }

    /// Whether the session ends before the turn would have to.
    pub(super) fn is_session_nearer(&self, waits: &Waits) -> bool {
        self.end(waits).is_none_or(|end| self.limits.session_end < end)
    }

    fn nearest(&self, waits: &Waits) -> Instant {
        let session = self.limits.session_end;
        self.end(waits).map_or(session, |end| end.min(session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(turn: u64, session: u64, wind_down: u64) -> (Clock, Instant) {
        let began = Instant::now();
        let seconds = Duration::from_secs;
        let limits = TurnLimits {
            turn: seconds(turn),
            idle: seconds(5),
            grace: seconds(1),
            wind_down: seconds(wind_down),
            session_end: began + seconds(session),
        };
        (Clock::start(began, limits), began)
    }

    #[test]
    fn an_agent_is_told_before_the_nearer_end_and_never_in_a_short_turn() {
        let told = |turn, session, wind_down| {
            let (clock, began) = clock(turn, session, wind_down);
            clock
                .wind_down(&Waits::default())
                .map(|at| at.saturating_duration_since(began).as_secs())
        };
        assert_eq!(told(100, 1000, 10), Some(90));
        assert_eq!(told(1000, 100, 10), Some(90));
        assert_eq!(told(100, 1000, 0), None);
        assert_eq!(told(39, 1000, 10), None);
        assert_eq!(told(1000, 39, 10), None);
        assert_eq!(told(40, 1000, 10), Some(30));
    }

    #[test]
    fn what_is_left_is_what_can_be_used() {
        let (clock, began) = clock(100, 1000, 10);
        let waits = Waits::default();
        assert_eq!(
            clock.left(began + Duration::from_secs(95), &waits),
            Some(Duration::from_secs(5))
        );
        assert_eq!(clock.left(began + Duration::from_millis(99_500), &waits), None);
        assert_eq!(clock.left(began + Duration::from_secs(200), &waits), None);
        assert!(!clock.is_session_nearer(&waits));
    }

    #[test]
    fn while_people_are_waited_for_only_the_session_goes_on() {
        let (clock, began) = clock(100, 1000, 10);
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut waits = Waits::default();
        waits.begin(at(20));
        assert_eq!((clock.end(&waits), clock.stall(at(20), &waits)), (None, None));
        assert_eq!(clock.wind_down(&waits), Some(at(990)));
        waits.end(at(320));
        assert_eq!(clock.end(&waits), Some(at(400)));
        assert_eq!(clock.stall(at(20), &waits), Some(at(325)));
        assert_eq!(clock.wind_down(&waits), Some(at(390)));
    }
}
