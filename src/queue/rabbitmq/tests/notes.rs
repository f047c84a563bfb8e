//! What owners keep for the next one, and the attempts that they take: newest first, and always higher.

use super::super::ticket::Ticket;
use super::proxy::Mode;
use super::takeover::{claimed, quick};
use super::*;

/// A claim of what came from the queue, acknowledged.
async fn claimed_again(queue: &RabbitMq, id: SessionId) -> Box<dyn Claim> {
    within("a claim", async {
        loop {
            let delivery = task(queue).await;
            let claimed = queue.claim(id, delivery.again(0)).await.unwrap();
            delivery.handle.settle(Settle::Ack).await.unwrap();
            if let Claimed::Owner(claim) = claimed {
                return claim;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_owner_knows_what_the_last_one_kept_last_and_a_task_from_later_does_not() {
    let Some(config) = quick() else { return };
    let (one, two) = (started(&config).await, started(&config).await);
    let operator = Operator::of(&config).await;
    let id = session();
    let claim = claimed(&one, &config, id).await;
    assert_eq!((claim.attempt(), claim.kept()), (1, None));
    for kept in [&b"first"[..], b"second", b"third", b"fourth", b"fifth", b"sixth"] {
        claim.keep(Bytes::from_static(kept)).await.unwrap();
    }
    drop(claim);
    drop(one);
    let claim = claimed_again(&two, id).await;
    assert_eq!((claim.attempt(), claim.kept().as_deref()), (2, Some(&b"sixth"[..])));
    // One that dies before it kept anything loses nothing.
    drop(claim);
    let claim = claimed_again(&two, id).await;
    assert_eq!((claim.attempt(), claim.kept().as_deref()), (3, Some(&b"sixth"[..])));
    let notes = operator.settings.names.notes(id);
    operator.holds(&notes, 1).await;

    // What is older than the task that goes on is not its.
    let going_on = Again {
        attempt: 4,
        after: 3,
        ..again()
    };
    drop(claim);
    let claim = within("a claim", async {
        loop {
            if let Claimed::Owner(claim) = two.claim(id, going_on.clone()).await.unwrap() {
                return claim;
            }
        }
    })
    .await;
    assert_eq!((claim.attempt(), claim.kept()), (4, None));
    claim.keep(Bytes::from_static(b"later")).await.unwrap();
    within("closing", claim.close()).await.unwrap();
    let there = topology::queue_exists(&operator.live, &operator.settings, &notes).await;
    assert!(!there.unwrap(), "it goes with the session");
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_increase_however_many_tickets_and_tasks_lead_to_a_session() {
    let Some(config) = quick() else { return };
    let one = started(&config).await;
    let id = session();
    let mut attempts = Vec::new();
    let claim = claimed(&one, &config, id).await;
    attempts.push(claim.attempt());
    // As when workers died after they laid a ticket and before they acknowledged the task; and its sender sent it twice.
    for attempt in [1, 1, 2] {
        let left = Again { attempt, ..again() };
        Ticket::new(id, left)
            .issue(&one.settings, &one.publisher)
            .await
            .unwrap();
    }
    drop(claim);
    for _ in 0..4 {
        let claim = claimed_again(&one, id).await;
        attempts.push(claim.attempt());
        drop(claim);
    }
    submit(&config, b"the task").await.unwrap();
    let claim = within("a claim", async {
        loop {
            if let Claimed::Owner(claim) = one.claim(id, again()).await.unwrap() {
                return claim;
            }
        }
    })
    .await;
    attempts.push(claim.attempt());
    assert!(attempts.windows(2).all(|pair| pair[0] < pair[1]), "{attempts:?}");
    within("closing", claim.close()).await.unwrap();
    Operator::of(&config).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_comes_back_after_another_had_the_session_and_died_has_lost_it() {
    let Some(direct) = broker() else { return };
    let (config, proxy) = faults::behind_proxy(&direct, Mode::Open).await;
    let queue = started(&config).await;
    let id = session();
    let mut claim = owner(&queue, id).await;
    let generation = queue.consuming.current().unwrap().generation;
    proxy.set(Mode::Refuse);
    proxy.reset();
    within("losing the connection", queue.consuming.lost(generation)).await;
    let other = started(&direct).await;
    let theirs = owner(&other, id).await;
    assert_eq!(theirs.attempt(), 2);
    // Its mailbox is free again, and nobody left a mark.
    drop(theirs);
    drop(other);
    proxy.set(Mode::Open);
    assert!(within("learning", claim.next_control()).await.is_none());
    assert!(claim.close().await.is_err(), "only the owner ends a session");
    Operator::of(&direct).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_taken_while_nothing_can_be_published() {
    let Some(direct) = broker() else { return };
    let (config, proxy) = faults::behind_proxy(&direct, Mode::Refuse).await;
    // Declares the queues.
    let operator = Operator::of(&direct).await;
    drop(started(&direct).await);
    let settings = Arc::new(Settings::resolve(&direct).unwrap());
    let away = Arc::new(Settings::resolve(&config).unwrap());
    let consuming = Arc::new(Link::start(Arc::clone(&settings), "consuming", Arc::default()));
    let publishing = Arc::new(Link::start(Arc::clone(&away), "publishing", Arc::default()));
    let queue = RabbitMq {
        publisher: Arc::new(Publisher::new(Arc::clone(&settings), Arc::clone(&publishing))),
        settings,
        consuming,
        publishing,
        stopped: watch::Sender::new(false),
        checks: tokio::spawn(async {}).abort_handle(),
    };
    within("consuming", queue.consuming.connected()).await;
    submit(&direct, b"x").await.unwrap();
    let mut next = Box::pin(queue.next_task());
    assert!(timeout(Duration::from_secs(1), &mut next).await.is_err());
    operator.holds(&operator.settings.names.lanes[0], 1).await;
    proxy.set(Mode::Open);
    let delivery = within("a task", next).await.unwrap();
    assert_eq!((&delivery.body[..], delivery.attempt), (&b"x"[..], 1));
    delivery.handle.settle(Settle::Ack).await.unwrap();
    operator.clean().await;
}
