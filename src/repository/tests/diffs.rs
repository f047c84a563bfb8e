//! Diffs of change requests, taken with git from a forge that knows them as references.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::files_below;
use super::forge::{Forge, TOKEN, access, git};
use crate::message::CommitId;
use crate::repository::{ChangeDiff, DiffReader, DiffRequest, FileChange, NoDiff, RepositoryError};

const PROJECT: &str = "team/greeter";

fn request(number: u64) -> DiffRequest {
    DiffRequest {
        number,
        head: None,
        base: None,
        target: Some("main".parse().unwrap()),
        path: None,
        skip: 0,
        most: 20,
    }
}

/// A commit of somebody else, on top of `main`, that only the change request's reference names: as from a fork.
fn change_request(forge: &Forge, number: u64, change: impl FnOnce(&Path)) -> CommitId {
    let bare = forge.bare(PROJECT);
    let tree = tempfile::tempdir().unwrap();
    git(tree.path(), &["clone", "-q", bare.to_str().unwrap(), "."]);
    change(tree.path());
    git(tree.path(), &["add", "-A", "."]);
    commit(tree.path());
    let name = format!("HEAD:refs/merge-requests/{number}/head");
    git(tree.path(), &["push", "-q", "origin", &name]);
    git(tree.path(), &["rev-parse", "HEAD"]).parse().unwrap()
}

fn commit(tree: &Path) {
    let who = ["-c", "user.name=Eve", "-c", "user.email=eve@example.org"];
    git(tree, &[&who[..], &["commit", "-q", "-m", "Work"]].concat());
}

async fn reader(forge: &Forge) -> DiffReader {
    let staging = forge.stage().await.unwrap();
    forge.room.diffs(&staging, &forge.project(PROJECT))
}

