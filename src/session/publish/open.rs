//! Opens one project's change request: by the forge's API, or by push options where the API is closed to the token.
//!
//! Looks for what exists first, so that a repetition leaves one. Believes an address that a push printed only when the forge's references
//! show the commit there.

use std::time::Duration;

use super::{Publishing, Work};
use crate::forge::{ChangeRequest, ChangeRequestText, Opened};
use crate::message::{CommitId, Reason};
use crate::session::Rooms;
use crate::session::connections::Connected;
use crate::session::failure::Failure;
use crate::session::push_options;

/// Looks at the references of merge requests after a push; GitLab makes them a moment later.
const LOOKS: u32 = 6;

/// By the forge's API.
pub(super) async fn by_api(
    publishing: &Publishing<'_>,
    work: &Work,
    connected: &Connected,
    text: &ChangeRequestText,
    is_new: bool,
) -> Result<Opened, Failure> {
    let (grant, facts) = (&work.admitted.grant, &work.admitted.facts);
    // The first try may have had its effect: from the second one on it is looked for.
    let mut is_new = is_new;
    let open = || {
        let is_new = std::mem::take(&mut is_new);
        let branches = (&grant.branch, &grant.base);
        connected.forge.open_change_request(facts, branches, text, is_new)
    };
    publishing.retry_owned(open).await
}

/// The options that make the push open the merge request, and whether there is one already.
pub(super) async fn options(
    rooms: &Rooms,
    work: &Work,
    connected: &Connected,
    text: &ChangeRequestText,
) -> Result<(Vec<String>, bool), Failure> {
    let exists = match work.expected() {
        Some(head) => !numbers(rooms, work, connected, &head).await?.is_empty(),
        None => false,
    };
    let base = &work.admitted.grant.base;
    let options = push_options::options(exists, base, &text.title, &text.description, text.draft);
    Ok((options, exists))
}

/// The merge request that a push with options opened: the one that the forge named, if its references show it, else the newest that they show.
pub(super) async fn by_push(
    rooms: &Rooms,
    work: &Work,
    connected: &Connected,
    (head, text): (&CommitId, &ChangeRequestText),
    exists: bool,
    said: &[String],
) -> Result<Opened, Failure> {
    let grant = &work.admitted.grant;
    let named = push_options::number_in(said);
    let mut wait = Duration::from_millis(200);
    for _ in 0..LOOKS {
        if let Some(number) = find(rooms, work, connected, head, named).await? {
            let request = ChangeRequest {
                number,
                url: format!("{}/-/merge_requests/{number}", grant.web_url),
                source_branch: grant.branch.to_string(),
                target_branch: grant.base.to_string(),
                head: Some(head.clone()),
                title: text.title.clone(),
                description: text.description.clone(),
                open: true,
                draft: text.draft,
            };
            return Ok(if exists {
                Opened::Adopted(request)
            } else {
                Opened::New(request)
            });
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    // Options act only when the push changes something, and GitLab takes a push whose options it does not like.
    let words = said
        .iter()
        .filter(|line| !line.contains("===="))
        .map(String::as_str)
        .collect::<Vec<_>>();
    // The box repeats the options first; what is wrong comes at its end.
    let words = words.join(" ");
    let words: String = words.chars().skip(words.chars().count().saturating_sub(300)).collect();
    let message = format!(
        "GitLab took the push and made no merge request of its options ({}): open it at {}/-/merge_requests/new?merge_request%5Bsource_branch%5D={}, \
         or use a token with the scope api",
        if words.is_empty() {
            "it said nothing"
        } else {
            words.trim()
        },
        grant.web_url,
        grant.branch
    );
    Err(Failure::new(Reason::ChangeRequestFailed, message))
}

/// The merge request that was named, if it has that commit; else the newest that has it. A project may have very many: the whole list is the
/// last resort.
async fn find(
    rooms: &Rooms,
    work: &Work,
    connected: &Connected,
    head: &CommitId,
    named: Option<u64>,
) -> Result<Option<u64>, Failure> {
    let found = match named {
        Some(number) => {
            let pattern = format!("refs/merge-requests/{number}/head");
            numbers_at(rooms, work, connected, head, &pattern).await?
        }
        None => numbers(rooms, work, connected, head).await?,
    };
    Ok(found.first().copied())
}

/// The newest merge request whose head is that commit.
pub(super) async fn newest(
    rooms: &Rooms,
    work: &Work,
    connected: &Connected,
    head: &CommitId,
) -> Result<Option<u64>, Failure> {
    find(rooms, work, connected, head, None).await
}

/// The numbers of the merge requests whose head is that commit.
async fn numbers(rooms: &Rooms, work: &Work, connected: &Connected, head: &CommitId) -> Result<Vec<u64>, Failure> {
    numbers_at(rooms, work, connected, head, "refs/merge-requests/*/head").await
}

async fn numbers_at(
    rooms: &Rooms,
    work: &Work,
    connected: &Connected,
    head: &CommitId,
    pattern: &str,
) -> Result<Vec<u64>, Failure> {
    let refs = rooms
        .repositories
        .remote_refs(&work.admitted.grant.clone_url, &connected.access, pattern)
        .await?;
    Ok(push_options::numbers_at(&refs, head))
}
