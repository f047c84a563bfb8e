//! Hello, redialling, and every way in which `inside` ends.

use std::time::{Duration, Instant};

use cofferdam_inside::{ControlReader, Order, Report, WIRE_VERSION};
use nix::sys::signal::Signal;
use nix::unistd::getuid;
use tokio::io::AsyncWriteExt;

use crate::gateway::{Gateway, Inside, connected, until, within};

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn says_who_it_is() {
    let gateway = Gateway::open();
    let inside = Inside::start(&gateway.socket(), &[]);
    let hello = gateway.control().await.hello().await;
    assert_eq!(
        hello,
        Report::Hello {
            version: WIRE_VERSION,
            pid: inside.pid(),
            uid: getuid().as_raw()
        }
    );
}

#[tokio::test]
async fn redials_when_the_gateway_comes_back_and_loses_no_exit_meanwhile() {
    let (gateway, inside, mut control) = connected().await;
    let (id, token) = control.shell("read line; exit 7").await;
    let mut stdio = gateway.stdio(&token).await;
    control.started(id).await;
    drop(control);
    let directory = gateway.close().await;
    // It ends while nobody is there to be told.
    stdio.write(b"go\n").await;
    stdio.read_all().await;
    let gateway = Gateway::open_in(directory);
    let mut control = gateway.control().await;
    control.hello().await;
    assert_eq!(control.exited(id).await, (Some(7), None));
    assert_eq!(inside.zombies(), 0);
}

#[tokio::test]
async fn dials_until_there_is_a_gateway() {
    let directory = tempfile::tempdir().unwrap();
    let inside = Inside::start(&directory.path().join("gateway.sock"), &[]);
    // Asleep: the first attempt has failed.
    let status = format!("/proc/{}/status", inside.pid());
    until(|| std::fs::read_to_string(&status).unwrap().contains("State:\tS")).await;
    let gateway = Gateway::open_in(directory);
    gateway.control().await.hello().await;
}

#[tokio::test]
async fn ends_everything_when_the_worker_stays_away() {
    let gateway = Gateway::open();
    let mut inside = Inside::start(&gateway.socket(), &["--gone-after", "2"]);
    let mut control = gateway.control().await;
    control.hello().await;
    let (id, token) = control
        .shell("trap '' TERM; echo ready; while :; do sleep 100; done")
        .await;
    let mut stdio = gateway.stdio(&token).await;
    let pid = control.started(id).await;
    assert_eq!(stdio.line().await, "ready");
    let gone = Instant::now();
    drop(control);
    let _directory = gateway.close().await;
    assert_eq!(inside.ended().await.code(), Some(3));
    assert!(gone.elapsed() > Duration::from_millis(1900), "{:?}", gone.elapsed());
    assert!(!runs(pid));
}

