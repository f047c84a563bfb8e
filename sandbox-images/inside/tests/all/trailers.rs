//! `inside trailers` on real repositories.

use std::fs;
use std::os::unix::ffi::OsStringExt;

use crate::repository::{Repository, TRAILERS};

/// A repository with one commit that the forge has, and nothing new.
fn cloned() -> Repository {
    let repository = Repository::without_hooks();
    assert!(repository.commit("base", &["-m", "Base"]).status.success());
    repository.git(&["update-ref", "refs/remotes/origin/main", "HEAD"]);
    repository
}

fn rewrite(repository: &Repository, more: &[&str]) -> String {
    let output = repository.inside(&[&["trailers"], more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refuse(repository: &Repository) -> String {
    let before = repository.ask(&["for-each-ref"]);
    let output = repository.inside(&["trailers"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(repository.ask(&["for-each-ref"]), before);
    String::from_utf8(output.stderr).unwrap()
}

fn field(repository: &Repository, of: &str, format: &str) -> String {
    repository.ask(&["log", "-1", &format!("--format={format}"), of])
}

#[test]
fn rewrites_what_is_new_and_nothing_else() {
    let mut repository = cloned();
    let base = repository.ask(&["rev-parse", "HEAD"]);
    repository.set("GIT_COMMITTER_NAME", "Somebody");
    repository.set("GIT_AUTHOR_NAME", "Somebody");
    repository.set("GIT_AUTHOR_DATE", "2001-02-03T04:05:06+0700");
    repository.set("GIT_COMMITTER_DATE", "2002-02-03T04:05:06+0700");
    repository.commit("one", &["-m", "One"]);
    repository.git(&["checkout", "-q", "-b", "side"]);
    repository.commit("side", &["-m", "Side"]);
    repository.git(&["checkout", "-q", "main"]);
    repository.commit("two", &["-m", &format!("Two\n\n{TRAILERS}")]);
    repository.git(&["merge", "-q", "--no-edit", "side"]);
    repository.variables.clear();
    repository.write("one", "changed but not committed\n");
    repository.write("staged", "staged\n");
    repository.git(&["add", "staged"]);
    let status = repository.ask(&["status", "--porcelain"]);
    let index = fs::read(repository.path("work/.git/index")).unwrap();
    let old = repository.ask(&["rev-parse", "HEAD"]);
    let trees = repository.ask(&["log", "--format=%T %s", "--topo-order", "HEAD"]);

    let said = rewrite(&repository, &[]);
    assert!(
        said.contains("rewrote 4 of 4 new commits (trailers added to 3, identity set on 4)"),
        "{said}"
    );
    assert!(said.contains("refs/heads/main"), "{said}");
    assert_eq!(
        repository.ask(&["log", "--format=%T %s", "--topo-order", "HEAD"]),
        trees
    );
    assert_eq!(
        field(&repository, "HEAD", "%P").split(' ').count(),
        2,
        "a merge stays a merge"
    );
    assert_eq!(repository.ask(&["merge-base", "HEAD", &old]), base);
    assert_eq!(repository.message("HEAD~1"), format!("Two\n\n{TRAILERS}"));
    assert_eq!(repository.message("HEAD^2"), format!("Side\n\n{TRAILERS}"));
    let identity = "Session <session@example.org>";
    let dates = "2001-02-03T04:05:06+07:00 2002-02-03T04:05:06+07:00";
    let expected = format!("{identity} {identity} {dates}");
    assert_eq!(field(&repository, "HEAD~1", "%an <%ae> %cn <%ce> %aI %cI"), expected);
    assert_eq!(fs::read(repository.path("work/.git/index")).unwrap(), index);
    assert_eq!(repository.ask(&["status", "--porcelain"]), status);
    assert_eq!(
        repository.ask(&["rev-parse", "side"]),
        repository.ask(&["rev-parse", &format!("{old}^2")])
    );
    repository.git(&["fsck", "--strict"]);

    let new = repository.ask(&["rev-parse", "HEAD"]);
    let said = rewrite(&repository, &[]);
    assert!(said.contains("nothing changed"), "{said}");
    assert_eq!(repository.ask(&["rev-parse", "HEAD"]), new);
}

#[test]
fn keeps_other_authors_only_when_told() {
    let mut repository = cloned();
    repository.set("GIT_AUTHOR_NAME", "Author");
    repository.commit("one", &["-m", "One"]);
    repository.set("GIT_COMMITTER_EMAIL", "else@example.org");
    repository.commit("two", &["-m", "Two"]);
    repository.variables.clear();
    let old = repository.ask(&["rev-parse", "HEAD"]);
    rewrite(&repository, &["--keep-authors"]);
    assert_eq!(field(&repository, "HEAD", "%an %ce"), "Author session@example.org");
    repository.git(&["update-ref", "refs/heads/main", &old]);
    rewrite(&repository, &[]);
    assert_eq!(field(&repository, "HEAD", "%an %ce"), "Session session@example.org");
    assert_eq!(
        field(&repository, "HEAD~1", "%an %cn"),
        "Author Session",
        "the session committed it: its author stays"
    );
    // The environment goes before the configuration, as for git itself.
    repository.set("GIT_COMMITTER_NAME", "From the environment");
    rewrite(&repository, &["--repo", "."]);
    assert_eq!(field(&repository, "HEAD", "%cn"), "From the environment");
}

#[test]
fn messages_that_are_not_utf8_or_odd_survive() {
    let repository = cloned();
    let tree = repository.ask(&["rev-parse", "HEAD^{tree}"]);
    let mut parent = repository.ask(&["rev-parse", "HEAD"]);
    let messages: [&[u8]; 5] = [
        b"Gr\xfc\xdfe\n\nStra\xdfe",
        b"",
        b"#1 fix\n",
        b"subject\n\n\n\nbody  \n\n",
        b"Two\nline: title\n",
    ];
    for message in messages {
        let header = format!("tree {tree}\nparent {parent}\nauthor A <a@x.y> 1 +0000\ncommitter A <a@x.y> 1 +0000\n");
        let signed =
            "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\nencoding ISO-8859-1\n\n";
        let raw = [header.as_bytes(), signed.as_bytes(), message].concat();
        fs::write(repository.path("raw"), raw).unwrap();
        parent = repository.ask(&[
            "hash-object",
            "-t",
            "commit",
            "-w",
            repository.path("raw").to_str().unwrap(),
        ]);
    }
    repository.git(&["update-ref", "refs/heads/main", &parent]);
    assert!(rewrite(&repository, &[]).contains("rewrote 5 of 5"));
    for (back, message) in messages.iter().rev().enumerate() {
        let raw = repository.git(&["cat-file", "commit", &format!("HEAD~{back}")]);
        let shown = String::from_utf8_lossy(&raw).into_owned();
        assert!(
            !shown.contains("gpgsig") && shown.contains("\nencoding ISO-8859-1\n\n"),
            "{shown}"
        );
        let text = message.trim_ascii_end();
        assert!(
            raw.windows(text.len() + 2)
                .any(|window| window == [b"\n\n", text].concat()),
            "{shown}"
        );
        assert!(raw.ends_with(TRAILERS.as_bytes()), "{shown}");
    }
    assert!(rewrite(&repository, &[]).contains("nothing changed"));
}

#[test]
fn refuses_with_a_sentence() {
    let repository = cloned();
    repository.commit("one", &["-m", "One"]);
    repository.git(&["checkout", "-q", "--detach"]);
    assert!(refuse(&repository).contains("HEAD is detached"));
    repository.git(&["checkout", "-q", "main"]);
    repository.git(&["update-ref", "MERGE_HEAD", "HEAD~1"]);
    assert!(refuse(&repository).contains("under way"));
    repository.git(&["update-ref", "-d", "MERGE_HEAD"]);
    repository.git(&["config", "--unset", "user.name"]);
    assert!(refuse(&repository).contains("no identity"));
    repository.git(&["config", "user.name", "Session"]);
    fs::remove_file(repository.path("trailers")).unwrap();
    assert!(refuse(&repository).contains("no trailers"));
    let nowhere = repository.inside(&["trailers", "--repo", "/"]);
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn a_branch_that_moves_meanwhile_is_left_alone() {
    let mut repository = cloned();
    repository.commit("one", &["-m", "One"]);
    // A git in front of git, which moves the branch just before it is to be moved.
    let bin = repository.path("bin");
    fs::create_dir(&bin).unwrap();
    let script = "#!/bin/sh\ncase \"$*\" in *update-ref*) /usr/bin/git update-ref refs/heads/main refs/remotes/origin/main;; esac\nexec /usr/bin/git \"$@\"\n";
    fs::write(bin.join("git"), script).unwrap();
    fs::set_permissions(bin.join("git"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    repository.set("PATH", &format!("{}:/usr/bin:/bin", bin.display()));
    let output = repository.inside(&["trailers"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("moved meanwhile"), "{said}");
    assert_eq!(
        repository.ask(&["rev-parse", "main"]),
        repository.ask(&["rev-parse", "origin/main"])
    );
}

#[test]
fn a_file_name_is_never_an_option_and_an_unborn_branch_is_no_error() {
    let repository = Repository::without_hooks();
    assert!(rewrite(&repository, &[]).contains("0 new commits"));
    let odd = std::ffi::OsString::from_vec(b"--upload-pack=\xff".to_vec());
    let output = std::process::Command::new(crate::gateway::INSIDE)
        .arg("trailers")
        .arg("--repo")
        .arg(odd)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}
