//! What goes through stdio, how much is held on the way, and what closing does.

use std::time::Duration;

use cofferdam_inside::{Stream, read_frame, write_frame};
use tokio::io::AsyncWriteExt;

use crate::gateway::{connected, within};

#[tokio::test]
async fn carries_each_stream_by_itself() {
    let (gateway, _inside, mut control) = connected().await;
    let (id, token) = control
        .shell("read line; echo \"got $line\"; echo complaint >&2; exec 2>&-; read line; echo \"and $line\"")
        .await;
    let mut stdio = gateway.stdio(&token).await;
    control.started(id).await;
    stdio.write(b"one\n").await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let frame = within(read_frame(&mut stdio.reader)).await.unwrap().unwrap();
        seen.push((frame.stream, String::from_utf8(frame.payload).unwrap()));
    }
    seen.sort_by_key(|(stream, text)| (stream.number(), text.is_empty()));
    let expected = [
        (Stream::Stdout, "got one\n"),
        (Stream::Stderr, "complaint\n"),
        (Stream::Stderr, ""),
    ];
    assert_eq!(seen, expected.map(|(stream, text)| (stream, text.to_owned())));
    stdio.write(b"two\n").await;
    assert_eq!(stdio.line().await, "and two");
    assert_eq!(control.exited(id).await, (Some(0), None));
}

#[tokio::test]
async fn a_megabyte_and_more_arrives_intact() {
    let (gateway, _inside, mut control) = connected().await;
    let (id, token) = control.spawn(&["cat"], "/").await;
    let mut stdio = gateway.stdio(&token).await;
    control.started(id).await;
    let sent: Vec<u8> = (0..3_000_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let writing = async {
        for part in sent.chunks(100_000) {
            write_frame(&mut stdio.writer, Stream::Stdin, part).await.unwrap();
        }
        write_frame(&mut stdio.writer, Stream::Stdin, b"").await.unwrap();
    };
    let reading = async {
        let mut read = Vec::new();
        loop {
            let frame = read_frame(&mut stdio.reader).await.unwrap().unwrap();
            match (frame.stream, frame.payload.is_empty()) {
                // Either stream may end first.
                (Stream::Stderr, true) => {}
                (Stream::Stdout, true) => return read,
                (stream, _) => assert_eq!(stream, Stream::Stdout),
            }
            read.extend(frame.payload);
        }
    };
    let ((), read) = within(async { tokio::join!(writing, reading) }).await;
    assert!(read == sent, "{} of {} bytes", read.len(), sent.len());
    assert_eq!(control.exited(id).await, (Some(0), None));
}

#[tokio::test]
async fn a_flood_is_slowed_and_not_buffered() {
    let (gateway, inside, mut control) = connected().await;
    let before = inside.memory();
    let (id, token) = control.spawn(&["sh", "-c", "exec dd if=/dev/zero bs=65536"], "/").await;
    let mut stdio = gateway.stdio(&token).await;
    let pid = control.started(id).await;
    let written = || {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        io.lines()
            .find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok())
            .unwrap_or_default()
    };
    // It stands still when all that lies between it and the worker is full: no more was written in a while.
    let mut last = 0;
    within(async {
        loop {
            let now = written();
            if now > 0 && now == last {
                break;
            }
            last = now;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    })
    .await;
    let after = inside.memory();
    assert!(last < 2 << 20, "{last} bytes are on their way");
    assert!(after < before + 512, "{before} kB grew to {after} kB");
    // And it goes on as soon as it is read.
    let mut read = 0;
    while read < 8 << 20 {
        let frame = within(read_frame(&mut stdio.reader)).await.unwrap().unwrap();
        assert!(frame.payload.iter().all(|byte| *byte == 0));
        read += frame.payload.len();
    }
    let after = inside.memory();
    assert!(after < before + 512, "{before} kB grew to {after} kB");
    control.order(cofferdam_inside::Order::Signal { id, signal: 9 }).await;
    assert_eq!(control.exited(id).await, (None, Some(9)));
}

#[tokio::test]
async fn a_process_that_does_not_read_does_not_block_its_exit_or_its_output() {
    let (gateway, _inside, mut control) = connected().await;
    let (id, token) = control.shell("exec 0<&-; echo deaf; sleep 0.2; exit 9").await;
    let mut stdio = gateway.stdio(&token).await;
    control.started(id).await;
    assert_eq!(stdio.line().await, "deaf");
    // More than any pipe or socket holds: all of it is taken off the wire nevertheless.
    for _ in 0..40 {
        stdio.write(&[b'x'; 65_536]).await;
    }
    assert_eq!(control.exited(id).await, (Some(9), None));
    stdio.read_all().await;
}

#[tokio::test]
async fn closing_ends_stdin_and_breaks_the_output() {
    let (gateway, _inside, mut control) = connected().await;
    // Reads the end of its stdin, which the worker never sent.
    let (id, token) = control.shell("cat; exit 4").await;
    let stdio = gateway.stdio(&token).await;
    control.started(id).await;
    drop(stdio);
    assert_eq!(control.exited(id).await, (Some(4), None));
    // Would write for ever.
    let (id, token) = control.spawn(&["yes"], "/").await;
    let stdio = gateway.stdio(&token).await;
    control.started(id).await;
    drop(stdio);
    assert_eq!(control.exited(id).await, (None, Some(13)));
}

#[tokio::test]
async fn a_broken_agreement_closes_the_connection_only() {
    let (gateway, _inside, mut control) = connected().await;
    let violations: [&[u8]; 4] = [
        &[1, 0, 0, 0, 1, b'x'],
        &[9, 0, 0, 0, 0],
        &[0, 0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'x'],
    ];
    for violation in violations {
        let (id, token) = control.shell("cat; echo more; exit 6").await;
        let mut stdio = gateway.stdio(&token).await;
        control.started(id).await;
        within(stdio.writer.write_all(violation)).await.unwrap();
        let (code, signal) = control.exited(id).await;
        assert!(code == Some(6) || signal == Some(13), "{code:?} {signal:?}");
    }
    let (id, token) = control.shell("exit 1").await;
    let _stdio = gateway.stdio(&token).await;
    control.started(id).await;
    assert_eq!(control.exited(id).await, (Some(1), None));
}
