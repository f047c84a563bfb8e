//! The escape suite: a program that tries to get out runs as the agent of real sessions. The table is printed; a row that gets out fails the
//! test, and so does one that could not be tried. The same program unsealed shows that the rows can succeed.
//!
//! Runs on the engine's default runtime, and on `COFFERDAM_TEST_RUNTIME` where that is set.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{LAB, Process, Ran, World, runtime, signal, slowness, until};
use crate::standin;

/// The image; `COFFERDAM_TEST_ESCAPE_IMAGE` is another one, of whoever changes the program while others test.
fn image() -> String {
    std::env::var("COFFERDAM_TEST_ESCAPE_IMAGE").unwrap_or_else(|_| "cofferdam/sandbox-escape:test".to_owned())
}

fn agent() -> String {
    format!(
        "[agents.escape]\nimage = \"{}\"\ncommand = [\"escape\"]\nprotocol = \"command\"\n\
         co_author = \"Escape <escape@agents.example>\"\n",
        image()
    )
}

/// A row of the table.
#[derive(Debug)]
struct Row {
    verdict: String,
    name: String,
    tried: String,
    happened: String,
}

/// The rows of an output, all of them: the last line tells how many there were.
fn rows(text: &str) -> Vec<Row> {
    let rows: Vec<Row> = text
        .lines()
        .filter_map(|line| line.strip_prefix("row|"))
        .map(|line| {
            let parts: Vec<&str> = line.splitn(4, '|').collect();
            assert_eq!(parts.len(), 4, "{line}");
            let part = |index: usize| parts[index].to_owned();
            Row {
                verdict: part(0),
                name: part(1),
                tried: part(2),
                happened: part(3),
            }
        })
        .collect();
    let end = text.lines().find_map(|line| line.strip_prefix("end|"));
    assert_eq!(
        end,
        Some(rows.len().to_string().as_str()),
        "rows are missing in:\n{text}"
    );
    rows
}

/// Written past the test's capture and in one piece: the table is what a reader wants to see of a run that passed.
fn print(title: &str, rows: &[Row]) {
    let runtime = runtime().unwrap_or_else(|| "of the engine".to_owned());
    let mut table = format!("== {title}, runtime {runtime}\n");
    for row in rows {
        table += &format!("{:8} {:32} {:48} {}\n", row.verdict, row.name, row.tried, row.happened);
    }
    std::io::stdout().lock().write_all(table.as_bytes()).unwrap();
}

fn assert_held(title: &str, rows: &[Row]) {
    print(title, rows);
    let bad: Vec<&Row> = rows
        .iter()
        .filter(|row| row.verdict != "held" && row.verdict != "known" && !is_known_of_pods(&row.name))
        .collect();
    assert!(bad.is_empty(), "{title}: {bad:#?}");
}

/// What a pod does not bound and a container of the engine does; the README says so (Sandboxes in a cluster).
fn is_known_of_pods(row: &str) -> bool {
    standin::is_backend() && row == "files of /tmp"
}

/// A task for the program.
fn task(world: &World, line: &str) -> Value {
    let runtime = runtime().unwrap_or_else(|| "runc".to_owned());
    let mut task = world.lab_task(&format!("Try to get out.\n!escape {line} runtime={runtime}"));
    task["agent"] = serde_json::json!("escape");
    task
}

/// A session whose settings are changed by variables.
fn session(world: &World, line: &str, settings: &[(&str, &str)]) -> Ran {
    let config = world.config(&agent());
    let mut command = world.command(&config);
    command.envs(settings.iter().copied());
    command
        .args(["exec", "--json"])
        .arg(world.write_task(&task(world, line)));
    Ran::of(command)
}

