//! The pages for people.

use serde_json::json;

use crate::world::{GREETER, GREETER_KEY, WEBSITE, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_request_is_readable_and_escaped() {
    let world = World::start().await;
    let work = world.work("gitlab", GREETER, "test-gitlab-api", "feature").await;
    let message = "Say hello\n\nCo-authored-by: An Agent <agent@example.org>";
    let head = world
        .commit(&work, "page.html", "<script>alert(1)</script>\n", message)
        .await;
    world.git(&work, &["push", "-q", "origin", "feature"]).await.good();
    let wish = json!({"title": "A <b>title</b>", "source_branch": "feature", "target_branch": "main", "description": "<i>\n- item"});
    let path = format!("/projects/{GREETER_KEY}/merge_requests");
    let made = world.post_gitlab(&path, "test-gitlab-api", wish).await.body;

    let page = world
        .client
        .get(made["web_url"].as_str().unwrap())
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for part in [
        "cofferdam test forge",
        "A &lt;b&gt;title&lt;/b&gt;",
        "&lt;i&gt;\n- item",
        "Co-authored-by: An Agent &lt;agent@example.org&gt;",
        "+&lt;script&gt;alert(1)&lt;/script&gt;",
        "Ada Example (@ada)",
        &head,
    ] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    assert!(!page.contains("<script>"));
    let index = world
        .client
        .get(format!("{}/", world.running.url))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(index.contains("cofferdam test forge") && index.contains(GREETER) && index.contains("A &lt;b&gt;"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_has_its_page_and_others_are_404() {
    let world = World::start().await;
    world.pushed("github", WEBSITE, "test-github-repo", "feature").await;
    let wish = json!({"title": "A title", "head": "feature", "base": "main"});
    let made = world
        .post_github("/repos/acme/website/pulls", "test-github-repo", wish)
        .await
        .body;
    let page = world
        .client
        .get(made["html_url"].as_str().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains("Pull request, open"));
    for path in [
        "acme/website/pull/99",
        "gitlab/platform/tools/greeter/-/merge_requests/1",
        "no/such/page",
    ] {
        let answer = world
            .client
            .get(format!("{}/{path}", world.running.url))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
}
