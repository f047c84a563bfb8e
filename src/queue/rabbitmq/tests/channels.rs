//! A connection that lasts: the numbers of its channels are used again and again, also those that the broker closed.

use super::*;

/// As few channels as a worker can do with, so that their numbers are used again soon.
fn narrow() -> Option<Config> {
    let mut config = broker()?;
    config.url.push_str("?channel_max=24");
    Some(config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_claimed_for_as_long_as_the_connection_lasts() {
    let Some(config) = narrow() else { return };
    let queue = started(&config).await;
    let generation = queue.consuming.connected().await.generation;
    // Each looks several times for what is not there, which the broker answers by closing the channel.
    for number in 0..40 {
        let id = session();
        let claimed = within("a claim", queue.claim(id, again())).await;
        let Ok(Claimed::Owner(claim)) = claimed else {
            panic!("session {number}: {claimed:?}");
        };
        within("closing", claim.close()).await.unwrap();
        assert!(matches!(queue.claim(id, again()).await.unwrap(), Claimed::Over(_)));
    }
    assert_eq!(queue.consuming.connected().await.generation, generation);
    Operator::of(&config).await.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_without_end_cost_the_owner_nothing_for_good() {
    let Some(config) = narrow() else { return };
    let (one, two) = (started(&config).await, started(&config).await);
    let id = session();
    let mut claim = owner(&one, id).await;
    // Each is refused by the broker on the connection that owns sessions too.
    for number in 0..80 {
        let claimed = within("a claim", async {
            loop {
                // A connection that is used up is replaced, which takes a moment.
                match two.claim(id, again()).await {
                    Err(QueueError::Claim { .. }) => two.consuming.connected().await,
                    claimed => return claimed,
                };
            }
        })
        .await;
        assert!(matches!(claimed, Ok(Claimed::Elsewhere)), "{number}: {claimed:?}");
    }
    send_control(&config, id, b"x").await.unwrap();
    assert_eq!(within("control", claim.next_control()).await.unwrap().body, b"x"[..]);
    let mut own = owner(&two, session()).await;
    assert_eq!(own.waiting(), 0);
    within("shutting", own.shut()).await.unwrap();
    within("closing", own.close()).await.unwrap();
    Operator::of(&config).await.clean().await;
}