/// A service on the host's loopback that answers with a canary.
fn service(canary: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        // Each by itself: a connection that asks nothing holds up nobody, and a question that is slow to come is waited for.
        for mut client in listener.incoming().filter_map(Result::ok) {
            std::thread::spawn(move || {
                let _ = client.set_read_timeout(Some(Duration::from_secs(20)));
                let _ = client.read(&mut [0_u8; 512]);
                let _ = write!(client, "HTTP/1.0 200 OK\r\n\r\n{canary}");
            });
        }
    });
    port
}

/// The host's own addresses, with a port that something listens on or nothing: either answer would be one too many.
fn addresses() -> String {
    let output = Command::new("hostname").arg("-I").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let own: Vec<String> = text
        .split_whitespace()
        .filter(|address| !address.contains(':'))
        .map(|address| format!("{address}:5673"))
        .collect();
    own.join(",")
}

#[test]
fn no_row_gets_out() {
    walls_hold("walls", &[]);
}

/// The same calls are refused by the file that a cluster's nodes get, in the form that their runtimes take.
#[test]
fn no_row_gets_out_under_the_profile_for_nodes() {
    // Pods get theirs by another setting.
    if crate::standin::is_backend() {
        return;
    }
    let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/seccomp/sandbox.json");
    walls_hold("walls, profile for nodes", &[("COFFERDAM__SANDBOX__SECCOMP", profile)]);
}

fn walls_hold(title: &str, settings: &[(&str, &str)]) {
    let world = World::new();
    let port = service("canary-of-the-hosts-loopback");
    let line = format!(
        "walls port={port} canary=canary-of-the-hosts-loopback hosts={} sockets={},/var/run/docker.sock",
        addresses(),
        world.state_dir().join("sandboxes").display()
    );
    let ran = session(&world, &line, settings);
    assert_eq!(ran.reason(), "nothing_to_publish", "{}", ran.outcome());
    let rows = rows(&ran.said());
    assert!(rows.len() > 150, "{} rows", rows.len());
    assert_held(title, &rows);
    // The worker is none the worse for it.
    let after = world.exec(&world.lab_task("!say hi"));
    assert_eq!(after.reason(), "nothing_to_publish", "{}", after.outcome());
    world.assert_clean();
}

