//! Follows one pod: what was last seen of it, until it is over. A watch that breaks is made anew, and what it missed is asked for.
//!
//! An API that is away means nothing for a sandbox that runs, so nothing is told of it here.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::told::{Seen, seen};

/// A watch that ends when it is dropped.
#[derive(Debug)]
pub(super) struct Follow {
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follow {
    /// Begins, with a pod that was created already.
    pub(super) fn start(pods: Api<Pod>, name: &str) -> Self {
        let (told, watched) = watch::channel(Seen::Waiting(None));
        let name = name.to_owned();
        let task = tokio::spawn(async move {
            let mut all = Box::pin(watch_object(pods, &name).default_backoff());
            let mut was_there = false;
            while let Some(one) = all.next().await {
                match one {
                    Ok(Some(pod)) => {
                        was_there = true;
                        note(&told, seen(&pod));
                    }
                    // A cache behind the API may not know it yet.
                    Ok(None) if was_there => note(&told, Seen::Taken("its pod was deleted".to_owned())),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(pod = name, %error, "a sandbox's pod could not be watched; tried again")
                    }
                }
            }
        });
        Self { seen: watched, task }
    }

    /// What is seen of it, from the last look on.
    pub(super) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }
}

/// The first end stands: what follows it is only its removal.
fn note(told: &watch::Sender<Seen>, now: Seen) {
    told.send_if_modified(|seen| {
        let is_over = matches!(seen, Seen::Ended(_) | Seen::Taken(_));
        let is_new = !is_over && *seen != now;
        if is_new {
            *seen = now;
        }
        is_new
    });
}
