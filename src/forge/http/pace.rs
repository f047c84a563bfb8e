//! How long to wait: what the forge asks for, and the delays of our own. Pure.

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use http::HeaderMap;
use http::header::RETRY_AFTER;

/// What is reported when a forge limits the rate and does not say for how long.
pub(in crate::forge) const UNSAID_WAIT: Duration = Duration::from_secs(60);

/// Longest wait that is believed.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The delays between attempts.
#[derive(Debug, Clone)]
pub(in crate::forge) struct Pace {
    /// Time after which nothing is tried again.
    pub(in crate::forge) total: Duration,
    /// The first delay; each next one is twice as long, plus jitter.
    pub(in crate::forge) first: Duration,
    /// Between attempts that wait for the forge to see what was pushed a moment ago.
    pub(in crate::forge) settling: Duration,
    /// Least time between two writes with one token; the forge's own where none is given.
    pub(in crate::forge) between_writes: Option<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(30),
            first: Duration::from_millis(500),
            settling: Duration::from_millis(500),
            between_writes: None,
        }
    }
}

/// How often something that the forge cannot see yet is tried again.
pub(in crate::forge) const SETTLING_TRIES: usize = 5;

impl Pace {
    /// At most five delays with jitter.
    pub(super) fn delays(&self) -> ExponentialBackoff {
        ExponentialBuilder::default()
            .with_min_delay(self.first)
            .with_max_delay(self.total)
            .with_max_times(5)
            .with_jitter()
            .build()
    }
}

/// The wait that an answer asks for: `Retry-After` in seconds or as a date, else the moment at which a used-up limit is reset (that
/// moment is in every answer, so it counts only when nothing is left).
pub(in crate::forge) fn asked_wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let until = |moment: SystemTime| moment.duration_since(now).unwrap_or(Duration::ZERO);
    let reset = |left: &str, name: &str| {
        let seconds = text(name).filter(|_| text(left) == Some("0"))?.parse::<u64>().ok()?;
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .map(until)
    };
    let retry_after = text(RETRY_AFTER.as_str()).and_then(|value| match value.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let seconds = jiff::fmt::rfc2822::parse(value).ok()?.timestamp().as_second();
            let moment = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            SystemTime::UNIX_EPOCH.checked_add(moment).map(until)
        }
    });
    retry_after
        .or_else(|| reset("x-ratelimit-remaining", "x-ratelimit-reset"))
        .or_else(|| reset("ratelimit-remaining", "ratelimit-reset"))
        .map(|wait| wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(name: &'static str, value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers.insert("x-ratelimit-remaining", "0".parse().unwrap());
        headers.insert("ratelimit-remaining", "0".parse().unwrap());
        asked_wait(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
    }

    #[test]
    fn reads_every_way_of_asking() {
        assert_eq!(wait("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(
            wait("retry-after", "Tue, 14 Nov 2023 22:14:20 GMT"),
            Some(Duration::from_secs(60))
        );
        assert_eq!(
            wait("retry-after", "Fri, 14 Nov 2003 22:14:20 GMT"),
            Some(Duration::ZERO)
        );
        assert_eq!(wait("x-ratelimit-reset", "1700000030"), Some(Duration::from_secs(30)));
        assert_eq!(wait("ratelimit-reset", "1700000031"), Some(Duration::from_secs(31)));
        assert_eq!(wait("retry-after", "18446744073709551615"), Some(LONGEST_WAIT));
        let mut plenty = HeaderMap::new();
        plenty.insert("x-ratelimit-remaining", "4999".parse().unwrap());
        plenty.insert("x-ratelimit-reset", "9999999999".parse().unwrap());
        assert_eq!(asked_wait(&plenty, SystemTime::UNIX_EPOCH), None);
        for nothing in ["", "-1", "soon", "1e9"] {
            assert_eq!(wait("retry-after", nothing), None, "{nothing}");
        }
    }

    #[test]
    fn delays_are_few_and_grow() {
        let delays: Vec<Duration> = Pace::default().delays().collect();
        assert_eq!(delays.len(), 5);
        assert!(delays[0] >= Duration::from_millis(500) && delays[4] > delays[0]);
    }
}
