//! Files with secrets that others than the worker's user (or root) may read, write or exchange.
//!
//! Only looks at owners and modes, never into a file. Keys that open sealed credentials are refused where they are read; the rest is told of.

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
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    /// Others may use it.
    Mode(u32),
    /// It is another user's, who may change its mode and what stands in it.
    Owner(u32),
    /// Others may put another in its place.
    Place(u32),
}

impl Exposed {
    /// What is wrong, in words.
    pub(super) fn found(&self) -> String {
        let (key, path) = (&self.key, self.path.display());
        match self.fault {
            Fault::Mode(mode) => format!("{key} {path} can be used by others than its owner (mode {mode:03o})"),
            Fault::Owner(user) => {
                format!("{key} {path} belongs to user {user}, who is neither root nor the user that this runs as")
            }
            Fault::Place(mode) => {
                format!("a file of {key} lies in {path}, where others may put another in its place (mode {mode:03o})")
            }
        }
    }

    /// The command that mends it.
    pub(super) fn remedy(&self) -> String {
        let path = self.path.display();
        match self.fault {
            Fault::Owner(_) => format!("chown it to the worker's user: chown cofferdam {path}"),
            Fault::Place(_) => format!("chmod go-w {path}"),
            Fault::Mode(_) if self.path.is_dir() => format!("chmod 700 {path}"),
            Fault::Mode(_) => format!("chmod 600 {path}"),
        }
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
    // The files themselves are looked at where they are read.
    let keys = config.credentials.identities.iter().filter_map(|path| path.parent());
    all.extend(keys.filter_map(|directory| exchangeable("credentials.identities", directory)));
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
    let own = nix::unistd::geteuid().as_raw();
    let fault = if about.uid() != own && about.uid() != 0 {
        Fault::Owner(about.uid())
    } else if about.mode() & closed != 0 {
        Fault::Mode(about.mode() & 0o777)
    } else {
        return None;
    };
    Some(Exposed {
        key: key.to_owned(),
        path: path.to_owned(),
        fault,
    })
}

/// A directory in which others may rename: not those where everybody may write and only owners may rename (`/tmp`).
fn exchangeable(key: &str, directory: &Path) -> Option<Exposed> {
    const STICKY: u32 = 0o1000;
    // Nobody renames in what is mounted read-only, as in a pod.
    let system = nix::sys::statvfs::statvfs(directory).ok()?;
    if system.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY) {
        return None;
    }
    let about = std::fs::metadata(directory).ok()?;
    let mode = about.mode() & 0o7777;
    let own = nix::unistd::geteuid().as_raw();
    let fault = if about.uid() != own && about.uid() != 0 {
        Fault::Owner(about.uid())
    } else if mode & 0o022 != 0 && mode & STICKY == 0 {
        Fault::Place(mode)
    } else {
        return None;
    };
    Some(Exposed {
        key: key.to_owned(),
        path: directory.to_owned(),
        fault,
    })
}
