//! The task with which another worker goes on with a session. Pure.

use bytes::Bytes;

use crate::message::task::LARGEST_TASK;
use crate::message::{Amendment, Resume};

/// The task's body with the next prompt and the conversation so far, and with what control messages made of its connections; everything else
/// stays as it came. Early turns are left out until it fits. `None` where the body is no task, or not even the prompt fits.
pub(super) fn body(task: &[u8], prompt: &str, mut resume: Resume, amendment: &Amendment) -> Option<Bytes> {
    let mut value: serde_json::Value = serde_json::from_slice(task).ok()?;
    let is_dropped = |name: &str| amendment.dropped.iter().any(|one| one.as_str() == name);
    if let Some(all) = value.get_mut("projects").and_then(serde_json::Value::as_array_mut) {
        all.retain(|project| {
            let connection = project.get("connection").and_then(serde_json::Value::as_str);
            !connection.is_some_and(is_dropped)
        });
    }
    if let Some(all) = value.get_mut("connections").and_then(serde_json::Value::as_object_mut) {
        all.retain(|name, _| !is_dropped(name));
        all.extend(
            amendment
                .connections
                .iter()
                .map(|(name, request)| (name.to_string(), request.for_task())),
        );
    }
    loop {
        let fields = value.as_object_mut()?;
        fields.insert("prompt".to_owned(), prompt.into());
        fields.insert("resume".to_owned(), serde_json::to_value(&resume).ok()?);
        let body = serde_json::to_vec(&value).ok()?;
        if body.len() <= LARGEST_TASK {
            return Some(body.into());
        }
        if resume.history.is_empty() {
            return None;
        }
        resume.history.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Task;

    #[test]
    fn it_is_the_task_with_its_credentials_and_fits() {
        let task = serde_json::json!({
            "version": 1, "session": "0190c2f0-7c1e-7000-8000-000000000001", "prompt": "one",
            "projects": [{"connection": "lab", "path": "a/b"}],
            "connections": {"lab": {"forge": "gitlab", "credential": {"sealed": "xyz"}}},
        })
        .to_string();
        let mut resume = Resume {
            attempt: 3,
            turns: 2,
            ..Resume::default()
        };
        resume.remember("one", "did it");
        let next = body(task.as_bytes(), "two", resume.clone(), &Amendment::default()).unwrap();
        let read = Task::parse(&next).unwrap();
        assert_eq!((read.prompt.as_str(), read.resume), ("two", Some(resume.clone())));
        assert!(
            String::from_utf8(next.to_vec())
                .unwrap()
                .contains(r#"{"sealed":"xyz"}"#)
        );
        // Every byte of it is written as six.
        for _ in 0..20 {
            resume.remember(&"\u{1}".repeat(8192), &"\u{1}".repeat(8192));
        }
        let next = body(task.as_bytes(), &"p".repeat(256 * 1024), resume, &Amendment::default()).unwrap();
        let read = Task::parse(&next).unwrap();
        assert!((1..20).contains(&read.resume.unwrap().history.len()));
        assert!(body(b"[]", "x", Resume::default(), &Amendment::default()).is_none());
    }

    #[test]
    fn what_was_added_and_renewed_goes_with_it() {
        let task = serde_json::json!({
            "version": 1, "session": "0190c2f0-7c1e-7000-8000-000000000001", "prompt": "one",
            "projects": [{"connection": "lab", "path": "a/b"}, {"connection": "old", "path": "a/c"}],
            "connections": {"lab": {"forge": "gitlab", "credential": {"env": "OLD"}}, "old": {"forge": "gitlab", "credential": {"env": "X"}}},
        });
        let connections = serde_json::json!({
            "lab": {"forge": "gitlab", "url": "https://lab.example", "credential": {"env": "NEW"}, "ca": "-----BEGIN CERTIFICATE-----"},
            "hub": {"forge": "github", "credential": {"plain": "canary"}},
        });
        let amendment = serde_json::json!({"added": [], "connections": connections, "dropped": ["old"]});
        let amendment: Amendment = serde_json::from_value(amendment).unwrap();
        let added = serde_json::json!({"attempt": 1, "turns": 1, "added": [
            {"connection": "hub", "path": "c/d", "base": "next"}, {"connection": "lab", "path": "A/B"}]});
        let resume: Resume = serde_json::from_value(added).unwrap();
        let next = body(task.to_string().as_bytes(), "two", resume, &amendment).unwrap();
        let read = Task::parse(&next).unwrap();
        let projects: Vec<String> = read.projects.iter().map(|project| project.key().to_string()).collect();
        assert_eq!(projects, ["lab:a/b", "hub:c/d"], "each once, and none that was dropped");
        assert_eq!(read.connections.len(), 2);
        assert_eq!(read.projects[1].base.as_ref().unwrap().as_str(), "next");
        for (name, request) in &read.connections {
            assert_eq!(request.for_task(), amendment.connections[name].for_task());
        }
    }
}
