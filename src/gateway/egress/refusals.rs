//! What was refused in one session: each different refusal once with a count, and a bounded number of them. Values only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::grant::egress::{Refusal, Rule};

/// Most different refusals of one session that are told and listed; the rest is counted.
const MOST: usize = 64;

/// The refusals of one session; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    each: BTreeMap<(String, u16, Rule), u64>,
    beyond: u64,
}

/// A refused host and how often it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The host, as harmless text.
    pub host: String,
    /// The port; 0 where it was none.
    pub port: u16,
    /// Which rule refused it.
    pub rule: Rule,
    /// How often.
    pub times: u64,
}

impl Refusals {
    /// Counts a refusal; whether it is the first of its kind and worth an event.
    pub(super) fn note(&self, refusal: &Refusal) -> bool {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (refusal.host.clone(), refusal.port, refusal.rule);
        if let Some(times) = noted.each.get_mut(&key) {
            *times += 1;
            return false;
        }
        if noted.each.len() >= MOST {
            noted.beyond += 1;
            return false;
        }
        noted.each.insert(key, 1);
        true
    }

    /// The refusals, and how many more there were of further hosts.
    #[must_use]
    pub fn counted(&self) -> (Vec<Counted>, u64) {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let each = noted.each.iter().map(|((host, port, rule), times)| Counted {
            host: host.clone(),
            port: *port,
            rule: *rule,
            times: *times,
        });
        (each.collect(), noted.beyond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_bounded() {
        let refusals = Refusals::default();
        let refusal = |host: String| Refusal {
            rule: Rule::Host,
            host,
            port: 443,
            message: String::new(),
        };
        let first = (0..1000)
            .filter(|n| refusals.note(&refusal(format!("h{n:04}.example"))))
            .count();
        assert_eq!(first, MOST);
        assert!(!refusals.note(&refusal("h0000.example".to_owned())));
        let (each, beyond) = refusals.counted();
        assert_eq!((each.len(), each[0].times, beyond), (MOST, 2, 1000 - MOST as u64));
    }
}
