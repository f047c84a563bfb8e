//! Starting, signalling and reaping, as the worker sees it.

use std::collections::HashMap;

use cofferdam_inside::{Order, Report, read_frame};

use crate::gateway::{connected, until, within};

#[tokio::test]
async fn tells_exit_codes_and_signals() {
    let (gateway, _inside, mut control) = connected().await;
    // 34 is a realtime signal, which has no name in the library that reaps.
    for (script, expected) in [
        ("exit 0", (Some(0), None)),
        ("exit 250", (Some(250), None)),
        ("kill -9 $$", (None, Some(9))),
        ("kill -34 $$", (None, Some(34))),
    ] {
        let (id, token) = control.shell(script).await;
        let mut stdio = gateway.stdio(&token).await;
        control.started(id).await;
        assert_eq!(control.exited(id).await, expected, "{script}");
        assert_eq!(stdio.read_all().await, (vec![], vec![]));
        assert_eq!(
            within(read_frame(&mut stdio.reader)).await.unwrap(),
            None,
            "the connection is closed at the end"
        );
    }
}

#[tokio::test]
async fn refuses_with_a_sentence_what_cannot_be_started() {
    let (gateway, inside, mut control) = connected().await;
    let cases: [(&[&str], &str, &str); 5] = [
        (&["no-such-program"], "/", "no-such-program cannot be run: No such file"),
        (&["/etc/passwd"], "/", "Permission denied"),
        (&["true"], "/no/such/directory", "/no/such/directory cannot be entered"),
        (&["true"], "tmp", "absolute"),
        (&[], "/", "begins with a program"),
    ];
    for (argv, cwd, reason) in cases {
        let (id, token) = control.spawn(argv, cwd).await;
        let refused = control.refused(id).await;
        assert!(refused.contains(reason), "{refused}");
        if cwd.starts_with('/') && !argv.is_empty() {
            let mut stdio = gateway.stdio(&token).await;
            assert!(
                within(read_frame(&mut stdio.reader)).await.unwrap().is_none(),
                "nothing was said for it"
            );
        }
    }
    let too_long = "x".repeat(200_000);
    let (id, _) = control.spawn(&["true", &too_long], "/").await;
    assert!(control.refused(id).await.contains("too long"));
    until(|| inside.zombies() == 0).await;
}

#[tokio::test]
async fn an_id_is_used_once() {
    let (gateway, _inside, mut control) = connected().await;
    let (id, token) = control.shell("exit 3").await;
    let _stdio = gateway.stdio(&token).await;
    control.started(id).await;
    assert_eq!(control.exited(id).await, (Some(3), None));
    control.spawned = id;
    control.shell("exit 4").await;
    assert!(control.refused(id).await.contains("used before"));
    control.order(Order::Listen { id, port: 1 }).await;
    assert!(control.refused(id).await.contains("used before"));
}

#[tokio::test]
async fn a_process_gets_what_was_ordered_and_nothing_else() {
    let (gateway, _inside, mut control) = connected().await;
    let script = "cat /proc/self/status; echo limit: $(ulimit -Sn); echo; env; echo; pwd; for fd in /proc/self/fd/*; do echo $fd; done; ps -o sid=,pgid= $$; echo $$";
    let (id, token) = control.spawn(&["sh", "-c", script], "/usr/bin").await;
    let mut stdio = gateway.stdio(&token).await;
    let pid = control.started(id).await;
    let (stdout, stderr) = stdio.read_all().await;
    let (said, complaints) = (
        String::from_utf8(stdout).unwrap(),
        String::from_utf8_lossy(&stderr).into_owned(),
    );
    control.exited(id).await;
    let field = |name: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    // 32 and 33 belong to glibc itself, whose posix_spawn ignores them in every child.
    // What this test's own starter ignores (nohup: SIGHUP; a shell's background job: SIGINT and SIGQUIT) came along all the way, as from no
    // container engine.
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let inherited = u64::from_str_radix(own.trim(), 16).unwrap() & 0b111;
    let ignored = u64::from_str_radix(&field("SigIgn:"), 16).unwrap() & !(0b11 << 31) & !inherited;
    assert_eq!(ignored, 0, "{complaints}");
    assert_eq!(field("SigBlk:"), "0000000000000000");
    let (limit, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    assert_eq!(
        field("limit:"),
        limit.to_string(),
        "what inside raises for itself is its own"
    );
    assert!(said.contains("PATH=/usr/bin:/bin"));
    assert!(
        !said.contains("ONLY_OF_INSIDE") && !said.contains("HOME=") && !said.contains("cofferdam"),
        "{said}"
    );
    assert!(said.contains("\n/usr/bin\n"));
    // The shell's glob has the directory open as 3, at most.
    let open: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("/proc/self/fd/"))
        .collect();
    assert!(open.len() <= 4 && open.starts_with(&["0", "1", "2"]), "{open:?}");
    let leads: Vec<&str> = said.lines().rev().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(leads, [pid.to_string(), pid.to_string()]);
}

