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

    /// The first required line that the message's last trailer block lacks, by the rule that `inside` goes by too.
    #[must_use]
    pub fn missing_from(&self, message: &[u8]) -> Option<&str> {
        let missing = cofferdam_inside::missing_trailer(message, self.lines.iter().map(String::as_bytes))?;
        self.lines
            .iter()
            .map(String::as_str)
            .find(|line| line.as_bytes() == missing)
    }
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
