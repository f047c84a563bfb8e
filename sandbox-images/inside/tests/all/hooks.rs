//! The trailers in the messages that git makes, in every way it makes them.

use std::fs;

use crate::repository::{Repository, TRAILERS};

#[test]
fn adds_one_block_and_never_twice() {
    let repository = Repository::with_hooks();
    assert!(repository.commit("a", &["-m", "Title"]).status.success());
    assert_eq!(repository.message("HEAD"), format!("Title\n\n{TRAILERS}"));
    for amend in [
        &["--amend", "--no-edit"][..],
        &["--amend"],
        &["--amend", "--no-edit", "--no-verify"],
    ] {
        assert!(repository.commit("a", amend).status.success());
        assert_eq!(repository.message("HEAD"), format!("Title\n\n{TRAILERS}"));
    }
}

#[test]
fn joins_a_block_that_is_there_and_keeps_the_body() {
    let repository = Repository::with_hooks();
    let body = "Title\n\nWhy: because.\n---\nNot a patch.\n\nReviewed-by: A <a@example.org>\nCofferdam-Session: 1F3A";
    assert!(repository.commit("a", &["-m", body]).status.success());
    let message = repository.message("HEAD");
    let co_authors: String = TRAILERS.lines().take(2).map(|line| format!("{line}\n")).collect();
    assert_eq!(message, format!("{body}\n{co_authors}"));
    // The sign-off is added by git before the hook.
    assert!(repository.commit("b", &["-s", "-m", "Title"]).status.success());
    let expected = format!("Title\n\nSigned-off-by: Session <session@example.org>\n{TRAILERS}");
    assert_eq!(repository.message("HEAD"), expected);
}

#[test]
fn no_verify_does_not_get_around_it() {
    let repository = Repository::with_hooks();
    assert!(repository.commit("a", &["--no-verify", "-m", "Title"]).status.success());
    assert_eq!(repository.message("HEAD"), format!("Title\n\n{TRAILERS}"));
}

#[test]
fn comments_and_scissors_stay_where_they_are() {
    let mut repository = Repository::with_hooks();
    // The editor adds a title above what is there, and git shows comments and a diff below.
    repository.set("GIT_EDITOR", "sed -i '1s/^/Title\\n\\nBody/'");
    assert!(repository.commit("a", &["-v"]).status.success());
    assert_eq!(repository.message("HEAD"), format!("Title\n\nBody\n\n{TRAILERS}"));
    assert!(
        repository
            .commit("b", &["-v", "--amend", "--cleanup=scissors"])
            .status
            .success()
    );
    let amended = repository.message("HEAD");
    assert!(amended.starts_with("Title\n\nBody"), "{amended}");
    assert!(!amended.contains("diff --git"), "{amended}");
    assert_eq!(amended.matches("Cofferdam-Session").count(), 1, "{amended}");
    repository.git(&["config", "core.commentChar", ";"]);
    assert!(repository.commit("c", &["-v"]).status.success());
    assert_eq!(repository.message("HEAD"), format!("Title\n\nBody\n\n{TRAILERS}"));
}

#[test]
fn an_empty_message_stays_empty() {
    let mut repository = Repository::with_hooks();
    let refused = |repository: &Repository, arguments: &[&str]| {
        let output = repository.commit("a", arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("Abort"),
            "{arguments:?}: {said}"
        );
        assert!(
            !repository
                .try_git(&["rev-parse", "--verify", "--quiet", "HEAD"])
                .status
                .success()
        );
    };
    refused(&repository, &["-m", ""]);
    refused(&repository, &[]);
    refused(&repository, &["-v"]);
    refused(&repository, &["-s"]);
    fs::write(repository.path("template"), "Title of the template\n\n# Hint\n").unwrap();
    repository.git(&[
        "config",
        "commit.template",
        repository.path("template").to_str().unwrap(),
    ]);
    refused(&repository, &[]);
    repository.git(&["config", "--unset", "commit.template"]);
    // All of the text is deleted in the editor; what the hook had added before is left.
    repository.edit_to(&format!("\n{TRAILERS}# comment\n"));
    refused(&repository, &["-e", "-m", "Title"]);
    assert!(
        repository
            .commit("a", &["--allow-empty-message", "-m", ""])
            .status
            .success()
    );
    assert_eq!(repository.message("HEAD"), "");
}

#[test]
fn a_message_that_looks_like_a_comment_is_a_message() {
    let repository = Repository::with_hooks();
    assert!(repository.commit("a", &["-m", "#12: fix"]).status.success());
    assert_eq!(repository.message("HEAD"), format!("#12: fix\n\n{TRAILERS}"));
    assert!(repository.commit("a", &["--amend", "--no-edit"]).status.success());
    assert_eq!(repository.message("HEAD"), format!("#12: fix\n\n{TRAILERS}"));
}

