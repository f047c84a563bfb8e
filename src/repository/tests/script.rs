//! A set-up script is read from what the forge showed: a plain file of a branch, bounded, and nothing that a sandbox pushed.

use super::forge::{Forge, git};

const PROJECT: &str = "team/greeter";

#[tokio::test(flavor = "multi_thread")]
async fn only_a_small_plain_file_of_a_branch_that_was_shown_is_read() {
    let forge = Forge::start().await;
    forge.upstream_commit(PROJECT, "main", "set-up.sh", "echo from main\n");
    forge.upstream_commit(PROJECT, "main", "empty", "");
    forge.upstream_commit(PROJECT, "main", "large", &"x".repeat(256 * 1024 + 1));
    forge.upstream_commit(PROJECT, "feature", "set-up.sh", "echo from a feature branch\n");
    let bare = forge.bare(PROJECT);
    let tree = tempfile::tempdir().unwrap();
    git(tree.path(), &["clone", "-q", bare.to_str().unwrap(), "."]);
    std::os::unix::fs::symlink("/etc/passwd", tree.path().join("link")).unwrap();
    git(tree.path(), &["add", "-A"]);
    let who = ["-c", "user.name=Eve", "-c", "user.email=eve@example.org"];
    git(tree.path(), &[&who[..], &["commit", "-q", "-m", "Link"]].concat());
    git(tree.path(), &["push", "-q", "origin", "HEAD:main"]);

    let staging = forge.stage().await.unwrap();
    let main = "main".parse().unwrap();
    let read = async |path: &str| staging.script(&main, path).await;
    assert_eq!(read("set-up.sh").await.unwrap().as_deref(), Some("echo from main\n"));
    assert_eq!(read("empty").await.unwrap().as_deref(), Some(""));
    assert_eq!(read("none/such.sh").await.unwrap(), None);
    for (path, words) in [("link", "no plain file"), ("large", "larger than")] {
        let error = read(path).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let unknown = staging.script(&"unknown".parse().unwrap(), "set-up.sh").await;
    assert!(unknown.unwrap_err().to_string().contains("the forge shows no"));
}
