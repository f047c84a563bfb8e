//! The agent's questions to people: told with a deadline and a default, answered once, and known for a while after they are over.
//!
//! What an agent asks is hostile text: bounded, and masked before it is cut. Bounded in number too; beyond that nobody is asked, and the
//! answer is no.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::steering::Steering;
use crate::agent::ask::{Ask, Decided, Request};
use crate::message::{Attention, Choice, DecidedBy, EventBody, Otherwise, Question};
use crate::metrics::Awaits;
use crate::progress::Progress;

/// Questions that one session may ask people in all.
const MOST_ASKED: u32 = 200;
/// Questions that are over and still known, the last ones.
const REMEMBERED: usize = 200;
/// How much of an agent's text is looked at, in bytes.
const LONGEST_READ: usize = 64 * 1024;
/// Longest title and longest name of an option, in characters.
const LONGEST_WORDS: usize = 200;
/// Longest account of what is asked leave for, in characters.
const LONGEST_DETAIL: usize = 4000;

/// How a question ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Over {
    Answered(&'static str),
    Deadline,
    Turn,
}

#[derive(Debug)]
struct Open {
    options: Vec<Choice>,
    give: oneshot::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<String, Open>,
    over: VecDeque<(String, Over)>,
    asked: u32,
}

/// The questions of a session; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Questions(Arc<Mutex<State>>);

/// A question that waits. Dropping it ends the waiting.
#[derive(Debug)]
struct Asked {
    all: Questions,
    id: String,
    answer: Option<oneshot::Receiver<usize>>,
    /// How it ends if nobody answers.
    over: Over,
}

impl Questions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more question, where one may still be asked.
    fn ask(&self, options: Vec<Choice>) -> Option<Asked> {
        let mut state = self.state();
        if state.asked >= MOST_ASKED {
            return None;
        }
        state.asked += 1;
        // Not a number: an answer to an earlier attempt's question must not meet another one.
        let random = uuid::Uuid::new_v4().simple().to_string();
        let id = format!("q-{}", &random[..12]);
        let (give, answer) = oneshot::channel();
        state.open.insert(id.clone(), Open { options, give });
        drop(state);
        Some(Asked {
            all: self.clone(),
            id,
            answer: Some(answer),
            over: Over::Turn,
        })
    }

    /// Answers a question; the sentence says what that does, or why nobody heard it.
    pub(super) fn answer(&self, question: &str, option: &str) -> Result<String, String> {
        let mut state = self.state();
        let Some(open) = state.open.get(question) else {
            let over = state.over.iter().find(|(id, _)| id == question);
            return Err(match over {
                None => "this session asks no such question: take the id from its event needs_attention".to_owned(),
                Some((_, Over::Answered(kind))) => {
                    format!("the question was answered before, with {kind}; the first answer counts")
                }
                Some((_, Over::Deadline)) => {
                    "the question waits no more: nobody answered in time, and the agent was refused".to_owned()
                }
                Some((_, Over::Turn)) => "the question waits no more: its turn was stopped or ended".to_owned(),
            });
        };
        let place = place_of(&open.options, option).ok_or_else(|| {
            let known: Vec<_> = open
                .options
                .iter()
                .map(|one| format!("{} ({})", one.id, one.kind.as_str()))
                .collect();
            format!("the question has no such option: it has {}", known.join(", "))
        })?;
        let kind = open.options[place].kind.as_str();
        let heard = state
            .open
            .remove(question)
            .is_some_and(|open| open.give.send(place).is_ok());
        let over = if heard { Over::Answered(kind) } else { Over::Turn };
        state.remember(question.to_owned(), over);
        if heard {
            Ok(format!("the agent is answered {kind}"))
        } else {
            Err("the question waits no more: its turn was stopped or ended".to_owned())
        }
    }
}

impl State {
    fn remember(&mut self, id: String, over: Over) {
        self.over.push_back((id, over));
        if self.over.len() > REMEMBERED {
            self.over.pop_front();
        }
    }
}

/// The option of that id, or the only one of that kind.
fn place_of(options: &[Choice], wanted: &str) -> Option<usize> {
    let by_id = options.iter().position(|one| one.id == wanted);
    by_id.or_else(|| {
        let mut of_kind = (0..options.len()).filter(|place| options[*place].kind.as_str() == wanted);
        of_kind.next().filter(|_| of_kind.next().is_none())
    })
}

