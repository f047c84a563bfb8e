//! The processes of the sandbox: started here, signalled here, reaped here. As PID 1 it reaps orphans too. Starting and
//! registering happen without an await between them, on the one thread that also reaps, so no exit can be missed.
//! `tokio::process` is not used: it would reap behind this table's back.

mod launching;
mod reaping;

use std::collections::HashMap;
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cofferdam_inside::{Preamble, Report, Token};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::{mpsc, watch};

use super::dial::{Way, dial};
use super::orders::{Outgoing, refused};
use super::stdio;

/// At once; each has a connection and three pipes.
const MAX_PROCESSES: usize = 256;
/// Twice what any sane command has.
const MAX_ARGUMENTS: usize = 4096;
const MAX_VARIABLES: usize = 1024;
/// Ended processes whose group still had members, which can be signalled as long as they are remembered.
const MAX_LEFTOVERS: usize = 256;

/// A spawn order.
#[derive(Debug)]
pub(super) struct Spawning {
    pub(super) id: u32,
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
    pub(super) token: Token,
}

/// Why a process was not started or not signalled; each is the sentence that the worker gets.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    #[error("a command has 1 to {MAX_ARGUMENTS} arguments, none with a zero byte, and begins with a program")]
    CheckArguments,
    #[error("an environment has at most {MAX_VARIABLES} variables, none with a zero byte or an odd name")]
    CheckEnvironment,
    #[error("a working directory is absolute and has no zero byte")]
    CheckDirectory,
    #[error("more than {MAX_PROCESSES} processes at once are not started")]
    CountProcesses,
    #[error("the sandbox is ending")]
    StartWhileEnding,
    #[error("the stdio connection could not be opened: {0}")]
    DialStdio(std::io::Error),
    #[error("no process could be made: {0}")]
    MakeProcess(std::io::Error),
    #[error("{0}")]
    Launch(String),
    #[error("no process with the id {0} is running")]
    FindProcess(u32),
    #[error("{0} is not a signal that can be sent")]
    CheckSignal(i32),
    #[error("the signal could not be sent: {0}")]
    SendSignal(nix::Error),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exit {
    code: Option<i32>,
    signal: Option<i32>,
}

/// A child that has not been reaped.
#[derive(Debug)]
struct Live {
    id: u32,
    child: Child,
    exit: watch::Sender<Option<Exit>>,
}

#[derive(Debug, Default)]
struct Table {
    live: HashMap<u32, Live>,
    leftovers: HashMap<u32, u32>,
    ending: bool,
}

/// The table of processes, and what starting one needs.
#[derive(Debug)]
pub(super) struct Processes {
    table: Mutex<Table>,
    /// Whether nothing is left to be reaped.
    childless: watch::Sender<bool>,
    /// How many spawn orders are not done with: not exited, or stdio not ended.
    carried: watch::Sender<usize>,
    reports: mpsc::Sender<Outgoing>,
    way: Way,
    open_files: u64,
}

impl Processes {
    pub(super) fn new(way: Way, open_files: u64, reports: mpsc::Sender<Outgoing>) -> Self {
        Self {
            table: Mutex::default(),
            childless: watch::Sender::new(true),
            carried: watch::Sender::new(0),
            reports,
            way,
            open_files,
        }
    }

