//! Merge requests by push alone: the only way for a token with `write_repository`.

use reqwest::Method;
use serde_json::Value;

use crate::world::{GREETER, GREETER_KEY, WEBSITE, World};

const TOKEN: &str = "test-gitlab-write-repository";

async fn requests(world: &World) -> Vec<Value> {
    let state = world.control(Method::GET, "/state", None).await.body;
    state["gitlab"][GREETER]["change_requests"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_opens_and_later_updates_a_merge_request() {
    let world = World::start().await;
    let work = world.work("gitlab", GREETER, TOKEN, "feature").await;
    let options = [
        "push",
        "-o",
        "merge_request.create",
        "-o",
        "merge_request.target=main",
        "-o",
        "merge_request.title=A title",
        "-o",
        r"merge_request.description=first\nsecond",
        "-o",
        "merge_request.draft",
        "origin",
        "feature",
    ];
    let url = format!("{}/{GREETER}/-/merge_requests/1", world.running.gitlab);
    world
        .git(&work, &options)
        .await
        .good()
        .said(&["remote: View merge request for feature:", &url]);
    let all = requests(&world).await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["title"], "Draft: A title");
    assert_eq!(all[0]["description"], "first\nsecond");
    assert_eq!(all[0]["author"], "ada");

    // The same token sees nothing of it by REST.
    let path = format!("/projects/{GREETER_KEY}/merge_requests/1");
    assert_eq!(world.get_gitlab(&path, TOKEN).await.status, 403);

    let head = world.commit(&work, "more.txt", "more\n", "Add more").await;
    let update = ["push", "-o", "mr.title=Better", "origin", "feature"];
    world
        .git(&work, &update)
        .await
        .good()
        .said(&["View merge request for feature:"]);
    let all = requests(&world).await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["title"], "Better");
    assert_eq!(all[0]["head"], head.as_str());
    let listed = world
        .git(&work, &["ls-remote", "origin", "refs/merge-requests/1/head"])
        .await
        .good();
    assert!(listed.out.starts_with(&head));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_options_warn_and_the_push_succeeds() {
    let world = World::start().await;
    let work = world.work("gitlab", GREETER, TOKEN, "feature").await;
    let push = ["push", "-o", "merge_request.target=main", "origin", "feature"];
    let said = [
        "WARNINGS: Error encountered with push options",
        "A merge_request.create push option is",
        "To create a merge request for feature, visit:",
    ];
    world.git(&work, &push).await.good().said(&said);
    assert!(requests(&world).await.is_empty());
    world.commit(&work, "more.txt", "more\n", "Add more").await;
    let push = [
        "push",
        "-o",
        "merge_request.create",
        "-o",
        "merge_request.target=none",
        "origin",
        "feature",
    ];
    world
        .git(&work, &push)
        .await
        .good()
        .said(&["Branch none does not exist"]);
    assert!(requests(&world).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_pushed_opens_nothing_and_github_takes_no_options() {
    let world = World::start().await;
    let work = world.work("gitlab", GREETER, TOKEN, "feature").await;
    world.git(&work, &["push", "-q", "origin", "feature"]).await.good();
    let again = world
        .git(&work, &["push", "-o", "merge_request.create", "origin", "feature"])
        .await
        .good();
    again.said(&["Everything up-to-date"]);
    assert!(requests(&world).await.is_empty());

    let work = world.work("github", WEBSITE, "test-github-repo", "feature").await;
    let push = world
        .git(&work, &["push", "-o", "merge_request.create", "origin", "feature"])
        .await;
    push.bad(&["the receiving end does not support push options"]);
}
