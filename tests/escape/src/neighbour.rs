//! Two sandboxes at once: one leaves things where a neighbour might find them, the other searches. The searcher first shows by its own things that
//! it would have found them.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

use crate::Asked;
use crate::report::{Report, Verdict, line};

/// Where the holder listens on its own loopback.
const PORT: u16 = 7777;
const ABSTRACT: &[u8] = b"cofferdam-escape";
const QUEUE: &str = "/dev/mqueue/escape";
const SHARED: &str = "/dev/shm/escape";
const TEMPORARY: &str = "/tmp/escape";
/// The key of a System V segment.
const KEY: u32 = 4711;

/// Leaves something everywhere, says so, and stays for a while.
pub(crate) fn hold(asked: &Asked) {
    let canary = asked.text("canary").to_owned();
    let held = leave(&canary);
    line(&format!("holding {}", held.is_ok()));
    std::thread::sleep(Duration::from_secs(asked.number("seconds", 60)));
}

struct Held {
    _abstract: UnixListener,
    _loopback: TcpListener,
}

fn leave(canary: &str) -> std::io::Result<Held> {
    for path in [SHARED, TEMPORARY] {
        std::fs::File::create(path)?.write_all(canary.as_bytes())?;
    }
    // Not everywhere is there a file system of message queues.
    let _ = std::fs::File::create(QUEUE);
    perl(&format!("defined(shmget({KEY},100,0666|01000)) or die"));
    Ok(Held {
        _abstract: UnixListener::bind_addr(&SocketAddr::from_abstract_name(ABSTRACT)?)?,
        _loopback: TcpListener::bind(("127.0.0.1", PORT))?,
    })
}

/// What of a holder's things is seen from here.
fn seen() -> Vec<(&'static str, bool)> {
    let unix = SocketAddr::from_abstract_name(ABSTRACT).and_then(|name| UnixStream::connect_addr(&name));
    vec![
        ("abstract socket", unix.is_ok()),
        ("loopback port", TcpStream::connect(("127.0.0.1", PORT)).is_ok()),
        ("shared memory file", std::fs::metadata(SHARED).is_ok()),
        ("temporary file", std::fs::metadata(TEMPORARY).is_ok()),
        (
            "System V segment",
            perl(&format!("defined(shmget({KEY},100,0)) or die")),
        ),
    ]
}

/// Searches, then leaves the same things itself and searches again.
pub(crate) fn rows(asked: &Asked, report: &mut Report) {
    let before = seen();
    let queue = std::fs::metadata(QUEUE).is_ok();
    let verdict = if queue { Verdict::Broken } else { Verdict::Held };
    report.row(
        verdict,
        "neighbour's message queue",
        "search for it",
        &format!("found: {queue}"),
    );
    // Our own are seen by the same search.
    let (processes, own) = (processes_with("!escape hold "), processes_with("!escape neighbour "));
    let verdict = match (processes, own) {
        (0, 0) => Verdict::Untried,
        (0, _) => Verdict::Held,
        _ => Verdict::Broken,
    };
    let happened = format!("{processes} found, and {own} of our own");
    report.row(verdict, "neighbour's processes", "search for them", &happened);
    for path in asked.text("sockets").split(',').filter(|path| !path.is_empty()) {
        let connected = UnixStream::connect(path);
        let verdict = if connected.is_ok() {
            Verdict::Broken
        } else {
            Verdict::Held
        };
        report.row(
            verdict,
            "neighbour's gateway",
            &format!("connect to {path}"),
            &format!("{:?}", connected.map(|_| "connected")),
        );
    }
    let held = leave("own");
    let own = seen();
    for ((what, found), (_, control)) in before.into_iter().zip(own) {
        let verdict = match (found, control) {
            (true, _) => Verdict::Broken,
            (false, true) => Verdict::Held,
            (false, false) => Verdict::Untried,
        };
        let happened = format!("found: {found}; our own is found: {control}");
        report.row(verdict, &format!("neighbour's {what}"), "search for it", &happened);
    }
    drop(held);
}

/// Processes whose arguments hold a word.
fn processes_with(word: &str) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|command| String::from_utf8_lossy(command).contains(word))
        .count()
}

fn perl(script: &str) -> bool {
    Command::new("perl")
        .args(["-e", script])
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
