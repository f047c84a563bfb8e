//! The measured rows and observed shapes of the real forges, if they are at hand.

use std::path::PathBuf;

use serde_json::Value;

/// Where the data is; `None` is said aloud. A wrong `FORGE_DATA` is an error: nobody sets it to compare nothing.
pub(crate) fn directory() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("FORGE_DATA") {
        let given = PathBuf::from(given);
        assert!(
            given.join("SOURCES.md").is_file(),
            "FORGE_DATA is {}, which holds no forge data",
            given.display()
        );
        return Some(given);
    }
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/forge-data"));
    if directory.is_dir() {
        return Some(directory);
    }
    eprintln!(
        "NOT RUN: no forge data at {} (set FORGE_DATA): nothing was compared",
        directory.display()
    );
    None
}

/// Compares an answer with a measured row: its status, and its body if the row has one.
pub(crate) fn matches_row(side: &str, number: u64, status: u16, body: &Value) {
    let Some(directory) = directory() else {
        return;
    };
    let text = std::fs::read_to_string(directory.join(side).join("measured-behaviours.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let row = rows.into_iter().find(|row| row["n"] == number).unwrap();
    assert_eq!(row["status"], status, "row {number} of {side}: {}", row["when"]);
    match (&row["body"], body) {
        (Value::Null, _) => {}
        (Value::Object(wanted), got) => {
            for (key, value) in wanted {
                // The documentation page differs by route and by year.
                if key != "documentation_url" {
                    assert_eq!(&got[key], value, "row {number} of {side}, key {key}: {}", row["when"]);
                }
            }
        }
        (wanted, got) => assert_eq!(wanted, got, "row {number} of {side}"),
    }
}
