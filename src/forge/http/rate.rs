//! How much of a token's rate limit is left, as the last answer said. A hint for whoever can wait; never a reason to hold up a session's own work.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;

/// After so long what was said counts no more.
const AGE: Duration = Duration::from_secs(60);

/// What the last answer with a limit said.
#[derive(Debug, Default)]
pub(in crate::forge) struct Rate(Mutex<Option<(Instant, u8)>>);

impl Rate {
    /// Notes what an answer says, and tells it in hundredths. Limits of their own, such as that of GitHub's search, are not the token's.
    pub(in crate::forge) fn note(&self, headers: &HeaderMap, now: Instant) -> Option<u8> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if text("x-ratelimit-resource").is_some_and(|resource| resource != "core") {
            return None;
        }
        let number = |name: &str| text(name).and_then(|value| value.trim().parse::<u64>().ok());
        let of = |prefix: &str| {
            let (limit, left) = (
                number(&format!("{prefix}-limit"))?,
                number(&format!("{prefix}-remaining"))?,
            );
            left.saturating_mul(100).checked_div(limit)
        };
        let left = of("x-ratelimit").or_else(|| of("ratelimit"))?;
        let left = u8::try_from(left).unwrap_or(100).min(100);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, left));
        Some(left)
    }

    /// In hundredths.
    pub(in crate::forge) fn left(&self, now: Instant) -> Option<u8> {
        let said = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.filter(|(when, _)| now.duration_since(*when) < AGE)
            .map(|(_, left)| left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_counts_for_a_minute() {
        let (rate, now) = (Rate::default(), Instant::now());
        let note = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            rate.note(&headers, now);
            rate.left(now)
        };
        assert_eq!(note(&[]), None);
        assert_eq!(
            note(&[("x-ratelimit-limit", "0"), ("x-ratelimit-remaining", "0")]),
            None
        );
        assert_eq!(
            note(&[("ratelimit-limit", "2000"), ("ratelimit-remaining", "100")]),
            Some(5)
        );
        assert_eq!(
            note(&[("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", "4999")]),
            Some(99)
        );
        let search = [
            ("x-ratelimit-limit", "30"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-resource", "search"),
        ];
        assert_eq!(note(&search), Some(99), "that limit is another");
        assert_eq!(rate.left(now + AGE), None);
    }
}