/// Runs the program in a container without any wall but those that keep the machine usable; PID 1 is a shell of root's, or the program itself.
fn unsealed(world: &World, script: &str, line: &str) -> Vec<Row> {
    let name = format!("{}-control", world.worker);
    let share = format!("{}:/host", world.directory.path().display());
    let limit = (60 * slowness()).to_string();
    let output = Command::new("timeout")
        .arg(limit)
        .args(["docker", "run", "--rm", "--name", &name, "--cap-add", "ALL"])
        // Not every machine that this runs on has this one to give.
        .args(["--cap-drop", "SYS_RESOURCE"])
        .args([
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt",
            "apparmor=unconfined",
        ])
        .args([
            "--security-opt",
            "systempaths=unconfined",
            "--device-cgroup-rule",
            "a *:* rwm",
        ])
        .args([
            "--network",
            "host",
            "--user",
            "0",
            "--tmpfs",
            "/workspace",
            "-v",
            &share,
        ])
        .args(["--entrypoint", "/bin/sh", &image(), "-c", script, line])
        .output()
        .unwrap();
    let _ = Command::new("docker").args(["rm", "-f", &name]).output();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("end|"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    rows(&text)
}

/// The instrument shows what it is for: without the seal the rows succeed.
#[test]
fn unsealed_the_rows_do_get_out() {
    let world = World::new();
    let port = service("canary-of-the-hosts-loopback");
    let _engine = std::os::unix::net::UnixListener::bind(world.directory.path().join("docker.sock")).unwrap();
    let line = format!(
        "!escape walls control=yes runtime=runc port={port} canary=canary-of-the-hosts-loopback sockets=/host/docker.sock"
    );
    let script = "for place in /sys /sys/fs/cgroup /sys/fs/cgroup/*; do mount -o remount,rw $place 2>/dev/null; done; \
                  mknod /dev/escape-disk b 8 0; escape \"$0\"; true";
    let mut rows = unsealed(&world, script, &line);
    rows.extend(unsealed(&world, "exec escape \"$0\"", "!escape zombies"));
    print("unsealed", &rows);
    let broken: Vec<&str> = rows
        .iter()
        .filter(|row| row.verdict == "BROKEN")
        .map(|row| row.name.as_str())
        .collect();
    for name in [
        "CapEff",
        "CapBnd",
        "Uid",
        "Gid",
        "Groups",
        "NoNewPrivs",
        "Seccomp",
        "setuid program",
        "setuid(0)",
        "/proc/1/environ",
        "/proc/1/mem",
        "/proc/1/maps",
        "/proc/1/fd",
        "ptrace PID 1",
        "bpf",
        "keyctl",
        "add_key",
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "unshare NEWUSER",
        "unshare NEWNET",
        "setns",
        "open_by_handle_at",
        "name_to_handle_at",
        "ptrace TRACEME",
        "process_vm_readv",
        "perf_event_open",
        "fsopen",
        "open_tree",
        "swapon",
        "reboot",
        "settimeofday",
        "syslog",
        "personality NO_RANDOMIZE",
        "socket AF_PACKET",
        "socket NETLINK_KOBJECT",
        "socket raw ICMP",
        "socket AF_VSOCK",
        "socket AF_TIPC",
        "socket AF_BLUETOOTH",
        "socket SCTP",
        "socket SCTP, many at once",
        "socketpair AF_VSOCK",
        "socketpair AF_TIPC",
        "socketpair AF_INET",
        "write to /",
        "write to /etc",
        "/proc/sys, all",
        "/sys, all",
        "/proc/sys/kernel/core_pattern",
        "mounts",
        "sockets, all",
        "another session's socket",
        "devices",
        "mknod of a disk",
        "mknod of null",
        "the bridge of the engine",
        "the host's loopback",
        "interfaces",
        "routes",
        "disk of /tmp",
        "disk of /dev/shm",
        "files of /tmp",
        "descriptors",
        "large file",
        "zombies",
    ] {
        let row = || rows.iter().find(|row| row.name == name);
        assert!(
            broken.contains(&name),
            "unsealed, {name:?} does not get out: {:#?}",
            row()
        );
    }
}

#[test]
fn pid_1_is_neither_killed_nor_stopped_by_what_it_started() {
    let world = World::new();
    let ran = session(&world, "signals", &[]);
    if ran.reason() == "nothing_to_publish" {
        assert_held("signals", &rows(&ran.said()));
    } else {
        // gVisor lets a process end its own PID 1: an agent ends its own session by that, and no other.
        assert!(runtime().is_some(), "{}", ran.outcome());
        assert_eq!(ran.reason(), "sandbox_failed", "{}", ran.outcome());
    }
    world.assert_clean();
}

#[test]
fn a_fork_bomb_ends_at_the_limit_of_its_sandbox() {
    let world = World::new();
    let ran = session(&world, "forks cap=3000", &[]);
    println!("fork bomb: {}", ran.outcome());
    if ran.reason() == "nothing_to_publish" {
        assert_held("forks", &rows(&ran.said()));
    } else {
        // gVisor's kernel ends when its threads reach the limit: the session is lost, and no other.
        assert!(runtime().is_some(), "{}", ran.outcome());
        assert_eq!(ran.reason(), "sandbox_failed", "{}", ran.outcome());
    }
    let after = world.exec(&world.lab_task("!say hi"));
    assert_eq!(after.reason(), "nothing_to_publish", "{}", after.outcome());
    world.assert_clean();
}

#[test]
fn a_memory_bomb_ends_its_own_session_and_no_other() {
    let world = World::new();
    let neighbour = World::new();
    let config = neighbour.config("");
    let mut command = neighbour.command(&config);
    command
        .args(["exec", "--json"])
        .arg(neighbour.write_task(&neighbour.lab_task("!sleep 8000\n!say still here")));
    let other = std::thread::spawn(move || Ran::of(command));
    let ran = session(
        &world,
        "memory mib=2048",
        &[("COFFERDAM__SANDBOX__MEMORY_BYTES", "402653184")],
    );
    println!("memory bomb: {}", ran.outcome());
    assert!(!ran.said().contains("row|BROKEN"), "{}", ran.said());
    assert!(
        ["out_of_memory", "agent_failed", "sandbox_failed"].contains(&ran.reason()),
        "{}",
        ran.outcome()
    );
    world.assert_clean();
    let other = other.join().unwrap();
    assert_eq!(other.reason(), "nothing_to_publish", "{}", other.outcome());
    assert!(other.said().contains("still here"));
}

#[test]
fn a_disk_bomb_ends_at_the_size_of_the_workspace() {
    let world = World::new();
    let ran = session(&world, "disk mib=256", &[]);
    println!("disk bomb: {}", ran.outcome());
    assert!(!ran.said().contains("row|BROKEN"), "{}", ran.said());
    if ran.reason() == "nothing_to_publish" {
        assert_held("disk", &rows(&ran.said()));
    } else {
        assert_eq!(ran.reason(), "disk_full", "{}", ran.outcome());
    }
    world.assert_clean();
}

#[test]
fn a_flood_of_output_is_bounded_on_its_way_out() {
    let world = World::new();
    // Of the 64 MiB on both streams; without a bound of its own, what is told grows with the time that they take.
    let bound = [("COFFERDAM__PROGRESS__MOST_BYTES", "4000000")];
    let ran = session(&world, "flood mib=32", &bound);
    println!("flood: {} bytes of events, {}", ran.stdout.len(), ran.reason());
    assert!(ran.stdout.len() < 6_000_000, "{} bytes of events", ran.stdout.len());
    assert!(ran.stderr.len() < 4 * 1024 * 1024, "{} bytes of log", ran.stderr.len());
    assert_eq!(ran.of_project(LAB)["project"]["path"], LAB);
    world.assert_clean();
}

/// One session leaves things where a neighbour might look; the other looks, and shows by its own things that it would have found them.
#[test]
fn two_sessions_cannot_reach_each_other() {
    let (held, world) = (World::new(), World::new());
    let canary = format!("canary-{}", uuid::Uuid::new_v4().simple());
    let config = held.config(&agent());
    let events = held.directory.path().join("events");
    let mut command = held.command(&config);
    command
        .args(["exec", "--json"])
        .arg(held.write_task(&task(&held, &format!("hold seconds=600 canary={canary}"))))
        .stdout(std::fs::File::create(&events).unwrap())
        .stderr(Stdio::null());
    let holder = Process(command.spawn().unwrap());
    until(Duration::from_secs(60), "the holder", || {
        std::fs::read_to_string(&events)
            .unwrap()
            // Its last letters wait for what follows: they could begin a secret.
            .contains("holding tr")
            .then_some(())
    });
    let homes = std::fs::read_dir(held.state_dir().join("sandboxes")).unwrap();
    let sockets: Vec<String> = homes
        .map(|entry| entry.unwrap().path().join("mount/gateway.sock").display().to_string())
        .collect();
    assert_eq!(sockets.len(), 1);
    let ran = session(&world, &format!("neighbour sockets={}", sockets[0]), &[]);
    assert_eq!(ran.reason(), "nothing_to_publish", "{}", ran.outcome());
    let rows = rows(&ran.said());
    assert!(rows.len() >= 8, "{} rows", rows.len());
    assert_held("neighbour", &rows);
    assert_eq!(held.sandboxes().len(), 1, "the holder was there all the time");
    signal(&holder.0, "INT");
    let mut holder = holder;
    until(Duration::from_secs(60), "the holder's end", || {
        holder.0.try_wait().unwrap()
    });
    held.assert_clean();
}
