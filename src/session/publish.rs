//! From staging to the forge: the branch, then the change request, both read back. One project's failure does not touch another's.
//!
//! Needs no agent and no sandbox. Every effect is looked up before it is made again, so a repetition leaves one branch and one change
//! request. What could not be published is kept as a bundle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::future::join_all;

use super::Rooms;
use super::admit::Admitted;
use super::change_text::{self, Branch, Parts, Sister};
use super::failure::Failure;
use super::orders::Open;
use super::steering::Steering;
use crate::agent::sections::Sections;
use crate::forge::{ChangeRequest, ChangeRequestText, Opened};
use crate::gateway::egress::Counted;
use crate::message::outcome::{ChangeRequestRef, Outcome};
use crate::message::{CommitId, EventBody, ProjectOutcome, Publish, Reason, Right, SessionId};
use crate::progress::Progress;
use crate::repository::{Inspection, RepositoryError, Staging};
use crate::tools::Wish;

mod attended;
mod link;
mod open;
mod push;
mod retry;
mod unopened;

use attended::attended;
use retry::{Pace, retry};
use unopened::Earlier;

/// How often a passing failure of the forge is tried again.
pub(super) const TRIES: u32 = 4;
/// The first wait between tries; each next one is twice as long.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(500);

/// One project whose session branch may have something to publish.
pub(super) struct Work {
    pub(super) admitted: Admitted,
    pub(super) staging: Arc<Staging>,
    /// Where the session's branch stood on the forge when the session began.
    pub(super) began_at: Option<CommitId>,
    /// Where it stands there now, as far as this session knows.
    pub(super) forge: Mutex<Option<CommitId>>,
    /// What came of the last turn that published, and the head that was published or kept then.
    pub(super) last: Mutex<Option<(Option<CommitId>, ProjectOutcome)>>,
    /// What its open change request says, as far as this attempt wrote it.
    pub(super) described: Mutex<Option<Described>>,
    /// How it ended, once it has; before the others, when its connection was dropped.
    pub(super) ended: OnceLock<ProjectOutcome>,
    /// Whether its end was told.
    pub(super) told: AtomicBool,
    /// Whether a push to the forge was begun: from then on its effect may be there, whatever became of the answer.
    pub(super) pushing: AtomicBool,
    /// Held by whoever publishes or ends it.
    pub(super) busy: tokio::sync::Mutex<()>,
}

/// What publishing needs beside the work itself, the same for all projects.
pub(super) struct Publishing<'a> {
    pub(super) rooms: &'a Rooms,
    pub(super) progress: &'a Progress,
    /// When it is stopped, the session shall not wait for anybody.
    pub(super) steering: &'a Steering,
    /// What the session knows and waits for.
    pub(super) open: &'a Open,
    pub(super) words: Words<'a>,
}

/// What the texts are made of.
pub(super) struct Words<'a> {
    pub(super) session: SessionId,
    pub(super) publish: Publish,
    pub(super) title: Option<&'a str>,
    /// Whether the branch holds more than the texts of this attempt tell of, or several turns' work.
    pub(super) is_whole: bool,
    /// What the sandbox asked for and did not reach, and how many more.
    pub(super) unreached: (Vec<Counted>, u64),
    pub(super) agent: &'a str,
    pub(super) user: &'a str,
}

/// What the agent left of one project beside its commits.
#[derive(Default)]
pub(super) struct Left {
    /// What it wants the change request to be called, and whether it is a draft.
    pub(super) wish: Option<Wish>,
    /// What it said of the whole branch.
    pub(super) sections: Sections,
    /// Why not all of it was taken into staging.
    pub(super) refused: Option<String>,
}

/// What a change request's text was made of, and which others it names.
#[derive(Clone)]
pub(super) struct Described {
    number: u64,
    branch: Branch,
    sections: Sections,
    sisters: Vec<Sister>,
}

/// What came of one project, with what a second look at its change request needs.
struct Published {
    outcome: ProjectOutcome,
    open: Option<(ChangeRequest, Branch, Sections)>,
}

impl Published {
    fn ended(outcome: ProjectOutcome) -> Self {
        Self { outcome, open: None }
    }
}

