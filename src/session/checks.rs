//! What stands between finished work and a forge: the search for credentials, and what a reviewer is told of or asked about.
//!
//! Fails closed: what could not be searched is kept, not published. No sentence of this file holds a value that was found.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use super::Rooms;
use super::failure::Failure;
use super::publish::{Publishing, Work};
use crate::agent::sections::Sections;
use crate::forge::ChangeRequestText;
use crate::message::{Attention, CommitId, EventBody, Otherwise, Reason};
use crate::metrics::Awaits;
use crate::repository::scan::{Finding, Mode, Rules, Wanted};
use crate::secret::{Secret, Traces};
use crate::tools::Wish;

mod answers;
mod automation;
mod sentences;

pub(super) use answers::Answers;
pub use automation::runs_on_its_own;
use sentences::Checked;

/// How long a session that is ending anyway waits for an answer at most.
const ENDING: Duration = Duration::from_secs(30);

/// What follows when the work changes what runs on its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CiFiles {
    /// A warning event, and a section in the change request.
    #[default]
    Flag,
    /// The project waits for the control message `answer`; without one its work is kept.
    Hold,
    /// The work is kept and not published.
    Refuse,
}

/// The credentials that a session knows; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Arc<Mutex<Traces>>);

impl Known {
    /// One more that must not leave.
    pub(super) fn add(&self, secret: &Secret) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(secret);
    }

    /// What is looked for at this moment.
    pub(super) fn wanted(&self, rules: Option<Arc<Rules>>) -> Wanted {
        Wanted {
            rules,
            own: self.0.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// The rules that apply; the session's own credentials are looked for either way.
pub(super) fn rules(rooms: &Rooms) -> Option<Arc<Rules>> {
    match rooms.config.secret_scan.mode {
        Mode::Block | Mode::Warn => Some(rooms.secret_rules.clone()),
        Mode::Off => None,
    }
}

impl Publishing<'_> {
    /// Searches what the commits bring, and what the agent wants said of them.
    pub(super) async fn check_work(
        &self,
        work: &Work,
        head: &CommitId,
        sections: &Sections,
        wish: Option<&Wish>,
    ) -> Result<Checked, Failure> {
        let (config, connection) = (&self.rooms.config.secret_scan, &work.admitted.connection);
        let wanted = self.open.known.wanted(rules(self.rooms));
        let searched = tokio::select! {
            biased;
            () = connection.closed() => return Err(connection.dropped()),
            searched = work.staging.search(head, &wanted, config) => searched,
        };
        let seen = searched.map_err(|error| sentences::not_searched(error.into()))?;
        let mut findings: Vec<Finding> = seen.findings.iter().cloned().collect();
        let title = wish.map(|wish| wish.title.as_str()).or(self.words.title);
        for (place, text) in [
            ("the title of the change request", title.unwrap_or_default()),
            ("the agent's section Changes", &sections.changes),
            ("the agent's section Approach", &sections.approach),
            ("the agent's section Trade-offs", &sections.trade_offs),
            ("the agent's section on its checks", &sections.checked),
        ] {
            findings.extend(wanted.in_text(place, text));
        }
        let suspected = self.judge(work, findings).await?;
        Ok(Checked {
            automation: automation::among(&seen.changed),
            hidden: seen.hidden.into_iter().collect(),
            more_hidden: seen.more_hidden,
            suspected,
        })
    }

    /// Searches the text that is about to be shown, as a whole.
    pub(super) async fn check_text(&self, work: &Work, text: &ChangeRequestText) -> Result<(), Failure> {
        let wanted = self.open.known.wanted(rules(self.rooms));
        let mut findings = wanted.in_text("the title of the change request", &text.title);
        findings.extend(wanted.in_text("the text of the change request", &text.description));
        self.judge(work, findings).await.map(|_| ())
    }

    /// A refusal where something must not leave; what is only suspected, where the operator wants a warning.
    async fn judge(&self, work: &Work, findings: Vec<Finding>) -> Result<Vec<Finding>, Failure> {
        let warns = self.rooms.config.secret_scan.mode == Mode::Warn;
        if findings.is_empty() {
            return Ok(findings);
        }
        let key = &work.admitted.grant.key;
        if !warns || findings.iter().any(|found| found.rule.is_none()) {
            tracing::warn!(project = %key, places = findings.len(), "work that holds a credential is not published");
            return Err(Failure::new(Reason::SecretFound, sentences::stopped(&findings)));
        }
        let (code, message) = (
            "secret_suspected".to_owned(),
            sentences::suspected(&key.to_string(), &findings),
        );
        self.progress.state(EventBody::Warning { code, message }).await;
        Ok(findings)
    }

    /// Tells of what a reviewer should look at, or asks, as the operator chose. What the change request says of it.
    pub(super) async fn review(&self, work: &Work, checked: Checked) -> Result<Vec<String>, Failure> {
        let key = work.admitted.grant.key.to_string();
        if !checked.automation.is_empty() {
            let sentence = sentences::automation(&key, &checked.automation);
            match self.rooms.config.ci_files {
                CiFiles::Flag => {
                    let (code, message) = (Reason::ReviewNeeded.as_str().to_owned(), sentence);
                    self.progress.state(EventBody::Warning { code, message }).await;
                }
                CiFiles::Hold => self.hold(work, &sentence).await?,
                CiFiles::Refuse => {
                    let message =
                        format!("{sentence}, which the operator does not let a session publish (session.ci_files)");
                    return Err(Failure::new(Reason::ReviewNeeded, message));
                }
            }
        }
        if let Some(message) = sentences::hidden(&key, &checked) {
            let code = "hidden_characters".to_owned();
            self.progress.state(EventBody::Warning { code, message }).await;
        }
        Ok(sentences::for_reviewers(&checked))
    }

    /// Waits until somebody releases the work of a project.
    async fn hold(&self, work: &Work, sentence: &str) -> Result<(), Failure> {
        let (grant, connection) = (&work.admitted.grant, &work.admitted.connection);
        let mut wait = Duration::from_secs(self.rooms.config.answer_wait_s);
        if self.steering.token().is_cancelled() {
            wait = wait.min(ENDING);
        }
        let question = self.open.answers.ask(&grant.key);
        let body = EventBody::NeedsAttention {
            project: Some(grant.key.clone()),
            reason: Attention::ReviewNeeded,
            message: format!(
                "{sentence}: send the control message `answer` for this project with `publish` true or false; without one its work is kept and not published"
            ),
            wait_s: wait.as_secs(),
            default: Otherwise::Kept,
            question: None,
        };
        let _waits = self.steering.waits(Awaits::Answer);
        self.progress.state(body).await;
        let stopped = async {
            if self.steering.token().is_cancelled() {
                std::future::pending::<()>().await;
            }
            self.steering.token().cancelled().await;
        };
        let refused = |why: &str| Err(Failure::new(Reason::ReviewNeeded, format!("{sentence}, and {why}")));
        tokio::select! {
            biased;
            () = connection.closed() => Err(connection.dropped()),
            answer = question.answered() => match answer {
                true => Ok(()),
                false => refused("the answer was not to publish it"),
            },
            () = stopped => refused("the session ended before anybody answered"),
            () = tokio::time::sleep(wait) => refused(&format!("nobody answered within {} s", wait.as_secs())),
        }
    }
}
