//! Tests of reading refused pushes: own samples, and every stored transcript where they are at hand.

use std::collections::BTreeSet;

use super::*;
use crate::forge::recordings;

fn kind(refusal: &PushRefusal) -> &'static str {
    match refusal {
        PushRefusal::Protected(_) => "protected",
        PushRefusal::ForcePush(_) => "force push",
        PushRefusal::PushRule(_) => "push rule",
        PushRefusal::SecretFound(_) => "secret found",
        PushRefusal::WorkflowScope(_) => "workflow scope",
        PushRefusal::NotAllowed(_) => "not allowed",
        PushRefusal::Stale(_) => "stale",
        PushRefusal::Other(_) => "other",
    }
}

#[test]
fn own_samples_are_told_apart() {
    for (printed, expected) in [
        (
            "remote: GitLab: You are not allowed to push code to protected branches on this project.\n ! [remote rejected] main -> main (pre-receive hook declined)",
            "protected",
        ),
        (
            "remote: error: GH006: Protected branch update failed for refs/heads/main.\n! [remote rejected] main -> main (protected branch hook declined)",
            "protected",
        ),
        (
            "remote: GitLab: You are not allowed to force push code to a protected branch on this project.",
            "force push",
        ),
        (
            "remote: error: denying non-fast-forward refs/heads/b\n ! [remote rejected] b -> b (non-fast-forward)",
            "force push",
        ),
        (
            "remote: Our own hook says no\n ! [remote rejected] b -> b (pre-receive hook declined)",
            "push rule",
        ),
        ("remote: PUSH BLOCKED: Secrets detected in code changes", "secret found"),
        (
            "!\trefs/heads/b:refs/heads/b\t[remote rejected] (refusing to allow an OAuth App to create or update workflow `.github/workflows/a.yml` without `workflow` scope)",
            "workflow scope",
        ),
        (
            "remote: You are not allowed to upload code.\nfatal: unable to access 'https://h/': The requested URL returned error: 403",
            "not allowed",
        ),
        ("remote: Permission to o/r.git denied to ann.", "not allowed"),
        (
            " ! [rejected]        b -> b (stale info)\nerror: failed to push some refs to 'https://h/a/b.git'",
            "stale",
        ),
        (
            "remote: error: cannot lock ref 'refs/heads/b': is at 1234 but expected 5678",
            "stale",
        ),
        (
            "remote: error: cannot lock ref 'refs/heads/f/sub': 'refs/heads/f' exists; cannot create 'refs/heads/f/sub'",
            "other",
        ),
        (
            "fatal: unable to access 'https://h/': Could not resolve host: h",
            "other",
        ),
        ("", "other"),
    ] {
        let refusal = classify(printed);
        assert_eq!(kind(&refusal), expected, "{printed}");
        let sentence = refusal.sentence();
        assert!(!sentence.is_empty() && !sentence.contains('\n'), "{sentence}");
    }
}

#[test]
fn sentences_repeat_the_remote_but_no_secret_and_no_flood() {
    let refusal = classify("fatal: Authentication failed for 'https://oauth2:glpat-secret@h/a/b.git/'");
    assert!(refusal.sentence().contains("https://h/a/b.git"), "{refusal:?}");
    assert!(!refusal.sentence().contains("glpat"), "{refusal:?}");
    let flood = classify(&format!("remote: {}\u{1b}[31m\n", "ä".repeat(1_000_000)));
    assert!(flood.sentence().chars().count() < 800 && !flood.sentence().contains('\u{1b}'));
    let named = classify(" ! [rejected] protected-branch(x -> main (fetch first)");
    assert_eq!(kind(&named), "stale");
}

#[test]
fn pitfall_21_every_stored_transcript_is_understood() {
    let Some(folder) = recordings::folder() else {
        return;
    };
    let mut seen = BTreeSet::new();
    // (forge, file, the kinds of its paragraphs). Files that hold several separate lines are read line by line.
    for (file, by_line, expected) in [
        ("github/push-transcripts/GH006-new.txt", false, &["protected"][..]),
        ("github/push-transcripts/GH006-old.txt", false, &["protected"]),
        ("github/push-transcripts/GH013-secret.txt", false, &["secret found"]),
        (
            "github/push-transcripts/misc.txt",
            true,
            &[
                "stale",
                "stale",
                "other",
                "other",
                "other",
                "force push",
                "other",
                "other",
                "not allowed",
                "not allowed",
                "not allowed",
                "not allowed",
            ],
        ),
        ("github/push-transcripts/new-branch.txt", false, &["other"]),
        (
            "github/push-transcripts/workflow-scope.txt",
            true,
            &["workflow scope", "workflow scope"],
        ),
        (
            "gitlab/push-transcripts/branch-names.txt",
            true,
            &["push rule", "protected"],
        ),
        ("gitlab/push-transcripts/existing-mr.txt", false, &["other"]),
        ("gitlab/push-transcripts/lfs-missing.txt", false, &["push rule"]),
        ("gitlab/push-transcripts/new-branch.txt", false, &["other"]),
        ("gitlab/push-transcripts/protected-force.txt", false, &["force push"]),
        ("gitlab/push-transcripts/protected.txt", false, &["protected"]),
        ("gitlab/push-transcripts/push-option-error.txt", false, &["other"]),
        (
            "gitlab/push-transcripts/push-rules.txt",
            true,
            &["push rule", "push rule", "push rule", "push rule", "push rule"],
        ),
        ("gitlab/push-transcripts/secret.txt", false, &["secret found"]),
    ] {
        let printed = std::fs::read_to_string(folder.join(file)).unwrap();
        let kinds: Vec<&str> = if by_line {
            printed.lines().map(|line| kind(&classify(line))).collect()
        } else {
            vec![kind(&classify(&printed))]
        };
        assert_eq!(kinds, expected, "{file}");
        seen.insert(folder.join(file));
    }
    for forge in ["gitlab", "github"] {
        for entry in std::fs::read_dir(folder.join(forge).join("push-transcripts")).unwrap() {
            let path = entry.unwrap().path();
            assert!(seen.contains(&path), "{} has no expectation", path.display());
        }
    }
}
