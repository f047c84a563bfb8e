//! Control messages of one session: each is acknowledged by an event, applied or handed to the session, answered, and known by its id.
//!
//! Never tells the broker that a message was taken before it is in the session's hands. An `end` stays with the broker until the claim is
//! closed; a prompt, and what changes projects or connections, until the broker has it among the session's notes, so that they outlive the death
//! of this worker.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::noting::Noted;
use crate::message::control::{Answer, Control};
use crate::message::task::ProjectRequest;
use crate::message::{ControlKind, EventBody, Notes, ProjectKey};
use crate::progress::Progress;
use crate::queue::{Claim, Given, Receipt};
use crate::session::steering::{Order, OrderKind, Steering};

/// Ids of one session that are remembered, the last ones.
const REMEMBERED: usize = 1000;
/// How long what waits already may take to come.
const EARLY: Duration = Duration::from_secs(5);
/// How long the answers to what the end of a session left unread may take.
const REFUSING: Duration = Duration::from_secs(10);
/// What is said of a message that came too late.
pub(super) const OVER: &str = "the session is over: send a task with a new session id";
/// The same, where the session may go on.
pub(super) const RESTS: &str =
    "the session rests: send its task again, with this as its prompt and the `resume` of its event `suspended`";

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// The broker may forget it.
    ByUs,
    /// The broker keeps it for the next owner, should there be one.
    ByTheBroker,
    /// The same until it is noted, or refused.
    UntilNoted,
}

/// The control messages of one session.
pub(super) struct Controls {
    steering: Steering,
    progress: Arc<Progress>,
    seen: Seen,
    /// The messages that ended the session: few, because what ends it once more must outdo what did before.
    endings: Vec<String>,
    /// Messages that the broker keeps until it has them among the notes, or until they are refused.
    held: Vec<(String, Receipt)>,
    /// What a dead owner had noted.
    inherited: HashSet<String>,
}

impl Controls {
    /// Those of a session, with what its last owner noted: prompts that are in it come again where the broker was not told.
    pub(super) fn new(steering: Steering, progress: Arc<Progress>, notes: Option<&Notes>) -> Self {
        let inherited: HashSet<String> = notes.into_iter().flat_map(Notes::ids).cloned().collect();
        let mut seen = Seen::default();
        for id in &inherited {
            seen.is_new(id);
        }
        Self {
            steering,
            progress,
            seen,
            endings: Vec::new(),
            held: Vec::new(),
            inherited,
        }
    }

    /// Answers the prompts that a dead owner had taken and that are asked now: whether it came to its own answers, nobody knows.
    pub(super) async fn inherit(&self, notes: &Notes) {
        for id in notes.to_ask.iter().flat_map(|asked| &asked.ids) {
            let said = "a worker that died had taken it: this one asks it";
            self.answer(id.clone(), true, said.to_owned()).await;
        }
    }

    /// Takes what waited in the mailbox when the session was claimed. A broker that keeps it back does not hold the session up for long.
    pub(super) async fn early(&mut self, claim: &mut dyn Claim) {
        let waiting = claim.waiting();
        let taking = async {
            for _ in 0..waiting {
                let Some(given) = claim.next_control().await else {
                    return;
                };
                self.take(claim, given).await;
            }
        };
        if tokio::time::timeout(EARLY, taking).await.is_err() {
            tracing::warn!(
                waiting,
                "control messages that wait are slow to come; the session begins without them"
            );
        }
    }

    /// Takes one message that the claim gave.
    pub(super) async fn take(&mut self, claim: &mut dyn Claim, Given { body, receipt }: Given) {
        let (id, kept) = self.apply(&body).await;
        match kept {
            Kept::ByUs => claim.taken(receipt),
            Kept::ByTheBroker => {}
            Kept::UntilNoted => {
                // A lost connection made the receipt of the same message worthless.
                self.held.retain(|(held, _)| *held != id);
                self.held.push((id, receipt));
            }
        }
    }

    /// Lets the broker forget what is noted, and what was refused.
    pub(super) fn release(&mut self, claim: &mut dyn Claim, noted: &Noted) {
        self.held.retain(|(id, receipt)| {
            let is_held = self.progress.answered(id) != Some(false) && !noted.knows(id);
            if !is_held {
                claim.taken(*receipt);
            }
            is_held
        });
    }

    /// Lets the broker forget what was taken: what goes on has it. What was not is for whoever goes on.
    pub(super) fn release_asked(&mut self, claim: &mut dyn Claim) {
        self.held.retain(|(id, receipt)| {
            let is_answered = self.progress.answered(id).is_some();
            if is_answered {
                claim.taken(*receipt);
            }
            !is_answered
        });
    }

    /// Lets nothing more in and answers what was not read: nothing vanishes with the mailbox.
    pub(super) async fn refuse_the_rest(&mut self, claim: &mut dyn Claim, why: &str) {
        let refusing = async {
            for (id, receipt) in std::mem::take(&mut self.held) {
                if self.progress.answered(&id).is_none() {
                    self.answer(id, false, why.to_owned()).await;
                }
                claim.taken(receipt);
            }
            if let Err(error) = claim.shut().await {
                tracing::warn!(%error, "the mailbox could not be shut; what comes now is not answered");
                return;
            }
            while let Some(Given { body, receipt }) = claim.next_control().await {
                self.refuse(&body, why).await;
                claim.taken(receipt);
            }
        };
        if tokio::time::timeout(REFUSING, refusing).await.is_err() {
            tracing::warn!("control messages may be left without an answer: the broker is slow");
        }
    }

