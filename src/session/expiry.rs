//! Whether a token may end before its session does. Pure but for the clock that the caller reads.

use std::time::Duration;

use jiff::Timestamp;

use crate::forge::TokenFacts;
use crate::message::ConnectionName;

/// A warning for a token that ends within the session's limit.
pub(super) fn warning(connection: &ConnectionName, facts: &TokenFacts, limit: Duration) -> Option<String> {
    let ends = moment(facts.expires.as_deref()?)?;
    soon(Timestamp::now(), ends, limit).then(|| {
        format!(
            "the token of the connection {connection} ends on {ends}, within the session's limit of {} s: finished work may have to wait for a fresh one",
            limit.as_secs()
        )
    })
}

fn soon(now: Timestamp, ends: Timestamp, limit: Duration) -> bool {
    now.checked_add(limit).is_ok_and(|last| ends <= last)
}

/// GitLab tells a day, at whose beginning (UTC) the token dies; GitHub a moment.
fn moment(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.parse::<jiff::civil::Date>().is_ok() && text.len() == "2027-08-04".len() {
        return format!("{text}T00:00:00Z").parse().ok();
    }
    let utc = text.strip_suffix(" UTC").map(|text| text.replacen(' ', "T", 1) + "Z");
    utc.as_deref().unwrap_or(text).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forges_moments_are_read() {
        assert_eq!(moment("2027-08-04").unwrap().to_string(), "2027-08-04T00:00:00Z");
        assert_eq!(
            moment("2026-12-01 10:20:30 UTC").unwrap().to_string(),
            "2026-12-01T10:20:30Z"
        );
        assert_eq!(
            moment("2026-12-01T10:20:30Z").unwrap().to_string(),
            "2026-12-01T10:20:30Z"
        );
        assert!(moment("never").is_none());
    }

    #[test]
    fn only_an_end_within_the_limit_is_soon() {
        let now: Timestamp = "2026-12-01T10:00:00Z".parse().unwrap();
        let soon = |text: &str| soon(now, moment(text).unwrap(), Duration::from_secs(4 * 3600));
        assert!(soon("2026-12-01"), "past already");
        assert!(soon("2026-12-01 14:00:00 UTC"));
        assert!(!soon("2026-12-01 14:00:01 UTC"));
        assert!(!soon("2026-12-02"));
    }
}
