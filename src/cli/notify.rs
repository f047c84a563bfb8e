//! Tells a service manager how the worker is, in systemd's notify protocol: up, alive, stopping, and a line for people.
//!
//! Says nothing where no manager asks for it (`NOTIFY_SOCKET` is not set), and never ends the worker because of it.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How often it is looked what there is to tell. A watchdog is told at least twice in its time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What there is to tell of the worker.
pub(super) struct Told {
    /// Broker and engine answer.
    pub(super) up: bool,
    /// It takes no more tasks and is about to end.
    pub(super) stopping: bool,
    /// All that should go on in the background does.
    pub(super) whole: bool,
    /// A line for people.
    pub(super) line: String,
}

/// Runs the worker's main future, and tells the manager of the worker meanwhile. In the same task: what stops the one silences the other.
pub(super) async fn during<T>(main: impl Future<Output = T>, told: impl Fn() -> Told) -> T {
    keep_told(main, told, sd_notify::watchdog_enabled(), |what| {
        if let Err(error) = sd_notify::notify(&[what]) {
            tracing::debug!(%error, "the service manager was not told");
        }
    })
    .await
}

async fn keep_told<T>(
    main: impl Future<Output = T>,
    told: impl Fn() -> Told,
    watchdog: Option<Duration>,
    say: impl Fn(NotifyState<'_>),
) -> T {
    let every = watchdog.map_or(LOOK_EVERY, |limit| LOOK_EVERY.min(limit / 4));
    let every = every.max(Duration::from_millis(10));
    let mut manager = Manager::default();
    let mut clock = interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The runtime's other threads have to take a task, too.
    let mut others = async |whole: bool| {
        clock.tick().await;
        whole && watchdog.is_some() && matches!(timeout(every, tokio::spawn(async {})).await, Ok(Ok(())))
    };
    let mut whole = false;
    tokio::pin!(main);
    loop {
        let alive = tokio::select! {
            biased;
            out = &mut main => {
                manager.stopping(&say);
                return out;
            }
            alive = others(whole) => alive,
        };
        if alive {
            say(NotifyState::Watchdog);
        }
        let told = told();
        whole = told.whole;
        manager.tell(&told, &say);
    }
}

/// What the manager was told so far.
#[derive(Default)]
struct Manager {
    ready: bool,
    stopping: bool,
    line: String,
}

impl Manager {
    fn tell(&mut self, told: &Told, say: &impl Fn(NotifyState<'_>)) {
        if told.up && !self.ready && !told.stopping {
            self.ready = true;
            say(NotifyState::Ready);
        }
        if told.stopping {
            self.stopping(say);
        }
        if told.line != self.line {
            self.line.clone_from(&told.line);
            say(NotifyState::Status(&told.line));
        }
    }

    fn stopping(&mut self, say: &impl Fn(NotifyState<'_>)) {
        if !self.stopping {
            self.stopping = true;
            say(NotifyState::Stopping);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Instant;

    use super::*;

    /// So long that another thread takes a task within a quarter of it, also on a busy machine.
    const WATCHDOG: Duration = Duration::from_millis(400);

    fn told(up: bool, stopping: bool, whole: bool) -> Told {
        Told {
            up,
            stopping,
            whole,
            line: "fine".to_owned(),
        }
    }

    /// What is said while `main` runs, and when.
    fn said(main: impl Future<Output = ()>, told: impl Fn() -> Told) -> Vec<(String, Instant)> {
        let said = RefCell::new(Vec::new());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(keep_told(main, told, Some(WATCHDOG), |what| {
            said.borrow_mut().push((what.to_string(), Instant::now()));
        }));
        said.into_inner()
    }

    async fn work(times: u32) {
        tokio::time::sleep(WATCHDOG * times).await;
    }

    fn pings(said: &[(String, Instant)]) -> Vec<Instant> {
        let pings = said.iter().filter(|(what, _)| what == "WATCHDOG=1");
        pings.map(|(_, when)| *when).collect()
    }

    fn others(said: &[(String, Instant)]) -> Vec<&str> {
        let words = said.iter().map(|(what, _)| what.as_str());
        words.filter(|what| *what != "WATCHDOG=1").collect()
    }

    #[test]
    fn each_thing_is_said_once_and_the_watchdog_hears_often() {
        let said = said(work(10), || told(true, false, true));
        assert_eq!(others(&said), ["READY=1", "STATUS=fine", "STOPPING=1"]);
        assert!(pings(&said).len() >= 10, "{said:?}");
    }

    #[test]
    fn a_worker_that_stops_before_it_was_up_is_never_called_ready() {
        let said = said(work(3), || told(true, true, true));
        assert_eq!(others(&said), ["STOPPING=1", "STATUS=fine"]);
    }

    #[test]
    fn a_main_future_that_blocks_its_thread_silences_the_watchdog() {
        let blocks = async {
            work(3).await;
            std::thread::sleep(WATCHDOG * 10);
            work(3).await;
        };
        let pings = pings(&said(blocks, || told(true, false, true)));
        let longest = pings.windows(2).map(|two| two[1] - two[0]).max();
        assert!(longest >= Some(WATCHDOG * 9), "{longest:?} of {}", pings.len());
    }

    #[test]
    fn a_background_that_ended_silences_the_watchdog() {
        let said = said(work(5), || told(true, false, false));
        assert_eq!(others(&said), ["READY=1", "STATUS=fine", "STOPPING=1"]);
        assert!(pings(&said).is_empty(), "{said:?}");
    }
}
