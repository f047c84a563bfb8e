//! The room against real git over real HTTP: a forge that is `git http-backend` behind Basic authorisation, a sandbox that is a git client.
//!
//! Loopback only; every wait has an end.

mod agreement;
mod diffs;
mod forge;
mod isolation;
mod mirror;
mod prepared;
mod publish;
mod push;
mod quick;
mod sandbox;
mod script;
mod search;
mod secrecy;
mod walls;

use std::path::PathBuf;

use super::internal;

/// Not a test: the room's child processes in these tests are this test binary, started by [`internal_command`].
#[test]
#[ignore = "started by other tests as a child process"]
#[expect(clippy::exit, reason = "stands in for a main function")]
fn internal_entry() {
    let arguments = std::env::var("COFFERDAM_TEST_INTERNAL").expect("only started by internal_command");
    // The harness writes to the usual output; the child's answer goes to where the shell put it.
    let output = std::fs::File::options().write(true).open("/proc/self/fd/9").unwrap();
    // What becomes another program there answers on the usual output.
    if arguments.starts_with("serve ") {
        nix::unistd::dup2_stdout(&output).unwrap();
    }
    let code = internal::run_on(
        arguments.split(' ').map(str::to_owned),
        std::io::stdin().lock(),
        output,
        std::io::stderr().lock(),
    );
    std::process::exit(i32::from(code));
}

fn internal_command() -> Vec<String> {
    let program = std::env::current_exe().unwrap();
    let script = format!(
        "exec 9>&1 >/dev/null; COFFERDAM_TEST_INTERNAL=\"$*\" exec {} --exact repository::tests::internal_entry --ignored --nocapture",
        program.display()
    );
    ["/bin/sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

/// All files below a directory.
pub(super) fn files_below(directory: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}
