//! Whether a token may end before its session does. Pure but for the clock that the caller reads.

use std::time::Duration;

use jiff::Timestamp;

use crate::forge::TokenFacts;
use crate::message::ConnectionName;

/// A warning for a token that ends within the session's limit.
pub(super) fn warning(connection: &ConnectionName, facts: &TokenFacts, limit: Duration) -> Option<String> {
    let ends = Timestamp::from_second(facts.expires_at?).ok()?;
    soon(Timestamp::now(), ends, limit).then(|| {
        format!(
            "the token of the connection {connection} ends at {ends}, within the session's limit of {} s: finished work may have to wait for a fresh one",
            limit.as_secs()
        )
    })
}

fn soon(now: Timestamp, ends: Timestamp, limit: Duration) -> bool {
    now.checked_add(limit).is_ok_and(|last| ends <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_within_the_limit_is_soon() {
        let now: Timestamp = "2026-12-01T10:00:00Z".parse().unwrap();
        let soon = |text: &str| soon(now, text.parse().unwrap(), Duration::from_secs(4 * 3600));
        assert!(soon("2026-12-01T00:00:00Z"), "past already");
        assert!(soon("2026-12-01T14:00:00Z"));
        assert!(!soon("2026-12-01T14:00:01Z"));
    }
}
