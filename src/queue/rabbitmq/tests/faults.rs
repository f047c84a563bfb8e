//! What stays true when the network between worker and broker fails.

use std::time::Instant;

use super::proxy::{Mode, Proxy};
use super::*;

/// The configuration of a worker behind a proxy; the plain one goes straight to the broker.
pub(super) async fn behind_proxy(config: &Config, first: Mode) -> (Config, Proxy) {
    let mut url = url::Url::parse(&config.url).unwrap();
    let broker = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672));
    let proxy = Proxy::to(broker, first).await;
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(proxy.address.port())).unwrap();
    let config = Config {
        url: url.to_string(),
        ..config.clone()
    };
    (config, proxy)
}

/// Waits until the connections of this moment are gone.
async fn lost(queue: &RabbitMq, consuming: u64, publishing: u64) {
    within("losing the connections", async {
        queue.consuming.lost(consuming).await;
        queue.publishing.lost(publishing).await;
    })
    .await;
}

fn generations(queue: &RabbitMq) -> (u64, u64) {
    let of = |link: &Link| link.current().unwrap().generation;
    (of(&queue.consuming), of(&queue.publishing))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_at_start_is_waited_for() {
    let Some(direct) = broker() else { return };
    let (config, proxy) = behind_proxy(&direct, Mode::Refuse).await;
    let error = RabbitMq::check(&config).await.unwrap_err();
    assert!(matches!(error, QueueError::Connect { .. }), "{error}");
    assert!(error.is_transient());

    let queue = RabbitMq::start(&config).unwrap();
    assert!(!queue.is_connected());
    let event = Event::now("w", session(), 1, 1, EventBody::TurnStarted { turn: 1 });
    assert!(queue.publish(&event).await.is_err(), "nobody can have confirmed it");
    let waiting = async {
        proxy.set(Mode::Open);
        ready(&queue).await;
        submit(&direct, b"x").await.unwrap();
    };
    let (delivery, ()) = tokio::join!(task(&queue), waiting);
    assert_eq!(&delivery.body[..], b"x");
    assert!(queue.is_connected());
    queue.publish(&event).await.unwrap();
    RabbitMq::check(&config).await.unwrap();
    Operator::of(&direct).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_accepts_and_says_nothing_is_given_up_and_tried_again() {
    let Some(direct) = broker() else { return };
    let (config, proxy) = behind_proxy(&direct, Mode::Hole).await;
    let error = within("the time limit", RabbitMq::check(&config)).await.unwrap_err();
    assert!(matches!(error, QueueError::Connect { .. }), "{error}");
    let queue = RabbitMq::start(&config).unwrap();
    assert!(within("the time limit", queue.claim(session(), again())).await.is_err());
    proxy.set(Mode::Open);
    ready(&queue).await;
    Operator::of(&direct).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reset_old_deliveries_are_refused_and_waiting_goes_on() {
    let Some(direct) = broker() else { return };
    let (config, proxy) = behind_proxy(&direct, Mode::Open).await;
    let queue = started(&config).await;
    submit(&direct, b"one").await.unwrap();
    let old = task(&queue).await;
    let (consuming, publishing) = generations(&queue);
    proxy.reset();
    lost(&queue, consuming, publishing).await;
    ready(&queue).await;
    let error = old.handle.settle(Settle::Ack).await.unwrap_err();
    assert!(matches!(error, QueueError::Settle(_)), "{error}");

    let again = task(&queue).await;
    assert_eq!(
        (&again.body[..], again.redelivered, again.attempt),
        (&b"one"[..], true, 2)
    );
    again.handle.settle(Settle::Ack).await.unwrap();

    // A worker that waits does not notice the reset.
    let (consuming, publishing) = generations(&queue);
    let disturbed = async {
        proxy.reset();
        lost(&queue, consuming, publishing).await;
        submit(&direct, b"two").await.unwrap();
    };
    let (delivery, ()) = tokio::join!(task(&queue), disturbed);
    assert_eq!((&delivery.body[..], delivery.attempt), (&b"two"[..], 1));
    Operator::of(&direct).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_does_not_cost_a_session_its_owner() {
    let Some(direct) = broker() else { return };
    let (config, proxy) = behind_proxy(&direct, Mode::Open).await;
    let queue = started(&config).await;
    let other = started(&direct).await;
    let id = session();
    let mut claim = owner(&queue, id).await;
    for (half, body) in [(false, &b"after a reset"[..]), (true, b"after losing our half only")] {
        ready(&queue).await;
        let (consuming, publishing) = generations(&queue);
        if half {
            // The broker keeps our old consumer until it misses our heartbeats; that must not look like another owner.
            proxy.reset_our_half();
        } else {
            proxy.reset();
        }
        lost(&queue, consuming, publishing).await;
        // The mailbox outlives its consumer, so the message is there whenever it is taken back.
        assert_eq!(send_control(&direct, id, body).await.unwrap(), Routed::Delivered);
        // What was read just before a reset may come twice; nothing may be missing.
        within("control", async {
            while claim.next_control().await.unwrap().body != body {}
        })
        .await;
        assert!(matches!(other.claim(id, again()).await.unwrap(), Claimed::Elsewhere));
    }
    within("closing", claim.close()).await.unwrap();
    assert!(matches!(other.claim(id, again()).await.unwrap(), Claimed::Over(_)));
    Operator::of(&direct).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_away_too_long_learns_that_it_lost() {
    let Some(direct) = broker() else { return };
    let (config, proxy) = behind_proxy(&direct, Mode::Open).await;
    let queue = started(&config).await;
    let id = session();
    let mut claim = owner(&queue, id).await;
    let (consuming, publishing) = generations(&queue);
    proxy.set(Mode::Refuse);
    proxy.reset();
    lost(&queue, consuming, publishing).await;
    let other = started(&direct).await;
    let theirs = owner(&other, id).await;
    proxy.set(Mode::Open);
    assert!(within("losing", claim.next_control()).await.is_none());
    assert!(claim.close().await.is_err(), "only the owner ends a session");
    assert_eq!(send_control(&direct, id, b"x").await.unwrap(), Routed::Delivered);
    theirs.close().await.unwrap();
    Operator::of(&direct).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_costs_time_limits_and_no_more() {
    let Some(direct) = broker() else { return };
    let (config, proxy) = behind_proxy(&direct, Mode::Open).await;
    let queue = started(&config).await;
    let id = session();
    let mut events = follow(&direct, id).await.unwrap();
    let event = Event::now("w", id, 1, 1, EventBody::TurnStarted { turn: 1 });
    submit(&direct, b"x").await.unwrap();
    let delivery = task(&queue).await;
    let (consuming, publishing) = generations(&queue);
    proxy.set(Mode::Hole);
    let since = Instant::now();
    let limit = Duration::from_secs(config.confirm_timeout_s);
    assert!(within("the time limit", queue.publish(&event)).await.is_err());
    assert!(
        within("the time limit", delivery.handle.settle(Settle::Ack))
            .await
            .is_err()
    );
    assert!(since.elapsed() < limit * 8, "{:?}", since.elapsed());
    lost(&queue, consuming, publishing).await;
    assert!(!queue.is_connected());

    proxy.set(Mode::Open);
    ready(&queue).await;
    within("a publish", async { while queue.publish(&event).await.is_err() {} }).await;
    let (body, _) = within("the event", events.next()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Event>(&body).unwrap().id, event.id);
    let again = task(&queue).await;
    assert_eq!(&again.body[..], b"x");
    Operator::of(&direct).await.clean().await;
}
