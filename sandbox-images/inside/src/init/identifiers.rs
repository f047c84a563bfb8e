//! Which order ids were used. Ids that come more or less in sequence, as they do, cost a few bytes however many there
//! are; it never forgets one.

use std::collections::BTreeMap;

/// Beyond this many separate runs of ids something is wrong with whoever draws them.
const MAX_RUNS: usize = 4096;

/// The used ids, as runs: first id to last id.
#[derive(Debug, Default)]
pub(super) struct Identifiers {
    runs: BTreeMap<u32, u32>,
}

impl Identifiers {
    /// Marks an id as used; says whether it was new.
    pub(super) fn take(&mut self, id: u32) -> bool {
        let before = self.runs.range(..=id).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= id) {
            return false;
        }
        let joins_before = before.filter(|(_, last)| last.checked_add(1) == Some(id));
        let joins_after = id
            .checked_add(1)
            .and_then(|next| self.runs.get(&next).copied().map(|last| (next, last)));
        if joins_before.is_none() && joins_after.is_none() && self.runs.len() >= MAX_RUNS {
            return false;
        }
        let first = joins_before.map_or(id, |(first, _)| first);
        let last = joins_after.map_or(id, |(_, last)| last);
        if let Some((next, _)) = joins_after {
            self.runs.remove(&next);
        }
        self.runs.insert(first, last);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_each_id_once_in_whatever_order() {
        let mut identifiers = Identifiers::default();
        for id in [5, 3, 4, 0, u32::MAX, u32::MAX - 1, 1, 2] {
            assert!(identifiers.take(id), "{id}");
        }
        for id in [0, 1, 2, 3, 4, 5, u32::MAX, u32::MAX - 1] {
            assert!(!identifiers.take(id), "{id}");
        }
        assert_eq!(identifiers.runs, BTreeMap::from([(0, 5), (u32::MAX - 1, u32::MAX)]));
    }

    #[test]
    fn is_bounded_against_scattered_ids() {
        let mut identifiers = Identifiers::default();
        let taken = (0..100_000).filter(|number| identifiers.take(number * 2)).count();
        assert_eq!(taken, MAX_RUNS);
        assert!(identifiers.take(1), "an id beside known ones is still taken");
    }
}
