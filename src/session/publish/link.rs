//! The second look at the change requests of a session: each is told the addresses of the others, and each is read back.
//!
//! A failure here is a warning: the change requests are open.

use std::sync::{Arc, PoisonError};

use futures::future::join_all;

use super::{Described, Published, Publishing, Work, describe, reference};
use crate::forge::ChangeRequest;
use crate::message::{EventBody, Reason, SessionId};
use crate::session::change_text::Sister;
use crate::session::failure::Failure;

/// How each open change request is named in the texts of the others.
pub(super) fn sisters(work: &[Arc<Work>], published: &[Published]) -> Vec<Option<Sister>> {
    let sister = |(work, published): (&Arc<Work>, &Published)| {
        // Those of earlier turns too.
        published.outcome.change_request.as_ref().map(|request| Sister {
            project: work.admitted.grant.key.clone(),
            word: work.admitted.grant.forge.change_request_word(),
            url: request.url.clone(),
        })
    };
    work.iter().zip(published.iter()).map(sister).collect()
}

impl Publishing<'_> {
    /// Writes the addresses of the others into each change request, and reads every change request back; the first `by_api` of them.
    pub(super) async fn link(&self, work: &[Arc<Work>], published: &mut [Published], by_api: usize) {
        // What is read back and said of others can wait for whoever takes over.
        if !self.steering.is_owned() {
            return;
        }
        let sisters = sisters(work, published);
        let looks = work
            .iter()
            .zip(published.iter())
            .enumerate()
            .take(by_api)
            .map(|(index, (work, published))| {
                let others: Vec<Sister> = sisters
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != index)
                    .filter_map(|(_, sister)| sister.clone())
                    .collect();
                async move {
                    if let Some((request, branch, sections)) = &published.open {
                        let text = Described {
                            number: request.number,
                            branch: branch.clone(),
                            sections: sections.clone(),
                            sisters: others,
                        };
                        return Some(self.write(work, text).await);
                    }
                    self.catch_up(work, others).await;
                    None
                }
            });
        let looks = join_all(looks).await;
        for ((work, published), look) in work.iter().zip(published.iter_mut()).zip(looks) {
            match look {
                Some(Ok(request)) => published.outcome.change_request = Some(reference(work, &request)),
                Some(Err(failure)) => {
                    let word = work.admitted.grant.forge.change_request_word();
                    let message = format!(
                        "the {word} of {} is open, but reading it back failed: {}",
                        work.admitted.grant.key, failure.message
                    );
                    let code = "read_back_failed".into();
                    self.progress.state(EventBody::Warning { code, message }).await;
                }
                None => {}
            }
        }
    }

    async fn write(&self, work: &Work, text: Described) -> Result<ChangeRequest, Failure> {
        let Described {
            branch,
            sections,
            sisters,
            ..
        } = &text;
        let description = (!sisters.is_empty()).then(|| describe(&self.words, sections, branch, sisters));
        let read = self.look(work, text.number, description.as_deref()).await;
        // What may not have arrived is written with the next turn.
        let sisters = read.as_ref().map_or_else(|_| Vec::new(), |_| sisters.clone());
        *work.described.lock().unwrap_or_else(PoisonError::into_inner) = Some(Described { sisters, ..text });
        read
    }

    /// A change request that this turn left alone still names each that came since, such as one of a project that was added.
    async fn catch_up(&self, work: &Work, others: Vec<Sister>) {
        let before = work.described.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(before) = before.filter(|before| before.sisters != others && work.ended.get().is_none()) else {
            return;
        };
        let text = Described {
            sisters: others,
            ..before
        };
        if let Err(failure) = self.write(work, text).await {
            tracing::info!(project = %work.admitted.grant.key, "an earlier change request was not brought up to date: {}", failure.message);
        }
    }

    async fn look(&self, work: &Work, number: u64, description: Option<&str>) -> Result<ChangeRequest, Failure> {
        let connected = work.admitted.connection.current()?;
        let read = self.retry_owned(|| {
            connected
                .forge
                .change_request(&work.admitted.facts, number, description)
        });
        check(work, self.words.session, read.await?)
    }
}

/// Whether what the forge stores is what was asked for.
fn check(work: &Work, session: SessionId, request: ChangeRequest) -> Result<ChangeRequest, Failure> {
    let grant = &work.admitted.grant;
    let as_asked = request.open
        && request.source_branch == grant.branch.as_str()
        && request.target_branch == grant.base.as_str()
        && request.description.contains(&session.to_string());
    if as_asked {
        Ok(request)
    } else {
        Err(Failure::new(
            Reason::ChangeRequestFailed,
            "the forge stores something else than was asked for",
        ))
    }
}
