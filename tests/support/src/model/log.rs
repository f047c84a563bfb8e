//! A line for each request, for a test to read afterwards. It holds the names of headers and never their values.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// Where the lines go.
#[derive(Debug)]
pub(super) struct Log(Option<Mutex<File>>);

impl Log {
    /// Appends to `path`, or to nothing.
    pub(super) fn open(path: Option<&Path>) -> std::io::Result<Self> {
        let file = path
            .map(|path| OpenOptions::new().create(true).append(true).open(path))
            .transpose()?;
        Ok(Self(file.map(Mutex::new)))
    }

    /// One line, whole: a reader may look at any time.
    pub(super) fn write(&self, line: &Value) -> std::io::Result<()> {
        let Some(file) = &self.0 else { return Ok(()) };
        file.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(format!("{line}\n").as_bytes())
    }
}
