//! Speaking in the user's name: who may, what is said, and who is told.

use std::sync::Arc;

use serde_json::{Value, json};

use super::World;
use crate::forge::ForgeError;
use crate::message::event::CommentedOn;
use crate::message::{EventBody, Right};
use crate::tools::budget::COMMENTS;

const LAB: &str = "work:a/b";

fn permitted() -> World {
    World::with(|world| world.grant.may_comment = true)
}

fn both(body: &str) -> [(&'static str, Value); 2] {
    ["reply_to_discussion", "comment_on_issue"].map(|tool| (tool, json!({"project": LAB, "number": 4, "body": body})))
}

#[tokio::test]
async fn nothing_is_said_unless_the_task_permits_it_and_the_token_allows_it() {
    let mut world = World::new();
    for (tool, arguments) in both("Hello") {
        let refused = world.refusal(tool, arguments).await;
        assert!(refused.contains("the task does not permit it"), "{refused}");
    }
    assert!(world.double.asked().is_empty());
    let mut world = World::with(|world| {
        world.grant.may_comment = true;
        world.grant.projects[0].capabilities.comment = Right::No;
    });
    for (tool, arguments) in both("Hello") {
        let refused = world.refusal(tool, arguments).await;
        assert!(refused.contains("the scope `api`"), "{refused}");
    }
    assert!(world.double.asked().is_empty() && world.told.lock().unwrap().is_empty());
}

#[tokio::test]
async fn words_with_a_secret_are_not_said_and_not_recorded() {
    let mut world = permitted();
    for body in ["it is hush", "it is hu\u{200b}sh"] {
        for (tool, arguments) in both(body) {
            let refused = world.refusal(tool, arguments).await;
            assert!(
                refused.contains("body holds what looks like a token: nothing was sent"),
                "{refused}"
            );
        }
    }
    assert!(world.double.asked().is_empty() && world.told.lock().unwrap().is_empty());
    for argument in ["title", "changes", "approach", "trade_offs", "checked"] {
        let mut wish = json!({"project": LAB, "title": "a", "changes": "b", "approach": "c", "trade_offs": "d"});
        wish[argument] = "hush".into();
        let refused = world.refusal("create_change_request", wish).await;
        assert!(refused.starts_with(&format!("{argument} holds")), "{refused}");
    }
    assert!(world.wishes.get(&world.grant.projects[0].key).is_none());
    world
        .call(
            "comment_on_issue",
            json!({"project": LAB, "number": 4, "body": "it is fine"}),
        )
        .await;
}

#[tokio::test]
async fn what_is_said_is_tamed_and_the_user_is_told() {
    let mut world = permitted();
    let said = "Thanks @all\n/merge\nCloses #4\n![x](https://evil/?d)\u{202e}";
    let reply = json!({"project": LAB, "number": 4, "discussion": "d1", "body": said});
    let posted = world.call("reply_to_discussion", reply).await;
    assert_eq!(
        (&posted["note_id"], &posted["comments_left"]),
        (&json!("n1"), &json!(COMMENTS - 1))
    );
    world
        .call("comment_on_issue", json!({"project": LAB, "number": 5, "body": said}))
        .await;
    let asked = world.double.asked();
    assert!(asked[1].starts_with("reply 4 Some(\"d1\") Thanks "), "{asked:?}");
    assert!(asked[3].starts_with("comment 5 Thanks "), "{asked:?}");
    for live in ["@all", "\n/merge", "Closes", "#4", "![", "\u{202e}"] {
        assert!(
            !asked[1].contains(live) && !asked[3].contains(live),
            "{live:?} in {asked:?}"
        );
    }
    let told = world.told.lock().unwrap().clone();
    let told: Vec<_> = told
        .into_iter()
        .map(|event| {
            let EventBody::Commented {
                project,
                on,
                number,
                url,
                text,
            } = event
            else {
                panic!("{event:?}")
            };
            (project.to_string(), on, number, url.unwrap(), text)
        })
        .collect();
    assert_eq!(
        (told[0].0.as_str(), told[0].1, told[0].2),
        (LAB, CommentedOn::ChangeRequest, 4)
    );
    assert_eq!((told[1].1, told[1].2), (CommentedOn::Issue, 5));
    assert!(told[0].3.ends_with("/merge_requests/4") && told[1].3.ends_with("/issues/5"));
    assert!(asked[1].ends_with(&told[0].4), "the event has the very words");
}

#[tokio::test]
async fn bodies_are_bounded_and_must_say_something() {
    let mut world = permitted();
    for body in [
        "",
        " \n\u{200b}",
        &"x".repeat(32 * 1024 + 1),
        &"@a".repeat(16 * 1024)[..],
    ] {
        for (tool, arguments) in both(body) {
            let (_, answer) = world
                .ask(super::HOST, "2025-11-25", &super::call("2025-11-25", tool, &arguments))
                .await;
            let worked = answer["result"]["isError"] == false;
            // The longest one with teeth grows when they are drawn, and still fits what the forges take.
            assert_eq!(worked, body.starts_with('@'), "{} bytes: {answer}", body.len());
        }
    }
    for said in world.double.asked().iter().filter(|asked| asked.starts_with("reply")) {
        assert!(said.encode_utf16().count() < 65_536);
    }
}

#[tokio::test]
async fn a_comment_whose_fate_is_unknown_counts_and_is_not_repeated() {
    let gone = || ForgeError::Unavailable {
        instance: "https://forge.example".into(),
        detail: "no answer".into(),
    };
    // What fails before anything is said costs nothing.
    let mut world = permitted();
    world.double().fails = Some(gone());
    for (tool, arguments) in both("Hello") {
        let refused = world.refusal(tool, arguments).await;
        assert!(
            refused.contains("cannot be reached") && !refused.contains("may be there"),
            "{refused}"
        );
    }
    assert_eq!(world.double.asked(), ["details 4", "issue 4"]);
    let mut world = permitted();
    world.double().writes_fail = Some(gone());
    for (tool, arguments) in both("Hello") {
        let refused = world.refusal(tool, arguments).await;
        assert!(refused.contains("look before you say it again"), "{refused}");
    }
    assert_eq!(world.double.asked().len(), 4, "one look and one try each");
    let told = world.told.lock().unwrap().clone();
    assert!(
        told.iter()
            .all(|event| matches!(event, EventBody::Warning { message, .. } if message.contains(": Hello")))
    );
    assert_eq!(told.len(), 2, "the user learns of what may have been said");
    for _ in 2..COMMENTS {
        world.refusal("comment_on_issue", both("Hello")[1].1.clone()).await;
    }
    let refused = world.refusal("comment_on_issue", both("Hello")[1].1.clone()).await;
    assert!(refused.contains("final answer"), "{refused}");
}

#[tokio::test]
async fn an_agent_that_hangs_up_cannot_keep_the_user_from_being_told() {
    let mut world = permitted();
    world.double().write_gate = Some(tokio::sync::Semaphore::new(0));
    let double = Arc::clone(&world.double);
    let told = Arc::clone(&world.told);
    let asking = tokio::spawn(async move { world.call("comment_on_issue", both("Hello")[1].1.clone()).await });
    while double.asked().len() < 2 {
        tokio::task::yield_now().await;
    }
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    double.write_gate.as_ref().unwrap().add_permits(1);
    while told.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(
        told.lock().unwrap()[0],
        EventBody::Commented { number: 4, .. }
    ));
}

#[tokio::test]
async fn a_session_says_only_so_much() {
    let mut world = permitted();
    for _ in 0..COMMENTS {
        world
            .call(
                "comment_on_issue",
                json!({"project": LAB, "number": 5, "body": "Hello"}),
            )
            .await;
    }
    for (tool, arguments) in both("Hello") {
        let refused = world.refusal(tool, arguments).await;
        assert!(refused.contains("final answer"), "{refused}");
    }
    let said = world
        .double
        .asked()
        .iter()
        .filter(|asked| asked.starts_with("comment"))
        .count();
    assert_eq!(said, COMMENTS as usize);
    assert_eq!(world.told.lock().unwrap().len(), COMMENTS as usize);
}
