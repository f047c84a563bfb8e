//! Control messages: what an orchestrator sends to a live session's mailbox.
//!
//! Never applied here: parsing only.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::id::{BranchName, ConnectionName, ProjectPath};
use super::task::{ConnectionRequest, Credential, LONGEST_PROMPT};
use super::{redact, tree};

/// Largest control body that is read, in bytes.
pub const LARGEST_CONTROL: usize = 256 * 1024;

/// One control message.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("unevaluatedProperties" = false))]
pub struct Control {
    /// The version of this contract; 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// The sender's own id of this message; the answering event names it.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    /// What to do.
    #[serde(flatten)]
    pub kind: ControlKind,
}

/// What a control message asks for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ControlKind {
    /// Another prompt to the agent, in the same sandbox and on the same branches.
    Prompt {
        /// What the user asks.
        #[schemars(length(min = 1, max = LONGEST_PROMPT))]
        text: String,
        /// What becomes of a turn that runs.
        #[serde(default)]
        mode: PromptMode,
    },
    /// Another project, cloned beside the others.
    AddProject {
        /// Which connection: one of the session's, or the new one's name.
        connection: ConnectionName,
        /// Its path.
        path: ProjectPath,
        /// The branch to start from; the project's default branch when absent.
        #[serde(default)]
        base: Option<BranchName>,
        /// The connection, where the session does not have it yet.
        #[serde(default)]
        new_connection: Option<ConnectionRequest>,
    },
    /// Stop the running turn. Prompts that wait come next; a session that stays open waits for the next one, any other ends with what it has.
    CancelTurn,
    /// Use this credential for a connection from now on: it must be the same user's.
    Credential {
        /// The connection.
        connection: ConnectionName,
        /// Where the fresh credential is.
        credential: Credential,
    },
    /// Drop a connection at once: its credential and its projects' objects are erased, its projects end, their work is kept.
    Disconnect {
        /// The connection.
        connection: ConnectionName,
    },
    /// Answer what the session waits for (`needs_attention`).
    Answer(Answer),
    /// End the session: publish what was accepted, or discard it.
    End {
        /// Whether accepted work is published first.
        #[serde(default = "yes")]
        publish: bool,
    },
}

/// What is answered: a question of the agent, or whether held work is published.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum Answer {
    /// A question of the agent (`permission_asked`).
    Question {
        /// The id of the question.
        question: String,
        /// The id of the option, or its kind where no other option has it.
        option: String,
    },
    /// A project whose work is held (`review_needed`): publish it, or keep it.
    Project {
        /// The project's connection.
        connection: ConnectionName,
        /// Its path.
        path: ProjectPath,
        /// Whether its work is published.
        publish: bool,
    },
}

/// Read by hand: of a choice of forms serde only says that none fits.
impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct OfQuestion {
            question: String,
            option: String,
        }
        #[derive(Deserialize)]
        struct OfProject {
            connection: ConnectionName,
            path: ProjectPath,
            publish: bool,
        }
        let fields = serde_json::Value::deserialize(deserializer)?;
        let read = if fields.get("question").is_some() {
            serde_json::from_value(fields).map(|OfQuestion { question, option }| Self::Question { question, option })
        } else {
            serde_json::from_value(fields).map(
                |OfProject {
                     connection,
                     path,
                     publish,
                 }| Self::Project {
                    connection,
                    path,
                    publish,
                },
            )
        };
        read.map_err(D::Error::custom)
    }
}

/// What a prompt does to a turn that runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PromptMode {
    /// It waits for the turn's end.
    #[default]
    Queue,
    /// The turn is stopped, and this comes next.
    Steer,
}

/// The fields that a message of this kind may have.
fn known(fields: &serde_json::Map<String, serde_json::Value>) -> &'static [&'static str] {
    match fields.get("kind").and_then(serde_json::Value::as_str) {
        Some("prompt") => &["version", "id", "kind", "text", "mode"],
        Some("add_project") => &["version", "id", "kind", "connection", "path", "base", "new_connection"],
        Some("end") => &["version", "id", "kind", "publish"],
        Some("credential") => &["version", "id", "kind", "connection", "credential"],
        Some("answer") if fields.contains_key("question") => &["version", "id", "kind", "question", "option"],
        Some("answer") => &["version", "id", "kind", "connection", "path", "publish"],
        Some("disconnect") => &["version", "id", "kind", "connection"],
        _ => &["version", "id", "kind"],
    }
}

