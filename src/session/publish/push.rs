//! The push of one project's branch, and the look whether the forge has it.
//!
//! A push whose answer was lost is looked up before it is tried again, and tried only while the session is certainly this worker's.

use std::sync::Arc;
use std::time::Duration;

use super::{FIRST_WAIT, Publishing, TRIES, Work, retry};
use crate::forge::refusal;
use crate::message::{CommitId, Reason};
use crate::repository::{PublishRequest, RepositoryError};
use crate::session::Rooms;
use crate::session::connections::Connected;
use crate::session::failure::Failure;

/// Pushes, until the forge's git says that it has it. Its own words about the push, where its answer arrived.
pub(super) async fn push(
    publishing: &Publishing<'_>,
    work: &Work,
    connected: &Connected,
    head: &CommitId,
    options: &[String],
) -> Result<Vec<String>, Failure> {
    let (rooms, grant) = (publishing.rooms, &work.admitted.grant);
    let mut wait = FIRST_WAIT;
    let mut said = Vec::new();
    let expected = work.expected();
    for attempt in 1..=TRIES {
        let request = PublishRequest {
            head,
            expected: expected.as_ref(),
            options,
        };
        // A try may have taken long, and another worker may have the session since.
        publishing.owned().await?;
        match work.staging.publish(grant, &connected.access, &request).await {
            Ok(published) => {
                said = published.remote;
                break;
            }
            Err(error) if error.is_transient() && attempt < TRIES => {
                tracing::warn!(project = %grant.key, attempt, %error, "a push to the forge failed and is tried again");
                tokio::time::sleep(wait).await;
                wait *= 2;
                if matches!(head_on_forge(rooms, work, connected).await, Ok(Some(found)) if found == *head) {
                    break;
                }
            }
            // git's HTTP library repeats a request whose connection broke: the branch may have been moved by the first of the two.
            Err(error @ RepositoryError::PushStale { .. }) => {
                if head_on_forge(rooms, work, connected).await?.as_ref() != Some(head) {
                    return Err(push_failure(error));
                }
                break;
            }
            Err(error) => return Err(push_failure(error)),
        }
    }
    Ok(said)
}

/// Reads the branch back: success means that the forge's head is the expected commit. Its API may lag behind its git for a moment.
pub(super) async fn read_back(
    rooms: &Rooms,
    work: &Work,
    connected: &Connected,
    head: &CommitId,
) -> Result<(), Failure> {
    let mut wait = Duration::from_millis(100);
    let mut found = None;
    for _ in 0..6 {
        found = head_on_forge(rooms, work, connected).await?;
        if found.as_ref() == Some(head) {
            return Ok(());
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    let seen = found.map_or_else(|| "nothing".to_owned(), |found| found.short().to_owned());
    Err(Failure::new(
        Reason::BranchMoved,
        format!(
            "the forge shows {seen} at {} where {} was pushed: somebody else moved it",
            work.admitted.grant.branch,
            head.short()
        ),
    ))
}

/// Where the session's branch stands on the forge: by its API, or by git where the API is closed to the token.
async fn head_on_forge(rooms: &Rooms, work: &Work, connected: &Connected) -> Result<Option<CommitId>, Failure> {
    let grant = &work.admitted.grant;
    if work.admitted.by_git {
        let name = format!("refs/heads/{}", grant.branch);
        let refs = rooms
            .repositories
            .remote_refs(&grant.clone_url, &connected.access, &name)
            .await?;
        return Ok(refs
            .into_iter()
            .find(|shown| shown.name == name)
            .map(|shown| shown.target));
    }
    let forge = Arc::clone(&connected.forge);
    Ok(retry(|| forge.branch_head(&work.admitted.facts, &grant.branch)).await?)
}

/// The forge's refusal of a push in words that say what to do.
fn push_failure(error: RepositoryError) -> Failure {
    if let RepositoryError::PushRejected { text, remote } = error {
        let said = remote
            .iter()
            .map(|line| format!("remote: {line}\n"))
            .collect::<String>()
            + &text;
        return Failure::new(Reason::PushRejected, refusal::classify(&said).sentence());
    }
    error.into()
}
