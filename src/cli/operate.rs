//! `cofferdam drain`, `sessions`, `logs` and `gc`: an operator's word with the worker that runs on this machine.
//!
//! Asks over the socket in the state directory; never takes the directory's lock, which is the worker's.

use std::time::Duration;

use super::{Exit, show};
use crate::admin::client::{self, AskError};
use crate::admin::socket::{SessionStatus, Status};
use crate::config::Config;
use crate::message::SessionId;

/// How often it is looked whether a worker has ended.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Looks without an answer in a row until it is given up.
const MOST_SILENT: u32 = 3;

/// Drains the worker, and stays until it has ended where that is asked.
pub(super) async fn drain(config: &Config, wait: bool, hurry: bool) -> Exit {
    let worker = match client::drain(&config.state_dir, hurry).await {
        Ok(status) => status,
        Err(error) => return failed(&error),
    };
    let running = match worker.sessions.len() {
        0 => "no session runs".to_owned(),
        1 => "1 session runs on".to_owned(),
        count => format!("{count} sessions run on"),
    };
    let said = if hurry {
        "its sessions end now and keep their work".to_owned()
    } else {
        format!("{running}, for {} s at most", worker.drain_s)
    };
    show::line(&format!("worker {} takes no more tasks; {said}", worker.worker));
    if wait {
        until_gone(config, &worker).await
    } else {
        Exit::Success
    }
}

async fn until_gone(config: &Config, worker: &Status) -> Exit {
    let mut silent = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match client::status(&config.state_dir).await {
            Ok(now) if is_same(&now, worker) => silent = 0,
            // Another has started in its place already.
            Ok(_) | Err(AskError::NoWorker { .. }) => return Exit::Success,
            // One that ends in the middle of its answer is silent once, and gone at the next look.
            Err(AskError::Silent { .. }) if silent < MOST_SILENT => silent += 1,
            Err(error @ (AskError::NotYours { .. } | AskError::Silent { .. })) => return failed(&error),
        }
    }
}

fn is_same(one: &Status, other: &Status) -> bool {
    (one.pid, one.since) == (other.pid, other.since)
}

/// Shows what the worker does now.
pub(super) async fn sessions(config: &Config, json: bool) -> Exit {
    let status = match client::status(&config.state_dir).await {
        Ok(status) => status,
        Err(error) => return failed(&error),
    };
    if json {
        match serde_json::to_string_pretty(&status) {
            Ok(text) => show::line(&text),
            Err(error) => {
                show::complain(&error.to_string());
                return Exit::Software;
            }
        }
        return Exit::Success;
    }
    let state = if status.not_ready.is_empty() {
        "ready".to_owned()
    } else {
        status.not_ready.join(", ")
    };
    show::line(&format!(
        "worker {} ({}, process {}): {state}; {} of {} sessions",
        status.worker,
        status.version,
        status.pid,
        status.sessions.len(),
        status.slots
    ));
    status.sessions.iter().for_each(|session| show::line(&row(session)));
    Exit::Success
}

/// Shows what the worker said of a session, one JSON object a line.
pub(super) async fn logs(config: &Config, session: SessionId) -> Exit {
    match client::told(&config.state_dir, &session.to_string()).await {
        Ok(Some(told)) => {
            if told.dropped > 0 {
                show::complain(&format!("{} earlier lines are not kept any more", told.dropped));
            }
            told.lines.iter().for_each(|line| show::line(line));
            Exit::Success
        }
        Ok(None) => {
            show::complain(&format!(
                "the worker knows nothing of the session {session}: it ran elsewhere, before this start, or too many others since; look into the log"
            ));
            Exit::Unavailable
        }
        Err(error) => failed(&error),
    }
}

/// Lists what nobody owns, and has it removed unless it is only to be listed.
pub(super) async fn gc(config: &Config, only_list: bool, json: bool) -> Exit {
    let collected = match client::collect(&config.state_dir, only_list).await {
        Ok(collected) => collected,
        Err(error) => return failed(&error),
    };
    if json {
        match serde_json::to_string_pretty(&collected) {
            Ok(text) => show::line(&text),
            Err(error) => {
                show::complain(&error.to_string());
                return Exit::Software;
            }
        }
    } else {
        for one in &collected.found {
            let word = match (only_list, one.removed) {
                (true, _) => "would remove",
                (false, true) => "removed",
                (false, false) => "could not remove",
            };
            show::line(&format!("{word} {} {} ({})", one.kind, one.what, one.why));
        }
        if collected.found.is_empty() {
            show::line("nothing is there that nobody owns");
        }
    }
    collected.problems.iter().for_each(|problem| show::complain(problem));
    let is_clean = only_list || collected.found.iter().all(|one| one.removed);
    if is_clean && collected.problems.is_empty() {
        Exit::Success
    } else {
        Exit::Unavailable
    }
}

fn row(session: &SessionStatus) -> String {
    let mut text = format!(
        "{}  {:<8} for {}, in all {}",
        session.session,
        session.stage.as_deref().unwrap_or("claimed"),
        span(session.stage_s),
        span(session.age_s)
    );
    if session.attempt > 1 {
        text.push_str(&format!(", attempt {}", session.attempt));
    }
    if session.waiting {
        text.push_str(", waits for somebody");
    }
    if session.stopping {
        text.push_str(", stopping");
    }
    text
}

/// Seconds as a person reads them.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600.. => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

fn failed(error: &AskError) -> Exit {
    show::complain(&error.to_string());
    Exit::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_where_a_session_is_and_for_how_long() {
        let mut session = SessionStatus {
            session: "0190c2f0-7c1e-7000-8000-000000000001".into(),
            attempt: 1,
            stage: Some("turn".into()),
            stage_s: 59,
            age_s: 3723,
            stopping: false,
            waiting: false,
        };
        assert_eq!(
            row(&session),
            "0190c2f0-7c1e-7000-8000-000000000001  turn     for 59s, in all 1h02m"
        );
        session.waiting = true;
        assert!(row(&session).ends_with("in all 1h02m, waits for somebody"));
        session.waiting = false;
        (session.attempt, session.stopping, session.stage_s) = (2, true, 61);
        assert!(row(&session).ends_with("for 1m01s, in all 1h02m, attempt 2, stopping"));
    }
}
