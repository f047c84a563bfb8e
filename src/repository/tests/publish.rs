//! The worker's own push, and what is kept when there is none.

use super::forge::{BRANCH, Forge, TOKEN, access, access_with, git, git_ok};
use super::sandbox::Sandbox;
use crate::message::CommitId;
use crate::repository::{PublishRequest, Published, RepositoryError, Staging};

async fn staged() -> (Forge, Staging, Sandbox, CommitId) {
    let forge = Forge::start().await;
    let staging = forge.stage().await.unwrap();
    let sandbox = Sandbox::clone_of(&staging).await;
    sandbox.commit("a", "a\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    let head = staging.head().unwrap().unwrap();
    (forge, staging, sandbox, head)
}

async fn publish(
    forge: &Forge,
    staging: &Staging,
    expected: Option<&CommitId>,
    head: &CommitId,
) -> Result<Published, RepositoryError> {
    let request = PublishRequest {
        head,
        expected,
        options: &[],
    };
    staging
        .publish(&forge.project("team/greeter"), &access(), &request)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_09_only_the_named_branch_is_made_and_moved_on_the_forge() {
    let (forge, staging, sandbox, first) = staged().await;
    assert!(!publish(&forge, &staging, None, &first).await.unwrap().unchanged);
    assert_eq!(forge.head("team/greeter", BRANCH), Some(first.clone()));
    sandbox.commit("b", "b\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    let second = staging.head().unwrap().unwrap();
    publish(&forge, &staging, Some(&first), &second).await.unwrap();
    assert_eq!(forge.head("team/greeter", BRANCH), Some(second.clone()));
    // Once more after a lost answer: nothing happens twice.
    assert!(
        publish(&forge, &staging, Some(&second), &second)
            .await
            .unwrap()
            .unchanged
    );
    // The next session on that branch starts from what the forge shows.
    let again = forge.stage().await.unwrap();
    assert_eq!(again.head().unwrap(), Some(second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_somebody_moved_is_left_alone() {
    let (forge, staging, sandbox, first) = staged().await;
    publish(&forge, &staging, None, &first).await.unwrap();
    let theirs = forge.upstream_commit("team/greeter", BRANCH, "theirs", "x\n");
    sandbox.commit("b", "b\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    let second = staging.head().unwrap().unwrap();
    for expected in [None, Some(&first), Some(&theirs)] {
        let error = publish(&forge, &staging, expected, &second).await.unwrap_err();
        assert!(
            matches!(error, RepositoryError::PushStale { .. }),
            "{expected:?}: {error}"
        );
    }
    assert_eq!(forge.head("team/greeter", BRANCH), Some(theirs));
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_07_a_branch_that_moves_while_the_push_is_on_its_way_is_left_alone() {
    let (forge, staging, _sandbox, first) = staged().await;
    for create in [true, false] {
        let expected = if create {
            None
        } else {
            forge.head("team/greeter", BRANCH)
        };
        let head = if create {
            first.clone()
        } else {
            built_on(&staging, expected.as_ref().unwrap())
        };
        forge.manners.hold.store(true, std::sync::atomic::Ordering::SeqCst);
        let (project, push) = (forge.project("team/greeter"), staging.clone());
        let push = tokio::spawn(async move {
            let request = PublishRequest {
                head: &head,
                expected: expected.as_ref(),
                options: &[],
            };
            push.publish(&project, &access(), &request).await
        });
        forge.manners.held.notified().await;
        let theirs = if create {
            let bare = forge.bare("team/greeter");
            git(
                &bare,
                &["update-ref", &format!("refs/heads/{BRANCH}"), "refs/heads/main"],
            );
            forge.head("team/greeter", BRANCH)
        } else {
            Some(forge.upstream_commit("team/greeter", BRANCH, "theirs", "x\n"))
        };
        forge.manners.hold.store(false, std::sync::atomic::Ordering::SeqCst);
        forge.manners.release.notify_one();
        let error = push.await.unwrap().unwrap_err();
        assert!(matches!(error, RepositoryError::PushStale { .. }), "{error}");
        assert_eq!(forge.head("team/greeter", BRANCH), theirs);
    }
}

/// A commit in staging on top of another, made behind the check's back.
fn built_on(staging: &Staging, parent: &CommitId) -> CommitId {
    let repository = staging.repository();
    let tree = format!("{parent}^{{tree}}");
    git(
        &repository,
        &[
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@example.org",
            "commit-tree",
            "-p",
            parent.as_str(),
            "-m",
            "On top",
            &tree,
        ],
    )
    .parse()
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forge_is_never_rewound() {
    let (forge, staging, sandbox, first) = staged().await;
    sandbox.commit("b", "b\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    let second = staging.head().unwrap().unwrap();
    publish(&forge, &staging, None, &second).await.unwrap();
    let error = publish(&forge, &staging, Some(&second), &first).await.unwrap_err();
    assert!(matches!(error, RepositoryError::PushRewinds { .. }), "{error}");
    assert_eq!(forge.head("team/greeter", BRANCH), Some(second));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forge_s_refusal_is_handed_on_in_its_words_without_the_token() {
    let (forge, staging, _sandbox, head) = staged().await;
    let hook = forge.bare("team/greeter").join("hooks/pre-receive");
    let script = format!("#!/bin/sh\necho 'GitLab: You are not allowed. {TOKEN}' >&2\nexit 1\n");
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let error = publish(&forge, &staging, None, &head).await.unwrap_err();
    let RepositoryError::PushRejected { text, remote } = &error else {
        panic!("{error}")
    };
    assert!(text.contains("pre-receive hook declined"), "{text}");
    assert_eq!(remote, &["GitLab: You are not allowed. [MASKED]"]);
    assert!(!error.is_transient());
    std::fs::remove_file(hook).unwrap();
    // A token that ended, a forge that is down.
    let request = PublishRequest {
        head: &head,
        expected: None,
        options: &[],
    };
    let project = forge.project("team/greeter");
    let error = staging
        .publish(&project, &access_with("glpat-ended-111111"), &request)
        .await
        .unwrap_err();
    assert!(matches!(error, RepositoryError::Authentication { .. }), "{error}");
    *forge.manners.status.lock().unwrap() = Some((502, "down".into()));
    assert!(publish(&forge, &staging, None, &head).await.unwrap_err().is_transient());
    *forge.manners.status.lock().unwrap() = None;
    publish(&forge, &staging, None, &head).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn push_options_reach_the_forge_and_its_words_come_back() {
    let (forge, staging, _sandbox, head) = staged().await;
    let hook = forge.bare("team/greeter").join("hooks/post-receive");
    std::fs::write(&hook, "#!/bin/sh\necho \"option: $GIT_PUSH_OPTION_0\" >&2\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let options = ["merge_request.title=Fix it".to_owned()];
    let request = PublishRequest {
        head: &head,
        expected: None,
        options: &options,
    };
    let published = staging
        .publish(&forge.project("team/greeter"), &access(), &request)
        .await
        .unwrap();
    assert_eq!(published.remote, ["option: merge_request.title=Fix it"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unpublished_work_is_kept_as_a_bundle_that_any_git_reads() {
    let (forge, staging, _sandbox, head) = staged().await;
    let (bundle, kept) = staging.keep().await.unwrap();
    assert_eq!(kept.head, head);
    forge.room.remove_session(Forge::session()).await.unwrap();
    let clone = tempfile::tempdir().unwrap();
    git(
        clone.path(),
        &["clone", "-q", forge.bare("team/greeter").to_str().unwrap(), "."],
    );
    git(
        clone.path(),
        &[
            "fetch",
            "-q",
            bundle.to_str().unwrap(),
            &format!("refs/heads/{BRANCH}:refs/heads/back"),
        ],
    );
    assert_eq!(git(clone.path(), &["rev-parse", "back"]), head.as_str());
    // Retention: a day before its end it stays, a day after it goes, with its note.
    let aged = |days: u64| {
        for file in super::files_below(&forge.state.join("kept")) {
            let time = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 24 * 60 * 60);
            std::fs::File::options()
                .append(true)
                .open(file)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
    };
    aged(13);
    forge.room.maintain().await.unwrap();
    assert!(bundle.exists());
    aged(15);
    forge.room.maintain().await.unwrap();
    assert!(super::files_below(&forge.state.join("kept")).is_empty());
    assert!(git_ok(&forge.mirror(), &["fsck"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_attempt_left_is_not_replaced_by_another_attempt_s() {
    let (forge, staging, sandbox, _) = staged().await;
    let (first, _) = staging.keep().await.unwrap();
    sandbox.commit("b", "b\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    let (more, kept) = staging.keep().await.unwrap();
    assert_eq!(
        (&more, super::files_below(&forge.state.join("kept")).len()),
        (&first, 2),
        "it has all of the first"
    );
    forge.room.remove_session(Forge::session()).await.unwrap();
    // The next attempt knows nothing of these commits: they never were on the forge.
    let again = forge.stage().await.unwrap();
    let sandbox = Sandbox::clone_of(&again).await;
    sandbox.commit("c", "c\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    let (other, _) = again.keep().await.unwrap();
    assert_ne!(other, first);
    let listed = git(&forge.mirror(), &["bundle", "list-heads", first.to_str().unwrap()]);
    assert!(listed.starts_with(kept.head.as_str()), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_of_nothing() {
    let forge = Forge::start().await;
    let staging = forge.stage().await.unwrap();
    assert!(matches!(staging.keep().await, Err(RepositoryError::NothingToKeep)));
    // Nor of a branch that has nothing of its own.
    git(&forge.bare("team/greeter"), &["branch", BRANCH, "main"]);
    let staging = forge.stage().await.unwrap();
    assert!(staging.head().unwrap().is_some());
    assert!(matches!(staging.keep().await, Err(RepositoryError::NothingToKeep)));
    assert!(super::files_below(&forge.state.join("kept")).is_empty());
}
