//! W3C Trace Context's `traceparent`: which trace a task belongs to. Read from the task's AMQP headers, written to those of its events.
//!
//! Nothing else of a sender's tracing is taken: no `tracestate`, no baggage.

use std::fmt;

use uuid::Uuid;

/// Which trace, and which span of it is the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; not all zero.
    pub trace: [u8; 16],
    /// The parent span; not all zero.
    pub span: [u8; 8],
    /// The flags; the lowest bit says that the trace is recorded.
    pub flags: u8,
}

impl TraceParent {
    /// Reads the header's text; `None` when it is none. Later versions may have more after the flags.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version = octets::<1>(parts.next()?)?[0];
        let parsed = Self {
            trace: octets(parts.next()?)?,
            span: octets(parts.next()?)?,
            flags: octets::<1>(parts.next()?)?[0],
        };
        let has_more = parts.next().is_some();
        let is_whole = parsed.trace != [0; 16] && parsed.span != [0; 8];
        (version != 0xff && is_whole && (version > 0 || !has_more)).then_some(parsed)
    }

    /// A new trace that is recorded, for whoever was given none.
    #[must_use]
    pub fn begin() -> Self {
        let mut span = [0; 8];
        span.copy_from_slice(&Uuid::new_v4().as_bytes()[..8]);
        Self {
            trace: *Uuid::new_v4().as_bytes(),
            span,
            flags: 1,
        }
    }

    /// The trace's id as logs show it.
    #[must_use]
    pub fn trace_id(&self) -> String {
        hex::encode(self.trace)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (hex::encode(self.trace), hex::encode(self.span));
        write!(formatter, "00-{trace}-{span}-{:02x}", self.flags)
    }
}

/// Lower-case hexadecimal of just that length.
fn octets<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut octets = [0; N];
    let is_lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_lower && hex::decode_to_slice(text, &mut octets).is_ok()).then_some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_trace_is_one() {
        let (one, other) = (TraceParent::begin(), TraceParent::begin());
        assert_eq!(TraceParent::parse(&one.to_string()), Some(one));
        assert!(one.trace != other.trace && one.span != other.span);
    }

    #[test]
    fn what_is_no_traceparent_is_none_and_what_is_comes_back() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = TraceParent::parse(good).unwrap();
        assert_eq!(parsed.to_string(), good);
        assert_eq!(parsed.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let newer = good.replacen("00", "cc", 1) + "-more";
        assert_eq!(TraceParent::parse(&newer), Some(parsed));
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-äbf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
