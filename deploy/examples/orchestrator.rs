//! A whole orchestrator on the library: sends a task, follows it, adds a project, steers it, and prints how it ended.
//!
//! usage: orchestrator TASK.json CONNECTION PATH PROMPT     (the broker's address is in `COFFERDAM_AMQP_URL`, a trace in `TRACEPARENT`)

#![allow(
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "it prints, and passes over what it does not know"
)]

use std::env;

use cofferdam::client::Client;
use cofferdam::message::outcome::Outcome;
use cofferdam::message::task::ProjectRequest;
use cofferdam::message::{EventBody, TraceParent};
use cofferdam::queue::rabbitmq::Config;
use futures::StreamExt as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [path, connection, project, prompt] = arguments.as_slice() else {
        anyhow::bail!("usage: orchestrator TASK.json CONNECTION PATH PROMPT");
    };
    let project = ProjectRequest {
        connection: connection.parse()?,
        path: project.parse()?,
        base: None,
    };
    // The trace of which this is a part, or one that begins here: the session's events, log lines and spans have it too.
    let given = env::var("TRACEPARENT").ok().and_then(|text| TraceParent::parse(&text));
    let client = Client::new(Config {
        url: env::var("COFFERDAM_AMQP_URL")?,
        prefix: env::var("COFFERDAM_PREFIX").unwrap_or_else(|_| "cofferdam".into()),
        ..Config::default()
    })
    .traced(given.unwrap_or_else(TraceParent::begin));
    let (session, mut events) = client.start(&std::fs::read(path)?).await?;
    let (mut added, mut ended, mut trace) = (None, None, None);
    while let Some(event) = events.next().await {
        let event = event?;
        trace = event.trace;
        match event.data.body {
            EventBody::TurnStarted { .. } if added.is_none() => {
                added = Some(client.add_project(session, &project).await?);
            }
            EventBody::ControlAnswered {
                in_reply_to,
                applied,
                message,
            } => {
                println!("answered: {message}");
                if applied && added.as_ref() == Some(&in_reply_to) {
                    client.steer(session, prompt).await?;
                }
            }
            EventBody::Rejected { code, message } => anyhow::bail!("rejected ({code}): {message}"),
            EventBody::Suspended {
                message, queued: false, ..
            } => anyhow::bail!("suspended: {message}"),
            EventBody::Finished { outcome } => ended = Some(outcome),
            _ => {}
        }
    }
    let outcome = ended.ok_or_else(|| anyhow::anyhow!("no outcome"))?;
    println!(
        "trace: {}",
        trace.map_or_else(|| "none".into(), |trace| trace.trace_id())
    );
    println!("{} {}", outcome.result.as_str(), outcome.reason.as_str());
    for one in &outcome.projects {
        let url = one.change_request.as_ref().map_or("", |request| &request.url);
        println!("{} {} {url}", one.project.path, one.reason.as_str());
    }
    // Decide by the result: it has five words, and there will never be another.
    anyhow::ensure!(outcome.result == Outcome::Success, "{}", outcome.message);
    Ok(())
}
