//! Puts a forge's own reason into git's report of a refused push: `(protected branch hook declined)` where git's
//! program would say `(pre-receive hook declined)`.
//!
//! Never changes a report that it does not understand.

use axum::body::{Body, to_bytes};
use axum::http::{StatusCode, header};
use axum::response::Response;

use super::plain;

const LIMIT: usize = 32 * 1024 * 1024;
const OLD: &str = "pre-receive hook declined";

/// The same answer with another reason in its report.
pub(super) async fn with_reason(response: Response, reason: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, LIMIT).await else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "report of the push too long\n");
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    let changed = rewrite(&bytes, reason).unwrap_or_else(|| bytes.to_vec());
    Response::from_parts(parts, Body::from(changed))
}

/// Splits pkt-lines: `None` stands for a flush.
fn packets(mut bytes: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = std::str::from_utf8(bytes.get(..4)?).ok()?;
        match usize::from_str_radix(length, 16).ok()? {
            0 => {
                found.push(None);
                bytes = bytes.get(4..)?;
            }
            length => {
                found.push(Some(bytes.get(4..length)?));
                bytes = bytes.get(length..)?;
            }
        }
    }
    Some(found)
}

fn packet(into: &mut Vec<u8>, content: &[u8]) {
    into.extend_from_slice(format!("{:04x}", content.len() + 4).as_bytes());
    into.extend_from_slice(content);
}

fn rewrite(bytes: &[u8], reason: &str) -> Option<Vec<u8>> {
    let mut report = Vec::new();
    let mut out = Vec::new();
    // Channel 1 carries the report, itself in pkt-lines; channel 2 what the hooks printed.
    for one in packets(bytes)?.into_iter().flatten() {
        match one.split_first()? {
            (1, rest) => report.extend_from_slice(rest),
            (_, _) => packet(&mut out, one),
        }
    }
    let mut inner = Vec::new();
    for one in packets(&report)? {
        match one {
            Some(line) => packet(
                &mut inner,
                String::from_utf8_lossy(line).replace(OLD, reason).as_bytes(),
            ),
            None => inner.extend_from_slice(b"0000"),
        }
    }
    // A side-band packet holds at most 65,515 bytes of content.
    for chunk in inner.chunks(60_000) {
        packet(&mut out, &[&[1], chunk].concat());
    }
    out.extend_from_slice(b"0000");
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_breaks_off_is_left_alone() {
        assert!(rewrite(b"00ff\x01000eunpack ok\n", "x").is_none());
        assert!(rewrite(b"zzzz", "x").is_none());
        assert!(rewrite(b"0003", "x").is_none());
    }

    #[test]
    fn the_reason_is_replaced_and_lengths_stay_right() {
        let mut inner = Vec::new();
        packet(&mut inner, b"unpack ok\n");
        packet(&mut inner, b"ng refs/heads/main pre-receive hook declined\n");
        inner.extend_from_slice(b"0000");
        let mut outer = Vec::new();
        packet(&mut outer, b"\x02hello\n");
        packet(&mut outer, &[&b"\x01"[..], &inner].concat());
        outer.extend_from_slice(b"0000");
        let changed = rewrite(&outer, "protected branch hook declined").unwrap();
        let text = String::from_utf8(changed.clone()).unwrap();
        assert!(text.contains("ng refs/heads/main protected branch hook declined\n"));
        assert_eq!(packets(&changed).unwrap().len(), 3);
    }
}
