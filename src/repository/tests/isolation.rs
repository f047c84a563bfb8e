//! What one session may not have: objects that its token was not shown, by whatever way a git client knows. Objects that another project's
//! mirror holds are tried in `mirror`.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::forge::{BRANCH, Forge, access, git, git_command, git_ok};
use super::sandbox::Sandbox;
use crate::message::{CommitId, SessionId};
use crate::repository::{Protocol, Staging};

/// All objects of a commit: itself, its tree, a file.
fn objects(forge: &Forge, commit: &CommitId, file: &str) -> [String; 3] {
    let bare = forge.bare("team/greeter");
    [
        commit.to_string(),
        git(&bare, &["rev-parse", &format!("{commit}^{{tree}}")]),
        git(&bare, &["rev-parse", &format!("{commit}:{file}")]),
    ]
}

/// Every way to ask for an object by its id.
async fn assert_not_to_be_had(staging: &Staging, ids: &[String]) {
    let store = staging.store().unwrap().path().to_owned();
    let sandbox = Sandbox::clone_of(staging).await;
    for id in ids {
        assert!(
            !git_ok(&store, &["cat-file", "-e", id]),
            "the session's store holds {id}"
        );
        for version in ["protocol.version=0", "protocol.version=1", "protocol.version=2"] {
            for options in [
                &["fetch", "-q"][..],
                &["fetch", "-q", "--depth=1"],
                &["fetch", "-q", "--filter=blob:none"],
                &["fetch", "-q", "--shallow-exclude=main"],
                &["-c", "uploadpack.allowAnySHA1InWant=true", "fetch", "-q", "--no-tags"],
                &["-c", "transfer.bundleURI=true", "fetch", "-q"],
            ] {
                let arguments = [&["-c", version], options, &["origin", id]].concat();
                sandbox.run(&arguments).await.expect_refusal(&[]);
                assert!(
                    !git_ok(sandbox.path(), &["cat-file", "-e", id]),
                    "{arguments:?} got {id}"
                );
            }
        }
    }
    // The same clone, made so that it asks for missing files by their id later.
    let lazy = tempfile::tempdir().unwrap();
    let address = format!("{}/p.git", sandbox.address);
    let path = lazy.path().to_str().unwrap().to_owned();
    let clone = ["clone", "-q", "--no-checkout", "--filter=blob:none", &address, &path];
    sandbox.run(&clone).await.expect_success();
    for id in ids {
        let mut asked = git_command(lazy.path(), &["cat-file", "-p", id]);
        let output = tokio::task::spawn_blocking(move || asked.output().unwrap())
            .await
            .unwrap();
        assert!(!output.status.success(), "a lazy fetch got {id}");
    }
}

/// Sends a push by hand: one command, and a pack of just these objects.
async fn push(staging: &Staging, sandbox: &Sandbox, new: &str, objects: &str) -> String {
    let list = format!("{} {new} refs/heads/{BRANCH}\0 report-status\n", "0".repeat(40));
    let mut body = format!("{:04x}{list}0000", list.len() + 4).into_bytes();
    let mut packing = git_command(sandbox.path(), &["pack-objects", "-q", "--stdout"]);
    packing
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = packing.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), objects.as_bytes()).unwrap();
    body.extend(child.wait_with_output().unwrap().stdout);
    let mut serving = staging.receive_pack(Protocol::V0).await.unwrap();
    let mut input = serving.input.take().unwrap();
    input.write_all(&body).await.unwrap();
    drop(input);
    let mut answer = Vec::new();
    let mut output = serving.output.take().unwrap();
    output.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A commit with everything that is asked of one, over a tree of which only the id is known.
