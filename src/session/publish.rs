//! From staging to the forge: the branch, then the change request, both read back. One project's failure does not touch another's.
//!
//! Needs no agent and no sandbox. Every effect is looked up before it is made again, so a repetition leaves one branch and one change
//! request. What could not be published is kept as a bundle.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::Rooms;
use super::admit::Admitted;
use super::change_text::{self, Branch, Parts, Sister};
use super::failure::Failure;
use crate::agent::sections::Sections;
use crate::forge::refusal;
use crate::forge::{ChangeRequest, ChangeRequestText, ForgeError, Opened};
use crate::message::outcome::ChangeRequestRef;
use crate::message::{CommitId, EventBody, ProjectOutcome, Publish, Reason, SessionId};
use crate::progress::Progress;
use crate::repository::{Inspection, PublishRequest, RepositoryError, Staging};
use crate::tools::Wish;

/// How often a passing failure of the forge is tried again.
const TRIES: u32 = 4;
/// The first wait between tries; each next one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// One project whose session branch may have something to publish.
pub(super) struct Work {
    pub(super) admitted: Admitted,
    pub(super) staging: Arc<Staging>,
    /// Where the session's branch stood on the forge when the session began.
    pub(super) expected: Option<CommitId>,
}

/// What the texts are made of, the same for all projects.
pub(super) struct Words<'a> {
    pub(super) session: SessionId,
    pub(super) publish: Publish,
    pub(super) title: Option<&'a str>,
    pub(super) sections: Sections,
    pub(super) agent: &'a str,
    pub(super) user: &'a str,
}

/// What came of one project, with what a second look at its change request needs.
struct Published {
    outcome: ProjectOutcome,
    open: Option<(ChangeRequest, Branch, Sections)>,
}

/// Publishes every project, then links the change requests with each other.
pub(super) async fn publish_all(
    rooms: &Rooms,
    words: &Words<'_>,
    work: &[Work],
    wish: impl Fn(&Work) -> Option<Wish>,
    refused: impl Fn(&Work) -> Option<String>,
    progress: &Progress,
) -> Vec<ProjectOutcome> {
    let mut published: Vec<Published> = join_all(work.iter().map(|one| {
        let (wish, refused) = (wish(one), refused(one));
        async move { publish_one(rooms, words, one, wish, refused, progress).await }
    }))
    .await;
    link(words, work, &mut published, progress).await;
    let outcomes: Vec<ProjectOutcome> = published.into_iter().map(|one| one.outcome).collect();
    for outcome in &outcomes {
        progress
            .state(EventBody::ProjectFinished {
                outcome: outcome.clone(),
            })
            .await;
    }
    outcomes
}