#[tokio::test]
async fn shuts_down_gracefully_then_forcibly() {
    let (gateway, mut inside, mut control) = connected().await;
    let (polite, token) = control
        .shell("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
        .await;
    let mut polite_stdio = gateway.stdio(&token).await;
    control.started(polite).await;
    // A grandchild in a session of its own, out of reach of any process group.
    let (stubborn, token) = control
        .shell("setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.05; done'")
        .await;
    let mut stubborn_stdio = gateway.stdio(&token).await;
    control.started(stubborn).await;
    assert_eq!(polite_stdio.line().await, "ready");
    let pid = stubborn_stdio.line().await.parse().unwrap();
    let ordered = Instant::now();
    control.order(Order::Shutdown { grace_ms: 700 }).await;
    let mut exits = Vec::new();
    while exits.len() < 2 {
        match control.report().await {
            Report::Exited { id, code, signal } => exits.push((id, code, signal)),
            other => panic!("{other:?}"),
        }
    }
    // Which of them heeds the signal first is nobody's promise.
    exits.sort_unstable();
    assert_eq!(exits[0], (polite, Some(5), None));
    assert_eq!(exits[1].0, stubborn);
    assert_eq!(inside.ended().await.code(), Some(0));
    assert!(
        ordered.elapsed() >= Duration::from_millis(700),
        "{:?}",
        ordered.elapsed()
    );
    assert!(!runs(pid));
}

#[tokio::test]
async fn shuts_down_at_once_when_nothing_is_left() {
    let (gateway, mut inside, mut control) = connected().await;
    let (id, token) = control.shell("echo ready; exec sleep 100").await;
    let mut stdio = gateway.stdio(&token).await;
    control.started(id).await;
    assert_eq!(stdio.line().await, "ready");
    let ordered = Instant::now();
    control.order(Order::Shutdown { grace_ms: 60_000 }).await;
    assert_eq!(control.exited(id).await, (None, Some(15)));
    stdio.read_all().await;
    assert_eq!(inside.ended().await.code(), Some(0));
    assert!(ordered.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn quiet_kills_what_runs_out_of_reach_of_groups_too_and_what_comes_later_runs() {
    let (gateway, _inside, mut control) = connected().await;
    let (id, token) = control
        .shell("trap '' TERM; setsid sh -c 'echo $$; while :; do sleep 0.05; done' & wait")
        .await;
    let mut stdio = gateway.stdio(&token).await;
    control.started(id).await;
    let pid = stdio.line().await.parse().unwrap();
    let quiet = 9000;
    control.order(Order::Quiet { id: quiet }).await;
    let mut told = [control.report().await, control.report().await];
    told.sort_by_key(|report| matches!(report, Report::Exited { .. }));
    assert_eq!(told[0], Report::Quieted { id: quiet });
    let killed = Report::Exited {
        id,
        code: None,
        signal: Some(9),
    };
    assert_eq!(told[1], killed);
    until(|| !runs(pid)).await;
    let (later, _) = control.shell("exit 7").await;
    control.started(later).await;
    assert_eq!(control.exited(later).await, (Some(7), None));
}

#[tokio::test]
async fn a_second_shutdown_shortens_the_first() {
    let (gateway, mut inside, mut control) = connected().await;
    let (id, token) = control
        .shell("trap '' TERM; echo ready; while :; do sleep 0.05; done")
        .await;
    let mut stdio = gateway.stdio(&token).await;
    control.started(id).await;
    assert_eq!(stdio.line().await, "ready");
    control.order(Order::Shutdown { grace_ms: u64::MAX }).await;
    let (late, _) = control.shell("true").await;
    assert!(control.refused(late).await.contains("ending"));
    control.order(Order::Shutdown { grace_ms: 0 }).await;
    assert_eq!(control.exited(id).await, (None, Some(9)));
    assert_eq!(inside.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_worker_that_does_not_listen_can_still_shut_it_down() {
    let (gateway, mut inside, mut control) = connected().await;
    // More reports than the socket holds.
    for _ in 0..200 {
        let (_, token) = control.shell("exit 0").await;
        gateway.stdio(&token).await.read_all().await;
    }
    control.order(Order::Shutdown { grace_ms: 0 }).await;
    assert_eq!(inside.ended().await.code(), Some(0));
}

#[tokio::test]
async fn the_engine_can_stop_it() {
    let (gateway, mut inside, mut control) = connected().await;
    let (id, token) = control.shell("echo ready; exec sleep 100").await;
    let mut stdio = gateway.stdio(&token).await;
    control.started(id).await;
    assert_eq!(stdio.line().await, "ready");
    inside.signal(Signal::SIGTERM);
    assert_eq!(control.exited(id).await, (None, Some(15)));
    stdio.read_all().await;
    assert_eq!(inside.ended().await.code(), Some(0));
}

#[tokio::test]
async fn garbage_on_the_control_line_changes_nothing() {
    let gateway = Gateway::open();
    let _inside = Inside::start(&gateway.socket(), &[]);
    let (read, mut write) = gateway.raw_control().await.into_split();
    let mut reader = ControlReader::new(read);
    assert!(matches!(
        within(reader.read_report()).await.unwrap(),
        Some(Report::Hello { .. })
    ));
    let mut garbage = vec![b'x'; 3 << 20];
    garbage.extend_from_slice(b"\n\n{}\n[]\n\xff\xfe\x00\n{\"spawn\":7}\nnull\n");
    garbage.extend_from_slice("[".repeat(500_000).as_bytes());
    garbage.extend_from_slice(b"\n{\"freeze\":{\"id\":71,\"x\":[1]}}\n");
    garbage.extend_from_slice(b"{\"listen\":{\"id\":71,\"port\":1}}\n");
    garbage.extend_from_slice(b"{\"signal\":{\"id\":1,\"signal\":9,\"newer\":true}}\n");
    within(write.write_all(&garbage)).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        match within(reader.read_report()).await.unwrap().unwrap() {
            Report::Refused { id, reason } => told.push((id, reason)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [71, 71, 1]);
    assert!(told[0].1.contains("not known"), "{told:?}");
    assert!(told[1].1.contains("before"), "{told:?}");
    assert!(told[2].1.contains("no process"), "{told:?}");
}

#[test]
fn arguments_that_it_does_not_know_are_refused() {
    for (arguments, code) in [
        (&["--version"][..], 0),
        (&["--help"], 0),
        (&["--sockt", "x"], 2),
        (&["--gone-after"], 2),
    ] {
        let output = std::process::Command::new(crate::gateway::INSIDE)
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let said = if code == 0 { output.stdout } else { output.stderr };
        assert!(String::from_utf8(said).unwrap().contains("inside"));
    }
}
