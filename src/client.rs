//! What an orchestrator does, as a library: sends a task, follows its session, speaks to it, and reads how it ended.
//!
//! Never declares what is the worker's, and never repeats a message: whoever does not see its answer decides, and sends the same [`Message`]
//! again, whose id makes the second one harmless.
//!
//! `deploy/examples/orchestrator.rs` is a whole one. With `amqps://` a program installs a provider of `rustls` first.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use serde_json::{Value, json};

use crate::message::control::{Control, ControlError};
use crate::message::task::{ProjectRequest, TaskError};
use crate::message::{Event, EventBody, SessionId, SessionOutcome, Task, TraceParent};
use crate::queue::rabbitmq::{self, Config, Follow};
use crate::queue::{QueueError, Routed};

/// An orchestrator's access to the broker: a connection for each call.
#[derive(Debug, Clone)]
pub struct Client {
    config: Config,
    trace: Option<TraceParent>,
}

/// Why something was not sent, or is not known to have been.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No worker would take the task.
    #[error("the task is not valid ({}): {}", .0.code(), .0)]
    Task(#[from] TaskError),
    /// No session would take the message.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Nothing takes tasks on this broker.
    #[error("the broker has no task queue yet: start a worker with `cofferdam run` once, it declares it")]
    NoWorker,
    /// Nobody holds the message.
    #[error(
        "no worker has the session {0}, and none is about to: it is over, or it rests. To go on with one that rests, submit its task with this \
         prompt and the `resume` of its `suspended` event; otherwise submit a new one"
    )]
    NoSession(SessionId),
    /// The task was refused before its session began.
    #[error("the task was refused ({code}): {message}")]
    Rejected {
        /// A stable word.
        code: String,
        /// What to change.
        message: String,
    },
    /// The broker cannot be reached, or did not confirm.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// A control message that a session would take.
#[derive(Debug, Clone)]
pub struct Message {
    /// What the event that answers it names.
    pub id: String,
    body: Vec<u8>,
}

impl Message {
    /// A message of these fields, as `cofferdam schema control` has them, under an id of its own.
    ///
    /// # Errors
    /// What a session would refuse.
    pub fn new(mut fields: Value) -> Result<Self, ControlError> {
        let id = uuid::Uuid::new_v4().to_string();
        fields["version"] = json!(1);
        fields["id"] = json!(id);
        let body = fields.to_string().into_bytes();
        Control::parse(&body)?;
        Ok(Self { id, body })
    }
}

impl Client {
    /// With the worker's own section `[queue]`: the same address, prefix and limits of time.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, trace: None }
    }

    /// The same, for tasks that are part of a trace: their events have it too ([`Event::trace`]), and the worker's log and spans.
    #[must_use]
    pub fn traced(self, trace: TraceParent) -> Self {
        let trace = Some(trace);
        Self { trace, ..self }
    }

    /// Sends a task (JSON, as `cofferdam schema task` has it), and opens its session's mailbox before. Confirmed.
    ///
    /// # Errors
    /// A task that no worker would take is not sent.
    pub async fn submit(&self, task: &[u8]) -> Result<SessionId, ClientError> {
        let session = Task::parse(task)?.session;
        match rabbitmq::submit(&self.config, session, task, self.trace).await? {
            Routed::Delivered => Ok(session),
            Routed::NoRoute => Err(ClientError::NoWorker),
        }
    }

    /// Sends a task and follows its session, so that no event is missed.
    ///
    /// # Errors
    /// As [`Client::submit`] and [`Client::follow`].
    pub async fn start(&self, task: &[u8]) -> Result<(SessionId, Events), ClientError> {
        let events = self.follow(Task::parse(task)?.session).await?;
        Ok((self.submit(task).await?, events))
    }

    /// A session's events from now on: they are kept for this reader when this returns.
    ///
    /// # Errors
    /// Where the broker is away, or no worker was ever there ([`QueueError::Declare`]).
    pub async fn follow(&self, session: SessionId) -> Result<Events, ClientError> {
        Ok(Events::of(rabbitmq::follow(&self.config, session).await?))
    }

    /// Whether a session ended within the last day.
    ///
    /// # Errors
    /// Where the broker is away.
    pub async fn is_over(&self, session: SessionId) -> Result<bool, ClientError> {
        Ok(rabbitmq::is_over(&self.config, session).await?)
    }

    /// Sends a message to a session. Confirmed; the event `control_answered` with its id tells what it did.
    ///
    /// # Errors
    /// [`ClientError::NoSession`] where nobody holds it.
    pub async fn send(&self, session: SessionId, message: &Message) -> Result<(), ClientError> {
        match rabbitmq::send_control(&self.config, session, &message.body).await? {
            Routed::Delivered => Ok(()),
            Routed::NoRoute => Err(ClientError::NoSession(session)),
        }
    }

    async fn say(&self, session: SessionId, fields: Value) -> Result<String, ClientError> {
        let message = Message::new(fields)?;
        self.send(session, &message).await?;
        Ok(message.id)
    }

    /// Another prompt, after the turn that runs. Returns the message's id, as the following do.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn prompt(&self, session: SessionId, text: &str) -> Result<String, ClientError> {
        self.say(session, json!({"kind": "prompt", "text": text})).await
    }

    /// Another prompt in place of the turn that runs, which is stopped.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn steer(&self, session: SessionId, text: &str) -> Result<String, ClientError> {
        let fields = json!({"kind": "prompt", "text": text, "mode": "steer"});
        self.say(session, fields).await
    }

    /// Another project, over one of the session's connections.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn add_project(&self, session: SessionId, project: &ProjectRequest) -> Result<String, ClientError> {
        let mut fields = json!({"kind": "add_project", "connection": project.connection, "path": project.path});
        if let Some(base) = &project.base {
            fields["base"] = json!(base);
        }
        self.say(session, fields).await
    }

    /// Ends the session; what was committed is published, or not.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn end(&self, session: SessionId, publish: bool) -> Result<String, ClientError> {
        self.say(session, json!({"kind": "end", "publish": publish})).await
    }
}

