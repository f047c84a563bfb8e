//! git itself against the forge: clone, push, and every way to be refused.

use std::io::Write as _;

use crate::world::{GREETER, WEBSITE, World};

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_clone_and_push_on_both_forges() {
    let world = World::start().await;
    for (side, path, token) in [
        ("gitlab", GREETER, "test-gitlab-api"),
        ("github", WEBSITE, "test-github-repo"),
    ] {
        for version in ["0", "2"] {
            let (name, branch) = (format!("{side}-{version}"), format!("branch-{version}"));
            let protocol = format!("protocol.version={version}");
            let url = world.url(side, path, token);
            let root = world.directory.path();
            let clone = world
                .git(root, &["-c", &protocol, "clone", "--traced", &url, &name])
                .await
                .good();
            assert_eq!(
                clone.err.contains("version 2"),
                version == "2",
                "{side} {version}: {}",
                clone.err
            );
            let work = root.join(&name);
            assert!(work.join("README.md").exists());
            world.git(&work, &["checkout", "-q", "-b", &branch]).await.good();
            let head = world.commit(&work, "new.txt", "new\n", "Add").await;
            world
                .git(&work, &["-c", &protocol, "push", "origin", &branch])
                .await
                .good();
            assert_eq!(world.head(side, path, &branch).await, Some(head));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_branch_is_greeted_in_each_forges_words() {
    let world = World::start().await;
    let work = world.work("gitlab", GREETER, "test-gitlab-api", "feature").await;
    let url = format!(
        "{}/{GREETER}/-/merge_requests/new?merge_request%5Bsource_branch%5D=feature",
        world.running.gitlab
    );
    let push = world.git(&work, &["push", "origin", "feature"]).await.good();
    push.said(&["remote: To create a merge request for feature, visit:", &url]);

    let work = world.work("github", WEBSITE, "test-github-repo", "feature").await;
    let url = format!("{}/{WEBSITE}/pull/new/feature", world.running.github);
    let push = world.git(&work, &["push", "origin", "feature"]).await.good();
    push.said(&[
        "remote: Create a pull request for 'feature' on GitHub by visiting:",
        &url,
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_branch_refuses_and_stays() {
    let world = World::start().await;
    let before = world.head("gitlab", GREETER, "main").await;
    let work = world.work("gitlab", GREETER, "test-gitlab-api", "feature").await;
    let said = [
        "remote: GitLab: You are not allowed to push code to protected branches on this project.",
        "[remote rejected] HEAD -> main (pre-receive hook declined)",
    ];
    world.git(&work, &["push", "origin", "HEAD:main"]).await.bad(&said);
    world.git(&work, &["checkout", "-q", "--orphan", "other"]).await.good();
    world.commit(&work, "other.txt", "other\n", "Start anew").await;
    let said = ["remote: GitLab: You are not allowed to force push code to a protected branch on this project."];
    world
        .git(&work, &["push", "--force", "origin", "HEAD:main"])
        .await
        .bad(&said);
    let said = ["remote: GitLab: The default branch of a project cannot be deleted."];
    world.git(&work, &["push", "origin", ":main"]).await.bad(&said);
    assert_eq!(world.head("gitlab", GREETER, "main").await, before);

    let before = world.head("github", WEBSITE, "main").await;
    let work = world.work("github", WEBSITE, "test-github-repo", "feature").await;
    let said = [
        "remote: error: GH006: Protected branch update failed for refs/heads/main.",
        "remote: - Changes must be made through a pull request.",
        "[remote rejected] HEAD -> main (protected branch hook declined)",
    ];
    world.git(&work, &["push", "origin", "HEAD:main"]).await.bad(&said);
    assert_eq!(world.head("github", WEBSITE, "main").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_file_needs_its_scope() {
    let world = World::start().await;
    let work = world.work("github", WEBSITE, "test-github-repo", "ci").await;
    std::fs::create_dir_all(work.join(".github/workflows")).unwrap();
    world
        .commit(&work, ".github/workflows/ci.yml", "on: push\n", "Add a workflow")
        .await;
    let said = [
        "refusing to allow a Personal Access Token to create or update workflow `.github/workflows/ci.yml` without `workflow` scope",
    ];
    world.git(&work, &["push", "origin", "ci"]).await.bad(&said);
    assert_eq!(world.head("github", WEBSITE, "ci").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_decide_who_fetches_and_who_pushes() {
    let world = World::start().await;
    let root = world.directory.path();
    // (token, may fetch, what a push is told)
    for (token, fetches, told) in [
        ("test-gitlab-api", true, None),
        ("test-gitlab-write-repository", true, None),
        (
            "test-gitlab-read-api",
            true,
            Some("remote: You are not allowed to upload code."),
        ),
        (
            "test-gitlab-grace",
            true,
            Some("remote: You are not allowed to push code to this project."),
        ),
        (
            "test-gitlab-read-user",
            false,
            Some("remote: You are not allowed to upload code."),
        ),
    ] {
        let url = world.url("gitlab", GREETER, token);
        let fetch = world.git(root, &["ls-remote", &url]).await;
        match fetches {
            true => drop(fetch.good()),
            false => drop(fetch.bad(&["remote: You are not allowed to download code.", "returned error: 403"])),
        }
        let branch = format!("by-{token}");
        let work = world.work("gitlab", GREETER, "test-gitlab-api", &branch).await;
        let push = world.git(&work, &["push", &url, &branch]).await;
        match told {
            None => drop(push.good()),
            Some(told) => drop(push.bad(&[told, "returned error: 403"])),
        }
        assert_eq!(
            world.head("gitlab", GREETER, &branch).await.is_some(),
            told.is_none(),
            "{token}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_unknown_and_missing_credentials_are_401() {
    let world = World::start().await;
    let root = world.directory.path();
    for (side, path) in [("gitlab", GREETER), ("github", WEBSITE)] {
        for token in [
            format!("test-{side}-expired"),
            format!("test-{side}-revoked"),
            "unknown".to_owned(),
        ] {
            let url = world.url(side, path, &token);
            world
                .git(root, &["ls-remote", &url])
                .await
                .bad(&["fatal: Authentication failed for"]);
        }
        let url = world.url(side, path, "");
        world
            .git(root, &["ls-remote", &url])
            .await
            .bad(&["could not read Username", "terminal prompts disabled"]);
    }
    for (side, path, realm) in [("gitlab", GREETER, "GitLab"), ("github", WEBSITE, "GitHub")] {
        let url = format!("{}/info/refs?service=git-upload-pack", world.url(side, path, ""));
        let answer = world.client.get(&url).send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["www-authenticate"], format!("Basic realm=\"{realm}\""));
        assert_eq!(answer.headers()["server"], "cofferdam-test-forge");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_does_not_see_is_404_and_public_code_needs_none() {
    let world = World::start().await;
    let root = world.directory.path();
    let url = world.url("gitlab", "platform/nothing", "test-gitlab-api");
    let told = "The project you were looking for could not be found or you don't have permission to view it.";
    world.git(root, &["ls-remote", &url]).await.bad(&[told, "not found"]);
    for token in ["test-github-no-scope", "test-github-fine-grained"] {
        let url = world.url("github", "acme/legacy", token);
        world
            .git(root, &["ls-remote", &url])
            .await
            .bad(&["remote: Repository not found.", "not found"]);
    }
    world
        .git(root, &["ls-remote", &world.url("gitlab", "platform/handbook", "")])
        .await
        .good();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_push_in_chunks_and_a_gzip_request_are_understood() {
    let world = World::start().await;
    let work = world.work("gitlab", GREETER, "test-gitlab-api", "large").await;
    let mut noise = Vec::new();
    let mut state = 1_u64;
    while noise.len() < 3_000_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.extend_from_slice(&state.to_le_bytes()[3..]);
    }
    std::fs::write(work.join("noise.bin"), &noise).unwrap();
    let head = world.commit(&work, "more.txt", "more\n", "Add much").await;
    // Below the pack's size git sends chunks without a length.
    world
        .git(&work, &["-c", "http.postBuffer=65536", "push", "origin", "large"])
        .await
        .good();
    assert_eq!(world.head("gitlab", GREETER, "large").await, Some(head.clone()));

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"0014command=ls-refs\n00010000").unwrap();
    let answer = world
        .client
        .post(format!(
            "{}/git-upload-pack",
            world.url("gitlab", GREETER, "test-gitlab-api")
        ))
        .header("Content-Type", "application/x-git-upload-pack-request")
        .header("Content-Encoding", "gzip")
        .header("Git-Protocol", "version=2")
        .body(gzip.finish().unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains(&head));
}

#[tokio::test(flavor = "multi_thread")]
async fn push_rules_are_kept() {
    let project = r#"
        [[projects]]
        forge = "gitlab"
        path = "platform/strict"
        members = [{ user = "ada", role = "developer" }]
        push_rules = { commit_committer_check = true, branch_name_prefix = "work/" }
    "#;
    let world = World::with(project).await;
    let work = world
        .work("gitlab", "platform/strict", "test-gitlab-api", "work/one")
        .await;
    world.git(&work, &["push", "origin", "work/one"]).await.good();
    let said = ["remote: GitLab: Branch name does not follow the pattern"];
    world.git(&work, &["push", "origin", "HEAD:other"]).await.bad(&said);
    world.git(&work, &["checkout", "-q", "-b", "work/two"]).await.good();
    let other = ["-c", "user.email=stranger@example.org"];
    std::fs::write(work.join("x"), "x").unwrap();
    world.git(&work, &["add", "."]).await.good();
    // The environment names Ada; only the committer is somebody else.
    let made = world
        .git(&work, &["commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "x"])
        .await
        .good()
        .out;
    assert!(!made.is_empty());
    let raw = world.git(&work, &["cat-file", "commit", &made]).await.good().out;
    let raw = raw.replace(
        "committer Ada Example <ada@example.org>",
        "committer S <stranger@example.org>",
    );
    std::fs::write(work.join("../raw-commit"), format!("{raw}\n")).unwrap();
    let made = world
        .git(&work, &["hash-object", "-t", "commit", "-w", "../raw-commit"])
        .await
        .good()
        .out;
    let said = [
        "remote: GitLab: You cannot push commits for 'stranger@example.org'. You can only push commits that were committed with one of your own verified emails.",
    ];
    let target = format!("{made}:refs/heads/work/two");
    world
        .git(&work, &[&other[..], &["push", "origin", &target]].concat())
        .await
        .bad(&said);
    assert_eq!(world.head("gitlab", "platform/strict", "work/two").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_below_a_branch_and_a_stale_push_are_refused_by_git() {
    let world = World::start().await;
    let work = world.work("gitlab", GREETER, "test-gitlab-api", "f").await;
    world.git(&work, &["push", "-q", "origin", "f"]).await.good();
    let push = world.git(&work, &["push", "origin", "HEAD:refs/heads/f/sub"]).await;
    push.bad(&["cannot lock ref 'refs/heads/f/sub': 'refs/heads/f' exists"]);

    let body = serde_json::json!({"forge": "gitlab", "project": GREETER, "branch": "f", "files": {"theirs.txt": "x"}});
    let theirs = world.control(reqwest::Method::POST, "/commit", Some(body)).await;
    assert_eq!(theirs.status, 201);
    world.commit(&work, "mine.txt", "mine\n", "Mine").await;
    world
        .git(&work, &["push", "origin", "f"])
        .await
        .bad(&["[rejected]", "fetch first"]);
    assert_eq!(
        world.head("gitlab", GREETER, "f").await.as_deref(),
        theirs.body["sha"].as_str()
    );
}
