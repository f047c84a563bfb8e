//! Trees that are quick to check out: made at a session's end, shown to sessions that begin at the same commit, and to no other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files_below;
use super::forge::{BRANCH, Forge, git, git_ok};
use super::quick::published;
use super::sandbox::noise;
use crate::message::CommitId;
use crate::repository::Staging;

/// Large enough to be worth it, and random: what is compressed is less than this.
fn large() -> String {
    hex::encode(noise(7, 5 * 1024 * 1024))
}

/// Ends a session, until its project's tree is prepared: other tests' processes hold a lock for a moment, between the fork and the program.
async fn ended(forge: &Forge, staging: &Staging, commit: &CommitId) -> PathBuf {
    let prepared = forge.mirror().with_file_name("prepared").join(commit.as_str());
    for _ in 0..100 {
        staging.give_back(true).await.unwrap();
        if prepared.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    forge.room.remove_session(Forge::session()).await.unwrap();
    prepared
}

fn packs(repository: &Path) -> Vec<PathBuf> {
    let mut all = files_below(&repository.join("objects/pack"));
    all.retain(|file| file.extension().is_some_and(|end| end == "pack"));
    all.sort();
    all
}

/// What a session would show to its sandbox, and how many packs more than its store has.
async fn shown(forge: &Forge, staging: &Staging, name: &str) -> (PathBuf, usize) {
    let to = forge.directory.path().join(name);
    staging.show(to.clone()).await.unwrap();
    let more = packs(&to).len() - packs(staging.store().unwrap().path()).len();
    (to, more)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_prepared_at_a_session_s_end_and_shown_where_it_is_the_base() {
    let forge = Forge::start().await;
    let (project, text) = ("team/greeter", large());
    let first = forge.upstream_commit(project, "main", "large", &text);
    let staging = forge.stage().await.unwrap();
    assert_eq!(shown(&forge, &staging, "one").await.1, 0, "nothing is prepared yet");
    published(&forge, &staging).await;
    let prepared = ended(&forge, &staging, &first).await;
    let all = files_below(&prepared);
    let bytes = |end: &str| {
        let file = all
            .iter()
            .find(|file| file.extension().is_some_and(|other| other == end));
        std::fs::metadata(file.unwrap()).unwrap().len()
    };
    assert!(bytes("pack") > text.len() as u64 && bytes("idx") > 0, "{all:?}");
    // The mirror itself knows nothing of it.
    assert!(git_ok(&forge.mirror(), &["fsck", "--full", "--strict"]));
    assert!(packs(&forge.mirror()).iter().all(|pack| !pack.starts_with(&prepared)));

    let staging = forge.stage().await.unwrap();
    let (two, more) = shown(&forge, &staging, "two").await;
    assert_eq!(more, 1);
    assert!(git_ok(&two, &["fsck", "--full", "--strict"]));
    let clone = forge.directory.path().join("clone");
    let words = [
        "clone",
        "-q",
        "--shared",
        two.to_str().unwrap(),
        clone.to_str().unwrap(),
    ];
    git(forge.directory.path(), &words);
    assert_eq!(std::fs::read_to_string(clone.join("large")).unwrap(), text);
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]).trim(), first.as_str());

    // The default branch is elsewhere: what was prepared is of no session any more, and is replaced at the next one's end.
    forge.room.remove_session(Forge::session()).await.unwrap();
    git(&forge.bare(project), &["branch", "-D", BRANCH]);
    let second = forge.upstream_commit(project, "main", "large", &text[1..]);
    let staging = forge.stage().await.unwrap();
    assert_eq!(shown(&forge, &staging, "three").await.1, 0);
    published(&forge, &staging).await;
    let newer = ended(&forge, &staging, &second).await;
    assert!(newer.exists() && !prepared.exists());
    let staging = forge.stage().await.unwrap();
    let (four, more) = shown(&forge, &staging, "four").await;
    assert_eq!(more, 1);
    assert!(git_ok(&four, &["fsck", "--full", "--strict"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_project_has_none_and_a_damaged_mirror_takes_it_along() {
    let forge = Forge::start().await;
    let small = forge.head("team/greeter", "main").unwrap();
    let staging = forge.stage().await.unwrap();
    published(&forge, &staging).await;
    for _ in 0..3 {
        staging.give_back(true).await.unwrap();
    }
    let place = forge.mirror().with_file_name("prepared");
    assert!(!place.join(small.as_str()).exists());

    forge.room.remove_session(Forge::session()).await.unwrap();
    git(&forge.bare("team/greeter"), &["branch", "-D", BRANCH]);
    let large = forge.upstream_commit("team/greeter", "main", "large", &large());
    let staging = forge.stage().await.unwrap();
    let head = published(&forge, &staging).await;
    assert_ne!(head, large);
    let prepared = ended(&forge, &staging, &large).await;
    assert!(prepared.exists());
    for pack in packs(&forge.mirror()) {
        let mut bytes = std::fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        std::fs::remove_file(&pack).unwrap();
        std::fs::write(&pack, bytes).unwrap();
    }
    let project = forge.project("team/greeter");
    let was = forge.room.discard_if_damaged(&project, &super::forge::access()).await;
    assert!(was.unwrap());
    assert!(!place.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_too_large_leaves_nothing_and_is_not_tried_at_each_session_s_end() {
    let forge = Forge::start_with(|config| config.largest_push = 1024 * 1024).await;
    let commit = forge.upstream_commit("team/greeter", "main", "large", &large());
    let staging = forge.stage().await.unwrap();
    published(&forge, &staging).await;
    let mark = forge.mirror().with_file_name("unprepared");
    for _ in 0..100 {
        staging.give_back(true).await.unwrap();
        if mark.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let marked = std::fs::metadata(&mark).unwrap().modified().unwrap();
    let place = forge.mirror().with_file_name("prepared");
    assert!(files_below(&place).is_empty() && !place.join(commit.as_str()).exists());
    let unfinished = |file: &PathBuf| file.file_name().unwrap().to_string_lossy().starts_with("tmp_");
    assert!(!files_below(&forge.mirror()).iter().any(unfinished));
    staging.give_back(true).await.unwrap();
    assert_eq!(std::fs::metadata(&mark).unwrap().modified().unwrap(), marked);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_forge_shows_no_more_is_not_kept_as_a_tree() {
    let forge = Forge::start_with(|config| config.unreachable_s = 0).await;
    let project = "team/greeter";
    let first = forge.head(project, "main").unwrap();
    let secret = forge.upstream_commit(project, "main", "large", &large());
    let staging = forge.stage().await.unwrap();
    published(&forge, &staging).await;
    let prepared = ended(&forge, &staging, &secret).await;
    assert!(prepared.exists());
    git(&forge.bare(project), &["branch", "-D", BRANCH]);
    git(&forge.bare(project), &["update-ref", "refs/heads/main", first.as_str()]);
    let staging = forge.stage().await.unwrap();
    assert_eq!(shown(&forge, &staging, "after").await.1, 0);
    assert!(!prepared.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_did_not_finish_goes_when_nobody_is_at_work() {
    let forge = Forge::start().await;
    forge.stage().await.unwrap();
    let place = forge.mirror().with_file_name("prepared");
    let (left, whole) = (place.join("new-left"), place.join("0".repeat(40)));
    for directory in [left.join("pack"), whole.clone()] {
        std::fs::create_dir_all(directory).unwrap();
    }
    let lock = std::fs::File::create(forge.mirror().with_file_name("prepared.lock")).unwrap();
    lock.lock().unwrap();
    forge.room.clear_mirrors().await.unwrap();
    assert!(left.exists(), "its git may be at work");
    drop(lock);
    // What other tests start holds the lock for a moment, between the fork and the program.
    for _ in 0..100 {
        forge.room.clear_mirrors().await.unwrap();
        if !left.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!left.exists() && whole.exists());
}
