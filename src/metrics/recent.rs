//! The last lines of each session, for whoever asks what became of it: the log's own, as they left, and the state events.
//!
//! Bounded in sessions, in lines and in bytes; what is old goes first. Never masks: whoever adds a line has.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Sessions that are remembered: those that were told of last.
const SESSIONS: usize = 64;
/// Bytes of one session's lines.
const BYTES: usize = 128 * 1024;
/// Bytes of one line; longer ones are cut.
const LINE: usize = 4 * 1024;

/// What is remembered.
#[derive(Debug, Default)]
pub struct Recent(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    lines: HashMap<String, Lines>,
    /// Counts what was added, so that the oldest session is known.
    clock: u64,
}

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
    dropped: u64,
    at: u64,
}

/// What is known of one session.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Told {
    /// Earlier lines that had to go.
    pub dropped: u64,
    /// The lines, the oldest first; each is JSON.
    pub lines: Vec<String>,
}

impl Recent {
    /// Adds a line of a session.
    pub fn add(&self, session: &str, line: &str) {
        let line = line.trim_end();
        let line = &line[..line.floor_char_boundary(LINE)];
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let now = state.clock;
        if !state.lines.contains_key(session) && state.lines.len() >= SESSIONS {
            let oldest = state.lines.iter().min_by_key(|(_, lines)| lines.at);
            if let Some(oldest) = oldest.map(|(session, _)| session.clone()) {
                state.lines.remove(&oldest);
            }
        }
        let of = state.lines.entry(session.to_owned()).or_default();
        of.at = now;
        of.bytes += line.len();
        of.lines.push_back(line.to_owned());
        while of.bytes > BYTES {
            let Some(gone) = of.lines.pop_front() else { break };
            of.bytes -= gone.len();
            of.dropped += 1;
        }
    }

    /// What is known of a session; `None` where nothing is.
    #[must_use]
    pub fn of(&self, session: &str) -> Option<Told> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.lines.get(session).map(|of| Told {
            dropped: of.dropped,
            lines: of.lines.iter().cloned().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let recent = Recent::default();
        recent.add("first", "one\n");
        recent.add("first", &"ä".repeat(LINE));
        let told = recent.of("first").unwrap();
        assert_eq!((told.dropped, told.lines[0].as_str()), (0, "one"));
        assert_eq!(told.lines[1].len(), LINE);
        for _ in 0..100 {
            recent.add("first", &"x".repeat(LINE));
        }
        let told = recent.of("first").unwrap();
        assert_eq!((told.lines.len(), told.dropped), (BYTES / LINE, 102 - 32));
        for number in 0..SESSIONS {
            recent.add(&number.to_string(), "x");
        }
        assert_eq!(recent.of("first"), None);
        assert!(recent.of("0").is_some() && recent.of("63").is_some());
    }
}
