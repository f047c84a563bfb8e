//! Reads the worker's own keys from its files.
//!
//! Never uses a file that others than the worker's user (or root) could have read or written, and never repeats what stands in one.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::CredentialError;
use crate::secret::seal::Identity;

/// Largest identity file, in bytes.
const LARGEST: u64 = 64 * 1024;

/// All keys of these files, in order.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<Identity>, CredentialError> {
    let mut identities = Vec::new();
    for path in files {
        let found = read_one(path).map_err(|detail| CredentialError::Identity {
            path: path.clone(),
            detail,
        })?;
        identities.extend(found);
    }
    Ok(identities)
}

fn read_one(path: &Path) -> Result<Vec<Identity>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    // Of the file that is open, not of the name: the two cannot be exchanged in between.
    let about = file.metadata().map_err(|error| error.to_string())?;
    if !about.is_file() || about.len() > LARGEST {
        return Err("it is no file of at most 64 KiB".to_owned());
    }
    if about.mode() & 0o077 != 0 {
        let mode = about.mode() & 0o777;
        return Err(format!(
            "others than its owner may use it (mode {mode:03o}): chmod 600 it"
        ));
    }
    let own = nix::unistd::geteuid().as_raw();
    if about.uid() != own && about.uid() != 0 {
        return Err("it belongs to another user than the worker's: chown it".to_owned());
    }
    let mut text = Zeroizing::new(String::with_capacity(LARGEST as usize + 1));
    file.take(LARGEST)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    Identity::read_all(&text).map_err(|error| error.to_string())
}
