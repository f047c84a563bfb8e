//! `inside settle` on real repositories, in the second in which they were checked out.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use crate::repository::Repository;

/// With a few kinds of files, all of them checked out just now.
fn fresh() -> Repository {
    let repository = Repository::without_hooks();
    fs::create_dir_all(repository.path("work/deep/er")).unwrap();
    for (name, content) in [("a", "one\n"), ("deep/er/b", "two\n"), ("long", "three\n")] {
        repository.write(name, content);
    }
    symlink("a", repository.path("work/link")).unwrap();
    repository.git(&["add", "."]);
    repository.git(&["commit", "--quiet", "-m", "Base"]);
    repository.git(&["rm", "-r", "--quiet", "."]);
    repository.git(&["reset", "--quiet", "--hard"]);
    repository.git(&["remote", "add", "origin", "/run/elsewhere"]);
    repository
}

const ADDRESS: &str = "http://127.0.0.1:8080/git/lab/a.git";
const SETTLE: [&str; 4] = ["settle", ".", ADDRESS, "cofferdam/a-1"];

fn settle(repository: &Repository) {
    let output = repository.inside(&SETTLE);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_branch_is_begun_and_the_origin_has_its_address() {
    let repository = fresh();
    let commit = repository.ask(&["rev-parse", "HEAD"]);
    settle(&repository);
    assert_eq!(repository.ask(&["symbolic-ref", "HEAD"]), "refs/heads/cofferdam/a-1");
    assert_eq!(repository.ask(&["rev-parse", "HEAD"]), commit);
    assert_eq!(repository.ask(&["rev-parse", "main"]), commit);
    assert_eq!(repository.ask(&["remote", "get-url", "--all", "origin"]), ADDRESS);
    assert_eq!(repository.ask(&["config", "user.name"]), "Session");
    assert!(repository.commit("new", &["-m", "New"]).status.success());
    repository.git(&["fsck", "--strict"]);
    // The forge's own branch of the session is checked out already: nothing is begun.
    settle(&repository);
    assert_eq!(repository.ask(&["log", "-1", "--format=%s"]), "New");
}

#[test]
fn what_git_has_to_do_is_left_to_git() {
    for harm in ["detached", "packed", "no remote", "locked"] {
        let repository = fresh();
        match harm {
            "detached" => drop(repository.git(&["checkout", "--quiet", "--detach"])),
            "packed" => drop(repository.git(&["pack-refs", "--all"])),
            "no remote" => drop(repository.git(&["remote", "remove", "origin"])),
            _ => fs::write(repository.path("work/.git/config.lock"), "").unwrap(),
        }
        assert_eq!(repository.inside(&SETTLE).status.code(), Some(1), "{harm}");
        let said = repository.try_git(&["remote", "get-url", "origin"]);
        assert_ne!(String::from_utf8(said.stdout).unwrap().trim(), ADDRESS, "{harm}");
    }
}

#[test]
fn files_become_older_than_the_index_and_git_knows_them() {
    let repository = fresh();
    let before = fs::read(repository.path("work/.git/index")).unwrap();
    settle(&repository);
    let index = fs::metadata(repository.path("work/.git/index")).unwrap();
    for name in ["a", "deep/er/b", "long", "link"] {
        let about = fs::symlink_metadata(repository.path("work").join(name)).unwrap();
        assert!(about.mtime() < index.mtime(), "{name}");
    }
    // What git would have to read again shows in the index that it writes: here it has nothing to write.
    let settled = fs::read(repository.path("work/.git/index")).unwrap();
    assert_ne!(settled, before);
    assert_eq!(repository.ask(&["status", "--porcelain"]), "");
    repository.git(&["update-index", "--refresh"]);
    assert_eq!(fs::read(repository.path("work/.git/index")).unwrap(), settled);
    assert!(!repository.path("work/.git/index.lock").exists());
    repository.git(&["fsck", "--strict"]);
}

#[test]
fn a_change_of_the_same_length_in_the_same_second_is_seen() {
    let repository = fresh();
    settle(&repository);
    repository.write("a", "ONE\n");
    assert_eq!(repository.ask(&["status", "--porcelain"]), "M a");
}

#[test]
fn a_file_that_was_changed_before_keeps_its_time() {
    let repository = fresh();
    // Two files: one of them must be settled for the test to say anything.
    repository.write("a", "ONE\n");
    settle(&repository);
    assert_eq!(repository.ask(&["status", "--porcelain"]), "M a");
    let time = |name: &str| fs::metadata(repository.path("work").join(name)).unwrap().mtime();
    assert!(time("a") > time("long"));
}

#[test]
fn an_index_that_is_not_understood_stays_as_it_is() {
    let repository = fresh();
    let path = repository.path("work/.git/index");
    let good = fs::read(&path).unwrap();
    let mut versions = vec![good[..good.len() - 1].to_vec(), good[..20].to_vec(), Vec::new()];
    repository.git(&["update-index", "--index-version", "4"]);
    versions.push(fs::read(&path).unwrap());
    // A count that the entries do not fill, with a checksum that is wrong for it.
    let mut counted = good.clone();
    counted[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
    versions.push(counted);
    for bytes in versions {
        fs::write(&path, &bytes).unwrap();
        settle(&repository);
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    fs::write(&path, &good).unwrap();
    fs::write(repository.path("work/.git/index.lock"), "").unwrap();
    settle(&repository);
    assert_eq!(fs::read(&path).unwrap(), good);
}