#[test]
fn merges_picks_rebases_and_patches_have_them_too() {
    let mut repository = Repository::with_hooks();
    repository.commit("base", &["-m", "Base"]);
    // Work that has no trailers yet, as somebody else's.
    repository.git(&["checkout", "-q", "-b", "other"]);
    for name in ["one", "two", "three"] {
        repository.set("COFFERDAM_TRAILERS", "/dev/null");
        assert!(repository.commit(name, &["-m", name]).status.success());
    }
    repository.variables.clear();
    assert_eq!(repository.message("other"), "three\n");
    repository.git(&["checkout", "-q", "main"]);
    assert!(repository.commit("main", &["-m", "Main"]).status.success());

    repository.git(&["cherry-pick", "other~2"]);
    assert_eq!(repository.message("HEAD"), format!("one\n\n{TRAILERS}"));
    repository.git(&["merge", "--no-edit", "other~1"]);
    assert_eq!(
        repository.message("HEAD"),
        format!("Merge branch 'other' (early part)\n\n{TRAILERS}")
    );
    repository.git(&["revert", "--no-edit", "HEAD~1"]);
    assert!(repository.message("HEAD").ends_with(TRAILERS));

    let patch = repository.git(&["format-patch", "--stdout", "-1", "other"]);
    fs::write(repository.path("patch"), patch).unwrap();
    repository.git(&["am", "--quiet", repository.path("patch").to_str().unwrap()]);
    assert_eq!(repository.message("HEAD"), format!("three\n\n{TRAILERS}"));

    repository.git(&["checkout", "-q", "other"]);
    repository.git(&["rebase", "--quiet", "main~3"]);
    for of in ["other", "other~1"] {
        let message = repository.message(of);
        assert!(
            message.ends_with(TRAILERS) && message.matches("Cofferdam-Session").count() == 1,
            "{message}"
        );
    }
}

#[test]
fn a_conflict_is_committed_with_one_block() {
    let repository = Repository::with_hooks();
    repository.write("file", "base\n");
    repository.git(&["add", "file"]);
    repository.git(&["commit", "-q", "-m", "Base"]);
    repository.git(&["checkout", "-q", "-b", "other"]);
    repository.write("file", "other\n");
    repository.git(&["commit", "-q", "-a", "-m", "Other"]);
    repository.git(&["checkout", "-q", "main"]);
    repository.write("file", "main\n");
    repository.git(&["commit", "-q", "-a", "-m", "Main"]);
    assert!(!repository.try_git(&["merge", "other"]).status.success());
    repository.write("file", "both\n");
    repository.git(&["add", "file"]);
    repository.git(&["commit", "-q"]);
    assert_eq!(
        repository.message("HEAD"),
        format!("Merge branch 'other'\n\n{TRAILERS}")
    );
    // Picking a commit that has them already, through a conflict.
    repository.git(&["checkout", "-q", "-b", "third", "HEAD~1"]);
    assert!(!repository.try_git(&["cherry-pick", "other"]).status.success());
    repository.write("file", "picked\n");
    repository.git(&["add", "file"]);
    repository.git(&["cherry-pick", "--continue"]);
    assert_eq!(repository.message("HEAD"), format!("Other\n\n{TRAILERS}"));
}

#[test]
fn squashed_commits_have_one_block() {
    let mut repository = Repository::with_hooks();
    repository.commit("base", &["-m", "Base"]);
    repository.commit("one", &["-m", "One"]);
    repository.commit("two", &["-m", "squash! One\n\nMore"]);
    repository.commit("three", &["-m", "fixup! One"]);
    repository.set("GIT_SEQUENCE_EDITOR", "true");
    repository.git(&["rebase", "--quiet", "--interactive", "--autosquash", "HEAD~3"]);
    let message = repository.message("HEAD");
    assert!(
        message.starts_with("One\n\n") && message.contains("\nMore\n"),
        "{message}"
    );
    assert!(message.ends_with(&format!("\n\n{TRAILERS}")), "{message}");
    assert_eq!(message.matches("Cofferdam-Session").count(), 1, "{message}");
    assert_eq!(repository.ask(&["rev-list", "--count", "HEAD"]), "2");
}

#[test]
fn other_encodings_survive() {
    let repository = Repository::with_hooks();
    fs::write(repository.path("latin"), b"Gr\xfc\xdfe\n\nStra\xdfe\n").unwrap();
    repository.git(&["config", "i18n.commitEncoding", "ISO-8859-1"]);
    assert!(
        repository
            .commit("a", &["-F", repository.path("latin").to_str().unwrap()])
            .status
            .success()
    );
    let raw = repository.git(&["cat-file", "commit", "HEAD"]);
    let expected = [b"\n\nGr\xfc\xdfe\n\nStra\xdfe\n\n", TRAILERS.as_bytes()].concat();
    assert!(raw.ends_with(&expected), "{}", String::from_utf8_lossy(&raw));
}

#[test]
fn without_a_session_nothing_changes_and_hostile_lines_are_left_out() {
    let repository = Repository::with_hooks();
    let trailers = repository.path("trailers");
    fs::write(
        &trailers,
        "no trailer\n--in-place\nKey: value\nBad key: x\nEsc: \x1b[0m\n",
    )
    .unwrap();
    assert!(repository.commit("a", &["-m", "Title"]).status.success());
    assert_eq!(repository.message("HEAD"), "Title\n\nKey: value\n");
    fs::remove_file(&trailers).unwrap();
    assert!(repository.commit("b", &["-m", "Title"]).status.success());
    assert_eq!(repository.message("HEAD"), "Title\n");
}

#[test]
fn a_repository_s_own_trailers_come_before_the_session_s_also_in_its_other_trees() {
    let repository = Repository::with_hooks();
    let own = "Co-authored-by: Other <other@example.org>\nCofferdam-Session: 1f3a\n";
    fs::write(repository.path("work/.git/cofferdam-trailers"), own).unwrap();
    assert!(repository.commit("a", &["-m", "Title"]).status.success());
    assert_eq!(repository.message("HEAD"), format!("Title\n\n{own}"));
    repository.git(&["worktree", "add", "-q", "-b", "other", "../other"]);
    repository.git(&["-C", "../other", "commit", "-q", "--allow-empty", "-m", "There"]);
    assert_eq!(repository.message("other"), format!("There\n\n{own}"));
}
