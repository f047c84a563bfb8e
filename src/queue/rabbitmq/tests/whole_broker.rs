//! Faults of the broker itself. They disturb every other user of it, so these tests run only when asked for, alone, against a broker of their
//! own: `COFFERDAM_TEST_RABBITMQCTL='tests/rabbitmq.sh ctl' cargo test --lib whole_broker -- --ignored --test-threads=1`.

use std::time::Instant;

use super::*;

/// Runs the broker's control program.
async fn control(arguments: &[&str]) {
    let command = std::env::var("COFFERDAM_TEST_RABBITMQCTL").expect("COFFERDAM_TEST_RABBITMQCTL names rabbitmqctl");
    let mut words = command.split_whitespace();
    let mut command = tokio::process::Command::new(words.next().unwrap());
    let output = command.args(words).args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "stops all publishers of the broker"]
async fn a_memory_alarm_stops_events_and_not_acks() {
    let Some(config) = broker() else { return };
    let queue = started(&config).await;
    let id = session();
    let mut events = follow(&config, id).await.unwrap();
    submit(&config, b"x").await.unwrap();
    let delivery = task(&queue).await;
    let claim = owner(&queue, id).await;
    submit(&config, b"y").await.unwrap();
    control(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;

    let event = Event::now("w", id, 1, 1, EventBody::TurnStarted { turn: 1 });
    // The broker says that it blocks when something is published.
    assert!(within("the time limit", queue.publish(&event)).await.is_err());
    let since = Instant::now();
    let chatter = Event::now("w", id, 1, 2, EventBody::AgentMessage { text: "x".into() });
    assert!(queue.publish(&chatter).await.is_err());
    assert!(
        since.elapsed() < Duration::from_secs(1),
        "progress does not wait for a blocked broker"
    );
    assert!(queue.is_connected());
    // What waits is not taken: nothing could be told of it.
    assert!(timeout(Duration::from_secs(1), queue.next_task()).await.is_err());
    let operator = Operator::of(&config).await;
    operator.holds(&operator.settings.names.lanes[0], 1).await;
    delivery.handle.settle(Settle::Ack).await.unwrap();
    within("closing", claim.close()).await.unwrap();

    control(&["set_vm_memory_high_watermark", "0.4"]).await;
    within("a publish", async { while queue.publish(&event).await.is_err() {} }).await;
    let (body, _) = within("the event", events.next()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Event>(&body).unwrap().id, event.id);
    Operator::of(&config).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "restarts the broker"]
async fn a_restart_of_the_broker_is_survived() {
    let Some(config) = broker() else { return };
    let queue = started(&config).await;
    let id = session();
    let mut claim = owner(&queue, id).await;
    submit(&config, b"before").await.unwrap();
    let restarted = async {
        control(&["stop_app"]).await;
        within("losing it", async {
            while queue.is_connected() {
                tokio::task::yield_now().await
            }
        })
        .await;
        control(&["start_app"]).await;
        ready(&queue).await;
    };
    restarted.await;
    assert_eq!(&task(&queue).await.body[..], b"before");
    assert_eq!(send_control(&config, id, b"after").await.unwrap(), Routed::Delivered);
    let control = within("control", claim.next_control()).await;
    assert_eq!(control.unwrap().body, b"after"[..]);
    within("closing", claim.close()).await.unwrap();
    Operator::of(&config).await.clean().await;
}
