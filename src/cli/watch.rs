//! `cofferdam watch`, and what `submit --follow` does after it sent: a session's events until it ends or rests.
//!
//! Changes nothing about the session; ending this view of it leaves it running.

use futures::StreamExt as _;

use super::show::Show;
use super::{Exit, log, show};
use crate::client::{Client, ClientError, Events};
use crate::config::Config;
use crate::message::{EventBody, SessionId};

/// Watches a session from now on.
pub(super) async fn watch(config: &Config, session: SessionId, json: bool) -> Exit {
    log::to_standard_error();
    let client = Client::new(config.queue.clone());
    let watching = async {
        // Followed first, so that an end in between is seen.
        let events = client.follow(session).await?;
        Ok::<_, ClientError>((events, client.is_over(session).await?))
    };
    match watching.await {
        Ok((_, true)) => {
            show::complain(&format!(
                "the session {session} is over; its `finished` event said how it ended"
            ));
            Exit::Unavailable
        }
        Ok((events, false)) => follow(events, json).await,
        Err(error) => {
            show::complain(&error.to_string());
            Exit::Unavailable
        }
    }
}

/// Shows what comes until the session is over, or rests and nothing is queued that goes on with it.
pub(super) async fn follow(mut events: Events, json: bool) -> Exit {
    let mut show = Show::new(json);
    let mut last = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                show.event(&event);
                last = ended(&event.data.body);
                if let EventBody::Suspended { queued: false, .. } = event.data.body {
                    show.end();
                    show::complain(
                        "the session rests: to go on, submit its task with the next prompt and the event's `resume`",
                    );
                }
            }
            Err(error) => {
                show.end();
                show::complain(&format!("{error}; the session goes on without this view of it"));
                return Exit::Unavailable;
            }
        }
    }
    show.end();
    // The events end with one that says how.
    last.unwrap_or(Exit::Software)
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
