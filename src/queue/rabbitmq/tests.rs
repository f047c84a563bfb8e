//! Against a real broker: what an orchestrator, another worker and an operator see. Set COFFERDAM_TEST_AMQP to its address.
//!
//! Each test has a prefix of its own. Faults come from a proxy in this process (`proxy`); no test waits for a time, only for conditions.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use lapin::options::{BasicGetOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use tokio::time::timeout;

use super::super::{Claim, Given, Routed, Settle};
use super::*;
use crate::message::EventBody;

mod channels;
mod faults;
mod mailbox;
mod notes;
mod proxy;
mod rest;
mod takeover;
mod whole_broker;

/// Longest that any condition may take to come true on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// By how much longer everything may take on a machine that compiles beside the tests.
fn slowness() -> u32 {
    let told = std::env::var("COFFERDAM_TEST_SLOWNESS").ok();
    told.map_or(1, |told| told.parse().expect("COFFERDAM_TEST_SLOWNESS is a number"))
}

/// A configuration with names of its own, or `None` (said loudly) where no broker is given.
fn broker() -> Option<Config> {
    let Ok(url) = std::env::var("COFFERDAM_TEST_AMQP") else {
        // Not `eprintln!`, which the test harness swallows.
        let _ = std::io::stderr()
            .write_all(b"SKIPPED: COFFERDAM_TEST_AMQP is not set, nothing was tested against RabbitMQ\n");
        return None;
    };
    Some(Config {
        url,
        prefix: format!("test-{}", uuid::Uuid::new_v4().simple()),
        heartbeat_s: 3,
        // Short, for the tests that wait until they are over. In the others the broker has to answer within them.
        connect_timeout_s: u64::from(2 * slowness()),
        confirm_timeout_s: u64::from(2 * slowness()),
        ..Config::default()
    })
}

fn session() -> SessionId {
    SessionId(uuid::Uuid::new_v4())
}

fn again() -> Again {
    Again {
        body: Bytes::from_static(b"task"),
        lane: "no-lane".into(),
        attempt: 1,
        takeovers: 0,
        after: 0,
        rests: false,
        trace: None,
    }
}

/// Whatever body, as the task of some session.
async fn submit(config: &Config, body: &[u8]) -> Result<Routed, QueueError> {
    super::submit(config, session(), body, None).await
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let patience = PATIENCE * slowness();
    match timeout(patience, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {patience:?}"),
    }
}

/// Waits until both connections are there.
async fn ready(queue: &RabbitMq) {
    within("connecting", async {
        queue.consuming.connected().await;
        queue.publishing.connected().await;
    })
    .await;
}

async fn started(config: &Config) -> RabbitMq {
    let queue = RabbitMq::start(config).unwrap();
    ready(&queue).await;
    queue
}

async fn task(queue: &RabbitMq) -> Delivery {
    within("a task", queue.next_task()).await.unwrap()
}

async fn owner(queue: &RabbitMq, id: SessionId) -> Box<dyn Claim> {
    match within("a claim", queue.claim(id, again())).await.unwrap() {
        Claimed::Owner(claim) => claim,
        other @ (Claimed::Elsewhere | Claimed::Superseded | Claimed::Over(_)) => panic!("not the owner: {other:?}"),
    }
}

/// The broker as an operator sees it, and removal of what a test leaves behind.
struct Operator {
    live: connection::Live,
    settings: Settings,
}

impl Operator {
    async fn of(config: &Config) -> Self {
        let settings = Settings::resolve(config).unwrap();
        let live = connection::connect_once(&settings, "operator", 0).await.unwrap();
        Self { live, settings }
    }

    /// Messages that wait in a queue.
    async fn waiting(&self, queue: &str) -> u32 {
        let channel = self.live.channel(&self.settings).await.unwrap();
        let options = QueueDeclareOptions::durable().passive();
        let declared = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await;
        declared.unwrap().message_count()
    }