#[tokio::test]
async fn signals_the_whole_group_even_when_its_leader_is_gone() {
    let (gateway, _inside, mut control) = connected().await;
    let (id, token) = control.shell("sleep 100 & sleep 101 & echo ready; wait").await;
    let mut stdio = gateway.stdio(&token).await;
    control.started(id).await;
    assert_eq!(stdio.line().await, "ready");
    control.order(Order::Signal { id, signal: 15 }).await;
    assert_eq!(control.exited(id).await, (None, Some(15)));
    // Both outputs end only when nobody holds them any more.
    stdio.read_all().await;

    let (id, token) = control.shell("sleep 100 & echo ready").await;
    let mut stdio = gateway.stdio(&token).await;
    control.started(id).await;
    assert_eq!(stdio.line().await, "ready");
    assert_eq!(
        control.exited(id).await,
        (Some(0), None),
        "once, while its stdio is still held"
    );
    control.order(Order::Signal { id, signal: 9 }).await;
    stdio.read_all().await;
    for signal in [0, -1, 65, 9] {
        control.order(Order::Signal { id: id + 7, signal }).await;
        control.refused(id + 7).await;
    }
}

#[tokio::test]
async fn reaps_orphans_and_routes_every_exit_under_a_storm() {
    let (gateway, inside, mut control) = connected().await;
    // Two thousand orphans, half of them killed by a signal, while two hundred ordered processes come and go.
    let storm = "i=0; while [ $i -lt 1000 ]; do (sh -c 'exit 1' & sh -c 'kill -34 $$' &); i=$((i+1)); done; echo done";
    let (stormy, storm_token) = control.shell(storm).await;
    let mut storm_stdio = gateway.stdio(&storm_token).await;
    let mut expected = HashMap::from([(stormy, 0)]);
    let mut connections = Vec::new();
    for number in 0..200 {
        let (id, token) = control.shell(&format!("exit {}", number % 100)).await;
        expected.insert(id, number % 100);
        connections.push(gateway.stdio(&token).await);
    }
    while !expected.is_empty() {
        match control.report().await {
            Report::Started { .. } => {}
            Report::Exited { id, code, signal } => {
                assert_eq!((Some(code), signal), (expected.remove(&id).map(Some), None), "{id}");
            }
            other => panic!("{other:?}"),
        }
    }
    let (stdout, _) = storm_stdio.read_all().await;
    assert_eq!(stdout, b"done\n");
    until(|| inside.zombies() == 0).await;
}

#[tokio::test]
async fn thousands_of_short_processes_leave_nothing_behind() {
    let (gateway, inside, mut control) = connected().await;
    let mut before = 0;
    for round in 0..2000 {
        let (id, token) = control.spawn(&["true"], "/").await;
        let mut stdio = gateway.stdio(&token).await;
        control.started(id).await;
        assert_eq!(control.exited(id).await, (Some(0), None));
        assert_eq!(stdio.read_all().await, (vec![], vec![]));
        drop(stdio);
        if round == 200 {
            before = inside.memory();
        }
    }
    let after = inside.memory();
    assert!(after < before + 1024, "{before} kB grew to {after} kB");
    let open = std::fs::read_dir(format!("/proc/{}/fd", inside.pid())).unwrap().count();
    assert!(open < 30, "{open} descriptors are open");
    assert_eq!(inside.zombies(), 0);
}

#[tokio::test]
async fn no_more_than_the_limit_at_once() {
    let (gateway, _inside, mut control) = connected().await;
    let mut connections = Vec::new();
    for _ in 0..256 {
        let (id, token) = control.spawn(&["sleep", "100"], "/").await;
        connections.push(gateway.stdio(&token).await);
        control.started(id).await;
    }
    let (id, _) = control.shell("true").await;
    assert!(control.refused(id).await.contains("256"));
    control.order(Order::Signal { id: 0, signal: 9 }).await;
    assert_eq!(control.exited(0).await, (None, Some(9)));
    let mut stdio = connections.remove(0);
    stdio.read_all().await;
    assert_eq!(within(read_frame(&mut stdio.reader)).await.unwrap(), None);
    // The place is free when the worker has closed its side too.
    drop(stdio);
    let mut id = control.shell("echo again").await;
    loop {
        match control.report().await {
            Report::Started { .. } => break,
            Report::Refused { .. } => id = control.shell("echo again").await,
            other => panic!("{other:?}"),
        }
    }
    let mut stdio = gateway.stdio(&id.1).await;
    // Its stderr may end before its stdout says anything.
    let (stdout, _) = stdio.read_all().await;
    assert_eq!(stdout, b"again\n");
}
