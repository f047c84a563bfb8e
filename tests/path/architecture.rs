//! The house rules that a compiler does not check: who imports whom, where a provider's library may be named, and what every file begins with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What each room may import. The same table stands in `src/lib.rs`; `cli` puts everything together and may import anything.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // A task may carry a token in clear where the operator allows it, and it must not be printable from its first moment.
    ("message", &["secret"]),
    ("secret", &[]),
    ("metrics", &[]),
    ("grant", &["message", "secret"]),
    ("queue", &["message"]),
    ("progress", &["message", "queue", "secret"]),
    ("forge", &["message", "secret"]),
    ("repository", &["message", "grant", "secret"]),
    ("sandbox", &["message"]),
    ("gateway", &["grant", "message", "secret", "repository", "metrics"]),
    ("agent", &["message", "progress"]),
    ("tools", &["message", "grant", "forge"]),
    (
        "session",
        &[
            "message",
            "secret",
            "grant",
            "progress",
            "metrics",
            "forge",
            "repository",
            "sandbox",
            "gateway",
            "agent",
            "tools",
        ],
    ),
    (
        "worker",
        &[
            "message",
            "queue",
            "session",
            "progress",
            "metrics",
            "secret",
            // What nobody owns is theirs, and no session's any more.
            "sandbox",
            "repository",
        ],
    ),
    ("admin", &["metrics"]),
    ("client", &["message", "queue"]),
    (
        "config",
        &[
            "message",
            "admin",
            "agent",
            "forge",
            "gateway",
            "progress",
            "queue",
            "repository",
            "sandbox",
            "session",
        ],
    ),
];

/// A library that only one place may name, so that it can be replaced there.
const ONLY_IN: &[(&str, &str)] = &[
    ("bollard", "src/sandbox/docker"),
    ("kube", "src/sandbox/kubernetes"),
    ("k8s_openapi", "src/sandbox/kubernetes"),
    ("lapin", "src/queue/rabbitmq"),
    ("agent_client_protocol", "src/agent/acp"),
    ("rmcp", "src/tools"),
    ("git2", "src/repository/internal"),
    ("prometheus", "src/metrics"),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source of these folders with its path from the project's root.
fn all(folders: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in folders {
        sources(&root.join(folder), &mut found);
    }
    assert!(found.len() > 10);
    let relative = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
    found
        .iter()
        .map(|path| (relative(path), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// The room that a file of `src` belongs to.
fn room(path: &str) -> &str {
    path.trim_start_matches("src/").split(['/', '.']).next().unwrap()
}

/// The rooms that a file names: `crate::room` anywhere but in comments, and in `use crate::{a, b}`.
fn imports(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    for (start, _) in code.match_indices("crate::") {
        if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
            continue;
        }
        let rest = &code[start + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            // One level is enough: the rooms are what stands first in each item.
            let mut depth = 0;
            let mut item = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => found.push(std::mem::take(&mut item)),
                    c if depth == 0 => item.push(c),
                    _ => {}
                }
            }
            found.push(item);
        } else {
            found.push(rest.to_owned());
        }
    }
    let name = |text: String| {
        text.trim()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    found.into_iter().map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn rooms_import_only_what_the_table_says() {
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, text) in all(&["src"]) {
        let room = room(&path);
        if ["cli", "lib", "main"].contains(&room) {
            continue;
        }
        let allowed = table
            .get(room)
            .unwrap_or_else(|| panic!("{path} is in no room of the table"));
        for import in imports(&text) {
            seen += 1;
            if import != room && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{path} imports {import}"));
            }
        }
    }
    assert!(
        seen > 100,
        "only {seen} imports were found: the reader of imports is broken"
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn libraries_of_providers_are_named_in_one_place() {
    let mut wrong = Vec::new();
    for (path, text) in all(&["src"]) {
        for (library, place) in ONLY_IN {
            let named = text
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(&format!("{library}::")));
            if named && !path.starts_with(place) {
                wrong.push(format!("{path} names {library}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_what_it_is_and_none_is_two_rooms() {
    let mut wrong = Vec::new();
    for (path, text) in all(&[
        "src",
        "sandbox-images/inside/src",
        "tests/support/src",
        "tests/path",
        "tests/chaos",
    ]) {
        if !text.starts_with("//!") {
            wrong.push(format!("{path} does not begin with //!"));
        }
        if text.lines().count() > 600 {
            wrong.push(format!("{path} has {} lines", text.lines().count()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The pitfalls of bots that open merge and pull requests, numbered as in the list that this was built from: each has a test named after it.
#[test]
fn every_pitfall_has_a_test_that_bears_its_number() {
    let text: String = all(&["src", "tests/path"]).into_iter().map(|(_, text)| text).collect();
    let missing: Vec<u32> = (1..=32)
        .filter(|number| !text.contains(&format!("fn pitfall_{number:02}_")))
        .collect();
    assert!(missing.is_empty(), "no test is named after the pitfalls {missing:?}");
}
