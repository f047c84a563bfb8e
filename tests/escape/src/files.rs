//! Tries to write where nothing may be written, to replace what the sandbox is made of, and to find what does not belong in it.
//!
//! Files of the kernel are opened for writing and never written.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::Asked;
use crate::report::{Report, Verdict, tried};

/// Most entries of one tree that are looked at.
const MOST_ENTRIES: usize = 60_000;
/// The one socket of a sandbox.
const SOCKET: &str = "/run/cofferdam/gateway.sock";

pub(crate) fn rows(asked: &Asked, report: &mut Report) {
    for place in [
        "/",
        "/etc",
        "/usr/bin",
        "/lib",
        "/root",
        "/var",
        "/dev",
        "/sys",
        "/proc",
        "/run",
        "/opt/cofferdam",
        "/run/cofferdam",
    ] {
        let path = Path::new(place).join("escape-probe");
        let made = File::create(&path);
        if made.is_ok() {
            let _ = std::fs::remove_file(&path);
        }
        report.attack(
            &format!("write to {place}"),
            "make a file there",
            tried(made, "made one"),
        );
    }
    if !asked.is_control() {
        replace(report);
    }
    kernel_files(report, "/proc/sys", "/proc/sys", |_| true);
    kernel_files(report, "cgroups", "/sys/fs/cgroup", |_| true);
    kernel_files(report, "/sys", "/sys", |path| !path.starts_with("/sys/fs/cgroup"));
    for path in [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/panic_on_oom",
        "/sys/kernel/uevent_helper",
        "/proc/irq/default_smp_affinity",
        "/proc/mtrr",
        "/proc/1/oom_score_adj",
    ] {
        let opened = OpenOptions::new().write(true).open(path);
        report.attack(path, "open it for writing", tried(opened, "it can be written"));
    }
    for path in [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/kpagecount",
        "/proc/kmsg",
        "/dev/kmsg",
        "/dev/mem",
    ] {
        // Reading this one takes the kernel's words from who waits for them: to open it is enough.
        let opened_is_enough = path == "/proc/kmsg";
        let read = File::open(path).and_then(|mut file| match opened_is_enough {
            true => Ok(1),
            false => std::io::Read::read(&mut file, &mut [0_u8; 16]),
        });
        match read {
            Ok(0) => report.row(Verdict::Held, path, "read it", "it is empty"),
            other => report.attack(path, "read it", tried(other, "it can be read")),
        }
    }
    oom_score(asked, report);
    mounts(asked, report);
    sockets(report);
    others_sockets(asked, report);
    leaks(report);
}

/// Replaces the socket, the program that is PID 1, and the hooks.
fn replace(report: &mut Report) {
    let removed = std::fs::remove_file(SOCKET);
    report.attack("the socket", "remove it", tried(removed, "removed"));
    let renamed = std::fs::rename(SOCKET, "/run/cofferdam/other.sock");
    report.attack("the socket", "rename it", tried(renamed, "renamed"));
    let bound = std::os::unix::net::UnixListener::bind("/run/cofferdam/own.sock");
    report.attack(
        "the socket's directory",
        "listen on a socket of our own",
        tried(bound, "bound"),
    );
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    let changed = std::fs::set_permissions(SOCKET, mode);
    report.attack("the socket", "change its mode", tried(changed, "changed"));
    let listed = std::fs::read_dir("/run/cofferdam");
    report.attack("the socket's directory", "list it", tried(listed, "listed"));
    for path in [
        "/opt/cofferdam/inside",
        "/opt/cofferdam/hooks/commit-msg",
        "/etc/passwd",
        "/etc/hosts",
        "/etc/resolv.conf",
    ] {
        let opened = OpenOptions::new().write(true).open(path);
        report.attack(path, "open it for writing", tried(opened, "it can be written"));
    }
}

/// Opens every file below a tree for writing.
fn kernel_files(report: &mut Report, name: &str, tree: &str, wanted: impl Fn(&Path) -> bool) {
    let (mut open, mut looked) = (Vec::new(), 0);
    walk(Path::new(tree), &mut |path, kind| {
        if kind.is_file() && wanted(path) {
            looked += 1;
            // Opening these for writing already does something.
            let harmful = path.ends_with("trigger") || path.to_string_lossy().contains("/debug/");
            if !harmful && OpenOptions::new().write(true).open(path).is_ok() {
                open.push(path.to_path_buf());
            }
        }
    });
    let tried = format!("open each of {looked} files below {tree} for writing");
    if open.is_empty() {
        report.row(Verdict::Held, &format!("{name}, all"), &tried, "none can be written");
    } else {
        let happened = format!("{} can be written: {:?}", open.len(), &open[..open.len().min(4)]);
        report.row(Verdict::Broken, &format!("{name}, all"), &tried, &happened);
    }
}

