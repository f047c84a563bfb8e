//! What the agent said of its work, turn by turn and project by project, so that a change request's text tells of the whole branch. Pure.

use std::collections::BTreeMap;

use super::change_text;
use crate::agent::sections::{self, Sections};
use crate::message::ProjectKey;
use crate::message::resume::Exchange;
use crate::tools::{Wish, Wishes};

/// Turns that are remembered; the text has no room for more.
const MOST_TURNS: usize = 40;

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// What earlier attempts said, of any project.
    before: Vec<Sections>,
    turns: BTreeMap<ProjectKey, Vec<Sections>>,
    /// The wishes that are among them already.
    seen: BTreeMap<ProjectKey, Wish>,
}

impl Told {
    /// What was said before this attempt.
    pub(super) fn of(history: &[Exchange]) -> Self {
        Self {
            before: history.iter().map(|one| sections::read(&one.answer)).collect(),
            ..Self::default()
        }
    }

    /// A turn is over: a wish that came in it speaks for its project, the answer for all others.
    pub(super) fn turn(&mut self, projects: &[ProjectKey], answer: &Sections, wishes: &Wishes) {
        for key in projects {
            let wish = wishes.get(key).filter(|wish| self.seen.get(key) != Some(wish));
            let said = match wish {
                Some(wish) => {
                    let said = of_wish(&wish, answer);
                    self.seen.insert(key.clone(), wish);
                    said
                }
                None => answer.clone(),
            };
            if said != Sections::default() {
                let turns = self.turns.entry(key.clone()).or_default();
                turns.push(said);
                let surplus = turns.len().saturating_sub(MOST_TURNS);
                turns.drain(..surplus);
            }
        }
    }

    /// All of it, as the sections of one text.
    pub(super) fn whole(&self, project: &ProjectKey) -> Sections {
        let turns = self.turns.get(project).into_iter().flatten();
        let all: Vec<Sections> = self.before.iter().chain(turns).cloned().collect();
        change_text::whole(&all)
    }
}

fn of_wish(wish: &Wish, answer: &Sections) -> Sections {
    let checked = if wish.checked.trim().is_empty() {
        &answer.checked
    } else {
        &wish.checked
    };
    Sections {
        changes: wish.changes.clone(),
        approach: wish.approach.clone(),
        trade_offs: wish.trade_offs.clone(),
        checked: checked.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_and_what_was_said_before_is_in_the_text() {
        let key = ProjectKey {
            connection: "lab".parse().unwrap(),
            path: "a/b".parse().unwrap(),
        };
        let mut told = Told::of(&[Exchange {
            prompt: String::new(),
            answer: "## Changes\nzero".into(),
        }]);
        let wishes = Wishes::default();
        for changes in ["one", "", "two"] {
            let said = Sections {
                changes: changes.into(),
                ..Sections::default()
            };
            told.turn(std::slice::from_ref(&key), &said, &wishes);
        }
        assert_eq!(told.whole(&key).changes, "zero\n\none\n\ntwo");
    }
}
