//! A budget holds also for requests that are hung up early or sent side by side.

use super::*;

/// A request whose answer never begins, hung up once the model has it.
async fn hang_up(scene: &Scene, before: usize, body: &str) {
    let asking = scene.ask(Method::POST, CHAT, body.to_owned());
    tokio::pin!(asking);
    tokio::time::timeout(LIMIT, async {
        while scene.asked() == before {
            tokio::select! {
                answer = &mut asking => panic!("{}", answer.status()),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn hanging_up_before_the_answer_begins_is_charged_as_if_it_had_come() {
    let scene = Scene::with(
        |config| {
            config.budget_tokens = Some(100);
            config.models = vec!["hang".into()];
        },
        None,
    )
    .await;
    let body = r#"{"model":"hang","max_tokens":60}"#;
    hang_up(&scene, 0, body).await;
    hang_up(&scene, 1, body).await;
    let third = tokio::time::timeout(LIMIT, scene.post(CHAT, body)).await;
    assert_eq!(third.expect("a refusal").0, StatusCode::TOO_MANY_REQUESTS);
    assert!(scene.meter.is_spent());
    assert_eq!(scene.asked(), 2);
    assert_eq!(*scene.counts.statuses.lock().unwrap(), [0, 0], "an outsider sees both");
}

#[tokio::test]
async fn requests_side_by_side_do_not_spend_one_budget_twice() {
    let scene = Arc::new(Scene::with(|config| config.budget_tokens = Some(100), None).await);
    let body = r#"{"model":"hang","max_tokens":60}"#;
    let mut open = Vec::new();
    for n in 0..30 {
        let asking = scene.clone();
        let body = body.to_owned();
        open.push(tokio::spawn(async move {
            let answer = asking.ask(Method::POST, CHAT, body).await;
            (n, answer.status())
        }));
    }
    // All but those that are still waiting for the model were refused, and that is no end of the session: nothing is spent yet.
    tokio::time::timeout(LIMIT, async {
        while scene.counts.refusals.load(Ordering::SeqCst) < 28 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert!(scene.asked() <= 2, "{} requests reached the model", scene.asked());
    assert!(!scene.meter.is_spent());
    open.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn what_a_request_held_of_the_budget_is_given_back_with_its_answer() {
    let scene = Scene::with(|config| config.budget_tokens = Some(100), None).await;
    for _ in 0..5 {
        scene.will_answer(([("content-type", "application/json")], chat(3, 2)));
        assert_eq!(scene.post(CHAT, r#"{"max_tokens":90}"#).await.0, StatusCode::OK);
    }
    assert_eq!(scene.meter.used().tokens, Tokens { input: 15, output: 10 });
}
