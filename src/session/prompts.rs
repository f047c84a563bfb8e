//! The prompts of a session: which waits, which runs, and how a running turn is stopped for another. Values and wake-ups; no I/O.
//!
//! Bounded: a worker that drains hands over everything that waits as one prompt, so all of them together fit one. Every change is noted for the
//! worker that would take the session over (see `Steering::notes`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::steering::Noting;
use crate::message::control::PromptMode;
use crate::message::notes::Asked;
use crate::message::resume::Exchange;
use crate::message::task::LONGEST_PROMPT;
use crate::message::{Amendment, Notes};

/// Prompts that wait at most, besides the one that runs.
const MOST_WAITING: usize = 16;
/// Turns at most that are asked again after the worker's death because their work did not reach the forges; then they count as over.
const MOST_UNDONE: usize = 8;
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
    waiting: VecDeque<Asked>,
    /// Turns that were begun, in all attempts.
    begun: u32,
    /// Turns that were begun in this one.
    here: u32,
    running: Option<Running>,
    /// What was begun and is not published, the oldest first.
    undone: Vec<Asked>,
    /// What is noted of the turns that are over.
    over: Notes,
    noting: Option<Noting>,
    /// Whether the turn that runs is stopped for the one that waits first.
    is_steered: bool,
    closed: bool,
    is_open_ended: bool,
}

#[derive(Debug, Clone)]
struct Running {
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

/// Why a prompt was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// No more are taken: whether another worker goes on with the session, its end will show.
    Late,
    /// For this reason.
    Refused(String),
}

