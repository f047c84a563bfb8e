//! Ending everything. As PID 1 that is every process of the container; otherwise (in tests, or where a pod shares its
//! process namespace) only what descends from here. It never signals anything else.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, getpid};
use tokio::sync::oneshot;

use super::orders::{Ending, Outgoing, Sandbox};
use super::processes::Processes;

/// Between two rounds of SIGKILL, for those that fork faster than they are killed.
const KILL_PAUSE: Duration = Duration::from_millis(50);
/// After this many the rest is left to the end of the container.
const KILL_ROUNDS: usize = 100;
/// The same where the sandbox goes on afterwards.
const QUIET_ROUNDS: usize = 20;
/// For the last output and reports to reach the worker.
const FLUSH: Duration = Duration::from_secs(1);

/// Waits until it is told to, ends everything, and lets the last words out.
pub(super) async fn end_when_told(sandbox: &Sandbox) -> Ending {
    let mut told = sandbox.ending();
    let mut childless = sandbox.processes().childless();
    let ending = loop {
        if let Some((ending, _)) = *told.borrow_and_update() {
            break ending;
        }
        if told.changed().await.is_err() {
            break Ending::Ordered;
        }
    };
    sandbox.processes().close();
    signal_everything(Signal::SIGTERM);
    // A stopped process would keep the signal for later.
    signal_everything(Signal::SIGCONT);
    loop {
        let Some((_, deadline)) = *told.borrow_and_update() else {
            break;
        };
        tokio::select! {
            _ = childless.wait_for(|childless| *childless) => break,
            () = tokio::time::sleep_until(deadline) => break,
            _ = told.changed() => {}
        }
    }
    for _ in 0..KILL_ROUNDS {
        if *childless.borrow_and_update() {
            break;
        }
        signal_everything(Signal::SIGKILL);
        let _ = tokio::time::timeout(KILL_PAUSE, childless.wait_for(|childless| *childless)).await;
    }
    let _ = tokio::time::timeout(FLUSH, last_words(sandbox)).await;
    ending
}

/// Kills everything and waits until it is dead: until then it counts against the limit of processes. After a second it goes on: what hangs in
/// the kernel must not hold up the rest.
pub(super) async fn quiet(processes: &Processes) {
    let mut childless = processes.childless();
    for _ in 0..QUIET_ROUNDS {
        signal_everything(Signal::SIGKILL);
        let dead = childless.wait_for(|childless| *childless);
        if tokio::time::timeout(KILL_PAUSE, dead).await.is_ok() {
            return;
        }
    }
}

async fn last_words(sandbox: &Sandbox) {
    let _ = sandbox.processes().carried().wait_for(|count| *count == 0).await;
    let (written, all_written) = oneshot::channel();
    if sandbox.reports().send(Outgoing::Flush(written)).await.is_ok() {
        let _ = all_written.await;
    }
}

fn signal_everything(signal: Signal) {
    if getpid().as_raw() == 1 {
        // Everyone but this process; fails only when there is no one.
        let _ = signal::kill(Pid::from_raw(-1), signal);
        return;
    }
    for pid in descendants(getpid().as_raw()) {
        // It may have ended by now.
        let _ = signal::kill(Pid::from_raw(pid), signal);
    }
}

/// Everything that descends from a process. Orphans come to this one, so the chain of parents never leaves it.
fn descendants(of: i32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
    {
        if let Some(parent) = std::fs::read(format!("/proc/{pid}/stat"))
            .ok()
            .and_then(|stat| parent_of(&stat))
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut seen = HashSet::from([of]);
    let mut open = vec![of];
    while let Some(parent) = open.pop() {
        for child in children
            .get(&parent)
            .into_iter()
            .flatten()
            .filter(|child| seen.insert(**child))
        {
            found.push(*child);
            open.push(*child);
        }
    }
    found
}

/// The second field after the name, which stands in brackets and may contain anything.
fn parent_of(stat: &[u8]) -> Option<i32> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_parent_behind_any_name() {
        assert_eq!(parent_of(b"12 (sh) S 7 12 12"), Some(7));
        assert_eq!(parent_of(b"12 (a) R 1 (b) S 7 12"), Some(7));
        assert_eq!(parent_of(b"12 (\xff) S 7 12"), Some(7));
        assert_eq!(parent_of(b"12 (sh) S"), None);
        assert_eq!(parent_of(b""), None);
    }
}
