//! What is sent to a session before it is claimed, while its owner dies, and when it ends: nothing vanishes.

use super::takeover::{claimed, quick};
use super::*;

/// The next message, which stays with the broker.
async fn read(claim: &mut Box<dyn Claim>) -> Option<Given> {
    within("a control message", claim.next_control()).await
}

/// The next message, taken.
async fn next(claim: &mut Box<dyn Claim>) -> Option<Bytes> {
    let given = read(claim).await?;
    claim.taken(given.receipt);
    Some(given.body)
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
        super::super::submit(&config, id, b"task", None).await.unwrap(),
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
    }
    claim.close().await.unwrap();
    // Sent once more it opens no mailbox: there will be nobody to read it.
    assert_eq!(
        super::super::submit(&config, id, b"task", None).await.unwrap(),
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
    // In whatever order they are taken.
    let mut given = Vec::new();
    for body in [&b"taken"[..], b"kept", b"taken too"] {
        send_control(&config, id, body).await.unwrap();
        given.push(read(&mut claim).await.unwrap());
        assert_eq!(given.last().unwrap().body, body);
    }
    claim.taken(given[2].receipt);
    claim.taken(given[0].receipt);
    // Acks are on their way; the answer to a declaration on the same connection comes after them.
    let operator = Operator::of(&config).await;
    drop(claim);
    let mut claim = owner_at_last(&two, id).await;
    assert_eq!(next(&mut claim).await.as_deref(), Some(&b"kept"[..]));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_mailbox_is_shut_too_and_gives_all_that_is_in_it() {
    let Some(config) = broker() else { return };
    let queue = started(&config).await;
    let operator = Operator::of(&config).await;
    let id = session();
    let mut claim = owner(&queue, id).await;
    let mailbox = operator.settings.names.mailbox(id);
    let channel = operator.live.channel(&operator.settings).await.unwrap();
    let confirming = lapin::options::ConfirmSelectOptions::default();
    channel.confirm_select(confirming).await.unwrap();
    // Until the broker takes no more.
    let mut sent = 0_u32;
    within("filling", async {
        loop {
            let options = lapin::options::BasicPublishOptions::default();
            let body = sent.to_string();
            let properties = lapin::BasicProperties::default();
            let confirm =
                channel.basic_publish("".into(), mailbox.as_str().into(), options, body.as_bytes(), properties);
            match confirm.await.unwrap().await.unwrap() {
                lapin::Confirmation::Ack(_) => sent += 1,
                lapin::Confirmation::Nack(_) | lapin::Confirmation::NotRequested => return,
            }
        }
    })
    .await;
    assert!(sent >= 1000, "{sent}");
    within("shutting", claim.shut()).await.unwrap();
    for number in 0..sent {
        assert_eq!(next(&mut claim).await.unwrap(), number.to_string().as_bytes());
    }
    assert_eq!(next(&mut claim).await, None);
    claim.close().await.unwrap();
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_in_while_a_session_is_suspended_is_there_for_whoever_goes_on() {
    let Some(config) = broker() else { return };
    let queue = started(&config).await;
    let operator = Operator::of(&config).await;
    for comes in [true, false] {
        let id = session();
        let mut claim = owner(&queue, id).await;
        within("shutting", claim.shut()).await.unwrap();
        assert_eq!(next(&mut claim).await, None);
        if comes {
            // As the event `suspended` says to do it, and quick.
            let settings = &operator.settings;
            let channel = operator.live.channel(settings).await.unwrap();
            topology::declare_mailbox(&channel, &settings.names, id).await.unwrap();
            assert_eq!(send_control(&config, id, b"early").await.unwrap(), Routed::Delivered);
        }
        within("suspending", claim.suspend(false)).await.unwrap();
        let mailbox = operator.settings.names.mailbox(id);
        let there = topology::queue_exists(&operator.live, &operator.settings, &mailbox).await;
        assert_eq!(there.unwrap(), comes);
        let resumed = Again {
            attempt: 2,
            after: 1,
            ..again()
        };
        let Claimed::Owner(mut claim) = queue.claim(id, resumed).await.unwrap() else {
            panic!("it may go on");
        };
        if comes {
            assert_eq!(next(&mut claim).await.as_deref(), Some(&b"early"[..]));
        }
        claim.close().await.unwrap();
    }
    operator.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_task_of_a_session_that_rests_leaves_no_mailbox_that_nobody_reads() {
    let Some(config) = broker() else { return };
    let queue = started(&config).await;
    let operator = Operator::of(&config).await;
    let id = session();
    within("suspending", owner(&queue, id).await.suspend(false))
        .await
        .unwrap();
    // Sent once more by mistake, without a `resume`.
    super::super::submit(&config, id, b"task", None).await.unwrap();
    assert!(matches!(queue.claim(id, again()).await.unwrap(), Claimed::Superseded));
    assert_eq!(send_control(&config, id, b"prompt").await.unwrap(), Routed::NoRoute);
    // What somebody put into it is for whoever goes on.
    super::super::submit(&config, id, b"task", None).await.unwrap();
    assert_eq!(send_control(&config, id, b"prompt").await.unwrap(), Routed::Delivered);
    assert!(matches!(queue.claim(id, again()).await.unwrap(), Claimed::Superseded));
    assert_eq!(operator.waiting(&operator.settings.names.mailbox(id)).await, 1);
    operator.clean().await;
}
