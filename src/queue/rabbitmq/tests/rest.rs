//! Sessions that are suspended: nobody begins them again, one task goes on with them, and whatever is left over from before is harmless.

use super::super::ticket::Ticket;
use super::takeover::{claimed, quick};
use super::*;

/// What goes on from an attempt.
fn from(after: u32) -> Again {
    Again {
        body: Bytes::from_static(b"resume"),
        attempt: after + 1,
        after,
        rests: true,
        ..again()
    }
}

async fn claim_of(queue: &RabbitMq, id: SessionId, again: Again) -> Claimed {
    within("a claim", queue.claim(id, again)).await.unwrap()
}

async fn owner_of(queue: &RabbitMq, id: SessionId, again: Again) -> Box<dyn Claim> {
    match claim_of(queue, id, again).await {
        Claimed::Owner(claim) => claim,
        other @ (Claimed::Elsewhere | Claimed::Superseded | Claimed::Over(_)) => panic!("not the owner: {other:?}"),
    }
}

/// Waits until no ticket rests or is looked at, with a look at each in between.
async fn no_tickets(operator: &Operator) {
    let names = &operator.settings.names;
    within("the end of all tickets", async {
        let mut none = 0;
        while none < 20 {
            let left = operator.waiting(&names.tickets).await + operator.waiting(&names.checks).await;
            none = if left == 0 { none + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_session_is_not_begun_again_and_goes_on_by_a_task_that_says_from_where() {
    let Some(config) = quick() else { return };
    let queue = started(&config).await;
    let operator = Operator::of(&config).await;
    let id = session();
    let claim = claimed(&queue, &config, id).await;
    within("suspending", claim.suspend(false)).await.unwrap();
    assert_eq!(send_control(&config, id, b"prompt").await.unwrap(), Routed::NoRoute);
    no_tickets(&operator).await;
    assert_eq!(operator.waiting(&operator.settings.names.lanes[0]).await, 0);

    // A late duplicate is nobody's task, whatever attempt the broker makes of it.
    for attempt in [1, 2, 9] {
        let late = Again { attempt, ..again() };
        assert!(matches!(claim_of(&queue, id, late).await, Claimed::Superseded));
    }
    let claim = owner_of(&queue, id, from(1)).await;
    assert_eq!(send_control(&config, id, b"prompt").await.unwrap(), Routed::Delivered);
    within("closing", claim.close()).await.unwrap();
    // The tombstone wins.
    assert!(matches!(claim_of(&queue, id, again()).await, Claimed::Over(_)));
    assert!(matches!(claim_of(&queue, id, from(1)).await, Claimed::Over(_)));
    no_tickets(&operator).await;
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_on_elsewhere_is_queued_and_finds_the_mailbox_as_it_was() {
    let Some(config) = quick() else { return };
    let (one, two) = (started(&config).await, started(&config).await);
    let id = session();
    let claim = claimed(&one, &config, id).await;
    let next = Again {
        lane: "tasks".into(),
        ..from(1)
    };
    send_control(&config, id, b"unread").await.unwrap();
    within("queueing", claim.hand_on(next)).await.unwrap();
    within("suspending", claim.suspend(true)).await.unwrap();
    assert_eq!(
        send_control(&config, id, b"in between").await.unwrap(),
        Routed::Delivered
    );
    let mut delivery = task(&two).await;
    delivery.count_from(1);
    assert_eq!((&delivery.body[..], delivery.attempt), (&b"resume"[..], 2));
    let mut claim = owner_of(&two, id, delivery.again(1)).await;
    delivery.handle.settle(Settle::Ack).await.unwrap();
    assert_eq!(claim.waiting(), 2);
    for body in [&b"unread"[..], b"in between"] {
        let given = within("control", claim.next_control()).await.unwrap();
        assert_eq!(given.body, body);
        claim.taken(given.receipt);
    }
    claim.close().await.unwrap();
    let operator = Operator::of(&config).await;
    no_tickets(&operator).await;
    assert_eq!(operator.waiting(&operator.settings.names.lanes[0]).await, 0);
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_goes_on_waits_for_the_owner_to_let_go() {
    let Some(mut config) = broker() else { return };
    config.confirm_timeout_s = u64::from(10 * slowness());
    let (one, two) = (started(&config).await, started(&config).await);
    let id = session();
    let claim = owner(&one, id).await;
    // The task was queued first, and another worker is quick: it has no answer as long as the owner is there.
    let mut next = Box::pin(owner_of(&two, id, from(1)));
    assert!(timeout(Duration::from_secs(1), &mut next).await.is_err());
    claim.suspend(false).await.unwrap();
    let next = next.await;
    within("closing", next.close()).await.unwrap();
    Operator::of(&config).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_goes_on_and_meets_an_owner_is_kept_as_a_ticket() {
    let Some(mut config) = quick() else { return };
    config.confirm_timeout_s = slowness().into();
    let (one, two) = (started(&config).await, started(&config).await);
    let id = session();
    let claim = owner(&one, id).await;
    assert!(matches!(claim_of(&two, id, from(1)).await, Claimed::Elsewhere));
    // The owner dies before it lets go, and what was queued is all that is left of the session.
    drop(claim);
    drop(one);
    let operator = Operator::of(&config).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let delivery = task(&two).await;
        seen.push((delivery.body.clone(), delivery.takeovers));
        delivery.handle.settle(Settle::Ack).await.unwrap();
    }
    seen.sort();
    assert_eq!(
        seen,
        [(Bytes::from_static(b"resume"), 1), (Bytes::from_static(b"task"), 1)]
    );
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_dies_between_queueing_and_marking_leaves_a_ticket_that_comes_to_nothing() {
    let Some(config) = quick() else { return };
    let (one, two) = (started(&config).await, started(&config).await);
    let id = session();
    let claim = claimed(&one, &config, id).await;
    let next = Again {
        lane: "tasks".into(),
        ..from(1)
    };
    Ticket::new(id, next)
        .queue(&one.settings, &one.publisher)
        .await
        .unwrap();
    drop(claim);
    drop(one);
    // Both are there: what goes on, and what the ticket of the dead owner put back.
    let (goes_on, begins) = (task(&two).await, task(&two).await);
    assert_eq!(
        (&goes_on.body[..], &begins.body[..]),
        (&b"resume"[..], &b"the task"[..])
    );
    let claim = owner_of(&two, id, goes_on.again(1)).await;
    assert!(matches!(claim_of(&two, id, begins.again(0)).await, Claimed::Superseded));
    goes_on.handle.settle(Settle::Ack).await.unwrap();
    begins.handle.settle(Settle::Ack).await.unwrap();
    claim.close().await.unwrap();
    let operator = Operator::of(&config).await;
    no_tickets(&operator).await;
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_old_task_is_quicker_it_runs_and_its_suspension_ends_the_other() {
    let Some(mut config) = quick() else { return };
    config.confirm_timeout_s = slowness().into();
    let queue = started(&config).await;
    let id = session();
    // The take-over of the dead owner's task is claimed before what it had queued.
    let old = Again {
        attempt: 2,
        takeovers: 1,
        ..again()
    };
    let claim = owner_of(&queue, id, old).await;
    assert!(matches!(claim_of(&queue, id, from(1)).await, Claimed::Elsewhere));
    within("suspending", claim.suspend(false)).await.unwrap();
    assert!(matches!(claim_of(&queue, id, from(1)).await, Claimed::Superseded));
    let operator = Operator::of(&config).await;
    no_tickets(&operator).await;
    assert_eq!(operator.waiting(&operator.settings.names.lanes[0]).await, 0);
    let claim = owner_of(&queue, id, from(2)).await;
    claim.close().await.unwrap();
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_dies_between_marking_and_letting_go_leaves_nothing_that_runs() {
    let Some(config) = quick() else { return };
    let (one, two) = (started(&config).await, started(&config).await);
    let operator = Operator::of(&config).await;
    let id = session();
    let claim = claimed(&one, &config, id).await;
    let channel = operator.live.channel(&operator.settings).await.unwrap();
    let mark = operator.settings.names.superseded(id, 0);
    topology::declare_mark(&channel, mark).await.unwrap();
    drop(claim);
    drop(one);
    no_tickets(&operator).await;
    assert_eq!(operator.waiting(&operator.settings.names.lanes[0]).await, 0);
    let claim = owner_of(&two, id, from(1)).await;
    claim.close().await.unwrap();
    operator.clean().await;
}
