//! The trailers that every new commit carries, and the check for them. Pure.
//!
//! Reads commit messages that an agent wrote: bytes, bounded by the caller, never assumed to be UTF-8.

use super::Identity;
use crate::message::SessionId;

/// The key that names people and agents who share in a commit.
pub const CO_AUTHOR: &str = "Co-authored-by";
/// The key that names the session.
pub const SESSION: &str = "Cofferdam-Session";

/// The trailer lines of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailers {
    lines: Vec<String>,
}

impl Trailers {
    /// The user and the agent as co-authors, and the session.
    #[must_use]
    pub fn new(user: &Identity, agent: &Identity, session: SessionId) -> Self {
        Self {
            lines: vec![
                format!("{CO_AUTHOR}: {user}"),
                format!("{CO_AUTHOR}: {agent}"),
                format!("{SESSION}: {session}"),
            ],
        }
    }

    /// The same lines, read back from where the worker wrote them.
    #[must_use]
    pub fn from_lines(lines: Vec<String>) -> Self {
        Self { lines }
    }

    /// The lines, `Key: value`, in order.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The first required line that the message's last trailer block lacks.
    #[must_use]
    pub fn missing_from(&self, message: &[u8]) -> Option<&str> {
        let block = trailer_block(message);
        self.lines
            .iter()
            .map(String::as_str)
            .find(|line| !block.iter().any(|have| same_trailer(have, line)))
    }
}

/// The lines of the message's last paragraph, if that paragraph is not its first: git's own rule for where trailers stand.
fn trailer_block(message: &[u8]) -> Vec<&[u8]> {
    let lines: Vec<&[u8]> = message.split(|byte| *byte == b'\n').map(trim_end).collect();
    let end = lines
        .iter()
        .rposition(|line| !line.is_empty())
        .map_or(0, |last| last + 1);
    let start = lines[..end]
        .iter()
        .rposition(|line| line.is_empty())
        .map_or(0, |blank| blank + 1);
    if start == 0 {
        Vec::new()
    } else {
        lines[start..end].to_vec()
    }
}

fn trim_end(line: &[u8]) -> &[u8] {
    let end = line
        .iter()
        .rposition(|byte| !byte.is_ascii_whitespace())
        .map_or(0, |last| last + 1);
    &line[..end]
}

/// Keys compare without case, values exactly. White space before the colon is git's to allow: `inside` asks git what is there already.
fn same_trailer(have: &[u8], want: &str) -> bool {
    let Some((key, value)) = want.split_once(": ") else {
        return have == want.as_bytes();
    };
    let Some((start, rest)) = have.split_at_checked(key.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(key.as_bytes())
        && rest.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii) == Some(value.trim().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailers() -> Trailers {
        let person = |name: &str, email: &str| Identity {
            name: name.into(),
            email: email.into(),
        };
        Trailers::new(
            &person("Ada Example", "ada@example.org"),
            &person("opencode", "opencode@agents.invalid"),
            "0190c2f0-7c1e-7000-8000-000000000001".parse().unwrap(),
        )
    }

    #[test]
    fn a_message_with_the_block_is_complete() {
        let trailers = trailers();
        let message = format!("Fix it\n\nBecause.\n\n{}\n", trailers.lines().join("\n"));
        assert_eq!(trailers.missing_from(message.as_bytes()), None);
        let lower = message.replace("Co-authored-by", "co-authored-by");
        assert_eq!(trailers.missing_from(lower.as_bytes()), None);
        let spaced = message.replace("Co-authored-by:", "Co-authored-by :");
        assert_eq!(
            trailers.missing_from(spaced.as_bytes()),
            None,
            "git reads it as the same"
        );
    }

    #[test]
    fn each_missing_line_is_named_and_only_the_last_block_counts() {
        let trailers = trailers();
        for dropped in trailers.lines() {
            let kept: Vec<_> = trailers
                .lines()
                .iter()
                .filter(|line| *line != dropped)
                .cloned()
                .collect();
            let message = format!("Fix it\n\n{}\n", kept.join("\n"));
            assert_eq!(trailers.missing_from(message.as_bytes()), Some(dropped.as_str()));
        }
        let not_last = format!("Fix it\n\n{}\n\nOne more paragraph.\n", trailers.lines().join("\n"));
        assert!(trailers.missing_from(not_last.as_bytes()).is_some());
        // A subject is never a trailer block.
        assert!(trailers.missing_from(trailers.lines().join("\n").as_bytes()).is_some());
    }

    #[test]
    fn bytes_that_are_not_text_do_not_matter() {
        assert!(trailers().missing_from(b"\xff\xfe\n\n\xff: \xfe\n").is_some());
        assert!(trailers().missing_from(b"").is_some());
    }
}
