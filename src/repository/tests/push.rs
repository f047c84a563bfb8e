//! What a sandbox may push, with a real git client.

use super::forge::{BRANCH, Forge, git, git_ok, trailers};
use super::sandbox::{Sandbox, noise};
use crate::repository::push_check::REPAIR;

async fn begin() -> (Forge, crate::repository::Staging, Sandbox) {
    let forge = Forge::start().await;
    let staging = forge.stage().await.unwrap();
    let sandbox = Sandbox::clone_of(&staging).await;
    (forge, staging, sandbox)
}

fn full(subject: &str) -> String {
    format!("{subject}\n\n{}\n", trailers().lines().join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_s_branch_is_made_and_moved_and_fetched_back() {
    let (_forge, staging, sandbox) = begin().await;
    let first = sandbox.commit("a", "a\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    assert_eq!(staging.head().unwrap().unwrap().as_str(), first);
    let second = sandbox.commit("b", "b\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    assert_eq!(staging.head().unwrap().unwrap().as_str(), second);
    sandbox.push(&[BRANCH]).await.expect_success();
    for version in ["0", "2"] {
        let setting = format!("protocol.version={version}");
        sandbox.run(&["-c", &setting, "fetch", "origin"]).await.expect_success();
        assert_eq!(sandbox.git(&["rev-parse", &format!("origin/{BRANCH}")]), second);
    }
    let shallow = sandbox.path().join("shallow");
    let url = format!("{}/p.git", sandbox.address);
    sandbox
        .run(&[
            "clone",
            "-q",
            "--filter=blob:none",
            "--depth=1",
            &url,
            shallow.to_str().unwrap(),
        ])
        .await
        .expect_success();
    // The object store stays free of what the agent made.
    assert!(!git_ok(staging.store().unwrap().path(), &["cat-file", "-e", &second]));
    assert_eq!(staging.ahead_of_base().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_reference_is_refused() {
    let (_forge, staging, sandbox) = begin().await;
    sandbox.commit("a", "a\n");
    sandbox
        .push(&["HEAD:refs/heads/main"])
        .await
        .expect_refusal(&["refs/heads/main may not be pushed", BRANCH]);
    sandbox
        .push(&["HEAD:refs/heads/other"])
        .await
        .expect_refusal(&["refs/heads/other"]);
    sandbox
        .push(&["HEAD:refs/tags/v1"])
        .await
        .expect_refusal(&["refs/tags/v1", "no tag"]);
    sandbox
        .push(&["HEAD:refs/merge-requests/1/head"])
        .await
        .expect_refusal(&[]);
    sandbox
        .push(&[BRANCH, "HEAD:refs/heads/other"])
        .await
        .expect_refusal(&["2 references", BRANCH]);
    sandbox.push(&["--mirror"]).await.expect_refusal(&["references"]);
    sandbox
        .push(&["-o", "ci.skip", BRANCH])
        .await
        .expect_refusal(&["does not support push options"]);
    assert_eq!(staging.head().unwrap(), None);
    assert_eq!(
        git(&staging.repository(), &["for-each-ref", "--format=%(refname)"]),
        "refs/heads/main"
    );
    // What was refused left nothing behind.
    let objects = super::files_below(&staging.repository().join("objects"));
    assert_eq!(objects.len(), 1, "{objects:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_work_is_neither_deleted_nor_rewritten() {
    let (_forge, staging, sandbox) = begin().await;
    let accepted = sandbox.commit("a", "a\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    sandbox
        .push(&["--delete", BRANCH])
        .await
        .expect_refusal(&["may not be deleted", "git revert"]);
    sandbox.git(&["commit", "-q", "--amend", "-m", &full("Another story")]);
    sandbox
        .push(&["--force", BRANCH])
        .await
        .expect_refusal(&["never rewritten", &accepted]);
    assert_eq!(staging.head().unwrap().unwrap().as_str(), accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_commits_have_the_trailers_and_the_people() {
    let (_forge, staging, sandbox) = begin().await;
    for line in trailers().lines() {
        let kept: Vec<_> = trailers()
            .lines()
            .iter()
            .filter(|other| *other != line)
            .cloned()
            .collect();
        sandbox.commit_saying("a", line, &format!("Change\n\nx\n\n{}\n", kept.join("\n")), &[]);
        sandbox
            .push(&[BRANCH])
            .await
            .expect_refusal(&[line, REPAIR, "git push"]);
        sandbox.git(&["reset", "-q", "--hard", "origin/main"]);
    }
    // A good commit on top does not cover a bad one below.
    sandbox.commit_saying("a", "a\n", "Bare\n", &[]);
    sandbox.commit("b", "b\n");
    sandbox.push(&[BRANCH]).await.expect_refusal(&["Co-authored-by"]);
    sandbox.git(&["reset", "-q", "--hard", "origin/main"]);
    sandbox.commit_saying("a", "a\n", &full("Foreign"), &["--author=Eve <eve@example.org>"]);
    sandbox
        .push(&[BRANCH])
        .await
        .expect_refusal(&["author <eve@example.org>", "ada@example.org", REPAIR]);
    sandbox.git(&["reset", "-q", "--hard", "origin/main"]);
    sandbox.git(&["config", "user.email", "eve@example.org"]);
    sandbox.commit_saying("a", "a\n", &full("Foreign"), &["--author=Ada <ada@example.org>"]);
    sandbox
        .push(&[BRANCH])
        .await
        .expect_refusal(&["committer <eve@example.org>"]);
    assert_eq!(staging.head().unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_commits_may_be_merged_as_they_are() {
    let (forge, staging, _) = begin().await;
    forge.upstream_commit("team/greeter", "feature", "f", "f\n");
    let staging = {
        drop(staging);
        forge.stage().await.unwrap()
    };
    let sandbox = Sandbox::clone_of(&staging).await;
    sandbox.commit("a", "a\n");
    sandbox.git(&["merge", "-q", "--no-ff", "-m", &full("Merge feature"), "origin/feature"]);
    sandbox.push(&[BRANCH]).await.expect_success();
    assert_eq!(staging.ahead_of_base().await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn unrelated_histories_are_refused() {
    let (_forge, _staging, sandbox) = begin().await;
    sandbox.git(&["checkout", "-q", "--orphan", "fresh"]);
    sandbox.commit_saying("a", "a\n", &full("Begin anew"), &[]);
    sandbox
        .push(&[&format!("HEAD:refs/heads/{BRANCH}")])
        .await
        .expect_refusal(&["no parent"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_sizes_are_bounded() {
    let forge = Forge::start_with(|config| {
        config.most_commits = 2;
        config.largest_object = 10_000;
        config.largest_push = 50_000;
    })
    .await;
    // What upstream has already may be larger.
    forge.upstream_commit("team/greeter", "main", "large", &"upstream line\n".repeat(2_000));
    let staging = forge.stage().await.unwrap();
    let sandbox = Sandbox::clone_of(&staging).await;
    for file in ["a", "b", "c"] {
        sandbox.commit(file, "x\n");
    }
    sandbox
        .push(&[BRANCH])
        .await
        .expect_refusal(&["more than 2 new commits"]);
    sandbox
        .push(&[&format!("HEAD~1:refs/heads/{BRANCH}")])
        .await
        .expect_success();
    sandbox.push(&[BRANCH]).await.expect_success();

    sandbox.commit("blob", &"y".repeat(10_001));
    let blob = sandbox.git(&["rev-parse", "HEAD:blob"]);
    sandbox.push(&[BRANCH]).await.expect_refusal(&[&blob, "10001", "10000"]);
    sandbox.git(&["reset", "-q", "--hard", "HEAD~1"]);
    // A delta against upstream's large file: git completes the pack with that file, which is not counted against the session.
    sandbox.commit("large", &"upstream line\n".repeat(600));
    sandbox.push(&[BRANCH]).await.expect_success();
    for part in 0..8 {
        std::fs::write(sandbox.path().join(format!("noise{part}")), noise(part, 9_000)).unwrap();
    }
    sandbox.commit("n", "n\n");
    sandbox
        .push(&[BRANCH])
        .await
        .expect_refusal(&["pack exceeds maximum allowed size"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_push_streams_through_and_all_pushes_together_are_bounded() {
    let forge = Forge::start_with(|config| config.largest_staging = 5_000_000).await;
    let staging = forge.stage().await.unwrap();
    let sandbox = Sandbox::clone_of(&staging).await;
    // Above a mebibyte git asks first with an empty request, then sends in chunks.
    std::fs::write(sandbox.path().join("large"), noise(1, 3_000_000)).unwrap();
    let head = sandbox.commit("a", "a\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    std::fs::write(sandbox.path().join("large"), noise(2, 3_000_000)).unwrap();
    sandbox.commit("a", "b\n");
    sandbox
        .push(&[BRANCH])
        .await
        .expect_refusal(&["at most 5000000 are allowed"]);
    assert_eq!(staging.head().unwrap().unwrap().as_str(), head);
    sandbox.run(&["fetch", "origin"]).await.expect_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_behind_a_nul_do_not_count() {
    let (_forge, _staging, sandbox) = begin().await;
    sandbox.commit("a", "a\n");
    let object = sandbox.path().join("object");
    let text = sandbox
        .git(&["cat-file", "commit", "HEAD"])
        .replacen("Why.", "Why.\0", 1);
    std::fs::write(&object, text).unwrap();
    let hidden = sandbox.git(&[
        "hash-object",
        "-t",
        "commit",
        "-w",
        "--literally",
        object.to_str().unwrap(),
    ]);
    sandbox.git(&["update-ref", &format!("refs/heads/{BRANCH}"), &hidden]);
    sandbox.push(&[BRANCH]).await.expect_refusal(&["nulInCommit"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_says_what_a_change_request_shows() {
    let (_forge, staging, sandbox) = begin().await;
    std::fs::remove_file(sandbox.path().join("README.md")).unwrap();
    sandbox.commit("new\u{e9}.txt", "one\ntwo\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    let head = staging.head().unwrap().unwrap();
    let inspection = staging.inspect(&head).await.unwrap();
    assert_eq!((inspection.ahead, inspection.truncated), (1, false));
    assert_eq!(inspection.commits[0].id, head);
    assert_eq!(inspection.commits[0].author, "Ada Example");
    assert!(
        inspection.commits[0].body.starts_with("Why."),
        "{:?}",
        inspection.commits[0]
    );
    let files: Vec<_> = inspection
        .files
        .iter()
        .map(|file| (file.path.as_str(), file.status, file.added, file.deleted))
        .collect();
    use crate::repository::FileStatus::{Added, Deleted};
    assert_eq!(files, [("README.md", Deleted, 0, 1), ("new\u{e9}.txt", Added, 2, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_that_cannot_be_made_is_an_error_not_a_crash() {
    let (_forge, staging, _sandbox) = begin().await;
    let nowhere = "d".repeat(40).parse().unwrap();
    assert!(staging.inspect(&nowhere).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serving_that_is_dropped_or_too_slow_ends() {
    let forge = Forge::start_with(|config| config.serve_timeout_s = 1).await;
    let staging = forge.stage().await.unwrap();
    let path = staging.repository();
    drop(staging.upload_pack(crate::repository::Protocol::V2).await.unwrap());
    super::secrecy::until_no_process_mentions(path.to_str().unwrap()).await;
    let mut slow = staging.receive_pack(crate::repository::Protocol::V0).await.unwrap();
    let input = slow.input.take();
    let error = slow.finish().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    drop(input);
    super::secrecy::until_no_process_mentions(path.to_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_session_stays_after_its_removal() {
    let (forge, staging, sandbox) = begin().await;
    sandbox.commit("a", "a\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    assert_eq!(forge.room.sessions().unwrap(), [Forge::session()]);
    let again = forge.room.reopen(Forge::session()).unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].head().unwrap(), staging.head().unwrap());
    forge.room.remove_session(Forge::session()).await.unwrap();
    forge.room.remove_session(Forge::session()).await.unwrap();
    assert!(forge.room.sessions().unwrap().is_empty());
    assert!(git_ok(&forge.mirror(), &["fsck", "--full"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_files_is_refused_by_its_name() {
    let (_forge, _staging, sandbox) = begin().await;
    let empty = sandbox.git(&["hash-object", "-t", "tree", "-w", "/dev/null"]);
    let push = |lines: String| {
        let file = sandbox.path().join("list");
        std::fs::write(&file, lines).unwrap();
        let mut command = super::forge::git_command(sandbox.path(), &["mktree"]);
        let output = command.stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
        std::fs::remove_file(file).unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let below = push(format!("040000 tree {empty}\tinner\n"));
    for lines in [
        format!("040000 tree {empty}\ta-name\n"),
        format!("040000 tree {below}\ta-name\n"),
    ] {
        let tree = push(lines);
        let commit = sandbox.git(&["commit-tree", &tree, "-p", "origin/main", "-m", &full("Empty")]);
        sandbox
            .push(&[&format!("{commit}:refs/heads/{BRANCH}")])
            .await
            .expect_refusal(&["without any file", "a-name", "git commit --amend"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_are_looked_at_whatever_their_file_is_called() {
    let (_forge, _staging, sandbox) = begin().await;
    for name in [
        ".gitmodules",
        ".GitModules.",
        ".gitmodules ",
        "gitmod~1",
        "GITMOD~4",
        "gi7eba~1",
        ".git\u{200c}modules",
        "GI7D29~9",
    ] {
        sandbox.commit(name, "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c id\n");
        let said = sandbox.push(&[BRANCH]).await;
        if name == "GI7D29~9" {
            // No short name of that file, so a file like others. The last: it is accepted.
            said.expect_success();
        } else {
            said.expect_refusal(&["submodule at ext::sh"]);
        }
        sandbox.git(&["reset", "-q", "--hard", "HEAD~1"]);
    }
}

fn header(kind: u8, mut size: u64) -> Vec<u8> {
    let mut bytes = vec![(kind << 4) | (size & 15) as u8];
    size >>= 4;
    while size > 0 {
        *bytes.last_mut().unwrap() |= 0x80;
        bytes.push((size & 0x7f) as u8);
        size >>= 7;
    }
    bytes
}

/// A push that begins a pack with one object of this kind and size.
fn beginning(kind: u8, size: u64) -> Vec<u8> {
    let command = format!(
        "{} {} refs/heads/{BRANCH}\0 report-status",
        "0".repeat(40),
        "a".repeat(40)
    );
    let head = format!("{:04x}{command}0000", command.len() + 4);
    [head.as_bytes(), b"PACK\0\0\0\x02\0\0\0\x01", &header(kind, size)].concat()
}

fn quarantines(staging: &crate::repository::Staging) -> usize {
    std::fs::read_dir(staging.repository().join("objects"))
        .unwrap()
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with("tmp_objdir-")
        })
        .count()
}

/// Begins a push of noise and stops in the middle of it, once git has some of it on disk.
async fn stall(staging: &crate::repository::Staging) -> (crate::repository::Serving, tokio::process::ChildStdin) {
    use tokio::io::AsyncWriteExt as _;
    let mut serving = staging.receive_pack(crate::repository::Protocol::V0).await.unwrap();
    let mut input = serving.input.take().unwrap();
    input.write_all(&beginning(3, 300_000_000)).await.unwrap();
    input.write_all(b"\x78\x01").await.unwrap();
    for _ in 0..60 {
        input.write_all(&[0, 0xff, 0xff, 0, 0]).await.unwrap();
        input.write_all(&[b'y'; 0xffff]).await.unwrap();
    }
    tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while quarantines(staging) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    (serving, input)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_breaks_off_or_stalls_leaves_nothing_on_the_disk() {
    // Its time is over. It is time enough for git to begin, also on a busy machine.
    let forge = Forge::start_with(|config| config.serve_timeout_s = 6).await;
    let staging = forge.stage().await.unwrap();
    let (serving, input) = stall(&staging).await;
    assert!(serving.finish().await.is_err());
    assert_eq!(quarantines(&staging), 0, "after a timeout");
    drop(input);
    // The client hangs up, and nobody waits for the end.
    let forge = Forge::start().await;
    let staging = forge.stage().await.unwrap();
    let (serving, input) = stall(&staging).await;
    drop((serving, input));
    tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while quarantines(&staging) > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("a broken push stays on the disk");
    // What a killed worker left is gone before the next push is taken in.
    let left = staging.repository().join("objects/tmp_objdir-incoming-left");
    std::fs::create_dir_all(left.join("pack")).unwrap();
    std::fs::write(left.join("pack/tmp_pack_x"), "x").unwrap();
    let sandbox = Sandbox::clone_of(&staging).await;
    sandbox.commit("a", "a\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    assert!(!left.exists());
}

/// The most memory that processes with this working directory were seen to have, in bytes, until told to stop. Tells when it sees the first.
fn watch_memory(
    directory: std::path::PathBuf,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    seen: tokio::sync::oneshot::Sender<()>,
) -> u64 {
    let mut most = 0;
    let mut seen = Some(seen);
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|at| at.starts_with(&directory)) {
                let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
                let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                let kib: u64 = peak
                    .and_then(|text| text.trim().trim_end_matches(" kB").parse().ok())
                    .unwrap_or(0);
                most = most.max(kib * 1024);
                if most > 0
                    && let Some(seen) = seen.take()
                {
                    let _ = seen.send(());
                }
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_pack_of_a_huge_directory_takes_no_memory() {
    use std::io::Write as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let forge = Forge::start().await;
    let staging = forge.stage().await.unwrap();
    let size = 900 * 1024 * 1024_u64;
    // One mebibyte that ends at a whole byte, over and over: to deflate all of it would take most of this test's time.
    let mut zeros = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    zeros.write_all(&vec![0; 1024 * 1024]).unwrap();
    zeros.flush().unwrap();
    let body = [beginning(2, size), b"\x78\x01".to_vec(), zeros.get_ref().repeat(900)].concat();
    assert!(body.len() < 8_000_000);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (seen, first_seen) = tokio::sync::oneshot::channel();
    let watching = tokio::task::spawn_blocking({
        let (path, stop) = (staging.repository(), stop.clone());
        move || watch_memory(path, stop, seen)
    });
    let mut serving = staging.receive_pack(crate::repository::Protocol::V0).await.unwrap();
    let (mut input, mut output) = (serving.input.take().unwrap(), serving.output.take().unwrap());
    // git may be done with it before an eye on a busy machine is open.
    tokio::time::timeout(std::time::Duration::from_secs(20), first_seen)
        .await
        .expect("no git is seen in the staging")
        .unwrap();
    let feed = tokio::spawn(async move {
        let _ = input.write_all(&body).await;
    });
    let mut answer = String::new();
    output.read_to_string(&mut answer).await.unwrap();
    feed.await.unwrap();
    serving.finish().await.unwrap();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let most = watching.await.unwrap();
    assert!(answer.contains("unpack index-pack abnormal exit"), "{answer}");
    assert!((1..300 * 1024 * 1024).contains(&most), "git took {most} bytes");
    assert_eq!(quarantines(&staging), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn git_processes_of_all_sessions_are_bounded_and_whoever_waits_too_long_is_told() {
    let forge = Forge::start_with(|config| {
        config.git_processes = 2;
        config.git_wait_s = 1;
    })
    .await;
    let staging = forge.stage().await.unwrap();
    let protocol = crate::repository::Protocol::V2;
    let one = staging.upload_pack(protocol).await.unwrap();
    // A push has a turn of its own beside its place.
    let two = staging.receive_pack(protocol).await.unwrap();
    let error = staging.upload_pack(protocol).await.unwrap_err();
    assert!(
        error.is_transient() && error.to_string().contains("try again"),
        "{error}"
    );
    drop(two);
    // Its place is free when nothing of it is left, which may take longer than whoever asks once waits.
    let two = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        loop {
            match staging.upload_pack(protocol).await {
                Err(error) if error.is_transient() => {}
                served => return served.unwrap(),
            }
        }
    })
    .await
    .expect("its place is not free again");
    drop((one, two));
    assert_eq!(staging.share(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_staging_takes_no_push_that_could_fill_it_further() {
    let forge = Forge::start_with(|config| config.largest_staging = 1000).await;
    let staging = forge.stage().await.unwrap();
    assert!(staging.check_room().await.is_ok());
    std::fs::write(staging.repository().join("objects/pack/pack-x.pack"), vec![0; 1000]).unwrap();
    let error = staging.receive_pack(crate::repository::Protocol::V0).await.unwrap_err();
    assert!(error.to_string().contains("at most 1000 are allowed"), "{error}");
    assert!(staging.check_room().await.is_err());
}
