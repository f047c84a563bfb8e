//! What earlier attempts at the session left on the forge, for an attempt that brings nothing new: the branch, and its change request where they
//! did not die before it was opened.
//!
//! Only looks. A change request that people merged or closed since is not opened again, and one of somebody else's branch is never taken for
//! the session's.

use super::{Published, Publishing, Work, attended, open, retry};
use crate::forge::inspect::{ChangeRequestQuery, ChangeRequestSummary, PageRequest, SourceRepository, State};
use crate::message::outcome::ChangeRequestRef;
use crate::message::{CommitId, EventBody, Publish, Reason};
use crate::session::failure::Failure;

/// What is there.
pub(super) enum Earlier {
    /// Nothing that this session could have made, or nothing that is open any more.
    Nothing,
    /// The branch with work, and no change request was ever made of it.
    Unopened(CommitId),
    /// All that the task asks for.
    Published(CommitId, Option<ChangeRequestRef>),
}

/// Looks at the forge, where the session's branch was there when this attempt began, with work.
pub(super) async fn earlier(publishing: &Publishing<'_>, work: &Work) -> Result<Earlier, Failure> {
    let found = work.began_at.as_ref().filter(|head| *head != work.staging.base());
    let Some(head) = found.filter(|_| work.admitted.cannot_push.is_none()) else {
        return Ok(Earlier::Nothing);
    };
    match publishing.words.publish {
        Publish::OnRequest => Ok(Earlier::Nothing),
        Publish::Branch => Ok(Earlier::Published(head.clone(), None)),
        // Push options act only when a push changes something, so what is missing cannot be opened.
        Publish::ChangeRequest | Publish::Draft if work.is_git_only() => {
            let number = attended(publishing, work, |connected| {
                Box::pin(async move { open::newest(publishing.rooms, work, &connected, head).await })
            })
            .await?;
            let request = number.map(|number| ChangeRequestRef {
                word: work.admitted.grant.forge.change_request_word().to_owned(),
                number,
                url: format!("{}/-/merge_requests/{number}", work.admitted.grant.web_url),
                draft: publishing.words.publish == Publish::Draft,
            });
            Ok(Earlier::Published(head.clone(), request))
        }
        Publish::ChangeRequest | Publish::Draft => {
            if let Some(open) = newest(publishing, work, State::Open).await? {
                let request = ChangeRequestRef {
                    word: work.admitted.grant.forge.change_request_word().to_owned(),
                    number: open.number,
                    url: open.url,
                    draft: open.draft,
                };
                return Ok(Earlier::Published(head.clone(), Some(request)));
            }
            let ever = newest(publishing, work, State::All).await?;
            Ok(ever.map_or_else(|| Earlier::Unopened(head.clone()), |_| Earlier::Nothing))
        }
    }
}

/// The newest change request of the session's branch.
async fn newest(
    publishing: &Publishing<'_>,
    work: &Work,
    state: State,
) -> Result<Option<ChangeRequestSummary>, Failure> {
    let grant = &work.admitted.grant;
    let query = ChangeRequestQuery {
        state,
        source_branch: Some(grant.branch.to_string()),
        target_branch: (state == State::Open).then(|| grant.base.to_string()),
        page: PageRequest { page: 1, per_page: 1 },
        ..ChangeRequestQuery::default()
    };
    let query = &query;
    attended(publishing, work, |connected| {
        Box::pin(async move {
            let facts = &work.admitted.facts;
            let found = retry(|| connected.forge.change_requests(facts, query)).await?;
            let Some(found) = found.items.into_iter().next() else {
                return Ok(None);
            };
            // A branch of this name in a fork is somebody else's.
            let details = retry(|| connected.forge.change_request_details(facts, found.number)).await?;
            Ok((details.source_repository != SourceRepository::Fork).then_some(found))
        })
    })
    .await
}

impl Publishing<'_> {
    /// Takes what is there as published, and tells it again: whether a worker that died came to that, nobody knows.
    pub(super) async fn adopt(&self, work: &Work, head: CommitId, request: Option<ChangeRequestRef>) -> Published {
        let grant = &work.admitted.grant;
        let word = grant.forge.change_request_word();
        let message = match &request {
            Some(request) => format!("the {word} {} is open; this attempt brought nothing new", request.url),
            None => format!(
                "the branch {} is on the forge; this attempt brought nothing new",
                grant.branch
            ),
        };
        let (project, branch) = (grant.key.clone(), grant.branch.clone());
        self.progress
            .state(EventBody::BranchPublished {
                project: project.clone(),
                branch: branch.clone(),
                head: head.clone(),
            })
            .await;
        if let Some(change_request) = request.clone() {
            self.progress
                .state(EventBody::ChangeRequestUpdated {
                    project,
                    change_request,
                })
                .await;
        }
        let mut outcome = work.outcome(Reason::Published, message);
        outcome.branch = Some(branch);
        outcome.head = Some(head);
        outcome.change_request = request;
        Published::ended(outcome)
    }
}
