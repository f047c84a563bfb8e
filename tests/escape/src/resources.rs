//! Tries to use up what all sandboxes share: space, files, descriptors, processes, memory. Each attempt ends at a cap above the limit, and
//! reaching the cap is the escape. What was taken is given back.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::Asked;
use crate::report::{Report, Verdict, line};

const MIB: u64 = 1024 * 1024;
/// Longest that one attempt may take.
const LIMIT: Duration = Duration::from_secs(40);

pub(crate) fn rows(asked: &Asked, report: &mut Report) {
    // The control's caps are tiny, so that it reaches them: it takes nothing from the host.
    let small = asked.is_control();
    for (place, limit) in [("/tmp", 512), ("/home/agent", 512), ("/dev/shm", 64)] {
        fill(report, place, if small { 1 } else { limit + 64 });
    }
    files(asked, report, "/tmp", if small { 50 } else { 140_000 });
    descriptors(report, if small { 50 } else { 10_000 });
    zombies(report, if small { 20 } else { 500 });
    large_file(report, small);
}

/// Fills the workspace: in a session of its own, which the worker may end for it.
pub(crate) fn workspace(asked: &Asked, report: &mut Report) {
    fill(report, "/workspace", asked.number("mib", 2048) + 64);
}

fn fill(report: &mut Report, place: &str, cap: u64) {
    let path = Path::new(place).join("escape-fill");
    let tried = format!("write {cap} MiB");
    let name = format!("disk of {place}");
    let Ok(mut file) = File::create(&path) else {
        report.row(Verdict::Untried, &name, &tried, "no file could be made there");
        return;
    };
    let piece = vec![0x5a_u8; 1024 * 1024];
    let mut written = 0;
    let ended = loop {
        if written >= cap {
            break None;
        }
        match file.write_all(&piece) {
            Ok(()) => written += 1,
            Err(error) => break Some(error),
        }
    };
    drop(file);
    let _ = std::fs::remove_file(&path);
    match ended {
        Some(error) => report.row(Verdict::Held, &name, &tried, &format!("{error} after {written} MiB")),
        None => report.row(Verdict::Broken, &name, &tried, "all of it was taken"),
    }
}

fn files(asked: &Asked, report: &mut Report, place: &str, cap: u32) {
    let directory = Path::new(place).join("escape-files");
    let tried = format!("make {cap} empty files");
    let name = format!("files of {place}");
    if std::fs::create_dir_all(&directory).is_err() {
        report.row(Verdict::Untried, &name, &tried, "no directory could be made there");
        return;
    }
    let began = Instant::now();
    let mut made = 0;
    let ended = loop {
        if made >= cap || began.elapsed() > LIMIT {
            break None;
        }
        match File::create(directory.join(made.to_string())) {
            Ok(_) => made += 1,
            Err(error) => break Some(error),
        }
    };
    let _ = std::fs::remove_dir_all(&directory);
    match ended {
        Some(error) => report.row(Verdict::Held, &name, &tried, &format!("{error} after {made} files")),
        None if asked.own_kernel() && !asked.is_control() => report.row(
            Verdict::Known,
            &name,
            &tried,
            &format!("{made} were made: gVisor counts no files; they are in its memory, which is bounded"),
        ),
        None => report.row(Verdict::Broken, &name, &tried, &format!("{made} were made")),
    }
}

fn descriptors(report: &mut Report, cap: usize) {
    let mut held = Vec::new();
    let ended = loop {
        if held.len() >= cap {
            break None;
        }
        match File::open("/dev/null") {
            Ok(file) => held.push(file),
            Err(error) => break Some(error),
        }
    };
    let (count, tried) = (held.len(), format!("open {cap}"));
    drop(held);
    match ended {
        Some(error) => report.row(Verdict::Held, "descriptors", &tried, &format!("{error} after {count}")),
        None => report.row(Verdict::Broken, "descriptors", &tried, "all were opened"),
    }
}

