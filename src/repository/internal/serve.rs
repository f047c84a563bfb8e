//! Becomes git behind walls: git's own server programs read packs that an agent made, so they open the one staging and the system's
//! programs, write the one staging where they serve a push, and reach no network.
//!
//! Returns only when it could not become git.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use super::walls::{self, Doors};
use crate::repository::policy;

/// Where systems keep programs and what these load. What is not there is not opened.
const PROGRAMS: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix",
    "/gnu",
    "/etc/ld.so.cache",
    "/etc/alternatives",
];
/// What programs read or write that is nobody's secret.
const DEVICES: &[&str] = &["/dev/null"];
const SETTINGS: &[&str] = &["/etc/gitconfig", "/dev/urandom", "/dev/zero"];

/// The word that lets git write the staging.
pub(in crate::repository) const WRITING: &str = "write";

pub(super) fn run(directory: &Path, hooks: &Path, access: &str, program: &str, arguments: &[&str]) -> String {
    if let Err(text) = walls::close(&doors(directory, hooks, access == WRITING, Path::new(program))) {
        return text;
    }
    let error = std::process::Command::new(program).args(arguments).exec();
    format!("cannot start {program}: {error}")
}

fn doors(directory: &Path, hooks: &Path, writes: bool, git: &Path) -> Doors {
    let mut run: Vec<PathBuf> = PROGRAMS.iter().map(PathBuf::from).collect();
    // The hook, and this program, which the hook starts.
    run.push(hooks.to_owned());
    run.extend(std::env::current_exe());
    // A git of one's own lies with its helpers below one directory, which is not the whole disk.
    let own = git.parent().and_then(Path::parent);
    run.extend(own.filter(|prefix| prefix.parent().is_some()).map(Path::to_owned));
    let mut write: Vec<PathBuf> = DEVICES.iter().map(PathBuf::from).collect();
    if writes {
        write.push(directory.join(policy::STAGING));
    }
    let read = SETTINGS
        .iter()
        .map(PathBuf::from)
        .chain([directory.to_owned()])
        .collect();
    Doors { read, run, write }
}
