//! What projects of a session wait to be told, and whoever tells them. Each question is answered once. Pure but for the waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::message::ProjectKey;

/// Where a project's question stands.
#[derive(Debug)]
enum State {
    Open(oneshot::Sender<bool>),
    Answered(bool),
    Over,
}

/// The questions of a session; clones share them.
#[derive(Debug, Clone, Default)]
pub(in crate::session) struct Answers(Arc<Mutex<BTreeMap<ProjectKey, State>>>);

/// A question that waits. Dropping it ends the waiting.
#[derive(Debug)]
pub(super) struct Question {
    all: Answers,
    project: ProjectKey,
    answer: Option<oneshot::Receiver<bool>>,
}

impl Answers {
    fn all(&self) -> MutexGuard<'_, BTreeMap<ProjectKey, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a project.
    pub(super) fn ask(&self, project: &ProjectKey) -> Question {
        let (give, answer) = oneshot::channel();
        self.all().insert(project.clone(), State::Open(give));
        Question {
            all: self.clone(),
            project: project.clone(),
            answer: Some(answer),
        }
    }

    /// Answers a project's question; the sentence says why nobody heard it.
    pub(in crate::session) fn give(&self, project: &ProjectKey, publish: bool) -> Result<(), String> {
        let mut all = self.all();
        match all.remove(project) {
            None => Err(format!("{project} waits for no answer")),
            Some(State::Over) => {
                all.insert(project.clone(), State::Over);
                Err(format!("{project} waits no more: its work is kept"))
            }
            Some(State::Answered(before)) => {
                all.insert(project.clone(), State::Answered(before));
                let did = if before { "to publish it" } else { "not to publish it" };
                Err(format!("{project} was answered before: {did}; the first answer counts"))
            }
            Some(State::Open(waiting)) => {
                let heard = waiting.send(publish).is_ok();
                all.insert(
                    project.clone(),
                    if heard { State::Answered(publish) } else { State::Over },
                );
                if heard {
                    Ok(())
                } else {
                    Err(format!("{project} waits no more: its work is kept"))
                }
            }
        }
    }
}

impl Question {
    /// The answer, when it comes.
    pub(super) async fn answered(mut self) -> bool {
        match self.answer.as_mut() {
            // The sender stays in the map until it is used.
            Some(answer) => answer.await.unwrap_or(false),
            None => false,
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        // First, so that an answer that arrives now is refused instead of lost.
        self.answer = None;
        let mut all = self.all.all();
        if matches!(all.get(&self.project), Some(State::Open(_))) {
            all.insert(self.project.clone(), State::Over);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ProjectKey {
        ProjectKey {
            connection: "lab".parse().unwrap(),
            path: "a/b".parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn the_first_answer_counts() {
        let answers = Answers::default();
        assert!(answers.give(&key(), true).unwrap_err().contains("waits for no answer"));
        let question = answers.ask(&key());
        answers.give(&key(), true).unwrap();
        assert!(answers.give(&key(), false).unwrap_err().contains("to publish it"));
        assert!(question.answered().await);
        assert!(
            answers
                .give(&key(), false)
                .unwrap_err()
                .contains("the first answer counts")
        );
    }

    #[tokio::test]
    async fn an_answer_that_nobody_waits_for_any_more_is_refused() {
        let answers = Answers::default();
        drop(answers.ask(&key()));
        for _ in 0..2 {
            assert!(answers.give(&key(), true).unwrap_err().contains("waits no more"));
        }
    }
}
