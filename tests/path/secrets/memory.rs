//! The worker's memory: not dumped when it crashes, and not read by others of its user.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{Process, signal, until};

const CANARY: &str = "glpat-canary-memory-0123456789";

/// The binary where another user can start it, waiting for a task on its standard input, with a token in its environment.
fn waiting(directory: &std::path::Path, uid: u32) -> Process {
    let binary = directory.join("cofferdam");
    if !binary.exists() {
        // By another process: what other tests start while this one holds the file open for writing would hold it too, and nothing that is open
        // for writing can be started.
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_cofferdam"))
            .arg(&binary)
            .status();
        assert!(copied.unwrap().success());
    }
    let mut command = Command::new("sh");
    // Whoever starts it allows dumps of any size.
    command
        .args(["-c", "ulimit -c unlimited; exec \"$0\" exec -"])
        .arg(&binary)
        .current_dir(directory)
        .env("COFFERDAM_TOKEN_LAB", CANARY)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .uid(uid)
        .gid(uid);
    let child = command.spawn().unwrap();
    let status = format!("/proc/{}/limits", child.id());
    until(Duration::from_secs(20), "the limit", || {
        let limits = std::fs::read_to_string(&status).ok()?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size"))?;
        // Soft and hard: one byte, which no dump fits into, nor is piped to a program.
        (core.split_whitespace().skip(4).take(2).collect::<Vec<_>>() == ["1", "1"]).then_some(())
    });
    Process(child)
}

/// A directory that any user may enter and write to.
fn open_directory() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::Builder::new().prefix("cd-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    directory
}

#[test]
fn a_crash_leaves_no_core() {
    let directory = open_directory();
    let mut worker = waiting(directory.path(), 0);
    signal(&worker.0, "ABRT");
    let status = worker.0.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["cofferdam"], "a core was left");
    // The same end of a program that does nothing about it, so that the test is known to see one.
    let output = Command::new("sh")
        .args(["-c", "ulimit -c unlimited; kill -ABRT $$"])
        .current_dir(directory.path())
        .status()
        .unwrap();
    assert_eq!(output.signal(), Some(6));
    if !output.core_dumped() {
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        println!(
            "this machine dumps no core at all ({}): only the flag was judged",
            pattern.trim()
        );
    }
}

#[test]
fn others_of_the_same_user_read_neither_environment_nor_memory() {
    const USER: u32 = 54_321;
    let directory = open_directory();
    let worker = waiting(directory.path(), USER);
    let read = |file: &str, pid: u32, uid: u32| {
        let mut command = Command::new("cat");
        let output = command
            .arg(format!("/proc/{pid}/{file}"))
            .uid(uid)
            .gid(uid)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    // The limit that was waited for comes first, by a moment.
    until(Duration::from_secs(20), "the worker to close its memory", || {
        (!read("environ", worker.0.id(), USER).0).then_some(())
    });
    for file in ["environ", "maps", "auxv"] {
        let (could, text) = read(file, worker.0.id(), USER);
        assert!(!could && !text.contains(CANARY), "{file} of the worker was read");
    }
    // A process that does nothing about it is read by its user, so the refusal above is the worker's doing.
    let open = Process(
        Command::new("sleep")
            .arg("60")
            .env("COFFERDAM_TOKEN_LAB", CANARY)
            .uid(USER)
            .gid(USER)
            .spawn()
            .unwrap(),
    );
    until(Duration::from_secs(10), "its environment", || {
        let (could, text) = read("environ", open.0.id(), USER);
        (could && text.contains(CANARY)).then_some(())
    });
}
