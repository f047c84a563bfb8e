//! Tries to find or make a device that reaches hardware, a disk or the kernel's memory.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::Asked;
use crate::files::walk;
use crate::report::{Report, Verdict, tried};

/// Devices that every container has, and that reach nothing.
const HARMLESS: &[&str] = &[
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "fuse", "net/tun",
];

pub(crate) fn rows(asked: &Asked, report: &mut Report) {
    let mut found = Vec::new();
    walk(Path::new("/dev"), &mut |path, kind| {
        let name = path.strip_prefix("/dev").unwrap_or(path).to_string_lossy().into_owned();
        let harmless = HARMLESS.contains(&name.as_str()) || name.starts_with("pts/");
        if kind.is_block_device() || (kind.is_char_device() && !harmless) {
            found.push(name);
        }
    });
    let verdict = if found.is_empty() {
        Verdict::Held
    } else {
        Verdict::Broken
    };
    let shown = format!("{} devices: {:?}", found.len(), &found[..found.len().min(4)]);
    report.row(verdict, "devices", "find one that reaches something", &shown);
    // gVisor lists these two; what opens them is its own kernel.
    for path in [
        "/dev/fuse",
        "/dev/net/tun",
        "/dev/kvm",
        "/dev/vsock",
        "/dev/vhost-vsock",
        "/dev/loop-control",
        "/dev/sda",
        "/dev/vda",
    ] {
        let opened = std::fs::OpenOptions::new().read(true).write(true).open(path);
        if opened.is_ok() && asked.own_kernel() && matches!(path, "/dev/fuse" | "/dev/net/tun") {
            report.row(Verdict::Known, path, "open it", "opened: gVisor's own, not the host's");
        } else {
            report.attack(path, "open it", tried(opened, "opened"));
        }
    }
    for (name, kind, major, minor) in [
        ("a disk", SFlag::S_IFBLK, 8, 0),
        ("the memory", SFlag::S_IFCHR, 1, 1),
        ("null", SFlag::S_IFCHR, 1, 3),
    ] {
        let path = Path::new("/tmp/escape-device");
        let made = mknod(path, kind, Mode::from_bits_truncate(0o600), makedev(major, minor));
        let used = made
            .map(|()| std::fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut [0_u8; 1])));
        let _ = std::fs::remove_file(path);
        let row = format!("mknod of {name}");
        match used {
            // gVisor lets anybody make a node; what opens it is its own kernel, which has no disk.
            Ok(Err(error)) if asked.own_kernel() => {
                report.row(
                    Verdict::Known,
                    &row,
                    "make the device, open it",
                    &format!("made; to open it: {error}"),
                );
            }
            Ok(Ok(_)) if asked.own_kernel() && name == "null" => {
                report.row(
                    Verdict::Known,
                    &row,
                    "make the device, open it",
                    "opened: gVisor's own, which is empty",
                );
            }
            Ok(Ok(_)) => report.attack(&row, "make the device, open it", Ok("made and read".to_owned())),
            Ok(Err(error)) => report.attack(
                &row,
                "make the device, open it",
                Ok(format!("made; to open it: {error}")),
            ),
            Err(error) => report.attack(&row, "make the device, open it", tried::<(), _>(Err(error), "")),
        }
    }
}
