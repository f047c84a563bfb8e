//! A process group that dies with its owner: git starts helpers, and a killed git would leave them behind.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// The group of a child that leads it. Kills on drop unless disarmed; must not outlive the reaping of its leader while armed.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Option<Pid>,
}

impl Group {
    pub(crate) fn led_by(child: &tokio::process::Child) -> Self {
        Self {
            leader: child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw),
        }
    }

    /// Kills what is left of the group.
    pub(crate) fn kill(&mut self) {
        if let Some(leader) = self.leader.take() {
            // The only failure is that nobody is left.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }

    /// The leader was reaped: its number may belong to somebody else from now on.
    pub(crate) fn disarm(&mut self) {
        self.leader = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
