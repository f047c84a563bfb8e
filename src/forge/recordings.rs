//! Recorded traffic of real forges, for tests. It is not part of the package: `FORGE_DATA` names its folder.
//!
//! Never hides that it is absent: a test that wants it says so on standard error.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// One recorded request with its answer.
#[derive(Debug, Deserialize)]
pub(super) struct Exchange {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) route: String,
    pub(super) status: u16,
    #[serde(default)]
    pub(super) headers: std::collections::BTreeMap<String, Value>,
    pub(super) body: Value,
}

impl Exchange {
    /// A header, whatever the case of its name in the recording.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        found.1.as_str().map(str::to_owned)
    }
}

/// The folder of the recordings, if it is at hand.
pub(super) fn folder() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/forge-data");
    let folder = std::env::var_os("FORGE_DATA").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        Some(folder)
    } else {
        eprintln!(
            "SKIPPED: no recordings in {}; set FORGE_DATA to check against real traffic",
            folder.display()
        );
        None
    }
}

/// The exchanges of one file below the folder.
pub(super) fn exchanges(file: &str) -> Option<Vec<Exchange>> {
    let text = std::fs::read_to_string(folder()?.join(file)).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// One small example file below the folder: JSON, an HTTP answer with its headers, or a cassette, of which the first answer counts
/// or the one whose place stands after `#`.
pub(super) fn fixture(file: &str) -> Option<Value> {
    let (file, place) = file.split_once('#').unwrap_or((file, "0"));
    let text = std::fs::read_to_string(folder()?.join(file)).unwrap();
    let text = match text.strip_prefix("HTTP/") {
        Some(answer) => answer.replace("\r\n", "\n").split_once("\n\n").unwrap().1.to_owned(),
        None => text,
    };
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    if let Some(response) = value.pointer(&format!("/http_interactions/{place}/response/body")) {
        use base64::Engine as _;
        let body = match response["base64_string"].as_str() {
            Some(encoded) => base64::engine::general_purpose::STANDARD
                .decode(encoded.split_whitespace().collect::<String>())
                .unwrap(),
            None => response["string"].as_str().unwrap().as_bytes().to_vec(),
        };
        return Some(serde_json::from_slice(&body).unwrap());
    }
    match value.pointer("/0/response") {
        Some(answer) => Some(answer.clone()),
        None => Some(value),
    }
}

/// What a broken or hostile forge could make of an answer: each field left out, nulled, or given another type. Of lists the first row.
pub(super) fn mutations(whole: &Value) -> Vec<Value> {
    let mut places = Vec::new();
    collect(whole, String::new(), 0, &mut places);
    let odd = [
        Value::Null,
        serde_json::json!(-1),
        serde_json::json!(1e300),
        serde_json::json!(true),
        serde_json::json!("\u{0}\u{202e}../../x\" onload="),
        serde_json::json!([[], "x"]),
        serde_json::json!({"x": {}}),
        serde_json::json!("é".repeat(999)),
    ];
    let mut all = Vec::new();
    for place in places {
        for value in &odd {
            let mut changed = whole.clone();
            *changed.pointer_mut(&place).unwrap() = value.clone();
            all.push(changed);
        }
        let (parent, name) = place.rsplit_once('/').unwrap();
        let mut changed = whole.clone();
        let dropped = changed.pointer_mut(parent).and_then(Value::as_object_mut);
        if dropped.is_some_and(|fields| fields.remove(&name.replace("~1", "/")).is_some()) {
            all.push(changed);
        }
    }
    all
}

fn collect(value: &Value, place: String, depth: usize, places: &mut Vec<String>) {
    if depth > 4 {
        return;
    }
    let mut below = |name: &str, value: &Value| {
        let place = format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"));
        places.push(place.clone());
        collect(value, place, depth + 1, places);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| below(name, value)),
        Value::Array(rows) => rows.iter().take(1).for_each(|row| below("0", row)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
