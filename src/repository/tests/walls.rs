//! What the processes that read an agent's objects cannot do, should a parser's bug let an agent decide what they do: open other files of
//! their user, reach a network or the engine's socket, start programs.

use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::forge::{BRANCH, Forge};
use super::internal_command;
use super::sandbox::Sandbox;
use crate::repository::Staging;
use crate::repository::internal::WALLS;

/// Whether this kernel limits files at all; says so where not.
fn kernel_limits_files() -> bool {
    let mut words = internal_command();
    words.push(WALLS.to_owned());
    let said = Command::new(&words[0]).args(&words[1..]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    assert!(["all", "partly", "none"].contains(&said.as_str()), "{said}");
    if said == "none" {
        eprintln!("SKIPPED: this kernel has no Landlock; the files that a reader opens are not limited here");
    }
    said != "none"
}

async fn pushed() -> (Forge, Staging, Sandbox) {
    let forge = Forge::start().await;
    let staging = forge.stage().await.unwrap();
    let sandbox = Sandbox::clone_of(&staging).await;
    sandbox.commit("mine", "mine\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    (forge, staging, sandbox)
}

/// Puts the staging's packs somewhere else, and links in their place.
fn move_packs(staging: &Staging, to: &Path) -> usize {
    let packs = staging.directory.join("staging.git/objects/pack");
    let files: Vec<PathBuf> = std::fs::read_dir(&packs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for file in &files {
        let away = to.join(file.file_name().unwrap());
        std::fs::rename(file, &away).unwrap();
        symlink(&away, file).unwrap();
    }
    files.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_opens_no_file_outside_of_its_staging() {
    if !kernel_limits_files() {
        return;
    }
    let (forge, staging, sandbox) = pushed().await;
    let head = staging.head().unwrap().unwrap();
    assert_eq!(staging.inspect(&head).await.unwrap().ahead, 1);
    let inside = staging.directory.join("elsewhere");
    std::fs::create_dir(&inside).unwrap();
    assert!(move_packs(&staging, &inside) > 0);
    // A link is no trouble as such.
    assert_eq!(staging.inspect(&head).await.unwrap().ahead, 1);
    let clone = tempfile::tempdir().unwrap();
    let (address, path) = (
        format!("{}/p.git", sandbox.address),
        clone.path().to_str().unwrap().to_owned(),
    );
    let words = ["clone", "-q", "--branch", BRANCH, &address, &path];
    sandbox.run(&words).await.expect_success();
    std::fs::remove_dir_all(&path).unwrap();
    let outside = tempfile::tempdir_in(forge.directory.path()).unwrap();
    let packs = staging.directory.join("staging.git/objects/pack");
    for entry in std::fs::read_dir(&inside).unwrap() {
        let (old, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        std::fs::rename(old, outside.path().join(&name)).unwrap();
        std::fs::remove_file(packs.join(&name)).unwrap();
        symlink(outside.path().join(&name), packs.join(&name)).unwrap();
    }
    let said = staging.inspect(&head).await.map(|seen| seen.ahead);
    assert!(said.is_err(), "the child read what lies outside: {said:?}");
    // git's own program does not read it either.
    sandbox.run(&words).await.expect_refusal(&[]);
}

/// Runs a shell in git's place, behind the walls of a push, and returns what it said.
fn behind_walls(staging: &Staging, script: &str) -> String {
    let path = staging.directory.join("try.sh");
    std::fs::write(&path, script).unwrap();
    let hooks = staging.shared.config.hooks();
    let mut words = internal_command();
    words.extend(
        [
            "serve",
            staging.directory.to_str().unwrap(),
            hooks.to_str().unwrap(),
            "write",
        ]
        .map(str::to_owned),
    );
    words.extend(["/bin/bash".to_owned(), path.to_str().unwrap().to_owned()]);
    let mut command = Command::new(&words[0]);
    let mut child = command
        .args(&words[1..])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let mut complaints = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
    child.wait().unwrap();
    said + &complaints
}

#[tokio::test(flavor = "multi_thread")]
async fn git_over_a_push_has_its_staging_and_nothing_else() {
    let (_forge, staging, _) = pushed().await;
    let outside = tempfile::tempdir().unwrap();
    let key = outside.path().join("key");
    std::fs::write(&key, "the-canary").unwrap();
    let socket = outside.path().join("engine.sock");
    let _engine = UnixListener::bind(&socket).unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    // Whatever the kernel: no socket.
    let said = behind_walls(
        &staging,
        &format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo CONNECTED; echo alive"),
    );
    assert!(said.contains("alive") && !said.contains("CONNECTED"), "{said}");
    let perl = format!(
        "perl -MSocket -e 'socket(my $s, PF_UNIX, SOCK_STREAM, 0) && connect($s, sockaddr_un(\"{}\")) && print \"CONNECTED\"'; echo alive",
        socket.display()
    );
    let said = behind_walls(&staging, &perl);
    assert!(said.contains("alive") && !said.contains("CONNECTED"), "{said}");
    if !kernel_limits_files() {
        return;
    }
    let directory = staging.directory.display();
    let said = behind_walls(
        &staging,
        &format!(
            "cat {key}; cat /proc/1/environ | tr '\\0' '\\n' | head -c 20; ls {outside}; echo x > {outside}/new; echo x > {directory}/policy.json; \
             echo x > {directory}/staging.git/new && cat {directory}/staging.git/new {directory}/policy.json; echo alive",
            key = key.display(),
            outside = outside.path().display(),
        ),
    );
    assert!(said.contains("alive") && said.contains("x\n{"), "{said}");
    assert!(
        !said.contains("the-canary") && !outside.path().join("new").exists(),
        "{said}"
    );
    assert_eq!(said.matches("Permission denied").count(), 5, "{said}");
}
