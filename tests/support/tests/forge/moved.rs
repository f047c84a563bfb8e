//! Renamed projects, and addresses without `.git`.

use reqwest::redirect::Policy;
use serde_json::json;

use crate::data::matches_row;
use crate::world::{GREETER, World, got};

const SEED: &str = r#"
    [[projects]]
    id = 301
    forge = "gitlab"
    path = "platform/now"
    moved_from = ["platform/then"]
    members = [{ user = "ada", role = "developer" }]
    [[projects]]
    id = 302
    forge = "github"
    path = "acme/now"
    moved_from = ["acme/then"]
    members = [{ user = "ada", role = "write" }]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn rest_redirects_to_the_number() {
    let world = World::with(SEED).await;
    let client = crate::world::client()
        .no_proxy()
        .redirect(Policy::none())
        .build()
        .unwrap();
    let url = format!("{}/api/v4/projects/platform%2Fthen", world.running.gitlab);
    let moved = got(client.get(&url).header("PRIVATE-TOKEN", "test-gitlab-api")).await;
    let target = format!("{}/api/v4/projects/301", world.running.gitlab);
    assert_eq!((moved.status, moved.header("location")), (301, target.as_str()));
    assert_eq!(
        moved.body,
        json!(format!("This resource has been moved permanently to {target}"))
    );
    // Whoever may not see the project learns nothing of its move.
    let hidden = got(client.get(&url).header("PRIVATE-TOKEN", "test-gitlab-grace")).await;
    matches_row("gitlab", 13, hidden.status, &hidden.body);
    assert_eq!(hidden.status, 404);

    let url = format!("{}/api/v3/repos/acme/then", world.running.github);
    let moved = got(client.get(&url).bearer_auth("test-github-repo")).await;
    let target = format!("{}/api/v3/repositories/302", world.running.github);
    assert_eq!(
        (moved.status, moved.header("location"), &moved.body["url"]),
        (301, target.as_str(), &json!(target))
    );
    assert_eq!(
        world.get_github("/repositories/302", "test-github-repo").await.body["full_name"],
        "acme/now"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn git_goes_on_with_the_old_path() {
    let world = World::with(SEED).await;
    let work = world
        .work("gitlab", "platform/then", "test-gitlab-api", "feature")
        .await;
    let push = world.git(&work, &["push", "origin", "feature"]).await.good();
    let url = format!("git remote set-url origin {}/platform/now.git", world.running.gitlab);
    push.said(&["remote: Project 'platform/then' was moved to 'platform/now'.", &url]);
    assert!(world.head("gitlab", "platform/now", "feature").await.is_some());
    world.pushed("github", "acme/then", "test-github-repo", "feature").await;
    assert!(world.head("github", "acme/now", "feature").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_its_ending_still_leads_there() {
    let world = World::start().await;
    for (side, path, token) in [
        ("gitlab", GREETER, "test-gitlab-api"),
        ("github", "acme/website", "test-github-repo"),
    ] {
        let url = world.url(side, path, token);
        let bare = url.strip_suffix(".git").unwrap();
        world.git(world.directory.path(), &["ls-remote", bare]).await.good();
    }
}
