//! Starting one process: this binary again as its own launcher (see `launch`), with three pipes and a fourth on which
//! the launcher tells why it failed. It never waits for the child.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

use super::{Exit, Live, Processes, SpawnError, Spawning};
use crate::init::stdio::Pipes;
use crate::launch;

/// This very binary, however it is called and wherever it was mounted.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// A longer sentence is cut.
const MAX_FAILURE_BYTES: u64 = 4096;

/// A registered child.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: u32,
    pub(super) pipes: Pipes,
    pub(super) exit: watch::Receiver<Option<Exit>>,
}

/// A registered child that has yet to become the ordered program.
#[derive(Debug)]
pub(super) struct Launching {
    started: Started,
    failure: Receiver,
}

impl Launching {
    /// Waits until the child has become the ordered program.
    pub(super) async fn launched(mut self) -> Result<Started, SpawnError> {
        let mut sentence = Vec::new();
        // It ends when the program runs, because the launcher's end closes on exec, or when the launcher ends.
        let read = (&mut self.failure)
            .take(MAX_FAILURE_BYTES)
            .read_to_end(&mut sentence)
            .await;
        read.map_err(SpawnError::MakeProcess)?;
        if sentence.is_empty() {
            Ok(self.started)
        } else {
            Err(SpawnError::Launch(String::from_utf8_lossy(&sentence).into_owned()))
        }
    }
}

impl Processes {
    /// Starts and registers a child, with no await between the two.
    pub(super) fn start(&self, spawning: &Spawning) -> Result<Launching, SpawnError> {
        let mut table = self.lock();
        if table.ending {
            return Err(SpawnError::StartWhileEnding);
        }
        let (failure, status) = io::pipe().map_err(SpawnError::MakeProcess)?;
        // The one descriptor that is inherited beside stdio. Nothing else starts a process before it is dropped.
        fcntl(&status, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|error| SpawnError::MakeProcess(error.into()))?;
        let mut child = Command::new(THIS_PROGRAM)
            .arg0(launch::NAME)
            .arg(status.as_raw_fd().to_string())
            .arg(self.open_files.to_string())
            .arg(&spawning.cwd)
            .args(&spawning.argv)
            .env_clear()
            .envs(spawning.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(SpawnError::MakeProcess)?;
        drop(status);
        let pid = child.id();
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (exit, exited) = watch::channel(None);
        table.register(
            pid,
            Live {
                id: spawning.id,
                child,
                exit,
            },
        );
        drop(table);
        self.childless.send_replace(false);

        let piped = || -> io::Result<(Pipes, Receiver)> {
            let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
                return Err(io::ErrorKind::Other.into());
            };
            Ok((
                Pipes::new(stdin, stdout, stderr)?,
                Receiver::from_owned_fd(OwnedFd::from(failure))?,
            ))
        };
        let (pipes, failure) = piped().map_err(|error| {
            // It is registered and will be reaped, but must not run on while its order is refused.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            SpawnError::MakeProcess(error)
        })?;
        Ok(Launching {
            started: Started {
                pid,
                pipes,
                exit: exited,
            },
            failure,
        })
    }
}
