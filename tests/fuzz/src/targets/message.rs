//! Tasks, control messages, names: all that comes from the broker, or is made of it.

use std::collections::BTreeSet;

use cofferdam::grant::branch::branch_name;
use cofferdam::message::notes::MOST_TO_ASK;
use cofferdam::message::task::{LONGEST_PROMPT, MOST_PROJECTS};
use cofferdam::message::{
    AgentName, BranchName, CommitId, ConnectionName, Control, Credential, Notes, ProjectPath, SessionId, Task,
};

use crate::judge::{assert_visible, parts};

/// Longest sentence about a refused message, in bytes.
const LONGEST_SENTENCE: usize = 2_000;

pub fn task(data: &[u8]) {
    let named = Task::session_of(data);
    let task = match Task::parse(data) {
        Ok(task) => task,
        Err(error) => {
            let sentence = error.to_string();
            assert!(
                sentence.len() <= LONGEST_SENTENCE,
                "{} bytes: {sentence:.200}",
                sentence.len()
            );
            assert!(!error.code().is_empty());
            return;
        }
    };
    assert_eq!(Some(task.session), named, "a refusal would name another session");
    assert!(!task.prompt.trim().is_empty() && task.prompt.len() <= LONGEST_PROMPT);
    assert!((1..=MOST_PROJECTS).contains(&task.projects.len()));
    let keys: BTreeSet<_> = task.projects.iter().map(|project| project.key()).collect();
    assert_eq!(keys.len(), task.projects.len());
    for project in &task.projects {
        assert!(task.connections.contains_key(&project.connection));
    }
    if let Some(user) = &task.user {
        assert!(!user.name.contains(['\n', '\r', '<', '>', '\0']) && !user.email.contains(['\n', '\r', '<', '>', ' ']));
    }
    for connection in task.connections.values() {
        unprinted(&connection.credential);
    }
}

pub fn control(data: &[u8]) {
    match Control::parse(data) {
        Ok(control) => {
            assert!((1..=128).contains(&control.id.len()) && control.version == 1);
            use cofferdam::message::ControlKind::{AddProject, Credential};
            if let Credential { credential, .. } = &control.kind {
                unprinted(credential);
            }
            if let AddProject {
                new_connection: Some(connection),
                ..
            } = &control.kind
            {
                unprinted(&connection.credential);
            }
        }
        Err(error) => assert!(error.to_string().len() <= LONGEST_SENTENCE),
    }
}

/// What one worker noted for the next one, read and written again.
pub fn notes(data: &[u8]) {
    let Some(notes) = Notes::parse(data) else { return };
    let text: usize = notes.to_ask.iter().map(|asked| asked.text.len()).sum();
    assert!(text <= LONGEST_PROMPT && notes.to_ask.len() <= MOST_TO_ASK);
    let body = notes.body().expect("it was read, so it can be written");
    let again = Notes::parse(&body).expect("it was written, so it can be read");
    assert_eq!(
        (&again.to_ask, &again.done, again.turns),
        (&notes.to_ask, &notes.done, notes.turns)
    );
}

/// A token in clear is not in what `{:?}` prints.
fn unprinted(credential: &Credential) {
    if let Credential::Plain(token) = credential
        && token.expose().len() >= 12
    {
        assert!(!format!("{credential:?}").contains(token.expose()));
    }
}

pub fn names(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    if let Ok(session) = text.parse::<SessionId>() {
        assert_eq!(session.to_string().parse::<SessionId>(), Ok(session));
        assert_eq!(session.short().len(), 8);
    }
    if let Ok(path) = text.parse::<ProjectPath>() {
        assert_eq!(path.as_str(), text);
        assert!(
            text.split('/')
                .all(|part| !part.is_empty() && part != "." && part != ".." && !part.starts_with('-'))
        );
        assert!(
            !text.contains(['?', '#', '%', '\\', ':', '@', '&', ' ', '\'', '"', '$', '`']) && !path.name().is_empty()
        );
        assert_visible(text);
    }
    if let Ok(branch) = text.parse::<BranchName>() {
        assert_eq!(branch.as_str(), text);
        assert_ref(text);
    }
    if let Ok(commit) = text.parse::<CommitId>() {
        assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit()) && text.starts_with(commit.short()));
    }
    for name in [
        text.parse::<ConnectionName>().map(String::from),
        text.parse::<AgentName>().map(String::from),
    ] {
        assert!(name.is_ok_and(|name| name == text) || !is_plain(text));
    }
    if let Err(error) = text.parse::<BranchName>() {
        assert!(error.to_string().len() <= LONGEST_SENTENCE);
    }
}

fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    (1..=40).contains(&text.len()) && text.as_bytes()[0].is_ascii_lowercase() && text.bytes().all(plain)
}

/// git's rules for the name of a reference, from its manual.
fn assert_ref(name: &str) {
    for part in name.split('/') {
        assert!(
            !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"),
            "{name:?}"
        );
    }
    assert!(
        !name.contains("..") && !name.contains("@{") && name != "@" && !name.ends_with('.'),
        "{name:?}"
    );
    assert!(!name.starts_with('-'), "{name:?} could be an option");
    let bad = |c: char| c < ' ' || matches!(c, '\u{7f}' | ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    assert!(!name.contains(bad), "{name:?}");
}

/// A pattern, a title and branches that exist.
pub fn branch(data: &[u8]) {
    let parts = parts(data);
    let session: SessionId = "0190c2f0-7c1e-7000-8000-0000deadbeef".parse().expect("it is one");
    let title = parts.get(1).map_or("", String::as_str);
    let existing: BTreeSet<String> = parts.iter().skip(2).cloned().collect();
    for pattern in [parts[0].as_str(), "cofferdam/{title}-{session}"] {
        let Ok(made) = branch_name(pattern, session, title, &existing) else {
            assert!(
                pattern == parts[0] || !existing.is_empty(),
                "our own pattern made no name of {title:?}"
            );
            continue;
        };
        let made = made.as_str();
        assert_ref(made);
        assert!(made.contains("deadbeef"), "{made:?} could be two sessions'");
        assert!(!made.starts_with(|c: char| c.is_ascii_digit()) && !made.starts_with("refs/"));
        for other in &existing {
            let (shorter, longer) = if other.len() < made.len() {
                (other.as_str(), made)
            } else {
                (made, other.as_str())
            };
            let collides = longer.strip_prefix(shorter).is_some_and(|rest| rest.starts_with('/'));
            assert!(!collides, "{made:?} beside {other:?}");
        }
    }
}
