//! The prompts of a session: which waits, which runs, and how a running turn is stopped for another. Values and a wake-up; no I/O.
//!
//! Bounded: a worker that drains hands over everything that waits as one prompt, so all of them together fit one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::message::control::PromptMode;
use crate::message::task::LONGEST_PROMPT;

/// Prompts that wait at most, besides the one that runs.
const MOST_WAITING: usize = 16;
/// What stands between two prompts that are given as one.
const BETWEEN: &str = "\n\n";

/// Shared by the path and by whoever obeys control messages.
#[derive(Debug, Clone, Default)]
pub(super) struct Prompts {
    state: Arc<Mutex<State>>,
    came: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<String>,
    /// Turns that were begun, in all attempts.
    begun: u32,
    /// Turns that were begun in this one.
    here: u32,
    running: Option<Running>,
    closed: bool,
    is_open_ended: bool,
}

#[derive(Debug, Clone)]
struct Running {
    prompt: String,
    stop: CancellationToken,
}

/// A turn that begins.
#[derive(Debug)]
pub(super) struct Begun {
    /// Its number.
    pub(super) number: u32,
    /// What is asked.
    pub(super) prompt: String,
    /// Cancelled when the turn shall stop.
    pub(super) stop: CancellationToken,
}

/// What a wish to stop the turn met.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The turn of this number was told to stop.
    Turn(u32),
    /// No turn ran yet: the first prompt is not given.
    First,
    /// No turn ran yet, and nothing else will come: the session is to end.
    Session,
    /// Nothing runs.
    Nothing,
}

