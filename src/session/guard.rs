//! Watches a running sandbox from the worker's side: what the kernel killed in it for memory, and what its workspace takes of the disk.
//!
//! Believes nothing that the sandbox says. Ends nothing itself: it tells, and the session ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::failure::Failure;
use crate::message::{EventBody, Reason, SandboxId};
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::repository::Staging;
use crate::sandbox::Sandbox;
use crate::sandbox::disk::{Disk, Free, TICK, Usage};

/// Between two looks at a workspace, which costs what it holds.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// Looking may take this part of the time.
const LOOK_PART: u32 = 20;
/// Looks in a row that may be cut short: one may be a slow moment of the disk.
const MOST_CUTS: u32 = 2;
/// After that long a session that is over its limit runs nothing but what takes its work.
const QUIETING: Duration = Duration::from_secs(3);
/// A failure that follows this soon after something was killed for memory was caused by it.
const SOON: Duration = Duration::from_secs(10);

/// What may be pushed to at this moment: projects may be added while a session runs.
pub(super) type Pushed = Box<dyn Fn() -> Vec<Arc<Staging>> + Send + Sync>;

/// What is watched, and for whom.
pub(super) struct Watched {
    pub(super) id: SandboxId,
    /// A workspace on disk, and how many bytes it may take.
    pub(super) workspace: Option<(PathBuf, u64)>,
    pub(super) disk: Arc<Disk>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) progress: Arc<Progress>,
}

/// What was killed for memory so far.
#[derive(Debug, Clone, Copy, Default)]
struct Kills {
    count: u64,
    last: Option<Instant>,
}

/// How a workspace stands. A later one is worse, and it never gets better: the session is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    Enough,
    /// The session has to end.
    Over(Excess),
    /// Not even its work may be taken any more.
    Danger(Excess),
}

/// Of what there is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Excess {
    Bytes(u64),
    Files(u64),
    Depth,
    /// Nobody knows: it takes too long to count.
    Unknown,
    /// The host has no room, and this session takes most of it.
    Host,
}

/// The watch over one sandbox; it ends when this is dropped.
pub(super) struct Guard {
    kills: watch::Receiver<Kills>,
    space: watch::Sender<Space>,
    tasks: Vec<JoinHandle<()>>,
    disk: Arc<Disk>,
    id: SandboxId,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.disk.forget(self.id);
    }
}

impl Guard {
    pub(super) fn start(watched: Watched, sandbox: &dyn Sandbox) -> Self {
        let Watched {
            id,
            workspace,
            disk,
            metrics,
            progress,
        } = watched;
        let (kills_tx, kills) = watch::channel(Kills::default());
        let space = watch::Sender::new(Space::Enough);
        let mut tasks = vec![tokio::spawn(
            hear(sandbox.memory_kills(), kills_tx, metrics, progress).in_current_span(),
        )];
        if let Some((path, most_bytes)) = workspace {
            tasks.push(tokio::spawn(look(
                disk.clone(),
                id,
                path,
                sandbox.init(),
                most_bytes,
                space.clone(),
            )));
        }
        Self {
            kills,
            space,
            tasks,
            disk,
            id,
        }
    }

    /// Counts what is pushed as well, from now on: it is on the host's disk, wherever the workspace is.
    pub(super) fn watch_pushes(&mut self, projects: Pushed) {
        let looking = look_at_pushes(self.disk.clone(), self.id, projects, self.space.clone());
        self.tasks.push(tokio::spawn(looking.in_current_span()));
    }

    /// Waits until the session has to end, or until not even keeping its work may go on. Cancel-safe.
    pub(super) async fn full(&self, while_keeping: bool) -> Failure {
        let bad = |space: &Space| match space {
            Space::Enough => None,
            Space::Over(excess) => (!while_keeping).then_some(*excess),
            Space::Danger(excess) => Some(*excess),
        };
        let mut space = self.space.subscribe();
        let excess = match space.wait_for(|space| bad(space).is_some()).await {
            Ok(space) => bad(&space),
            Err(_) => None,
        };
        match excess {
            Some(excess) => Failure::new(Reason::DiskFull, excess.sentence()),
            None => std::future::pending().await,
        }
    }

