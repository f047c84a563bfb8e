//! A queue whose publishes are counted for operators. Changes nothing else: the queue and the progress room know no metrics.

use std::sync::Arc;

use async_trait::async_trait;

use crate::message::{Event, EventBody, SessionId};
use crate::metrics::Metrics;
use crate::queue::{Again, Claimed, Delivery, Queue, QueueError};

/// A queue with a counter in front of it.
pub(super) struct Counted {
    queue: Arc<dyn Queue>,
    metrics: Arc<Metrics>,
}

impl Counted {
    pub(super) fn new(queue: Arc<dyn Queue>, metrics: Arc<Metrics>) -> Self {
        Self { queue, metrics }
    }

    /// State events only: what an agent says is not the operator's to read here.
    fn remember(&self, event: &Event, confirmed: bool) {
        let data = &event.data;
        if data.body.is_progress() {
            return;
        }
        let (kind, seq) = (&event.kind, data.seq);
        let told = serde_json::json!({"timestamp": event.time, "event": kind, "seq": seq, "confirmed": confirmed, "data": data.body});
        let line = crate::secret::log_line(&told.to_string());
        self.metrics.recent.add(&data.session.to_string(), &line);
    }
}

#[async_trait]
impl Queue for Counted {
    async fn next_task(&self) -> Option<Delivery> {
        self.queue.next_task().await
    }

    async fn claim(&self, session: SessionId, again: Again) -> Result<Claimed, QueueError> {
        self.queue.claim(session, again).await
    }

    async fn publish(&self, event: &Event) -> Result<(), QueueError> {
        let published = self.queue.publish(event).await;
        self.metrics.broker.publish(published.is_ok());
        self.remember(event, published.is_ok());
        if let EventBody::OutputDropped { bytes, .. } = &event.data.body
            && published.is_ok()
        {
            self.metrics.broker.output_dropped(*bytes);
        }
        published
    }

    async fn stop_consuming(&self) {
        self.queue.stop_consuming().await;
    }

    fn is_connected(&self) -> bool {
        self.queue.is_connected()
    }
}
