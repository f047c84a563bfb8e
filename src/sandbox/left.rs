//! Which containers nobody owns. Pure: from what the engine lists and what is known of owners to a verdict.
//!
//! A live owner's are never touched, however old they are.

use std::time::Duration;

use super::owner::Owner;
use crate::message::SandboxId;

/// How old a container must be whose owner's directory is gone, in seconds.
const LEAST_AGE_S: i64 = 60;
/// By how much the clocks of two workers, or one clock before and after it is set, may differ, in seconds. Deadlines are the only times that
/// outlive a process, and so the only ones by the wall clock: leases and limits are measured by clocks that cannot be set.
const CLOCK_SLACK_S: i64 = 300;

/// A container of some worker, as the engine lists it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// What the engine calls it.
    pub key: String,
    /// The sandbox, if the label is one.
    pub sandbox: Option<SandboxId>,
    /// The worker's label.
    pub worker: String,
    /// The owner, if the labels name one.
    pub owner: Option<Owner>,
    /// When its owner would have removed it at the latest, in seconds of Unix time.
    pub deadline: Option<i64>,
    /// When it was created, in seconds of Unix time.
    pub created: i64,
}

/// What is known of another worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It lives.
    Alive,
    /// It is dead, and its directory is held by who asks.
    Dead,
    /// Its directory was removed.
    Gone,
    /// It cannot be told.
    Unknown,
}

/// Whether a container is this worker's. Its name may have changed with the configuration, so its directory counts too.
#[must_use]
pub fn is_own(listed: &Listed, here: &Owner, worker: &str) -> bool {
    match &listed.owner {
        Some(owner) => owner.id == here.id,
        None => listed.worker == worker,
    }
}

/// Whether another worker's container is to go.
#[must_use]
pub fn must_go(listed: &Listed, known: Known, now: i64) -> bool {
    match known {
        Known::Alive => false,
        Known::Dead => true,
        Known::Gone => now.saturating_sub(listed.created) >= LEAST_AGE_S,
        Known::Unknown => listed
            .deadline
            .is_some_and(|deadline| deadline.saturating_add(CLOCK_SLACK_S) <= now),
    }
}

/// The moment after which a container may be removed by whoever cannot tell whether its owner lives.
#[must_use]
pub fn deadline(limit: Duration) -> i64 {
    let limit = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    now().saturating_add(limit)
}

/// The seconds of Unix time.
#[must_use]
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(deadline: Option<i64>) -> Listed {
        Listed {
            key: "k".into(),
            sandbox: None,
            worker: "w-1".into(),
            owner: None,
            deadline,
            created: 1000,
        }
    }

    #[test]
    fn only_the_dead_lose_theirs_at_once_and_the_living_never() {
        let overdue = listed(Some(1001));
        assert!(!must_go(&overdue, Known::Alive, i64::MAX));
        assert!(must_go(&listed(None), Known::Dead, 1000));
        assert!(!must_go(&overdue, Known::Gone, 1059));
        assert!(must_go(&overdue, Known::Gone, 1060));
        assert!(!must_go(&overdue, Known::Unknown, 1000));
        assert!(must_go(&overdue, Known::Unknown, 1001 + 300));
        assert!(!must_go(&listed(None), Known::Unknown, i64::MAX));
    }

    #[test]
    fn a_clock_that_is_set_by_five_minutes_takes_no_sandbox_that_may_live() {
        let set_to = deadline(Duration::from_secs(60));
        for jump in [-300, 0, 299] {
            let now = set_to - 1 + jump;
            assert!(!must_go(&listed(Some(set_to)), Known::Unknown, now), "{jump}");
            // What lives, lives by its lock, and what is dead is dead: no clock is asked.
            assert!(!must_go(&listed(Some(set_to)), Known::Alive, now), "{jump}");
            assert!(must_go(&listed(Some(set_to)), Known::Dead, now), "{jump}");
        }
        assert!(must_go(&listed(Some(set_to)), Known::Unknown, set_to + 300));
        // A label that somebody made up.
        assert!(!must_go(&listed(Some(i64::MAX)), Known::Unknown, i64::MAX - 1));
    }

    #[test]
    fn the_directory_says_whose_it_is_and_the_name_only_without_one() {
        let here = Owner {
            state_dir: "/s".into(),
            id: uuid::Uuid::new_v4(),
            place: String::new(),
        };
        let mut one = listed(None);
        assert!(is_own(&one, &here, "w-1"));
        assert!(!is_own(&one, &here, "w-2"));
        one.owner = Some(here.clone());
        assert!(is_own(&one, &here, "renamed"));
        let other = Owner {
            id: uuid::Uuid::new_v4(),
            ..here.clone()
        };
        one.owner = Some(other);
        assert!(!is_own(&one, &here, "w-1"), "a copy of a name is not its owner");
    }
}