fn diff<'a>(found: &'a ChangeDiff, path: &str) -> &'a str {
    let file = found.files.iter().find(|file| file.path == path).unwrap();
    file.diff.as_deref().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_is_told_and_none_is_empty() {
    let forge = Forge::start().await;
    let long: String = (0..100).map(|n| format!("line {n}\n")).collect();
    for (file, text) in [
        ("gone", "bye\n"),
        ("run.sh", "true\n"),
        ("old", &long),
        ("place", "file\n"),
    ] {
        forge.upstream_commit(PROJECT, "main", file, text);
    }
    let reader = reader(&forge).await;
    let head = change_request(&forge, 7, |tree| {
        let write = |name: &str, bytes: &[u8]| std::fs::write(tree.join(name), bytes).unwrap();
        write("README.md", b"Hello\r\ndiff --git a/x b/x\n@@ -1 +1 @@\n");
        write("new", b"@@ not a hunk\n");
        write("empty", b"");
        write("picture", b"\0\x01\x02");
        write("café\n:000000 000000", b"x\n");
        std::fs::remove_file(tree.join("gone")).unwrap();
        std::fs::rename(tree.join("old"), tree.join("renamed")).unwrap();
        std::fs::set_permissions(tree.join("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        // A file becomes a directory, and what a pathspec would take for both is asked for as one.
        std::fs::remove_file(tree.join("place")).unwrap();
        std::fs::create_dir(tree.join("place")).unwrap();
        write("place/inner", b"x\n");
        std::os::unix::fs::symlink("/etc/passwd", tree.join("link")).unwrap();
        // Attributes that would run something, or hide something, do nothing.
        write(".gitattributes", b"* diff=evil\nREADME.md -diff\n");
    });
    let found = reader.read(&request(7), &access()).await.unwrap();
    assert_eq!((&found.head, found.total, found.files.len()), (&head, 12, 12));
    assert_eq!(found.base, forge.head(PROJECT, "main").unwrap());
    assert_eq!(
        diff(&found, "README.md"),
        "@@ -1 +1,3 @@\n-Hello\n+Hello\r\n+diff --git a/x b/x\n+@@ -1 +1 @@\n"
    );
    assert_eq!(
        diff(&found, "new"),
        "new file mode 100644\n@@ -0,0 +1 @@\n+@@ not a hunk\n"
    );
    assert_eq!(diff(&found, "empty"), "new file mode 100644\n");
    assert_eq!(diff(&found, "run.sh"), "old mode 100644\nnew mode 100755\n");
    assert_eq!(diff(&found, "renamed"), "similarity index 100%\n");
    assert!(diff(&found, "gone").starts_with("deleted file mode 100644\n@@ -1 +0,0 @@"));
    assert!(diff(&found, "link").contains("new file mode 120000\n") && diff(&found, "link").contains("+/etc/passwd"));
    assert!(diff(&found, "place").contains("-file\n") && diff(&found, "place/inner").contains("+x\n"));
    let of = |path: &str| found.files.iter().find(|file| file.path == path).unwrap();
    assert_eq!(of("picture").diff, Err(NoDiff::Binary));
    assert_eq!(of("renamed").old_path.as_deref(), Some("old"));
    assert_eq!(of("renamed").change, FileChange::Renamed);
    assert_eq!(of("gone").change, FileChange::Removed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_is_paged_and_filtered_and_fetched_once() {
    let forge = Forge::start().await;
    let reader = reader(&forge).await;
    let head = change_request(&forge, 1, |tree| {
        std::fs::create_dir(tree.join("src")).unwrap();
        for name in ["a", "b", "c", "src/a", "src/b", "srcs"] {
            std::fs::write(tree.join(name), name).unwrap();
        }
    });
    let asked = DiffRequest {
        head: Some(head.clone()),
        base: forge.head(PROJECT, "main"),
        most: 4,
        ..request(1)
    };
    let first = reader.read(&asked, &access()).await.unwrap();
    assert_eq!((first.total, first.files.len()), (6, 4));
    let entered = forge.manners.entered.load(Ordering::SeqCst);
    let second = reader
        .read(
            &DiffRequest {
                skip: 4,
                ..asked.clone()
            },
            &access(),
        )
        .await
        .unwrap();
    let below = DiffRequest {
        path: Some("src/".into()),
        ..asked.clone()
    };
    let below = reader.read(&below, &access()).await.unwrap();
    assert_eq!(
        forge.manners.entered.load(Ordering::SeqCst),
        entered,
        "nothing new, no talk"
    );
    let names = |found: &ChangeDiff| found.files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
    assert_eq!(
        [names(&first), names(&second)].concat(),
        ["a", "b", "c", "src/a", "src/b", "srcs"]
    );
    assert_eq!((below.total, names(&below)), (2, vec!["src/a".into(), "src/b".into()]));
    // What was fetched is the session's own and goes with it; no credential is in it.
    let kept = forge.state.join("sessions");
    for file in files_below(&kept) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(
            !bytes.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()),
            "{file:?}"
        );
    }
    forge.room.remove_session(Forge::session()).await.unwrap();
    assert!(files_below(&kept).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_starts_where_the_branch_left_its_target() {
    let forge = Forge::start().await;
    let left = forge.head(PROJECT, "main").unwrap();
    let reader = reader(&forge).await;
    change_request(&forge, 2, |tree| std::fs::write(tree.join("mine"), "x\n").unwrap());
    // The target goes on after the session began: the API may name a base that the session was never shown.
    let newer = forge.upstream_commit(PROJECT, "main", "theirs", "y\n");
    for base in [None, Some(newer)] {
        let found = reader
            .read(&DiffRequest { base, ..request(2) }, &access())
            .await
            .unwrap();
        assert_eq!((found.total, &found.base), (1, &left));
        assert_eq!(found.files[0].path, "mine");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_git_cannot_give_is_an_error_and_not_a_short_diff() {
    let forge = Forge::start().await;
    let reader = reader(&forge).await;
    let nobody: CommitId = "1".repeat(40).parse().unwrap();
    change_request(&forge, 3, |tree| std::fs::write(tree.join("mine"), "x\n").unwrap());
    for asked in [
        DiffRequest {
            head: Some(nobody.clone()),
            ..request(3)
        },
        DiffRequest {
            base: Some(nobody.clone()),
            ..request(3)
        },
        DiffRequest {
            target: None,
            ..request(3)
        },
        DiffRequest {
            target: Some("no-such-branch".parse().unwrap()),
            ..request(3)
        },
        request(4),
    ] {
        let error = reader.read(&asked, &access()).await.unwrap_err();
        assert!(matches!(error, RepositoryError::Diff { .. }), "{asked:?}: {error}");
        assert!(!error.to_string().contains(TOKEN));
    }
    // A history that shares nothing with the project's.
    let bare = forge.bare(PROJECT);
    let tree = tempfile::tempdir().unwrap();
    git(tree.path(), &["init", "-q", "."]);
    std::fs::write(tree.path().join("x"), "x").unwrap();
    git(tree.path(), &["add", "."]);
    commit(tree.path());
    git(
        tree.path(),
        &["push", "-q", bare.to_str().unwrap(), "HEAD:refs/merge-requests/5/head"],
    );
    assert!(matches!(
        reader.read(&request(5), &access()).await,
        Err(RepositoryError::Diff { .. })
    ));
    *forge.manners.status.lock().unwrap() = Some((403, "no".into()));
    assert!(matches!(
        reader.read(&request(6), &access()).await,
        Err(RepositoryError::Forbidden { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_nobody_could_read_says_that_it_is_too_large() {
    let forge = Forge::start().await;
    let reader = reader(&forge).await;
    change_request(&forge, 8, |tree| {
        std::fs::write(tree.join("huge"), "x\n".repeat(300_000)).unwrap();
        std::fs::write(tree.join("small"), "x\n").unwrap();
    });
    let found = reader.read(&request(8), &access()).await.unwrap();
    assert_eq!(found.total, 2);
    assert_eq!(found.files[0].diff, Err(NoDiff::TooLarge));
    assert!(found.files[1].diff.is_ok());
}
