//! The task with which another worker goes on with a session. Pure.

use bytes::Bytes;

use crate::message::Resume;
use crate::message::task::LARGEST_TASK;

/// The task's body with the next prompt and the conversation so far; credentials and everything else stay as they came. Early turns are left
/// out until it fits. `None` where the body is no task, or not even the prompt fits.
pub(super) fn body(task: &[u8], prompt: &str, mut resume: Resume) -> Option<Bytes> {
    let mut value: serde_json::Value = serde_json::from_slice(task).ok()?;
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
        let next = body(task.as_bytes(), "two", resume.clone()).unwrap();
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
        let next = body(task.as_bytes(), &"p".repeat(256 * 1024), resume).unwrap();
        let read = Task::parse(&next).unwrap();
        assert!((1..20).contains(&read.resume.unwrap().history.len()));
        assert!(body(b"[]", "x", Resume::default()).is_none());
    }
}
