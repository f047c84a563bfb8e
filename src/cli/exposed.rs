//! Files with secrets that others than their owner may read or write.
//!
//! Only looks at modes, never into a file. Keys that open sealed credentials are refused where they are read; these are told of.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::agent::set_up::Source;
use crate::config::Config;

/// Most files of the credential directory that are named.
const MOST: usize = 10;

/// One of them.
#[derive(Debug)]
pub(super) struct Exposed {
    key: String,
    path: PathBuf,
    mode: u32,
}

impl Exposed {
    /// What is wrong, in words.
    pub(super) fn found(&self) -> String {
        format!(
            "{} {} can be used by others than its owner (mode {:03o})",
            self.key,
            self.path.display(),
            self.mode
        )
    }

    /// The command that mends it.
    pub(super) fn remedy(&self) -> String {
        let mode = if self.path.is_dir() { "700" } else { "600" };
        format!("chmod {mode} {}", self.path.display())
    }
}

/// All that the configuration names.
pub(super) fn secret_files(config: &Config) -> Vec<Exposed> {
    let mut named: Vec<(String, &Path)> = Vec::new();
    if let Some(path) = &config.queue.url_file {
        named.push(("queue.url_file".to_owned(), path));
    }
    for (name, model) in &config.models {
        if let Some(path) = &model.key_file {
            named.push((format!("models.{name}.key_file"), path));
        }
    }
    for (agent, settings) in &config.agents {
        for (name, source) in settings.set_up.iter().flat_map(|set_up| &set_up.secrets) {
            match source {
                Source::File(path) => named.push((format!("agents.{agent}.set_up.secrets.{name}"), path)),
                Source::Env(_) => {}
            }
        }
    }
    let mut all: Vec<Exposed> = named.iter().filter_map(|(key, path)| look(key, path)).collect();
    if let Some(directory) = &config.credentials.directory {
        let closed = std::fs::metadata(directory).is_ok_and(|about| about.mode() & 0o077 == 0);
        // Behind a closed directory nobody gets at the files.
        if !closed {
            let key = "credentials.directory";
            all.extend(look(key, directory));
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            all.extend(entries.filter_map(|entry| look(key, &entry.path())).take(MOST));
        }
    }
    if let Some(directory) = &config.session.saved_states {
        // Its files are closed, but their names say who may have which.
        all.extend(open_to(0o077, "session.saved_states", directory));
    }
    all
}

/// A file that others may read or write, or a directory that others may write.
fn look(key: &str, path: &Path) -> Option<Exposed> {
    let closed = if path.is_dir() { 0o022 } else { 0o077 };
    open_to(closed, key, path)
}

/// One that has any of these bits.
fn open_to(closed: u32, key: &str, path: &Path) -> Option<Exposed> {
    let about = std::fs::metadata(path).ok()?;
    (about.mode() & closed != 0).then(|| Exposed {
        key: key.to_owned(),
        path: path.to_owned(),
        mode: about.mode() & 0o777,
    })
}
