//! What of a task's document may be kept: by place and form, each listed here. Everything else is masked. Pure.

use base64::Engine as _;
use serde_json::{Map, Value};

use super::super::egress::{EgressLevel, EgressMethod};
use super::super::host::HostPattern;
use super::super::id::{AgentName, BranchName, ProjectPath, SessionId, TenantName};
use super::words::{is_plain, is_plain_variable};
use crate::secret::MASKED;

/// Larger numbers could be a token; no field of a task is meant to hold one.
const LARGEST_NUMBER: u64 = 9_999_999_999;
/// Larger versions could be one too.
const LARGEST_VERSION: u64 = 9999;

/// The document with only what may be kept; `None` where that is all of it.
pub(super) fn only(document: &Value) -> Option<Value> {
    let mut path = Vec::new();
    let kept = walk(document, &mut path);
    (kept != *document).then_some(kept)
}

fn walk<'a>(value: &'a Value, path: &mut Vec<&'a str>) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Number(_) | Value::String(_) => scalar(value, path),
        Value::Array(items) => {
            path.push("[]");
            let kept = items.iter().map(|item| walk(item, path)).collect();
            path.pop();
            Value::Array(kept)
        }
        Value::Object(fields) => {
            let mut kept = Map::new();
            for (name, field) in fields {
                // Its name is for who goes on with the session. Without it the letter is still a task that can be sent again.
                if matches!((path.as_slice(), name.as_str()), (["resume"], "saved")) {
                    continue;
                }
                path.push(name);
                let value = walk(field, path);
                path.pop();
                let variable = matches!(path.as_slice(), ["environment"]) && is_plain_variable(name);
                let shown = if is_plain(name) || variable {
                    name.clone()
                } else {
                    free(&kept)
                };
                kept.insert(shown, value);
            }
            Value::Object(kept)
        }
    }
}

/// A name that stands for one that is not shown.
fn free(fields: &Map<String, Value>) -> String {
    let taken = fields.keys().filter(|name| name.starts_with(MASKED)).count();
    if taken == 0 {
        MASKED.to_owned()
    } else {
        format!("{MASKED} {}", taken + 1)
    }
}

fn scalar(value: &Value, path: &[&str]) -> Value {
    if let (["connections", _, "url"], Some(url)) = (path, value.as_str()) {
        return Value::String(address(url));
    }
    if may_stay(value, path) {
        value.clone()
    } else {
        Value::String(MASKED.to_owned())
    }
}

fn may_stay(value: &Value, path: &[&str]) -> bool {
    let text = value.as_str().unwrap_or_default();
    let number_to = |most: u64| value.as_u64().is_some_and(|number| number <= most);
    match path {
        ["version"] => number_to(LARGEST_VERSION),
        ["session"] => text.parse::<SessionId>().is_ok(),
        // What a person wrote for an agent, or an agent for a person. Only tokens of a known shape are found in it.
        ["prompt" | "title"] | ["user", "name"] | ["resume", "history", "[]", "prompt" | "answer"] => value.is_string(),
        ["user", "email"] => text.contains('@'),
        ["projects", "[]", name] | ["resume", "added", "[]", name] => match *name {
            "connection" => is_plain(text),
            "path" => text.parse::<ProjectPath>().is_ok(),
            "base" => text.parse::<BranchName>().is_ok(),
            _ => false,
        },
        ["agent"] => text.parse::<AgentName>().is_ok() && is_plain(text),
        ["tenant"] => text.parse::<TenantName>().is_ok() && is_plain(text),
        ["publish" | "uncommitted"] => is_plain(text),
        ["limits", _] | ["idle_timeout_s"] | ["resume", "attempt" | "turns"] => number_to(LARGEST_NUMBER),
        ["egress", "level"] => is::<EgressLevel>(value),
        ["egress", "allow", "[]", "host"] => is::<HostPattern>(value) && text.contains('.'),
        ["egress", "allow", "[]", "ports", "[]"] => number_to(u16::MAX.into()),
        ["egress", "allow", "[]", "methods", "[]"] => is::<EgressMethod>(value),
        ["connections", _, "forge"] => matches!(text, "gitlab" | "github"),
        // The one credential that everybody may see. A name of a file or a variable could be the token itself, put into the wrong field.
        ["connections", _, "credential", "sealed"] => is_sealed(text),
        _ => false,
    }
}

fn is<T: serde::de::DeserializeOwned>(value: &Value) -> bool {
    T::deserialize(value).is_ok()
}

/// Whether a text is encrypted in the age format, and nothing else.
fn is_sealed(text: &str) -> bool {
    let text = text.trim();
    let armored = text
        .strip_prefix("-----BEGIN AGE ENCRYPTED FILE-----")
        .and_then(|rest| rest.strip_suffix("-----END AGE ENCRYPTED FILE-----"));
    let packed: String = armored.unwrap_or(text).split_ascii_whitespace().collect();
    let binary = base64::engine::general_purpose::STANDARD.decode(packed);
    binary.is_ok_and(|binary| binary.starts_with(b"age-encryption.org/v1\n"))
}

/// An address without what could be a token: its user, its query, and parts that look like no name.
fn address(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    let labels = host.len() <= 253 && host.split('.').all(|label| is_plain(&label.to_ascii_lowercase()));
    let named = labels && (host.contains('.') || host == "localhost");
    let host_is_shown = named || host.parse::<std::net::IpAddr>().is_ok();
    let shown = matches!(scheme, "" | "http" | "https") && host_is_shown;
    let port_is_shown = port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let parts = path.trim_end_matches('/').split('/');
    let path_is_shown = path.is_empty() || parts.clone().all(is_plain);
    match (shown && port_is_shown, path_is_shown) {
        (true, true) => text.to_owned(),
        (true, false) => text[..text.len() - path.len()].to_owned() + MASKED,
        (false, _) => MASKED.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_only_names_are_kept() {
        for good in [
            "https://gitlab.example.org",
            "http://127.0.0.1:8080/gitlab",
            "gitlab.example.org/forge/",
            "https://localhost:3000/gitlab/api/v4",
        ] {
            assert_eq!(address(good), good);
        }
        for bad in [
            "https://oauth2:Opaque7Canary9Tok@gitlab.example.org",
            "https://Opaque7Canary9Tok@gitlab.example.org/x",
            "https://Opaque7Canary9Tok.example.org",
            "https://Opaque7Canary9Tok",
            "Opaque7Canary9Tok",
            "opaquecanarytok",
            "https://gitlab.example.org:Opaque7Canary9Tok",
            "https://gitlab.example.org?private_token=Opaque7Canary9Tok",
            "https://gitlab.example.org/?private_token=Opaque7Canary9Tok",
            "https://gitlab.example.org/Opaque7Canary9Tok",
        ] {
            let shown = address(bad).to_ascii_lowercase();
            assert!(!shown.contains("canary") && !shown.contains("oauth"), "{bad}: {shown}");
        }
        assert_eq!(
            address("https://gitlab.example.org/a/Opaque7Canary9Tok"),
            "https://gitlab.example.org/[MASKED]"
        );
    }
}
