//! Runs the commands that a prompt asks for. A cancelled command is killed with its whole process group; it never waits for what a
//! command left running in the background.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::report::Report;

/// No more than this of a command's output is kept.
const OUTPUT_LIMIT: u64 = 64 * 1024;
/// How often a running command is asked whether it ended.
const POLL: Duration = Duration::from_millis(10);
/// How long output may still come after a command's end: a process that it left behind may hold the pipe for ever.
const LATE_OUTPUT: Duration = Duration::from_millis(500);
/// Each process left behind on purpose ends by itself after this many seconds.
const DAEMON_SECONDS: &str = "600";

/// How a command ended.
pub(super) struct Ended {
    /// Its exit code; `None` when it was killed.
    pub(super) code: Option<i32>,
    /// What it printed, both streams in one.
    pub(super) output: String,
}

/// Runs `command` with a shell.
pub(super) fn shell(command: &str, directory: &Path, report: &dyn Report) -> std::io::Result<Ended> {
    // One pipe for both streams keeps their order.
    let script = format!("exec 2>&1\n{command}");
    run(Command::new("sh").args(["-c", &script]).current_dir(directory), report)
}

/// Commits everything in a checkout.
pub(super) fn commit(directory: &Path, message: &str, report: &dyn Report) -> std::io::Result<Ended> {
    let script = "exec 2>&1\ngit add -A && git commit -m \"$1\"";
    run(
        Command::new("sh")
            .args(["-c", script, "sh", message])
            .current_dir(directory),
        report,
    )
}

/// Starts a process that outlives the turn and the agent, and says its id.
pub(super) fn leave_behind() -> std::io::Result<u32> {
    let child = Command::new("sleep")
        .arg(DAEMON_SECONDS)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok(child.id())
}

fn run(command: &mut Command, report: &dyn Report) -> std::io::Result<Ended> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let output = collect(&mut child);
    let code = loop {
        if let Some(status) = child.try_wait()? {
            break status.code();
        }
        if report.cancelled_within(POLL) {
            kill_group(&mut child)?;
            break None;
        }
    };
    let mut text = Vec::new();
    let end = Instant::now() + LATE_OUTPUT;
    while let Ok(piece) = output.recv_timeout(end.saturating_duration_since(Instant::now())) {
        text.extend(piece);
    }
    Ok(Ended {
        code,
        output: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// The output in pieces; the channel closes at its end.
fn collect(child: &mut Child) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    if let Some(mut pipe) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut kept = 0;
            let mut buffer = [0; 4096];
            // What is over the limit is still read, or the command would block on a full pipe.
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                if kept < OUTPUT_LIMIT {
                    kept += length as u64;
                    if sender.send(buffer[..length].to_vec()).is_err() {
                        break;
                    }
                }
            }
        });
    }
    receiver
}

fn kill_group(child: &mut Child) -> std::io::Result<()> {
    // The shell's own `kill` reaches a group; the standard library only one process.
    let group = format!("kill -KILL -{}", child.id());
    Command::new("sh").args(["-c", &group]).stderr(Stdio::null()).status()?;
    child.kill()?;
    child.wait().map(|_| ())
}
