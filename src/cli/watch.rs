//! `cofferdam watch`, and what `submit --follow` does after it sent: a session's events until it ends or rests.
//!
//! Changes nothing about the session; ending this view of it leaves it running.

use super::show::Show;
use super::{Exit, log, show};
use crate::config::Config;
use crate::message::{Event, EventBody, SessionId};
use crate::queue::QueueError;
use crate::queue::rabbitmq::{self, Follow};

/// Watches a session from now on.
pub(super) async fn watch(config: &Config, session: SessionId, json: bool) -> Exit {
    log::to_standard_error();
    let watching = async {
        // Followed first, so that an end in between is seen.
        let following = rabbitmq::follow(&config.queue, session).await?;
        let is_over = rabbitmq::is_over(&config.queue, session).await?;
        Ok::<_, QueueError>((following, is_over))
    };
    match watching.await {
        Ok((_, true)) => {
            show::complain(&format!(
                "the session {session} is over; its `finished` event said how it ended"
            ));
            Exit::Unavailable
        }
        Ok((following, false)) => follow(following, json).await,
        Err(error) => {
            show::complain(&error.to_string());
            Exit::Unavailable
        }
    }
}

/// Shows what comes until the session is over, or rests and nothing is queued that goes on with it.
pub(super) async fn follow(mut following: Follow, json: bool) -> Exit {
    let mut show = Show::new(json);
    let mut highest = 0;
    loop {
        let body = match following.next().await {
            Ok(body) => body,
            Err(error) => {
                show.end();
                show::complain(&format!("{error}; the session goes on without this view of it"));
                return Exit::Unavailable;
            }
        };
        // What a newer worker may send is not an error here.
        let Ok(event) = serde_json::from_slice::<Event>(&body) else {
            continue;
        };
        // An owner that does not know yet that it lost the session, or the answer to a task that came too late.
        if event.data.attempt < highest {
            continue;
        }
        highest = event.data.attempt;
        show.event(&event);
        if let Some(exit) = ended(&event.data.body) {
            show.end();
            if exit == Exit::Success && matches!(event.data.body, EventBody::Suspended { .. }) {
                show::complain(
                    "the session rests: to go on, submit its task with the next prompt and the event's `resume`",
                );
            }
            return exit;
        }
    }
}

/// How a view ends with an event, if it does.
fn ended(body: &EventBody) -> Option<Exit> {
    if let EventBody::Suspended { queued: false, .. } = body {
        return Some(Exit::Success);
    }
    if !body.is_terminal() {
        return None;
    }
    let finished = if let EventBody::Finished { outcome } = body {
        Some(outcome.result)
    } else {
        None
    };
    Some(finished.map_or(Exit::BadTask, show::exit_of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::resume::Resume;

    #[test]
    fn a_view_ends_with_a_session_that_rests_and_goes_on_with_one_that_moves() {
        let suspended = |queued| EventBody::Suspended {
            message: "idle".into(),
            queued,
            projects: Vec::new(),
            resume: Resume::default(),
        };
        assert_eq!(ended(&suspended(false)), Some(Exit::Success));
        assert_eq!(ended(&suspended(true)), None);
        assert_eq!(ended(&EventBody::TurnStarted { turn: 1 }), None);
        let rejected = EventBody::Rejected {
            code: "session_over".into(),
            message: String::new(),
        };
        assert_eq!(ended(&rejected), Some(Exit::BadTask));
    }
}
