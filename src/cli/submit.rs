//! `cofferdam submit`: sends a task to the broker, and follows its session when asked to.

use std::path::Path;

use super::compose::read_task;
use super::show::Show;
use super::{Exit, log, show};
use crate::config::Config;
use crate::message::{Event, EventBody, Task};
use crate::queue::Routed;
use crate::queue::rabbitmq;

/// Sends a task.
pub(super) async fn submit(config: &Config, path: &Path, follow: bool, json: bool) -> Exit {
    log::to_standard_error();
    let body = match read_task(path) {
        Ok(body) => body,
        Err(message) => {
            show::complain(&message);
            return Exit::BadTask;
        }
    };
    let task = match Task::parse(&body) {
        Ok(task) => task,
        Err(error) => {
            show::complain(&format!("the task is not valid ({}): {error}", error.code()));
            return Exit::BadTask;
        }
    };
    // Followed first, so that no event is missed.
    let following = if follow {
        match rabbitmq::follow(&config.queue, task.session).await {
            Ok(following) => Some(following),
            Err(error) => {
                show::complain(&error.to_string());
                return Exit::Unavailable;
            }
        }
    } else {
        None
    };
    match rabbitmq::submit(&config.queue, &body).await {
        Ok(Routed::Delivered) => {}
        Ok(Routed::NoRoute) => {
            show::complain(
                "the broker has no task queue yet: start a worker with `cofferdam run` once, it declares it",
            );
            return Exit::Unavailable;
        }
        Err(error) => {
            show::complain(&error.to_string());
            return Exit::Unavailable;
        }
    }
    let Some(mut following) = following else {
        show::line(&task.session.to_string());
        return Exit::Success;
    };
    let mut show = Show::new(json);
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
        show.event(&event);
        if event.data.body.is_terminal() {
            show.end();
            let finished = if let EventBody::Finished { outcome } = &event.data.body {
                Some(outcome.result)
            } else {
                None
            };
            return finished.map_or(Exit::BadTask, show::exit_of);
        }
    }
}
