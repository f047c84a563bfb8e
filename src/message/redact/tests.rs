//! What is kept of bodies, and what is not.

use serde_json::json;

use super::super::task::Task;
use super::*;
use crate::secret::MASKED;

const SESSION_TEXT: &str = "0190c2f0-7c1e-7000-8000-000000000001";

fn redacted(text: &str) -> String {
    String::from_utf8(body(text.as_bytes()).into_owned()).unwrap()
}

#[test]
fn a_body_without_tokens_is_kept_as_it_is() {
    use base64::Engine as _;
    let sealed = base64::engine::general_purpose::STANDARD.encode("age-encryption.org/v1\n-> X25519 x\n");
    let whole = format!(
        r#"{{"version": 1, "session": "{SESSION_TEXT}", "prompt": "Do  it", "title": "It", "user": {{"name": "Ada", "email": "a@b.example"}},
            "projects": [{{"connection": "lab2", "path": "a/b-1/C", "base": "release/1.2"}}], "agent": "opencode", "publish": "draft",
            "connections": {{"lab2": {{"forge": "gitlab", "url": "https://gitlab.example.org/git", "credential": {{"sealed": "{sealed}"}}}}}},
            "limits": {{"session_s": 3600}}, "egress": {{"level": "custom", "allow": [{{"host": ".pkgs.example", "ports": [443], "methods": ["GET"]}}]}},
            "idle_timeout_s": 60, "comment": true, "resume": {{"attempt": 1, "turns": 2, "history": [{{"prompt": "x y", "answer": "Z"}}]}}, "environment": {{}}}}"#
    );
    for text in [
        whole.as_str(),
        r#"{"version": 9,   "connections": {"lab": {}}}"#,
        r#"{"prompt": "the \"plain\" truth"}"#,
        "{}",
    ] {
        assert!(matches!(body(text.as_bytes()), Cow::Borrowed(_)), "{}", redacted(text));
    }
}

#[test]
fn the_name_of_a_saved_state_is_left_out_and_the_rest_is_a_resume() {
    let name = "0123456789abcdef".repeat(4);
    let text = format!(
        r#"{{"resume": {{"attempt": 1, "turns": 2, "saved": {{"name": "{name}", "session": "s", "agent": "a"}}}}, "saved": {{"x": true}}}}"#
    );
    assert_eq!(
        redacted(&text),
        r#"{"resume":{"attempt":1,"turns":2},"saved":{"x":true}}"#
    );
}

