//! Reaping: whatever died is taken from the kernel, and the exits of ordered processes go to those who wait for them.
//! It never blocks.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::sys::signal::killpg;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Exit, Live, MAX_LEFTOVERS, Processes, Table};

impl Processes {
    /// Takes every child that has died. To be called after each SIGCHLD, of which several may come as one.
    pub(in crate::init) fn reap(&self) {
        let mut table = self.lock();
        let childless = loop {
            table.reap_own();
            match table.reap_orphans() {
                Reaped::All { childless } => break childless,
                Reaped::Unreadable => {}
            }
        };
        drop(table);
        self.childless
            .send_if_modified(|known| std::mem::replace(known, childless) != childless);
    }
}

/// How far a round came.
enum Reaped {
    /// Nothing dead is left.
    All { childless: bool },
    /// One was taken of which the library cannot say who it was: killed by a realtime signal.
    Unreadable,
}

impl Table {
    pub(super) fn register(&mut self, pid: u32, live: Live) {
        // The number belongs to somebody else now.
        self.leftovers.retain(|_, group| *group != pid);
        self.live.insert(pid, live);
    }

    /// First by their own handles, since those can tell every signal.
    fn reap_own(&mut self) {
        let ended: Vec<(u32, Exit)> = self
            .live
            .iter_mut()
            .filter_map(|(pid, live)| match live.child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some((*pid, exit_of(status))),
                // Taken in the round before, and unreadable.
                Err(_) => Some((
                    *pid,
                    Exit {
                        code: None,
                        signal: None,
                    },
                )),
            })
            .collect();
        for (pid, exit) in ended {
            self.end(pid, exit);
        }
    }

    fn reap_orphans(&mut self) -> Reaped {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                // One of our own may have died since the round above.
                Ok(WaitStatus::Exited(pid, code)) => self.end_raw(
                    pid,
                    Exit {
                        code: Some(code),
                        signal: None,
                    },
                ),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.end_raw(
                        pid,
                        Exit {
                            code: None,
                            signal: Some(signal as i32),
                        },
                    );
                }
                Ok(WaitStatus::StillAlive) => return Reaped::All { childless: false },
                // Not asked for.
                Ok(
                    WaitStatus::Stopped(..)
                    | WaitStatus::Continued(_)
                    | WaitStatus::PtraceEvent(..)
                    | WaitStatus::PtraceSyscall(_),
                )
                | Err(Errno::EINTR) => {}
                Err(Errno::EINVAL) => return Reaped::Unreadable,
                Err(_) => return Reaped::All { childless: true },
            }
        }
    }

    fn end_raw(&mut self, pid: Pid, exit: Exit) {
        if let Ok(pid) = u32::try_from(pid.as_raw()) {
            self.end(pid, exit);
        }
    }

    fn end(&mut self, pid: u32, exit: Exit) {
        let Some(live) = self.live.remove(&pid) else {
            return;
        };
        live.exit.send_replace(Some(exit));
        if self.leftovers.len() >= MAX_LEFTOVERS {
            self.leftovers.retain(|_, group| has_members(*group));
        }
        if self.leftovers.len() < MAX_LEFTOVERS && has_members(pid) {
            self.leftovers.insert(live.id, pid);
        }
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    Exit {
        code: status.code(),
        signal: status.signal(),
    }
}

fn has_members(group: u32) -> bool {
    i32::try_from(group).is_ok_and(|group| killpg(Pid::from_raw(group), None).is_ok())
}
