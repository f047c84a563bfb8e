//! Two sessions side by side: what is mounted, who may enter the sockets, and what one sees of the other.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::World;
use crate::kit::{Daemon, wait_for};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The sockets in a directory, with that directory.
fn sockets(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sockets = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    sockets.map(|entry| entry.path()).collect()
}

#[test]
fn two_sessions_share_nothing_and_staging_is_not_mounted() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    // At most its own socket is to be found (its directory cannot be listed, either), nobody listens by a name without a path, and the
    // worker's files are not there.
    let look = format!(
        "!shell : LOOKED; test \"$(find / -type s -not -path '/proc/*' 2>/dev/null | wc -l)\" -le 1 && ! grep -q '@' /proc/net/unix && \
         test ! -e {}",
        world.state_dir().display()
    );
    let mut running = Vec::new();
    for _ in 0..2 {
        let (following, events) = daemon.submit_aside(&world, &world.lab_task(&format!("{look}\n!hang")));
        wait_for(&events, "LOOKED");
        wait_for(&events, "\"status\":\"completed\"");
        running.push(following);
    }
    let ids = world.sandboxes();
    assert_eq!(ids.len(), 2);
    let mut own = Vec::new();
    for id in &ids {
        let about = Command::new("docker").args(["inspect", id]).output().unwrap();
        let about: Value = serde_json::from_slice(&about.stdout).unwrap();
        let mounts = about[0]["Mounts"].as_array().unwrap().clone();
        let sources: Vec<PathBuf> = mounts
            .iter()
            .filter_map(|mount| mount["Source"].as_str())
            .map(PathBuf::from)
            .collect();
        for source in &sources {
            for kept_apart in ["sessions", "mirrors", "kept", "hooks"] {
                let room = world.state_dir().join(kept_apart);
                assert!(
                    !source.starts_with(&room) && !room.starts_with(source),
                    "{} is mounted",
                    source.display()
                );
            }
        }
        let found: Vec<PathBuf> = sources.iter().flat_map(|source| sockets(source)).collect();
        let [socket] = found.as_slice() else {
            panic!("{} sockets in {sources:?}", found.len());
        };
        let leaf = socket.parent().unwrap();
        let modes = (mode(leaf.parent().unwrap()), mode(leaf), mode(socket));
        assert_eq!(modes, (0o700, 0o711, 0o666), "{}", socket.display());
        let mount = mounts
            .iter()
            .find(|mount| mount["Source"] == leaf.to_str().unwrap())
            .unwrap();
        assert_eq!(mount["RW"], false, "{mount}");
        own.push(leaf.to_owned());
    }
    assert_ne!(own[0], own[1]);
}