/// Children whose parent has gone: PID 1 must bury them, or they fill the table of processes.
pub(crate) fn zombies(report: &mut Report, count: u64) {
    let tried = format!("leave {count} dead processes to PID 1");
    let ran = own().args(["parent", &count.to_string()]).status();
    if !ran.is_ok_and(|status| status.success()) {
        report.row(Verdict::Untried, "zombies", &tried, "the processes could not be made");
        return;
    }
    let end = Instant::now() + Duration::from_secs(10);
    let mut left = dead();
    while left > 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        left = dead();
    }
    let verdict = if left == 0 { Verdict::Held } else { Verdict::Broken };
    report.row(verdict, "zombies", &tried, &format!("{left} are left"));
}

/// Starts children that end at once, and ends itself without waiting for them.
pub(crate) fn parent(count: &str) -> ExitCode {
    for _ in 0..count.parse().unwrap_or(0) {
        if own().arg("who").stdout(Stdio::null()).spawn().is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// How many processes are dead and not buried.
fn dead() -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let stats = entries
        .filter_map(Result::ok)
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim().starts_with('Z')))
        .count()
}

/// A file may not be larger than the limit, even if it is a hole.
fn large_file(report: &mut Report, small: bool) {
    let path = Path::new("/workspace/escape-large");
    let size = if small { MIB } else { 1024 * 1024 * MIB };
    let tried = format!("make a file of {} MiB, all of it a hole", size / MIB);
    // The signal that comes with it ends a process: a child tries it.
    let made = Command::new("perl")
        .args(["-e", &format!("$SIG{{XFSZ}}='IGNORE'; open(F,'>',$ARGV[0]) or die \"open: $!\\n\"; truncate(F,{size}) or die \"$!\\n\""), path.to_str().unwrap_or_default()])
        .output();
    let _ = std::fs::remove_file(path);
    match made {
        Ok(output) if output.status.success() => report.row(Verdict::Broken, "large file", &tried, "made"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let verdict = if said.starts_with("open") {
                Verdict::Untried
            } else {
                Verdict::Held
            };
            report.row(verdict, "large file", &tried, &said);
        }
        Err(error) => report.row(Verdict::Untried, "large file", &tried, &error.to_string()),
    }
}

/// A fork bomb with a cap. In a session of its own: gVisor's kernel does not survive it.
pub(crate) fn forks(asked: &Asked, report: &mut Report) {
    let cap = asked.number("cap", 3000);
    let tried = format!("start {cap} processes");
    let mut children: Vec<Child> = Vec::new();
    let ended = loop {
        if children.len() as u64 >= cap {
            break None;
        }
        match own().arg("sleeper").stdout(Stdio::null()).spawn() {
            Ok(child) => children.push(child),
            Err(error) => break Some(error),
        }
    };
    let count = children.len();
    for child in &mut children {
        let _ = child.kill();
    }
    for child in &mut children {
        let _ = child.wait();
    }
    match ended {
        Some(error) => report.row(Verdict::Held, "fork bomb", &tried, &format!("{error} after {count}")),
        None => report.row(Verdict::Broken, "fork bomb", &tried, "all were started"),
    }
}

/// Takes memory until somebody ends it; to be able to tell of it is the escape.
pub(crate) fn memory(asked: &Asked, report: &mut Report) {
    let cap = asked.number("mib", 1024);
    let mut held: Vec<Vec<u8>> = Vec::new();
    while (held.len() as u64) < cap {
        // Written to, or the kernel gives no page for it.
        held.push(vec![held.len().to_le_bytes()[0] | 1; 1024 * 1024]);
    }
    let sum: u64 = held.iter().map(|piece| u64::from(piece[piece.len() / 2])).sum();
    let happened = format!("all of it was taken ({sum})");
    report.row(Verdict::Broken, "memory bomb", &format!("take {cap} MiB"), &happened);
}

/// Output without an end, on both streams.
pub(crate) fn flood(asked: &Asked) {
    let text = "flood ".repeat(170);
    for _ in 0..asked.number("mib", 32) * 1024 {
        line(&text);
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

fn own() -> Command {
    Command::new("/proc/self/exe")
}