impl Asked {
    async fn answered(&mut self) -> usize {
        match &mut self.answer {
            Some(answer) => match answer.await {
                Ok(place) => place,
                // The sender stays in the map until it is used.
                Err(_) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // First, so that an answer that arrives now is refused instead of lost.
        self.answer = None;
        let mut state = self.all.state();
        if state.open.remove(&self.id).is_some() {
            let (id, over) = (std::mem::take(&mut self.id), self.over.clone());
            state.remember(id, over);
        }
    }
}

/// Asks the people around a session.
#[derive(Debug)]
pub(super) struct AskPeople {
    pub(super) questions: Questions,
    pub(super) progress: Arc<Progress>,
    pub(super) steering: Steering,
    /// How long an answer is waited for.
    pub(super) wait: Duration,
}

impl AskPeople {
    /// An agent's text as people are shown it.
    fn shown(&self, text: &str, longest: usize) -> String {
        let read = &text[..text.floor_char_boundary(LONGEST_READ)];
        // Whole, or half of a secret would not be known.
        let masked = self.progress.masked(read);
        let mut shown: String = masked.chars().take(longest).collect();
        if shown.len() < masked.len() || read.len() < text.len() {
            shown.push_str(" [cut]");
        }
        shown
    }
}

#[async_trait]
impl Ask for AskPeople {
    async fn ask(&self, request: Request, ended: &CancellationToken) -> Decided {
        let of = |by, option, question| Decided { option, by, question };
        let options = request.options.iter().enumerate();
        let options: Vec<Choice> = options
            .map(|(place, (kind, name))| Choice {
                id: (place + 1).to_string(),
                name: self.shown(name, LONGEST_WORDS),
                kind: *kind,
            })
            .collect();
        let Some(mut asked) = self.questions.ask(options.clone()) else {
            return of(DecidedBy::Bound, None, None);
        };
        let id = asked.id.clone();
        // The slot is another session's meanwhile.
        let _waits = self.steering.waits(Awaits::Answer);
        let body = EventBody::NeedsAttention {
            project: None,
            reason: Attention::PermissionAsked,
            message: format!(
                "the agent asks for leave: {}: send the control message `answer` with this question and one of its options; without one the agent \
                 is refused and goes on",
                self.shown(&request.title, LONGEST_WORDS)
            ),
            wait_s: self.wait.as_secs(),
            default: Otherwise::Refused,
            question: Some(Question {
                id: id.clone(),
                detail: self.shown(&request.detail, LONGEST_DETAIL),
                options,
            }),
        };
        let waiting = tokio::time::Instant::now() + self.wait;
        self.progress.state(body).await;
        tokio::select! {
            biased;
            // Whoever was told that the answer is taken was told the truth.
            place = asked.answered() => of(DecidedBy::Answer, Some(place), Some(id)),
            () = ended.cancelled() => of(DecidedBy::End, None, Some(id)),
            () = tokio::time::sleep_until(waiting) => {
                asked.over = Over::Deadline;
                of(DecidedBy::Deadline, None, Some(id))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ChoiceKind;

    fn options() -> Vec<Choice> {
        let kinds = [ChoiceKind::AllowOnce, ChoiceKind::RejectOnce, ChoiceKind::RejectOnce];
        let make = |(place, kind): (usize, ChoiceKind)| Choice {
            id: (place + 1).to_string(),
            name: "allow_once".to_owned(),
            kind,
        };
        kinds.into_iter().enumerate().map(make).collect()
    }

    #[tokio::test]
    async fn a_question_is_answered_once_and_by_an_option_that_it_has() {
        let questions = Questions::default();
        let says = |question: &str, option: &str| questions.answer(question, option).unwrap_err();
        assert!(says("q-1", "1").contains("no such question"));
        let mut asked = questions.ask(options()).unwrap();
        let id = asked.id.clone();
        assert!(says(&id, "4").contains("it has 1 (allow_once), 2 (reject_once)"));
        assert!(
            says(&id, "reject_once").contains("no such option"),
            "two have that kind"
        );
        assert!(questions.answer(&id, "allow_once").unwrap().contains("allow_once"));
        assert!(says(&id, "2").contains("answered before, with allow_once"));
        assert_eq!(asked.answered().await, 0);
        drop(asked);
        assert!(says(&id, "2").contains("answered before"));
    }

    #[tokio::test]
    async fn what_waits_no_more_says_why() {
        let questions = Questions::default();
        let asked = questions.ask(options()).unwrap();
        let id = asked.id.clone();
        drop(asked);
        assert!(questions.answer(&id, "1").unwrap_err().contains("turn was stopped"));
        let mut asked = questions.ask(options()).unwrap();
        let id = asked.id.clone();
        asked.over = Over::Deadline;
        drop(asked);
        for _ in 0..2 {
            assert!(questions.answer(&id, "1").unwrap_err().contains("in time"));
        }
    }

    #[test]
    fn a_session_asks_so_often_and_no_more() {
        let questions = Questions::default();
        let asked = (0..MOST_ASKED + 50).filter_map(|_| questions.ask(options())).count();
        assert_eq!(asked, MOST_ASKED as usize);
        assert!(questions.state().over.len() <= REMEMBERED && questions.state().open.is_empty());
    }
}