    /// Waits until so many wait there: a broker that is busy says of a quorum queue that it is empty.
    async fn holds(&self, queue: &str, count: u32) {
        within("the messages in the queue", async {
            while self.waiting(queue).await != count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    async fn get(&self, queue: &str) -> lapin::message::Delivery {
        within("a message", async {
            let channel = self.live.channel(&self.settings).await.unwrap();
            loop {
                let options = BasicGetOptions { no_ack: true };
                if let Some(message) = channel.basic_get(queue.into(), options).await.unwrap() {
                    return message.delivery;
                }
            }
        })
        .await
    }

    async fn clean(self) {
        let names = &self.settings.names;
        for queue in names.lanes.iter().chain([&names.dead, &names.tickets, &names.checks]) {
            let channel = self.live.channel(&self.settings).await.unwrap();
            let _ = channel
                .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
                .await;
        }
        for exchange in [&names.events, &names.session_in] {
            let channel = self.live.channel(&self.settings).await.unwrap();
            let options = lapin::options::ExchangeDeleteOptions::default();
            let _ = channel.exchange_delete(exchange.as_str().into(), options).await;
        }
    }
}

fn header(message: &lapin::message::Delivery, name: &str) -> String {
    let headers = message.properties.headers().as_ref().unwrap();
    match headers.inner().get(name) {
        Some(lapin::types::AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("the header {name} is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_delivered_once_and_settled() {
    let Some(config) = broker() else { return };
    let queue = started(&config).await;
    assert_eq!(submit(&config, b"one").await.unwrap(), Routed::Delivered);
    assert_eq!(submit(&config, b"two").await.unwrap(), Routed::Delivered);
    let operator = Operator::of(&config).await;

    let one = task(&queue).await;
    assert_eq!((&one.body[..], one.attempt, one.redelivered), (&b"one"[..], 1, false));
    one.handle.settle(Settle::Ack).await.unwrap();
    // Nobody waits for a task now, so the second stays where any worker can have it.
    operator.holds(&operator.settings.names.lanes[0], 1).await;

    let two = task(&queue).await;
    assert_eq!(&two.body[..], b"two");
    two.handle.settle(Settle::Return).await.unwrap();
    let again = task(&queue).await;
    assert_eq!(
        (&again.body[..], again.attempt, again.redelivered),
        (&b"two"[..], 2, true)
    );
    again.handle.settle(Settle::Ack).await.unwrap();
    drop(queue);

    let next = started(&config).await;
    submit(&config, b"three").await.unwrap();
    assert_eq!(&task(&next).await.body[..], b"three");
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_task_is_dead_lettered_with_the_reason() {
    let Some(config) = broker() else { return };
    let queue = started(&config).await;
    submit(&config, b"{}").await.unwrap();
    let delivery = task(&queue).await;
    let reason = Settle::DeadLetter {
        code: "malformed".into(),
        message: "not JSON".into(),
    };
    delivery.handle.settle(reason).await.unwrap();
    let operator = Operator::of(&config).await;
    let dead = operator.get(&operator.settings.names.dead).await;
    assert_eq!(dead.data, b"{}");
    assert_eq!(header(&dead, "cofferdam-code"), "malformed");
    assert_eq!(header(&dead, "cofferdam-message"), "not JSON");
    assert_eq!(operator.waiting(&operator.settings.names.lanes[0]).await, 0);
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_always_comes_back_ends_in_the_dead_letter_queue() {
    let Some(mut config) = broker() else { return };
    config.delivery_limit = 2;
    let queue = started(&config).await;
    submit(&config, b"poison").await.unwrap();
    for attempt in 1..=3 {
        let delivery = task(&queue).await;
        assert_eq!(delivery.attempt, attempt);
        delivery.handle.settle(Settle::Return).await.unwrap();
    }
    let operator = Operator::of(&config).await;
    let dead = operator.get(&operator.settings.names.dead).await;
    assert_eq!(dead.data, b"poison");
    assert_eq!(header(&dead, "x-first-death-reason"), "delivery_limit");
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_lane_goes_first_and_nothing_is_lost() {
    let Some(mut config) = broker() else { return };
    config.lanes = vec!["interactive".into(), "batch".into()];
    let queue = started(&config).await;
    let batch = Config {
        lanes: vec!["batch".into()],
        ..config.clone()
    };
    submit(&batch, b"later").await.unwrap();
    submit(&config, b"now").await.unwrap();
    for expected in [&b"now"[..], b"later"] {
        let delivery = task(&queue).await;
        assert_eq!((&delivery.body[..], delivery.attempt), (expected, 1));
        delivery.handle.settle(Settle::Ack).await.unwrap();
    }
    // With both lanes empty it waits on both.
    let (delivery, sent) = tokio::join!(task(&queue), submit(&batch, b"last"));
    assert_eq!(sent.unwrap(), Routed::Delivered);
    assert_eq!(&delivery.body[..], b"last");
    Operator::of(&config).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_releases_a_waiting_worker_and_leaves_tasks_to_others() {
    let Some(config) = broker() else { return };
    let queue = started(&config).await;
    let (none, ()) = tokio::join!(within("the end", queue.next_task()), queue.stop_consuming());
    assert!(none.is_none());
    submit(&config, b"x").await.unwrap();
    assert!(queue.next_task().await.is_none());
    let other = started(&config).await;
    assert_eq!(&task(&other).await.body[..], b"x");
    Operator::of(&config).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_has_one_owner_gets_its_control_and_is_over_once() {
    let Some(config) = broker() else { return };
    let (one, two) = (started(&config).await, started(&config).await);
    let id = session();
    assert_eq!(send_control(&config, id, b"early").await.unwrap(), Routed::NoRoute);
    let mut claim = owner(&one, id).await;
    assert!(matches!(two.claim(id, again()).await.unwrap(), Claimed::Elsewhere));
    assert!(matches!(one.claim(id, again()).await.unwrap(), Claimed::Elsewhere));

    assert_eq!(send_control(&config, id, b"cancel").await.unwrap(), Routed::Delivered);
    let control = within("the control message", claim.next_control()).await;
    assert_eq!(control.unwrap().body, b"cancel"[..]);

    within("closing", claim.close()).await.unwrap();
    assert!(matches!(one.claim(id, again()).await.unwrap(), Claimed::Over(_)));
    assert!(matches!(two.claim(id, again()).await.unwrap(), Claimed::Over(_)));
    // A late prompt comes back to its sender: the duplicate's claim above must not have made a mailbox that swallows it.
    assert_eq!(send_control(&config, id, b"late").await.unwrap(), Routed::NoRoute);
    Operator::of(&config).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_dropped_can_be_taken_by_another_worker() {
    let Some(config) = broker() else { return };
    let (one, two) = (started(&config).await, started(&config).await);
    let id = session();
    drop(owner(&one, id).await);
    let mut claim = within("the mailbox to be free", async {
        loop {
            if let Claimed::Owner(claim) = two.claim(id, again()).await.unwrap() {
                return claim;
            }
        }
    })
    .await;
    send_control(&config, id, b"x").await.unwrap();
    assert_eq!(within("control", claim.next_control()).await.unwrap().body, b"x"[..]);
    claim.close().await.unwrap();
    Operator::of(&config).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_reach_the_follower_of_their_session_only() {
    let Some(config) = broker() else { return };
    let queue = started(&config).await;
    let (id, other) = (session(), session());
    let mut events = follow(&config, id).await.unwrap();
    queue
        .publish(&Event::now("w", other, 1, 1, EventBody::TurnStarted { turn: 9 }))
        .await
        .unwrap();
    queue
        .publish(&Event::now("w", id, 1, 1, EventBody::TurnStarted { turn: 1 }))
        .await
        .unwrap();
    queue
        .publish(&Event::now(
            "w",
            id,
            1,
            2,
            EventBody::AgentMessage { text: "hi".into() },
        ))
        .await
        .unwrap();
    for seq in 1..=2 {
        let (body, _) = within("an event", events.next()).await.unwrap();
        let event: Event = serde_json::from_slice(&body).unwrap();
        assert_eq!((event.data.session, event.data.seq), (id, seq));
    }
    Operator::of(&config).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_carry_what_routers_and_loggers_read() {
    let Some(config) = broker() else { return };
    let queue = started(&config).await;
    let operator = Operator::of(&config).await;
    let channel = operator.live.channel(&operator.settings).await.unwrap();
    let bound = format!("{}.audit", config.prefix);
    let options = QueueDeclareOptions::exclusive();
    channel
        .queue_declare(bound.as_str().into(), options, FieldTable::default())
        .await
        .unwrap();
    let events = operator.settings.names.events.as_str();
    let options = lapin::options::QueueBindOptions::default();
    let key = "session.*.turn_started";
    channel
        .queue_bind(
            bound.as_str().into(),
            events.into(),
            key.into(),
            options,
            FieldTable::default(),
        )
        .await
        .unwrap();
    let id = session();
    queue
        .publish(&Event::now("w", id, 1, 3, EventBody::TurnStarted { turn: 1 }))
        .await
        .unwrap();
    let message = operator.get(&bound).await;
    let properties = &message.properties;
    let content_type = properties.content_type().as_ref().unwrap().as_str();
    assert_eq!(content_type, "application/cloudevents+json; charset=utf-8");
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), format!("{id}/1/3"));
    assert_eq!(properties.correlation_id().as_ref().unwrap().as_str(), id.to_string());
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert_eq!(
        header(&message, "cloudEvents_type"),
        "dev.cofferdam.session.turn_started"
    );
    assert_eq!(header(&message, "cloudEvents_source"), "/cofferdam/workers/w");
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submitting_without_any_worker_ever_says_so() {
    let Some(config) = broker() else { return };
    assert_eq!(submit(&config, b"x").await.unwrap(), Routed::NoRoute);
    assert_eq!(send_control(&config, session(), b"x").await.unwrap(), Routed::NoRoute);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_that_an_operator_declared_otherwise_are_used_as_they_are() {
    let Some(config) = broker() else { return };
    let operator = Operator::of(&config).await;
    let channel = operator.live.channel(&operator.settings).await.unwrap();
    let lane = operator.settings.names.lanes[0].as_str();
    let options = QueueDeclareOptions::durable();
    channel
        .queue_declare(lane.into(), options, FieldTable::default())
        .await
        .unwrap();
    RabbitMq::check(&config).await.unwrap();
    let queue = started(&config).await;
    submit(&config, b"x").await.unwrap();
    assert_eq!(&task(&queue).await.body[..], b"x");
    operator.clean().await;
}
