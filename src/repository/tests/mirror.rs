//! Mirrors and what a session gets of them.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use super::files_below;
use super::forge::{BRANCH, Forge, TOKEN, access, access_with, git, git_ok, project, trailers};
use super::sandbox::Sandbox;
use crate::repository::{Repositories, RepositoryError};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_gets_links_of_the_mirror_and_the_references_it_was_shown() {
    let forge = Forge::start().await;
    let head = forge.head("team/greeter", "main").unwrap();
    let staging = forge.stage().await.unwrap();
    assert_eq!(staging.base(), &head);
    assert_eq!(staging.head().unwrap(), None);

    let store = staging.store().unwrap().path();
    let packs: Vec<_> = files_below(&store.join("objects/pack"));
    assert!(
        packs
            .iter()
            .any(|path| path.extension().is_some_and(|end| end == "pack"))
    );
    for pack in &packs {
        let mirror = forge.mirror().join("objects/pack").join(pack.file_name().unwrap());
        let (ours, theirs) = (std::fs::metadata(pack).unwrap(), std::fs::metadata(mirror).unwrap());
        assert_eq!((ours.dev(), ours.ino()), (theirs.dev(), theirs.ino()), "{pack:?}");
    }
    assert_eq!(git(store, &["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
    assert!(git_ok(store, &["fsck", "--full", "--strict"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_and_forced_branches_are_gone_for_the_next_session() {
    let forge = Forge::start().await;
    forge.upstream_commit("team/greeter", "doomed", "a", "a\n");
    let bare = forge.bare("team/greeter");
    git(&bare, &["tag", "v1", "main"]);
    drop(forge.stage().await.unwrap());
    // A branch that becomes a directory, too: `doomed` goes, `doomed/x` comes.
    git(&bare, &["branch", "-D", "doomed"]);
    git(&bare, &["branch", "doomed/x", "main"]);
    git(&bare, &["tag", "-d", "v1"]);
    let staging = forge.stage().await.unwrap();
    let refs = git(
        staging.store().unwrap().path(),
        &["for-each-ref", "--format=%(refname)"],
    );
    assert_eq!(refs, "refs/heads/doomed/x\nrefs/heads/main");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_reaches_is_dropped_and_sessions_do_not_notice() {
    let forge = Forge::start_with(|config| config.unreachable_s = 20 * 60 * 60).await;
    let secret = forge.upstream_commit("team/greeter", "doomed", "secret", "secret\n");
    let early = forge.stage().await.unwrap();
    git(&forge.bare("team/greeter"), &["branch", "-D", "doomed"]);
    drop(
        forge
            .room
            .refresh(&forge.project("team/greeter"), &access())
            .await
            .unwrap(),
    );
    let mirror = forge.mirror();
    let mark = mirror.parent().unwrap().join("unreachable");
    assert!(mark.exists(), "the deletion was noted");
    let old = std::time::SystemTime::now() - Duration::from_secs(24 * 60 * 60);
    std::fs::File::options()
        .write(true)
        .open(&mark)
        .unwrap()
        .set_modified(old)
        .unwrap();

    assert!(git_ok(&mirror, &["cat-file", "-e", secret.as_str()]));
    // What other tests start holds its lock for a moment, between the fork and the program: then it is left for the next time.
    let mut worked = 0;
    for _ in 0..100 {
        worked = forge.room.maintain().await.unwrap();
        if worked > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(worked, 1);
    assert!(!git_ok(&mirror, &["cat-file", "-e", secret.as_str()]));
    assert!(!mark.exists());
    // The early session was shown the branch, and still has it whole.
    let store = early.store().unwrap().path().to_owned();
    assert!(git_ok(&store, &["cat-file", "-e", secret.as_str()]));
    git(&mirror, &["repack", "-adF"]);
    assert!(git_ok(&store, &["fsck", "--full"]));
    let sandbox = Sandbox::clone_of(&early).await;
    assert!(sandbox.git(&["branch", "-r"]).contains("origin/doomed"));
    // And the next session cannot have it.
    forge.room.remove_session(Forge::session()).await.unwrap();
    let late = forge.stage().await.unwrap();
    assert!(!git_ok(
        late.store().unwrap().path(),
        &["cat-file", "-e", secret.as_str()]
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_project_s_objects_cannot_be_had() {
    let forge = Forge::start().await;
    forge.make_project("team/private");
    let secret = forge.upstream_commit("team/private", "main", "secret", "secret\n");
    let private = forge.project("team/private");
    drop(forge.room.refresh(&private, &access()).await.unwrap());
    let staging = forge.stage().await.unwrap();
    let sandbox = Sandbox::clone_of(&staging).await;
    sandbox
        .run(&["fetch", "origin", secret.as_str()])
        .await
        .expect_refusal(&["not our ref"]);
    sandbox
        .run(&["-c", "protocol.version=0", "fetch", "origin", secret.as_str()])
        .await
        .expect_refusal(&[]);
    // An empty pack that names it: git finds no such object behind the alternate, either.
    let list = format!("{} {secret} refs/heads/{BRANCH}\0 report-status\n", "0".repeat(40));
    let mut body = format!("{:04x}{list}0000", list.len() + 4).into_bytes();
    let empty = {
        let directory = tempfile::tempdir().unwrap();
        git(directory.path(), &["init", "-q", "."]);
        let name = git(directory.path(), &["pack-objects", "-q", "p"]);
        std::fs::read(directory.path().join(format!("p-{name}.pack"))).unwrap()
    };
    body.extend(empty);
    let mut serving = staging.receive_pack(crate::repository::Protocol::V0).await.unwrap();
    let mut input = serving.input.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, &body).await.unwrap();
    drop(input);
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut serving.output.take().unwrap(), &mut answer)
        .await
        .unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.contains(&format!("ng refs/heads/{BRANCH} missing necessary objects")),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_apart() {
    let forge = Forge::start().await;
    let greeter = forge.project("team/greeter");
    let refused = forge
        .room
        .refresh(&greeter, &access_with("glpat-wrong-9876543210"))
        .await
        .unwrap_err();
    assert!(matches!(refused, RepositoryError::Authentication { .. }), "{refused}");
    let missing = forge
        .room
        .refresh(&forge.project("team/nothing"), &access())
        .await
        .unwrap_err();
    assert!(matches!(missing, RepositoryError::NotFound { .. }), "{missing}");
    let base = crate::grant::ProjectGrant {
        base: "develop".parse().unwrap(),
        ..greeter.clone()
    };
    let base = forge.room.refresh(&base, &access()).await.unwrap_err();
    assert!(base.to_string().contains("develop"), "{base}");
    let empty = forge.bare("team/empty");
    std::fs::create_dir_all(&empty).unwrap();
    git(&empty, &["init", "-q", "--bare", "."]);
    let empty = forge
        .room
        .refresh(&forge.project("team/empty"), &access())
        .await
        .unwrap_err();
    assert!(matches!(empty, RepositoryError::Empty), "{empty}");
    for (status, text, transient) in [
        (503, "Service is tired", true),
        (403, "You are not allowed to download code.", false),
    ] {
        *forge.manners.status.lock().unwrap() = Some((status, text.into()));
        let error = forge.room.refresh(&greeter, &access()).await.unwrap_err();
        assert_eq!(error.is_transient(), transient, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    // After all of it the mirror serves as before.
    *forge.manners.status.lock().unwrap() = None;
    assert!(forge.room.refresh(&greeter, &access()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_does_not_follow_a_redirect() {
    let (forge, other) = (Forge::start().await, Forge::start().await);
    *forge.manners.status.lock().unwrap() = Some((
        301,
        format!("{}/team/greeter.git/info/refs?service=git-upload-pack", other.address),
    ));
    let error = forge
        .room
        .refresh(&forge.project("team/greeter"), &access())
        .await
        .unwrap_err();
    assert!(matches!(error, RepositoryError::Moved { .. }), "{error}");
    assert!(other.manners.seen.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_forge_costs_its_time_limit_and_nothing_stays() {
    let forge = Forge::start_with(|config| config.fetch_timeout_s = 1).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let begun = Instant::now();
    let error = forge
        .room
        .refresh(&project(&format!("http://{silent}"), "team/greeter"), &access())
        .await
        .unwrap_err();
    assert!(
        matches!(error, RepositoryError::Timeout { .. }) && error.is_transient(),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
    super::secrecy::until_no_process_mentions(&format!("{silent}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_refresh_leaves_no_process_and_the_next_one_works() {
    let forge = Forge::start().await;
    drop(forge.stage().await.unwrap());
    forge.upstream_commit("team/greeter", "main", "b", "b\n");
    forge.manners.hold.store(true, std::sync::atomic::Ordering::SeqCst);
    let (room, greeter) = (forge.room.clone(), forge.project("team/greeter"));
    let refresh = tokio::spawn(async move { room.refresh(&greeter, &access()).await.map(|_| ()) });
    forge.manners.held.notified().await;
    // Somebody else has to wait as long as this one is at it.
    let busy = short_of_time(&forge).await;
    assert!(matches!(busy, Err(RepositoryError::MirrorBusy { .. })), "{busy:?}");
    refresh.abort();
    forge.manners.hold.store(false, std::sync::atomic::Ordering::SeqCst);
    super::secrecy::until_no_process_mentions(&forge.address).await;
    // What a git leaves that was killed in the middle.
    let mirror = forge.mirror();
    for leftover in [
        "HEAD.lock",
        "packed-refs.lock",
        "refs/heads/main.lock",
        "objects/pack/tmp_pack_abc",
        "shallow.lock",
    ] {
        std::fs::write(mirror.join(leftover), "").unwrap();
    }
    let staging = forge.stage().await.unwrap();
    assert_eq!(Some(staging.base().clone()), forge.head("team/greeter", "main"));
    assert!(!mirror.join("objects/pack/tmp_pack_abc").exists());
}

/// Another worker over the same state that does not wait long.
async fn short_of_time(forge: &Forge) -> Result<(), RepositoryError> {
    let config = crate::repository::Config {
        state_dir: forge.state.clone(),
        fetch_timeout_s: 0,
        ..Default::default()
    };
    let other = Repositories::open(config, super::internal_command()).await.unwrap();
    other
        .refresh(&forge.project("team/greeter"), &access())
        .await
        .map(|_| ())
}

/// Turns the bytes of all packs over from `begin` on, sizes and indexes left as they are.
fn damage(mirror: &std::path::Path, begin: usize) {
    for file in files_below(&mirror.join("objects/pack")) {
        if file.extension().is_some_and(|end| end == "pack") {
            let mut damaged = std::fs::read(&file).unwrap();
            let end = damaged.len() - 20;
            damaged[begin..end].iter_mut().for_each(|byte| *byte = !*byte);
            // A new file, as a bad disk would not: the sessions' links keep the old one.
            std::fs::remove_file(&file).unwrap();
            std::fs::write(&file, damaged).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_mirror_is_made_anew() {
    let forge = Forge::start().await;
    drop(forge.stage().await.unwrap());
    // With its header a pack is ignored and all is fetched again; without it git stumbles over the objects.
    for (begin, file) in [(0, "b"), (12, "c")] {
        damage(&forge.mirror(), begin);
        let head = forge.upstream_commit("team/greeter", "main", file, "x\n");
        let staging = forge.stage().await.unwrap();
        assert_eq!(staging.base(), &head);
        assert!(git_ok(&forge.mirror(), &["fsck", "--full"]));
        assert!(git_ok(staging.store().unwrap().path(), &["fsck", "--full"]));
    }
    // Packs that are gone altogether are fetched again.
    for file in files_below(&forge.mirror().join("objects/pack")) {
        std::fs::remove_file(file).unwrap();
    }
    forge.stage().await.unwrap();
    assert!(git_ok(&forge.mirror(), &["fsck", "--full"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_refresh_does_not_meet_is_found_on_request() {
    let forge = Forge::start().await;
    let project = forge.project("team/greeter");
    drop(forge.stage().await.unwrap());
    assert!(!forge.room.discard_if_damaged(&project, &access()).await.unwrap());
    damage(&forge.mirror(), 12);
    assert!(forge.room.discard_if_damaged(&project, &access()).await.unwrap());
    let staging = forge.stage().await.unwrap();
    Sandbox::clone_of(&staging).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_sessions_share_a_mirror_without_harm() {
    let forge = Forge::start().await;
    let greeter = forge.project("team/greeter");
    let sessions = (0..6).map(|number| {
        let (room, greeter) = (forge.room.clone(), greeter.clone());
        async move {
            let mirrored = room.refresh(&greeter, &access()).await?;
            room.stage(&mirrored, Forge::session(), number, &greeter, &trailers())
                .await
        }
    });
    for staging in futures::future::join_all(sessions).await {
        let staging = staging.unwrap();
        assert!(git_ok(staging.store().unwrap().path(), &["fsck", "--full"]));
    }
    assert!(forge.mirror().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_can_be_kept_apart_by_user() {
    let forge = Forge::start_with(|config| config.mirror_per_user = true).await;
    let greeter = forge.project("team/greeter");
    let bob = crate::repository::Access {
        account: "bob".into(),
        ..access_with(TOKEN)
    };
    drop(forge.room.refresh(&greeter, &access()).await.unwrap());
    drop(forge.room.refresh(&greeter, &bob).await.unwrap());
    assert_eq!(std::fs::read_dir(forge.state.join("mirrors")).unwrap().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_flaws_in_a_project_s_history_do_no_harm() {
    let forge = Forge::start().await;
    let bare = forge.bare("team/greeter");
    let text = git(&bare, &["cat-file", "commit", "main"]).replace(" +0000\n", " +051800\n");
    assert!(text.contains("+051800"));
    let object = forge.directory.path().join("object");
    std::fs::write(&object, text).unwrap();
    let flawed = git(
        &bare,
        &[
            "hash-object",
            "-t",
            "commit",
            "-w",
            "--literally",
            object.to_str().unwrap(),
        ],
    );
    git(&bare, &["update-ref", "refs/heads/main", &flawed]);
    let staging = forge.stage().await.unwrap();
    assert_eq!(staging.base().as_str(), flawed);
    let project = forge.project("team/greeter");
    assert!(!forge.room.discard_if_damaged(&project, &access()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_old_git_is_told_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let open = |git: std::path::PathBuf| {
        let config = crate::repository::Config {
            state_dir: directory.path().join("state"),
            git,
            ..Default::default()
        };
        Repositories::open(config, super::internal_command())
    };
    let missing = open("/nonexistent/git".into()).await.unwrap_err();
    assert!(matches!(missing, RepositoryError::StartGit { .. }), "{missing}");
    for (program, said) in [("echo", "version"), ("true", "\"\"")] {
        let error = open(program.into()).await.unwrap_err();
        assert!(
            matches!(error, RepositoryError::GitVersion { .. }) && error.to_string().contains(said),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_is_too_large_leaves_no_half_of_it() {
    let forge = Forge::start_with(|config| config.largest_fetch = 200_000).await;
    drop(forge.stage().await.unwrap());
    let noise = super::sandbox::noise(1, 1_000_000);
    let text: String = noise.iter().map(|byte| format!("{byte:02x}")).collect();
    forge.upstream_commit("team/greeter", "main", "large", &text);
    let error = forge.stage().await.unwrap_err();
    assert!(matches!(error, RepositoryError::TooLarge { .. }), "{error}");
    let kept: u64 = files_below(&forge.mirror())
        .iter()
        .map(|file| std::fs::metadata(file).unwrap().len())
        .sum();
    assert!(kept < 100_000, "{kept} bytes were left");
}