async fn publish_one(
    rooms: &Rooms,
    words: &Words<'_>,
    work: &Work,
    wish: Option<Wish>,
    refused: Option<String>,
    progress: &Progress,
) -> Published {
    let outcome = |reason: Reason, message: String| ProjectOutcome {
        project: work.admitted.grant.key.clone(),
        reason,
        message,
        branch: None,
        head: None,
        change_request: None,
        kept: None,
    };
    let ended = |outcome: ProjectOutcome| Published { outcome, open: None };
    let head = match work.staging.head() {
        Ok(head) => head,
        Err(error) => return ended(outcome(Reason::Internal, error.to_string())),
    };
    let Some(head) = head.filter(|head| head != work.staging.base() && Some(head) != work.expected.as_ref()) else {
        return ended(match refused {
            Some(said) => outcome(
                Reason::PushRejected,
                format!("the agent's commits were not accepted: {said}"),
            ),
            None => outcome(Reason::NothingToPublish, "the agent changed nothing here".to_owned()),
        });
    };
    if words.publish == Publish::OnRequest {
        return ended(
            kept(
                work,
                Reason::Kept,
                "the commits are kept on the worker, as the task asked",
            )
            .await,
        );
    }
    if let Err(failure) = push(work, &head).await {
        return ended(kept(work, failure.reason, &failure.message).await);
    }
    progress
        .state(EventBody::BranchPublished {
            project: work.admitted.grant.key.clone(),
            branch: work.admitted.grant.branch.clone(),
            head: head.clone(),
        })
        .await;
    let mut done = outcome(Reason::Published, String::new());
    done.branch = Some(work.admitted.grant.branch.clone());
    done.head = Some(head.clone());
    if words.publish == Publish::Branch {
        done.message = format!("the branch {} is on the forge", work.admitted.grant.branch);
        return ended(done);
    }
    let branch = branch_of(work, &head).await;
    let sections = sections(words, wish.as_ref());
    let wanted = wish
        .as_ref()
        .map(|wish| wish.title.as_str())
        .filter(|title| !title.trim().is_empty())
        .or(words.title);
    let text = ChangeRequestText {
        title: change_text::title(wanted.unwrap_or_default(), &branch),
        description: describe(words, &sections, &branch, &[]),
        draft: words.publish == Publish::Draft || wish.as_ref().is_some_and(|wish| wish.draft),
    };
    let word = work.admitted.grant.forge.change_request_word();
    let opened = retry(|| open(work, &text)).await;
    rooms.metrics.change_request(
        work.admitted.grant.forge.as_str(),
        match &opened {
            Ok(Opened::New(_)) => "opened",
            Ok(Opened::Adopted(_)) => "updated",
            Err(_) => "failed",
        },
    );
    match opened {
        Ok(opened) => {
            let request = opened.change_request().clone();
            let shown = reference(work, &request);
            let project = work.admitted.grant.key.clone();
            progress
                .state(match opened {
                    Opened::New(_) => EventBody::ChangeRequestOpened {
                        project,
                        change_request: shown.clone(),
                    },
                    Opened::Adopted(_) => EventBody::ChangeRequestUpdated {
                        project,
                        change_request: shown.clone(),
                    },
                })
                .await;
            done.message = format!("the {word} {} is open", request.url);
            done.change_request = Some(shown);
            Published {
                outcome: done,
                open: Some((request, branch, sections)),
            }
        }
        Err(error) => {
            done.reason = Reason::ChangeRequestFailed;
            done.message = format!("the branch is on the forge, but the {word} could not be opened: {error}");
            ended(done)
        }
    }
}

/// Pushes and reads the branch back. A push whose answer was lost is looked up before it is tried again.
async fn push(work: &Work, head: &CommitId) -> Result<(), Failure> {
    let grant = &work.admitted.grant;
    let mut wait = FIRST_WAIT;
    for attempt in 1..=TRIES {
        let request = PublishRequest {
            head,
            expected: work.expected.as_ref(),
            options: &[],
        };
        match work
            .staging
            .publish(grant, &work.admitted.connected.access, &request)
            .await
        {
            Ok(_) => break,
            Err(error) if error.is_transient() && attempt < TRIES => {
                tracing::warn!(project = %grant.key, attempt, %error, "a push to the forge failed and is tried again");
                tokio::time::sleep(wait).await;
                wait *= 2;
                if matches!(work.admitted.connected.forge.branch_head(&work.admitted.facts, &grant.branch).await, Ok(Some(found)) if found == *head)
                {
                    break;
                }
            }
            Err(error) => return Err(push_failure(error)),
        }
    }
    // Success means that the forge's head is the expected commit. Its API may lag behind its git for a moment.
    let mut wait = Duration::from_millis(100);
    let mut found = None;
    for _ in 0..6 {
        found = retry(|| {
            work.admitted
                .connected
                .forge
                .branch_head(&work.admitted.facts, &grant.branch)
        })
        .await?;
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
            grant.branch,
            head.short()
        ),
    ))
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

async fn open(work: &Work, text: &ChangeRequestText) -> Result<Opened, ForgeError> {
    let Admitted {
        grant,
        facts,
        connected,
    } = &work.admitted;
    connected
        .forge
        .open_change_request(facts, &grant.branch, &grant.base, text)
        .await
}

