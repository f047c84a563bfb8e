//! Who the agent is, and whether it can become somebody else or get at PID 1.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid};

use crate::Asked;
use crate::report::{Report, Verdict, tried};

/// A copy of this program that belongs to root and carries the setuid bit; the image has it.
const SETUID_COPY: &str = "/usr/local/bin/escape-setuid";

pub(crate) fn rows(asked: &Asked, report: &mut Report) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    let must = |report: &mut Report, name: &str, held: &dyn Fn(&str) -> bool| match field(name) {
        Some(value) if held(&value) => report.row(Verdict::Held, name, "read it in /proc/self/status", &value),
        Some(value) => report.row(Verdict::Broken, name, "read it in /proc/self/status", &value),
        None if asked.own_kernel() => report.row(
            Verdict::Known,
            name,
            "read it in /proc/self/status",
            "gVisor's kernel has no such line",
        ),
        None => report.row(
            Verdict::Untried,
            name,
            "read it in /proc/self/status",
            "it is not there",
        ),
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        must(report, set, &|value| value.bytes().all(|byte| byte == b'0'));
    }
    must(report, "Uid", &|value| value.split_whitespace().all(|id| id != "0"));
    must(report, "Gid", &|value| value.split_whitespace().all(|id| id != "0"));
    must(report, "Groups", &|value| value.split_whitespace().all(|id| id != "0"));
    if asked.own_kernel() {
        report.row(
            Verdict::Known,
            "NoNewPrivs, Seccomp",
            "read them in /proc/self/status",
            "gVisor's kernel has no such lines, or its own: the setuid row below tries what they are for",
        );
    } else {
        must(report, "NoNewPrivs", &|value| value == "1");
        must(report, "Seccomp", &|value| value == "2");
    }

    let euid = Command::new(SETUID_COPY).arg("who").output();
    match euid {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let root = said == "0";
            let became = format!("it ran as uid {said}");
            let verdict = if root {
                Verdict::Broken
            } else if said.is_empty() {
                Verdict::Untried
            } else {
                Verdict::Held
            };
            report.row(
                verdict,
                "setuid program",
                "run a program of root's with the setuid bit",
                &became,
            );
        }
        Err(error) => report.row(
            Verdict::Untried,
            "setuid program",
            "run a program of root's",
            &error.to_string(),
        ),
    }
    let root = nix::unistd::setuid(Uid::from_raw(0));
    report.attack("setuid(0)", "become root", tried(root, "became root"));
    let root = nix::unistd::setgid(Gid::from_raw(0));
    report.attack("setgid(0)", "become root's group", tried(root, "became root's group"));

    for part in [
        "environ",
        "mem",
        "maps",
        "auxv",
        "syscall",
        "stack",
        "fd",
        "cwd",
        "root/etc/hostname",
    ] {
        let path = Path::new("/proc/1").join(part);
        let got = if part == "fd" {
            std::fs::read_dir(&path).map(Iterator::count)
        } else if part == "cwd" {
            std::fs::read_link(&path).map(|_| 1)
        } else {
            // Reading the memory at address 0 fails everywhere; to open it is what is guarded.
            std::fs::File::open(&path).and_then(|mut file| match part {
                "mem" => Ok(1),
                _ => std::io::Read::read(&mut file, &mut [0_u8; 64]),
            })
        };
        let name = format!("/proc/1/{part}");
        match got {
            Ok(1..) if asked.own_kernel() && part == "environ" => environment(report, &name),
            Ok(1..) if asked.own_kernel() && matches!(part, "maps" | "auxv" | "fd") => {
                let happened =
                    "gVisor shows it although PID 1 is undumpable; its memory stays closed, and it holds no secret";
                report.row(Verdict::Known, &name, "read it", happened);
            }
            Ok(0) => report.row(Verdict::Held, &name, "read it", "it is empty"),
            other => report.attack(&name, "read it", tried(other, "it can be read")),
        }
    }
    let attached = nix::sys::ptrace::attach(Pid::from_raw(1));
    if attached.is_ok() {
        // It can be let go when it has stopped; one that is left before that stays stopped for good.
        let _ = nix::sys::wait::waitpid(Pid::from_raw(1), None);
        let _ = nix::sys::ptrace::detach(Pid::from_raw(1), None);
    }
    report.attack("ptrace PID 1", "attach to PID 1", tried(attached, "attached"));
}

/// gVisor shows the environment of an undumpable process too: then nothing but the image's own may stand in it.
fn environment(report: &mut Report, name: &str) {
    let text = std::fs::read("/proc/1/environ").unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let names: Vec<&str> = text
        .split('\0')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split('=').next().unwrap_or_default())
        .collect();
    let harmless = names
        .iter()
        .all(|name| matches!(*name, "PATH" | "HOSTNAME" | "HOME" | "TERM"));
    let verdict = if harmless { Verdict::Known } else { Verdict::Broken };
    report.row(verdict, name, "read it", &format!("gVisor shows it: {names:?}"));
}

/// Kills and stops PID 1. When this is still told, the sandbox lives.
pub(crate) fn signals(report: &mut Report) {
    for signal in [
        Signal::SIGSTOP,
        Signal::SIGTSTP,
        Signal::SIGKILL,
        Signal::SIGHUP,
        Signal::SIGSEGV,
    ] {
        let sent = kill(Pid::from_raw(1), signal);
        std::thread::sleep(std::time::Duration::from_millis(300));
        let stat = std::fs::read_to_string("/proc/1/stat").unwrap_or_default();
        let state = stat.rsplit(')').next().unwrap_or_default().trim().chars().next();
        let happened = format!("sent: {sent:?}; PID 1 is in state {state:?}");
        let lives = matches!(state, Some('S' | 'R' | 'D' | 'I'));
        let verdict = if lives { Verdict::Held } else { Verdict::Broken };
        report.row(verdict, &format!("{signal} to PID 1"), "end or stop PID 1", &happened);
    }
}
