//! What a search through a session's commits sees, made with a real git client: every new line once, and nothing that the forge has.

use std::sync::Arc;

use super::forge::{BRANCH, Forge};
use super::sandbox::{Sandbox, noise};
use crate::repository::scan::{Allow, Config, Rules, Seen, Wanted};
use crate::repository::{RepositoryError, Shared, Staging};
use crate::secret::{Secret, Traces};

const OWN: &str = "own-secret-of-this-session";

/// In pieces, so that this file is not what it looks for.
fn token() -> String {
    ["gl", "pat-", "Xk3J9vQ2mR7tB5nW8cLd"].concat()
}

fn wanted() -> Wanted {
    let mut own = Traces::default();
    own.add(&Secret::new(OWN));
    Wanted {
        rules: Some(Arc::new(Rules::new(None, &Allow::default()).unwrap())),
        own,
    }
}

/// The same with another program in the place of the child.
fn answered_by(staging: &Staging, command: &[&str]) -> Arc<Shared> {
    Arc::new(Shared {
        config: staging.shared.config.clone(),
        git: crate::repository::git::Git::new("git".into()),
        served: staging.shared.served.clone(),
        internal: command.iter().map(|word| (*word).to_owned()).collect(),
        asker: Arc::default(),
        lfs: Default::default(),
    })
}

async fn begin() -> (Forge, Staging, Sandbox) {
    begin_with(|_| {}).await
}

async fn begin_with(upstream: impl FnOnce(&Forge)) -> (Forge, Staging, Sandbox) {
    let forge = Forge::start().await;
    upstream(&forge);
    let staging = forge.stage().await.unwrap();
    let sandbox = Sandbox::clone_of(&staging).await;
    (forge, staging, sandbox)
}

async fn search_with(staging: &Staging, sandbox: &Sandbox, config: &Config) -> Result<Seen, RepositoryError> {
    sandbox.push(&[BRANCH]).await.expect_success();
    staging
        .search(&staging.head().unwrap().unwrap(), &wanted(), config)
        .await
}

async fn search(staging: &Staging, sandbox: &Sandbox) -> Seen {
    search_with(staging, sandbox, &Config::default()).await.unwrap()
}

