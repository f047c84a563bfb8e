//! `cofferdam submit`: sends a task to the broker, and follows its session when asked to.

use std::path::Path;

use super::compose::read_task;
use super::{Exit, log, show, watch};
use crate::config::Config;
use crate::message::Task;
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
    match rabbitmq::submit(&config.queue, task.session, &body).await {
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
    match following {
        Some(following) => watch::follow(following, json).await,
        None => {
            show::line(&task.session.to_string());
            Exit::Success
        }
    }
}
