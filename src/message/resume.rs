//! What lets a session go on after its sandbox is gone: how far it came, and the conversation so far. A `suspended` event gives it, a task
//! for the same session gives it back unchanged.
//!
//! Pure. Bounded where it is made and where it is read; never holds a credential, and what it says of the past is the agent's and the
//! sender's word, not ours.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::task::{MOST_PROJECTS, ProjectRequest};

/// Exchanges that are remembered, the last ones.
pub const MOST_EXCHANGES: usize = 20;
/// Longest prompt or answer in it, in bytes; longer ones are cut.
pub const LONGEST_MEMORY: usize = 8 * 1024;

/// How far a session came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The attempt that was suspended; the next one is higher.
    pub attempt: u32,
    /// Turns that were begun.
    pub turns: u32,
    /// The conversation, oldest first; long texts are cut and early ones left out.
    #[serde(default)]
    pub history: Vec<Exchange>,
    /// The projects that were added while the session ran. The task that goes on has their connections beside its own; it need not list them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<ProjectRequest>,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// What was asked.
    pub prompt: String,
    /// What the agent said last; empty when it was interrupted.
    pub answer: String,
}

impl Resume {
    /// Adds a turn, within the bounds.
    pub fn remember(&mut self, prompt: &str, answer: &str) {
        self.history.push(Exchange {
            prompt: cut(prompt),
            answer: cut(answer),
        });
        let surplus = self.history.len().saturating_sub(MOST_EXCHANGES);
        self.history.drain(..surplus);
    }

    /// What is wrong with one that came in a task.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        // Masking may have made a text longer since it was cut.
        let too_long = |text: &String| text.len() > 2 * LONGEST_MEMORY;
        if self.history.len() > MOST_EXCHANGES {
            return Err("at most 20 exchanges");
        }
        if self.added.len() > MOST_PROJECTS {
            return Err("at most 32 added projects");
        }
        if self
            .history
            .iter()
            .any(|one| too_long(&one.prompt) || too_long(&one.answer))
        {
            return Err("a text of the history is longer than 16 KiB");
        }
        Ok(())
    }
}

/// The beginning of a text: what was asked stands at its start.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST_MEMORY)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_passes_its_own_check() {
        let mut resume = Resume::default();
        for turn in 0..100 {
            resume.remember(&format!("{turn} {}", "ä".repeat(LONGEST_MEMORY)), "done");
        }
        assert_eq!(resume.history.len(), MOST_EXCHANGES);
        assert!(resume.history[0].prompt.starts_with("80 "));
        assert_eq!(resume.check(), Ok(()));
        resume.history[0].answer = "x".repeat(2 * LONGEST_MEMORY + 1);
        assert!(resume.check().is_err());
    }
}