    /// Waits until it is clear that something was just killed for memory; at once when it was. Cancel-safe.
    pub(super) async fn starved(&self) {
        let soon = |kills: &Kills| kills.last.is_some_and(|last| last.elapsed() < SOON);
        if self.kills.clone().wait_for(soon).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Names in a failure what was killed before it.
    pub(super) fn add_kills(&self, failure: &mut Failure) {
        let count = self.kills.borrow().count;
        if count > 0 && failure.reason != Reason::OutOfMemory {
            failure.message = format!(
                "{}; before that the kernel killed a process of the sandbox for memory",
                failure.message
            );
        }
    }
}

/// Follows the engine's count. Told once: a test suite that is killed again and again is one piece of news.
async fn hear(
    mut engine: watch::Receiver<u64>,
    kills: watch::Sender<Kills>,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
) {
    let mut seen = 0;
    while let Ok(count) = engine.wait_for(|count| *count > seen).await.map(|count| *count) {
        metrics.sandboxes.memory_kills(count - seen);
        kills.send_replace(Kills {
            count,
            last: Some(Instant::now()),
        });
        if seen == 0 {
            let message = "a process in the sandbox was killed because the sandbox used more memory than its limit; the session goes on: \
                           ask for less at a time, or let the operator raise sandbox.memory_bytes";
            progress
                .state(EventBody::Warning {
                    code: Reason::OutOfMemory.as_str().to_owned(),
                    message: message.to_owned(),
                })
                .await;
        }
        seen = count;
    }
}

/// Looks often at what is free, and counts the workspace when it is time or when the disk lost so much that the workspace may be over its limit.
async fn look(
    disk: Arc<Disk>,
    id: SandboxId,
    path: PathBuf,
    init: Option<u32>,
    most_bytes: u64,
    told: watch::Sender<Space>,
) {
    let limits = Limits {
        bytes: most_bytes,
        files: disk.most_files(),
    };
    let mut usage = Usage::default();
    let (mut due, mut free_then) = (Instant::now(), u64::MAX);
    let mut over: Option<Instant> = None;
    let mut settled = None;
    let (mut looked, mut cuts) = (Instant::now(), 0);
    let clock = disk.clock();
    let mut was_in_danger = false;
    loop {
        tokio::time::sleep(TICK).await;
        let Some(free) = clock.free() else { continue };
        let room = limits.bytes.saturating_sub(usage.bytes);
        let lost = free_then.saturating_sub(free.bytes) > room / 2;
        // In danger all look, so that nobody is chosen by what others held some time ago.
        let endangered = disk.in_danger(free, 2) && looked.elapsed() > LOOK_EVERY.0;
        if Instant::now() >= due || over.is_some() || lost || endangered {
            let began = Instant::now();
            if let Some(seen) = disk.look(id, &path, init).await {
                cuts = if seen.cut { cuts + 1 } else { 0 };
                usage = Usage {
                    cut: cuts >= MOST_CUTS,
                    ..seen
                };
            }
            looked = Instant::now();
            free_then = free.bytes;
            due = Instant::now() + (began.elapsed() * LOOK_PART).clamp(LOOK_EVERY.0, LOOK_EVERY.1);
        }
        if over.is_some_and(|since| since.elapsed() > QUIETING) {
            settled.get_or_insert(usage.bytes);
        }
        // Not at once: what was pushed is only counted now.
        let is_counted = std::mem::replace(&mut was_in_danger, disk.in_danger(free, 2));
        let host = if is_counted {
            host_wants(&disk, id, free).await
        } else {
            (false, false)
        };
        let now = judge(usage, limits, settled, host);
        if now != Space::Enough {
            over.get_or_insert_with(Instant::now);
        }
        worsen(&told, now);
    }
}

/// While the disk is in danger, asks how much was pushed, which a few directories tell. Until then it sleeps: most sessions never meet that.
async fn look_at_pushes(disk: Arc<Disk>, id: SandboxId, projects: Pushed, told: watch::Sender<Space>) {
    let clock = disk.clock();
    let mut is_counted = false;
    loop {
        clock.danger().await;
        let mut bytes = 0_u64;
        for project in projects() {
            bytes = bytes.saturating_add(project.staged_bytes().await.unwrap_or(0));
        }
        disk.count_pushed(id, bytes);
        // All count before anybody is chosen. In the next round all have, and what cannot wait is seen there before the pause.
        if let Some(free) = clock.free().filter(|_| is_counted)
            && host_wants(&disk, id, free).await.1
        {
            worsen(&told, Space::Danger(Excess::Host));
        }
        tokio::time::sleep(TICK).await;
        let Some(free) = clock.free() else { continue };
        is_counted = disk.in_danger(free, 2);
        let now = match host_wants(&disk, id, free).await {
            (_, true) => Space::Danger(Excess::Host),
            (true, false) => Space::Over(Excess::Host),
            (false, false) => Space::Enough,
        };
        worsen(&told, now);
    }
}

/// Whether this session has to make room on the host, and whether it has to at once. The clock's word is some time old: another one may have made
/// room since, so the disk itself has the last one.
async fn host_wants(disk: &Disk, id: SandboxId, free: Free) -> (bool, bool) {
    let must_go = |free| (disk.must_go(id, free, 2, true), disk.must_go(id, free, 4, false));
    if must_go(free) == (false, false) {
        return (false, false);
    }
    match disk.free().await {
        Some(free) => must_go(free),
        None => (false, false),
    }
}

fn worsen(told: &watch::Sender<Space>, now: Space) {
    told.send_if_modified(|space| {
        let worse = now > *space;
        if worse {
            *space = now;
        }
        worse
    });
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    bytes: u64,
    files: u64,
}

/// `settled` is what a workspace over its limit held when everything in its sandbox was ended: from then on only the taking of the committed
/// work writes, and needs a quarter of the limit at most.
fn judge(usage: Usage, limits: Limits, settled: Option<u64>, (host_wants, host_suffers): (bool, bool)) -> Space {
    if host_suffers {
        Space::Danger(Excess::Host)
    } else if settled.is_some_and(|settled| usage.bytes > settled.saturating_add(limits.bytes / 4)) {
        Space::Danger(Excess::Bytes(limits.bytes))
    } else if host_wants {
        Space::Over(Excess::Host)
    } else if usage.bytes > limits.bytes {
        Space::Over(Excess::Bytes(limits.bytes))
    } else if usage.files > limits.files {
        Space::Over(Excess::Files(limits.files))
    } else if usage.too_deep {
        Space::Over(Excess::Depth)
    } else if usage.cut {
        Space::Over(Excess::Unknown)
    } else {
        Space::Enough
    }
}

impl Excess {
    fn sentence(self) -> String {
        match self {
            Self::Bytes(most) => format!(
                "the workspace took more than its {most} bytes: ask for less at a time, or let the operator raise sandbox.workspace_bytes"
            ),
            Self::Files(most) => format!(
                "the workspace holds more than {most} files: ask for less at a time, or let the operator raise disk.workspace_files"
            ),
            Self::Depth => format!(
                "the workspace nests directories deeper than {} levels: have the agent make no such tree",
                crate::sandbox::disk::tree::DEEPEST
            ),
            Self::Unknown => "the workspace holds so much that it could not be counted in time, twice in a row: ask for fewer files at a time, or let \
                              the operator lower disk.workspace_files or give state_dir a faster disk"
                .to_owned(),
            Self::Host => "the worker's disk is nearly full and this session took most of it, with its workspace and what it pushed: send the task again later, \
                           and let the operator free space"
                .to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 100, files: 8 };
    const QUIET: (bool, bool) = (false, false);

    fn usage(bytes: u64, files: u64) -> Usage {
        Usage {
            bytes,
            files,
            too_deep: false,
            cut: false,
        }
    }

    #[test]
    fn each_limit_ends_a_session_by_its_own_name() {
        let of = |bytes, files| judge(usage(bytes, files), LIMITS, None, QUIET);
        assert_eq!(of(100, 8), Space::Enough);
        assert_eq!(of(101, 8), Space::Over(Excess::Bytes(100)));
        assert_eq!(of(100_000, 8), Space::Over(Excess::Bytes(100)));
        assert_eq!(of(0, 9), Space::Over(Excess::Files(8)));
        let deep = Usage {
            too_deep: true,
            ..usage(0, 0)
        };
        assert_eq!(judge(deep, LIMITS, None, QUIET), Space::Over(Excess::Depth));
        let cut = Usage {
            cut: true,
            ..usage(0, 0)
        };
        assert_eq!(judge(cut, LIMITS, None, QUIET), Space::Over(Excess::Unknown));
        assert_eq!(
            judge(usage(0, 0), LIMITS, None, (true, false)),
            Space::Over(Excess::Host)
        );
    }

    #[test]
    fn keeping_work_has_a_limit_of_its_own() {
        let of = |bytes| judge(usage(bytes, 1), LIMITS, Some(500), QUIET);
        assert_eq!(of(525), Space::Over(Excess::Bytes(100)));
        assert_eq!(of(526), Space::Danger(Excess::Bytes(100)));
        assert_eq!(
            judge(usage(0, 0), LIMITS, None, (true, true)),
            Space::Danger(Excess::Host)
        );
        assert!(
            Space::Danger(Excess::Bytes(1)) > Space::Over(Excess::Host) && Space::Over(Excess::Depth) > Space::Enough
        );
    }
}
