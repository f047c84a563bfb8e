//! How a session ends when its agent does not do its work: it fails, dies, hangs, has no key, or is stopped.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{GREETER, Ran, Task, World, text};

/// The work that was committed before the end is kept, the outcome names it, and nothing else is left.
async fn check_kept(world: &World, ran: &Ran) {
    let name = text(ran.project("lab", GREETER), "/kept");
    assert!(world.kept().contains(&name.to_owned()), "{name:?}: {}", ran.story());
    let project = world.forge().project("lab", GREETER).await;
    assert_eq!(
        project["branches"].as_object().unwrap().len(),
        1,
        "nothing was published"
    );
    assert_eq!(world.left_behind().await, Vec::<String>::new(), "{}", ran.story());
}

fn work_then(then: &str) -> Task {
    Task::new()
        .greeter()
        .prompt(&["!write a.txt a\\n", "!commit . Add a", then])
}

#[tokio::test]
async fn an_agent_that_answers_with_an_error() {
    let world = World::new().await;
    let ran = world.exec(&work_then("!fail the model is on holiday")).await;
    let message = ran.ended(1, "agent_failed");
    assert!(message.contains("the model is on holiday"), "{message}");
    check_kept(&world, &ran).await;
}

#[tokio::test]
async fn an_agent_that_dies_says_its_last_words() {
    let world = World::new().await;
    let task = Task::new()
        .greeter()
        .prompt(&["!write a.txt a\\n", "!commit . Add a", "!stderr no disk", "!exit 3"]);
    let ran = world.exec(&task).await;
    let message = ran.ended(1, "agent_failed");
    assert!(message.contains("no disk"), "{message}");
    check_kept(&world, &ran).await;
}

#[tokio::test]
async fn an_agent_that_is_silent_too_long() {
    let world = World::new().await;
    let ran = world
        .exec(&work_then("!hang").field("limits", json!({"idle_s": 2})))
        .await;
    ran.ended(4, "agent_stalled");
    check_kept(&world, &ran).await;
}

#[tokio::test]
async fn an_agent_that_heeds_nothing_is_ended_all_the_same() {
    let world = World::new().await;
    let ran = world
        .exec(&work_then("!hang-hard").field("limits", json!({"turn_s": 2})))
        .await;
    ran.ended(4, "turn_timeout");
    check_kept(&world, &ran).await;
}

#[tokio::test]
async fn a_session_that_takes_too_long() {
    let world = World::new().await;
    let ran = world
        .exec(&work_then("!hang").field("limits", json!({"session_s": 4})))
        .await;
    ran.ended(4, "session_timeout");
    check_kept(&world, &ran).await;
}

#[tokio::test]
async fn an_agent_without_a_key_names_the_remedy() {
    let mut world = World::new().await;
    world.set(
        "agents.scripted.environment",
        toml::Table::from_iter([("SCRIPTED_AUTH_REQUIRED".to_owned(), "1".into())]),
    );
    let ran = world.exec(&Task::new().greeter().prompt(&["!say hello"])).await;
    let message = ran.ended(1, "agent_unauthenticated");
    assert!(message.contains("key"), "{message}");
    assert_eq!(world.left_behind().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_agent_that_is_not_in_its_image() {
    let mut world = World::new().await;
    world.set(
        "agents.scripted.command",
        toml::Value::try_from(["no-such-agent"]).unwrap(),
    );
    let ran = world.exec(&Task::new().greeter().prompt(&["!say hello"])).await;
    ran.ended(1, "agent_failed");
    assert_eq!(world.left_behind().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_end_of_a_turn_is_no_success_and_git_decides() {
    let world = World::new().await;
    let ran = world
        .exec(
            &Task::new()
                .greeter()
                .prompt(&["!shell false", "!shell exit 7", "!stop end_turn"]),
        )
        .await;
    ran.ended(0, "nothing_to_publish");
    assert_eq!(text(ran.event("turn_ended"), "/stop_reason"), "end_turn");
    let failed = ran
        .all("agent_tool")
        .iter()
        .filter(|tool| text(tool, "/status") == "failed")
        .count();
    assert_eq!(failed, 2, "{}", ran.story());
    let refusal = world.exec(&work_then("!stop refusal")).await;
    refusal.ended(0, "published");
}

#[tokio::test]
async fn a_sandbox_that_is_killed_costs_its_session_and_nothing_that_was_pushed() {
    let world = World::new().await;
    let task = Task::new()
        .greeter()
        .prompt(&["!write a.txt a\\n", "!commit . Add a", "!shell git push", "!hang"]);
    let mut running = world.start(&task);
    running.until("push_accepted").await;
    for id in world.containers().await {
        crate::harness::docker(&["kill", &id]).await;
    }
    let ran = running.finish().await;
    ran.ended(3, "sandbox_failed");
    check_kept(&world, &ran).await;
}

#[tokio::test]
async fn an_interrupted_worker_keeps_the_work_and_removes_the_sandbox() {
    let world = World::new().await;
    let task = Task::new()
        .greeter()
        .prompt(&["!write a.txt a\\n", "!commit . Add a", "!shell git push", "!hang"]);
    let mut running = world.start(&task);
    running.until("push_accepted").await;
    running.signal(Signal::SIGINT);
    let ran = running.finish().await;
    ran.ended(5, "worker_stopped");
    check_kept(&world, &ran).await;
}

#[tokio::test]
async fn what_a_killed_worker_left_is_kept_and_removed_by_the_next() {
    let world = World::new().await;
    let task = Task::new()
        .greeter()
        .prompt(&["!write a.txt a\\n", "!commit . Add a", "!shell git push", "!hang"]);
    let mut running = world.start(&task);
    running.until("push_accepted").await;
    running.signal(Signal::SIGKILL);
    drop(running.finish().await);
    assert_eq!(world.containers().await.len(), 1, "nobody could remove it");
    let ran = world.exec(&Task::new().website().prompt(&["!say hello"])).await;
    ran.ended(0, "nothing_to_publish");
    assert_eq!(world.kept().len(), 1);
    assert!(world.kept()[0].starts_with(task.session()), "{:?}", world.kept());
    assert_eq!(world.left_behind().await, Vec::<String>::new());
}
