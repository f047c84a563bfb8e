//! One clock for all sessions of a worker: what is free on its disk, and whether that is dangerously little.
//!
//! Runs as long as anybody holds it, so that sessions need no clocks of their own. Wakes nobody but when danger begins or ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Disk, Free};

/// How often the file system is asked; asking costs microseconds.
pub const TICK: Duration = Duration::from_millis(500);

/// The clock; it ends when nobody holds it any more.
#[derive(Debug)]
pub struct Clock {
    latest: Arc<Mutex<Option<Free>>>,
    danger: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Disk {
    /// The clock of this disk: the one that runs, else a new one.
    pub fn clock(self: &Arc<Self>) -> Arc<Clock> {
        let mut running = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(clock) = running.upgrade().filter(|clock| !clock.task.is_finished()) {
            return clock;
        }
        let latest = Arc::new(Mutex::new(None));
        let (told, danger) = watch::channel(false);
        let task = tokio::spawn(run(Arc::clone(self), Arc::clone(&latest), told));
        let clock = Arc::new(Clock { latest, danger, task });
        *running = Arc::downgrade(&clock);
        clock
    }
}

impl Clock {
    /// What was free at the last tick; nothing before the first one, and where the file system did not answer.
    #[must_use]
    pub fn free(&self) -> Option<Free> {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so little is free that a session may have to go. Cancel-safe.
    pub async fn danger(&self) {
        if self.danger.clone().wait_for(|danger| *danger).await.is_err() {
            // The clock ends with its last holder, which is not this one.
            std::future::pending::<()>().await;
        }
    }
}

async fn run(disk: Arc<Disk>, latest: Arc<Mutex<Option<Free>>>, told: watch::Sender<bool>) {
    loop {
        // Nobody goes by what was free some time ago.
        let free = disk.free().await;
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = free;
        let danger = free.is_some_and(|free| disk.in_danger(free, 2));
        told.send_if_modified(|was| std::mem::replace(was, danger) != danger);
        tokio::time::sleep(TICK).await;
    }
}