impl Prompts {
    /// What is to be asked first, and how far the session came before; its turns count on from there.
    pub(super) fn open(&self, from: Notes, is_open_ended: bool, noting: Noting) {
        let mut state = self.state();
        for asked in from.to_ask.iter().rev() {
            state.waiting.push_front(asked.clone());
        }
        state.begun = from.turns;
        state.is_open_ended = is_open_ended;
        state.over = Notes {
            to_ask: Vec::new(),
            ..from
        };
        state.noting = Some(noting);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more prompt; the sentence says when it is given, or why not.
    pub(super) fn add(&self, id: &str, text: &str, mode: PromptMode) -> Result<String, NotTaken> {
        let mut state = self.state();
        if state.closed {
            return Err(NotTaken::Late);
        }
        let refused = |why: String| Err(NotTaken::Refused(why));
        if state.waiting.len() >= MOST_WAITING {
            return refused(format!(
                "{MOST_WAITING} prompts wait already: send it when one of them is done"
            ));
        }
        let held = state.waiting.iter().chain(&state.undone).map(|one| one.text.len());
        let held = held.sum::<usize>() + (state.waiting.len() + state.undone.len() + 2) * BETWEEN.len();
        if held + text.len() > LONGEST_PROMPT {
            return refused("with those that wait it is longer than 256 KiB: send it when they are done".to_owned());
        }
        let asked = Asked {
            ids: vec![id.to_owned()],
            text: text.to_owned(),
        };
        let next = state.begun.saturating_add(1);
        let said = match mode {
            PromptMode::Queue => {
                state.waiting.push_back(asked);
                let number = state
                    .begun
                    .saturating_add(u32::try_from(state.waiting.len()).unwrap_or(u32::MAX));
                format!("it waits and is turn {number}, unless another steers past it")
            }
            PromptMode::Steer => match state.running.clone() {
                Some(running) => {
                    running.stop.cancel();
                    state.is_steered = true;
                    state.waiting.push_front(asked);
                    format!("turn {} is stopped; this is turn {next}", state.begun)
                }
                // Nothing of the first prompt is done yet: both are one.
                None if state.here == 0 && !state.waiting.is_empty() => {
                    if let Some(first) = state.waiting.front_mut() {
                        join(first, asked);
                    }
                    format!("no turn runs yet: it is given together with the first prompt, as turn {next}")
                }
                None => {
                    state.waiting.push_front(asked);
                    format!("no turn runs: this is turn {next}")
                }
            },
        };
        state.note();
        drop(state);
        self.came.notify_one();
        Ok(said)
    }

    /// Stops the running turn.
    pub(super) fn stop_turn(&self) -> Stopped {
        let mut state = self.state();
        if let Some(running) = &state.running {
            running.stop.cancel();
            // Nobody wants it any more, whoever goes on.
            let stopped = state.undone.pop();
            state.over.done.extend(stopped.into_iter().flat_map(|one| one.ids));
            state.note();
            return Stopped::Turn(state.begun);
        }
        if state.here > 0 || state.closed || state.waiting.is_empty() {
            return Stopped::Nothing;
        }
        if state.waiting.len() == 1 && !state.is_open_ended {
            return Stopped::Session;
        }
        let first = state.waiting.pop_front();
        state.over.done.extend(first.into_iter().flat_map(|first| first.ids));
        // A second one finds nothing to stop.
        state.here = 1;
        state.note();
        Stopped::First
    }

    /// The next turn, if a prompt waits.
    pub(super) fn begin(&self, session: &CancellationToken) -> Option<Begun> {
        let mut state = self.state();
        let asked = state.waiting.pop_front()?;
        state.begun = state.begun.saturating_add(1);
        state.here = state.here.saturating_add(1);
        let stop = session.child_token();
        state.running = Some(Running { stop: stop.clone() });
        state.is_steered = false;
        let prompt = asked.text.clone();
        state.undone.push(asked);
        Some(Begun {
            number: state.begun,
            prompt,
            stop,
        })
    }

    /// The turn is over; its work is still to be published.
    pub(super) fn ended(&self) {
        self.state().running = None;
    }

    /// What was begun is not asked again, whoever goes on: its work is where it belongs, or it will never be. The conversation until then.
    pub(super) fn done(&self, history: &[Exchange], is_published: bool) {
        let mut state = self.state();
        if !is_published && state.undone.len() < MOST_UNDONE {
            return;
        }
        let ids: Vec<String> = state.undone.drain(..).flat_map(|one| one.ids).collect();
        state.over.done.extend(ids);
        state.over.bound();
        state.over.turns = state.begun;
        state.over.history = history.to_vec();
        state.note();
    }

    /// A control message made something else of the task: whoever goes on knows it, and the message.
    pub(super) fn amended(&self, id: &str, amendment: Amendment) {
        let mut state = self.state();
        state.over.done.push(id.to_owned());
        state.over.bound();
        state.over.amendment = amendment;
        state.note();
    }

    /// Whether a prompt waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Whether a prompt that a control message brought waits.
    pub(super) fn is_one_left(&self) -> bool {
        self.state().waiting.iter().any(|one| !one.ids.is_empty())
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

    /// Turns that were begun in this attempt.
    pub(super) fn begun_here(&self) -> u32 {
        self.state().here
    }

    /// Takes no more; everything that waits, an interrupted one first, as one prompt.
    pub(super) fn close(&self, interrupted: Option<&str>) -> Option<String> {
        let mut state = self.state();
        state.closed = true;
        let waiting: Vec<Asked> = state.waiting.drain(..).collect();
        let all: Vec<&str> = interrupted
            .into_iter()
            .chain(waiting.iter().map(|one| one.text.as_str()))
            .collect();
        (!all.is_empty()).then(|| all.join(BETWEEN))
    }

    /// Takes no more; everything that another attempt has to ask, as one prompt, and the conversation until then: what was asked here and is not
    /// published went with the sandbox.
    pub(super) fn close_undone(&self) -> (Option<String>, Vec<Exchange>) {
        let mut state = self.state();
        state.closed = true;
        let undone = std::mem::take(&mut state.undone);
        let waiting = std::mem::take(&mut state.waiting);
        let all: Vec<String> = undone.into_iter().chain(waiting).map(|one| one.text).collect();
        let next = (!all.is_empty()).then(|| all.join(BETWEEN));
        (next, state.over.history.clone())
    }

    /// Takes no more, unless one waits already: then the session goes on. Says whether it is closed.
    pub(super) fn close_if_empty(&self) -> bool {
        let mut state = self.state();
        state.closed = state.waiting.is_empty();
        state.closed
    }
}

impl State {
    fn note(&self) {
        let Some(noting) = &self.noting else { return };
        let (mut to_ask, mut waiting) = (self.undone.clone(), self.waiting.iter().cloned());
        // Whoever asks the first again must know at once that another took its place.
        if self.is_steered
            && let Some(stopped) = to_ask.last_mut()
            && let Some(next) = waiting.next()
        {
            join(stopped, next);
        }
        to_ask.extend(waiting);
        noting.note(Notes {
            to_ask,
            ..self.over.clone()
        });
    }
}

/// Makes one prompt of two.
fn join(first: &mut Asked, next: Asked) {
    first.text.push_str(BETWEEN);
    first.text.push_str(&next.text);
    first.ids.extend(next.ids);
}

#[cfg(test)]
mod tests {
    use super::super::steering::Steering;
    use super::*;

    fn talk(is_open_ended: bool) -> (Prompts, CancellationToken) {
        let prompts = Prompts::default();
        prompts.open(first(), is_open_ended, Steering::default().noting());
        (prompts, CancellationToken::new())
    }

    /// Four turns before, and one prompt.
    fn first() -> Notes {
        let asked = |text: &str| Asked {
            ids: Vec::new(),
            text: text.to_owned(),
        };
        Notes {
            turns: 4,
            to_ask: vec![asked("one")],
            ..Notes::default()
        }
    }

    /// Texts to ask, ids that are done, turns.
    fn noted(steering: &Steering) -> (Vec<String>, Vec<String>, u32) {
        let (_, notes) = steering.notes().borrow().clone();
        let texts = notes.to_ask.into_iter().map(|one| one.text).collect();
        (texts, notes.done, notes.turns)
    }

    #[test]
    fn what_is_not_published_yet_is_noted_to_be_asked_and_nothing_else_is() {
        let (prompts, steering) = (Prompts::default(), Steering::default());
        prompts.open(first(), false, steering.noting());
        assert_eq!(steering.notes().borrow().0, 0, "nothing that the task does not say");
        prompts.begin(steering.token()).unwrap();
        prompts.add("p-1", "two", PromptMode::Queue).unwrap();
        prompts.ended();
        assert_eq!(noted(&steering), (vec!["one".into(), "two".into()], vec![], 4));
        let exchange = Exchange {
            prompt: "one".into(),
            answer: "did it".into(),
        };
        prompts.done(std::slice::from_ref(&exchange), true);
        assert_eq!(noted(&steering), (vec!["two".into()], vec![], 5));
        assert_eq!(steering.notes().borrow().1.history, [exchange]);
        prompts.begin(steering.token()).unwrap();
        prompts.ended();
        prompts.done(&[], false);
        assert_eq!(noted(&steering), (vec!["two".into()], vec![], 5), "its work is nowhere");
        prompts.done(&[], true);
        assert_eq!(noted(&steering), (vec![], vec!["p-1".into()], 6));
        // For ever it is not asked again.
        for turn in 0..MOST_UNDONE {
            assert_eq!(noted(&steering).2, 6, "{turn}");
            prompts.add(&format!("q-{turn}"), "x", PromptMode::Queue).unwrap();
            prompts.begin(steering.token()).unwrap();
            prompts.done(&[], false);
        }
        assert_eq!(
            (noted(&steering).0, noted(&steering).2),
            (vec![], 6 + MOST_UNDONE as u32)
        );
    }

    #[test]
    fn a_turn_that_somebody_stopped_is_not_asked_again_alone() {
        let (prompts, steering) = (Prompts::default(), Steering::default());
        prompts.open(first(), true, steering.noting());
        prompts.begin(steering.token()).unwrap();
        prompts.add("p-1", "last", PromptMode::Queue).unwrap();
        prompts.add("p-2", "instead", PromptMode::Steer).unwrap();
        assert_eq!(noted(&steering).0, ["one\n\ninstead", "last"]);
        prompts.ended();
        prompts.done(&[], true);
        assert_eq!(noted(&steering).0, ["instead", "last"]);
        prompts.begin(steering.token()).unwrap();
        assert_eq!(prompts.stop_turn(), Stopped::Turn(6));
        assert_eq!(noted(&steering), (vec!["last".into()], vec!["p-2".into()], 5));
    }

    #[test]
    fn prompts_come_in_their_order_and_a_steering_one_comes_first() {
        let (prompts, session) = talk(false);
        let first = prompts.begin(&session).unwrap();
        assert_eq!((first.number, first.prompt.as_str()), (5, "one"));
        assert!(prompts.add("p", "two", PromptMode::Queue).unwrap().contains("turn 6"));
        assert!(!first.stop.is_cancelled());
        let said = prompts.add("p", "now", PromptMode::Steer).unwrap();
        assert!(said.contains("turn 5 is stopped; this is turn 6"), "{said}");
        assert!(first.stop.is_cancelled() && !session.is_cancelled());
        prompts.ended();
        assert_eq!(prompts.begin(&session).unwrap().prompt, "now");
        prompts.ended();
        assert_eq!(prompts.begin(&session).unwrap().number, 7);
        prompts.ended();
        assert!(prompts.begin(&session).is_none());
        assert!(prompts.close_if_empty());
        assert_eq!(prompts.add("p", "late", PromptMode::Queue), Err(NotTaken::Late));
    }

    #[test]
    fn before_the_first_turn_a_steering_prompt_joins_it_and_a_cancel_takes_it_away() {
        let (prompts, session) = talk(true);
        prompts.add("p", "and this", PromptMode::Steer).unwrap();
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
        prompts.add("p", "more", PromptMode::Queue).unwrap();
        assert!(prompts.is_one_left());
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_together_and_becomes_one_prompt() {
        let (prompts, session) = talk(false);
        let first = prompts.begin(&session).unwrap();
        for _ in 0..MOST_WAITING {
            prompts.add("p", "x", PromptMode::Queue).unwrap();
        }
        let refused = |text: &str| match prompts.add("p", text, PromptMode::Queue) {
            Err(NotTaken::Refused(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(refused("x").contains("16"));
        let all = prompts.close(Some(&first.prompt)).unwrap();
        assert!(all.starts_with("one\n\nx\n\nx") && all.len() <= LONGEST_PROMPT);
        let (prompts, _) = talk(false);
        let long = "y".repeat(LONGEST_PROMPT / 2);
        prompts.add("p", &long, PromptMode::Queue).unwrap();
        let again = prompts.add("p", &long, PromptMode::Queue).unwrap_err();
        assert!(matches!(again, NotTaken::Refused(why) if why.contains("256 KiB")));
        assert!(prompts.close(None).unwrap().len() <= LONGEST_PROMPT);
    }
}