impl Prompts {
    /// The session's own prompt; its turns count on from those of earlier attempts.
    pub(super) fn open(&self, prompt: &str, turns_before: u32, is_open_ended: bool) {
        let mut state = self.state();
        state.waiting.push_front(prompt.to_owned());
        state.begun = turns_before;
        state.is_open_ended = is_open_ended;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more prompt; the sentence says when it is given, or why not.
    pub(super) fn add(&self, text: &str, mode: PromptMode) -> Result<String, String> {
        let mut state = self.state();
        if state.closed {
            return Err("the session is ending: send it in a task that resumes the session".to_owned());
        }
        if state.waiting.len() >= MOST_WAITING {
            return Err(format!(
                "{MOST_WAITING} prompts wait already: send it when one of them is done"
            ));
        }
        let held = state.waiting.iter().map(String::len).sum::<usize>()
            + state.running.as_ref().map_or(0, |running| running.prompt.len())
            + (state.waiting.len() + 2) * BETWEEN.len();
        if held + text.len() > LONGEST_PROMPT {
            return Err("with those that wait it is longer than 256 KiB: send it when they are done".to_owned());
        }
        let next = state.begun.saturating_add(1);
        let said = match mode {
            PromptMode::Queue => {
                state.waiting.push_back(text.to_owned());
                let number = state
                    .begun
                    .saturating_add(u32::try_from(state.waiting.len()).unwrap_or(u32::MAX));
                format!("it waits and is turn {number}, unless another steers past it")
            }
            PromptMode::Steer => match state.running.clone() {
                Some(running) => {
                    running.stop.cancel();
                    state.waiting.push_front(text.to_owned());
                    format!("turn {} is stopped; this is turn {next}", state.begun)
                }
                // Nothing of the first prompt is done yet: both are one.
                None if state.here == 0 && !state.waiting.is_empty() => {
                    if let Some(first) = state.waiting.front_mut() {
                        first.push_str(BETWEEN);
                        first.push_str(text);
                    }
                    format!("no turn runs yet: it is given together with the first prompt, as turn {next}")
                }
                None => {
                    state.waiting.push_front(text.to_owned());
                    format!("no turn runs: this is turn {next}")
                }
            },
        };
        drop(state);
        self.came.notify_one();
        Ok(said)
    }

    /// Stops the running turn.
    pub(super) fn stop_turn(&self) -> Stopped {
        let mut state = self.state();
        if let Some(running) = &state.running {
            running.stop.cancel();
            return Stopped::Turn(state.begun);
        }
        if state.here > 0 || state.closed || state.waiting.is_empty() {
            return Stopped::Nothing;
        }
        if state.waiting.len() == 1 && !state.is_open_ended {
            return Stopped::Session;
        }
        state.waiting.pop_front();
        // A second one finds nothing to stop.
        state.here = 1;
        Stopped::First
    }

    /// The next turn, if a prompt waits.
    pub(super) fn begin(&self, session: &CancellationToken) -> Option<Begun> {
        let mut state = self.state();
        let prompt = state.waiting.pop_front()?;
        state.begun = state.begun.saturating_add(1);
        state.here = state.here.saturating_add(1);
        let stop = session.child_token();
        state.running = Some(Running {
            prompt: prompt.clone(),
            stop: stop.clone(),
        });
        Some(Begun {
            number: state.begun,
            prompt,
            stop,
        })
    }

    /// The turn is over.
    pub(super) fn ended(&self) {
        self.state().running = None;
    }

    /// Whether a prompt waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Whether a prompt that a control message brought waits.
    pub(super) fn is_one_left(&self) -> bool {
        let state = self.state();
        state.waiting.len() > usize::from(state.here == 0)
    }

    /// Waits until a prompt waits.
    pub(super) async fn came(&self) {
        while !self.is_waiting() {
            self.came.notified().await;
        }
    }

    /// Turns that were begun.
    pub(super) fn begun(&self) -> u32 {
        self.state().begun
    }

    /// Takes no more; everything that waits, an interrupted one first, as one prompt.
    pub(super) fn close(&self, interrupted: Option<&str>) -> Option<String> {
        let mut state = self.state();
        state.closed = true;
        let waiting: Vec<String> = state.waiting.drain(..).collect();
        let all: Vec<&str> = interrupted
            .into_iter()
            .chain(waiting.iter().map(String::as_str))
            .collect();
        (!all.is_empty()).then(|| all.join(BETWEEN))
    }

    /// Takes no more, unless one waits already: then the session goes on. Says whether it is closed.
    pub(super) fn close_if_empty(&self) -> bool {
        let mut state = self.state();
        state.closed = state.waiting.is_empty();
        state.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(is_open_ended: bool) -> (Prompts, CancellationToken) {
        let prompts = Prompts::default();
        prompts.open("one", 4, is_open_ended);
        (prompts, CancellationToken::new())
    }

    #[test]
    fn prompts_come_in_their_order_and_a_steering_one_comes_first() {
        let (prompts, session) = talk(false);
        let first = prompts.begin(&session).unwrap();
        assert_eq!((first.number, first.prompt.as_str()), (5, "one"));
        assert!(prompts.add("two", PromptMode::Queue).unwrap().contains("turn 6"));
        assert!(!first.stop.is_cancelled());
        let said = prompts.add("now", PromptMode::Steer).unwrap();
        assert!(said.contains("turn 5 is stopped; this is turn 6"), "{said}");
        assert!(first.stop.is_cancelled() && !session.is_cancelled());
        prompts.ended();
        assert_eq!(prompts.begin(&session).unwrap().prompt, "now");
        prompts.ended();
        assert_eq!(prompts.begin(&session).unwrap().number, 7);
        prompts.ended();
        assert!(prompts.begin(&session).is_none());
        assert!(prompts.close_if_empty());
        assert!(prompts.add("late", PromptMode::Queue).unwrap_err().contains("ending"));
    }

    #[test]
    fn before_the_first_turn_a_steering_prompt_joins_it_and_a_cancel_takes_it_away() {
        let (prompts, session) = talk(true);
        prompts.add("and this", PromptMode::Steer).unwrap();
        assert_eq!(prompts.begin(&session).unwrap().prompt, "one\n\nand this");
        assert_eq!(talk(false).0.stop_turn(), Stopped::Session);
        let (prompts, session) = talk(true);
        assert_eq!(prompts.stop_turn(), Stopped::First);
        assert_eq!(prompts.stop_turn(), Stopped::Nothing);
        assert!(prompts.begin(&session).is_none());
        let (prompts, session) = talk(false);
        assert!(!prompts.is_one_left(), "the task's own");
        prompts.begin(&session).unwrap();
        assert_eq!(prompts.stop_turn(), Stopped::Turn(5));
        prompts.add("more", PromptMode::Queue).unwrap();
        assert!(prompts.is_one_left());
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_together_and_becomes_one_prompt() {
        let (prompts, session) = talk(false);
        let first = prompts.begin(&session).unwrap();
        for _ in 0..MOST_WAITING {
            prompts.add("x", PromptMode::Queue).unwrap();
        }
        assert!(prompts.add("x", PromptMode::Queue).unwrap_err().contains("16"));
        let all = prompts.close(Some(&first.prompt)).unwrap();
        assert!(all.starts_with("one\n\nx\n\nx") && all.len() <= LONGEST_PROMPT);
        let (prompts, _) = talk(false);
        let long = "y".repeat(LONGEST_PROMPT / 2);
        prompts.add(&long, PromptMode::Queue).unwrap();
        assert!(prompts.add(&long, PromptMode::Queue).unwrap_err().contains("256 KiB"));
        assert!(prompts.close(None).unwrap().len() <= LONGEST_PROMPT);
    }
}