/// Depth first, without following links, bounded.
pub(crate) fn walk(root: &Path, visit: &mut impl FnMut(&Path, std::fs::FileType)) {
    let mut waiting: Vec<PathBuf> = vec![root.to_path_buf()];
    let mut seen = 0;
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            seen += 1;
            if seen > MOST_ENTRIES {
                return;
            }
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            visit(&path, kind);
            if kind.is_dir() {
                waiting.push(path);
            }
        }
    }
}

/// Lowering one's own score would send the kernel after a neighbour.
fn oom_score(asked: &Asked, report: &mut Report) {
    let path = "/proc/self/oom_score_adj";
    let now = std::fs::read_to_string(path).unwrap_or_default();
    let lowered = std::fs::write(path, "-500");
    let _ = std::fs::write(path, now.trim());
    if lowered.is_ok() && asked.own_kernel() {
        let happened = "lowered in gVisor's kernel, which looks at it no further; the host's is another";
        report.row(Verdict::Known, "oom_score_adj", "lower our own", happened);
    } else {
        report.attack("oom_score_adj", "lower our own", tried(lowered, "lowered"));
    }
}

/// Every mount that reaches the host's disk is one of those that a sandbox has, and read-only.
fn mounts(asked: &Asked, report: &mut Report) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let expected = [
        "/",
        "/run/cofferdam",
        "/run/cofferdam-objects",
        "/opt/cofferdam",
        "/workspace",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
    ];
    let mut count = 0;
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(place), Some(options)) = (left.split(' ').nth(4), left.split(' ').nth(5)) else {
            continue;
        };
        let kind = right.split(' ').next().unwrap_or_default();
        if matches!(
            kind,
            "tmpfs" | "proc" | "sysfs" | "devpts" | "mqueue" | "cgroup" | "cgroup2" | "devtmpfs"
        ) {
            continue;
        }
        count += 1;
        let known = expected.contains(&place);
        let writable = options.split(',').any(|option| option == "rw");
        // Under gVisor the small files of /etc are said to be rw; they belong to root, and `replace` tries them.
        let small = asked.own_kernel() && place.starts_with("/etc/");
        if !known || (writable && place != "/workspace" && !small) {
            let happened = format!("{place} is a {kind} mounted {options}");
            report.row(
                Verdict::Broken,
                "mounts",
                "find one that does not belong here",
                &happened,
            );
        }
    }
    report.row(
        Verdict::Held,
        "mounts, all",
        "look at each",
        &format!("{count} reach a disk"),
    );
}

/// The engine's socket, or anybody's.
fn sockets(report: &mut Report) {
    let mut found = Vec::new();
    walk(Path::new("/"), &mut |path, kind| {
        if kind.is_socket() && path != Path::new(SOCKET) && !path.starts_with("/proc") {
            found.push(path.to_path_buf());
        }
    });
    let verdict = if found.is_empty() {
        Verdict::Held
    } else {
        Verdict::Broken
    };
    report.row(
        verdict,
        "sockets, all",
        "search the file system for a socket besides ours",
        &format!("{found:?}"),
    );
    for path in [
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/podman/podman.sock",
    ] {
        let connected = std::os::unix::net::UnixStream::connect(path);
        report.attack(path, "connect to it", tried(connected, "connected"));
    }
}

/// The host's paths of other sandboxes, which the test tells.
fn others_sockets(asked: &Asked, report: &mut Report) {
    for path in asked.text("sockets").split(',').filter(|path| !path.is_empty()) {
        let connected = std::os::unix::net::UnixStream::connect(path);
        report.attack(
            "another session's socket",
            &format!("connect to {path}"),
            tried(connected, "connected"),
        );
    }
}

/// What a container tells of its host by design: small, and written down.
fn leaks(report: &mut Report) {
    for path in [
        "/proc/cmdline",
        "/proc/meminfo",
        "/proc/interrupts",
        "/proc/self/mountinfo",
    ] {
        let happened = match std::fs::read_to_string(path) {
            Ok(text) if text.contains("upperdir=") => {
                "readable, with the path of the image's layers on the host".to_owned()
            }
            Ok(text) => format!("readable, {} bytes", text.len()),
            Err(error) => error.to_string(),
        };
        report.row(Verdict::Known, path, "read it", &happened);
    }
}
