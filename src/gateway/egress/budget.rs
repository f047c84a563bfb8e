//! How much one session may still send to and receive from each host. Counts only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::grant::egress::Rule;
use crate::message::HostName;

/// Most hosts of one session that are counted; a further one is refused, so that many names do not make many budgets.
const MOST_HOSTS: usize = 1024;

/// Where bytes go, seen from the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

impl Direction {
    /// The word in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// The rule that refuses what is beyond the limit.
    pub(super) fn rule(self) -> Rule {
        match self {
            Self::Up => Rule::UploadLimit,
            Self::Down => Rule::DownloadLimit,
        }
    }
}

/// What is left for one host.
#[derive(Debug)]
pub(super) struct Budget {
    up: AtomicU64,
    down: AtomicU64,
}

impl Budget {
    fn left(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// Takes so many bytes; false when they are not there any more.
    pub(super) fn take(&self, direction: Direction, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.left(direction)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .is_ok()
    }

    /// Whether nothing more can go that way.
    pub(super) fn is_spent(&self, direction: Direction, wanted: u64) -> bool {
        self.left(direction).load(Ordering::Relaxed) < wanted.max(1)
    }
}

/// The budgets of one session.
#[derive(Debug)]
pub(super) struct Budgets {
    hosts: Mutex<HashMap<HostName, Arc<Budget>>>,
    up: u64,
    down: u64,
}

impl Budgets {
    pub(super) fn new(up: u64, down: u64) -> Self {
        Self {
            hosts: Mutex::default(),
            up,
            down,
        }
    }

    /// The budget of a host; nothing when the session asked for too many hosts.
    pub(super) fn of(&self, host: &HostName) -> Option<Arc<Budget>> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MOST_HOSTS && !hosts.contains_key(host) {
            return None;
        }
        let fresh = || {
            Arc::new(Budget {
                up: AtomicU64::new(self.up),
                down: AtomicU64::new(self.down),
            })
        };
        Some(hosts.entry(host.clone()).or_insert_with(fresh).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_budget_for_the_whole_session() {
        let budgets = Budgets::new(10, 1000);
        let host: HostName = "a.example".parse().unwrap();
        assert!(budgets.of(&host).unwrap().take(Direction::Up, 7));
        let again = budgets.of(&host).unwrap();
        assert!(!again.take(Direction::Up, 4) && again.is_spent(Direction::Up, 4));
        assert!(
            again.take(Direction::Up, 3) && again.is_spent(Direction::Up, 0) && !again.is_spent(Direction::Down, 0)
        );
        for n in 1..MOST_HOSTS {
            assert!(budgets.of(&format!("h{n}.example").parse().unwrap()).is_some());
        }
        assert!(budgets.of(&"one-more.example".parse().unwrap()).is_none() && budgets.of(&host).is_some());
    }
}