/// Writes the addresses of the others into each change request, and reads every change request back.
async fn link(words: &Words<'_>, work: &[Work], published: &mut [Published], progress: &Progress) {
    let sisters: Vec<Option<Sister>> = work
        .iter()
        .zip(published.iter())
        .map(|(work, published)| {
            published.open.as_ref().map(|(request, _, _)| Sister {
                project: work.admitted.grant.key.clone(),
                word: work.admitted.grant.forge.change_request_word(),
                url: request.url.clone(),
            })
        })
        .collect();
    let looks = work
        .iter()
        .zip(published.iter())
        .enumerate()
        .map(|(index, (work, published))| {
            let others: Vec<Sister> = sisters
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index)
                .filter_map(|(_, sister)| sister.clone())
                .collect();
            async move {
                let (request, branch, sections) = published.open.as_ref()?;
                let description = (!others.is_empty()).then(|| describe(words, sections, branch, &others));
                let number = request.number;
                let forge = &work.admitted.connected.forge;
                let read = retry(|| forge.change_request(&work.admitted.facts, number, description.as_deref())).await;
                Some(
                    read.map_err(Failure::from)
                        .and_then(|read| check(work, words.session, read)),
                )
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
                progress
                    .state(EventBody::Warning {
                        code: "read_back_failed".into(),
                        message,
                    })
                    .await;
            }
            None => {}
        }
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

/// Keeps the commits as a bundle and says so.
pub(super) async fn kept(work: &Work, reason: Reason, message: &str) -> ProjectOutcome {
    let mut outcome = ProjectOutcome {
        project: work.admitted.grant.key.clone(),
        reason,
        message: message.to_owned(),
        branch: Some(work.admitted.grant.branch.clone()),
        head: work.staging.head().ok().flatten(),
        change_request: None,
        kept: None,
    };
    match work.staging.keep().await {
        Ok((path, _)) => {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            outcome.message = format!(
                "{message}; the commits are kept as {name} (fetch them with `git fetch <file> {}`)",
                work.admitted.grant.branch
            );
            outcome.kept = Some(name);
        }
        Err(RepositoryError::NothingToKeep) => {}
        Err(error) => outcome.message = format!("{message}; the commits could not be kept: {error}"),
    }
    outcome
}

fn describe(words: &Words<'_>, sections: &Sections, branch: &Branch, sisters: &[Sister]) -> String {
    change_text::description(&Parts {
        session: words.session,
        sections,
        branch,
        agent: words.agent,
        user: words.user,
        sisters,
    })
}

/// The wish's sections where the agent made one, else those of its last answer.
fn sections(words: &Words<'_>, wish: Option<&Wish>) -> Sections {
    match wish {
        Some(wish) => Sections {
            changes: wish.changes.clone(),
            approach: wish.approach.clone(),
            trade_offs: wish.trade_offs.clone(),
            checked: if wish.checked.trim().is_empty() {
                words.sections.checked.clone()
            } else {
                wish.checked.clone()
            },
        },
        None => words.sections.clone(),
    }
}

/// The branch as git sees it; a branch that cannot be read makes a poorer text, not a failure.
async fn branch_of(work: &Work, head: &CommitId) -> Branch {
    match work.staging.inspect(head).await {
        Ok(inspection) => from_inspection(inspection),
        Err(error) => {
            tracing::warn!(project = %work.admitted.grant.key, %error, "the session's branch could not be read for its text");
            Branch {
                truncated: true,
                ..Branch::default()
            }
        }
    }
}

fn from_inspection(inspection: Inspection) -> Branch {
    let trailer = |line: &&str| {
        !["Co-authored-by:", "Cofferdam-Session:"]
            .iter()
            .any(|key| line.starts_with(key))
    };
    let commits = inspection
        .commits
        .into_iter()
        .rev()
        .map(|commit| {
            let body = commit.body.lines().filter(trailer).collect::<Vec<_>>().join("\n");
            (commit.subject, body.trim().to_owned())
        })
        .collect();
    let files = inspection
        .files
        .into_iter()
        .map(|file| (file.path, u64::from(file.added), u64::from(file.deleted)))
        .collect();
    Branch {
        commits,
        files,
        truncated: inspection.truncated,
    }
}

fn reference(work: &Work, request: &ChangeRequest) -> ChangeRequestRef {
    ChangeRequestRef {
        word: work.admitted.grant.forge.change_request_word().to_owned(),
        number: request.number,
        url: request.url.clone(),
        draft: request.draft,
    }
}

/// Tries again what failed in passing. Only for calls that may be repeated.
async fn retry<T, Call: Future<Output = Result<T, ForgeError>>>(
    mut call: impl FnMut() -> Call,
) -> Result<T, ForgeError> {
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        match call().await {
            Err(ForgeError::RateLimited { wait: asked, .. }) => {
                tokio::time::sleep(asked.min(Duration::from_secs(60))).await
            }
            Err(error) if error.is_transient() => {
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            other => return other,
        }
    }
    call().await
}
