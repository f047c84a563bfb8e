//! The step between PID 1 and an ordered process: this binary again, in the child, under a name of its own. It makes
//! the child the leader of a session of its own, closes what it does not own, and becomes the program.
//!
//! It is a program and not code between fork and exec, because such code cannot be written without `unsafe`. It never
//! returns to serve anything; what it is told comes from PID 1, but nothing is lost if someone else runs it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The name under which this binary does this.
pub(crate) const NAME: &str = "cofferdam-launch";

/// As shells have it: the program could not be run.
const CANNOT_RUN: u8 = 126;

/// Arguments: the file descriptor on which failure is told (it closes when the program runs), the soft limit of open
/// files to give back, the working directory, the program, its arguments.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let [status, open_files, directory, program, rest @ ..] = arguments else {
        return ExitCode::from(CANNOT_RUN);
    };
    // Opened anew, since a number from outside cannot be owned safely; the new one closes by itself on exec.
    let status = status.to_str().and_then(|number| {
        OpenOptions::new()
            .write(true)
            .open(format!("/proc/self/fd/{number}"))
            .ok()
    });
    close_all_but(status.as_ref());
    let reason = if let Err(error) = nix::unistd::setsid() {
        format!("a session for the process could not be made: {error}")
    } else if let Err(error) = std::env::set_current_dir(directory) {
        format!(
            "the working directory {} cannot be entered: {error}",
            directory.display()
        )
    } else {
        restore_open_files(open_files);
        let error = Command::new(program).args(rest).exec();
        format!("{} cannot be run: {error}", program.display())
    };
    if let Some(mut status) = status {
        // Nobody is left to be told when this fails: the exit code says the rest.
        let _ = status.write_all(reason.as_bytes());
    }
    ExitCode::from(CANNOT_RUN)
}

/// Closes every inherited descriptor but stdio. PID 1 opens all of its own close-on-exec; this is for those that it
/// inherited itself.
fn close_all_but(kept: Option<&File>) {
    use std::os::fd::AsRawFd;
    let kept = kept.map(AsRawFd::as_raw_fd);
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for number in open.into_iter().filter(|number| *number > 2 && Some(*number) != kept) {
        // The directory's own descriptor is in the list and closed by now.
        let _ = nix::unistd::close(number);
    }
}

/// PID 1 raises its own soft limit; programs that use select(2) want the one that was set for them.
fn restore_open_files(soft: &OsString) {
    let soft = soft.to_str().and_then(|text| text.parse().ok());
    if let (Some(soft), Ok((_, hard))) = (soft, getrlimit(Resource::RLIMIT_NOFILE)) {
        // Lowering a soft limit does not fail; and where it would, a higher limit harms nobody.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
}
