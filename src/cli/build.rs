//! Build script: tells the program which commit it is built from. Never fails a build: one outside git says so.
//!
//! `COFFERDAM_COMMIT` goes before what git says, for builds in a container without the repository. Debug builds do not ask git: they would
//! be compiled anew after every commit.

#![allow(clippy::print_stdout, reason = "how a build script tells cargo")]

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=COFFERDAM_COMMIT");
    println!("cargo::rerun-if-changed=src/cli/build.rs");
    let told = std::env::var("COFFERDAM_COMMIT")
        .ok()
        .filter(|commit| is_commit(commit));
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let known = told.or_else(|| is_release.then(commit).flatten());
    let id = known.as_deref().map(short).unwrap_or_default();
    let from = match id {
        "" if !is_release => "debug build".to_owned(),
        "" => "built outside git".to_owned(),
        id => format!("commit {id}"),
    };
    println!("cargo::rustc-env=COFFERDAM_BUILT_FROM={from}");
    println!("cargo::rustc-env=COFFERDAM_BUILT_COMMIT={id}");
}

/// The commit of the repository that this package is in, and not of one that it lies in by chance.
fn commit() -> Option<String> {
    let git = |words: &[&str]| {
        let output = Command::new("git").args(words).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    git(&["ls-files", "--error-unmatch", "Cargo.toml"])?;
    // Where a commit or a checkout changes which one it is.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "HEAD"]).filter(|commit| is_commit(commit))
}

fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn short(commit: &str) -> &str {
    &commit[..commit.len().min(12)]
}