#[test]
fn tokens_are_taken_out_wherever_a_sender_puts_them() {
    for text in [
        r#"{"connections": {"lab": {"credential": {"plain": "canary"}}}}"#,
        r#"{"connections": {"lab": {"credential": "canary"}}}"#,
        r#"{"connections": {"lab": {"credential": {"plian": ["canary"]}}}}"#,
        r#"{"connections": {"lab": {"credential": {"Plain": "canary"}}}}"#,
        r#"{"connections": {"lab": {"Credential": {"Plain": "canary"}}}}"#,
        r#"{"connections": {"lab": {"credential": {"file": "canary"}}}}"#,
        r#"{"connections": {"lab": {"credential": {"env": "canary"}}}}"#,
        r#"{"connections": {"lab": {"credential": {"sealed": "canary"}}}}"#,
        r#"{"connections": {"lab": {"credential": {"sealed": "-----BEGIN AGE ENCRYPTED FILE-----\ncanary"}}}}"#,
        r#"{"connections": {"lab": {"credential": {"plain": 70123456789012, "x": "canary"}}}}"#,
        r#"{"connections": {"lab": {"token": "canary", "credential": {"file": "x"}}}}"#,
        r#"{"connections": {"lab": {"url": "https://oauth2:canary@lab.example"}}}"#,
        r#"{"connections": {"lab": {"forge": "canary"}}}"#,
        r#"{"connections": {"lab": "canary"}}"#,
        r#"{"connections": "canary"}"#,
        r#"{"credentials": {"token": "canary"}}"#,
        r#"{"version": "canary"}"#,
        r#"{"environment": {"TOKEN": "canary"}}"#,
        r#"{"agent": "Canary-canary"}"#,
        r#"["canary"]"#,
        r#""canary""#,
        r#"{"version": 1, "kind": "credential", "credential": {"\u0070lain": "canary"}}"#,
        r#"{"version": 9, "credential": {"plain": "can\u0061ry"}}"#,
        r#"{"prompt": "use glpat-canary-0123456789-0123"}"#,
    ] {
        let shown = redacted(text);
        assert!(
            !shown.to_lowercase().contains("canary") && !shown.contains("can\\u0061ry"),
            "{shown}"
        );
        assert!(shown.contains(MASKED), "{shown}");
    }
    let shown =
        redacted(r#"{"connections": {"lab": {"Opaque7Canary9Tok": 1, "0a1b2c3d": 2}}, "version": 70123456789012}"#);
    assert!(
        !shown.contains("Canary") && !shown.contains("0a1b") && !shown.contains("7012345"),
        "{shown}"
    );
}

#[test]
fn a_body_that_is_no_document_is_not_kept() {
    let utf16: Vec<u8> = r#"{"credential": {"plain": "canary"}}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let deep = format!("{}\"canary\"{}", "[".repeat(200), "]".repeat(200));
    let mut large = " ".repeat(LARGEST_TASK);
    large.push_str(r#"{"credential": {"plain": "canary"}}"#);
    let bodies: [&[u8]; 8] = [
        b"{'session': '0190c2f0-7c1e-7000-8000-000000000001', 'credential': {'plain': 'canary'}}",
        br#"{"session": "0190c2f0-7c1e-7000-8000-000000000001", "credential": {"plain": "canary"}, "credential": {"file": "x"}}"#,
        br#"{"session": "0190c2f0-7c1e-7000-8000-000000000001", "credential": {"plain": "canary"#,
        b"session=0190c2f0-7c1e-7000-8000-000000000001 canary",
        b"canary",
        &utf16,
        deep.as_bytes(),
        large.as_bytes(),
    ];
    for (number, bad) in bodies.into_iter().enumerate() {
        let shown = body(bad);
        let without_nul: Vec<u8> = shown.iter().copied().filter(|byte| *byte != 0).collect();
        let text = String::from_utf8(without_nul).unwrap();
        assert!(!text.contains("canary"), "{text}");
        let note: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(note["size"], bad.len());
        assert_eq!(note["sha256"].as_str().unwrap().len(), 64);
        let session = (number < 4).then_some(SESSION_TEXT);
        assert_eq!(note["session"].as_str(), session, "{text}");
    }
}

fn sample() -> serde_json::Value {
    json!({
        "version": 1,
        "session": SESSION_TEXT,
        "prompt": "Add a greeting",
        "projects": [{"connection": "work", "path": "platform/greeter"}],
        "connections": {"work": {"forge": "gitlab", "url": "https://gitlab.example", "credential": {"env": "COFFERDAM_TOKEN_A"}}}
    })
}

#[test]
fn no_value_and_no_strange_name_is_repeated() {
    let token = "Opaque7Canary9Tok";
    let places: [(&str, serde_json::Value); 8] = [
        ("/connections/work", json!(token)),
        ("/connections/work/forge", json!(token)),
        ("/connections/work/url", json!({ token: 1 })),
        (
            "/connections/work",
            json!({"forge": "gitlab", "credential": {"file": "a"}, token: 1}),
        ),
        ("/connections", json!({ token: {} })),
        ("/version", json!(token)),
        ("/projects/0/path", json!(token)),
        ("/projects/0/connection", json!(token.to_lowercase())),
    ];
    for (place, value) in places {
        let mut task = sample();
        *task.pointer_mut(place).unwrap() = value;
        let error = Task::parse(task.to_string().as_bytes()).unwrap_err().to_string();
        assert!(!error.to_lowercase().contains("canary"), "{error}");
    }
    let twice = sample().to_string().replacen(
        "\"credential\":",
        "\"credential\":{\"plain\":\"canary\"},\"credential\":",
        1,
    );
    let error = Task::parse(twice.as_bytes()).unwrap_err();
    assert_eq!(error.code(), "not_json");
    assert!(
        error.to_string().contains("twice") && !error.to_string().contains("canary"),
        "{error}"
    );
}