/// A session's events in their order, each once, until the session is over or rests. Kinds that this version does not know are passed over.
pub struct Events(BoxStream<'static, Result<Event, ClientError>>);

impl std::fmt::Debug for Events {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Events")
    }
}

impl Stream for Events {
    type Item = Result<Event, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl Events {
    fn of(follow: Follow) -> Self {
        let next = |state: Option<(Follow, Order)>| async move {
            let Some((mut follow, mut order)) = state else {
                return Ok(None);
            };
            loop {
                let (body, trace) = follow.next().await?;
                let Some(mut event) = serde_json::from_slice::<Event>(&body)
                    .ok()
                    .filter(|event| order.takes(event))
                else {
                    continue;
                };
                event.trace = trace;
                let rest = (!ends(&event.data.body)).then_some((follow, order));
                return Ok(Some((event, rest)));
            }
        };
        Self(stream::try_unfold(Some((follow, Order::default())), next).boxed())
    }

    /// Reads to the end: how the session ended, or `None` where it rests and waits for its next prompt.
    ///
    /// # Errors
    /// [`ClientError::Rejected`], and where the connection is lost.
    pub async fn outcome(&mut self) -> Result<Option<SessionOutcome>, ClientError> {
        while let Some(event) = self.next().await {
            let body = event?.data.body;
            if let EventBody::Finished { outcome } = body {
                return Ok(Some(outcome));
            }
            if let EventBody::Rejected { code, message } = body {
                return Err(ClientError::Rejected { code, message });
            }
        }
        Ok(None)
    }
}

/// Whether nothing follows it for whoever watches: the session is over, or rests and nothing is queued that goes on with it.
fn ends(body: &EventBody) -> bool {
    body.is_terminal() || matches!(body, EventBody::Suspended { queued: false, .. })
}

/// The newest event that was taken.
#[derive(Debug, Default)]
struct Order {
    attempt: u32,
    seq: u64,
}

impl Order {
    /// Neither what an owner says that does not know yet that it lost the session, nor what came before.
    fn takes(&mut self, event: &Event) -> bool {
        let data = &event.data;
        // The answer to a task that came too late has no place in the order of the attempt that it names.
        let again = data.attempt == self.attempt && data.seq <= self.seq && !data.body.is_terminal();
        if data.attempt < self.attempt || again {
            return false;
        }
        (self.attempt, self.seq) = (data.attempt, data.seq);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::resume::Resume;

    #[test]
    fn events_are_taken_once_and_older_attempts_not_at_all() {
        let session: SessionId = "0190c2f0-7c1e-7000-8000-000000000001".parse().unwrap();
        let mut order = Order::default();
        let mut taken = |attempt, seq| {
            order.takes(&Event::now(
                "w",
                session,
                attempt,
                seq,
                EventBody::TurnStarted { turn: 1 },
            ))
        };
        let all = [(1, 1), (1, 2), (1, 2), (1, 4), (2, 1), (1, 5), (2, 2)].map(|(attempt, seq)| taken(attempt, seq));
        assert_eq!(all, [true, true, false, true, true, false, true]);
    }

    #[test]
    fn a_session_that_rests_ends_the_stream_and_one_that_moves_does_not() {
        let suspended = |queued| EventBody::Suspended {
            message: "idle".into(),
            queued,
            projects: Vec::new(),
            resume: Resume::default(),
        };
        assert!(ends(&suspended(false)) && !ends(&suspended(true)));
        assert!(!ends(&EventBody::TurnStarted { turn: 1 }));
    }

    #[test]
    fn what_a_session_would_refuse_is_no_message() {
        let message = Message::new(json!({"kind": "end", "publish": true})).unwrap();
        assert!(String::from_utf8(message.body).unwrap().contains(&message.id));
        assert!(Message::new(json!({"kind": "dance"})).is_err());
        assert!(Message::new(json!({"kind": "prompt", "text": ""})).is_err());
    }
}
