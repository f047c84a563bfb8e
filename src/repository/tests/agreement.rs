//! What our readers make of names and lists of references, held against what git makes of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use crate::grant::branch::branch_name;
use crate::message::{BranchName, SessionId};
use crate::repository::push_check::parse_updates;

/// Pieces of names on both sides of git's rules.
fn name() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => "[a-zA-Z0-9_-]{1,6}",
        1 => Just("/".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just("@".to_owned()),
        1 => Just("ü日🙂".to_owned()),
        1 => prop::sample::select(vec!["..", "//", "@{", ".lock", "~", "^", ":", "?", "*", "[", "\\", " ", "\u{7f}", "\t", "HEAD", "refs/", "-", "{}", "$", "\""]).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}

fn git(directory: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command
        .args([
            "-c",
            "user.name=A",
            "-c",
            "user.email=a@x",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(arguments)
        .output()
        .unwrap()
}

fn accepted(name: &str) -> bool {
    git(Path::new("/"), &["check-ref-format", &format!("refs/heads/{name}")])
        .status
        .success()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn git_accepts_every_branch_name_that_we_accept(name in name()) {
        if let Ok(branch) = name.parse::<BranchName>() {
            prop_assert!(accepted(branch.as_str()), "{name:?}");
        } else {
            // Stricter than git only where that is meant: an option, a name of git's own, or too long.
            let meant = name.starts_with('-') || name == "HEAD" || name == "@" || name.len() > 200;
            prop_assert!(meant || !accepted(&name), "{name:?}");
        }
    }

    #[test]
    fn every_session_s_branch_is_one_for_git_and_names_its_session(
        title in any::<String>(), id in any::<u128>(), existing in prop::collection::btree_set(name(), 0..6)
    ) {
        let session = SessionId(uuid::Uuid::from_u128(id));
        let beside: BTreeSet<String> = existing.into_iter().chain(["cofferdam".to_owned()]).collect();
        for existing in [BTreeSet::new(), beside] {
            let branch = branch_name("cofferdam/{title}-{session}", session, &title, &existing).unwrap();
            prop_assert!(accepted(branch.as_str()), "{branch}");
            prop_assert!(branch.as_str().contains(&session.short()));
            prop_assert!(!existing.iter().any(|other| branch.as_str().starts_with(&format!("{other}/"))), "{branch}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// A real push; the hook keeps what git gave it, which is what the real one reads.
    #[test]
    fn a_push_s_list_reads_as_the_references_that_were_pushed(names in prop::collection::btree_set(name(), 1..8), delete in any::<bool>()) {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        for arguments in [
            &["init", "-q", "from"][..],
            &["-C", "from", "commit", "-q", "--allow-empty", "-m", "x"],
            &["clone", "-q", "--bare", "from", "to"],
        ] {
            prop_assert!(git(directory.path(), arguments).status.success());
        }
        let hook = to.join("hooks/pre-receive");
        std::fs::write(&hook, "#!/bin/sh\ncat >list\nexit 1\n").unwrap();
        std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

        let head = String::from_utf8(git(&from, &["rev-parse", "HEAD"]).stdout).unwrap().trim().to_owned();
        let mut wanted: BTreeSet<(String, Option<String>)> = names
            .into_iter()
            .filter(|name| name != "main" && accepted(name))
            .map(|name| (format!("refs/heads/{name}"), Some(head.clone())))
            .collect();
        if delete || wanted.is_empty() {
            wanted.insert(("refs/heads/main".to_owned(), None));
        }
        let specs: Vec<String> = wanted
            .iter()
            .map(|(name, new)| format!("{}:{name}", if new.is_some() { "HEAD" } else { "" }))
            .collect();
        let arguments: Vec<&str> = ["push", "-q", "../to"].into_iter().chain(specs.iter().map(String::as_str)).collect();
        let pushed = git(&from, &arguments);
        prop_assert!(!pushed.status.success(), "the hook refuses all");

        let list = std::fs::read(to.join("list")).unwrap();
        let read: BTreeSet<(String, Option<String>)> = parse_updates(&list)
            .unwrap()
            .into_iter()
            .map(|update| (String::from_utf8(update.name).unwrap(), update.new.map(String::from)))
            .collect();
        prop_assert_eq!(read, wanted);
    }
}
