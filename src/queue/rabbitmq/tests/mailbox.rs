//! What is sent to a session before it is claimed, while its owner dies, and when it ends: nothing vanishes.

use super::takeover::{claimed, quick};
use super::*;

async fn next(claim: &mut Box<dyn Claim>) -> Option<Bytes> {
    within("a control message", claim.next_control()).await
}

/// Becomes the owner as soon as nobody else is.
async fn owner_at_last(queue: &RabbitMq, id: SessionId) -> Box<dyn Claim> {
    within("the mailbox to be free", async {
        loop {
            if let Claimed::Owner(claim) = queue.claim(id, again()).await.unwrap() {
                return claim;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_before_the_claim_waits_and_comes_first() {
    let Some(config) = broker() else { return };
    let queue = started(&config).await;
    let id = session();
    assert_eq!(
        super::super::submit(&config, id, b"task").await.unwrap(),
        Routed::Delivered
    );
    for early in [&b"one"[..], b"two"] {
        assert_eq!(send_control(&config, id, early).await.unwrap(), Routed::Delivered);
    }
    let mut claim = owner(&queue, id).await;
    assert_eq!(claim.waiting(), 2);
    send_control(&config, id, b"three").await.unwrap();
    for body in [&b"one"[..], b"two", b"three"] {
        assert_eq!(next(&mut claim).await.as_deref(), Some(body));
        claim.taken();
    }
    claim.close().await.unwrap();
    // Sent once more it opens no mailbox: there will be nobody to read it.
    assert_eq!(
        super::super::submit(&config, id, b"task").await.unwrap(),
        Routed::Delivered
    );
    assert_eq!(send_control(&config, id, b"late").await.unwrap(), Routed::NoRoute);
    Operator::of(&config).await.clean().await;
}

/// As an orchestrator does it that does not use this program: the words of the README.
async fn declare_by_hand(operator: &Operator, id: SessionId, arguments: &[(&str, lapin::types::AMQPValue)]) {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    let channel = operator.live.channel(&operator.settings).await.unwrap();
    let mailbox = operator.settings.names.mailbox(id);
    let declared = channel.queue_declare(mailbox.as_str().into(), QueueDeclareOptions::durable(), table);
    declared.await.unwrap();
    let (exchange, key) = (operator.settings.names.session_in.as_str(), id.to_string());
    let options = lapin::options::QueueBindOptions::default();
    channel
        .queue_bind(
            mailbox.into(),
            exchange.into(),
            key.into(),
            options,
            FieldTable::default(),
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_was_declared_as_documented_is_the_claimers_and_any_other_is_made_anew() {
    use lapin::types::AMQPValue::{LongInt, LongString};
    let Some(config) = broker() else { return };
    let queue = started(&config).await;
    let operator = Operator::of(&config).await;
    let id = session();
    let documented = [
        ("x-expires", LongInt(86_400_000)),
        ("x-max-length", LongInt(1000)),
        ("x-overflow", LongString("reject-publish".into())),
    ];
    declare_by_hand(&operator, id, &documented).await;
    send_control(&config, id, b"early").await.unwrap();
    let mut claim = owner(&queue, id).await;
    assert_eq!(
        (claim.waiting(), next(&mut claim).await.as_deref()),
        (1, Some(&b"early"[..]))
    );
    claim.close().await.unwrap();

    // A quorum queue knows no exclusive consumer: two workers would own the session.
    let id = session();
    declare_by_hand(&operator, id, &[("x-queue-type", LongString("quorum".into()))]).await;
    let claim = owner(&queue, id).await;
    assert_eq!(claim.waiting(), 0);
    assert!(matches!(queue.claim(id, again()).await.unwrap(), Claimed::Elsewhere));
    assert_eq!(send_control(&config, id, b"x").await.unwrap(), Routed::Delivered);
    claim.close().await.unwrap();
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_taken_comes_to_the_next_owner_and_what_was_does_not() {
    let Some(config) = quick() else { return };
    let (one, two) = (started(&config).await, started(&config).await);
    let id = session();
    let mut claim = owner(&one, id).await;
    for body in [&b"taken"[..], b"kept", b"taken too"] {
        send_control(&config, id, body).await.unwrap();
        assert_eq!(next(&mut claim).await.as_deref(), Some(body));
        if body != b"kept" {
            claim.taken();
        }
    }
    // Acks are on their way; the answer to a declaration on the same connection comes after them.
    let operator = Operator::of(&config).await;
    drop(claim);
    let mut claim = owner_at_last(&two, id).await;
    assert_eq!(next(&mut claim).await.as_deref(), Some(&b"kept"[..]));
    claim.taken();
    within("shutting", claim.shut()).await.unwrap();
    assert_eq!(next(&mut claim).await, None);
    claim.close().await.unwrap();
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shut_mailbox_gives_all_that_came_before_and_lets_nothing_in() {
    let Some(config) = broker() else { return };
    let queue = started(&config).await;
    let id = session();
    let mut claim = owner(&queue, id).await;
    // More than are on their way at once.
    for number in 0..40_u32 {
        send_control(&config, id, number.to_string().as_bytes()).await.unwrap();
    }
    within("shutting", claim.shut()).await.unwrap();
    assert_eq!(send_control(&config, id, b"late").await.unwrap(), Routed::NoRoute);
    for number in 0..40_u32 {
        assert_eq!(next(&mut claim).await.as_deref(), Some(number.to_string().as_bytes()));
        claim.taken();
    }
    assert_eq!(next(&mut claim).await, None);
    assert_eq!(next(&mut claim).await, None);
    claim.close().await.unwrap();
    Operator::of(&config).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_dies_while_it_shuts_leaves_a_mailbox_that_works() {
    let Some(config) = quick() else { return };
    let (one, two) = (started(&config).await, started(&config).await);
    let id = session();
    let mut claim = claimed(&one, &config, id).await;
    within("shutting", claim.shut()).await.unwrap();
    drop(claim);
    drop(one);
    let delivery = task(&two).await;
    let mut claim = owner(&two, id).await;
    delivery.handle.settle(Settle::Ack).await.unwrap();
    assert_eq!(send_control(&config, id, b"x").await.unwrap(), Routed::Delivered);
    // What the dead one put there is nobody's message.
    assert_eq!(next(&mut claim).await.as_deref(), Some(&b"x"[..]));
    claim.close().await.unwrap();
    Operator::of(&config).await.clean().await;
}