impl Publishing<'_> {
    /// Publishes every project, then links the change requests with each other.
    pub(super) async fn all(&self, work: &[Arc<Work>], left: impl Fn(&Work) -> Left) -> Vec<ProjectOutcome> {
        // A text that goes with a push cannot be changed without another push: those come last and know the others.
        let (by_git, by_api): (Vec<_>, Vec<_>) = work.iter().cloned().partition(|one| one.is_git_only());
        let published = join_all(by_api.iter().map(|one| self.one(one, left(one), &[]))).await;
        let sisters: Vec<Sister> = link::sisters(&by_api, &published).into_iter().flatten().collect();
        let pushed = join_all(by_git.iter().map(|one| self.one(one, left(one), &sisters))).await;
        let (api, ordered) = (by_api.len(), [by_api, by_git].concat());
        let mut published: Vec<Published> = published.into_iter().chain(pushed).collect();
        self.link(&ordered, &mut published, api).await;
        let mut outcomes: Vec<ProjectOutcome> = published.into_iter().map(|one| one.outcome).collect();
        let place = |outcome: &ProjectOutcome| work.iter().position(|one| one.admitted.grant.key == outcome.project);
        outcomes.sort_by_key(place);
        for (one, outcome) in work.iter().zip(&outcomes) {
            one.remember(outcome);
        }
        outcomes
    }

    async fn one(&self, work: &Work, left: Left, sisters: &[Sister]) -> Published {
        let _busy = work.busy.lock().await;
        if let Some(outcome) = work.ended.get() {
            return Published::ended(outcome.clone());
        }
        // A turn that left a project alone leaves its outcome alone.
        if let Some(outcome) = work.unchanged(left.refused.is_some()) {
            return Published::ended(outcome);
        }
        let published = self.still_open(work, left, sisters).await;
        // Under `busy`: a connection that is dropped from here on finds it published.
        work.remember(&published.outcome);
        published
    }

    async fn still_open(&self, work: &Work, left: Left, sisters: &[Sister]) -> Published {
        let words = &self.words;
        let head = match work.staging.head() {
            Ok(head) => head,
            Err(error) => return Published::ended(work.outcome(Reason::Internal, error.to_string())),
        };
        let staged = head.filter(|head| head != work.staging.base() && Some(head) != work.expected().as_ref());
        let head = match staged {
            None if left.refused.is_none() => match unopened::earlier(self, work).await {
                Ok(Earlier::Nothing) => None,
                Ok(Earlier::Unopened(head)) => Some(head),
                Ok(Earlier::Published(head, request)) => return self.adopt(work, head, request).await,
                Err(failure) => return Published::ended(work.outcome(failure.reason, failure.message)),
            },
            staged => staged,
        };
        let Some(head) = head else {
            return Published::ended(match left.refused {
                Some(said) => work.outcome(
                    Reason::PushRejected,
                    format!("the agent's commits were not accepted: {said}"),
                ),
                None => work.outcome(Reason::NothingToPublish, "the agent changed nothing here"),
            });
        };
        if words.publish == Publish::OnRequest {
            let message = "the commits are kept on the worker, as the task asked";
            return Published::ended(work.kept(Reason::Kept, message).await);
        }
        let sections = left.sections;
        let checked = match self.check_work(work, &head, &sections, left.wish.as_ref()).await {
            Ok(checked) => checked,
            Err(failure) => return Published::ended(work.kept(failure.reason, &failure.message).await),
        };
        if let Some(missing) = &work.admitted.cannot_push {
            return Published::ended(work.offered(missing).await);
        }
        let warnings = match self.review(work, checked).await {
            Ok(warnings) => warnings,
            Err(failure) => return Published::ended(work.kept(failure.reason, &failure.message).await),
        };
        let branch = Branch {
            warnings,
            ..branch_of(work, &head).await
        };
        let text = self.text(&branch, &sections, left.wish.as_ref(), sisters);
        if let Err(failure) = self.check_text(work, &text).await {
            return Published::ended(work.kept(failure.reason, &failure.message).await);
        }
        match self.publish(work, &head, &text).await {
            Ok((mut outcome, opened)) => {
                let open = opened.map(|opened| {
                    let request = opened.change_request().clone();
                    outcome.change_request = Some(reference(work, &request));
                    (request, branch, sections)
                });
                Published { outcome, open }
            }
            Err(mut failure) => {
                if failure.reason == Reason::Disconnected && work.pushing.load(Ordering::Acquire) {
                    failure.message += " while its branch was on the way: it may be on the forge already";
                }
                Published::ended(work.kept(failure.reason, &failure.message).await)
            }
        }
    }

    fn text(&self, branch: &Branch, sections: &Sections, wish: Option<&Wish>, sisters: &[Sister]) -> ChangeRequestText {
        let wanted = wish
            .map(|wish| wish.title.as_str())
            .filter(|title| !title.trim().is_empty())
            .or(self.words.title);
        ChangeRequestText {
            title: change_text::title(wanted.unwrap_or_default(), branch),
            description: describe(&self.words, sections, branch, sisters),
            draft: self.words.publish == Publish::Draft || wish.is_some_and(|wish| wish.draft),
        }
    }

    /// The branch, then the change request. An error says that the branch is not there.
    async fn publish(
        &self,
        work: &Work,
        head: &CommitId,
        text: &ChangeRequestText,
    ) -> Result<(ProjectOutcome, Option<Opened>), Failure> {
        let grant = &work.admitted.grant;
        let asks = self.words.publish != Publish::Branch;
        let by_push = asks && work.is_git_only();
        // Nobody opens anything for a branch that is not there.
        let is_new = work.expected().is_none();
        let (exists, said) = attended(self, work, |connected| {
            Box::pin(async move {
                let (options, exists) = if by_push {
                    open::options(self.rooms, work, &connected, text).await?
                } else {
                    (Vec::new(), false)
                };
                work.pushing.store(true, Ordering::Release);
                let said = push::push(self, work, &connected, head, &options).await?;
                // A change request that the API opens says where its branch stands, in the same answer.
                if by_push || !asks {
                    push::read_back(self.rooms, work, &connected, head).await?;
                }
                Ok((exists, said))
            })
        })
        .await?;
        let said = &said;
        *work.forge.lock().unwrap_or_else(PoisonError::into_inner) = Some(head.clone());
        self.progress
            .state(EventBody::BranchPublished {
                project: grant.key.clone(),
                branch: grant.branch.clone(),
                head: head.clone(),
            })
            .await;
        let mut done = work.outcome(
            Reason::Published,
            format!("the branch {} is on the forge", grant.branch),
        );
        done.branch = Some(grant.branch.clone());
        done.head = Some(head.clone());
        if !asks {
            return Ok((done, None));
        }
        // Whether the forge was seen to have the branch as it was pushed.
        let is_seen = &AtomicBool::new(by_push);
        let opened = attended(self, work, |connected| {
            Box::pin(async move {
                if by_push {
                    let opened = open::by_push(self.rooms, work, &connected, (head, text), exists, said).await?;
                    return Ok((opened, None));
                }
                let opened = open::by_api(self, work, &connected, text, is_new).await;
                let shown = opened
                    .as_ref()
                    .ok()
                    .and_then(|opened| opened.change_request().head.as_ref());
                let unseen = if shown == Some(head) {
                    None
                } else {
                    push::read_back(self.rooms, work, &connected, head).await.err()
                };
                is_seen.store(unseen.is_none(), Ordering::Release);
                match (opened, unseen) {
                    (Ok(opened), unseen) => Ok((opened, unseen)),
                    // That the branch is not there goes before what came of that.
                    (Err(_), Some(unseen)) => Err(unseen),
                    (Err(failure), None) => Err(failure),
                }
            })
        })
        .await;
        let opens = match &opened {
            Ok((Opened::New(_), _)) => true,
            Ok((Opened::Adopted(_), _)) => false,
            Err(_) => is_new,
        };
        let sessions = &self.rooms.metrics.sessions;
        sessions.change_request(grant.forge.as_str(), opens, opened.is_ok());
        let word = grant.forge.change_request_word();
        let (opened, unseen) = match opened {
            Ok(opened) => opened,
            Err(failure) if !is_seen.load(Ordering::Acquire) => return Err(failure),
            Err(failure) => {
                done.reason = Reason::ChangeRequestFailed;
                done.message = format!(
                    "the branch is on the forge, but the {word} could not be opened: {}",
                    failure.message
                );
                return Ok((done, None));
            }
        };
        let request = opened.change_request();
        let (project, change_request) = (grant.key.clone(), reference(work, request));
        done.message = format!("the {word} {} is open", request.url);
        self.progress
            .state(match &opened {
                Opened::New(_) => EventBody::ChangeRequestOpened {
                    project,
                    change_request,
                },
                Opened::Adopted(_) => EventBody::ChangeRequestUpdated {
                    project,
                    change_request,
                },
            })
            .await;
        match unseen {
            None => Ok((done, Some(opened))),
            Some(mut failure) => {
                failure.message = format!("{}; {}: look at what it shows", failure.message, done.message);
                Err(failure)
            }
        }
    }
}

