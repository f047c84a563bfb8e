//! Whether an earlier attempt at the session pushed its branch and died before it opened the change request.
//!
//! Only looks. One that people merged or closed since is not opened again.

use super::{Publishing, Work, attended, retry};
use crate::forge::inspect::{ChangeRequestQuery, PageRequest, State};
use crate::message::{CommitId, Publish};
use crate::session::failure::Failure;

/// The branch's head, where it stands on the forge as this session found it, with work, and no change request was ever made of it.
pub(super) async fn unopened(publishing: &Publishing<'_>, work: &Work) -> Result<Option<CommitId>, Failure> {
    let asked = match publishing.words.publish {
        Publish::ChangeRequest | Publish::Draft => true,
        Publish::Branch | Publish::OnRequest => false,
    };
    let found = work.began_at.as_ref().filter(|head| *head != work.staging.base());
    // Push options act only when a push changes something.
    let (Some(head), true) = (
        found,
        asked && !work.is_git_only() && work.admitted.cannot_push.is_none(),
    ) else {
        return Ok(None);
    };
    let query = ChangeRequestQuery {
        state: State::All,
        source_branch: Some(work.admitted.grant.branch.to_string()),
        page: PageRequest { page: 1, per_page: 1 },
        ..ChangeRequestQuery::default()
    };
    let query = &query;
    let there = attended(publishing, work, |connected| {
        Box::pin(async move { Ok(retry(|| connected.forge.change_requests(&work.admitted.facts, query)).await?) })
    })
    .await?;
    Ok(there.items.is_empty().then(|| head.clone()))
}
