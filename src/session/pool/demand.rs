//! How many sandboxes of which kind are kept ready: as many as were asked for lately, within a bound. Pure: the time is given.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::Kind;

/// For how long a session that came lets another one of its kind be expected.
const LATELY: Duration = Duration::from_secs(10 * 60);
/// What is remembered at most; more than any bound that makes sense.
const MOST: usize = 256;

/// What was asked for lately, the newest last.
#[derive(Debug, Default)]
pub(super) struct Demand {
    asked: VecDeque<(Kind, Instant)>,
}

impl Demand {
    /// A session asked for this kind.
    pub(super) fn asked(&mut self, kind: &Kind, now: Instant) {
        if self.asked.len() >= MOST {
            self.asked.pop_front();
        }
        self.asked.push_back((kind.clone(), now));
    }

    /// How many of which kind are to be ready, the most wanted first; together never more than `most`. `first` is kept in any case.
    pub(super) fn wanted(&mut self, first: Option<&Kind>, most: usize, now: Instant) -> Vec<(Kind, usize)> {
        while self
            .asked
            .front()
            .is_some_and(|(_, at)| now.duration_since(*at) >= LATELY)
        {
            self.asked.pop_front();
        }
        let mut wanted: Vec<(Kind, usize)> = Vec::new();
        // From the newest: what came last is what comes next.
        for (kind, _) in self.asked.iter().rev().take(most) {
            match wanted.iter_mut().find(|(known, _)| known == kind) {
                Some((_, count)) => *count += 1,
                None => wanted.push((kind.clone(), 1)),
            }
        }
        if let Some(first) = first
            && self.asked.len() < most
            && wanted.iter().all(|(kind, _)| kind != first)
        {
            wanted.push((first.clone(), 1));
        }
        wanted
    }

    /// Nobody will ask for this kind any more.
    pub(super) fn forget(&mut self, kind: &Kind) {
        self.asked.retain(|(asked, _)| asked != kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(image: &str) -> Kind {
        Kind::of(image, format!("id of {image}"), None)
    }

    #[test]
    fn nothing_asked_keeps_the_first_and_no_bound_is_passed() {
        let (mut demand, now, first) = (Demand::default(), Instant::now(), kind("a"));
        assert_eq!(demand.wanted(None, 2, now), []);
        assert_eq!(demand.wanted(Some(&first), 0, now), []);
        assert_eq!(demand.wanted(Some(&first), 2, now), [(first.clone(), 1)]);
        for _ in 0..5 {
            demand.asked(&first, now);
        }
        assert_eq!(demand.wanted(Some(&first), 3, now), [(first, 3)]);
    }

    #[test]
    fn the_newest_are_wanted_first_and_what_is_long_ago_no_more() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        let (a, b, first) = (kind("a"), kind("b"), kind("first"));
        demand.asked(&a, now);
        demand.asked(&b, now + Duration::from_secs(1));
        let soon = now + Duration::from_secs(2);
        assert_eq!(demand.wanted(Some(&first), 1, soon), [(b.clone(), 1)]);
        assert_eq!(
            demand.wanted(Some(&first), 3, soon),
            [(b.clone(), 1), (a.clone(), 1), (first.clone(), 1)]
        );
        assert_eq!(
            demand.wanted(Some(&first), 3, now + LATELY),
            [(b.clone(), 1), (first.clone(), 1)]
        );
        demand.forget(&b);
        assert_eq!(demand.wanted(Some(&first), 3, now + LATELY), [(first, 1)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        for _ in 0..2 * MOST {
            demand.asked(&kind("a"), now);
        }
        assert_eq!(demand.wanted(None, usize::MAX, now), [(kind("a"), MOST)]);
    }
}