fn over(sandbox: &Sandbox, tree: &str) -> String {
    sandbox.commit("mine", "mine\n");
    let own = git(sandbox.path(), &["cat-file", "commit", "HEAD"]);
    let (first, rest) = own.split_once('\n').unwrap();
    assert!(first.starts_with("tree "));
    let path = sandbox.path().join("forged");
    std::fs::write(&path, format!("tree {tree}\n{rest}\n")).unwrap();
    let forged = ["hash-object", "-t", "commit", "-w", "--literally", "forged"];
    git(sandbox.path(), &forged)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_forge_shows_no_more_is_in_no_later_session() {
    let forge = Forge::start().await;
    let secret = forge.upstream_commit("team/greeter", "doomed", "secret", "secret\n");
    let ids = objects(&forge, &secret, "secret");
    // The session that was shown it has it, by its id too: the ways below would lead there.
    let early = forge.stage().await.unwrap();
    let shown = Sandbox::clone_of(&early).await;
    shown
        .run(&["fetch", "-q", "origin", secret.as_str()])
        .await
        .expect_success();
    let forged = over(&shown, &ids[1]);
    let answer = push(&early, &shown, &forged, &format!("{forged}\n")).await;
    assert!(
        answer.contains(&format!("ok refs/heads/{BRANCH}")),
        "the way is closed for other reasons: {answer}"
    );
    forge.room.remove_session(Forge::session()).await.unwrap();

    git(&forge.bare("team/greeter"), &["branch", "-D", "doomed"]);
    let late = forge.stage().await.unwrap();
    assert_not_to_be_had(&late, &ids).await;
    let sandbox = Sandbox::clone_of(&late).await;
    let answer = push(&late, &sandbox, &ids[0], "").await;
    assert!(answer.contains(&format!("ng refs/heads/{BRANCH}")), "{answer}");
    let forged = over(&sandbox, &ids[1]);
    let answer = push(&late, &sandbox, &forged, &format!("{forged}\n")).await;
    assert!(answer.contains(&format!("ng refs/heads/{BRANCH}")), "{answer}");
    assert_eq!(late.head().unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gets_nothing_of_what_another_token_is_shown_of_the_same_project() {
    let forge = Forge::start().await;
    let secret = forge.upstream_commit("team/greeter", "for-ada", "secret", "secret\n");
    let ids = objects(&forge, &secret, "secret");
    // Ada's session goes on all the while.
    let ada = forge.stage().await.unwrap();
    let bare = forge.bare("team/greeter");
    git(&bare, &["config", "uploadpack.hideRefs", "refs/heads/for-ada"]);
    let project = forge.project("team/greeter");
    let bob = crate::repository::Access {
        account: "bob".into(),
        ..access()
    };
    let mirrored = forge.room.refresh(&project, &bob).await.unwrap();
    let session: SessionId = "0190c2f0-7c1e-7000-8000-000000000002".parse().unwrap();
    let trailers = super::forge::trailers();
    let staging = forge
        .room
        .stage(&mirrored, session, 0, &project, &trailers)
        .await
        .unwrap();
    drop(mirrored);
    assert_not_to_be_had(&staging, &ids).await;
    let shown = Sandbox::clone_of(&ada).await;
    assert!(
        shown.git(&["branch", "-r"]).contains("origin/for-ada"),
        "the other session lost it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_session_pushed_another_cannot_have() {
    let forge = Forge::start().await;
    let one = forge.stage().await.unwrap();
    let sandbox = Sandbox::clone_of(&one).await;
    sandbox.commit("mine", "mine\n");
    let head = sandbox.git(&["rev-parse", "HEAD"]);
    sandbox.push(&[BRANCH]).await.expect_success();
    let project = forge.project("team/greeter");
    let mirrored = forge.room.refresh(&project, &access()).await.unwrap();
    let session: SessionId = "0190c2f0-7c1e-7000-8000-000000000002".parse().unwrap();
    let trailers = super::forge::trailers();
    let other = forge
        .room
        .stage(&mirrored, session, 0, &project, &trailers)
        .await
        .unwrap();
    drop(mirrored);
    assert_not_to_be_had(&other, &[head]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_was_killed_before_its_notes_is_made_good() {
    let forge = Forge::start().await;
    let secret = forge.upstream_commit("team/greeter", "doomed", "secret", "secret\n");
    let ids = objects(&forge, &secret, "secret");
    drop(forge.stage().await.unwrap());
    // As a worker leaves it that is killed after the references were pruned.
    let mirror = forge.mirror();
    git(&mirror, &["update-ref", "-d", "refs/heads/doomed"]);
    std::fs::write(mirror.parent().unwrap().join("fetching"), "").unwrap();
    git(&forge.bare("team/greeter"), &["branch", "-D", "doomed"]);
    let late = forge.stage().await.unwrap();
    assert_not_to_be_had(&late, &ids).await;
}