fn yes() -> bool {
    true
}

/// Why a body is not a control message.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Larger than `LARGEST_CONTROL`.
    #[error("the control message is {0} bytes, the limit is {LARGEST_CONTROL}")]
    TooLarge(usize),
    /// Not a control message of version 1.
    #[error("not a control message: {0}")]
    Malformed(String),
}

impl Control {
    /// Reads a control message.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(body: &[u8]) -> Result<Self, ControlError> {
        if body.len() > LARGEST_CONTROL {
            return Err(ControlError::TooLarge(body.len()));
        }
        let value = tree::parse(body).map_err(|error| ControlError::Malformed(error.to_string()))?;
        // serde cannot refuse unknown fields of a flattened enum, so the names are checked here.
        if let Some(unknown) = value
            .as_object()
            .and_then(|fields| fields.keys().find(|name| !known(fields).contains(&name.as_str())))
        {
            return Err(ControlError::Malformed(format!(
                "unknown field {:?}",
                redact::shown(unknown)
            )));
        }
        let holds_credential = value.get("credential").is_some() || value.get("new_connection").is_some();
        let kind = value
            .get("kind")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        let kind = redact::shown(kind).to_owned();
        let control: Self = serde_json::from_value(value).map_err(|error| {
            ControlError::Malformed(if holds_credential {
                redact::CREDENTIAL.to_owned()
            } else {
                format!("kind {kind:?}: {}", redact::detail(&error.to_string()))
            })
        })?;
        if control.version != 1 {
            return Err(ControlError::Malformed(format!(
                "version {} is not known here",
                control.version
            )));
        }
        if !ID_LENGTHS.contains(&control.id.len()) {
            return Err(ControlError::Malformed("id must have 1 to 128 bytes".into()));
        }
        if let ControlKind::Prompt { text, .. } = &control.kind
            && (text.trim().is_empty() || text.len() > LONGEST_PROMPT)
        {
            return Err(ControlError::Malformed("text must have 1 byte to 256 KiB".into()));
        }
        if let ControlKind::AddProject {
            new_connection: Some(connection),
            ..
        } = &control.kind
            && let Err(wrong) = connection.check()
        {
            return Err(ControlError::Malformed(format!("new_connection.ca: {wrong}")));
        }
        if let ControlKind::Answer(Answer::Question { question, option }) = &control.kind
            && !(ID_LENGTHS.contains(&question.len()) && ID_LENGTHS.contains(&option.len()))
        {
            return Err(ControlError::Malformed(
                "question and option must have 1 to 128 bytes".into(),
            ));
        }
        Ok(control)
    }
}

/// The bytes that an id may have.
const ID_LENGTHS: std::ops::RangeInclusive<usize> = 1..=128;

impl Control {
    /// The id of a body that is no control message, where it has one: whoever sent it is told by it what is wrong.
    #[must_use]
    pub fn id_of(body: &[u8]) -> Option<String> {
        if body.len() > LARGEST_CONTROL {
            return None;
        }
        let value: serde_json::Value = serde_json::from_slice(body).ok()?;
        let id = value.get("id")?.as_str()?;
        ID_LENGTHS.contains(&id.len()).then(|| id.to_owned())
    }
}

