//! Refreshes that need no git, what makes them need it after all, and what sessions give back to the mirror.

use std::path::{Path, PathBuf};

use super::forge::{BRANCH, Forge, TOKEN, access, access_with, git, git_ok};
use super::sandbox::Sandbox;
use crate::grant::ShownRef;
use crate::message::CommitId;
use crate::repository::{PublishRequest, RepositoryError, Staging};

/// The one request of a refresh that finds nothing new.
const QUICK: [&str; 1] = ["cofferdam POST git-upload-pack"];

/// A git that writes down what it is run for.
struct Watched {
    log: PathBuf,
    _directory: tempfile::TempDir,
}

impl Watched {
    async fn forge() -> (Forge, Self) {
        let directory = tempfile::tempdir().unwrap();
        let (program, log) = (directory.path().join("git"), directory.path().join("log"));
        let (text, script) = (
            directory.path().join("text"),
            format!("#!/bin/sh\necho \" $* \" >>{}\nexec git \"$@\"\n", log.display()),
        );
        std::fs::write(&text, script).unwrap();
        // Another process makes it: what is open for writing here is so in whatever another test just forks, and then cannot be run.
        let made = std::process::Command::new("install")
            .args(["-m", "0755"])
            .args([&text, &program])
            .status();
        assert!(made.unwrap().success());
        let forge = Forge::start_with(|config| config.git = program).await;
        let watched = Self {
            log,
            _directory: directory,
        };
        (forge, watched)
    }

    /// The lines since the last time.
    fn runs(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let _ = std::fs::remove_file(&self.log);
        text.lines().map(str::to_owned).collect()
    }
}

async fn refreshed(forge: &Forge) -> Vec<ShownRef> {
    let project = forge.project("team/greeter");
    let mirrored = forge.room.refresh(&project, &access()).await.unwrap();
    forge.room.refuse_lfs(&mirrored).await.unwrap();
    mirrored.refs().to_vec()
}

fn target(refs: &[ShownRef], name: &str) -> Option<CommitId> {
    refs.iter()
        .find(|shown| shown.name == name)
        .map(|shown| shown.target.clone())
}

/// Gives back to a mirror that nobody uses: what other tests start holds its lock for a moment, between the fork and the program.
async fn given(staging: &Staging) -> Result<bool, RepositoryError> {
    for _ in 0..100 {
        match staging.give_back(true).await {
            Ok(false) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            done => return done,
        }
    }
    Ok(false)
}

