//! What the owner of a session would tell the next one, should it die: how far the conversation came, what is still to be asked, and
//! which projects and connections it has that its task has not. It travels on the broker, from worker to worker, and is no part of the contract.
//!
//! Pure. Bounded where it is made and where it is read. The history in it is masked; the prompts are as they were sent, because they are to be
//! asked.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Amendment;
use super::resume::{Exchange, Resume};
use super::task::LONGEST_PROMPT;

/// Largest body that is written or read, in bytes.
pub const LARGEST_NOTES: usize = 2 * 1024 * 1024;
/// Prompts that are to be asked, at most.
pub const MOST_TO_ASK: usize = 64;
/// Ids of control messages that are remembered as done, the last ones.
pub const MOST_DONE: usize = 200;
/// Longest id, in bytes.
const LONGEST_ID: usize = 128;

/// How far a session came.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Notes {
    /// Turns that are over, and whose work is published as far as it can be.
    pub turns: u32,
    /// The conversation of these turns, oldest first.
    pub history: Vec<Exchange>,
    /// What is to be asked next, in this order; the first may have been begun.
    pub to_ask: Vec<Asked>,
    /// The control messages that are done: their prompts are over, or what they changed is in the amendment.
    pub done: Vec<String>,
    /// What control messages made of the task.
    #[serde(default)]
    pub amendment: Amendment,
}

/// A prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The control messages that brought it; none for the task's own.
    pub ids: Vec<String>,
    /// Its text.
    pub text: String,
}

impl Notes {
    /// Reads what an owner kept; `None` when it cannot be used.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        if body.len() > LARGEST_NOTES {
            return None;
        }
        let notes: Self = serde_json::from_slice(body).ok()?;
        let ids = || notes.to_ask.iter().flat_map(|asked| &asked.ids).chain(&notes.done);
        let text: usize = notes.to_ask.iter().map(|asked| asked.text.len()).sum();
        let history = Resume {
            history: notes.history.clone(),
            ..Resume::default()
        };
        let fits = notes.to_ask.len() <= MOST_TO_ASK
            && text <= LONGEST_PROMPT
            && ids().count() <= MOST_DONE + MOST_TO_ASK
            && ids().all(|id| id.len() <= LONGEST_ID)
            && history.check().is_ok()
            && notes.amendment.check().is_ok();
        fits.then_some(notes)
    }

    /// Remembers the last control messages that are done, and no more than that.
    pub fn bound(&mut self) {
        let surplus = self.done.len().saturating_sub(MOST_DONE);
        self.done.drain(..surplus);
    }

    /// As it travels; early turns are left out until it fits. `None` when not even the prompts fit.
    #[must_use]
    pub fn body(&self) -> Option<Bytes> {
        let mut notes = self.clone();
        loop {
            let body = serde_json::to_vec(&notes).ok()?;
            if body.len() <= LARGEST_NOTES {
                return Some(body.into());
            }
            if notes.history.is_empty() {
                return None;
            }
            notes.history.remove(0);
        }
    }

    /// Whether a control message is in it.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        self.ids().any(|known| known == id)
    }

    /// The control messages that are in it, the oldest first.
    pub fn ids(&self) -> impl Iterator<Item = &String> {
        self.done.iter().chain(self.to_ask.iter().flat_map(|asked| &asked.ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ConnectionName;
    use crate::message::task::MOST_PROJECTS;

    fn amendment() -> Amendment {
        let amendment = serde_json::json!({
            "added": [{"connection": "lab", "path": "a/b", "base": "next"}],
            "connections": {"lab": {"forge": "gitlab", "url": "https://lab.example", "credential": {"plain": "canary"}}},
            "dropped": ["hub"],
        });
        serde_json::from_value(amendment).unwrap()
    }

    fn asked(id: &str, text: &str) -> Asked {
        Asked {
            ids: vec![id.to_owned()],
            text: text.to_owned(),
        }
    }

    #[test]
    fn it_comes_back_as_it_was_and_fits() {
        let mut resume = Resume::default();
        // Every byte of it is written as six.
        for _ in 0..20 {
            resume.remember(&"\u{1}".repeat(8192), &"\u{1}".repeat(8192));
        }
        let notes = Notes {
            turns: 3,
            history: resume.history,
            to_ask: vec![asked("p-2", &"\u{1}".repeat(200 * 1024))],
            done: vec!["p-1".into()],
            amendment: amendment(),
        };
        let body = notes.body().unwrap();
        let read = Notes::parse(&body).unwrap();
        assert_eq!((read.turns, &read.to_ask, &read.done), (3, &notes.to_ask, &notes.done));
        assert!((1..20).contains(&read.history.len()));
        assert!(read.knows("p-1") && read.knows("p-2") && !read.knows("p-3"));
        let (kept, sent) = (read.amendment, amendment());
        assert_eq!((&kept.added, &kept.dropped), (&sent.added, &sent.dropped));
        let lab: ConnectionName = "lab".parse().unwrap();
        assert_eq!(kept.connections[&lab].for_task(), sent.connections[&lab].for_task());
        let empty = Notes::parse(&Notes::default().body().unwrap()).unwrap();
        assert_eq!((empty.turns, empty.amendment.added.len()), (0, 0));
        // Those of a worker of the version before.
        assert!(Notes::parse(br#"{"turns":1,"history":[],"to_ask":[],"done":[]}"#).is_some());
    }

    #[test]
    fn what_is_beyond_its_bounds_is_not_used() {
        let notes = |to_ask: Vec<Asked>| {
            serde_json::to_vec(&Notes {
                to_ask,
                ..Notes::default()
            })
            .unwrap()
        };
        let amended = |amendment: Amendment| {
            serde_json::to_vec(&Notes {
                amendment,
                ..Notes::default()
            })
            .unwrap()
        };
        assert!(Notes::parse(b"").is_none());
        assert!(Notes::parse(&vec![b' '; LARGEST_NOTES + 1]).is_none());
        for wrong in [
            notes(vec![asked("a", &"x".repeat(LONGEST_PROMPT + 1))]),
            notes(vec![asked(&"x".repeat(129), "x")]),
            notes(vec![asked("a", "x"); MOST_TO_ASK + 1]),
            amended(Amendment {
                added: vec![amendment().added.remove(0); MOST_PROJECTS + 1],
                ..Amendment::default()
            }),
            amended(Amendment {
                dropped: (0..200).map(|n| format!("c{n}").parse().unwrap()).collect(),
                ..Amendment::default()
            }),
        ] {
            assert!(Notes::parse(&wrong).is_none());
        }
    }
}