impl Work {
    pub(super) fn is_git_only(&self) -> bool {
        self.admitted.grant.capabilities.open_change_requests == Right::PushOptions
    }

    /// Where the branch stands on the forge, as far as this session knows.
    pub(super) fn expected(&self) -> Option<CommitId> {
        self.forge.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, outcome: &ProjectOutcome) {
        let head = self.staging.head().ok().flatten();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // What was pushed while the last was published is not part of it.
        let head = outcome.head.clone().or(head);
        *last = Some((head, outcome.clone()));
    }

    /// What came of the last turn, where nothing was staged since and another try would come to the same.
    fn unchanged(&self, refused: bool) -> Option<ProjectOutcome> {
        let head = self.staging.head().ok()?;
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, outcome) = last.as_ref()?;
        let settled = outcome.reason.result() != Outcome::Error;
        (*before == head && settled && (!refused || outcome.reason == Reason::Published)).then(|| outcome.clone())
    }

    /// What an earlier turn published, whatever was staged since.
    pub(super) fn published(&self) -> Option<ProjectOutcome> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let published = last.as_ref().filter(|(_, outcome)| outcome.reason == Reason::Published);
        published.map(|(_, outcome)| outcome.clone())
    }

    /// How it ends with a failure of the session: what earlier turns published stays published, everything else is kept.
    pub(super) async fn closed(&self, failure: &Failure) -> ProjectOutcome {
        let published = self
            .unchanged(false)
            .filter(|outcome| outcome.reason == Reason::Published);
        match published {
            Some(outcome) => outcome,
            None => self.kept(failure.reason, &failure.message).await,
        }
    }

    /// Whether its end is still to be told; true once.
    pub(super) fn is_untold(&self) -> bool {
        !self.told.swap(true, Ordering::AcqRel)
    }

    pub(super) fn outcome(&self, reason: Reason, message: impl Into<String>) -> ProjectOutcome {
        ProjectOutcome {
            project: self.admitted.grant.key.clone(),
            reason,
            message: message.into(),
            branch: None,
            head: None,
            change_request: None,
            kept: None,
            patch: None,
        }
    }

    /// Keeps the commits as a bundle and says so.
    pub(super) async fn kept(&self, reason: Reason, message: &str) -> ProjectOutcome {
        let branch = &self.admitted.grant.branch;
        let mut outcome = self.outcome(reason, message);
        outcome.branch = Some(branch.clone());
        outcome.head = self.staging.head().ok().flatten();
        match self.staging.keep().await {
            Ok((path, _)) => {
                let name = path
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default();
                outcome.message =
                    format!("{message}; the commits are kept as {name} (fetch them with `git fetch <file> {branch}`)");
                outcome.kept = Some(name);
            }
            Err(RepositoryError::NothingToKeep) => {}
            Err(error) => outcome.message = format!("{message}; the commits could not be kept: {error}"),
        }
        outcome
    }

    /// Keeps commits that the token may not push, and offers them as a patch.
    async fn offered(&self, missing: &str) -> ProjectOutcome {
        let mut outcome = self.kept(Reason::ScopeMissing, missing).await;
        match self.staging.patch().await {
            Ok(patch) => outcome.patch = patch,
            Err(error) => tracing::warn!(project = %self.admitted.grant.key, %error, "no patch was made"),
        }
        outcome
    }
}

/// Gives the mirrors what was published, so that the next session need not fetch it. Nobody depends on it.
pub(super) async fn give_back(work: &[Arc<Work>], prepares: bool) {
    join_all(work.iter().map(|work| async move {
        if let Err(error) = work.staging.give_back(prepares).await {
            tracing::debug!(project = %work.admitted.grant.key, %error, "what was published is not in the mirror yet");
        }
    }))
    .await;
}

fn describe(words: &Words<'_>, sections: &Sections, branch: &Branch, sisters: &[Sister]) -> String {
    change_text::description(&Parts {
        session: words.session,
        sections,
        branch,
        agent: words.agent,
        user: words.user,
        sisters,
        unreached: &words.unreached,
        is_whole: words.is_whole,
    })
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
        warnings: Vec::new(),
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