/// Something committed in a sandbox and pushed to the forge.
pub(super) async fn published(forge: &Forge, staging: &Staging) -> CommitId {
    let sandbox = Sandbox::clone_of(staging).await;
    sandbox.commit("note", "a note\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    let head = staging.head().unwrap().unwrap();
    let request = PublishRequest {
        head: &head,
        expected: None,
        options: &[],
    };
    let project = forge.project("team/greeter");
    staging.publish(&project, &access(), &request).await.unwrap();
    head
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_project_costs_one_request_and_no_git() {
    let (forge, watched) = Watched::forge().await;
    forge.upstream_commit("team/greeter", "other", "a", "a\n");
    git(
        &forge.bare("team/greeter"),
        &[
            "-c",
            "user.name=E",
            "-c",
            "user.email=e@e",
            "tag",
            "-a",
            "-m",
            "v1",
            "v1",
            "main",
        ],
    );
    let first = refreshed(&forge).await;
    assert_eq!(first.len(), 3);
    assert!(
        forge.asked().iter().all(|asked| asked.starts_with("git ")),
        "nothing is asked of an empty mirror"
    );
    watched.runs();
    for _ in 0..2 {
        assert_eq!(refreshed(&forge).await, first);
        assert_eq!(forge.asked(), QUICK);
        assert_eq!(watched.runs(), [""; 0]);
    }
    // And a session of such a refresh is whole.
    let staging = forge.stage().await.unwrap();
    assert!(git_ok(staging.store().unwrap().path(), &["fsck", "--full"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_fetched_and_what_was_deleted_is_gone() {
    let forge = Forge::start().await;
    forge.upstream_commit("team/greeter", "doomed", "a", "a\n");
    refreshed(&forge).await;
    let head = forge.upstream_commit("team/greeter", "main", "b", "b\n");
    assert_eq!(target(&refreshed(&forge).await, "refs/heads/main"), Some(head));
    git(&forge.bare("team/greeter"), &["branch", "-D", "doomed"]);
    forge.asked();
    let refs = refreshed(&forge).await;
    assert_eq!(refs.len(), 1, "{refs:?}");
    assert!(forge.asked().len() > 1);
    refreshed(&forge).await;
    assert_eq!(forge.asked(), QUICK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merged_branch_that_is_deleted_needs_no_repacking() {
    let (forge, watched) = Watched::forge().await;
    forge.upstream_commit("team/greeter", "merged", "a", "a\n");
    let bare = forge.bare("team/greeter");
    refreshed(&forge).await;
    git(&bare, &["update-ref", "refs/heads/main", "refs/heads/merged"]);
    forge.upstream_commit("team/greeter", "main", "b", "b\n");
    git(&bare, &["branch", "-D", "merged"]);
    watched.runs();
    refreshed(&forge).await;
    let runs = watched.runs();
    assert!(!runs.iter().any(|run| run.contains(" repack ")), "{runs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_refused_as_before() {
    let forge = Forge::start().await;
    refreshed(&forge).await;
    let project = forge.project("team/greeter");
    let wrong = access_with("glpat-wrong-9876543210");
    let error = forge.room.refresh(&project, &wrong).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Authentication { .. }), "{error}");
    // A connection that another token opened shows nobody else's answer.
    refreshed(&forge).await;
    let error = forge.room.refresh(&project, &wrong).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Authentication { .. }), "{error}");
    assert!(!error.to_string().contains("9876543210"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_git_s_to_judge() {
    let forge = Forge::start().await;
    let first = refreshed(&forge).await;
    let result = "application/x-git-upload-pack-result";
    let head = target(&first, "refs/heads/main").unwrap();
    let line = format!("003d{head} refs/heads/main\n0000");
    for (status, kind, text) in [
        (200, "text/html", "<html>Sign in</html>".to_owned()),
        (200, "text/plain", line.clone()),
        (200, result, "<html>Sign in</html>".to_owned()),
        (200, result, line[..40].to_owned()),
        (200, result, "0000".to_owned()),
        (200, result, format!("003c{head} refs/heads/evil\n0000")),
        (204, result, String::new()),
        (401, result, line.clone()),
        (403, "text/plain", "no".to_owned()),
        (404, "text/plain", "no".to_owned()),
        (500, result, line),
    ] {
        *forge.manners.quick.lock().unwrap() = Some((status, kind, text.clone()));
        forge.asked();
        assert_eq!(refreshed(&forge).await, first, "{status} {kind} {text}");
        let asked = forge.asked();
        assert_eq!((asked[0].as_str(), asked.len() > 1), (QUICK[0], true), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirected_question_does_not_take_the_token_along() {
    let (forge, other) = (Forge::start().await, Forge::start().await);
    let first = refreshed(&forge).await;
    for status in [301, 302, 307, 308] {
        let place = format!("{}/team/greeter.git/git-upload-pack", other.address);
        *forge.manners.quick.lock().unwrap() = Some((status, "text/plain", place));
        assert_eq!(refreshed(&forge).await, first);
    }
    assert!(other.manners.seen.lock().unwrap().is_empty());
    assert!(other.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_is_not_whole_is_fetched() {
    let forge = Forge::start().await;
    let first = refreshed(&forge).await;
    let (mirror, head) = (forge.mirror(), target(&first, "refs/heads/main").unwrap());
    let by_git = |forge: &Forge| forge.asked().iter().all(|asked| asked.starts_with("git "));
    for harm in ["mark", "loose", "index"] {
        match harm {
            "mark" => std::fs::write(mirror.parent().unwrap().join("fetching"), "").unwrap(),
            "loose" => std::fs::write(mirror.join("refs/heads/stray"), format!("{head}\n")).unwrap(),
            _ => {
                for file in super::files_below(&mirror.join("objects/pack")) {
                    if file.extension().is_some_and(|end| end == "idx") {
                        std::fs::remove_file(file).unwrap();
                    }
                }
            }
        }
        forge.asked();
        assert_eq!(refreshed(&forge).await, first, "{harm}");
        assert!(by_git(&forge), "{harm}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_published_is_not_fetched_again() {
    let (forge, watched) = Watched::forge().await;
    let staging = forge.stage().await.unwrap();
    assert!(!staging.give_back(true).await.unwrap(), "nothing was published");
    let head = published(&forge, &staging).await;
    assert!(given(&staging).await.unwrap());
    assert!(!staging.give_back(true).await.unwrap(), "it is there already");
    forge.room.remove_session(Forge::session()).await.unwrap();
    assert!(git_ok(&forge.mirror(), &["fsck", "--full", "--strict"]));

    watched.runs();
    forge.asked();
    let refs = refreshed(&forge).await;
    assert_eq!(target(&refs, &format!("refs/heads/{BRANCH}")), Some(head.clone()));
    assert_eq!(forge.asked(), QUICK);
    let runs = watched.runs();
    assert!(!runs.iter().any(|run| run.contains(" fetch ")), "{runs:?}");

    // When the forge shows it no more, the next session has nothing of it.
    git(&forge.bare("team/greeter"), &["branch", "-D", BRANCH]);
    let late = forge.stage().await.unwrap();
    let store = late.store().unwrap().path();
    assert!(!git_ok(store, &["cat-file", "-e", head.as_str()]));
    assert_eq!(git(store, &["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_published_is_given() {
    let forge = Forge::start().await;
    let staging = forge.stage().await.unwrap();
    // Whatever else an agent brought into the staging: another user's session may get all that the mirror has.
    let file = forge.state.join("kept-back");
    std::fs::write(&file, "kept back\n").unwrap();
    let stray = git(
        &staging.repository(),
        &["hash-object", "-w", "--", file.to_str().unwrap()],
    );
    let head = published(&forge, &staging).await;
    let mirror = forge.mirror();
    assert!(given(&staging).await.unwrap());
    assert!(git_ok(&mirror, &["cat-file", "-e", head.as_str()]));
    assert!(!git_ok(&mirror, &["cat-file", "-e", &stray]));
    // The session goes on: its branch moves forward in the mirror too.
    let sandbox = Sandbox::clone_of(&staging).await;
    sandbox.git(&["checkout", "--quiet", "-B", BRANCH, &format!("origin/{BRANCH}")]);
    sandbox.commit("more", "more\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    let next = staging.head().unwrap().unwrap();
    let request = PublishRequest {
        head: &next,
        expected: Some(&head),
        options: &[],
    };
    let project = forge.project("team/greeter");
    staging.publish(&project, &access(), &request).await.unwrap();
    assert!(given(&staging).await.unwrap());
    forge.asked();
    assert_eq!(
        target(&refreshed(&forge).await, &format!("refs/heads/{BRANCH}")),
        Some(next)
    );
    assert_eq!(forge.asked(), QUICK);
    assert!(git_ok(&mirror, &["fsck", "--full", "--strict", "--connectivity-only"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_sessions_gave_lies_in_few_packs() {
    let forge = Forge::start().await;
    let staging = forge.stage().await.unwrap();
    let sandbox = Sandbox::clone_of(&staging).await;
    sandbox.git(&["checkout", "--quiet", "-B", BRANCH]);
    let (project, mut expected) = (forge.project("team/greeter"), None);
    for number in 0..12 {
        sandbox.commit(&format!("note {number}"), "a note\n");
        sandbox.push(&[BRANCH]).await.expect_success();
        let head = staging.head().unwrap().unwrap();
        let request = PublishRequest {
            head: &head,
            expected: expected.as_ref(),
            options: &[],
        };
        staging.publish(&project, &access(), &request).await.unwrap();
        assert!(given(&staging).await.unwrap());
        expected = Some(head);
    }
    let mirror = forge.mirror();
    let files = std::fs::read_dir(mirror.join("objects/pack")).unwrap();
    let packs = files
        .filter(|file| {
            file.as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|end| end == "pack")
        })
        .count();
    assert!((1..=9).contains(&packs), "{packs} packs");
    assert!(git_ok(&mirror, &["fsck", "--full", "--strict", "--connectivity-only"]));
    let head = expected.unwrap();
    assert!(git_ok(&mirror, &["cat-file", "-e", head.as_str()]));
    // What is in use meanwhile is whole as well.
    assert!(git_ok(
        staging.store().unwrap().path(),
        &["fsck", "--full", "--connectivity-only"]
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_given_to_a_mirror_that_is_used_moved_on_or_gone() {
    let forge = Forge::start().await;
    let staging = forge.stage().await.unwrap();
    let head = published(&forge, &staging).await;
    let mirror = forge.mirror();
    let branch = format!("refs/heads/{BRANCH}");
    let known = |mirror: &Path| git_ok(mirror, &["cat-file", "-e", head.as_str()]);

    // Somebody holds it.
    let held = std::fs::File::open(mirror.parent().unwrap().join("lock")).unwrap();
    held.lock().unwrap();
    assert!(!staging.give_back(true).await.unwrap());
    drop(held);
    // A refresh of it was cut off.
    let mark = mirror.parent().unwrap().join("fetching");
    std::fs::write(&mark, "").unwrap();
    assert!(!staging.give_back(true).await.unwrap());
    std::fs::remove_file(&mark).unwrap();
    assert!(!known(&mirror));
    // The branch went another way meanwhile.
    let theirs = forge.upstream_commit("team/greeter", "theirs", "x", "x\n");
    let bare = forge.bare("team/greeter");
    git(&bare, &["update-ref", &branch, theirs.as_str()]);
    assert_eq!(target(&refreshed(&forge).await, &branch), Some(theirs.clone()));
    assert!(!given(&staging).await.unwrap());
    assert_eq!(target(&refreshed(&forge).await, &branch), Some(theirs));
    assert!(!known(&mirror), "nobody may have it");
    assert!(!mark.exists());
    // The mirror was removed.
    std::fs::remove_dir_all(&mirror).unwrap();
    assert!(!staging.give_back(true).await.unwrap());
    assert!(!mirror.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_question_leaves_no_token_behind() {
    let forge = Forge::start().await;
    refreshed(&forge).await;
    refreshed(&forge).await;
    for file in super::files_below(&forge.state) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains(TOKEN), "{file:?}");
    }
    assert!(!format!("{:?}", forge.room).contains(TOKEN));
}