fn places(seen: &Seen) -> Vec<String> {
    let place = |place: &str| place.split(" (commit").next().unwrap().to_owned();
    seen.findings.iter().map(|found| place(&found.place)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_again_was_there() {
    let (_forge, staging, sandbox) = begin().await;
    sandbox.commit("a", &format!("one\ntwo {} x\n", token()));
    sandbox.commit("a", "one\ntwo\n");
    sandbox.commit("b", "plain\n");
    let seen = search(&staging, &sandbox).await;
    assert_eq!(places(&seen), ["a:2"]);
    let changed: Vec<_> = seen.changed.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(changed, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_added_lines_count_also_in_a_file_that_moves() {
    let old = format!("{}\nkeep\n{}", token(), "line\n".repeat(30));
    let (_forge, staging, sandbox) = begin_with(|forge| {
        forge.upstream_commit("team/greeter", "main", "fixture.txt", &old);
    })
    .await;
    sandbox.commit("fixture.txt", &format!("{old}more\n"));
    sandbox.git(&["mv", "fixture.txt", "moved.txt"]);
    sandbox.commit("moved.txt", &format!("{old}more\nand more\n"));
    sandbox.git(&["mv", "moved.txt", "again.txt"]);
    sandbox.commit("x", "x\n");
    assert_eq!(places(&search(&staging, &sandbox).await), Vec::<String>::new());
    // The same value on another line is another matter.
    sandbox.commit("again.txt", &format!("{old}more\n{}\n", token()));
    assert_eq!(places(&search(&staging, &sandbox).await), ["again.txt:34"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_counts_what_it_brings_itself() {
    let (forge, _, _) = begin().await;
    forge.upstream_commit("team/greeter", "main", "both", "top\nmiddle\nend\n");
    forge.upstream_commit("team/greeter", "other", "theirs", &format!("{}\n", token()));
    let (staging, sandbox) = {
        let staging = forge.stage().await.unwrap();
        let sandbox = Sandbox::clone_of(&staging).await;
        (staging, sandbox)
    };
    sandbox.commit("mine", "mine\n");
    let message = format!("Merge\n\n{}\n", super::forge::trailers().lines().join("\n"));
    sandbox
        .run(&["merge", "-q", "--no-ff", "-m", &message, "origin/other"])
        .await
        .expect_success();
    assert_eq!(places(&search(&staging, &sandbox).await), Vec::<String>::new());
    // A merge whose resolution has a line that no parent has.
    sandbox.git(&["checkout", "-q", "-b", "side", "origin/main"]);
    sandbox.commit("both", "top\nside\nend\n");
    sandbox.git(&["checkout", "-q", BRANCH]);
    sandbox.git(&["merge", "-q", "--no-commit", "--no-ff", "side"]);
    sandbox.commit_saying("both", &format!("top\nside\n{OWN}\nend\n"), &message, &[]);
    assert_eq!(places(&search(&staging, &sandbox).await), ["both:3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_messages_authors_links_and_binary_files_are_searched() {
    let (_forge, staging, sandbox) = begin().await;
    sandbox.commit(&format!("{}.txt", token()), "");
    let trailers = super::forge::trailers().lines().join("\n");
    sandbox.commit_saying("m", "m\n", &format!("Say it\n\nIt is {OWN}.\n\n{trailers}\n"), &[]);
    std::os::unix::fs::symlink(format!("nowhere/{OWN}"), sandbox.path().join("link")).unwrap();
    let binary = [noise(1, 3000), vec![0; 10], OWN.as_bytes().to_vec(), noise(2, 3000)].concat();
    std::fs::write(sandbox.path().join("blob.bin"), binary).unwrap();
    sandbox.commit("n", "n\n");
    sandbox.git(&["config", "user.name", &format!("Ada {OWN}")]);
    sandbox.commit("o", "o\n");
    let seen = search(&staging, &sandbox).await;
    let found = places(&seen);
    for place in [
        "the name of a file",
        "line 3 of the message of commit",
        "link:1",
        "blob.bin:",
        "what the commit",
    ] {
        assert!(
            found.iter().any(|found| found.starts_with(place)),
            "{place} in {found:?}"
        );
    }
    assert!(!format!("{:?}", seen.findings).contains("Xk3J9v"), "{seen:?}");
    let link = seen.changed.iter().find(|one| one.path == "link").unwrap();
    assert_eq!(link.target.as_deref(), Some(format!("nowhere/{OWN}").as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_pieces_cut_is_found_in_a_large_file() {
    let (_forge, staging, sandbox) = begin().await;
    let piece = crate::repository::scan::frame::LARGEST_PIECE;
    let text = format!("{}\n{} {}", "x".repeat(99), "y".repeat(piece - 100 - 8), token());
    sandbox.commit("large", &text);
    assert_eq!(places(&search(&staging, &sandbox).await), ["large:2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_searched_whole_is_an_error() {
    let (_forge, mut staging, sandbox) = begin().await;
    sandbox.commit("a", &"word\n".repeat(1000));
    let small = Config {
        largest_bytes: 2000,
        ..Config::default()
    };
    let error = search_with(&staging, &sandbox, &small).await.unwrap_err().to_string();
    assert!(error.contains("more than 2000 bytes"), "{error}");
    // A child that dies, and one that says nothing of an end.
    for script in [
        "exit 3",
        "kill -9 $$",
        "echo '{\"kind\":\"changed\",\"path\":\"a\",\"target\":null}'",
        "echo nonsense",
        ":",
    ] {
        staging.shared = answered_by(&staging, &["/bin/sh", "-c", script]);
        let error = search_with(&staging, &sandbox, &Config::default()).await.unwrap_err();
        assert!(matches!(error, RepositoryError::Scan { .. }), "{script}: {error}");
    }
    staging.shared = answered_by(&staging, &["/bin/sh", "-c", "sleep 60"]);
    let hasty = Config {
        timeout_s: 1,
        ..Config::default()
    };
    let error = search_with(&staging, &sandbox, &hasty).await.unwrap_err().to_string();
    assert!(error.contains("longer than 1 s"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submodule_s_entry_hides_no_file_that_takes_its_place() {
    let (_forge, staging, sandbox) = begin().await;
    // As long as the line by which such an entry is compared, and of the same id: compared with each other they are equal.
    let line = format!("{:<58}\n", format!("x {}", token()));
    std::fs::write(sandbox.path().join("blob"), &line).unwrap();
    let blob = sandbox.git(&["hash-object", "-w", "blob"]);
    std::fs::remove_file(sandbox.path().join("blob")).unwrap();
    let message = format!("Change\n\n{}\n", super::forge::trailers().lines().join("\n"));
    let put = |mode: &str, name: &str| {
        sandbox.git(&["update-index", "--add", "--cacheinfo", &format!("{mode},{blob},{name}")]);
        sandbox.git(&["commit", "-q", "-m", &message]);
        sandbox.git(&["rev-parse", "HEAD"])
    };
    put("160000", "conf");
    put("100644", "conf");
    // The same with the entry in a merge's other parent.
    put("160000", "late");
    let other = sandbox.git(&["rev-parse", "HEAD"]);
    sandbox.git(&["reset", "-q", "--soft", "HEAD~1"]);
    sandbox.git(&["rm", "-q", "--cached", "late"]);
    sandbox.git(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},late")]);
    let tree = sandbox.git(&["write-tree"]);
    let merge = sandbox.git(&["commit-tree", &tree, "-p", "HEAD", "-p", &other, "-m", &message]);
    sandbox.git(&["update-ref", "HEAD", &merge]);
    let seen = search(&staging, &sandbox).await;
    let mut found = places(&seen);
    found.sort_unstable();
    assert_eq!(found, ["conf:1", "late:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submodule_that_nobody_has_may_become_a_file() {
    let (_forge, staging, sandbox) = begin().await;
    let message = format!("Change\n\n{}\n", super::forge::trailers().lines().join("\n"));
    let nowhere = format!("160000,{},conf", "d".repeat(40));
    sandbox.git(&["update-index", "--add", "--cacheinfo", &nowhere]);
    sandbox.git(&["commit", "-q", "-m", &message]);
    sandbox.git(&["rm", "-q", "--cached", "conf"]);
    sandbox.commit("conf", &format!("one\n{}\n", token()));
    assert_eq!(places(&search(&staging, &sandbox).await), ["conf:2"]);
}
