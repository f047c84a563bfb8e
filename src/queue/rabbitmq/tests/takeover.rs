//! An owner that dies is replaced, one that lives is not, and a session that is over is left alone.

use super::*;
use crate::message::TraceParent;

/// Tickets that rest only a second.
pub(super) fn quick() -> Option<Config> {
    let config = broker()?;
    Some(Config { ticket_s: 1, ..config })
}

/// The trace of all tasks here.
fn trace() -> Option<TraceParent> {
    TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
}

/// One worker's claim of a task that was submitted.
pub(super) async fn claimed(queue: &RabbitMq, config: &Config, id: SessionId) -> Box<dyn Claim> {
    submit(config, b"the task").await.unwrap();
    let delivery = task(queue).await;
    let again = Again {
        trace: trace(),
        ..delivery.again(0)
    };
    let Claimed::Owner(claim) = queue.claim(id, again).await.unwrap() else {
        panic!("nobody else has it");
    };
    delivery.handle.settle(Settle::Ack).await.unwrap();
    claim
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_task_of_a_dead_owner_comes_back_as_its_next_attempt() {
    let Some(config) = quick() else { return };
    let (one, two) = (started(&config).await, started(&config).await);
    let id = session();
    let claim = claimed(&one, &config, id).await;
    assert!(*claim.holds().borrow());
    // As when its process is killed: both connections end.
    drop(claim);
    drop(one);
    let delivery = task(&two).await;
    assert_eq!(
        (
            &delivery.body[..],
            delivery.attempt,
            delivery.takeovers,
            delivery.redelivered
        ),
        (&b"the task"[..], 2, 1, false)
    );
    assert_eq!(delivery.trace, trace());
    assert_eq!(delivery.lane, Operator::of(&config).await.settings.names.lanes[0]);
    let claim = owner(&two, id).await;
    delivery.handle.settle(Settle::Ack).await.unwrap();
    claim.close().await.unwrap();
    Operator::of(&config).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_owner_keeps_its_session_and_a_finished_one_leaves_no_ticket() {
    let Some(config) = quick() else { return };
    let (one, two) = (started(&config).await, started(&config).await);
    let operator = Operator::of(&config).await;
    let names = &operator.settings.names;
    let (living, id) = (session(), session());
    let keeps = claimed(&one, &config, living).await;
    // A session whose owner died is looked at as often as the living one: when it comes back, the living one was found alive each time.
    let dies = claimed(&two, &config, id).await;
    drop(dies);
    drop(two);
    let three = started(&config).await;
    let delivery = task(&three).await;
    assert_eq!(delivery.attempt, 2);
    let dead = owner(&three, id).await;
    delivery.handle.settle(Settle::Ack).await.unwrap();
    assert_eq!(operator.waiting(&names.lanes[0]).await, 0);
    assert!(*keeps.holds().borrow());
    dead.close().await.unwrap();
    keeps.close().await.unwrap();
    within("the end of all tickets", async {
        // Whoever looks holds one for a moment, so they must be gone twice in a row with a look in between.
        let mut none = 0;
        while none < 20 {
            let left = operator.waiting(&names.tickets).await + operator.waiting(&names.checks).await;
            none = if left == 0 { none + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(operator.waiting(&names.lanes[0]).await, 0);
    operator.clean().await;
}