    async fn refuse(&mut self, body: &[u8], why: &str) {
        match Control::parse(body) {
            Ok(Control { id, .. }) if self.seen.is_known(&id) => self.again(id).await,
            Ok(Control { id, kind, .. }) => {
                self.received(&id, &kind).await;
                self.answer(id, false, why.to_owned()).await;
            }
            Err(error) => {
                let id = Control::id_of(body).unwrap_or_default();
                self.answer(id, false, error.to_string()).await;
            }
        }
    }

    /// Applies one message; its id, and who keeps it.
    async fn apply(&mut self, body: &[u8]) -> (String, Kept) {
        match Control::parse(body) {
            Ok(Control { id, kind, .. }) => {
                let kept = self.apply_one(id.clone(), kind).await;
                (id, kept)
            }
            Err(error) => {
                let id = Control::id_of(body).unwrap_or_default();
                self.answer(id.clone(), false, error.to_string()).await;
                (id, Kept::ByUs)
            }
        }
    }

    async fn apply_one(&mut self, id: String, kind: ControlKind) -> Kept {
        if !self.seen.is_new(&id) {
            let kept = self.kept(&id);
            self.again(id).await;
            return kept;
        }
        self.received(&id, &kind).await;
        // An order is answered by the session, when it is done.
        match kind {
            ControlKind::Prompt { text, mode } => {
                self.order(id, OrderKind::Prompt { text, mode }).await;
                Kept::UntilNoted
            }
            ControlKind::AddProject {
                connection,
                path,
                base,
                new_connection,
            } => {
                let project = ProjectRequest { connection, path, base };
                let kind = OrderKind::AddProject {
                    project,
                    new_connection,
                };
                self.order(id, kind).await;
                Kept::UntilNoted
            }
            ControlKind::Credential { connection, credential } => {
                self.order(id, OrderKind::Credential { connection, credential }).await;
                Kept::UntilNoted
            }
            ControlKind::Disconnect { connection } => {
                self.order(id, OrderKind::Disconnect { connection }).await;
                Kept::UntilNoted
            }
            ControlKind::Answer(Answer::Project {
                connection,
                path,
                publish,
            }) => {
                let project = ProjectKey { connection, path };
                self.order(id, OrderKind::Answer { project, publish }).await
            }
            ControlKind::Answer(Answer::Question { question, option }) => {
                self.order(id, OrderKind::Choose { question, option }).await
            }
            ControlKind::CancelTurn => self.order(id, OrderKind::CancelTurn).await,
            ControlKind::End { publish } => {
                let (applied, said) = self.steering.end(publish);
                if applied {
                    self.endings.push(id.clone());
                }
                let kept = self.kept(&id);
                self.answer(id, applied, said.to_owned()).await;
                kept
            }
        }
    }

    fn kept(&self, id: &str) -> Kept {
        if self.endings.iter().any(|ending| ending == id) {
            Kept::ByTheBroker
        } else if self.held.iter().any(|(held, _)| held == id) {
            Kept::UntilNoted
        } else {
            Kept::ByUs
        }
    }

    async fn order(&self, id: String, kind: OrderKind) -> Kept {
        let order = Order { id: id.clone(), kind };
        if !self.steering.order(order) {
            let refused = "the session is ending, or too many orders wait already";
            self.answer(id, false, refused.to_owned()).await;
        }
        Kept::ByUs
    }

    /// A message that came before, from its sender or from a broker that was not told that it was taken.
    async fn again(&self, id: String) {
        // One that is not answered yet will be, but for what was done before.
        let answered = self.progress.answered(&id);
        if let Some(applied) = answered.or_else(|| self.inherited.contains(&id).then_some(true)) {
            self.answer(id, applied, "already handled: this copy changed nothing".to_owned())
                .await;
        }
    }

    async fn received(&self, id: &str, kind: &ControlKind) {
        self.progress
            .state(EventBody::ControlReceived {
                in_reply_to: id.to_owned(),
                kind: kind.as_str().to_owned(),
            })
            .await;
    }

    async fn answer(&self, in_reply_to: String, applied: bool, message: String) {
        self.progress
            .state(EventBody::ControlAnswered {
                in_reply_to,
                applied,
                message,
            })
            .await;
    }
}

/// The ids that came, as many as are remembered.
#[derive(Debug, Default)]
struct Seen {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    fn is_known(&self, id: &str) -> bool {
        self.known.contains(id)
    }

    /// Notes an id; says whether it came for the first time.
    fn is_new(&mut self, id: &str) -> bool {
        if !self.known.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_known_until_a_thousand_others_came() {
        let mut seen = Seen::default();
        assert!(seen.is_new("first"));
        assert!(!seen.is_new("first"));
        for other in 1..REMEMBERED {
            assert!(seen.is_new(&other.to_string()));
        }
        assert!(!seen.is_new("first"));
        assert!(seen.is_new("one more"));
        assert!(seen.is_new("first"));
        assert_eq!((seen.known.len(), seen.order.len()), (REMEMBERED, REMEMBERED));
    }
}
