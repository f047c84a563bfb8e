//! What lets a session go on after its sandbox is gone: how far it came, and the conversation so far. A `suspended` event gives it, a task
//! for the same session gives it back unchanged.
//!
//! Pure. Bounded where it is made and where it is read; never holds a credential, and what it says of the past is the agent's and the
//! sender's word, not ours.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{AgentName, AgentSession, SavedName};
use super::task::{MOST_PROJECTS, ProjectRequest};

/// Exchanges that are remembered, the last ones.
pub const MOST_EXCHANGES: usize = 20;
/// Longest prompt or answer in it, in bytes; longer ones are cut.
pub const LONGEST_MEMORY: usize = 8 * 1024;
/// Longest directory of a saved state, in bytes; it is only ever compared.
const LONGEST_DIRECTORY: usize = 1024;

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
    /// The agent's own memory of the session, where it was saved. Whoever has it may load it into this session, and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<SavedState>,
}

/// Where an agent's own memory of a session is, for workers that share the directory of saved states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SavedState {
    /// Its name: 64 hexadecimal digits that nobody can guess.
    pub name: SavedName,
    /// By what the agent calls the conversation.
    pub session: AgentSession,
    /// Whose it is.
    pub agent: AgentName,
    /// The directory in the sandbox in which the agent worked; the conversation goes on in the same one.
    pub directory: String,
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
            .saved
            .as_ref()
            .is_some_and(|saved| saved.directory.len() > LONGEST_DIRECTORY)
        {
            return Err("the directory of the saved state is longer than 1024 bytes");
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

    #[test]
    fn a_saved_state_is_named_by_digits_and_by_nothing_else() {
        let name = "0123456789abcdef".repeat(4);
        let saved = |name: &str, session: &str, agent: &str| {
            let saved =
                serde_json::json!({"name": name, "session": session, "agent": agent, "directory": "/workspace"});
            serde_json::from_value::<Resume>(serde_json::json!({"attempt": 1, "turns": 1, "saved": saved}))
        };
        let read = saved(&name, "ses_1:a/b", "scripted").unwrap();
        assert_eq!(read.saved.unwrap().name.as_str(), name);
        for hostile in [
            "",
            "../../etc/passwd",
            &name[1..],
            &name.to_uppercase(),
            &format!("{name}0"),
            &format!("{}/..", &name[3..]),
        ] {
            assert!(saved(hostile, "s", "scripted").is_err(), "{hostile}");
        }
        for hostile in ["", "two words", "line\nbreak", "\u{202e}", &"x".repeat(201)] {
            assert!(saved(&name, hostile, "scripted").is_err(), "{hostile}");
        }
        assert!(saved(&name, "s", "../agent").is_err());
        let mut more = serde_json::to_value(saved(&name, "s", "scripted").unwrap()).unwrap();
        more["saved"]["path"] = "/".into();
        assert!(serde_json::from_value::<Resume>(more).is_err());
        let mut far = saved(&name, "s", "scripted").unwrap();
        assert_eq!(far.check(), Ok(()));
        far.saved.as_mut().unwrap().directory = "/".repeat(1025);
        assert!(far.check().is_err());
        // Whoever has none sees nothing of it.
        assert!(!serde_json::to_string(&Resume::default()).unwrap().contains("saved"));
    }
}
