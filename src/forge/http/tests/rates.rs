//! Tests of waiting, taking turns and asking again at no cost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::facts;
use crate::forge::fake::{Fake, Reply, clients, connected, path};
use crate::forge::{Config, Connect as _, Forge, ForgeError};
use crate::message::ForgeKind;
use crate::secret::Secret;

fn note() -> Reply {
    Reply::json(201, &json!({"id": 1, "body": "x"}))
}

#[tokio::test]
async fn pitfall_20_writers_of_one_token_take_turns() {
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let seen = Arc::clone(&times);
    let fake = Fake::start(move |_, _| {
        seen.lock().unwrap().push(Instant::now());
        note()
    })
    .await;
    let gap = Duration::from_millis(60);
    let clients = clients_with(gap);
    let one = connected(&clients, ForgeKind::Gitlab, &fake.url);
    let other = connected(&clients, ForgeKind::Gitlab, &fake.url);
    let project = facts();
    let (a, b, c) = tokio::join!(
        one.reply(&project, 1, None, "x"),
        other.reply(&project, 2, None, "x"),
        one.comment_on_issue(&project, 3, "x"),
    );
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 3);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= gap), "{times:?}");
}

fn clients_with(gap: Duration) -> crate::forge::Clients {
    let pace = super::Pace {
        between_writes: Some(gap),
        ..super::Pace::default()
    };
    clients().paced(pace)
}

#[tokio::test]
async fn pitfall_20_a_limited_writer_waits_as_long_as_it_was_told() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let fake = Fake::start(move |seen, _| {
        if seen.method == "GET" {
            return Reply::json(200, &json!({"number": 5}));
        }
        count.fetch_add(1, Ordering::SeqCst);
        Reply::json(403, &json!({"message": "You have exceeded a secondary rate limit."}))
    })
    .await;
    let clients = clients();
    let (asked_for, begun) = (Duration::from_secs(60), Instant::now());
    for _ in 0..3 {
        // A client that is made anew knows it too.
        let forge = connected(&clients, ForgeKind::Github, &fake.url);
        let error = forge.reply(&facts(), 5, None, "x").await.unwrap_err();
        let ForgeError::RateLimited { wait, .. } = error else {
            panic!("{error}");
        };
        // Less only by the time that has passed since.
        assert!(wait <= asked_for && wait + begun.elapsed() >= asked_for, "{wait:?}");
    }
    assert_eq!(
        asked.load(Ordering::SeqCst),
        1,
        "no write goes out while the forge wants quiet"
    );
}

#[tokio::test]
async fn what_is_kept_is_given_to_its_own_token_only() {
    let fake = Fake::start(|seen, _| {
        if seen.headers.contains_key("if-none-match") {
            return Reply::text(304, "");
        }
        Reply::json(200, &json!({"id": 7, "path_with_namespace": "a/b"})).with("etag", "\"1\"")
    })
    .await;
    let clients = clients();
    let with = |token: &str| {
        clients
            .connect(ForgeKind::Gitlab, Some(&fake.url), &Secret::new(token), None)
            .unwrap()
    };
    for token in ["token-of-ann-0123", "token-of-ann-0123", "token-of-bob-4567"] {
        assert_eq!(with(token).project(&path("a/b")).await.unwrap().id, "7");
    }
    let marks: Vec<bool> = fake
        .seen()
        .iter()
        .map(|seen| seen.headers.contains_key("if-none-match"))
        .collect();
    assert_eq!(marks, [false, true, false]);
}

#[tokio::test]
async fn a_304_that_nobody_asked_for_is_no_answer() {
    let fake = Fake::start(|_, _| Reply::text(304, "").with("etag", "\"1\"")).await;
    let config = Config {
        allow_http: true,
        ..Config::default()
    };
    let (forge, _) = crate::forge::fake::client_of(ForgeKind::Gitlab, &fake.url, config, crate::forge::fake::quick());
    let error = forge.project(&path("a/b")).await.unwrap_err();
    assert!(matches!(error, ForgeError::Unavailable { .. }), "{error}");
    assert!(fake.seen().len() <= 6);
    let error = forge.branch_head(&facts(), &"main".parse().unwrap()).await.unwrap_err();
    assert!(!error.to_string().is_empty(), "{error}");
}

#[tokio::test]
async fn a_waiting_read_comes_back_after_the_wait_it_was_told() {
    let fake = Fake::start(|_, before| match before {
        0 => Reply::text(429, "Retry later\n").with("retry-after", "1"),
        _ => Reply::json(200, &json!({"id": 7, "path_with_namespace": "a/b"})),
    })
    .await;
    let forge: Arc<dyn Forge> = connected(&clients(), ForgeKind::Gitlab, &fake.url);
    let begun = Instant::now();
    forge.project(&path("a/b")).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
}
