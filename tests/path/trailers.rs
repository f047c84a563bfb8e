//! `inside trailers` and the check of pushed commits are two programs with two readers of trailers: what the first writes, the second must
//! accept, whatever the message was. Otherwise an agent is told to run a command that helps nothing.

use std::path::Path;
use std::process::{Command, Output};

use cofferdam::grant::{Identity, Trailers};
use proptest::prelude::*;

use crate::harness::inside;

const EMAIL: &str = "ada@example.org";

fn trailers() -> Trailers {
    let person = |name: &str, email: &str| Identity {
        name: name.into(),
        email: email.into(),
    };
    let session = "0190c2f0-7c1e-7000-8000-000000000001".parse().unwrap();
    Trailers::new(
        &person("Ada Example", EMAIL),
        &person("agent", "agent@agents.invalid"),
        session,
    )
}

fn run(directory: &Path, program: &str, arguments: &[&str], input: &[u8]) -> Output {
    use std::io::Write as _;
    let mut command = Command::new(program);
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command.args(arguments).stdin(std::process::Stdio::piped());
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn ask(directory: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let output = run(directory, "git", arguments, input);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn line(output: Vec<u8>) -> String {
    String::from_utf8(output).unwrap().trim().to_owned()
}

/// The message of a commit, byte for byte.
fn message(directory: &Path, id: &str) -> Vec<u8> {
    let raw = ask(directory, &["cat-file", "commit", id], b"");
    let start = raw.windows(2).position(|two| two == b"\n\n").unwrap() + 2;
    raw[start..].to_vec()
}

/// Lines that one reader of trailers could take for something else than the other.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let fixed: Vec<Vec<u8>> = trailers()
        .lines()
        .iter()
        .map(|line| line.clone().into_bytes())
        .chain(
            [
                "",
                "",
                "",
                "Fix it",
                "Fix: it",
                "- a list",
                "---",
                "# a comment",
                "    indented",
                " folded",
                "\tfolded",
                "Key: value",
                "key : value",
                "Co-authored-by:",
                "co-authored-by: Ada Example <ada@example.org>",
                "Co-authored-by : Ada Example <ada@example.org>",
                "Co-authored-by: Ada Example",
                "\t<ada@example.org>",
                "Cofferdam-Session:  0190c2f0-7c1e-7000-8000-000000000001 ",
                "Signed-off-by: A <a@x>",
                "(cherry picked from commit 0123456789012345678901234567890123456789)",
                "https://h.example/x",
                "\r",
                "Fix it\r",
                "Cofferdam-Session: 0190c2f0-7c1e-7000-8000-000000000001\r",
                "\u{b}",
                "ü: ß",
                "# ------------------------ >8 ------------------------",
            ]
            .map(|line| line.as_bytes().to_vec()),
        )
        .chain([b"caf\xe9: \xff".to_vec()])
        .collect();
    let lines = prop_oneof![9 => prop::sample::select(fixed), 1 => "[ -~]{0,30}".prop_map(String::into_bytes)];
    (prop::collection::vec(lines, 1..10), any::<bool>()).prop_map(|(lines, ended)| {
        let mut message = lines.join(&b'\n');
        message.extend(ended.then_some(b'\n'));
        message
    })
}

#[test]
fn what_inside_writes_is_accepted_whatever_the_message_was() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    ask(here, &["init", "-q", "--initial-branch=main"], b"");
    for (key, value) in [("user.name", "Ada Example"), ("user.email", EMAIL)] {
        ask(here, &["config", key, value], b"");
    }
    let wanted = trailers();
    std::fs::write(here.join(".git/cofferdam-trailers"), wanted.lines().join("\n") + "\n").unwrap();
    ask(here, &["commit", "-q", "--allow-empty", "-m", "Base"], b"");
    let base = line(ask(here, &["rev-parse", "HEAD"], b""));
    let tree = line(ask(here, &["rev-parse", "HEAD^{tree}"], b""));
    ask(here, &["update-ref", "refs/remotes/origin/main", &base], b"");
    let program = inside();
    let program = program.to_str().unwrap();
    let check = |message_before: Vec<u8>| {
        let person = format!("Ada Example <{EMAIL}> 1700000000 +0000");
        let head = format!("tree {tree}\nparent {base}\nauthor {person}\ncommitter {person}\n\n");
        let raw = [head.as_bytes(), &message_before].concat();
        let id = line(ask(here, &["hash-object", "-t", "commit", "-w", "--stdin"], &raw));
        ask(here, &["update-ref", "refs/heads/main", &id], b"");
        let repaired = run(here, program, &["trailers"], b"");
        prop_assert!(
            repaired.status.success(),
            "{}",
            String::from_utf8_lossy(&repaired.stderr)
        );
        let after = line(ask(here, &["rev-parse", "main"], b""));
        let written = message(here, &after);
        let shown = String::from_utf8_lossy(&written).into_owned();
        prop_assert_eq!(
            wanted.missing_from(&written),
            None,
            "{:?} became {:?}",
            String::from_utf8_lossy(&message_before),
            shown
        );
        // A message that has them already is left as it is: commit ids do not move without need.
        run(here, program, &["trailers"], b"");
        prop_assert_eq!(line(ask(here, &["rev-parse", "main"], b"")), after, "{:?}", shown);
        Ok(())
    };
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(150)
    });
    runner.run(&messages(), check).unwrap();
}
