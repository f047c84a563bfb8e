//! Which workers' Leases were not renewed in their time. Pure: from what was seen of them, look by look, to a verdict.
//!
//! Believes no clock of another machine to the minute: what counts is that a Lease stayed as it was while this worker looked at it, with its own
//! clock, and could see all the time. What is overdue by much more, by its worker's clock, has to stand still for a shorter time only, so that
//! workers that live for one session clean up as well; a clock that is wrong by hours deletes nothing that is renewed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

/// Between two looks there may be so much; after a longer pause nobody could renew either, perhaps, and all counts from then on.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// What a Lease says of its time is taken within these limits, in seconds, and so when it says nothing.
const LEASE_S: (i32, i32) = (1, 24 * 3600);
const LEASE_S_UNSAID: i32 = 600;
/// So long a Lease that says itself that it is long over has to stand still: more than two renewals of a living worker.
const STILL: Duration = Duration::from_secs(90);
/// By so much more another machine's clock may be wrong, in seconds.
const CLOCK_SLACK_S: i64 = 3600;

/// What one Lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Renewed {
    /// Which one it is.
    pub(super) uid: String,
    /// Another one after each renewal.
    pub(super) version: String,
    /// How long it may go without one, in seconds.
    pub(super) lease_s: i32,
    /// When that was, by the clock of its worker, in seconds of Unix time.
    pub(super) renewed: Option<i64>,
}

impl Renewed {
    pub(super) fn of(lease: &Lease) -> Option<Self> {
        let spec = lease.spec.as_ref();
        let said = spec.and_then(|spec| spec.lease_duration_seconds);
        Some(Self {
            uid: lease.metadata.uid.clone()?,
            version: lease.metadata.resource_version.clone()?,
            lease_s: said.unwrap_or(LEASE_S_UNSAID).clamp(LEASE_S.0, LEASE_S.1),
            renewed: spec.and_then(|spec| Some(spec.renew_time.as_ref()?.0.as_second())),
        })
    }
}

/// What was seen of other workers' Leases: as which version, and since when that is so.
#[derive(Debug, Default)]
pub(super) struct Others {
    seen: HashMap<String, (String, Instant)>,
    last: Option<Instant>,
}

impl Others {
    /// Looks at all that there are, and says of each whether it is overdue.
    pub(super) fn look(&mut self, found: &[&Renewed], now: Instant, wall: Timestamp) -> Vec<bool> {
        let since_last = self.last.replace(now).map(|last| now.saturating_duration_since(last));
        if since_last.is_none_or(|pause| pause > LONGEST_PAUSE) {
            self.seen.clear();
        }
        let before = std::mem::take(&mut self.seen);
        let mut overdue = Vec::with_capacity(found.len());
        for one in found {
            let since = match before.get(&one.uid) {
                Some((version, since)) if *version == one.version => *since,
                Some(_) | None => now,
            };
            self.seen.insert(one.uid.clone(), (one.version.clone(), since));
            let lease = Duration::from_secs(u64::try_from(one.lease_s).unwrap_or_default());
            let still = now.saturating_duration_since(since);
            let stood_still = still > lease;
            let limit = i64::from(one.lease_s).saturating_add(CLOCK_SLACK_S);
            let is_over = |renewed: i64| wall.as_second().saturating_sub(renewed) > limit;
            let long_over = still >= STILL && one.renewed.is_some_and(is_over);
            overdue.push(stood_still || long_over);
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: i64 = 1_800_000_000;

    fn one(uid: &str, version: u32) -> Renewed {
        Renewed {
            uid: uid.into(),
            version: version.to_string(),
            lease_s: 600,
            renewed: Some(WALL),
        }
    }

    struct Clock(Others, Instant);

    impl Clock {
        fn look(&mut self, at_s: u64, found: &[Renewed]) -> Vec<bool> {
            let wall = Timestamp::from_second(WALL + i64::try_from(at_s).unwrap()).unwrap();
            let found: Vec<&Renewed> = found.iter().collect();
            self.0.look(&found, self.1 + Duration::from_secs(at_s), wall)
        }
    }

    #[test]
    fn who_stands_still_while_we_look_is_overdue_and_who_is_renewed_is_not() {
        let mut clock = Clock(Others::default(), Instant::now());
        for at in (0..=600).step_by(20) {
            let found = [one("dead", 1), one("live", u32::try_from(at).unwrap() / 100)];
            assert_eq!(clock.look(at, &found), [false, false], "{at}");
        }
        assert_eq!(clock.look(620, &[one("dead", 1), one("live", 6)]), [true, false]);
        // Deleted, and made anew under another uid.
        assert_eq!(clock.look(640, &[one("dead-2", 1)]), [false]);
    }

    #[test]
    fn nothing_counts_from_before_a_time_in_which_we_saw_nothing() {
        let mut clock = Clock(Others::default(), Instant::now());
        assert_eq!(clock.look(0, &[one("a", 1)]), [false]);
        // The API was away for all of us, and nobody could renew.
        assert_eq!(clock.look(700, &[one("a", 1)]), [false]);
        for at in (720..=1300).step_by(20) {
            assert_eq!(clock.look(at, &[one("a", 1)]), [false], "{at}");
        }
        assert_eq!(clock.look(1320, &[one("a", 1)]), [true]);
    }

    #[test]
    fn what_is_long_over_goes_sooner_but_never_while_it_is_renewed() {
        let mut clock = Clock(Others::default(), Instant::now());
        for at in (0..90).step_by(30) {
            assert_eq!(clock.look(5000 + at, &[one("a", 1)]), [false], "{at}");
        }
        assert_eq!(clock.look(5090, &[one("a", 1)]), [true]);
        // A clock that is hours ahead sees every Lease as long over.
        let mut ahead = Clock(Others::default(), Instant::now());
        for at in (0..300).step_by(30) {
            let version = u32::try_from(at / 30).unwrap();
            assert_eq!(ahead.look(9000 + at, &[one("a", version)]), [false], "{at}");
        }
        // Within the slack it waits for its whole time.
        let mut within = Clock(Others::default(), Instant::now());
        for at in (0..=600).step_by(60) {
            assert_eq!(within.look(3000 + at, &[one("a", 1)]), [false], "{at}");
        }
        let mut unsaid = one("b", 1);
        unsaid.renewed = None;
        let mut other = Clock(Others::default(), Instant::now());
        assert_eq!(other.look(1_000_000, &[unsaid]), [false]);
    }

    #[test]
    fn what_a_lease_says_of_its_time_is_taken_within_limits() {
        let of = |seconds: Option<i32>| {
            let lease = serde_json::from_value(serde_json::json!({"metadata": {"uid": "u", "resourceVersion": "1"},
                "spec": {"leaseDurationSeconds": seconds, "renewTime": "2027-01-15T08:00:00.000000Z"}}));
            Renewed::of(&lease.unwrap()).unwrap()
        };
        assert_eq!(
            (of(None).lease_s, of(Some(-3)).lease_s, of(Some(i32::MAX)).lease_s),
            (600, 1, 86_400)
        );
        assert_eq!(of(Some(5)).renewed, Some(1_800_000_000));
    }
}
