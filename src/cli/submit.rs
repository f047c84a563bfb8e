//! `cofferdam submit`: sends a task to the broker, and follows its session when asked to.

use std::path::Path;

use super::compose::read_task;
use super::{Exit, log, show, watch};
use crate::client::Client;
use crate::config::Config;
use crate::message::{Task, TraceParent};

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
    let mut client = Client::new(config.queue.clone());
    // As OpenTelemetry hands a trace to a program; what is none is none.
    if let Some(trace) = std::env::var("TRACEPARENT")
        .ok()
        .and_then(|text| TraceParent::parse(&text))
    {
        client = client.traced(trace);
    }
    let sent = if follow {
        client.start(&body).await.map(|(_, events)| Some(events))
    } else {
        client.submit(&body).await.map(|_| None)
    };
    match sent {
        Ok(Some(events)) => watch::follow(events, json).await,
        Ok(None) => {
            show::line(&task.session.to_string());
            Exit::Success
        }
        Err(error) => {
            show::complain(&error.to_string());
            Exit::Unavailable
        }
    }
}
