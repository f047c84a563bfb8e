//! Orders and reports, the two vocabularies of the control connection. It says nothing of what an order may ask for:
//! the worker decides what to order, `inside` what it can do.

mod lines;

use serde::{Deserialize, Serialize};

use crate::{Token, WireError};

pub use lines::{ControlReader, ControlWriter};

/// The longest control line, without its newline.
pub const MAX_LINE_BYTES: usize = 1 << 20;
/// What `hello` carries as `version`.
pub const WIRE_VERSION: u32 = 1;

/// What the worker asks of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Start a process: answered by `started` or `refused`, later by `exited`.
    Spawn {
        /// By which the process is named from here on.
        id: u32,
        /// Program and arguments. The program is looked up in the `PATH` of `env` unless it contains a slash.
        argv: Vec<String>,
        /// The whole environment: nothing is inherited.
        env: Vec<(String, String)>,
        /// The working directory, absolute.
        cwd: String,
        /// What the stdio connection of this process will begin with.
        token: Token,
    },
    /// Send a signal to the whole process group of a spawned process. Answered only where it fails, by `refused`.
    Signal {
        /// The spawn order's id.
        id: u32,
        /// The signal's number.
        signal: i32,
    },
    /// Write a file: answered by `written` or `refused`. Parents are created; the file is replaced atomically; a
    /// symbolic link in its place is refused.
    WriteFile {
        /// By which the answer is told apart.
        id: u32,
        /// The file, absolute.
        path: String,
        /// Its permission bits, at most 0o777.
        mode: u32,
        /// Its content.
        content: String,
    },
    /// Relay this loopback port: answered by `listening` or `refused`.
    Listen {
        /// By which the answer is told apart.
        id: u32,
        /// The port on 127.0.0.1.
        port: u16,
    },
    /// Kill every process but `inside`: answered by `quieted` when they are dead, or after a second, or by `refused`.
    Quiet {
        /// By which the answer is told apart.
        id: u32,
    },
    /// End every process, then the sandbox: SIGTERM now, SIGKILL after the grace. A second one can only shorten it.
    Shutdown {
        /// How long to wait between the two signals, in milliseconds.
        grace_ms: u64,
    },
}

/// What the sandbox tells the worker. All of it is untrusted: the agent runs under the same user as `inside`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The first line of every control connection.
    Hello {
        /// [`WIRE_VERSION`].
        version: u32,
        /// The process id of `inside`, 1 in a container of its own.
        pid: u32,
        /// The user that everything in the sandbox runs as.
        uid: u32,
    },
    /// The process runs.
    Started {
        /// The spawn order's id.
        id: u32,
        /// Its process id, which is also its session and process group.
        pid: u32,
    },
    /// The order was not carried out.
    Refused {
        /// The order's id.
        id: u32,
        /// Why, as a sentence.
        reason: String,
    },
    /// The process ended; sent once. Exactly one of the two is given, or none if the system did not tell.
    Exited {
        /// The spawn order's id.
        id: u32,
        /// The code that it exited with.
        code: Option<i32>,
        /// The signal that killed it.
        signal: Option<i32>,
    },
    /// The file is in place.
    Written {
        /// The order's id.
        id: u32,
    },
    /// Every process was sent SIGKILL, and most likely none is left.
    Quieted {
        /// The order's id.
        id: u32,
    },
    /// The port is relayed.
    Listening {
        /// The order's id.
        id: u32,
        /// The port.
        port: u16,
    },
}

impl Order {
    /// Parses one control line.
    ///
    /// # Errors
    ///
    /// [`WireError::ParseOrder`], with the id by which it can be refused where there is one.
    pub fn parse(line: &[u8]) -> Result<Self, WireError> {
        serde_json::from_slice(line).map_err(|source| WireError::ParseOrder {
            id: id_of(line),
            source,
        })
    }
}

impl Report {
    /// Parses one control line.
    ///
    /// # Errors
    ///
    /// [`WireError::ParseReport`].
    pub fn parse(line: &[u8]) -> Result<Self, WireError> {
        serde_json::from_slice(line).map_err(WireError::ParseReport)
    }
}

/// The id of an order that is not understood otherwise.
fn id_of(line: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct OnlyId {
        id: u32,
    }
    let named: std::collections::BTreeMap<String, OnlyId> = serde_json::from_slice(line).ok()?;
    match named.len() {
        1 => named.into_values().next().map(|inner| inner.id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_the_agreed_spelling() {
        let spawn = r#"{"spawn":{"id":1,"argv":["true"],"env":[["A","b"]],"cwd":"/","token":"00000000000000000000000000000000"}}"#;
        let order = Order::parse(spawn.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&order).unwrap(), spawn);
        let report = Report::Exited {
            id: 1,
            code: None,
            signal: Some(9),
        };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"exited":{"id":1,"code":null,"signal":9}}"#
        );
    }

    #[test]
    fn ignores_unknown_fields_and_names_the_id_of_unknown_orders() {
        let order = Order::parse(br#"{"listen":{"id":3,"port":8080,"later":[1,2]}}"#).unwrap();
        assert_eq!(order, Order::Listen { id: 3, port: 8080 });
        let refused = |line: &str| match Order::parse(line.as_bytes()) {
            Err(WireError::ParseOrder { id, .. }) => id,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(r#"{"freeze":{"id":7,"deep":{"er":[]}}}"#), Some(7));
        assert_eq!(
            refused(r#"{"spawn":{"id":8,"argv":[],"env":[],"cwd":"/","token":"short"}}"#),
            Some(8)
        );
        assert_eq!(refused(r#"{"listen":{"id":9,"port":65536}}"#), Some(9));
        assert_eq!(refused(r#"{"listen":{"id":-1,"port":1}}"#), None);
        assert_eq!(refused("garbage"), None);
        assert_eq!(refused(&"[".repeat(100_000)), None);
    }
}
