//! What git and an agent's pushes say: lists of updates, packets of an answer, messages of commits.

use std::collections::BTreeSet;

use cofferdam::fuzzing::{gateway, repository};
use cofferdam::grant::{Identity, Trailers};
use cofferdam::message::CommitId;
use cofferdam::repository::push_check::{LONGEST_LIST, NewCommit, Rules, check_commit, check_updates, parse_updates};
use cofferdam::sandbox::devcontainer::{self, Asked};

use crate::judge::assert_visible;

const BRANCH: &str = "refs/heads/cofferdam/fix-deadbeef";

/// The list that git gives to `pre-receive`.
pub fn updates(data: &[u8]) {
    let updates = match parse_updates(data) {
        Ok(updates) => updates,
        Err(refusal) => return assert_visible(&refusal.to_string()),
    };
    assert!(!updates.is_empty() && data.len() <= LONGEST_LIST);
    let written: Vec<Vec<u8>> = updates
        .iter()
        .map(|update| {
            let id = |id: &Option<CommitId>| id.as_ref().map_or("0", CommitId::as_str).to_owned();
            let ids = format!("{} {} ", id(&update.old), id(&update.new));
            [ids.as_bytes(), &update.name].concat()
        })
        .collect();
    let seen: Vec<Vec<u8>> = data
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(zeros_as_one)
        .collect();
    assert_eq!(written, seen, "git would see another list");
    match check_updates(&updates, BRANCH) {
        Ok((_, new)) => {
            assert!(updates.len() == 1 && updates[0].name == BRANCH.as_bytes());
            assert!(new.as_str().bytes().any(|digit| digit != b'0'));
        }
        Err(refusal) => assert_visible(&refusal.to_string()),
    }
}

/// A line of the list with `0` for ids that are all zeros.
fn zeros_as_one(line: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = line.splitn(3, |byte| *byte == b' ').collect();
    let id = |id: &[u8]| {
        if id.iter().all(|byte| *byte == b'0') {
            b"0".to_vec()
        } else {
            id.to_vec()
        }
    };
    [id(parts[0]), id(parts[1]), parts[2].to_vec()].join(&b' ')
}

/// A forge's list of branches and tags: read as it came, and written again as what was read.
pub fn shown(data: &[u8]) {
    let Some(shown) = repository::shown_refs(data) else {
        return;
    };
    let names: BTreeSet<&str> = shown.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names.len(), shown.len(), "a name came twice");
    let mut written = String::new();
    for one in &shown {
        assert!(one.name.starts_with("refs/heads/") || one.name.starts_with("refs/tags/"));
        assert!(!one.name.chars().any(|c| c.is_control() || c == ' ') && !one.name.contains(".."));
        assert_eq!(one.target.as_str().len(), 40);
        let line = format!("{} {}\n", one.target, one.name);
        written.push_str(&format!("{:04x}{line}", line.len() + 4));
    }
    written.push_str("0000");
    assert_eq!(repository::shown_refs(written.as_bytes()), Some(shown));
}

/// The answer of a `receive-pack`, raw, and the same bytes as the words of a refusal in packets.
pub fn packets(data: &[u8]) {
    let _ = gateway::refusal(data).map(|words| assert!(words.chars().count() <= 1_000));
    let _ = gateway::decompressed(data).map(|plain| assert!(plain.len() <= 16 * 1024 * 1024));
    let mut answer = Vec::new();
    for piece in data.chunks(100) {
        packet(&mut answer, 2, piece);
    }
    packet(&mut answer, 1, b"000eunpack ok\n0017ng refs/heads/x no\n0000");
    answer.extend_from_slice(b"0000");
    // Whatever else was said, a refusal is told, in one readable line.
    let told = gateway::refusal(&answer).expect("a refusal");
    assert_visible(&told);
    assert!(!told.contains('\n') && told.chars().count() <= 1_000);
}

fn packet(answer: &mut Vec<u8>, band: u8, text: &[u8]) {
    answer.extend_from_slice(format!("{:04x}", text.len() + 5).as_bytes());
    answer.push(band);
    answer.extend_from_slice(text);
}

/// The message of a commit.
pub fn trailers(data: &[u8]) {
    let person = |name: &str, email: &str| Identity {
        name: name.into(),
        email: email.into(),
    };
    let session = "0190c2f0-7c1e-7000-8000-000000000001".parse().expect("it is one");
    let agent = person("agent", "agent@agents.invalid");
    let trailers = Trailers::new(&person("Ada Example", "ada@example.org"), &agent, session);
    let block = trailers.lines().join("\n");
    if trailers.missing_from(data).is_none() {
        // All are there, each as a line of its own.
        for wanted in trailers.lines() {
            let there = data.split(|byte| *byte == b'\n').any(|line| same(line, wanted));
            assert!(there, "{wanted}");
        }
    }
    let complete = [data, b"\n\n", block.as_bytes(), b"\n"].concat();
    assert_eq!(trailers.missing_from(&complete), None);
    let buried = [complete.as_slice(), b"\nnot the end\n"].concat();
    assert!(trailers.missing_from(&buried).is_some());
    let id: CommitId = "c".repeat(40).parse().expect("it is one");
    let rules = Rules {
        trailers,
        email: "ada@example.org".into(),
    };
    let commit = NewCommit {
        id: &id,
        message: &complete,
        author: data,
        committer: data,
        parents: 1,
    };
    match check_commit(&commit, &rules) {
        Ok(()) => assert_eq!(data, b"ada@example.org"),
        Err(refusal) => assert_visible(&refusal.to_string()),
    }
}

fn same(line: &[u8], wanted: &str) -> bool {
    let squeeze = |text: &[u8]| {
        String::from_utf8_lossy(text)
            .to_ascii_lowercase()
            .split_whitespace()
            .collect::<String>()
    };
    squeeze(line) == squeeze(wanted.as_bytes())
}

/// A project's `devcontainer.json`: what it names is a plain reference, and a file without comments says what it says as JSON.
pub fn devcontainer(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    let asked = devcontainer::read(text);
    if let Ok(Asked::Image(name)) = &asked {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
        assert!(
            !name.is_empty() && name.len() <= 512 && name.bytes().all(is_plain),
            "{name:?}"
        );
    }
    let Ok(serde_json::Value::Object(said)) = serde_json::from_str(text) else {
        return;
    };
    if let Ok(Asked::Image(name)) = asked {
        assert_eq!(
            said.get("image").and_then(serde_json::Value::as_str),
            Some(name.as_str())
        );
        assert!(
            !["build", "dockerFile", "dockerComposeFile"]
                .iter()
                .any(|key| said.get(*key).is_some_and(|value| !value.is_null()))
        );
    }
}