impl ControlKind {
    /// The stable word.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Prompt { .. } => "prompt",
            Self::AddProject { .. } => "add_project",
            Self::CancelTurn => "cancel_turn",
            Self::Credential { .. } => "credential",
            Self::Disconnect { .. } => "disconnect",
            Self::Answer(_) => "answer",
            Self::End { .. } => "end",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_what_is_no_control_message_is_found_where_there_is_one() {
        let id = |body: &str| Control::id_of(body.as_bytes());
        assert_eq!(id(r#"{"version":7,"id":"a","kind":"dance"}"#).as_deref(), Some("a"));
        for none in ["", "{", "[]", r#"{"id":""}"#, r#"{"id":7}"#, r#"{"kind":"end"}"#] {
            assert_eq!(id(none), None, "{none}");
        }
        assert_eq!(id(&format!(r#"{{"id":"{}"}}"#, "x".repeat(129))), None);
        let large = format!(r#"{{"id":"a","text":"{}"}}"#, "x".repeat(LARGEST_CONTROL));
        assert_eq!(id(&large), None);
    }

    #[test]
    fn reads_known_kinds_and_refuses_others_by_name() {
        let end = Control::parse(br#"{"version":1,"id":"a","kind":"end"}"#).unwrap();
        assert!(matches!(end.kind, ControlKind::End { publish: true }));
        let fresh = br#"{"version":1,"id":"a","kind":"credential","connection":"lab","credential":{"file":"ada"}}"#;
        assert!(
            matches!(Control::parse(fresh).unwrap().kind, ControlKind::Credential { connection, credential: Credential::File(_) } if connection.as_str() == "lab")
        );
        let prompt = Control::parse(br#"{"version":1,"id":"a","kind":"prompt","text":"more"}"#).unwrap();
        assert!(matches!(
            prompt.kind,
            ControlKind::Prompt {
                mode: PromptMode::Queue,
                ..
            }
        ));
        assert!(Control::parse(br#"{"version":1,"id":"a","kind":"prompt","text":" "}"#).is_err());
        let add = br#"{"version":1,"id":"a","kind":"add_project","connection":"lab","path":"a/b"}"#;
        assert!(matches!(
            Control::parse(add).unwrap().kind,
            ControlKind::AddProject { base: None, .. }
        ));
        let with = |ca: &str| {
            let connection = serde_json::json!({"forge": "gitlab", "credential": {"plain": "canary"}, "ca": ca});
            let add = serde_json::json!({"version": 1, "id": "a", "kind": "add_project", "connection": "lab", "path": "a/b",
                "new_connection": connection});
            Control::parse(add.to_string().as_bytes())
        };
        let control = with("-----BEGIN CERTIFICATE-----").unwrap();
        assert!(!format!("{control:?}").contains("canary"));
        assert!(with("none").unwrap_err().to_string().contains("PEM"));
        let drop = br#"{"version":1,"id":"a","kind":"disconnect","connection":"lab"}"#;
        assert!(matches!(
            Control::parse(drop).unwrap().kind,
            ControlKind::Disconnect { .. }
        ));
        assert!(
            Control::parse(br#"{"version":1,"id":"a","kind":"disconnect","connection":"lab","publish":true}"#).is_err()
        );
        let answer = br#"{"version":1,"id":"a","kind":"answer","connection":"lab","path":"a/b","publish":false}"#;
        assert!(
            matches!(Control::parse(answer).unwrap().kind, ControlKind::Answer(Answer::Project { path, publish: false, .. }) if path.as_str() == "a/b")
        );
        let answer = br#"{"version":1,"id":"a","kind":"answer","question":"q-1","option":"2"}"#;
        assert!(
            matches!(Control::parse(answer).unwrap().kind, ControlKind::Answer(Answer::Question { question, option }) if question == "q-1" && option == "2")
        );
        // Nothing is published or allowed by default, and no answer is for both.
        for (fields, words) in [
            (r#""connection":"lab","path":"a/b""#, "missing field `publish`"),
            (r#""question":"q-1""#, "missing field `option`"),
            (r#""connection":"lab","path":"..","publish":true"#, "is not valid"),
            (r#""question":"","option":"1""#, "1 to 128 bytes"),
            (r#""question":"q-1","option":"1","publish":true"#, "publish"),
            (
                r#""connection":"lab","path":"a/b","publish":true,"option":"1""#,
                "option",
            ),
        ] {
            let body = format!(r#"{{"version":1,"id":"a","kind":"answer",{fields}}}"#);
            let error = Control::parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let error = Control::parse(br#"{"version":1,"id":"a","kind":"dance"}"#).unwrap_err();
        assert!(error.to_string().contains("dance"), "{error}");
        assert!(Control::parse(br#"{"version":1,"id":"a","kind":"end","x":1}"#).is_err());
        assert!(Control::parse(br#"{"version":2,"id":"a","kind":"end"}"#).is_err());
        let misplaced = br#"{"version":1,"id":"a","kind":"credential","connection":"lab","credential":"canary"}"#;
        assert!(!Control::parse(misplaced).unwrap_err().to_string().contains("canary"));
    }
}