    /// Begins to carry out a spawn order; what comes of it is reported.
    pub(super) fn spawn(self: &Arc<Self>, spawning: Spawning) -> Result<(), SpawnError> {
        check(&spawning)?;
        if *self.carried.borrow() >= MAX_PROCESSES {
            return Err(SpawnError::CountProcesses);
        }
        let processes = Arc::clone(self);
        self.carried.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            let _done = CountDown(&processes.carried);
            let id = spawning.id;
            if let Err(why) = processes.run(spawning).await {
                processes.report(refused(id, &why)).await;
            }
        });
        Ok(())
    }

    async fn run(&self, spawning: Spawning) -> Result<(), SpawnError> {
        let preamble = Preamble::Stdio(spawning.token.clone());
        let socket = dial(&self.way, &preamble).await.map_err(SpawnError::DialStdio)?;
        let id = spawning.id;
        let started = self.start(&spawning)?;
        drop(spawning);
        let started = started.launched().await?;
        let pid = started.pid;
        let mut exit = started.exit.clone();
        let exited = async move {
            // The table holds the other end until the process is reaped.
            let _ = exit.wait_for(Option::is_some).await;
        };
        let mut exit = started.exit;
        // Beside the stdio, which does not wait for a worker that is slow to take reports.
        let telling = async {
            self.report(Report::Started { id, pid }).await;
            let exit = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
            let Exit { code, signal } = exit.unwrap_or(Exit {
                code: None,
                signal: None,
            });
            self.report(Report::Exited { id, code, signal }).await;
        };
        tokio::join!(stdio::carry(socket, started.pipes, exited), telling);
        Ok(())
    }

    /// Sends a signal to the group of a process, or to what is left of it.
    pub(super) fn signal(&self, id: u32, number: i32) -> Result<(), SpawnError> {
        let signal = Signal::try_from(number).map_err(|_| SpawnError::CheckSignal(number))?;
        let table = self.lock();
        let live = table
            .live
            .iter()
            .find_map(|(pid, live)| (live.id == id).then_some(*pid));
        let group = live
            .or_else(|| table.leftovers.get(&id).copied())
            .and_then(|pid| i32::try_from(pid).ok());
        let group = group.ok_or(SpawnError::FindProcess(id))?;
        killpg(Pid::from_raw(group), signal).map_err(SpawnError::SendSignal)
    }

    /// From here on nothing is started.
    pub(super) fn close(&self) {
        self.lock().ending = true;
    }

    /// Tells whether children are left.
    pub(super) fn childless(&self) -> watch::Receiver<bool> {
        self.childless.subscribe()
    }

    /// Tells how many spawn orders are not done with.
    pub(super) fn carried(&self) -> watch::Receiver<usize> {
        self.carried.subscribe()
    }

    async fn report(&self, report: Report) {
        // Fails only when the control task is gone, which is when everything ends.
        let _ = self.reports.send(Outgoing::Report(report)).await;
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts down however a task ends.
struct CountDown<'a>(&'a watch::Sender<usize>);

impl Drop for CountDown<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

fn check(spawning: &Spawning) -> Result<(), SpawnError> {
    let Spawning { argv, env, cwd, .. } = spawning;
    let program = argv.first().is_some_and(|program| !program.is_empty());
    if !program || argv.len() > MAX_ARGUMENTS || argv.iter().any(|argument| argument.contains('\0')) {
        return Err(SpawnError::CheckArguments);
    }
    let odd = |(name, value): &(String, String)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
    if env.len() > MAX_VARIABLES || env.iter().any(odd) {
        return Err(SpawnError::CheckEnvironment);
    }
    if !cwd.starts_with('/') || cwd.contains('\0') {
        return Err(SpawnError::CheckDirectory);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_absurd_orders() {
        let order = |argv: Vec<String>, env: Vec<(String, String)>, cwd: &str| Spawning {
            id: 1,
            argv,
            env,
            cwd: cwd.to_owned(),
            token: Token::from_bytes([0; 16]),
        };
        let one = || vec!["true".to_owned()];
        let variable = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert!(check(&order(one(), variable("A", "b=c"), "/")).is_ok());
        for argv in [
            vec![],
            vec![String::new()],
            vec!["a\0".to_owned()],
            vec!["a".to_owned(); MAX_ARGUMENTS + 1],
        ] {
            assert!(matches!(
                check(&order(argv, vec![], "/")),
                Err(SpawnError::CheckArguments)
            ));
        }
        let many = vec![("A".to_owned(), String::new()); MAX_VARIABLES + 1];
        for env in [variable("", "b"), variable("A=", "b"), variable("A", "\0"), many] {
            assert!(matches!(
                check(&order(one(), env, "/")),
                Err(SpawnError::CheckEnvironment)
            ));
        }
        for cwd in ["", "a", "/a\0"] {
            assert!(matches!(
                check(&order(one(), vec![], cwd)),
                Err(SpawnError::CheckDirectory)
            ));
        }
    }
}
